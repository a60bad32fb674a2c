"""Tiles: InternVL's dynamic preprocessing, for an image and for all of its masks at once.

An image is resized to a grid of square tiles whose shape is closest to its own, and cut up. Masks
are cut on the same grid (dynamic mask modeling, Sec. 4.2), with nearest neighbour instead of
bicubic so that they stay two-valued.

The thumbnail of a mask is bicubic all the same. The published code resizes a float mask of 0 and
255; the filter overshoots at edges, to about -30 and 290, and the cast to bytes that follows drops
the fraction and lets such values wrap around: -5 becomes 251, 260 becomes 4. The released weights
have learnt from thumbnails like that, so it is the default (`overshoot="wrap"`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ureca_lib.mask_runs import MaskLike, MaskRuns, check_stack, mask_runs
from ureca_lib.mask_sampling import bicubic_block, bicubic_dense, nearest_block, nearest_dense
from ureca_lib.regions import load_image

TILE_SIZE = 448  # App. A: input size of the mask encoder, and of InternVL's vision tower
MAX_TILES = 12  # the published setting at inference; 6 in training

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
    for columns, rows in _grids(min_tiles, max_tiles):
        difference = abs(ratio - columns / rows)
        large_enough = area > 0.5 * tile_size * tile_size * columns * rows
        if difference < best_difference or (difference == best_difference and large_enough):
            best, best_difference = (columns, rows), difference
    return best


def tile_places(grid: tuple[int, int], thumbnail: bool = False) -> torch.Tensor:
    """Row and column of each tile of a grid, in the order of `tile_masks`.

    Args:
        grid: (columns, rows), as `best_grid` has them.
        thumbnail: whether the whole follows, where there is more than one tile.

    Returns:
        (T, 2) int64, counted from 1; 0 and 0 for a tile that shows the whole mask.
    """
    columns, rows = grid
    if grid == (1, 1):
        return torch.zeros(1, 2, dtype=torch.int64)
    places = torch.cartesian_prod(torch.arange(1, rows + 1), torch.arange(1, columns + 1))
    return torch.cat([places, places.new_zeros(1, 2)]) if thumbnail else places


@lru_cache(maxsize=64)
def _grids(min_tiles: int, max_tiles: int) -> list[tuple[int, int]]:
    """Every grid of an allowed number of tiles, fewer tiles first; the order decides ties."""
    sides = range(1, max_tiles + 1)
    grids = [(c, r) for c in sides for r in sides if min_tiles <= c * r <= max_tiles]
    return sorted(grids, key=lambda grid: grid[0] * grid[1])


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
        thumbnail: add the whole image, resized to one tile, where there is more than one tile.

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


def tile_masks(
    masks: MaskLike | Iterable[MaskLike],
    max_tiles: int = MAX_TILES,
    tile_size: int = TILE_SIZE,
    thumbnail: bool = False,
    min_tiles: int = 1,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    overshoot: Overshoot = "wrap",
) -> torch.Tensor:
    """Cut masks into tiles, on the grid of their image (dynamic mask modeling, Sec. 4.2, Eq. 2).

    The tiles are those of Pillow's nearest-neighbour resize. Encodings are not decoded: only the
    pixels that are sampled are ever looked at.

    Args:
        masks: (R, H, W) array or tensor, or R masks of one size: (H, W) arrays, COCO encodings,
            `Region`s. What is not zero is inside.
        max_tiles, min_tiles: bounds of the number of tiles; 1 resizes each mask to one tile.
        tile_size: S, side of a tile in pixels.
        thumbnail: add the whole mask, resized to one tile, where there is more than one tile.
        device: of the result; by default the tensor's own, else the CPU.
        dtype: of the result; a floating one where there is a thumbnail.
        overshoot: "wrap" (published) or "clip" for a thumbnail whose levels stay within 0..1.

    Returns:
        (R, T, S, S) with values 0..1: tiles row by row from the top left, the thumbnail last.

    Raises:
        ValueError: no masks, or settings out of range; RegionError: a mask of another size than
            the first, not two-dimensional, of no size or malformed, with its place or id.
    """
    _check_settings(thumbnail, dtype, overshoot)
    runs = None if isinstance(masks, torch.Tensor) and masks.is_cuda else mask_runs(masks)
    dense = check_stack(masks) if runs is None else None
    height, width = dense.shape[1:] if runs is None else (runs[0].height, runs[0].width)
    grid = best_grid(width, height, max_tiles, min_tiles, tile_size)
    thumbnail = thumbnail and grid != (1, 1)
    if runs is None:
        tiles = _cut_dense(dense, grid, tile_size, thumbnail, dtype, overshoot)
    else:
        tiles = _cut_runs(runs, grid, tile_size, thumbnail, dtype, overshoot)
    return tiles if device is None else tiles.to(device)


def masks_from_tiles(
    tiles: torch.Tensor,
    height: int,
    width: int,
    max_tiles: int = MAX_TILES,
    min_tiles: int = 1,
) -> torch.Tensor:
    """What is left of masks after tiling: the tiles put together and resized back, nearest.

    Args:
        tiles: (R, T, S, S) of `tile_masks`; a thumbnail is left aside.
        height, width: of the image in pixels.
        max_tiles, min_tiles: as `tile_masks` had them.

    Returns:
        (R, H, W) bool.

    Raises:
        ValueError: fewer tiles than the image's grid has.
    """
    size = tiles.shape[-1]
    columns, rows = best_grid(width, height, max_tiles, min_tiles, size)
    if tiles.shape[1] < columns * rows:
        raise ValueError(f"{tiles.shape[1]} tiles for a grid of {columns} x {rows}")
    canvas = tiles[:, : columns * rows].unflatten(1, (rows, columns)).transpose(2, 3)
    canvas = canvas.flatten(3, 4).flatten(1, 2)  # (R, rows, S, columns, S) -> (R, rows * S, ...)
    return nearest_dense(canvas, height, width)


def _check_settings(thumbnail: bool, dtype: torch.dtype, overshoot: str) -> None:
    if overshoot not in ("wrap", "clip"):
        raise ValueError(f"overshoot must be 'wrap' or 'clip', got {overshoot!r}")
    if thumbnail and not dtype.is_floating_point:
        raise ValueError(f"a thumbnail has values between 0 and 1, which {dtype} cannot hold")


def _cut_runs(
    masks: Sequence[MaskRuns],
    grid: tuple[int, int],
    size: int,
    thumbnail: bool,
    dtype: torch.dtype,
    overshoot: Overshoot,
) -> torch.Tensor:
    """R masks to (R, T, S, S) on the CPU; pages of tiles that no mask reaches are never touched."""
    columns, rows = grid
    shape = (len(masks), columns * rows + thumbnail, size, size)
    tiles = _untouched_zeros(shape, dtype)
    for mask, out in zip(masks, tiles, strict=True):
        if len(mask.flips) == 0:
            continue
        block, first = nearest_block(mask, rows * size, columns * size, size)
        for (line, pixel), tile in _split(torch.from_numpy(block), size):
            column, row = (line + first // size, pixel)
            if not mask.by_columns:
                column, row = row, column
            if tile.any():
                out[row * columns + column] = tile.T if mask.by_columns else tile
        if thumbnail:
            levels, y, x = bicubic_block(mask, size)
            part = out[-1, y : y + levels.shape[0], x : x + levels.shape[1]]
            part.copy_(_thumbnail_values(torch.from_numpy(levels), overshoot))
    return tiles


def _cut_dense(
    masks: torch.Tensor,
    grid: tuple[int, int],
    size: int,
    thumbnail: bool,
    dtype: torch.dtype,
    overshoot: Overshoot,
) -> torch.Tensor:
    """(R, H, W) bool to (R, T, S, S) on the masks' own device, all masks together."""
    columns, rows = grid
    canvas = nearest_dense(masks, rows * size, columns * size)
    canvas = canvas.unflatten(2, (columns, size)).unflatten(1, (rows, size))
    tiles = (
        canvas.transpose(2, 3).flatten(1, 2).to(dtype)
    )  # (R, rows, S, columns, S) -> (R, T, S, S)
    if not thumbnail:
        return tiles
    small = _thumbnail_values(bicubic_dense(masks, size), overshoot)
    return torch.cat([tiles, small[:, None].to(dtype)], dim=1)


def _split(block: torch.Tensor, size: int) -> Iterator[tuple[tuple[int, int], torch.Tensor]]:
    """The (size, size) squares of a block, with the place of each."""
    for line, band in enumerate(block.split(size)):
        for pixel, square in enumerate(band.split(size, dim=1)):
            yield (line, pixel), square


def _thumbnail_values(levels: torch.Tensor, overshoot: Overshoot) -> torch.Tensor:
    """Levels of a bicubic resize, which may lie outside 0..255, to values 0..1."""
    if overshoot == "clip":
        return levels.clamp(0, 255) / 255
    return levels.to(torch.int64).bitwise_and(255) / 255  # a C cast to an unsigned byte


def _untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros whose memory the system hands out page by page, as it is written to."""
    # torch.zeros writes every page; numpy asks the system for pages that are zero already
    raw = np.zeros(int(np.prod(shape)) * dtype.itemsize, np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
