"""Features of regions without a model: colour, texture, shape and size of the masked crop.

Each is a block of length 1, so that the cosine similarity of two regions is the weighted mean of
the cosine similarities of their blocks. Histograms are compared by the root of their shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image
from scipy import sparse
from scipy.ndimage import binary_erosion
from skimage.color import rgb2lab
from skimage.feature import local_binary_pattern

from ureca_lib.annotate.attributes import cropped_mask, measure_outline
from ureca_lib.annotate.colors import color_bins
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import RegionImage

_WEIGHTS = {"color": 2.0, "texture": 1.0, "shape": 2.0, "size": 1.0}
COLOR_BINS = 32**3  # cells of `color_bins`
_LIGHTNESS = np.arange(0.0, 101.0, 12.5)  # centres of the colour histogram, CIELAB
_CHROMA = np.arange(-90.0, 91.0, 15.0)
_SIDE = 64  # pixels a side at which texture is measured
_SAMPLED = 20_000  # pixels of a region above which its colour is taken from a sample
_SLOPES = (0, 2, 4, 8, 16, 32, 64, 1e9)  # grey levels a pixel


class ColorTextureFeatures:
    """CIELAB histogram, local binary patterns and slopes, outline, and area of each region.

    Deterministic, and needs no weights. Among the regions of the data samples' photos that do not
    hold one another, 70% of the pairs with one name (the two eyes, the coins, the stripes) reach
    the threshold, and 16% of all pairs do, of which nearly half have one name; most of the others
    are what the eye takes for alike too (an iris and an eye, a coin and the head on it).
    """

    name = "color-texture-1"
    threshold = 0.85

    def __call__(
        self, image: RegionImage, region_ids: Sequence[RegionId]
    ) -> dict[RegionId, np.ndarray]:
        """For each region its vector, (F,) float32.

        Raises:
            FileMissingError: there is no photo.
        """
        grey = np.asarray(Image.fromarray(image.pixels).convert("L"))
        bins = color_bins(image.pixels)
        found = {}
        for region_id in region_ids:
            (x, y, columns, rows), mask = cropped_mask(image[region_id])
            window = slice(y, y + rows), slice(x, x + columns)
            blocks = {
                "color": _color(bins[window], mask),
                "texture": _texture(grey[window], mask),
                "shape": _shape(mask),
                "size": _size(np.count_nonzero(mask) / bins.size),
            }
            weighted = [np.sqrt(_WEIGHTS[name]) * _unit(block) for name, block in blocks.items()]
            found[region_id] = np.concatenate(weighted).astype(np.float32)
        return found


def _color(bins: np.ndarray, mask: np.ndarray) -> np.ndarray:
    step = max(1, int(np.sqrt(mask.size / _SAMPLED)))
    chosen = bins[::step, ::step][mask[::step, ::step]]
    if not chosen.size:  # too thin for the sample
        chosen = bins[mask]
    cells, counts = np.unique(chosen, return_counts=True)
    return np.sqrt((counts / chosen.size) @ _soft_cells()[cells])


@cache
def _soft_cells() -> sparse.csr_array:
    """(COLOR_BINS, F): how much each cell of `color_bins` counts for each colour of the histogram.

    A cell counts for all colours near it, so that a little more light does not make another colour.
    """
    cells = np.stack(np.unravel_index(np.arange(COLOR_BINS), (32, 32, 32)), axis=-1)
    lab = rgb2lab(cells[None] / 31)[0]  # (COLOR_BINS, 3)
    axes = (_LIGHTNESS, _CHROMA, _CHROMA)
    columns, weights = np.zeros((COLOR_BINS, 1), np.intp), np.ones((COLOR_BINS, 1))
    for axis, centers in enumerate(axes):
        places, shares = _nearest(lab[:, axis], centers)
        # (COLOR_BINS, K, 1) with (COLOR_BINS, 1, 3) -> (COLOR_BINS, 3 * K)
        columns = (columns[..., None] * len(centers) + places[:, None]).reshape(COLOR_BINS, -1)
        weights = (weights[..., None] * shares[:, None]).reshape(COLOR_BINS, -1)
    starts = np.arange(0, columns.size + 1, columns.shape[1])
    shape = (COLOR_BINS, np.prod([len(centers) for centers in axes]))
    return sparse.csr_array((weights.ravel(), columns.ravel(), starts), shape)


def _nearest(values: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) -> the three nearest centres and how much each counts, both (N, 3)."""
    distances = np.abs(values[:, None] - centers)
    places = np.argsort(distances, axis=1, kind="stable")[:, :3]
    width = 0.8 * (centers[1] - centers[0])
    near = np.exp(-0.5 * (np.take_along_axis(distances, places, axis=1) / width) ** 2)
    return places, near / near.sum(1, keepdims=True)


def _texture(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    size, filtering = (_SIDE, _SIDE), Image.Resampling.BILINEAR
    levels = np.asarray(Image.fromarray(grey).resize(size, filtering))
    shown = np.asarray(Image.fromarray(mask.view(np.uint8) * 255).resize(size, filtering))
    inside = shown == 255
    core = binary_erosion(inside)  # patterns and slopes look one pixel around
    if core.any():
        inside = core
    elif not inside.any():
        inside = shown >= max(1, int(shown.max()))
    patterns = local_binary_pattern(levels, 8, 1, "uniform")[inside].astype(int)
    slopes = np.hypot(*np.gradient(levels.astype(np.float32)))[inside]
    counts = np.concatenate([np.bincount(patterns, minlength=10), np.histogram(slopes, _SLOPES)[0]])
    return np.sqrt(counts / len(slopes))


def _shape(mask: np.ndarray) -> np.ndarray:
    outline = measure_outline(mask)
    bumps = [
        _bump(np.log2(outline.ratio), 0, 4, 9),
        _bump(outline.solid, 0.3, 1, 8),
        _bump(outline.fill, 0, 1, 6),
        _bump(abs(np.log2(outline.aspect)), 0, 4, 9),
        _bump(outline.hole, 0, 0.5, 6),
    ]
    return np.concatenate([_unit(bump) for bump in bumps])


def _size(share: float) -> np.ndarray:
    return _bump(np.log2(share), -20, 0, 11)


def _bump(value: float, low: float, high: float, count: int) -> np.ndarray:
    """A number as a bump on an axis of `count` places: near numbers have similar bumps."""
    centers = np.linspace(low, high, count)
    return np.exp(-0.5 * ((np.clip(value, low, high) - centers) / (centers[1] - centers[0])) ** 2)


def _unit(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector)
    return vector / norm if norm else vector
