"""Regions on photos: outlines that show on any photo, and the rest of it dimmed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from scipy import ndimage

from ureca_lib.figures.style import TARGET_COLOUR
from ureca_lib.regions import Region

_DIMMED = 0.55  # of the brightness outside a region
_CASING = 1.0  # points that the casing adds to a line


def draw_outline(
    ax: Axes, region: Region, colour: str = TARGET_COLOUR, width: float = 1.4, dashed: bool = False
) -> None:
    """A region's edge in a colour, cased in black so that it shows on a photo of that colour.

    The line runs inside the region, so that neighbours' lines lie side by side; round a region too
    thin for that it runs on the edge, and is thinner.

    Args:
        ax: in the photo's pixels, with its limits set.
        region: whose mask is drawn.
        colour: of the line.
        width: of the line in points.
        dashed: dash it.
    """
    places, mask = _with_margin(region)
    depth = ndimage.distance_transform_edt(mask) - 0.5
    inset = (width / 2 + _CASING / 2) / _points_a_pixel(ax)
    level = inset
    if depth.max() < 4 * inset:
        level, width = 0.0, min(width, 0.8)
    lines = ax.contour(*places, depth, [level], colors=[colour], linewidths=width)
    if dashed:
        lines.set_linestyle((0, (2.5, 1.5)))
    casing = patheffects.withStroke(linewidth=width + _CASING, foreground="black", alpha=0.75)
    lines.set_path_effects([casing])


def draw_edge(ax: Axes, region: Region, colour: str, width: float) -> None:
    """A bare line where a region's pixels end; see `draw_outline` for the arguments."""
    places, mask = _with_margin(region)
    ax.contour(*places, mask, [0.5], colors=[colour], linewidths=width)


def _with_margin(region: Region) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """x and y of a region's box and one pixel around it, and its mask there.

    The margin closes the outline of a mask that touches the border.
    """
    x, y, columns, rows = region.pixel_box
    mask = np.pad(region.mask[y : y + rows, x : x + columns], 1)
    return (np.arange(x - 1, x + columns + 1), np.arange(y - 1, y + rows + 1)), mask


def _points_a_pixel(ax: Axes) -> float:
    """How many points of print a pixel of the photo takes."""
    left, right = ax.get_xlim()
    return ax.get_window_extent().width / ax.figure.dpi * 72 / abs(right - left)


def draw_photo(ax: Axes, image: np.ndarray, bright: Iterable[Region] | None = None) -> None:
    """A photo that fills its axes; with regions, all outside them is dimmed.

    Args:
        ax: whose box has the photo's shape.
        image: (H, W, 3) uint8.
        bright: regions that keep their brightness; None keeps all of it.
    """
    shown = image
    if bright is not None:
        mask = np.zeros(image.shape[:2], bool)
        for region in bright:
            mask |= region.mask
        shown = np.where(mask[..., None], image, (image * _DIMMED).astype(np.uint8))
    ax.imshow(shown, aspect="auto", interpolation="antialiased")
    ax.set_xlim(-0.5, image.shape[1] - 0.5)
    ax.set_ylim(image.shape[0] - 0.5, -0.5)
    ax.axis("off")


def close_up(ax: Axes, region: Region, context: float = 0.6, least: float = 0) -> None:
    """Narrow axes that show a photo to a region and its surroundings, in the axes' own shape.

    Args:
        ax: shows the whole photo.
        region: that is to be in the middle, as far as the photo's border lets it.
        context: margin on each side, as a share of the region's longer side.
        least: of the photo's longer side, the share that is shown even of a tiny region.
    """
    height, width = region.size
    x, y, columns, rows = region.pixel_box
    box = ax.get_window_extent()
    shape = box.width / box.height
    margin = 2 * context * max(columns, rows) + 12
    wide = max(columns + margin, (rows + margin) * shape)
    wide = min(max(wide, least * max(height, width)), width, height * shape)
    tall = wide / shape
    left = min(max(x + (columns - wide) / 2, 0), width - wide) - 0.5
    top = min(max(y + (rows - tall) / 2, 0), height - tall) - 0.5
    ax.set_xlim(left, left + wide)
    ax.set_ylim(top + tall, top)


def anchor_point(region: Region, without: Iterable[Region] = ()) -> tuple[float, float]:
    """(x, y) of a pixel well inside a region and, where it can be, in none of the others."""
    mask = region.mask
    free = mask.copy()
    for other in without:
        free &= ~other.mask
    row, column = deepest_point(free if free.any() else mask)
    return float(column), float(row)


def deepest_point(mask: np.ndarray) -> tuple[int, int]:
    """(row, column) of the pixel farthest from the mask's edge: always inside it."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(row), int(column)
