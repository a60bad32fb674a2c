"""`MaskTree`: its walks, its main objects, and what it looks like as data and as text."""

from __future__ import annotations

import json

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
from ureca_lib.regions import AnnotationFormatError, Region, RegionError


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


# as data


@settings(deadline=None, max_examples=60)
@given(trees(), st.lists(st.none() | st.text(max_size=6), min_size=9, max_size=9))
def test_a_tree_comes_back_from_json(tree, names):
    for region, name in zip(tree.regions, names, strict=False):
        region.name = name
    again = MaskTree.from_dict(json.loads(json.dumps(tree.to_dict())))
    assert again == tree
    assert repr(again) == repr(tree)
    assert [r.id for r in again.top_down()] == [r.id for r in tree.top_down()]
    assert [r.bbox for r in again.regions] == [r.bbox for r in tree.regions]
    around = MaskTree.from_dict(tree.to_dict(), regions=tree.regions)
    assert around == tree
    assert all(a is b for a, b in zip(around.regions, tree.regions, strict=True))


def test_settings_ids_boxes_and_crowds_come_back():
    rle = {"size": [4, 3], "counts": [4, 8]}
    regions = [Region("a", rle, bbox=[1, 2, 3.5, 4], crowd=True), Region(2**70, rle, name="é")]
    tree = build_mask_tree(regions, np.float32(0.5), "first")
    again = MaskTree.from_dict(json.loads(json.dumps(tree.to_dict())))
    assert (again.threshold, again.parent_rule) == (0.5, "first")
    assert again.parent(2**70) == "a" and again[2**70].name == "é"
    assert again["a"].bbox == (1, 2, 3.5, 4) and again["a"].crowd


def test_trees_are_equal_when_regions_and_parents_are():
    assert family() == family()
    other = MaskTree(family().regions, {1: None, 2: 1, 3: 1, 4: 2, 5: 2, 6: 1})
    assert family() != other and family() != "tree"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"parents": [[1, 2], [2, 1], [3, 1], [4, 2], [5, 2], [6, None]]}, "a cycle among 1, 2, 3"),
        ({"parents": [[1, 1], [2, 1], [3, 1], [4, 2], [5, 2], [6, None]]}, "a cycle among 1, 2, 3"),
        (
            {"parents": [[1, 9], [2, 1], [3, 1], [4, 2], [5, 2], [6, None]]},
            "the parent 9 of region 1",
        ),
        ({"parents": [[1, None]]}, "not of the same ids: 2, 3, 4, 5, 6"),
        ({"parents": [[i, None] for i in range(1, 8)]}, "not of the same ids: 7"),
        (
            {"parents": [["1", None], *([i, None] for i in range(2, 7))]},
            "not of the same ids: 1, 1",
        ),
        ({"parents": [[1, [2]], *([i, None] for i in range(2, 7))]}, "the parent"),
        ({"parents": {"1": None}}, "not that of a tree"),
        ({"parents": None}, "not that of a tree"),
        ({"parents": [1, 2]}, "not that of a tree"),
        ({"parents": [[1, 2, 3]]}, "not that of a tree"),
        ({"parents": [[1, None], *([i, 1] for i in range(1, 7))]}, "a region two parents"),
        ({"parents": ...}, "no 'parents'"),
        ({"regions": ...}, "no 'regions'"),
        ({"regions": 5}, "not that of a tree"),
        ({"regions": [{}]}, "no 'id'"),
        ({"regions": [5]}, "the entry is int, not an object"),
        ({"threshold": ...}, "no 'threshold'"),
        ({"threshold": "high"}, "not that of a tree"),
        ({"parent_rule": ...}, "no 'parent_rule'"),
    ],
)
def test_data_that_is_no_tree_is_named(change, reason):
    data = {k: v for k, v in {**family().to_dict(), **change}.items() if v is not ...}
    with pytest.raises(ValueError, match=reason):
        MaskTree.from_dict(data)


def test_a_bad_mask_in_the_data_is_named():
    data = family().to_dict()
    data["regions"][2]["segmentation"]["counts"] = "zz"
    with pytest.raises(AnnotationFormatError, match="region 3: the encoding") as caught:
        MaskTree.from_dict(data)
    assert isinstance(caught.value, RegionError)


@pytest.mark.parametrize("data", [None, 5, [], "tree"])
def test_what_is_no_object_is_no_tree(data):
    with pytest.raises(ValueError, match="not that of a tree"):
        MaskTree.from_dict(data)


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
    assert MaskTree.from_dict(empty.to_dict()) == empty
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
    assert len(flat.outline().splitlines()) == 601
    assert "two lines [1]" in flat.outline()
