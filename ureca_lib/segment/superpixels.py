"""Nested regions of any photo from its colors alone: no model, no network.

These are superpixels, not objects: pieces of even color with edges between them. They are good
enough to try everything that follows, and no substitute for masks drawn by people or by SAM.

Superpixels are merged greedily, from the finest to the whole image. The order of merging is a
binary tree; cutting it at fewer and fewer regions gives nested partitions. The cost of a merge is
the piecewise-constant Mumford-Shah energy of Koepfler, Lopez and Morel (1994), the loss of fit per
length of the border that disappears, times the mean step of color across that border, so that
shading is given up before an edge is.
"""

from __future__ import annotations

import heapq
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

LEVELS = (6, 12, 24, 48)
MAX_REGIONS = 150  # of all levels together
_SUPERPIXELS = 3000  # before merging
_GROUND_HOLES = 0.2  # share of its own size that a region from side to side may surround as parts
_SMOOTHING = 1.0  # sigma of the blur before edges are sought, in working pixels


@dataclass(frozen=True)
class SuperpixelConfig:
    """Settings: size and number of superpixel regions."""

    levels: tuple[int, ...] = field(
        default=LEVELS,
        metadata={"help": "most regions per level, rising; the levels are put together"},
    )
    min_area: float = field(
        default=0.0005, metadata={"help": "smallest region, as a share of the image"}
    )
    min_cost: float = field(
        default=150.0, metadata={"help": "cheaper merges are always made; 0 splits noise"}
    )
    distinct: float = field(
        default=0.9,
        metadata={"help": "drop a region whose IoU with a coarser one reaches this"},
    )
    work_pixels: int = field(
        default=300_000, metadata={"help": "larger photos are reduced to this number of pixels"}
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
    """Cut a photo into nested pieces of even color (method "superpixels").

    A watershed of the color gradient in CIELAB (scikit-image) gives about 3,000 superpixels,
    which are merged pairwise (`merge_order`) and cut at several levels. A region that is
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
    """Label maps, one per level, coarse to fine; each region is within one of the level before.

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
    # for edges alone: mean colors would mix along every border
    smooth = ndimage.gaussian_filter(colors, (_SMOOTHING, _SMOOTHING, 0))
    superpixels = _superpixels(smooth)
    # area of each working pixel in the photo, with a mean of 1
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
    """Number of the photo's rows (or columns) per row (or column) of the working size."""
    return np.diff(np.arange(small + 1) * full // small)


def _filled_levels(labels: list[np.ndarray]) -> list[np.ndarray]:
    """Regions of all levels, coarse to fine, each with the regions that it surrounds.

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
    first, second = (labels.ravel()[index] for index in neighbors(labels))
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
            inside[:] = False  # the ground: objects in front of it are no parts of it
        found.append(inside)
    return found


def _distinct(regions: list[np.ndarray], sizes: np.ndarray, limit: float) -> list[np.ndarray]:
    """Keep regions whose IoU with every region before stays below the limit; largest first."""
    kept: list[np.ndarray] = []
    for region in regions:
        if all((region & other) @ sizes < limit * ((region | other) @ sizes) for other in kept):
            kept.append(region)
    return sorted(kept, key=lambda region: -(region @ sizes))


def _encode(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> dict[str, Any]:
    """Encode a working-size mask at the photo's size, nearest neighbor."""
    # (H, W) -> (width, height): in the photo's size, and in the order of the encoding
    turned = np.repeat(np.repeat(mask.T.astype(np.uint8), rows, axis=1), columns, axis=0)
    return coco_mask.encode(turned.T)


@dataclass(frozen=True)
class MergeOrder:
    """The order in which superpixels are merged.

    Args:
        count: superpixels at the start.
        pairs: (count - 1, 2) int; in each step the second joins the first.
        costs: (count - 1,) float; the largest cost so far, so that it never falls. Steps that
            are no choice, of superpixels that are too small, cost minus infinity.
    """

    count: int
    pairs: np.ndarray
    costs: np.ndarray

    def cut(self, regions: int, min_cost: float = 0.0) -> np.ndarray:
        """Return the partition into at most so many regions, with all merges below `min_cost`.

        Returns:
            (count,) int: the region of each superpixel, from 0.
        """
        done = max(self.count - regions, int(np.searchsorted(self.costs, min_cost)))
        owner = np.arange(self.count)
        for kept, joined in self.pairs[:done][::-1]:
            owner[joined] = owner[kept]  # backwards, each owner is final when it is read
        return np.unique(owner, return_inverse=True)[1]


def merge_order(
    labels: np.ndarray, colors: np.ndarray, smooth: np.ndarray, sizes: np.ndarray, min_size: float
) -> MergeOrder:
    """Merge the cheapest pair of neighbors until one region is left.

    Args:
        labels: (H, W) int, superpixels from 0, each 4-connected.
        colors: (H, W, 3) CIELAB, of which regions have the mean.
        smooth: (H, W, 3), blurred a little, of which borders have the step.
        sizes: (H, W), weight of each pixel.
        min_size: superpixels of less are merged first, the smallest of them first.

    Returns:
        The order. Ties go to the lower label, so that it is always the same.
    """
    graph = _RegionGraph(labels, colors, smooth, sizes)
    _absorb_small(graph, min_size)
    forced = len(graph.steps)
    queue = [graph.entry(a, b) for a, near in enumerate(graph.borders) for b in near if a < b]
    heapq.heapify(queue)
    costs = [-np.inf] * forced
    while queue:
        cost, a, b, version_a, version_b = heapq.heappop(queue)
        if (graph.version[a], graph.version[b]) != (version_a, version_b):
            continue
        graph.merge(a, b)
        costs.append(cost)
        for near in graph.borders[a]:
            heapq.heappush(queue, graph.entry(min(a, near), max(a, near)))
    pairs = np.array(graph.steps, np.int64).reshape(-1, 2)
    return MergeOrder(len(graph.sizes), pairs, np.maximum.accumulate(np.array(costs)))


def _absorb_small(graph: _RegionGraph, min_size: float) -> None:
    small = [(size, region) for region, size in enumerate(graph.sizes) if size < min_size]
    heapq.heapify(small)
    while small:
        size, region = heapq.heappop(small)
        stale = graph.version[region] < 0 or graph.sizes[region] != size
        if stale or not graph.borders[region]:
            continue
        other = min(graph.borders[region], key=lambda near: (graph.cost(region, near), near))
        kept = min(region, other)
        graph.merge(kept, max(region, other))
        if graph.sizes[kept] < min_size:
            heapq.heappush(small, (graph.sizes[kept], kept))


class _RegionGraph:
    """Regions with their sizes, colors and borders, while they merge.

    `version` goes up with each merge of a region and is -1 once it has joined another.
    """

    def __init__(
        self, labels: np.ndarray, colors: np.ndarray, smooth: np.ndarray, sizes: np.ndarray
    ):
        count = int(labels.max()) + 1
        flat = labels.ravel()
        weights = sizes.ravel()
        self.sizes: list[float] = np.bincount(flat, weights, count).tolist()
        channels = colors.reshape(-1, 3).T  # (H, W, 3) -> (3, H * W)
        sums = [np.bincount(flat, channel * weights, count) for channel in channels]
        self.sums = list(np.stack(sums, axis=1))  # count times (3,)
        self.version = [0] * count
        self.steps: list[tuple[int, int]] = []
        self.borders: list[dict[int, tuple[float, float]]] = [{} for _ in range(count)]
        for a, b, length, step in zip(*_borders(labels, smooth, count), strict=True):
            self.borders[a][b] = self.borders[b][a] = (length, step)

    def cost(self, a: int, b: int) -> float:
        """Cost of merging two neighbors: loss of fit / border length * mean step across it."""
        size_a, size_b = self.sizes[a], self.sizes[b]
        difference = self.sums[a] / size_a - self.sums[b] / size_b
        loss = size_a * size_b / (size_a + size_b) * float(difference @ difference)
        length, step = self.borders[a][b]
        return loss / length * step / length

    def entry(self, a: int, b: int) -> tuple[float, int, int, int, int]:
        """Cost, pair and versions: an entry of the queue, stale once a version has changed."""
        return self.cost(a, b), a, b, self.version[a], self.version[b]

    def merge(self, kept: int, joined: int) -> None:
        """Let one region join another that it borders on."""
        self.steps.append((kept, joined))
        self.sizes[kept] += self.sizes[joined]
        self.sums[kept] = self.sums[kept] + self.sums[joined]
        self.version[kept] += 1
        self.version[joined] = -1
        around, lost = self.borders[kept], self.borders[joined]
        del around[joined], lost[kept]
        for near, (length, step) in lost.items():
            before = around.get(near, (0.0, 0.0))
            around[near] = (before[0] + length, before[1] + step)
            self.borders[near][kept] = around[near]
            del self.borders[near][joined]
        lost.clear()


def neighbors(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of all pairs of 4-neighbors with different labels.

    Args:
        labels: (H, W).

    Returns:
        Two (pairs,) arrays of indices into the flattened image.
    """
    index = np.arange(labels.size).reshape(labels.shape)
    first = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    second = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    differ = labels.ravel()[first] != labels.ravel()[second]
    return first[differ], second[differ]


def _borders(labels: np.ndarray, colors: np.ndarray, count: int) -> tuple[list, ...]:
    """Pairs of neighboring labels, the lower first, with length and summed color step."""
    first, second = neighbors(labels)
    flat, pixels = labels.ravel().astype(np.int64), colors.reshape(-1, 3)
    steps = np.linalg.norm(pixels[first] - pixels[second], axis=1)
    low = np.minimum(flat[first], flat[second])
    high = np.maximum(flat[first], flat[second])
    codes, place = np.unique(low * count + high, return_inverse=True)
    lengths = np.bincount(place, minlength=len(codes))
    sums = np.bincount(place, steps, minlength=len(codes))
    columns = codes // count, codes % count, lengths.astype(float), sums
    return tuple(column.tolist() for column in columns)
