"""The size augmentation: image and masks resized together, at random.

The published scripts resize image and mask at random; how much is not said. Here the factor of the
sides is drawn between `resize_low` and `resize_high`, evenly on a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ureca_lib.regions import Region
from ureca_lib.train.settings import TrainSettings


def draw_scale(settings: TrainSettings, chance: np.random.Generator) -> float:
    """The factor of a sample's sides: 1 for those that stay as they are."""
    if chance.random() >= settings.resize_share:
        return 1.0
    low, high = math.log(settings.resize_low), math.log(settings.resize_high)
    return math.exp(chance.uniform(low, high))


def resize_together(
    pixels: np.ndarray, regions: Sequence[Region], scale: float
) -> tuple[np.ndarray, list[Region]]:
    """An image and its regions with both sides times `scale`, at least one pixel.

    Args:
        pixels: (H, W, 3) uint8, resized bicubically.
        regions: resized by nearest neighbour. Where one would vanish, nothing is resized: a sample
            whose mask is empty teaches nothing.
        scale: above 0.

    Returns:
        The new pixels and regions, with the same ids and names.
    """
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return pixels, list(regions)
    masks = [np.asarray(_image(region).resize(size, Image.NEAREST)) for region in regions]
    if not all(mask.any() for mask in masks):
        return pixels, list(regions)
    resized = [
        Region.from_mask(region.id, mask, region.name)
        for region, mask in zip(regions, masks, strict=True)
    ]
    return np.asarray(Image.fromarray(pixels).resize(size, Image.BICUBIC)), resized


def _image(region: Region) -> Image.Image:
    return Image.fromarray(region.mask.astype(np.uint8))
