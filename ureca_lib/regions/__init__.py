"""Regions: masks of an image, read from SA-1B, COCO, arrays or PNG files, and checked."""

from ureca_lib.regions.coco import load_coco
from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    ImageUnreadableError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.mask_files import load_masks
from ureca_lib.regions.photo import load_image
from ureca_lib.regions.region import LeftOut, Region, RegionImage
from ureca_lib.regions.rle import MAX_PIXELS
from ureca_lib.regions.sa1b import load_sa1b, save_sa1b
from ureca_lib.regions.sources import MaskedPhoto, load_photo, load_regions, masked_photos

__all__ = [
    "MAX_PIXELS",
    "AnnotationFormatError",
    "EmptyMaskError",
    "FileMissingError",
    "ImageUnreadableError",
    "LeftOut",
    "MaskedPhoto",
    "Region",
    "RegionError",
    "RegionImage",
    "SizeMismatchError",
    "load_coco",
    "load_image",
    "load_masks",
    "load_photo",
    "load_regions",
    "load_sa1b",
    "masked_photos",
    "save_sa1b",
]
