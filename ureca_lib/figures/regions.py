"""Regions on their photo: by level of the tree, and one by one with their captions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from ureca_lib.figures.outlines import deepest_point
from ureca_lib.figures.page import Box, Page
from ureca_lib.figures.style import PAGE_WIDTH, PALETTE, TARGET_COLOUR
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region, RegionImage

_HALO = [patheffects.withStroke(linewidth=2, foreground="black")]
_GAP = 0.1  # inches between panels
# of the longer side of what is drawn: about 200 dpi across a page, and for one panel of several
_PAGE_PIXELS, _PANEL_PIXELS = 1400, 700


def draw_regions(
    ax: Axes, image: np.ndarray, regions: Iterable[Region], labels: bool = True, fill: float = 0.35
) -> None:
    """Draw regions, each in a color of its own, with its name inside.

    Args:
        ax: where to draw.
        image: (H, W, 3) uint8.
        regions: of the image; smaller ones are drawn over larger ones.
        labels: write the names (or ids) at a point well inside each region.
        fill: opacity of the color, 0 to 1.
    """
    height, width = image.shape[:2]
    step = _show(ax, image, 0, 0, _PAGE_PIXELS)
    written: list[tuple[float, float, float]] = []  # row, column, half width of each label
    for number, region in enumerate(sorted(regions, key=lambda region: -region.area)):
        mask, color = region.mask, PALETTE[number % len(PALETTE)]
        # of the region's box alone: a layer of the whole photo per region would fill the memory
        xs, ys, part = _reduced(region, mask, step)
        layer = np.zeros((*part.shape, 4), np.uint8)
        layer[part] = [round(255 * value) for value in (*to_rgb(color), fill)]
        half = step / 2
        ax.imshow(layer, extent=(xs[0] - half, xs[-1] + half, ys[-1] + half, ys[0] - half))
        ax.contour(xs, ys, part, [0.5], colors=[color], linewidths=1.2)
        if labels:
            _label(ax, region, mask, written)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)


def _show(ax: Axes, image: np.ndarray, left: int, top: int, most: int) -> int:
    """Show a photo, or the part of it that begins at (left, top), with `most` pixels a side.

    Returns:
        How many pixels of the photo, each way, are averaged into one that is drawn.
    """
    height, width = image.shape[:2]
    step = -(-max(height, width) // most)
    place = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    ax.imshow(image if step == 1 else Image.fromarray(image).reduce(step), extent=place)
    ax.axis("off")
    return step


def _reduced(
    region: Region, mask: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A region's box with a margin, `step` x `step` pixels as one; thin parts do not get lost.

    Returns:
        x (w,) and y (h,) of the cells' centers in the photo's pixels, and the mask (h, w).
    """
    x, y, columns, rows = region.pixel_box
    part = mask[y : y + rows, x : x + columns]
    part = np.pad(part, ((0, -rows % step), (0, -columns % step)))
    height, width = part.shape
    part = part.reshape(height // step, step, width // step, step).any((1, 3))
    part = np.pad(part, 1)  # closes the outline of a mask that touches the border
    middle = (step - 1) / 2
    xs = x + middle + step * (np.arange(part.shape[1]) - 1)
    return xs, y + middle + step * (np.arange(part.shape[0]) - 1), part


def _label(
    ax: Axes, region: Region, mask: np.ndarray, written: list[tuple[float, float, float]]
) -> None:
    """Name a region inside it, or above it where it is small; not over another name."""
    letter = mask.shape[1] / 45  # about the width of one in a panel of three
    text = region.name or str(region.id)
    half = letter * len(text) / 2
    row, column = map(float, deepest_point(mask))
    _, y, columns, rows = region.pixel_box
    if columns < 2 * half and rows < 5 * letter:
        row = y - 2 * letter if y > 3 * letter else y + rows + 2 * letter
    column = min(max(column, half), mask.shape[1] - half)
    if any(abs(row - r) < 3 * letter and abs(column - c) < half + h for r, c, h in written):
        return
    written.append((row, column, half))
    style = {"color": "white", "fontsize": 6, "path_effects": _HALO}
    ax.text(column, row, text.replace("$", r"\$"), ha="center", va="center", **style)


def level_figure(regions: RegionImage, tree: MaskTree, columns: int = 3) -> Figure:
    """One panel per level of the tree: granularity (Sec. 3).

    Args:
        regions: with the photo.
        tree: of these regions.
        columns: panels per row.
    """
    levels: dict[int, list[Region]] = {}
    for region in tree.top_down():
        levels.setdefault(tree.depth(region.id), []).append(region)
    figure, axes = _grid(len(levels) + 1, columns, regions.height / regions.width)
    _show(axes[0], regions.pixels, 0, 0, _PAGE_PIXELS)
    axes[0].set_title(f"{regions.file_name or 'photo'}", fontsize=8)
    for ax, (depth, members) in zip(axes[1:], sorted(levels.items()), strict=True):
        draw_regions(ax, regions.pixels, members, labels=True)
        ax.set_title(f"level {depth}: {len(members)} regions", fontsize=8)
    return figure


def caption_figure(
    regions: RegionImage,
    captions: Mapping[RegionId, str],
    ids: Sequence[RegionId] | None = None,
    columns: int = 4,
    others: Mapping[str, Mapping[RegionId, str]] | None = None,
) -> Figure:
    """One panel per region, with its caption below.

    Args:
        regions: with the photo.
        captions: text by region id.
        ids: which regions, in this order; None takes all that have a caption.
        columns: panels per row.
        others: further systems' captions by name; then each line begins with the system's name.
    """
    chosen = list(captions) if ids is None else list(ids)
    columns = max(1, min(columns, len(chosen)))
    page, side, top = Page(), (PAGE_WIDTH - (columns - 1) * _GAP) / columns, 0.0
    for first in range(0, len(chosen), columns):  # a row is as high as its own captions need
        bottom = top
        for place, region_id in enumerate(chosen[first : first + columns]):
            lines = [
                f"{name}: {texts.get(region_id, '-')}" for name, texts in (others or {}).items()
            ]
            view = partial(_panel, regions.pixels, regions[region_id])
            box = page.picture(Box(place * (side + _GAP), top, side, side), view)
            for text in (captions[region_id], *lines):
                box = page.text(box.left, box.bottom + 0.04, text, side, align="center")
            bottom = max(bottom, box.bottom)
        top = bottom + _GAP
    return page.figure()


def _panel(image: np.ndarray, region: Region, ax: Axes) -> None:
    draw_target(ax, image, region)
    ax.set_anchor("S")  # a wide view stands on its caption
    ax.axis("off")


def draw_target(ax: Axes, image: np.ndarray, region: Region, context: float = 0.6) -> None:
    """A square view around a region, with its contour and the rest dimmed.

    Args:
        ax: where to draw.
        image: (H, W, 3) uint8.
        region: of the image.
        context: margin on each side, as a share of the region's longer side.
    """
    height, width = image.shape[:2]
    x, y, columns, rows = region.pixel_box
    side = min(max(height, width), max(columns, rows) * (1 + 2 * context) + 24)
    left, top = x + columns / 2 - side / 2, y + rows / 2 - side / 2
    left = min(max(left, 0), max(width - side, 0)) if side < width else (width - side) / 2
    top = min(max(top, 0), max(height - side, 0)) if side < height else (height - side) / 2
    # what is shown is cut out first: each panel would hold the whole photo otherwise
    rows_shown = slice(max(int(top), 0), int(np.ceil(top + side)))
    columns_shown = slice(max(int(left), 0), int(np.ceil(left + side)))
    mask = region.mask
    inside, shown = mask[rows_shown, columns_shown], image[rows_shown, columns_shown].copy()
    shown[~inside] = shown[~inside] // 5 * 3
    step = _show(ax, shown, columns_shown.start, rows_shown.start, _PANEL_PIXELS)
    xs, ys, part = _reduced(region, mask, step)
    ax.contour(xs, ys, part, [0.5], colors=[TARGET_COLOUR], linewidths=1.4)
    # no margin beside a photo that is narrower than the view: its caption is to stand close
    left, top = max(left, 0), max(top, 0)
    ax.set_xlim(left - 0.5, min(left + side, width) - 0.5)
    ax.set_ylim(min(top + side, height) - 0.5, top - 0.5)


def tree_figure(regions: RegionImage, tree: MaskTree) -> Figure:
    """The regions on the photo beside their tree."""
    height = max(3.0, 0.17 * (len(tree) + 1))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(PAGE_WIDTH, height), layout="constrained", width_ratios=[1, 1.1]
    )
    draw_regions(left, regions.pixels, regions.regions, fill=0.1)
    left.set_anchor("N")
    tree.plot(right)
    return figure


def _grid(count: int, columns: int, aspect: float) -> tuple[Figure, list[Axes]]:
    """Panels of one width, `aspect` high, with room for a title over each."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    width, title = PAGE_WIDTH / columns, 0.25
    size = (PAGE_WIDTH, rows * (width * aspect + title))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.97, wspace=0.04, hspace=title / (width * aspect))
    flat = list(axes.flat)
    for ax in flat:
        ax.axis("off")
    return figure, flat[:count]
