"""Rows (and columns) that regions stand in, where they clearly do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_LEAST = 6  # regions, under which nobody speaks of rows


def row_numbers(centers: np.ndarray, extents: np.ndarray) -> np.ndarray | None:
    """The row of each region, or None where they do not clearly stand in rows.

    Rows are runs of centres, sorted, that are split where the gap is more than half of the median
    extent. They are clear when at least two, and most of them, have two regions or more, and each
    is thinner than the smallest gap between two rows.

    Args:
        centers: (R,) positions across the rows, in pixels.
        extents: (R,) sizes of the regions in the same direction, in pixels.

    Returns:
        (R,) int, 1 for the row with the smallest positions.
    """
    if len(centers) < _LEAST:
        return None
    order = np.argsort(centers, kind="stable")
    gaps = np.diff(centers[order])
    split = gaps > 0.5 * np.median(extents)
    numbers = np.empty(len(centers), np.int64)
    numbers[order] = 1 + np.concatenate([[0], np.cumsum(split)])
    members = np.bincount(numbers)[1:]
    if np.count_nonzero(members > 1) < 2 or np.count_nonzero(members > 1) <= len(members) / 2:
        return None
    sorted_centers = centers[order]
    bounds = np.concatenate([[0], np.cumsum(members)])
    thickness = [sorted_centers[end - 1] - sorted_centers[start] for start, end in pairwise(bounds)]
    return numbers if gaps[split].min() > max(thickness) else None
