"""Segment a photo: all of it, or at points and in boxes.

Two methods, by name in `segment_image`: "superpixels", pieces of even color that need no model and
no network, and "sam", the masks of a SAM, SAM-HQ, SAM 2 or SAM 3 checkpoint. `Sam` also takes
points and boxes; `regions_at` and `regions_in` choose among existing regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ureca_lib.regions import Region, RegionImage
from ureca_lib.regions.photo import Photo
from ureca_lib.segment.sam import Box, Sam, sam_regions
from ureca_lib.segment.superpixels import superpixel_regions

METHODS = {"superpixels": superpixel_regions, "sam": sam_regions}

__all__ = [
    "METHODS",
    "Sam",
    "check_prompts",
    "regions_at",
    "regions_in",
    "sam_regions",
    "segment_image",
    "superpixel_regions",
]


def segment_image(image: Photo, method: str = "superpixels", **options: Any) -> RegionImage:
    """Find nested regions of a photo by one of `METHODS`.

    Args:
        image: a path, a PIL image, or an array that `load_image` takes.
        method: "superpixels" or "sam".
        options: those of `superpixel_regions` or `sam_regions`.

    Returns:
        The photo with its regions, largest first, ids from 1.

    Raises:
        RegionError: the photo cannot be read.
        ValueError: no such method. OSError: the checkpoint or the device is not available.
    """
    if method not in METHODS:
        raise ValueError(f"the method is one of {', '.join(METHODS)}, not {method!r}")
    return METHODS[method](image, **options)


def check_prompts(
    width: int, height: int, points: Sequence[tuple[float, float]] = (), boxes: Sequence[Box] = ()
) -> None:
    """Check that points and boxes are inside a photo.

    Args:
        width, height: of the photo in pixels.
        points: (x, y) pixels.
        boxes: (x, y, width, height) pixels.

    Raises:
        ValueError: naming the point or the box.
    """
    size = f"the photo, which is {width} x {height} pixels (width x height)"
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point {x:g},{y:g} is outside {size}")
    for x, y, w, h in boxes:
        if not (0 <= x < x + w <= width and 0 <= y < y + h <= height):
            raise ValueError(f"box {x:g},{y:g},{w:g},{h:g} is empty or reaches outside {size}")


def regions_at(regions: RegionImage, points: Sequence[tuple[float, float]]) -> list[Region]:
    """Choose the smallest region at each point (x, y).

    Raises:
        ValueError: a point outside the photo, or in no region.
    """
    check_prompts(regions.width, regions.height, points)
    found = []
    for x, y in points:
        holding = [region for region in regions if region.mask[int(y), int(x)]]
        if not holding:
            raise ValueError(f"there is no region at point {x:g},{y:g}")
        found.append(min(holding, key=lambda region: region.area))
    return found


def regions_in(regions: RegionImage, boxes: Sequence[Box]) -> list[Region]:
    """Choose for each box (x, y, width, height) the region whose box has the highest IoU with it.

    Raises:
        ValueError: a box that is empty, outside the photo, or without any region.
    """
    check_prompts(regions.width, regions.height, boxes=boxes)
    sides = np.array([region.pixel_box for region in regions], float).reshape(-1, 4)
    found = []
    for box in boxes:
        overlap = np.ravel(coco_mask.iou(sides, np.array([box], float), [0]))
        if not overlap.any():
            raise ValueError("there is no region in box {:g},{:g},{:g},{:g}".format(*box))
        found.append(regions.regions[overlap.argmax()])
    return found
