"""Tiles: InternVL's dynamic preprocessing, for an image and for all of its masks at once.

An image is resized to a grid of square tiles whose aspect ratio is closest to its own, and cut up.
Masks are cut on the same grid (dynamic mask modeling, Sec. 4.2, Eq. 2), by nearest neighbor instead
of bicubic, so that they stay binary.

The thumbnail of a mask is bicubic all the same. The published code resizes a float mask of 0 and
255; the filter overshoots at edges, to about -30 and 290, and the cast to bytes that follows drops
the fraction and wraps such values around: -5 becomes 251, 260 becomes 4. The released weights have
learned from thumbnails like that, so it is the default (`overshoot="wrap"`).

All mask tiles are computed from the runs of a mask, column by column as COCO encodes them. No mask
is decoded at full resolution: only the box that a mask touches is resized and written, so the time
goes with the size of a region and not with the size of its photo, and a tile that no mask touches
takes no memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    Region,
    RegionError,
    SizeMismatchError,
    load_image,
)
from ureca_lib.regions.rle import check_size, run_lengths

TILE_SIZE = 448  # App. A: input size of the mask encoder, and of InternVL's vision tower
MAX_TILES = 12  # the published setting at inference; 6 in training
BLANK, FULL = 0, 1  # the first two distinct tiles of `MaskTiles`
WEIGHT_STEPS = 2.0**50  # bicubic weights are multiples of 1 / WEIGHT_STEPS: float64 sums are exact
BAND = 32  # rows of a thumbnail that are computed at a time: what they read fits the cache
LARGE_PAGES = 0.25  # share of an array to be written from which large memory pages pay

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
    for columns, rows in _grids(min_tiles, max_tiles):
        difference = abs(ratio - columns / rows)
        large_enough = area > 0.5 * tile_size * tile_size * columns * rows
        if difference < best_difference or (difference == best_difference and large_enough):
            best, best_difference = (columns, rows), difference
    return best


@lru_cache(maxsize=64)
def _grids(min_tiles: int, max_tiles: int) -> list[tuple[int, int]]:
    """Every grid of an allowed number of tiles, fewer tiles first; the order decides ties."""
    sides = range(1, max_tiles + 1)
    grids = [(c, r) for c in sides for r in sides if min_tiles <= c * r <= max_tiles]
    return sorted(grids, key=lambda grid: grid[0] * grid[1])


def tile_places(grid: tuple[int, int], thumbnail: bool = False) -> torch.Tensor:
    """Row and column of each tile of a grid, in the order of `tile_masks`.

    Args:
        grid: (columns, rows), as `best_grid` has them.
        thumbnail: whether a thumbnail follows, where there is more than one tile.

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


@dataclass(frozen=True)
class MaskTiles:
    """Tiles of R masks, each distinct tile once.

    Fields:
        distinct: (K, S, S) uint8 levels 0..255, or float32 values 0..1. The first tile is blank
            and stands for everything that no mask touches; the second is full.
        index: (R, T) int64 into `distinct`: tiles row by row from the top left, thumbnail last.
        spans: K boxes (top, bottom, left, right) outside of which a tile is zero.
    """

    distinct: torch.Tensor
    index: torch.Tensor
    spans: tuple[tuple[int, int, int, int], ...]

    def to(self, device: torch.device | str) -> MaskTiles:
        """The same tiles on another device."""
        moved = self.distinct.to(device), self.index.to(device)
        return replace(self, distinct=moved[0], index=moved[1])

    def values(self, scale: float = 1) -> torch.Tensor:
        """(K, S, S) float32, the distinct tiles with values 0..`scale`."""
        bytes_ = self.distinct.dtype == torch.uint8
        values = self.distinct.float() / 255 if bytes_ else self.distinct
        return values if scale == 1 else values * scale

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(R, T, S, S) with values 0..1; on a CPU blank parts are never written."""
        if self.distinct.device.type != "cpu":
            return self.values().to(dtype)[self.index]
        side = self.distinct.shape[-1]
        areas = np.array(
            [(bottom - top) * (right - left) for top, bottom, left, right in self.spans]
        )
        share = areas[self.index.numpy()].mean() / side**2
        tiles = _untouched_zeros((*self.index.shape, side, side), dtype, share)
        flat, index = tiles.flatten(0, 1), self.index.flatten()
        for place in index.nonzero().flatten().tolist():
            number = int(index[place])
            top, bottom, left, right = self.spans[number]
            source = self.distinct[number, top:bottom, left:right]
            target = flat[place, top:bottom, left:right]
            if source.dtype == torch.uint8 and dtype == torch.float32:
                target.copy_(source).div_(255)  # without a copy in between
            else:
                target.copy_(source / 255 if source.dtype == torch.uint8 else source)
        return tiles


def distinct_mask_tiles(
    masks: MaskLike | Iterable[MaskLike],
    max_tiles: int = MAX_TILES,
    tile_size: int = TILE_SIZE,
    thumbnail: bool = False,
    min_tiles: int = 1,
    dtype: torch.dtype = torch.uint8,
    overshoot: Overshoot = "wrap",
) -> MaskTiles:
    """Cut masks into tiles on the grid of their image, and keep each distinct tile once.

    A tile by tile copy of 100 masks of a photo takes 427 MB, nearly all of it zeros; this takes 11.

    Args:
        masks: (R, H, W) array or tensor, or R masks of one size: (H, W) arrays, COCO encodings,
            `Region`s. Pixels that are not zero are inside.
        max_tiles, min_tiles: bounds of the number of tiles; 1 resizes each mask to one tile.
        tile_size: S, side of a tile in pixels.
        thumbnail: add the whole mask, resized to one tile, where there is more than one tile.
        dtype: of the distinct tiles: uint8, which rounds the levels of a "clip" thumbnail, or
            float32.
        overshoot: "wrap" (published) or "clip" for a thumbnail whose levels stay within 0..255.

    Raises:
        ValueError: no masks, or settings out of range; RegionError: a mask of another size than
            the first, not two-dimensional, of no size or malformed, with its place or id.
    """
    if overshoot not in ("wrap", "clip"):
        raise ValueError(f"overshoot must be 'wrap' or 'clip', got {overshoot!r}")
    runs, (height, width) = _checked_runs(masks)
    columns, rows = best_grid(width, height, max_tiles, min_tiles, tile_size)
    thumbnail = thumbnail and columns * rows > 1
    index = np.zeros((len(runs), columns * rows + thumbnail), np.int64)
    boxes = sum(np.ptp(r.column) * np.ptp([r.top, r.bottom]) for r in runs if len(r.column))
    share = boxes / (len(runs) * width * height)
    # room for every tile; pages of it that are never written cost nothing
    tiles = _untouched_zeros((index.size + 2, tile_size, tile_size), dtype, share).numpy()
    inside = np.uint8(255 if dtype == torch.uint8 else 1)
    spans = [(0, 0, 0, 0), (0, tile_size, 0, tile_size)]
    across = _nearest_counts(width, columns * tile_size)
    down = _nearest_counts(height, rows * tile_size)
    for mask, places in zip(runs, index, strict=True):
        if len(mask.column) == 0:
            continue
        block, top, left = _nearest_block(mask, across, down)
        pieces = list(_cut(block * inside, top, left, columns, tile_size))
        if thumbnail:
            tables = _bicubic_table(width, tile_size), _bicubic_table(height, tile_size)
            levels, top, left = _bicubic_block(mask, *tables)
            pieces.append((-1, top, left, _thumbnail_values(levels, dtype, overshoot)))
        for place, top, left, part in pieces:
            if part.size == tile_size**2 and (part == inside).all():
                places[place] = FULL
            elif part.any():
                places[place] = len(spans)
                bottom, right = top + part.shape[1], left + part.shape[0]
                tiles[len(spans), top:bottom, left:right] = part.T
                spans.append((top, bottom, left, right))
    if (index == FULL).any():
        tiles[FULL] = inside
    distinct = torch.from_numpy(tiles[: len(spans)])
    return MaskTiles(distinct, torch.from_numpy(index), tuple(spans))


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

    The tiles equal those of Pillow's nearest-neighbor resize. `distinct_mask_tiles` gives the same
    in a fraction of the memory.

    Args:
        masks, max_tiles, min_tiles, tile_size, thumbnail: see `distinct_mask_tiles`.
        device: of the result; by default the tensor's own, else the CPU.
        dtype: of the result; a floating one where there is a thumbnail.
        overshoot: "wrap" (published) or "clip" for a thumbnail whose levels stay within 0..1.

    Returns:
        (R, T, S, S) with values 0..1: tiles row by row from the top left, the thumbnail last.

    Raises:
        ValueError, RegionError: see `distinct_mask_tiles`.
    """
    if thumbnail and not dtype.is_floating_point:
        raise ValueError(f"a thumbnail has values between 0 and 1, which {dtype} cannot hold")
    if device is None:
        device = masks.device if isinstance(masks, torch.Tensor) else "cpu"
    # bytes hold everything but the levels of a clipped thumbnail
    fine = torch.float32 if thumbnail and overshoot == "clip" else torch.uint8
    tiles = distinct_mask_tiles(masks, max_tiles, tile_size, thumbnail, min_tiles, fine, overshoot)
    if torch.device(device).type == "cpu":
        return tiles.dense(dtype)
    return tiles.to(device).dense(dtype)


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
    down = torch.tensor(nearest_pixels(rows * size, height), device=tiles.device)
    across = torch.tensor(nearest_pixels(columns * size, width), device=tiles.device)
    return canvas.index_select(1, down).index_select(2, across) != 0


class _Runs(NamedTuple):
    """A mask as (N,) int64 arrays: rows [top, bottom) of a column are inside; columns ascend."""

    column: np.ndarray
    top: np.ndarray
    bottom: np.ndarray


def _checked_runs(
    masks: MaskLike | Iterable[MaskLike],
) -> tuple[list[_Runs], tuple[int, int]]:
    """The runs of R masks in any form, and their size (H, W). Raises as `tile_masks` does."""
    if isinstance(masks, Region | Mapping):
        raise AnnotationFormatError("tiling takes a list of masks: put a single mask into a list")
    if isinstance(masks, np.ndarray | torch.Tensor) and masks.ndim != 3:
        raise AnnotationFormatError(f"masks are (R, H, W), not {tuple(masks.shape)}")
    all_runs, size = [], None
    for place, mask in enumerate(masks):
        try:
            runs, own = _column_runs(mask)
            if own != (size := size or own):
                raise SizeMismatchError(
                    f"this mask is {own[1]} x {own[0]} but the first is {size[1]} x {size[0]} "
                    "(width x height)"
                )
            all_runs.append(runs)
        except RegionError as error:
            region_id = getattr(mask, "id", error.region_id)
            raise type(error)(f"mask {place}: {error.reason}", None, region_id) from None
    if size is None:
        raise ValueError("no masks: tiling needs at least one")
    return all_runs, size


def _column_runs(mask: MaskLike) -> tuple[_Runs, tuple[int, int]]:
    """The runs of one mask and its size (H, W). Raises RegionError."""
    if isinstance(mask, torch.Tensor):
        # numpy has no bfloat16
        mask = (mask.float() if mask.is_floating_point() else mask).detach().cpu().numpy()
    try:
        if isinstance(mask, Mapping):
            mask = Region(0, mask)
        elif not isinstance(mask, Region):
            if np.ndim(mask) == 2:
                check_size(*np.shape(mask))
            mask = Region.from_mask(0, mask)
    except EmptyMaskError:
        height, width = mask["size"] if isinstance(mask, Mapping) else mask.shape
        return _Runs(*np.zeros((3, 0), np.int64)), (int(height), int(width))
    height, width = mask.size
    flips = np.cumsum(run_lengths(mask.rle["counts"]))
    flips = flips[: len(flips) // 2 * 2]  # begin, end, begin, end, ... in column-major order
    if (flips[::2] // height != (flips[1::2] - 1) // height).any():
        # a run that crosses into the next column ends and begins where the columns meet
        meet = np.arange(height, height * width, height)
        crossed = np.searchsorted(flips, meet) & np.searchsorted(flips, meet, side="right") & 1
        flips = np.sort(np.concatenate([flips, np.repeat(meet[crossed == 1], 2)]))
    begins, ends = flips.reshape(-1, 2).T
    column = begins // height
    return _Runs(column, begins - column * height, ends - column * height), (height, width)


@lru_cache(maxsize=64)
def nearest_pixels(length: int, size: int) -> np.ndarray:
    """(size,) int64: the pixel of `length` that each pixel of Pillow's NEAREST resize takes."""
    # the center of an output pixel, scaled and rounded down; Pillow's Geometry.c adds the step up
    # instead of multiplying, and the rounding of that sum decides ties
    steps = np.full(size, length / size)
    steps[0] *= 0.5
    return np.cumsum(steps).astype(np.int64)


@lru_cache(maxsize=64)
def _nearest_counts(length: int, size: int) -> np.ndarray:
    """(length + 1,) int64: how many pixels of the resized line come from before each pixel."""
    return np.searchsorted(nearest_pixels(length, size), np.arange(length + 1))


def _nearest_block(
    runs: _Runs, across: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, int, int]:
    """The box of a nearest-neighbor resize that a mask touches.

    Args:
        runs: the mask, not empty. across, down: `_nearest_counts` of width and height.

    Returns:
        (columns, rows) uint8, 0 or 1, and the first row and column of the box.
    """
    start = runs.column[0]
    repeats = np.diff(across[start : runs.column[-1] + 2])  # how often each column is sampled
    line = np.cumsum(repeats > 0) - 1  # the line of the block that a sampled column becomes
    column = runs.column - start
    seen = repeats[column] > 0
    tops, bottoms = down[runs.top[seen]], down[runs.bottom[seen]]
    if len(tops) == 0 or (first := tops.min()) == (last := bottoms.max()):
        return np.zeros((0, 0), np.uint8), 0, 0  # between the samples
    rows = last - first
    begins = line[column[seen]] * rows - first
    flips = np.stack([begins + tops, begins + bottoms], axis=1).ravel()
    lengths = np.diff(flips, prepend=0, append=(line[-1] + 1) * rows)
    block = np.repeat((np.arange(len(lengths)) & 1).astype(np.uint8), lengths).reshape(-1, rows)
    if repeats.max() > 1:
        block = np.repeat(block, repeats[repeats > 0], axis=0)
    return block, int(first), int(across[start])


def _cut(
    block: np.ndarray, top: int, left: int, columns: int, side: int
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Cut a (columns, rows) block at the borders of the tiles of a grid with `columns` columns.

    Yields the place of a tile in the grid, the first row and column of the part within the tile,
    and the part.
    """
    for column in range(left // side, -(-(left + block.shape[0]) // side)):
        x = max(column * side - left, 0)
        for row in range(top // side, -(-(top + block.shape[1]) // side)):
            y = max(row * side - top, 0)
            part = block[x : (column + 1) * side - left, y : (row + 1) * side - top]
            yield row * columns + column, top + y - row * side, left + x - column * side, part


class _BicubicTable(NamedTuple):
    """Pillow's bicubic weights from `length` to `size` pixels."""

    starts: np.ndarray  # (size,), the pixels [start, end) that an output pixel sees
    ends: np.ndarray
    first: np.ndarray  # (length,), the output pixels [first, stop) that see a pixel
    stop: np.ndarray
    matrix: np.ndarray  # (length, size) float64; the weights of an output pixel add up to 1
    near: np.ndarray  # (length, J), the weights of a pixel in the output pixels from `first` on


@lru_cache(maxsize=8)
def _bicubic_table(length: int, size: int) -> _BicubicTable:
    """The weights of Pillow's Resample.c (`precompute_coeffs`), with a = -0.5."""
    scale = length / size
    stretch = max(scale, 1.0)
    centers = (np.arange(size) + 0.5) * scale
    starts = np.maximum((centers - 2.0 * stretch + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + 2.0 * stretch + 0.5).astype(np.int64), length)
    pixels = starts[:, None] + np.arange((ends - starts).max())  # (size, taps)
    inside = pixels < ends[:, None]
    x = np.abs((pixels - centers[:, None] + 0.5) / stretch)
    far = np.where(x < 2.0, (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5, 0.0)
    weights = np.where(x < 1.0, (1.5 * x - 2.5) * x * x + 1.0, far) * inside
    weights /= weights.sum(axis=1, keepdims=True)
    sums = np.rint(np.cumsum(weights, axis=1) * WEIGHT_STEPS) / WEIGHT_STEPS
    weights = np.diff(sums, axis=1, prepend=0)
    matrix = np.zeros((length, size))
    matrix[pixels[inside], inside.nonzero()[0]] = weights[inside]
    first = np.searchsorted(ends, np.arange(length), side="right")
    stop = np.searchsorted(starts, np.arange(length), side="right")
    seen = first[:, None] + np.arange((stop - first).max())  # (length, J)
    near = np.take_along_axis(matrix, np.minimum(seen, size - 1), 1) * (seen < stop[:, None])
    return _BicubicTable(starts, ends, first, stop, matrix, near)


def _bicubic_block(
    runs: _Runs, across: _BicubicTable, down: _BicubicTable
) -> tuple[np.ndarray, int, int]:
    """The box of Pillow's bicubic resize of a mask of 0 and 255 that the mask touches.

    Args:
        runs: the mask, not empty. across, down: tables of width and height.

    Returns:
        (columns, rows) float32 levels, which may lie outside 0..255, and the first row and column
        of the box.
    """
    left, right = across.first[runs.column[0]], across.stop[runs.column[-1]]
    top, bottom = runs.top.min(), runs.bottom.max()
    first, stop = down.first[top], down.stop[bottom - 1]
    # First pass, across: an output pixel gains a column's weight at the row where a run begins and
    # loses it at the row where the run ends. The sums down the rows are exact (WEIGHT_STEPS), so
    # nothing is left below the last run.
    stride, taps = bottom - top + 1, across.near.shape[1]
    cells = ((across.first[runs.column] - left) * stride - top)[:, None] + np.arange(taps) * stride
    cells = np.stack([cells + runs.top[:, None], cells + runs.bottom[:, None]])  # (2, N, J)
    weights = across.near[runs.column] * np.array([[[1]], [[-1]]])
    plane = np.bincount(cells.ravel(), weights.ravel(), (right - left + taps) * stride)
    plane = plane.reshape(-1, stride)[: right - left]
    np.cumsum(plane, axis=1, out=plane)
    plane *= 255
    plane[:] = plane.astype(np.float32)  # Pillow rounds to float32 between its passes
    levels = np.empty((right - left, stop - first), np.float32)
    for begin in range(first, stop, BAND):  # second pass, down
        end = min(begin + BAND, stop)
        low, high = max(down.starts[begin], top), min(down.ends[end - 1], bottom)
        part = plane[:, low - top : high - top] @ down.matrix[low:high, begin:end]
        levels[:, begin - first : end - first] = part
    return levels, int(first), int(left)


def _thumbnail_values(levels: np.ndarray, dtype: torch.dtype, overshoot: Overshoot) -> np.ndarray:
    """Levels of a bicubic resize as a tile of `dtype` holds them: 0..255 or 0..1."""
    if overshoot == "wrap":
        levels = levels.astype(np.int16).astype(np.uint8)  # a C cast to an unsigned byte
    elif dtype == torch.uint8:
        levels = np.rint(levels)
    return levels.clip(0, 255) / (1 if dtype == torch.uint8 else np.float32(255))


def _untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype, share: float) -> torch.Tensor:
    """Zeros in memory that the system hands out page by page, as it is written to.

    `torch.zeros` writes every page. Small pages are best where little is written; large pages,
    which numpy asks for, where the `share` to be written is large.
    """
    count = int(np.prod(shape)) * dtype.itemsize
    if share > LARGE_PAGES or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        raw = np.zeros(count, np.uint8)
    else:
        memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        raw = np.frombuffer(memory, np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
