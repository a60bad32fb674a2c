"""Tiles: how an image and its masks are cut, what a small region keeps, and what that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ureca_lib.evaluate.scores import Score
from ureca_lib.figures.comparison import percent
from ureca_lib.figures.outlines import close_view, draw_outline, draw_photo
from ureca_lib.figures.style import (
    BODY,
    HEAD,
    INK,
    LEGEND,
    PAGE_WIDTH,
    PALETTE,
    SMALL,
    TARGET_COLOR,
    Interval,
    chart,
    size_chart,
    wrapped,
)
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage
from ureca_lib.tiling import MAX_TILES, best_grid, masks_from_tiles, tile_image, tile_masks

_BLUE, _ORANGE = PALETTE[:2]


def tiles_figure(
    regions: RegionImage,
    region_id: RegionId | None = None,
    max_tiles: int = MAX_TILES,
    tile_size: int = 448,
) -> Figure:
    """Draw a photo with its grid and its tiles, or a region with its mask's tiles.

    The thumbnail is at the right. Tiles of one value, which are encoded once, have no blue frame.

    Args:
        regions: with the photo.
        region_id: of the region; None draws the photo's tiles, which the vision tower gets.
        max_tiles: as `tile_image` and `tile_masks` take it.
        tile_size: side of a tile in pixels.
    """
    width, height = regions.width, regions.height
    columns, rows = best_grid(width, height, max_tiles, tile_size=tile_size)
    tall = max(height / width, rows / (columns + 1.2))
    size = (PAGE_WIDTH, PAGE_WIDTH / 2 * min(tall, 1.6) + 0.3)
    style = {"width_ratios": [1, 1.15], "layout": "constrained"}
    figure, (photo, ax) = plt.subplots(1, 2, figsize=size, **style)
    if region_id is None:
        tiles = tile_image(regions.pixels, max_tiles, tile_size).numpy()
        draw_photo(photo, regions.pixels)
        for line in np.arange(1, columns) * width / columns - 0.5:
            photo.axvline(line, color=TARGET_COLOR, linewidth=1.2)
        for line in np.arange(1, rows) * height / rows - 0.5:
            photo.axhline(line, color=TARGET_COLOR, linewidth=1.2)
        photo.set_title(f"photo, {width} × {height}; grid {columns} × {rows}", fontsize=HEAD)
        ax.set_title(f"{len(tiles)} tiles of {tile_size} × {tile_size}", fontsize=HEAD)
    else:
        region, style = regions[region_id], {"thumbnail": True, "overshoot": "clip"}
        tiles = tile_masks([region], max_tiles, tile_size, **style)[0].numpy()
        draw_photo(photo, regions.pixels, [region])
        draw_outline(photo, region)
        photo.set_title(wrapped(_named(region), 50, 2), fontsize=HEAD)
        constant = sum(tile.min() == tile.max() for tile in tiles)
        ax.set_title(f"{constant} of {len(tiles)} tiles hold only one value", fontsize=HEAD)
    box = {"facecolor": "black", "alpha": 0.55, "pad": 1.2, "lw": 0}
    for number, tile in enumerate(tiles):
        last = number == columns * rows
        x, y = (columns + 0.2, (rows - 1) / 2) if last else (number % columns, number // columns)
        x, y = 1.06 * x, 1.06 * y  # with gaps
        extent = (x, x + 1, y + 1, y)
        ax.imshow(tile, "gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        color, line = ("#999999", 0.6) if tile.min() == tile.max() else (_BLUE, 1.4)
        ax.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=color, linewidth=line))
        label = "thumbnail" if last else str(number + 1)
        ax.text(x + 0.06, y + 0.06, label, color="white", fontsize=BODY, va="top", bbox=box)
    wide = columns + (1.2 if len(tiles) > columns * rows else 0)
    ax.set(xlim=(-0.06, 1.06 * wide), ylim=(1.06 * rows, -0.06))
    ax.axis("off")
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
    ax.xaxis.set_major_formatter("{x:g}")
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
        what: the axis' label.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    figure = plt.figure(figsize=(PAGE_WIDTH, 2.1), layout="constrained")
    *axes, right = figure.subplots(1, 4, width_ratios=[1, 1, 1, 2.2])
    _draw_kept(axes, regions, regions[region_id], max_tiles, tile_size)
    values: dict[str, dict[str, Interval]] = {}
    counts: dict[str, set[int]] = {}
    for name, curve in curves.items():
        values[name] = {size: percent(one) for size, one in curve.items() if percent(one)}
        for size, one in curve.items():
            counts.setdefault(size, set()).add(one.count)
    # a range if systems differ
    ranges = {size: "–".join(map(str, sorted({min(n), max(n)}))) for size, n in counts.items()}
    size_chart(right, values, what, ranges)
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


def _draw_kept(
    axes: Sequence[Axes], regions: RegionImage, region: Region, max_tiles: int, tile_size: int
) -> None:
    """Draw a region, what one mask keeps of it and what tiles keep, over the dimmed photo."""
    kept = [masks_kept([region], most, tile_size) for most in (1, max_tiles)]
    masks = [region.mask, *(masks[0] for masks, _, _ in kept)]
    titles = ("the region", f"one mask, {tile_size} × {tile_size}", "tiles of that size")
    notes = [_named(region), *(f"{left[0]} px, IoU {iou[0]:.2f}" for _, left, iou in kept)]
    view = close_view(region, context=0.25)
    for ax, mask, title, note in zip(axes, masks, titles, notes, strict=True):
        draw_photo(ax, regions.pixels, [], view, [(mask, TARGET_COLOR, 0.65)])
        draw_outline(ax, region, "white", 0.8)
        ax.set_anchor("N")
        ax.set_title(f"{title}\n{wrapped(note, 24, 3)}", fontsize=SMALL, color=INK)


def _named(region: Region) -> str:
    return f"{region.name or f'region {region.id}'}, {region.area} px"
