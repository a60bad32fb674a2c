"""Regions on photos: the part of a photo that is shown, reduced to print size, and outlines."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image
from scipy import ndimage
from skimage.measure import block_reduce

from ureca_lib.figures.style import TARGET_COLOR
from ureca_lib.regions import Region

View = tuple[float, float, float, float]  # left, top, right, bottom of a photo's part, in pixels
Tint = tuple[np.ndarray, str, float]  # (H, W) bool, color, opacity
_DIMMED = 0.6  # of the brightness outside a region
_CASING = 1.0  # points that the casing adds to a line
_DPI = 200  # of photos in print; more pixels than that are not kept
_STRIDE = 700  # pixels of a region's longer side that are enough to find its middle


def close_view(
    region: Region, shape: float = 1.0, context: float = 0.6, least: float = 0.0
) -> View:
    """Part of a photo that shows a region and its surroundings.

    Args:
        region: in the middle, as far as the photo's border allows.
        shape: width of the part over its height. If the whole photo is too narrow or too flat for
            the region, the part reaches beyond it.
        context: margin on each side, as a share of the region's longer side.
        least: share of the photo's longer side that is shown even of a tiny region.
    """
    height, width = region.size
    x, y, columns, rows = region.pixel_box
    margin = 2 * context * max(columns, rows) + 12
    wide = max(columns + margin, (rows + margin) * shape, least * max(height, width))
    # the margin is given up before the part reaches beyond the photo
    wide = min(wide, max(min(width, height * shape), columns, rows * shape))
    shown = np.array([wide, wide / shape])
    spare = np.array([width, height]) - shown
    centered = np.array([x, y]) + (np.array([columns, rows]) - shown) / 2
    corner = np.clip(centered, np.minimum(0, spare / 2), np.maximum(spare, spare / 2))
    return (*corner.tolist(), *(corner + shown).tolist())


def draw_photo(
    ax: Axes,
    image: np.ndarray,
    bright: Iterable[Region] | None = None,
    view: View | None = None,
    tints: Iterable[Tint] = (),
) -> None:
    """Show a photo, or a part of it, in no more pixels than are printed.

    The axes keep the photo's pixels as their unit, whatever is shown.

    Args:
        ax: at its size, from which the number of pixels follows.
        image: (H, W, 3) uint8.
        bright: regions that keep their brightness while the rest is dimmed; None dims nothing.
        view: the part, as `close_view` gives it; None shows the whole photo.
        tints: masks that are filled with a color.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = view or (0, 0, width, height)
    x0, y0 = max(0, math.floor(left)), max(0, math.floor(top))
    x1, y1 = min(width, math.ceil(right)), min(height, math.ceil(bottom))
    size = _dots(ax)

    def reduced(pixels: np.ndarray) -> np.ndarray:
        # cropped first: a whole photo in floats for each region would take gigabytes
        part = Image.fromarray(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
        part.thumbnail((size, size), Image.Resampling.BOX)
        return np.asarray(part, np.float32)

    shown = reduced(image)  # (h, w, 3)
    if bright is not None:
        inside = np.zeros(shown.shape[:2], np.float32)
        for region in bright:
            inside = np.maximum(inside, reduced(region.mask * np.uint8(255)) / 255)
        shown = shown * (_DIMMED + (1 - _DIMMED) * inside[..., None])
    for mask, color, opacity in tints:
        share = opacity * reduced(mask * np.uint8(255))[..., None] / 255
        shown = shown * (1 - share) + share * 255 * np.array(to_rgb(color), np.float32)
    extent = (x0 - 0.5, x1 - 0.5, y1 - 0.5, y0 - 0.5)
    ax.imshow(shown.round().astype(np.uint8), extent=extent)
    ax.set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5))
    ax.axis("off")
    ax.apply_aspect()  # outlines need the size of a pixel


def draw_outline(
    ax: Axes, region: Region, color: str = TARGET_COLOR, width: float = 1.4, alpha: float = 1.0
) -> None:
    """Draw a region's edge in a color, cased in black so that it shows on any photo.

    The line runs inside the region, so that neighbors' lines run side by side; around a region too
    thin for that it runs on the edge, and is thinner.

    Args:
        ax: of `draw_photo`.
        region: whose mask is drawn.
        color: of the line.
        width: of the line in points.
        alpha: opacity.
    """
    left, right = ax.get_xlim()
    step = max(1, int(right - left) // _dots(ax))  # pixels of the photo per sample
    x, y, columns, rows = region.pixel_box
    mask = region.mask[y : y + rows, x : x + columns]
    # a sample is in the mask if any of its pixels is, so that no thin region is lost; the margin
    # closes the outline of a mask that touches the border
    mask = np.pad(mask if step == 1 else block_reduce(mask, step, np.max), 1)
    ys, xs = (
        start - 0.5 + (np.arange(count) - 0.5) * step
        for start, count in zip((y, x), mask.shape, strict=True)
    )
    depth = (ndimage.distance_transform_edt(mask) - 0.5) * step  # in the photo's pixels
    points_per_pixel = ax.get_window_extent().width / ax.figure.dpi * 72 / (right - left)
    level = (width / 2 + _CASING / 2) / points_per_pixel
    if depth.max() < 4 * level:
        level, width = 0.0, min(width, 0.8)
    lines = ax.contour(xs, ys, depth, [level], colors=[color], linewidths=width, alpha=alpha)
    black = {"foreground": "black", "alpha": 0.75 * alpha}
    lines.set_path_effects([patheffects.withStroke(linewidth=width + _CASING, **black)])


def anchor_point(region: Region, without: Iterable[Region] = ()) -> tuple[float, float]:
    """(x, y) of a pixel well inside a region and, if possible, in none of the others."""
    x, y, columns, rows = region.pixel_box
    box = (slice(y, y + rows), slice(x, x + columns))
    mask = region.mask[box]
    free = mask & ~np.any([np.zeros_like(mask), *(other.mask[box] for other in without)], axis=0)
    free = free if free.any() else mask
    step = max(1, max(rows, columns) // _STRIDE)
    step = step if free[::step, ::step].any() else 1  # thin lines may fall between the samples
    row, column = deepest_point(free[::step, ::step])
    return float(x + column * step), float(y + row * step)


def deepest_point(mask: np.ndarray) -> tuple[int, int]:
    """(row, column) of the pixel farthest from the mask's edge: always inside it."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(row), int(column)


def _dots(ax: Axes) -> int:
    """Pixels of print along the longer side of axes."""
    box = ax.get_window_extent()
    return max(1, round(max(box.width, box.height) / ax.figure.dpi * _DPI))
