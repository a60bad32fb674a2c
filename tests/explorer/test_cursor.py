"""Walking the tree: up and down again comes back, siblings go round."""

from __future__ import annotations

import pytest
from explorer.speakers import nested_image

from ureca_lib.explorer.cursor import TreeCursor
from ureca_lib.mask_tree import build_mask_tree


@pytest.fixture
def cursor():
    return TreeCursor(build_mask_tree(nested_image().regions))


def test_the_path_goes_from_the_image_to_the_region(cursor):
    cursor.move_to(4)
    assert cursor.path() == [5, 1, 3, 4]
    assert cursor.label(4) == "knob [4]"
    assert cursor.label(None) == "image"


def test_up_ends_at_the_image_and_down_comes_back(cursor):
    cursor.move_to(3)
    seen = []
    for _ in range(4):
        cursor.up()
        seen.append(cursor.region_id)
    assert seen == [1, 5, None, None]
    for _ in range(3):
        cursor.down()
    assert cursor.region_id == 3


def test_down_from_new_ground_takes_the_largest_child_and_stops_at_a_leaf(cursor):
    cursor.down()
    assert cursor.region_id == 5
    cursor.move_to(4)
    cursor.down()
    assert cursor.region_id == 4


def test_siblings_go_round_from_large_to_small(cursor):
    cursor.move_to(5)
    cursor.aside(1)
    assert cursor.region_id == 2
    cursor.aside(1)
    assert cursor.region_id == 5
    cursor.aside(-1)
    assert cursor.region_id == 2


def test_from_the_image_there_is_no_aside(cursor):
    cursor.aside(1)
    assert cursor.region_id is None


def test_an_unknown_region_is_refused_and_one_stays(cursor):
    cursor.move_to(2)
    with pytest.raises(KeyError, match="no region 99"):
        cursor.move_to(99)
    assert cursor.region_id == 2
