"""Masks for a photo that has none.

Two methods, of which `segment_image` takes one by name: "superpixels", pieces of even colour that
need no model and no network, and "sam", the masks of a SAM checkpoint.
"""

from __future__ import annotations

from typing import Any

from ureca_lib.regions import RegionImage
from ureca_lib.regions.photo import Photo
from ureca_lib.segment.sam import SamConfig, SegmentationUnavailable, sam_regions
from ureca_lib.segment.superpixels import SuperpixelConfig, superpixel_regions

METHODS = {"superpixels": superpixel_regions, "sam": sam_regions}

__all__ = [
    "METHODS",
    "SamConfig",
    "SegmentationUnavailable",
    "SuperpixelConfig",
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
        ValueError: no such method, or an option out of its range.
        SegmentationUnavailable: the model cannot be had or run here.
    """
    if method not in METHODS:
        raise ValueError(f"the method is one of {', '.join(METHODS)}, not {method!r}")
    return METHODS[method](image, **options)
