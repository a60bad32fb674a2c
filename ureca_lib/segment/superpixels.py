"""Nested regions of any photo from its colours alone: no model, no network.

These are superpixels, not objects: pieces of even colour with edges between them. They are good
enough to try everything that follows, and no substitute for masks drawn by people or by SAM.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from skimage.color import rgb2lab
from skimage.segmentation import watershed

from ureca_lib.regions import Region, RegionImage, load_image
from ureca_lib.regions.photo import Photo
from ureca_lib.segment.region_merging import merge_order, neighbours

LEVELS = (6, 12, 24, 48)
MAX_REGIONS = 150  # of all levels together
_SUPERPIXELS = 3000  # before merging
_GROUND_HOLES = 0.2  # of its own size; what a region from side to side may surround as parts
_SMOOTHING = 1.0  # sigma of the blur before edges are sought, in working pixels


@dataclass(frozen=True)
class SuperpixelConfig:
    """What decides the size and number of superpixel regions."""

    levels: tuple[int, ...] = field(
        default=LEVELS,
        metadata={"help": "at most so many regions a level, rising; levels are merged together"},
    )
    min_area: float = field(
        default=0.0005, metadata={"help": "smallest region, as a share of the image"}
    )
    min_cost: float = field(
        default=150.0, metadata={"help": "merges that cost less are always made; 0 splits noise"}
    )
    distinct: float = field(
        default=0.9,
        metadata={"help": "a region is left out where its IoU with a coarser one reaches this"},
    )
    work_pixels: int = field(
        default=300_000, metadata={"help": "larger photos are reduced to so many pixels"}
    )

    def __post_init__(self) -> None:
        levels = tuple(self.levels) if isinstance(self.levels, (tuple, list)) else ()
        whole = all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) for k in levels)
        rising = all(a < b for a, b in itertools.pairwise(levels))
        if not levels or not whole or min(levels) < 1 or not rising:
            raise ValueError(f"levels are rising whole numbers from 1, not {self.levels!r}")
        if sum(levels) > MAX_REGIONS:
            raise ValueError(f"levels sum to {sum(levels)}, more than {MAX_REGIONS} regions")
        if not 0 <= self.min_area < 1:
            raise ValueError(f"min_area is a share of the image below 1, not {self.min_area!r}")
        if not self.min_cost >= 0:
            raise ValueError(f"min_cost is at least 0, not {self.min_cost!r}")
        if not 0 < self.distinct <= 1:
            raise ValueError(f"distinct is an IoU above 0 and at most 1, not {self.distinct!r}")
        if not self.work_pixels >= 1:
            raise ValueError(f"work_pixels is at least 1, not {self.work_pixels!r}")


def superpixel_regions(
    image: Photo, config: SuperpixelConfig | None = None, **changes: Any
) -> RegionImage:
    """Cut a photo into nested pieces of even colour (method "superpixels").

    A watershed of the colour gradient in CIELAB (scikit-image) gives about 3,000 superpixels,
    which are merged pairwise (`region_merging`) and cut at several levels. A region that is
    surrounded by another becomes a part of it: holes are filled, except in the ground, that is a
    region which reaches all four sides of the photo and surrounds everything else or much. Any
    two regions are nested or apart, each is connected, and those of the coarsest level cover the
    photo. No randomness, no names.

    Args:
        image: a path, a PIL image, or an array that `load_image` takes.
        config: settings; None takes the defaults.
        changes: single settings to change, such as `levels=(4, 16)`.

    Returns:
        The photo with its regions, largest first, ids from 1; at least one.

    Raises:
        RegionError: the photo cannot be read.
        ValueError: a setting out of its range.
    """
    config = replace(config or SuperpixelConfig(), **changes)
    pixels = load_image(image)
    labels = nested_labels(pixels, config)
    finest = labels[-1]
    height, width = pixels.shape[:2]
    rows, columns = _spans(height, finest.shape[0]), _spans(width, finest.shape[1])
    sizes = np.bincount(finest.ravel(), np.outer(rows, columns).ravel())
    kept = _distinct(_filled_levels(labels), sizes, config.distinct)
    regions = [
        Region(number, _encode(members[finest], rows, columns))
        for number, members in enumerate(kept, start=1)
    ]
    if not isinstance(image, (str, Path)):
        return RegionImage(regions, width, height, pixels)
    return RegionImage(regions, width, height, image, file_name=Path(image).name)


def nested_labels(pixels: np.ndarray, config: SuperpixelConfig) -> list[np.ndarray]:
    """One label map a level, coarse to fine, each region within one of the level before.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        config: settings.

    Returns:
        (H, W) int each, labels from 0, all of the working size: the photo's, or smaller where the
        photo has more pixels than `config.work_pixels`.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, (config.work_pixels / (height * width)) ** 0.5)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    colors = rgb2lab(pixels)
    # for edges alone: mean colours would mix along every border
    smooth = ndimage.gaussian_filter(colors, (_SMOOTHING, _SMOOTHING, 0))
    superpixels = _superpixels(smooth)
    # what each working pixel stands for in the photo, with a mean of 1
    shares = np.outer(_spans(height, size[1]), _spans(width, size[0]))
    shares = shares * (shares.size / (height * width))
    order = merge_order(superpixels, colors, smooth, shares, config.min_area * shares.size)
    return [order.cut(count, config.min_cost)[superpixels] for count in config.levels]


def _superpixels(colors: np.ndarray) -> np.ndarray:
    """Watershed from the flattest pixel of each cell of a grid: (H, W, 3) -> (H, W) from 0."""
    gradient = np.sqrt(
        sum(ndimage.sobel(colors[..., c], axis) ** 2 for c in range(3) for axis in (0, 1))
    )
    height, width = gradient.shape
    step = max(2.0, (height * width / _SUPERPIXELS) ** 0.5)
    down, across = (np.arange(side) // step for side in (height, width))
    cells = (down[:, None] * (across[-1] + 1) + across[None, :]).astype(int)
    seeds = ndimage.minimum_position(gradient, cells, np.arange(cells.max() + 1))
    markers = np.zeros(gradient.shape, np.int32)
    markers[tuple(np.transpose(seeds))] = np.arange(1, len(seeds) + 1)
    return watershed(gradient, markers, connectivity=1) - 1


def _spans(full: int, small: int) -> np.ndarray:
    """How many rows (or columns) of the photo each one of the working size stands for."""
    return np.diff(np.arange(small + 1) * full // small)


def _filled_levels(labels: list[np.ndarray]) -> list[np.ndarray]:
    """Every region of every level, coarse to fine, with what it surrounds.

    Returns:
        (finest regions,) bool each: the regions of the finest level that it consists of.
    """
    finest = labels[-1]
    count = int(finest.max()) + 1
    found: list[np.ndarray] = []
    above: list[np.ndarray] = [np.ones(count, bool)]
    level_above = np.zeros(count, int)
    for level in labels:
        owner = np.empty(count, int)  # of each region of the finest level, its region here
        owner[finest.ravel()] = level.ravel()
        here = []
        for region, surrounded in enumerate(_surrounded(level)):
            members = (owner == region) | surrounded[owner]
            # a hole of a part may be no hole of the whole, where the whole is the ground
            here.append(members & above[level_above[np.argmax(owner == region)]])
        found += here
        above, level_above = here, owner
    return found


def _surrounded(labels: np.ndarray) -> list[np.ndarray]:
    """For each of R regions, (R,) bool: the regions that it cuts off from the image's sides."""
    count = int(labels.max()) + 1
    sides = np.zeros((4, count), bool)
    for side, line in zip(sides, (labels[0], labels[-1], labels[:, 0], labels[:, -1]), strict=True):
        side[line] = True
    first, second = (labels.ravel()[index] for index in neighbours(labels))
    touch = np.zeros((count, count), bool)
    touch[first, second] = touch[second, first] = True
    sizes = np.bincount(labels.ravel())
    found = []
    for region in range(count):
        around = touch.copy()
        around[region] = around[:, region] = False
        part = connected_components(around, directed=False)[1]
        on_side = sides.any(axis=0)
        on_side[region] = False
        inside = ~np.isin(part, part[on_side])
        inside[region] = False
        covers_all = inside.sum() == count - 1
        large = sizes[inside].sum() > _GROUND_HOLES * sizes[region]
        if sides[:, region].all() and (covers_all or large):
            inside[:] = False  # the ground: what stands before it is no part of it
        found.append(inside)
    return found


def _distinct(regions: list[np.ndarray], sizes: np.ndarray, limit: float) -> list[np.ndarray]:
    """Those whose IoU with every one before stays below the limit, largest first."""
    kept: list[np.ndarray] = []
    for region in regions:
        if all((region & other) @ sizes < limit * ((region | other) @ sizes) for other in kept):
            kept.append(region)
    return sorted(kept, key=lambda region: -(region @ sizes))


def _encode(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> dict[str, Any]:
    """The RLE of a working-size mask in the photo's size, nearest neighbour."""
    # (H, W) -> (width, height): in the photo's size, and in the order of the encoding
    turned = np.repeat(np.repeat(mask.T.astype(np.uint8), rows, axis=1), columns, axis=0)
    return coco_mask.encode(turned.T)
