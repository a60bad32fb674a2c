"""The names of images and regions in a data set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ureca_lib.annotate.export import region_row_id
from ureca_lib.datasets.captioned import image_keys
from ureca_lib.datasets.published import published_keys


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["photos/a.json", "b.json"], ["a", "b"]),
        (["x/a.json", "y/a.json", "b.json"], ["x/a", "y/a", "b"]),
        (["../x/a.json", "../y/a.json"], ["x/a", "y/a"]),
        (["../x/a.json", "x/a.json"], ["../x/a", "x/a"]),
        (["a.json", "a.png"], ["a.json", "a.png"]),
        (["sa_1.b.json"], ["sa_1.b"]),
        (["x.json", "x.png", "x.json.json"], ["x.json", "x.png", "x.json.json"]),
        ([], []),
    ],
)
def test_keys_are_the_shortest_that_tell_images_apart(names, keys):
    assert image_keys(names) == dict(zip(names, keys, strict=True))


PART = st.sampled_from(["a", "b", "..", "a.b", "a.json", "x.json", "x.png", "x.json.json", "x"])


@given(st.lists(st.lists(PART, min_size=1, max_size=3).map("/".join), unique=True, max_size=6))
def test_no_two_images_have_one_key(names):
    keys = image_keys(names)
    assert list(keys) == names and len(set(keys.values())) == len(names)


@pytest.mark.parametrize(
    ("region_id", "row_id"),
    [
        (523353737, "sa_1_523353737"),
        (-3, "sa_1_-3"),
        ("left eye", "sa_1_left eye"),
        ("7", 'sa_1_"7"'),
        ("a_2", 'sa_1_"a_2"'),
        ("", 'sa_1_""'),
        ("größe", "sa_1_größe"),
        ('"7"', 'sa_1_"\\"7\\""'),
    ],
)
def test_ids_of_regions(region_id, row_id):
    assert region_row_id("sa_1", region_id) == row_id


KEY = st.text(st.sampled_from('a1_"/ \\'), min_size=1, max_size=4)
REGION = st.integers(-2, 12) | st.text(st.sampled_from('a1_"-\\ '), max_size=4)


@given(st.lists(st.tuples(KEY, REGION), unique=True, min_size=2, max_size=12))
def test_no_two_regions_have_one_id(pairs):
    assert len({region_row_id(*pair) for pair in pairs}) == len(pairs)


def test_images_of_a_published_file_go_by_what_tells_them_apart():
    by_photo = [("x/a.jpg", "m.json"), ("b.jpg", "m.json"), ("x/a.jpg", "m.json")]
    assert list(published_keys(by_photo).values()) == ["a", "b"]
    by_masks = [("a.jpg", "m.json"), ("a.jpg", "n.json")]
    assert list(published_keys(by_masks).values()) == ["m", "n"]
    by_both = [*by_masks, ("b.jpg", "m.json")]
    found = published_keys(by_both)
    assert list(found) == by_both and len(set(found.values())) == 3
