"""Rows (and columns) that regions stand in, where they clearly do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_LEAST = 6  # regions, under which nobody speaks of rows
_SPLIT = 0.5  # of the median extent: a larger gap between centres starts a new row


def row_numbers(centers: np.ndarray, boxes: np.ndarray, axis: int) -> np.ndarray | None:
    """The row (or column) of each region, or None where they do not clearly stand in rows.

    Rows are runs of sorted centres, split at large gaps. They are clear when at least two, and
    most of them, have two regions or more, each is thinner than the smallest gap between two
    rows, and the regions of a row stand beside each other.

    Args:
        centers: (R, 2) x and y in pixels.
        boxes: (R, 4) x, y, columns, rows in pixels.
        axis: 1 for rows, which are split along y, 0 for columns.

    Returns:
        (R,) int, 1 for the topmost row or leftmost column.
    """
    if len(centers) < _LEAST:
        return None
    across = centers[:, axis]
    order = np.argsort(across, kind="stable")
    gaps = np.diff(across[order])
    split = gaps > _SPLIT * np.median(boxes[:, 2 + axis])
    rows = np.split(order, np.flatnonzero(split) + 1)
    several = sum(len(row) > 1 for row in rows)
    if several < 2 or several <= len(rows) / 2:
        return None
    if gaps[split].min() <= max(np.ptp(across[row]) for row in rows):
        return None
    if not all(_beside(boxes[row, 1 - axis], boxes[row, 3 - axis]) for row in rows):
        return None
    numbers = np.empty(len(centers), np.int64)
    for number, row in enumerate(rows, 1):
        numbers[row] = number
    return numbers


def _beside(starts: np.ndarray, extents: np.ndarray) -> bool:
    order = np.argsort(starts, kind="stable")
    return all(starts[one] + extents[one] <= starts[other] for one, other in pairwise(order))
