"""How much of each mask lies in each other mask, from the encodings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from ureca_lib.regions import Region, SizeMismatchError

_BLOCK = 64  # masks a block of the matrix


def containment_matrix(regions: Iterable[Region]) -> np.ndarray:
    """Share of each mask that lies in each other mask, from the encodings, without decoding.

    Args:
        regions: R regions of one image.

    Returns:
        (R, R) float64; `[i, j]` is the number of pixels that i and j share, divided by the number
        that i has. Exact: both are whole numbers, and the division is the only rounding.

    Raises:
        SizeMismatchError: masks of different sizes.
    """
    regions = list(regions)
    _check_one_size(regions)
    order = by_area(regions)
    rles = [regions[i].rle for i in order]
    areas = np.array([regions[i].area for i in order], np.float64)
    count = len(rles)
    shared = np.zeros((count, count))
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        # against a crowd, pycocotools' IoU is the intersection over the first mask's area; the
        # intersection is symmetric, so only blocks on and left of the diagonal are computed
        share = coco_mask.iou(rles[start:stop], rles[:stop], [1] * stop)
        shared[start:stop, :stop] = np.rint(share * areas[start:stop, None])
        shared[:start, start:stop] = shared[start:stop, :start].T
    matrix = np.empty_like(shared)
    matrix[np.ix_(order, order)] = shared / areas[:, None]
    return matrix


def by_area(regions: Sequence[Region]) -> np.ndarray:
    """Indices of the regions, largest first, ties in the order given."""
    return np.argsort([-region.area for region in regions], kind="stable").astype(np.intp)


def _check_one_size(regions: Sequence[Region]) -> None:
    for region in regions:
        if region.size != regions[0].size:
            (height, width), (first_height, first_width) = region.size, regions[0].size
            raise SizeMismatchError(
                f"the mask is {width} x {height} but region {regions[0].id}'s is "
                f"{first_width} x {first_height} (width x height): not of one image",
                None,
                region.id,
            )
