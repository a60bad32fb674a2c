"""Pillow's rules for resizing a line of pixels: nearest neighbour and bicubic.

Written down as tables, so that many masks of one size can share them and so that a mask can be
resized without Pillow, from its runs or on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

BICUBIC_A = -0.5  # Pillow's Resample.c: the cubic's free parameter
BICUBIC_SUPPORT = 2.0  # the cubic's reach in pixels, on either side


@lru_cache(maxsize=256)
def nearest_indices(length: int, size: int) -> np.ndarray:
    """Which source pixel each output pixel takes when Pillow resizes with NEAREST.

    The centre of the output pixel, scaled and rounded down (Pillow's Geometry.c). Pillow adds the
    step up instead of multiplying, and the rounding of that sum decides where a centre falls
    between two pixels.

    Args:
        length: source pixels.
        size: output pixels.

    Returns:
        (size,) int64, non-decreasing, read-only.
    """
    steps = np.full(size, length / size)
    steps[0] *= 0.5
    indices = np.cumsum(steps).astype(np.int64)
    indices.setflags(write=False)
    return indices


@dataclass(frozen=True)
class BicubicTable:
    """Pillow's bicubic weights from `length` to `size` pixels.

    Fields:
        starts, ends: (size,) int64, the source pixels [start, end) that an output pixel sees.
        sums: (size, K + 1) float64, sums[x, k] = weight of the first k of those pixels; 1 at K.
        matrix: (size, length) sparse float64, the weights themselves.
    """

    starts: np.ndarray
    ends: np.ndarray
    sums: np.ndarray
    matrix: csr_array


@lru_cache(maxsize=64)
def bicubic_table(length: int, size: int) -> BicubicTable:
    """The table of a resize from `length` to `size` pixels (`precompute_coeffs`, Resample.c)."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = BICUBIC_SUPPORT * stretch
    centers = (np.arange(size) + 0.5) * scale
    starts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + support + 0.5).astype(np.int64), length)
    taps = np.arange((ends - starts).max())
    inside = taps < (ends - starts)[:, None]  # (size, K)
    columns = starts[:, None] + taps
    weights = _cubic((columns - centers[:, None] + 0.5) / stretch) * inside
    weights /= weights.sum(axis=1, keepdims=True)
    sums = np.zeros((size, len(taps) + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    indptr = np.concatenate([[0], np.cumsum(ends - starts)])
    matrix = csr_array((weights[inside], columns[inside], indptr), shape=(size, length))
    return BicubicTable(starts, ends, sums, matrix)


def _cubic(x: np.ndarray) -> np.ndarray:
    a, x = BICUBIC_A, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < BICUBIC_SUPPORT, far, 0.0))
