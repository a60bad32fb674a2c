"""`MaskTree`: its walks, its main objects, and what it looks like as text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_tree.nested import mask_lists, regions_of

from ureca_lib.mask_tree import (
    PAPER_MAX_AREA,
    PAPER_MIN_AREA,
    PAPER_MIN_HEIGHT,
    MaskTree,
    build_mask_tree,
)
from ureca_lib.regions import AnnotationFormatError, Region


@st.composite
def trees(draw) -> MaskTree:
    """Any tree shape, whatever the masks: parents are drawn, not computed."""
    regions = regions_of(draw(mask_lists()))
    order = draw(st.permutations(regions))
    parents = {
        region.id: draw(st.sampled_from([None, *(other.id for other in order[:place])]))
        for place, region in enumerate(order)
    }
    return MaskTree(regions, parents)


def family() -> MaskTree:
    """A body (1) with an arm (2) that has a hand (4) and a sleeve (5), a leg (3); a tree (6)."""
    areas = {1: 60, 2: 12, 3: 15, 4: 3, 5: 4, 6: 20}
    names = {1: "body", 2: "arm", 3: "leg", 4: "hand", 6: "tree"}
    regions = []
    for i, area in areas.items():
        mask = np.arange(100).reshape(10, 10) < area
        regions.append(Region.from_mask(i, mask, names.get(i)))
    return MaskTree(regions, {1: None, 2: 1, 3: 1, 4: 2, 5: 2, 6: None}, 0.8, "smallest")


def by_steps_up(tree: MaskTree, region_id) -> list:
    steps = []
    while (region_id := tree.parent(region_id)) is not None:
        steps.append(region_id)
    return steps


@settings(deadline=None, max_examples=100)
@given(trees())
def test_family_relations_agree_with_the_parents(tree):
    ids = [region.id for region in tree.regions]
    for i in [None, *ids]:
        below = [other for other in ids if i in (*by_steps_up(tree, other), None)]
        direct = [other for other in ids if tree.parent(other) == i]
        assert sorted(tree.children(i)) == sorted(direct)
        assert sorted(tree.descendants(i)) == sorted(below)
        areas = [tree[child].area for child in tree.children(i)]
        assert areas == sorted(areas, reverse=True)
        heights = [tree.height(child) for child in direct]
        if i is None:
            assert tree.depth(i) == 0 and tree.height() == max(heights, default=0)
        else:
            assert tree.ancestors(i) == by_steps_up(tree, i)
            assert tree.depth(i) == 1 + len(by_steps_up(tree, i))
            assert tree.height(i) == 1 + max(heights, default=0)
            others = tree.children(tree.parent(i))
            assert tree.siblings(i) == [other for other in others if other != i]


@settings(deadline=None, max_examples=100)
@given(trees())
def test_walks_visit_every_region_once_parents_first_or_last(tree):
    down = [region.id for region in tree.top_down()]
    up = [region.id for region in tree.bottom_up()]
    assert sorted(down) == sorted(up) == sorted(region.id for region in tree.regions)
    assert all(isinstance(region, Region) for region in tree.top_down())
    for i in down:
        for child in tree.children(i):
            assert down.index(i) < down.index(child)
            assert up.index(child) < up.index(i)
    depths = [tree.depth(i) for i in down]
    assert depths == sorted(depths)  # level by level


def test_a_family():
    tree = family()
    assert len(tree) == 6 and 4 in tree and 7 not in tree and None not in tree
    assert [region.id for region in tree.top_down()] == [1, 6, 3, 2, 5, 4]
    assert [region.id for region in tree.bottom_up()] == [4, 5, 2, 3, 6, 1]
    assert tree.children() == [1, 6] and tree.children(2) == [5, 4] and tree.children(4) == []
    assert tree.siblings(4) == [5] and tree.siblings(1) == [6]
    assert (tree.depth(None), tree.depth(1), tree.depth(4)) == (0, 1, 3)
    assert (tree.height(4), tree.height(2), tree.height(1), tree.height(6)) == (1, 2, 3, 1)
    assert tree.height() == 3
    assert tree.ancestors(4) == [2, 1] and tree.ancestors(6) == []
    assert tree.descendants(1) == [3, 2, 5, 4] and tree.descendants() == [1, 6, 3, 2, 5, 4]
    assert tree[4].name == "hand"


def test_the_lists_are_copies():
    tree = family()
    tree.children().clear()
    tree.children(2).append(9)
    assert tree.children() == [1, 6] and tree.children(2) == [5, 4]


@pytest.mark.parametrize("name", ["parent", "children", "siblings", "ancestors", "depth", "height"])
def test_an_id_that_is_not_in_the_tree_is_a_key_error(name):
    with pytest.raises(KeyError, match="99"):
        getattr(family(), name)(99)


@settings(deadline=None, max_examples=100)
@given(trees(), st.integers(0, 4), st.integers(0, 63), st.integers(0, 63))
def test_main_objects_are_the_images_children_of_that_size_and_height(tree, height, low, high):
    found = tree.main_objects(height, low / 63, high / 63)
    expected = []
    for region in tree.regions:
        below = [d for d in tree.descendants(region.id) if not tree.children(d)]
        levels = max((tree.depth(leaf) for leaf in below), default=1)
        pixels = int(region.mask.sum())
        if tree.parent(region.id) is None and levels >= height and low <= pixels <= high:
            expected.append(region.id)
    assert sorted(region.id for region in found) == sorted(expected)
    areas = [region.area for region in found]
    assert areas == sorted(areas, reverse=True)
    everything = [region.id for region in tree.main_objects()]
    assert everything == tree.children()


@pytest.mark.parametrize(
    ("area", "levels", "main"),
    [
        (7, 4, True),  # 0.7% of 1000 pixels
        (6, 4, False),
        (700, 4, True),
        (701, 4, False),
        (100, 3, False),
        (100, 5, True),
        (999, 3, False),
    ],
)
def test_the_papers_main_objects(area, levels, main):
    assert (PAPER_MIN_HEIGHT, PAPER_MIN_AREA, PAPER_MAX_AREA) == (4, 0.007, 0.7)
    pixels = np.arange(1000).reshape(25, 40)
    regions = [Region.from_mask(level, pixels < area - level) for level in range(levels)]
    chain = {level: level - 1 if level else None for level in range(levels)}
    tree = MaskTree(regions, chain)
    assert tree.height(0) == levels
    assert [region.id for region in tree.main_objects(paper=True)] == ([0] if main else [])
    given_values = tree.main_objects(min_height=4, min_area=0.007, max_area=0.7)
    assert tree.main_objects(paper=True) == given_values


def test_trees_are_equal_when_regions_and_parents_are():
    assert family() == family()
    other = MaskTree(family().regions, {1: None, 2: 1, 3: 1, 4: 2, 5: 2, 6: 1})
    assert family() != other and family() != "tree"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({1: 2}, "a cycle among 1, 2, 3"),
        ({1: 1}, "a cycle among 1, 2, 3"),
        ({1: 9}, "the parent 9 of region 1"),
        ({7: None}, "not of the same ids: 7"),
        ({"1": None}, "not of the same ids: 1"),
    ],
)
def test_parents_that_make_no_tree_are_named(change, reason):
    parents = {1: None, 2: 1, 3: 1, 4: 2, 5: 2, 6: None}
    with pytest.raises(ValueError, match=reason):
        MaskTree(family().regions, parents | change)
    with pytest.raises(ValueError, match="not of the same ids: 2, 3, 4, 5, 6"):
        MaskTree(family().regions, {1: None})


def test_an_id_stands_once():
    region = Region.from_mask(5, np.ones((2, 2)))
    with pytest.raises(AnnotationFormatError, match="region 5: another region has this id"):
        MaskTree([region, region], {5: None})


# as text


def test_the_repr_shows_names_ids_shares_and_levels():
    assert repr(family()).splitlines() == [
        "MaskTree of 6 regions, 3 levels (threshold 0.8, parent rule 'smallest')",
        "image",
        "  body [1] 60%",
        "    leg [3] 15%",
        "    arm [2] 12%",
        "      [5] 4%",
        "      hand [4] 3%",
        "  tree [6] 20%",
    ]


def test_no_region_and_one_region():
    empty = build_mask_tree([])
    assert repr(empty).splitlines()[1:] == ["image"]
    assert list(empty.top_down()) == [] == empty.main_objects(paper=True) == empty.children()
    assert (empty.height(), len(empty)) == (0, 0)
    one = build_mask_tree([Region.from_mask("x", np.ones((2, 2)))])
    assert repr(one).splitlines()[1:] == ["image", "  [x] 100%"]
    assert (one.height(), one.depth("x"), one.siblings("x")) == (1, 1, [])


def test_the_repr_is_bounded():
    masks = [np.arange(900).reshape(30, 30) <= i for i in range(600)]
    names = ["a very long name " * 500, "two\nlines", None]
    regions = [Region.from_mask(i, m, names[i % 3]) for i, m in enumerate(masks)]
    flat = MaskTree(regions, {region.id: None for region in regions})
    chain = build_mask_tree(regions)
    for tree in (flat, chain):
        lines = repr(tree).splitlines()
        assert len(lines) == 43 and lines[-1].strip() == "... and 560 more"
        assert max(map(len, lines)) < 200
    assert chain.height() == 600
    assert "two lines [598]" in repr(flat)
