"""Tiles: InternVL's dynamic preprocessing, for an image and for all of its masks at once.

An image is resized to a grid of square tiles whose aspect ratio is closest to its own, and cut up.
Masks are cut on the same grid (dynamic mask modeling, Sec. 4.2, Eq. 2), by nearest neighbor instead
of bicubic, so that they stay binary.

The thumbnail of a mask is bicubic all the same. The published code resizes a float mask of 0 and
255; the filter overshoots at edges, to about -30 and 290, and the cast to bytes that follows drops
the fraction and wraps such values around: -5 becomes 251, 260 becomes 4. The released weights have
learned from thumbnails like that, so it is the default (`overshoot="wrap"`).

Only the box that a mask touches is decoded, resized and written, so the time depends on the size of
a region and not on the size of its photo, and a tile that no mask touches takes no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from ureca_lib.regions import (
    EmptyMaskError,
    Region,
    SizeMismatchError,
    load_image,
)
from ureca_lib.regions.rle import run_lengths

TILE_SIZE = 448  # App. A: input size of the mask encoder, and of InternVL's vision tower
MAX_TILES = 12  # the published setting at inference; 6 in training
FULL = 1  # the second of the distinct tiles of `MaskTiles`; the first is blank
WEIGHT_STEPS = 2.0**50  # bicubic weights are multiples of 1 / WEIGHT_STEPS: float64 sums are exact
BAND = 32  # pixels of a thumbnail that are computed at a time: weights outside a band are zero

MaskLike = Region | Mapping[str, Any] | np.ndarray | torch.Tensor
Overshoot = Literal["wrap", "clip"]


def best_grid(
    width: int, height: int, max_tiles: int, min_tiles: int = 1, tile_size: int = TILE_SIZE
) -> tuple[int, int]:
    """The grid of tiles whose aspect ratio is closest to the image's (InternVL's rule).

    Of grids that are equally close the one with more tiles wins, as long as the image has more
    than half as many pixels as the grid. Grids with as many tiles are tried in transformers' order
    (`GotOcr2ImageProcessor`), narrow ones first; the published code's differs from it only with
    min_tiles of 4 or more, for images exactly halfway between two grids.

    Args:
        width, height: of the image in pixels.
        max_tiles, min_tiles: bounds of columns * rows.
        tile_size: side of a tile in pixels; it matters to the tie rule only.

    Returns:
        (columns, rows).

    Raises:
        ValueError: a size or a number of tiles below 1, or min_tiles above max_tiles.
    """
    if min(width, height) < 1:
        raise ValueError(f"an image of {width} x {height} (width x height) has no pixels")
    if not 1 <= min_tiles <= max_tiles or tile_size < 1:
        raise ValueError(
            f"need 1 <= min_tiles <= max_tiles and tile_size >= 1, got {min_tiles}, {max_tiles} "
            f"and {tile_size}"
        )
    ratio, area = width / height, width * height
    best, best_difference = (1, 1), float("inf")
    sides = range(1, max_tiles + 1)
    grids = [(c, r) for c in sides for r in sides if min_tiles <= c * r <= max_tiles]
    # fewer tiles first: the order decides ties
    for columns, rows in sorted(grids, key=math.prod):
        difference = abs(ratio - columns / rows)
        large_enough = area > 0.5 * tile_size * tile_size * columns * rows
        if difference < best_difference or (difference == best_difference and large_enough):
            best, best_difference = (columns, rows), difference
    return best


def tile_places(grid: tuple[int, int], thumbnail: bool = False) -> torch.Tensor:
    """Row and column of each tile of a grid, in the order of `tile_masks`.

    Args:
        grid: (columns, rows), as `best_grid` has them.
        thumbnail: whether a thumbnail follows if there is more than one tile.

    Returns:
        (T, 2) int64, counted from 1; 0 and 0 for a tile that shows the whole mask.
    """
    columns, rows = grid
    if grid == (1, 1):
        return torch.zeros(1, 2, dtype=torch.int64)
    places = torch.cartesian_prod(torch.arange(1, rows + 1), torch.arange(1, columns + 1))
    return torch.cat([places, places.new_zeros(1, 2)]) if thumbnail else places


def tile_image(
    image: np.ndarray | Image.Image | str | Path,
    max_tiles: int = MAX_TILES,
    tile_size: int = TILE_SIZE,
    thumbnail: bool = True,
    min_tiles: int = 1,
) -> torch.Tensor:
    """Cut an image into tiles (InternVL's dynamic preprocessing).

    Args:
        image: anything `load_image` takes: an array, a PIL image or a path.
        max_tiles, min_tiles: bounds of the number of tiles, the thumbnail not counted.
        tile_size: S, side of a tile in pixels.
        thumbnail: add the whole image, resized to one tile, if there is more than one tile.

    Returns:
        (T, S, S, 3) uint8 RGB, tiles row by row from the top left, the thumbnail last.

    Raises:
        RegionError: not an image; ValueError: see `best_grid`.
    """
    photo = Image.fromarray(load_image(image))
    columns, rows = best_grid(*photo.size, max_tiles, min_tiles, tile_size)
    canvas = np.asarray(photo.resize((columns * tile_size, rows * tile_size), Image.BICUBIC))
    tiles = canvas.reshape(rows, tile_size, columns, tile_size, 3).swapaxes(1, 2)
    tiles = tiles.reshape(rows * columns, tile_size, tile_size, 3)
    if thumbnail and len(tiles) > 1:
        small = np.asarray(photo.resize((tile_size, tile_size), Image.BICUBIC))
        tiles = np.concatenate([tiles, small[None]])
    return torch.tensor(tiles)


class MaskTiles(NamedTuple):
    """Tiles of R masks, each distinct tile once.

    Fields:
        distinct: (K, S, S) uint8 levels 0..255, or float32 levels where a thumbnail is clipped.
            The first tile is blank and stands for everything that no mask touches; the second is
            full.
        index: (R, T) int64 into `distinct`: tiles row by row from the top left, thumbnail last.
    """

    distinct: torch.Tensor
    index: torch.Tensor

    def to(self, device: torch.device | str) -> MaskTiles:
        """The same tiles on another device."""
        return MaskTiles(self.distinct.to(device), self.index.to(device))

    def values(self, scale: float = 1) -> torch.Tensor:
        """(K, S, S) float32, the distinct tiles with values 0..`scale`."""
        return self.distinct.float() / 255 * scale


def distinct_mask_tiles(
    masks: Iterable[MaskLike],
    max_tiles: int = MAX_TILES,
    tile_size: int = TILE_SIZE,
    thumbnail: bool = False,
    min_tiles: int = 1,
    overshoot: Overshoot = "wrap",
) -> MaskTiles:
    """Cut masks into tiles on the grid of their image, and keep each distinct tile once.

    A tile by tile copy of 100 masks of a photo takes 427 MB, nearly all of it zeros; this takes 11.

    Args:
        masks: (R, H, W) array or tensor, or R masks of one size: (H, W) arrays, COCO encodings,
            `Region`s. Pixels that are not zero are inside.
        max_tiles, min_tiles: bounds of the number of tiles; 1 resizes each mask to one tile.
        tile_size: S, side of a tile in pixels.
        thumbnail: add the whole mask, resized to one tile, if there is more than one tile.
        overshoot: "wrap" (published) or "clip" for a thumbnail whose levels stay within 0..255.

    Raises:
        ValueError: no masks, or settings out of range; RegionError: a mask of another size than
            the first, not two-dimensional, or malformed, with its id, or place if it has none.
    """
    regions, (height, width) = _checked(masks)
    columns, rows = best_grid(width, height, max_tiles, min_tiles, tile_size)
    thumbnail = thumbnail and columns * rows > 1
    across = nearest_pixels(width, columns * tile_size)
    down = nearest_pixels(height, rows * tile_size)
    index = np.zeros((len(regions), columns * rows + thumbnail), np.int64)
    parts: list[tuple[int, int, np.ndarray]] = []  # first row and column in a tile, levels

    def add(number: int, place: int, top: int, left: int, part: np.ndarray) -> None:
        """Add a part, (columns, rows) levels 0..255, of the tile at a place of a mask."""
        if part.size == tile_size**2 and (part == 255).all():
            index[number, place] = FULL
        elif part.any():
            index[number, place] = len(parts) + FULL + 1
            parts.append((top, left, part))

    for number, region in enumerate(regions):
        if region is None:
            continue
        top, left, levels = _box(region)
        # nearest neighbor: the pixels of the box that the resized canvas samples
        first, last = np.searchsorted(across, [left, left + levels.shape[0]])
        start, stop = np.searchsorted(down, [top, top + levels.shape[1]])
        resized = levels[across[first:last] - left][:, down[start:stop] - top]
        for part in _cut(int(start), int(first), resized, columns, tile_size):
            add(number, *part)
        if thumbnail:
            # Pillow resizes across, rounds to float32, and resizes down
            left, levels = _resize_lines(levels.T, left, width, tile_size)  # (rows, columns)
            top, levels = _resize_lines(levels.T, top, height, tile_size)  # (columns, rows)
            if overshoot == "wrap":
                levels = levels.astype(np.int16).astype(np.uint8)  # a C cast to a byte
            add(number, columns * rows, top, left, levels.clip(0, 255))
    dtype = np.result_type(np.uint8, *(part.dtype for _, _, part in parts))
    distinct = np.zeros((len(parts) + FULL + 1, tile_size, tile_size), dtype)
    distinct[FULL] = 255
    for tile, (top, left, part) in zip(distinct[FULL + 1 :], parts, strict=True):
        tile[top : top + part.shape[1], left : left + part.shape[0]] = part.T
    return MaskTiles(torch.from_numpy(distinct), torch.from_numpy(index))


def tile_masks(
    masks: Iterable[MaskLike],
    max_tiles: int = MAX_TILES,
    tile_size: int = TILE_SIZE,
    thumbnail: bool = False,
    min_tiles: int = 1,
    overshoot: Overshoot = "wrap",
) -> torch.Tensor:
    """Cut masks into tiles, on the grid of their image (dynamic mask modeling, Sec. 4.2, Eq. 2).

    The tiles equal those of Pillow's nearest-neighbor resize. `distinct_mask_tiles` gives the same
    in a fraction of the memory.

    Args:
        masks, max_tiles, min_tiles, tile_size, thumbnail: see `distinct_mask_tiles`.
        overshoot: "wrap" (published) or "clip" for a thumbnail whose levels stay within 0..1.

    Returns:
        (R, T, S, S) float32 with values 0..1: tiles row by row from the top left, the thumbnail
        last; on the device of a tensor of masks.

    Raises:
        ValueError, RegionError: see `distinct_mask_tiles`.
    """
    tiles = distinct_mask_tiles(masks, max_tiles, tile_size, thumbnail, min_tiles, overshoot)
    device = masks.device if isinstance(masks, torch.Tensor) else "cpu"
    return tiles.values()[tiles.index].to(device)  # (K, S, S) -> (R, T, S, S)


def masks_from_tiles(
    tiles: torch.Tensor,
    height: int,
    width: int,
    max_tiles: int = MAX_TILES,
    min_tiles: int = 1,
) -> torch.Tensor:
    """Masks restored from their tiles: joined and resized back by nearest neighbor.

    Args:
        tiles: (R, T, S, S) of `tile_masks`; a thumbnail is ignored.
        height, width: of the image in pixels.
        max_tiles, min_tiles: as for `tile_masks`.

    Returns:
        (R, H, W) bool.
    """
    size = tiles.shape[-1]
    columns, rows = best_grid(width, height, max_tiles, min_tiles, size)
    canvas = tiles[:, : columns * rows].unflatten(1, (rows, columns)).transpose(2, 3)
    canvas = canvas.flatten(3, 4).flatten(1, 2)  # (R, rows, S, columns, S) -> (R, rows * S, ...)
    down = torch.tensor(nearest_pixels(rows * size, height), device=tiles.device)
    across = torch.tensor(nearest_pixels(columns * size, width), device=tiles.device)
    return canvas.index_select(1, down).index_select(2, across) != 0


def as_region(mask: MaskLike, number: int) -> Region:
    """A `Region` from anything that stands for a mask; `number` is the id of one without.

    Raises:
        RegionError: an empty mask, or one that cannot be read; names the id.
    """
    if isinstance(mask, Region):
        return mask
    if isinstance(mask, Mapping):
        return Region(number, mask)
    if isinstance(mask, torch.Tensor):
        # numpy has no bfloat16
        mask = (mask.float() if mask.is_floating_point() else mask).detach().cpu().numpy()
    return Region.from_mask(number, mask)


def _checked(masks: Iterable[MaskLike]) -> tuple[list[Region | None], tuple[int, int]]:
    """R masks in any form as regions, None for an empty mask, and their size (H, W)."""
    regions: list[Region | None] = []
    size = None
    for place, mask in enumerate(masks):
        try:
            regions.append(as_region(mask, place))
            own = regions[-1].size
        except EmptyMaskError:
            regions.append(None)
            own = tuple(mask["size"] if isinstance(mask, Mapping) else mask.shape)
        if own != (size := size or own):
            raise SizeMismatchError(
                f"the mask is {own[1]} x {own[0]} but the first is {size[1]} x {size[0]} "
                "(width x height)",
                region_id=getattr(mask, "id", place),
            )
    if size is None:
        raise ValueError("no masks: tiling needs at least one")
    return regions, size


def _box(mask: Region) -> tuple[int, int, np.ndarray]:
    """First row and column of the box that a mask touches, and its (columns, rows) levels."""
    height = mask.size[0]
    flips = np.cumsum(run_lengths(mask.rle["counts"]))
    flips = flips[: len(flips) // 2 * 2]  # begin, end, begin, end, ... in column-major order
    column, row = np.divmod(flips.reshape(-1, 2) - [0, 1], height)  # first and last pixels of runs
    left, right = column[0, 0], column[-1, 1] + 1
    top, bottom = row[:, 0].min(), row[:, 1].max() + 1
    if (column[:, 0] != column[:, 1]).any():
        top, bottom = 0, height  # a run crosses from the last row into the first
    flips = (column - left) * (bottom - top) + row - top + [0, 1]
    lengths = np.diff(flips.ravel(), prepend=0, append=(right - left) * (bottom - top))
    levels = np.repeat((np.arange(len(lengths)) % 2 * 255).astype(np.uint8), lengths)
    return int(top), int(left), levels.reshape(right - left, -1)


@lru_cache(maxsize=64)
def nearest_pixels(length: int, size: int) -> np.ndarray:
    """(size,) int64: the source pixel of each pixel of Pillow's NEAREST resize."""
    # the center of an output pixel, scaled and rounded down; Pillow's Geometry.c adds the step up
    # instead of multiplying, and the rounding of that sum decides ties
    steps = np.full(size, length / size)
    steps[0] *= 0.5
    return np.cumsum(steps).astype(np.int64)


def _cut(
    top: int, left: int, block: np.ndarray, columns: int, side: int
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Cut a block at the borders of the tiles of a grid with `columns` columns.

    Yields the place of a tile in the grid, the first row and column of the part within the tile,
    and the part.

    Args:
        top, left: of the block on the grid.
        block: (columns, rows).
    """
    for column in range(left // side, -(-(left + block.shape[0]) // side)):
        x = max(column * side - left, 0)
        for row in range(top // side, -(-(top + block.shape[1]) // side)):
            y = max(row * side - top, 0)
            part = block[x : (column + 1) * side - left, y : (row + 1) * side - top]
            yield row * columns + column, top + y - row * side, left + x - column * side, part


@lru_cache(maxsize=8)
def _bicubic_weights(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pillow's bicubic weights from `length` to `size` pixels (`precompute_coeffs`, a = -0.5).

    Returns:
        (size,) and (size,), the pixels [start, end) that an output pixel sees, and (length, size)
        float64, the weights; those of an output pixel add up to 1.
    """
    scale = length / size
    stretch = max(scale, 1.0)
    centers = (np.arange(size) + 0.5) * scale
    starts = np.maximum((centers - 2.0 * stretch + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + 2.0 * stretch + 0.5).astype(np.int64), length)
    pixels = np.arange(length)[:, None]
    x = np.abs((pixels - centers + 0.5) / stretch)  # (length, size)
    far = np.where(x < 2.0, (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5, 0.0)
    weights = np.where(x < 1.0, (1.5 * x - 2.5) * x * x + 1.0, far)
    weights *= (pixels >= starts) & (pixels < ends)
    sums = np.cumsum(weights / weights.sum(axis=0), axis=0)
    return starts, ends, np.diff(np.rint(sums * WEIGHT_STEPS) / WEIGHT_STEPS, axis=0, prepend=0)


def _resize_lines(lines: np.ndarray, begin: int, length: int, size: int) -> tuple[int, np.ndarray]:
    """Resize the pixels [begin, begin + P) of lines that are zero elsewhere.

    Args:
        lines: (N, P).
        begin: place of the first pixel.
        length, size: of a line before and after.

    Returns:
        The place of the first pixel that may be other than zero, and (N, Q) float32, all of them.
    """
    starts, ends, weights = _bicubic_weights(length, size)
    end = begin + lines.shape[1]
    first, last = np.searchsorted(ends, begin, "right"), np.searchsorted(starts, end)
    resized = np.empty((len(lines), last - first), np.float32)
    for band in range(first, last, BAND):
        stop = min(band + BAND, last)
        low, high = max(starts[band], begin), min(ends[stop - 1], end)
        part = np.ascontiguousarray(lines[:, low - begin : high - begin], np.float64)
        resized[:, band - first : stop - first] = part @ weights[low:high, band:stop]
    return int(first), resized
