"""Masks resized as Pillow resizes them, by nearest neighbour or to a bicubic thumbnail.

From runs, on the CPU: the time goes with the length of a mask's outline and the size of the part of
the result that it reaches, not with the size of the image. From arrays, on any device: all masks
together.
"""

from __future__ import annotations

import numpy as np
import torch

from ureca_lib.mask_runs import MaskRuns
from ureca_lib.resampling import bicubic_table, nearest_indices


def nearest_block(
    runs: MaskRuns, height: int, width: int, line_step: int
) -> tuple[np.ndarray, int]:
    """The part of a nearest-neighbour resize that the mask can reach.

    Args:
        runs: the mask, not empty.
        height, width: of the resized mask in pixels.
        line_step: the part begins and ends at a multiple of this many lines.

    Returns:
        (lines, pixels) uint8, 0 or 1, whole lines of the resized mask in the order of the runs
        (columns or rows), and the first line's index.
    """
    sides = ((runs.width, width), (runs.height, height))
    (lines, out_lines), (pixels, out_pixels) = sides if runs.by_columns else sides[::-1]
    source = nearest_indices(lines, out_lines)
    flip_lines, flip_pixels = np.divmod(runs.flips, runs.stride)
    first = np.searchsorted(source, flip_lines[0]) // line_step * line_step
    last_line = (runs.flips[-1] - 1) // runs.stride
    last = -(-np.searchsorted(source, last_line, side="right") // line_step) * line_step
    taken, repeats = np.unique(source[first:last], return_counts=True)
    # how many samples come before a flip, in lines and within its line
    line = np.searchsorted(taken, np.arange(lines + 1))
    sampled = np.zeros(lines + 1, bool)
    sampled[taken] = True
    pixel = np.searchsorted(nearest_indices(pixels, out_pixels), np.arange(runs.stride + 1))
    at = line[flip_lines] * out_pixels + sampled[flip_lines] * pixel[flip_pixels]
    total = len(taken) * out_pixels
    lengths = np.diff(at, prepend=0, append=total)
    values = np.arange(len(lengths)).astype(np.uint8) & 1
    block = np.repeat(values, lengths).reshape(len(taken), out_pixels)
    if (repeats > 1).any():
        block = np.repeat(block, repeats, axis=0)
    return block, int(first)


def bicubic_block(runs: MaskRuns, size: int) -> tuple[np.ndarray, int, int]:
    """The part of Pillow's bicubic resize to (size, size) that the mask can reach.

    The mask is a float image of 0 and 255, which Pillow does not clip: next to an edge the
    result goes below 0 and above 255.

    Args:
        runs: the mask, not empty.
        size: side of the result in pixels.

    Returns:
        (h, w) float32 levels, and the row and column of the result where the part begins.
    """
    rows, columns, signs = runs.edges()
    top, bottom = int(rows.min()), int(rows.max()) + 1
    part, left = _resize_rows(rows - top, columns, signs, runs.width, size)
    table = bicubic_table(runs.height, size)
    first = int(np.searchsorted(table.ends, top, side="right"))
    stop = int(np.searchsorted(table.starts, bottom))
    source = np.zeros((runs.height, part.shape[1]))
    source[top:bottom] = part
    return (table.matrix[first:stop] @ source).astype(np.float32), first, left


def _resize_rows(
    rows: np.ndarray, columns: np.ndarray, signs: np.ndarray, width: int, size: int
) -> tuple[np.ndarray, int]:
    """First pass: each row from `width` to `size` pixels, as far as its edges reach.

    Returns:
        (rows, w) float32 levels, rounded between the passes as Pillow does, and the first column.
    """
    table = bicubic_table(width, size)
    first = np.searchsorted(table.ends, columns, side="right")  # first output past the edge
    stop = np.searchsorted(table.starts, columns)  # first output that sees nothing before it
    left, right = int(first.min()), int(stop.max())
    shape = (int(rows.max()) + 1, right - left + 1)
    cells = rows * shape[1] - left
    # an output before an edge has all of its weight before it: as many ends less beginnings
    # as lie ahead, and in a whole row they are equal
    passed = np.bincount(cells + first, weights=signs, minlength=shape[0] * shape[1])
    inside = -np.cumsum(passed.reshape(shape)[:, :-1], axis=1)
    # an output that sees an edge has the weight of the pixels before it
    seen = np.maximum(stop - first, 0)
    edge = np.repeat(np.arange(len(rows)), seen)
    outputs = np.arange(len(edge)) - np.repeat(np.cumsum(seen) - seen, seen) + first[edge]
    weights = signs[edge] * table.sums[outputs, columns[edge] - table.starts[outputs]]
    partly = np.bincount(cells[edge] + outputs, weights=weights, minlength=shape[0] * shape[1])
    levels = (partly.reshape(shape)[:, :-1] + inside) * 255
    return levels.astype(np.float32), left


def nearest_dense(masks: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pillow's nearest-neighbour resize, (R, H, W) -> (R, height, width) bool, on any device."""
    rows = torch.tensor(nearest_indices(masks.shape[1], height), device=masks.device)
    columns = torch.tensor(nearest_indices(masks.shape[2], width), device=masks.device)
    return (masks.index_select(1, rows).index_select(2, columns)) != 0


def bicubic_dense(masks: torch.Tensor, size: int) -> torch.Tensor:
    """Pillow's bicubic resize of float masks of 0 and 255: (R, H, W) -> (R, size, size) float32.

    Two matrix products in float64, on the masks' device, one mask after the other to bound memory.
    """
    across, down = (
        torch.tensor(bicubic_table(length, size).matrix.toarray(), device=masks.device)
        for length in (masks.shape[2], masks.shape[1])
    )
    levels = []
    for mask in masks:
        part = ((mask != 0).double() @ across.T * 255).float()  # (H, W) -> (H, size)
        levels.append((down @ part.double()).float())  # -> (size, size)
    return torch.stack(levels)
