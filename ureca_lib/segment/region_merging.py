"""Greedy merging of neighbouring superpixels, from the finest to the whole image.

The order of merging is a binary tree; cutting it at fewer and fewer regions gives partitions of
which each lies in the next. What a merge costs is the piecewise-constant Mumford-Shah energy of
Koepfler, Lopez and Morel (1994), the loss of fit per length of the border that goes away, times
the mean step of colour across that border, so that shading is given up before an edge is.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MergeOrder:
    """The order in which superpixels become one.

    Args:
        count: superpixels at the start.
        pairs: (count - 1, 2) int; in each step the second joins the first, which goes on.
        costs: (count - 1,) float; the largest cost so far, so that it never falls. Steps that
            are no choice, of superpixels that are too small, cost minus infinity.
    """

    count: int
    pairs: np.ndarray
    costs: np.ndarray

    def cut(self, regions: int, min_cost: float = 0.0) -> np.ndarray:
        """The partition into at most so many regions, all merges below `min_cost` done.

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
    """Merge the cheapest pair of neighbours until one region is left.

    Args:
        labels: (H, W) int, superpixels from 0, each 4-connected.
        colors: (H, W, 3) CIELAB, of which regions have the mean.
        smooth: (H, W, 3), blurred a little, of which borders have the step.
        sizes: (H, W), what each pixel counts.
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
    """Regions with their sizes, colours and borders, while they merge.

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
        """Of merging two neighbours: loss of fit / length of the border * mean step across it."""
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


def neighbours(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of all pairs of 4-neighbours with different labels.

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
    """Pairs of neighbouring labels, the lower first, with length and summed colour step."""
    first, second = neighbours(labels)
    flat, pixels = labels.ravel().astype(np.int64), colors.reshape(-1, 3)
    steps = np.linalg.norm(pixels[first] - pixels[second], axis=1)
    low = np.minimum(flat[first], flat[second])
    high = np.maximum(flat[first], flat[second])
    codes, place = np.unique(low * count + high, return_inverse=True)
    lengths = np.bincount(place, minlength=len(codes))
    sums = np.bincount(place, steps, minlength=len(codes))
    columns = codes // count, codes % count, lengths.astype(float), sums
    return tuple(column.tolist() for column in columns)
