"""Figures of tiles: how an image and its masks are cut, and what a small region keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ureca_lib.figures.style import PAGE_WIDTH, PALETTE, TARGET_COLOUR
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage
from ureca_lib.tiling import MAX_TILES, best_grid, masks_from_tiles, tile_image, tile_masks

_BLUE, _ORANGE = PALETTE[:2]


def image_tiles_figure(
    image: np.ndarray, max_tiles: int = MAX_TILES, tile_size: int = 448
) -> Figure:
    """A photo with its grid, and the tiles that the vision tower gets, the thumbnail last.

    Args:
        image: (H, W, 3) uint8.
        max_tiles: as `tile_image` takes it.
        tile_size: side of a tile in pixels.
    """
    height, width = image.shape[:2]
    columns, rows = best_grid(width, height, max_tiles, tile_size=tile_size)
    tiles = tile_image(image, max_tiles, tile_size).numpy()
    figure, (left, right) = _photo_and_tiles(width, height, columns, rows)
    left.imshow(image)
    for line in range(1, columns):
        left.axvline(line * width / columns - 0.5, color=TARGET_COLOUR, linewidth=1.2)
    for line in range(1, rows):
        left.axhline(line * height / rows - 0.5, color=TARGET_COLOUR, linewidth=1.2)
    left.set_title(f"photo, {width} x {height}; grid {columns} x {rows}", fontsize=8)
    _place_tiles(right, tiles, columns, rows)
    right.set_title(f"{len(tiles)} tiles of {tile_size} x {tile_size}", fontsize=8)
    return figure


def mask_tiles_figure(
    regions: RegionImage, region_id: RegionId, max_tiles: int = MAX_TILES, tile_size: int = 448
) -> Figure:
    """A region, and its mask's tiles; those of one value, which are encoded once, are marked.

    Args:
        regions: with the photo.
        region_id: of the region.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    region, image = regions[region_id], regions.pixels
    columns, rows = best_grid(regions.width, regions.height, max_tiles, tile_size=tile_size)
    tiles = tile_masks([region], max_tiles, tile_size, thumbnail=True, overshoot="clip")[0]
    figure, (left, right) = _photo_and_tiles(regions.width, regions.height, columns, rows)
    _outline(left, image, region.mask)
    left.set_title(f"{_name(region)}, {_pixels(region.area)}", fontsize=8)
    constant = [bool(tile.min() == tile.max()) for tile in tiles]
    _place_tiles(right, tiles.numpy(), columns, rows, constant)
    told = f"{sum(constant)} of {len(tiles)} tiles hold one value only"
    right.set_title(told, fontsize=8)
    return figure


def resizing_figure(
    regions: RegionImage,
    ids: Sequence[RegionId],
    max_tiles: int = MAX_TILES,
    tile_size: int = 448,
) -> Figure:
    """Regions as they are, as one resized mask keeps them, and as tiles do (after Fig. 10).

    Each panel shows the same part of the photo; under it, the mask's pixels and its IoU with the
    original once it is brought back to the photo's size.

    Args:
        regions: with the photo.
        ids: of the regions, one row each.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    size = (PAGE_WIDTH * 0.8, PAGE_WIDTH * 0.8 / 3 * len(ids) * 1.12 + 0.3)
    figure, axes = plt.subplots(len(ids), 3, figsize=size, squeeze=False, layout="constrained")
    titles = ("the region", f"one mask of {tile_size} x {tile_size}", "tiles of that size")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    for row, region_id in zip(axes, ids, strict=True):
        region = regions[region_id]
        kept = [masks_kept([region], most, tile_size) for most in (1, max_tiles)]
        seen = [region.mask, *(masks[0] for masks, _, _ in kept)]
        notes = [f"{_name(region)}, {_pixels(region.area)}"]
        notes += [f"{_pixels(left[0])}, IoU {share[0]:.2f}" for _, left, share in kept]
        for ax, mask, note in zip(row, seen, notes, strict=True):
            _close_up(ax, regions.pixels, mask, region)
            ax.set_xlabel(note, fontsize=8)
    return figure


def fidelity_figure(
    photos: Mapping[str, RegionImage], max_tiles: int = MAX_TILES, tile_size: int = 448
) -> Figure:
    """What each region keeps of its shape against its size, as one mask and as tiles.

    Args:
        photos: by name; regions of all of them are drawn together.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 2.8), layout="constrained")
    share = [100 * r.area / (i.width * i.height) for i in photos.values() for r in i.regions]
    for most, colour, mark, label in (
        (max_tiles, _BLUE, "o", f"tiles of {tile_size} (at most {max_tiles})"),
        (1, _ORANGE, "x", f"one mask of {tile_size}"),
    ):
        kept = [masks_kept(image.regions, most, tile_size)[2] for image in photos.values()]
        ax.scatter(share, np.concatenate(kept), s=16, color=colour, marker=mark, lw=1, label=label)
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("share of the photo, %")
    ax.set_ylabel("IoU with the mask")
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def masks_kept(
    regions: Sequence[Region], max_tiles: int, tile_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What tiling leaves of regions of one image.

    Args:
        regions: R regions.
        max_tiles: as `tile_masks` takes it; 1 resizes each mask to one tile.
        tile_size: side of a tile in pixels.

    Returns:
        masks brought back to the image's size (R, H, W) bool; pixels inside the tiles, (R,) int64,
        the thumbnail left aside; IoU with the masks as they were, (R,) float64.
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
    left.axis("off")
    right.axis("off")
    return figure, (left, right)


def _place_tiles(
    ax: Axes, tiles: np.ndarray, columns: int, rows: int, constant: Sequence[bool] | None = None
) -> None:
    """Tiles at their places with gaps between them; the thumbnail at the right."""
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
        colour = "white" if tile.mean() < (128 if tile.ndim == 3 else 0.5) else "black"
        if tile.ndim == 3:
            box = {"facecolor": "black", "alpha": 0.55, "pad": 1.2, "edgecolor": "none"}
            ax.text(x + 0.05, y + 0.06, label, color="white", fontsize=7, va="top", bbox=box)
        else:
            ax.text(x + 0.06, y + 0.06, label, color=colour, fontsize=7, va="top")
    many = columns * rows < len(tiles)
    ax.set_xlim(-gap, columns * (side + gap) + (side + 4 * gap if many else 0))
    ax.set_ylim(rows * (side + gap), -gap)


def _outline(ax: Axes, image: np.ndarray, mask: np.ndarray) -> None:
    shown = image.copy()
    shown[~mask] = shown[~mask] // 5 * 3
    ax.imshow(shown)
    _contour(ax, mask, TARGET_COLOUR, 1.0)


def _contour(ax: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    # padded, so that a mask that touches the border is closed; an extent holds pixels' centres
    extent = (-1, mask.shape[1], -1, mask.shape[0])
    ax.contour(np.pad(mask, 1), [0.5], colors=[colour], linewidths=width, extent=extent)


def _close_up(ax: Axes, image: np.ndarray, mask: np.ndarray, region: Region) -> None:
    """The photo around a region in grey, with a mask of the same size over it."""
    x, y, columns, rows = region.pixel_box
    height, width = mask.shape
    side = min(max(columns, rows) * 1.5 + 4, width, height)
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) / 255
    grey[mask] = 0.35 * grey[mask] + 0.65 * np.array([1, 0.84, 0])
    ax.imshow(grey, interpolation="nearest")
    left = min(max(x + (columns - side) / 2, 0), width - side) - 0.5
    top = min(max(y + (rows - side) / 2, 0), height - side) - 0.5
    _contour(ax, region.mask, "white", 0.8)
    ax.set_xlim(left, left + side)
    ax.set_ylim(top + side, top)
    ax.set_xticks([])
    ax.set_yticks([])


def _name(region: Region) -> str:
    return (region.name or f"region {region.id}").replace("$", r"\$")


def _pixels(number: int) -> str:
    return "1 pixel" if number == 1 else f"{number} pixels"
