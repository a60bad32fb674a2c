"""Encode all regions of an id map at once, without a mask array per region."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pycocotools import mask as coco_mask


def encode_regions(ids: np.ndarray, members: Iterable[np.ndarray]) -> list[dict]:
    """Run-length encodings of regions that are unions of an id map's values.

    Args:
        ids: (H, W) uint8.
        members: for each region a (256,) bool table of the values that belong to it.

    Returns:
        COCO encodings, compressed: `{"size": [H, W], "counts": bytes}`.
    """
    height, width = ids.shape
    flat = ids.ravel(order="F")  # COCO runs go down the columns
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    values = flat[starts]
    encoded = []
    for table in members:
        inside = table[values]
        turns = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        borders = np.concatenate([[0], starts[turns], [flat.size]])
        runs = np.diff(borders).tolist()
        if inside[0]:  # the first run is of pixels outside
            runs.insert(0, 0)
        encoded.append(
            coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        )
    return encoded
