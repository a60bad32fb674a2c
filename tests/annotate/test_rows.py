"""Rows are found where there are rows, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from ureca_lib.annotate.referring.predicates import row_numbers


def grid(rows: int, columns: int, jitter: int = 0, seed: int = 0):
    """Boxes of rows x columns squares of side 10, 30 px apart, and the row of each."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:rows, :columns].reshape(2, -1) * 30
    corner = np.stack([xs, ys], 1) + rng.integers(-jitter, jitter + 1, (rows * columns, 2))
    return np.concatenate([corner, np.full((rows * columns, 2), 10)], 1), ys // 30


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("jitter", [0, 2])
def test_a_grid_stands_in_rows(jitter, seed):
    boxes, expected = grid(3, 5, jitter, seed)
    order = np.random.default_rng(seed).permutation(15)
    assert (row_numbers(boxes[order]) == expected[order] + 1).all()


def test_few_regions_and_single_rows_are_no_rows():
    assert row_numbers(grid(2, 2)[0]) is None
    assert row_numbers(grid(1, 8)[0]) is None
    assert row_numbers(grid(8, 1)[0]) is None


def test_a_slope_is_no_row():
    steps = np.arange(12)
    corner = np.stack([steps * 30, steps * 3], 1)
    boxes = np.concatenate([corner, np.full((12, 2), 10)], 1)
    assert row_numbers(boxes) is None
    lower = boxes + np.array([0, 100, 0, 0])  # two slopes, one below the other
    assert row_numbers(np.concatenate([boxes, lower])) is None


def test_regions_that_overlap_do_not_stand_beside_each_other():
    boxes, _ = grid(3, 4)
    boxes[:, 2] = 40
    assert row_numbers(boxes) is None
