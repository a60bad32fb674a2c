"""Tiles: how an image and its masks are cut, what a small region keeps, and what that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from ureca_lib.evaluate.scores import Score
from ureca_lib.figures.comparison import percent
from ureca_lib.figures.outlines import close_view, draw_edge, draw_outline, draw_photo
from ureca_lib.figures.style import (
    BODY,
    HEAD,
    INK,
    LEGEND,
    MARKERS,
    PAGE_WIDTH,
    PALETTE,
    SMALL,
    TARGET_COLOR,
    chart,
    size_chart,
    wrapped,
)
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage
from ureca_lib.tiling import MAX_TILES, best_grid, masks_from_tiles, tile_image, tile_masks

_BLUE, _ORANGE = PALETTE[:2]


def image_tiles_figure(
    image: np.ndarray, max_tiles: int = MAX_TILES, tile_size: int = 448
) -> Figure:
    """Draw a photo with its grid, and the tiles that the vision tower gets, the thumbnail last.

    Args:
        image: (H, W, 3) uint8.
        max_tiles: as `tile_image` takes it.
        tile_size: side of a tile in pixels.
    """
    height, width = image.shape[:2]
    columns, rows = best_grid(width, height, max_tiles, tile_size=tile_size)
    tiles = tile_image(image, max_tiles, tile_size).numpy()
    figure, (left, right) = _photo_and_tiles(width, height, columns, rows)
    draw_photo(left, image)
    for line in range(1, columns):
        left.axvline(line * width / columns - 0.5, color=TARGET_COLOR, linewidth=1.2)
    for line in range(1, rows):
        left.axhline(line * height / rows - 0.5, color=TARGET_COLOR, linewidth=1.2)
    left.set_title(f"photo, {width} × {height}; grid {columns} × {rows}", fontsize=HEAD)
    _place_tiles(right, tiles, columns, rows)
    right.set_title(f"{len(tiles)} tiles of {tile_size} × {tile_size}", fontsize=HEAD)
    return figure


def mask_tiles_figure(
    regions: RegionImage, region_id: RegionId, max_tiles: int = MAX_TILES, tile_size: int = 448
) -> Figure:
    """Draw a region and its mask's tiles; tiles of one value, which are encoded once, are marked.

    Args:
        regions: with the photo.
        region_id: of the region.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    region = regions[region_id]
    columns, rows = best_grid(regions.width, regions.height, max_tiles, tile_size=tile_size)
    tiles = tile_masks([region], max_tiles, tile_size, thumbnail=True, overshoot="clip")[0]
    figure, (left, right) = _photo_and_tiles(regions.width, regions.height, columns, rows)
    draw_photo(left, regions.pixels, [region])
    draw_outline(left, region)
    left.set_title(wrapped(_named(region), 50, 2), fontsize=HEAD)
    constant = [bool(tile.min() == tile.max()) for tile in tiles]
    _place_tiles(right, tiles.numpy(), columns, rows, constant)
    count = f"{sum(constant)} of {len(tiles)} tiles hold only one value"
    right.set_title(count, fontsize=HEAD)
    return figure


def resizing_figure(
    regions: RegionImage,
    ids: Sequence[RegionId],
    max_tiles: int = MAX_TILES,
    tile_size: int = 448,
) -> Figure:
    """Draw regions as they are, as one resized mask keeps them, and as tiles do (after Fig. 10).

    Each picture shows the same part of the photo; under it, the mask's pixels and its IoU with the
    original after it is brought back to the photo's size.

    Args:
        regions: with the photo.
        ids: of the regions, a row per region.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    size = (PAGE_WIDTH * 0.8, PAGE_WIDTH * 0.8 / 3 * len(ids) * 1.12 + 0.3)
    figure, axes = plt.subplots(len(ids), 3, figsize=size, squeeze=False, layout="constrained")
    for ax, title in zip(axes[0], _kept_titles(tile_size), strict=True):
        ax.set_title(title, fontsize=HEAD)
    for row, region_id in zip(axes, ids, strict=True):
        _draw_kept(row, regions, regions[region_id], max_tiles, tile_size)
    return figure


def fidelity_figure(
    photos: Mapping[str, RegionImage], max_tiles: int = MAX_TILES, tile_size: int = 448
) -> Figure:
    """Draw how much of its shape each region keeps against its size, as one mask and as tiles.

    Args:
        photos: by name; regions of all of them are drawn together.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 2.8), layout="constrained")
    share = [100 * r.area / (i.width * i.height) for i in photos.values() for r in i.regions]
    for most, color, mark, label in (
        (max_tiles, _BLUE, "o", f"tiles of {tile_size} (at most {max_tiles})"),
        (1, _ORANGE, "x", f"one mask of {tile_size}"),
    ):
        kept = [masks_kept(image.regions, most, tile_size)[2] for image in photos.values()]
        ax.scatter(share, np.concatenate(kept), s=16, color=color, marker=mark, lw=1, label=label)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_ylim(-0.03, 1.03)
    chart(ax, "share of the photo, %", "IoU with the mask")
    ax.legend(loc="lower right", **LEGEND)
    return figure


def dynamic_mask_figure(
    regions: RegionImage,
    region_id: RegionId,
    curves: Mapping[str, Mapping[str, Score]],
    what: str = "exact match, %",
    max_tiles: int = MAX_TILES,
    tile_size: int = 448,
) -> Figure:
    """Draw what tiling keeps of a region's mask, and a score of captions by size (Fig. 10).

    Args:
        regions: with the photo.
        region_id: of the region that is shown close up.
        curves: by the system's name, the score by size; sizes are named and in order, the
            smallest first, and are those of all systems, as in `measure_exact(...).by_size`.
            Without any, the right half is left out.
        what: the axis' label.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.

    Raises:
        ValueError: more systems than marks.
    """
    if len(curves) > len(MARKERS):
        raise ValueError(f"at most {len(MARKERS)} curves, not {len(curves)}")
    ratios, width = [1, 1, 1, 2], PAGE_WIDTH
    if not curves:
        ratios, width = ratios[:3], 0.6 * width
    figure, axes = plt.subplots(
        1, len(ratios), figsize=(width, 2.1), width_ratios=ratios, layout="constrained"
    )
    for ax, title in zip(axes[:3], _kept_titles(tile_size), strict=True):
        ax.set_title(wrapped(title, 20), fontsize=BODY)
        ax.set_anchor("N")
    _draw_kept(axes[:3], regions, regions[region_id], max_tiles, tile_size)
    if curves:
        values = {
            name: {size: percent(one) for size, one in curve.items() if one.value is not None}
            for name, curve in curves.items()
        }
        size_chart(axes[3], values, what, _counts(curves))
        axes[3].legend(**LEGEND)
    return figure


def most_changed(
    regions: RegionImage, max_tiles: int = MAX_TILES, tile_size: int = 448
) -> RegionId:
    """Find the region whose IoU tiling raises most over one resized mask.

    Args:
        regions: of one image.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    kept = [masks_kept(regions.regions, most, tile_size)[2] for most in (max_tiles, 1)]
    return regions.regions[int((kept[0] - kept[1]).argmax())].id


def masks_kept(
    regions: Sequence[Region], max_tiles: int, tile_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure what tiling leaves of regions of one image.

    Args:
        regions: R regions.
        max_tiles: as `tile_masks` takes it; 1 resizes each mask to one tile.
        tile_size: side of a tile in pixels.

    Returns:
        masks brought back to the image's size (R, H, W) bool; pixels inside the tiles without the
        thumbnail, (R,) int64; IoU with the original masks, (R,) float64.
    """
    height, width = regions[0].size
    tiles = tile_masks(regions, max_tiles, tile_size)
    back = masks_from_tiles(tiles, height, width, max_tiles).numpy()
    masks = np.stack([region.mask for region in regions])
    common = (back & masks).sum((1, 2))
    return back, tiles.sum((1, 2, 3)).long().numpy(), common / (back | masks).sum((1, 2))


def _photo_and_tiles(
    width: int, height: int, columns: int, rows: int
) -> tuple[Figure, tuple[Axes, Axes]]:
    tall = max(height / width, rows / (columns + 1.2))
    size = (PAGE_WIDTH, PAGE_WIDTH / 2 * min(tall, 1.6) + 0.3)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=size, width_ratios=[1, 1.15], layout="constrained"
    )
    right.axis("off")
    return figure, (left, right)


def _place_tiles(
    ax: Axes, tiles: np.ndarray, columns: int, rows: int, constant: Sequence[bool] | None = None
) -> None:
    """Show tiles at their places with gaps between them; the thumbnail at the right."""
    gap, side = 0.06, 1.0
    for number, tile in enumerate(tiles):
        last = number == columns * rows
        x = columns * (side + gap) + 3 * gap if last else number % columns * (side + gap)
        y = (rows - 1) * (side + gap) / 2 if last else number // columns * (side + gap)
        levels = {} if tile.ndim == 3 else {"cmap": "gray", "vmin": 0, "vmax": 1}
        ax.imshow(tile, extent=(x, x + side, y + side, y), interpolation="nearest", **levels)
        same = constant is not None and constant[number]
        frame = {"edgecolor": "#999999" if same else _BLUE, "linewidth": 0.6 if same else 1.4}
        ax.add_patch(Rectangle((x, y), side, side, fill=False, **frame))
        label = "thumbnail" if last else str(number + 1)
        color, box = "black", None
        if tile.ndim == 3:
            color, box = "white", {"facecolor": "black", "alpha": 0.55, "pad": 1.2, "lw": 0}
        elif tile.mean() < 0.5:
            color = "white"
        ax.text(x + 0.06, y + 0.06, label, color=color, fontsize=BODY, va="top", bbox=box)
    many = columns * rows < len(tiles)
    ax.set_xlim(-gap, columns * (side + gap) + (side + 4 * gap if many else 0))
    ax.set_ylim(rows * (side + gap), -gap)


def _kept_titles(tile_size: int) -> tuple[str, str, str]:
    one = f"one mask, {tile_size} × {tile_size}"
    return "the region", one, "tiles of that size"


def _draw_kept(
    axes: Sequence[Axes], regions: RegionImage, region: Region, max_tiles: int, tile_size: int
) -> None:
    """Draw a region, what one mask keeps of it and what tiles keep, over the photo in gray."""
    kept = [masks_kept([region], most, tile_size) for most in (1, max_tiles)]
    masks = [region.mask, *(masks[0] for masks, _, _ in kept)]
    notes = [_named(region)]
    notes += [f"{_pixels(left[0])}, IoU {iou[0]:.2f}" for _, left, iou in kept]
    for ax, mask, note in zip(axes, masks, notes, strict=True):
        view = close_view(region, context=0.25)
        draw_photo(ax, regions.pixels, view=view, tints=[(mask, TARGET_COLOR, 0.65)], gray=0.9)
        draw_edge(ax, region, "white", 0.8)
        ax.axis("on")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_xlabel(wrapped(note, 24, 3), fontsize=SMALL, color=INK)


def _counts(curves: Mapping[str, Mapping[str, Score]]) -> dict[str, str]:
    """Number of captions behind each size; a range if systems differ."""
    counts: dict[str, set[int]] = {}
    for curve in curves.values():
        for size, one in curve.items():
            counts.setdefault(size, set()).add(one.count)
    return {
        size: str(min(found)) if len(found) == 1 else f"{min(found)}–{max(found)}"
        for size, found in counts.items()
    }


def _named(region: Region) -> str:
    return f"{region.name or f'region {region.id}'}, {_pixels(region.area)}"


def _pixels(number: int) -> str:
    return "1 pixel" if number == 1 else f"{number} pixels"
