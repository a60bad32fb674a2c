"""Nested regions of any photo from its colors alone: no model, no network.

These are superpixels, not objects: pieces of even color with edges between them. They are good
enough to try everything that follows, and no substitute for masks drawn by people or by SAM.

Superpixels are merged greedily, from the finest to the whole image, on scikit-image's region
adjacency graph. The order of merging is a binary tree; cutting it at fewer and fewer regions gives
nested partitions. The cost of a merge is the piecewise-constant Mumford-Shah energy of Koepfler,
Lopez and Morel (1994), the loss of fit per length of the border that disappears, times the mean
step of color across that border, so that shading is given up before an edge is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.color import rgb2lab
from skimage.graph import RAG, merge_hierarchical
from skimage.measure import regionprops
from skimage.segmentation import watershed

from ureca_lib.regions import Region, RegionImage, load_image
from ureca_lib.regions.photo import Photo, photo_name

LEVELS = (6, 12, 24, 48)  # most regions per level; the levels are put together
MIN_AREA = 0.0005  # of the smallest region, as a share of the image
MIN_COST = 150.0  # cheaper merges are always made, so that noise is not split
MAX_REGIONS = 150  # of all levels together
DISTINCT = 0.9  # a region whose IoU with a coarser one reaches this is dropped
WORK_PIXELS = 300_000  # larger photos are reduced to this number of pixels
_SUPERPIXELS = 3000  # before merging
_GROUND_HOLES = 0.2  # share of its own size that a region from side to side may surround as parts
_SMOOTHING = 1.0  # sigma of the blur before edges are sought, in working pixels


def superpixel_regions(image: Photo, levels: Sequence[int] = LEVELS) -> RegionImage:
    """Cut a photo into nested pieces of even color (method "superpixels").

    A watershed of the color gradient in CIELAB gives about 3,000 superpixels, which are merged
    pairwise and cut at several levels. A region that is surrounded by another becomes a part of
    it: holes are filled, except in the ground, that is a region which reaches all four sides of the
    photo and surrounds everything else or much. Any two regions are nested or apart, each is
    connected, and those of the coarsest level cover the photo. No randomness, no names.

    Args:
        image: a path, a PIL image, or an array that `load_image` takes.
        levels: most regions of each level, rising, at most `MAX_REGIONS` together.

    Returns:
        The photo with its regions, largest first, ids from 1; at least one.

    Raises:
        RegionError: the photo cannot be read.
        ValueError: levels that do not rise, or of too many regions.
    """
    pixels = load_image(image)
    height, width = pixels.shape[:2]
    labels = nested_labels(pixels, levels)
    finest = labels[-1].T  # (W, H): the order of an encoding
    rles = [
        coco_mask.encode(_enlarged(inside[finest].astype(np.uint8), (height, width)).T)
        for inside in _filled(labels)
    ]
    overlap = coco_mask.iou(rles, rles, [0] * len(rles))
    kept: list[int] = []
    for place in range(len(rles)):
        if not (overlap[place, kept] >= DISTINCT).any():
            kept.append(place)
    kept.sort(key=lambda place: -int(coco_mask.area(rles[place])))
    regions = [Region(number, rles[place]) for number, place in enumerate(kept, start=1)]
    return RegionImage(regions, width, height, image, file_name=photo_name(image))


def nested_labels(pixels: np.ndarray, levels: Sequence[int] = LEVELS) -> list[np.ndarray]:
    """Label maps, one per level, coarse to fine; each region is within one of the level before.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        levels: as in `superpixel_regions`.

    Returns:
        (H, W) int each, labels from 0, all of the working size: the photo's, or smaller where the
        photo has more pixels than `WORK_PIXELS`.
    """
    rising = list(levels) == sorted(set(levels)) and min(levels, default=0) >= 1
    if not rising or sum(levels) > MAX_REGIONS:
        raise ValueError(f"levels rise from 1 and sum to at most {MAX_REGIONS}, not {levels!r}")
    height, width = pixels.shape[:2]
    scale = min(1.0, (WORK_PIXELS / (height * width)) ** 0.5)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    colors = rgb2lab(pixels)
    # for edges alone: mean colors would mix along every border
    smooth = ndimage.gaussian_filter(colors, (_SMOOTHING, _SMOOTHING, 0))
    superpixels = _watershed(smooth)
    areas = np.bincount(_enlarged(superpixels.astype(np.int32), (width, height)).ravel())
    merges = _merges(superpixels, colors, smooth, areas)
    return [_cut(merges, len(areas), count)[superpixels] for count in levels]


def _watershed(colors: np.ndarray) -> np.ndarray:
    """Superpixels from the flattest pixel of each cell of a grid: (H, W, 3) -> (H, W) from 0."""
    slopes = [ndimage.sobel(colors, axis) for axis in (0, 1)]
    gradient = np.linalg.norm(np.concatenate(slopes, axis=2), axis=2)  # (H, W, 6) -> (H, W)
    step = max(2.0, (gradient.size / _SUPERPIXELS) ** 0.5)
    rows, columns = (np.arange(side) // step for side in gradient.shape)
    cells = np.add.outer(rows * gradient.shape[1], columns).astype(int)
    seeds = ndimage.minimum_position(gradient, cells, np.unique(cells))
    markers = np.zeros(gradient.shape, np.int32)
    markers[tuple(np.transpose(seeds))] = np.arange(1, len(seeds) + 1)
    return watershed(gradient, markers) - 1


def _merges(
    labels: np.ndarray, colors: np.ndarray, smooth: np.ndarray, areas: np.ndarray
) -> list[tuple[float, int, int]]:
    """Merge the cheapest pair of neighbors until one region is left.

    Args:
        labels: (H, W) int, superpixels from 0.
        colors: (H, W, 3) CIELAB, of which regions have the mean.
        smooth: (H, W, 3), blurred a little, of which borders have the step.
        areas: (superpixels,) pixels of the photo.

    Returns:
        Cost and the two superpixels of each merge, in order. Superpixels that are too small are
        merged first, at a cost below 0.
    """
    least = MIN_AREA * areas.sum()
    pixels = labels.size / areas.sum()  # of the working size per pixel of the photo
    merges: list[tuple[float, int, int]] = []

    def cost(graph: RAG, one: int, other: int, border: dict[str, float]) -> float:
        """Loss of fit per length of the border, times the mean step of color across it."""
        first, second = graph.nodes[one], graph.nodes[other]
        difference = first["color"] - second["color"]
        loss = pixels / (1 / first["area"] + 1 / second["area"]) * (difference @ difference)
        found = loss / border["length"] * border["step"] / border["length"]
        small = min(first["area"], second["area"]) < least
        return -1 / (1 + found) if small else found

    def merge(graph: RAG, joined: int, kept: int) -> None:
        merges.append((graph[joined][kept]["weight"], joined, kept))
        first, second = graph.nodes[joined], graph.nodes[kept]
        share = first["area"] / (first["area"] + second["area"])
        second["color"] = share * first["color"] + (1 - share) * second["color"]
        second["area"] += first["area"]

    def border(graph: RAG, joined: int, kept: int, near: int) -> dict[str, float]:
        sides = [graph[end][near] for end in (joined, kept) if near in graph[end]]
        found = {key: sum(side[key] for side in sides) for key in ("length", "step")}
        return found | {"weight": cost(graph, kept, near, found)}

    graph = RAG()
    graph.add_nodes_from((superpixel, {"labels": []}) for superpixel in range(len(areas)))
    graph.add_edges_from(_borders(labels, smooth))
    counts = np.bincount(labels.ravel())
    sums = [np.bincount(labels.ravel(), channel) for channel in colors.reshape(-1, 3).T]
    means = np.stack(sums, axis=1) / counts[:, None]
    for superpixel, about in graph.nodes(data=True):
        about |= {"area": areas[superpixel], "color": means[superpixel]}
    for one, other, side in graph.edges(data=True):
        side["weight"] = cost(graph, one, other, side)
    merge_hierarchical(labels, graph, np.inf, False, True, merge, border)
    return merges


def _borders(labels: np.ndarray, colors: np.ndarray) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Pairs of neighboring labels, with the length of their border and the summed color step."""
    before = np.concatenate([labels[:, :-1].ravel(), labels[:-1].ravel()])
    after = np.concatenate([labels[:, 1:].ravel(), labels[1:].ravel()])
    steps = [np.linalg.norm(np.diff(colors, axis=axis), axis=2).ravel() for axis in (1, 0)]
    differ = before != after
    pairs = np.sort(np.stack([before, after])[:, differ], axis=0)
    pairs, place = np.unique(pairs, axis=1, return_inverse=True)
    columns = *pairs, np.bincount(place), np.bincount(place, np.concatenate(steps)[differ])
    for one, other, length, step in zip(*(column.tolist() for column in columns), strict=True):
        yield one, other, {"length": length, "step": step}


def _cut(merges: list[tuple[float, int, int]], count: int, regions: int) -> np.ndarray:
    """(superpixels,) int: the partition into at most so many regions, from 0."""
    costs = np.maximum.accumulate([cost for cost, *_ in merges])
    done = max(count - regions, int(np.searchsorted(costs, MIN_COST)))
    pairs = np.array([pair for _, *pair in merges[:done]], int).reshape(-1, 2).T
    graph = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), (count, count))
    return connected_components(graph, directed=False)[1]


def _filled(labels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Fill the holes of all regions, coarse to fine, but not those of the ground.

    Returns:
        (finest regions,) bool each: the regions of the finest level that it consists of.
    """
    pixel = np.unique(labels[-1], return_index=True)[1]  # one of each of the finest regions
    found: list[np.ndarray] = []
    above = {0: np.ones(len(pixel), bool)}
    coarse = np.zeros_like(labels[0])
    for level in labels:
        here = {}
        for region in regionprops(level + 1):
            own = level.flat[pixel] == region.label - 1
            inside = np.zeros(level.shape, bool)
            inside[region.slice] = region.image_filled
            holes = region.area_filled - region.area
            everywhere = region.bbox == (0, 0, *level.shape)
            ground = everywhere and (inside.all() or holes > _GROUND_HOLES * region.area)
            # a hole of a part may be no hole of the whole, where the whole is the ground
            parent = above[coarse[tuple(region.coords[0])]]
            here[region.label - 1] = own if ground else inside.flat[pixel] & parent
        found += here.values()
        above, coarse = here, level
    return found


def _enlarged(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels at the size (width, height) of the photo, nearest neighbor."""
    image = Image.fromarray(np.ascontiguousarray(labels))
    return np.asarray(image.resize(size, Image.Resampling.NEAREST))
