"""The share of each mask in each other, against decoded arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from mask_tree.nested import mask_lists, regions_of

from ureca_lib.mask_tree import containment_matrix
from ureca_lib.regions import Region, SizeMismatchError


def by_counting(masks: list[np.ndarray]) -> np.ndarray:
    flat = np.reshape(masks, (len(masks), -1)).astype(np.int64)  # (R, H, W) -> (R, H * W)
    return (flat @ flat.T) / flat.sum(axis=1)[:, None]


@settings(deadline=None, max_examples=100)
@given(mask_lists(most=12))
def test_it_is_exact(masks):
    found = containment_matrix(regions_of(masks))
    assert found.shape == (len(masks), len(masks)) and found.dtype == np.float64
    if masks:
        assert (found == by_counting(masks)).all()  # to the last bit
        assert (np.diag(found) == 1).all()


def test_rows_are_the_contained_and_columns_the_containers():
    whole, half = np.ones((4, 4), bool), np.ones((4, 4), bool)
    half[:, 2:] = False
    assert containment_matrix(regions_of([whole, half])).tolist() == [[1, 0.5], [1, 1]]


def test_a_hole_is_no_part_of_a_mask():
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    inside = ~ring
    assert containment_matrix(regions_of([ring, inside])).tolist() == [[1, 0], [0, 1]]


def test_interlaced_masks_with_one_box_do_not_touch():
    board = np.indices((9, 9)).sum(axis=0) % 2 == 0
    assert containment_matrix(regions_of([board, ~board])).tolist() == [[1, 0], [0, 1]]


def test_empty_runs_in_a_file_change_nothing():
    rles = ([3, 0, 2, 4, 3], [3, 0, 2, 4, 3, 0, 0], [5, 1, 0, 3, 3])
    regions = [Region(i, {"size": [4, 3], "counts": runs}) for i, runs in enumerate(rles)]
    assert (containment_matrix(regions) == 1).all()


@pytest.mark.parametrize("count", [64, 65, 129, 256, 300, 600])
def test_more_masks_than_a_block_or_a_byte_holds(count):
    generator = np.random.default_rng(count)
    masks = [generator.random((12, 14)) < generator.uniform(0.1, 0.9) for _ in range(count)]
    assert (containment_matrix(regions_of(masks)) == by_counting(masks)).all()


def test_large_masks_are_exact_too():
    masks = []
    for start, stop in ((0, 2999), (1, 3000), (7, 2993), (1000, 1001)):
        mask = np.zeros((3000, 3000), bool)
        mask[start:stop, start:stop] = True
        masks.append(mask)
    matrix = containment_matrix(regions_of(masks))
    shared = [[(masks[i] & masks[j]).sum() for j in range(4)] for i in range(4)]
    areas = np.array([mask.sum() for mask in masks])
    assert (matrix == np.array(shared) / areas[:, None]).all()


def test_regions_may_come_from_a_generator():
    masks = [np.ones((2, 2), bool)] * 2
    assert containment_matrix(region for region in regions_of(masks)).tolist() == [[1, 1], [1, 1]]


def test_masks_of_two_sizes_are_not_of_one_image():
    regions = [Region.from_mask(5, np.ones((4, 3))), Region.from_mask("b", np.ones((3, 4)))]
    with pytest.raises(SizeMismatchError, match=r"region b: the mask is 4 x 3 but .* 3 x"):
        containment_matrix(regions)


def test_nothing_is_decoded(monkeypatch):
    regions = regions_of([np.ones((4, 4), bool), np.eye(4, dtype=bool)])

    def refuse(*arguments):
        raise AssertionError("a mask was decoded")

    monkeypatch.setattr("pycocotools.mask.decode", refuse)
    monkeypatch.setattr(Region, "mask", property(refuse))
    assert containment_matrix(regions).tolist() == [[1, 0.25], [1, 1]]
