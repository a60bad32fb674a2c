"""Both parent rules, against vectors of the published code and against decoded arrays."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_tree.nested import (
    THRESHOLDS,
    first_parents,
    insertion_order,
    mask_lists,
    regions_of,
    smallest_parents,
)

from ureca_lib.mask_tree import CONTAINMENT_THRESHOLD, build_mask_tree
from ureca_lib.regions import AnnotationFormatError, Region, SizeMismatchError, load_sa1b

RULES = {"smallest": smallest_parents, "first": first_parents}


def parents_of(tree) -> dict:
    return {region.id: tree.parent(region.id) for region in tree.regions}


def box(top: int, left: int, bottom: int, right: int, size: int = 10) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("rule", "column"), [("smallest", "smallest_container"), ("first", "parents")]
)
def test_every_file_of_the_published_vectors(peer, rule, column):
    files = sorted((peer / "mask_tree").glob("sa_?.json"))
    assert len(files) == 5
    for file in files:
        expected = json.loads(file.with_name(f"{file.stem}_expected.json").read_text())
        regions = load_sa1b(file).regions
        tree = build_mask_tree(regions, expected["threshold"], rule)
        wanted = {int(i): None if p == -1 else p for i, p in expected[column].items()}
        assert parents_of(tree) == wanted
        assert len(wanted) == len(regions)


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=100)
@given(masks=mask_lists(), threshold=THRESHOLDS)
def test_a_tree_is_what_its_definition_says(rule, masks, threshold):
    regions = regions_of(masks)
    tree = build_mask_tree(regions, float(threshold), rule)
    ids = [region.id for region in regions] + [None]
    expected = RULES[rule](masks, threshold)
    wanted = {ids[i]: ids[-1 if p is None else p] for i, p in expected.items()}
    assert parents_of(tree) == wanted
    assert tree.regions == regions
    children = {ids[i]: [] for i in range(-1, len(masks))}
    for place in insertion_order(masks):
        children[wanted[ids[place]]].append(ids[place])
    assert {i: tree.children(i) for i in ids} == children


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=60)
@given(masks=mask_lists(), data=st.data())
def test_without_ties_the_order_given_does_not_matter(rule, masks, data):
    areas = [mask.sum() for mask in masks]
    regions = [r for i, r in enumerate(regions_of(masks)) if areas.index(areas[i]) == i]
    shuffled = data.draw(st.permutations(regions))
    tree, other = build_mask_tree(regions, 0.5, rule), build_mask_tree(shuffled, 0.5, rule)
    assert parents_of(tree) == parents_of(other)
    assert [region.id for region in tree.top_down()] == [region.id for region in other.top_down()]


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=60)
@given(masks=mask_lists())
def test_the_same_list_gives_the_same_tree(rule, masks):
    one, two = (build_mask_tree(regions_of(masks), 0.6, rule) for _ in range(2))
    assert one == two and repr(one) == repr(two)
    assert [r.id for r in one.top_down()] == [r.id for r in two.top_down()]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("held", "area", "threshold"),
    [
        (4, 5, 0.8),
        (8, 10, 0.8),
        (7, 10, 0.7),
        (3, 10, 0.3),
        (1, 3, 1 / 3),
        (9, 9, 1.0),
        (9, 10, 0.9),
    ],
)
def test_a_threshold_that_is_met_exactly_is_met(rule, held, area, threshold):
    whole, part = np.zeros((30, 2), bool), np.zeros((30, 2), bool)
    part[:area, 0] = True
    whole[:held, 0], whole[:20, 1] = True, True
    tree = build_mask_tree(regions_of([part, whole]), threshold, rule)
    assert tree.parent(97) == 90
    above = build_mask_tree(regions_of([part, whole]), min(1.0, threshold + 1e-9), rule)
    assert above.parent(97) == (90 if threshold == 1 else None)


@pytest.mark.parametrize("rule", RULES)
def test_identical_masks_hang_in_a_chain_in_the_order_given(rule):
    regions = [Region.from_mask(i, np.eye(4)) for i in (5, 3, 9)]
    assert parents_of(build_mask_tree(regions, parent_rule=rule)) == {5: None, 3: 5, 9: 3}
    assert parents_of(build_mask_tree(regions[::-1], parent_rule=rule)) == {9: None, 3: 9, 5: 3}


@pytest.mark.parametrize("rule", RULES)
def test_disjoint_masks_all_lie_in_the_image(rule):
    masks = [box(0, 0, 3, 3), box(5, 5, 9, 9), box(0, 5, 2, 7)]
    assert set(parents_of(build_mask_tree(regions_of(masks), 1e-9, rule)).values()) == {None}


@pytest.mark.parametrize("rule", RULES)
def test_what_lies_in_a_hole_is_no_part_of_the_ring(rule):
    ring = box(0, 0, 10, 10) & ~box(2, 2, 8, 8)
    inside, rim = box(3, 3, 7, 7), box(0, 0, 2, 5)
    tree = build_mask_tree(regions_of([ring, inside, rim]), parent_rule=rule)
    assert parents_of(tree) == {97: None, 90: None, 83: 97}


def test_the_rules_differ_where_a_sibling_that_came_first_holds_enough_too():
    # the part lies in the small whole, and to 80% in the large one beside it, which is first
    large, small = box(0, 0, 10, 6), box(0, 2, 5, 10)
    part = box(0, 2, 2, 7)
    regions = regions_of([large, small, part])
    assert build_mask_tree(regions).parent(83) == 90
    assert build_mask_tree(regions, parent_rule="first").parent(83) == 97


def test_a_parent_that_holds_enough_of_a_part_need_not_hold_its_whole():
    # smallest: the container is found although its own parent does not hold the part
    outer, middle, part = box(0, 0, 10, 8), box(0, 6, 4, 10) | box(0, 0, 4, 6), box(0, 7, 2, 10)
    regions = regions_of([outer, middle, part])
    smallest = build_mask_tree(regions, 0.8)
    assert parents_of(smallest) == {97: None, 90: 97, 83: 90}
    first = build_mask_tree(regions, 0.8, "first")
    assert parents_of(first) == {97: None, 90: 97, 83: None}


def test_the_default_is_the_published_threshold():
    assert CONTAINMENT_THRESHOLD == 0.8
    tree = build_mask_tree(regions_of([box(0, 0, 4, 4)]))
    assert (tree.threshold, tree.parent_rule) == (0.8, "smallest")


def test_no_region_and_one_region():
    assert len(build_mask_tree([])) == 0
    tree = build_mask_tree([Region.from_mask("only", np.ones((3, 3)))])
    assert parents_of(tree) == {"only": None}


@pytest.mark.parametrize("rule", RULES)
def test_600_masks(rule):
    generator = np.random.default_rng(0)
    masks = []
    for _ in range(600):
        top, left = generator.integers(0, 25, 2)
        masks.append(box(top, left, top + generator.integers(1, 20), left + 9, size=40))
    regions = regions_of(masks)
    expected = RULES[rule](masks, Fraction(4, 5))
    ids = [region.id for region in regions]
    wanted = {ids[i]: None if p is None else ids[p] for i, p in expected.items()}
    assert parents_of(build_mask_tree(regions, 0.8, rule)) == wanted


def test_a_chain_of_600_masks():
    masks = [np.arange(625).reshape(25, 25) <= i for i in range(600)]
    tree = build_mask_tree(regions_of(masks))
    assert tree.height() == 600 and len(tree.ancestors(97)) == 599


def test_regions_may_come_from_a_generator():
    regions = regions_of([box(0, 0, 9, 9), box(0, 0, 5, 5)])
    assert build_mask_tree(region for region in regions) == build_mask_tree(regions)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.0001, 80, float("nan"), float("inf")])
def test_a_threshold_is_above_0_and_at_most_1(threshold):
    with pytest.raises(ValueError, match="threshold must be above 0 and at most 1"):
        build_mask_tree([], threshold)


@pytest.mark.parametrize("rule", ["largest", "", None, "First"])
def test_an_unknown_rule_is_named(rule):
    with pytest.raises(ValueError, match=f"'smallest' or 'first', not {rule!r}"):
        build_mask_tree([], parent_rule=rule)


def test_regions_that_are_not_of_one_image_are_named():
    ones = np.ones((3, 3))
    with pytest.raises(AnnotationFormatError, match="region 5: another region has this id"):
        build_mask_tree([Region.from_mask(5, ones), Region.from_mask(5, np.eye(3))])
    with pytest.raises(SizeMismatchError, match="region 6"):
        build_mask_tree([Region.from_mask(5, ones), Region.from_mask(6, np.ones((3, 4)))])
