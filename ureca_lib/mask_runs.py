"""Masks in any form as runs: where each begins and ends, line after line.

A COCO run-length encoding goes down the columns, an array along the rows. `MaskRuns` holds either,
so that neither has to be brought to full resolution before it is resized.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ureca_lib.regions import EmptyMaskError, Region, RegionError, SizeMismatchError, WrongTypeError
from ureca_lib.regions.rle import check_rle, check_size, run_lengths

MaskLike = Region | Mapping[str, Any] | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class MaskRuns:
    """One mask as the positions, line after line, where it flips between outside and inside.

    Fields:
        flips: (2 K,) int64, ascending: a run begins, ends, begins, ...; a position counts pixels
            from the first line on, `stride` to a line.
        height, width: the image's size in pixels.
        by_columns: lines are columns (COCO's order); else rows.
    """

    flips: np.ndarray
    height: int
    width: int
    by_columns: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def stride(self) -> int:
        """Positions to a line; a row has one after its last pixel, so that no run crosses it."""
        return self.height if self.by_columns else self.width + 1

    @classmethod
    def from_run_lengths(cls, runs: np.ndarray, height: int, width: int) -> MaskRuns:
        """From the run lengths of a COCO encoding: outside, inside, outside, ..."""
        flips = np.cumsum(runs)
        return cls(flips[: len(flips) // 2 * 2], height, width, by_columns=True)

    @classmethod
    def from_array(cls, mask: np.ndarray, scratch: np.ndarray | None = None) -> MaskRuns:
        """From a (H, W) array; what is not zero is inside.

        Args:
            mask: bool or numbers.
            scratch: from `scratch_for`, to be used again; fresh memory costs more than the work.
        """
        height, width = mask.shape
        padded, differs = scratch_for(height, width) if scratch is None else scratch
        np.not_equal(mask, 0, out=padded[:, :width])
        flat, flips = padded.reshape(-1), differs.reshape(-1)
        flips[0] = flat[0]
        np.not_equal(flat[1:], flat[:-1], out=flips[1:])
        return cls(np.flatnonzero(flips), height, width, by_columns=False)

    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where a row of the mask begins or ends a run.

        Returns:
            rows, columns, (E,) int64, and signs, (E,) int8: -1 where a run begins at the column,
            +1 where one has ended before it.
        """
        if not self.by_columns:
            rows, columns = np.divmod(self.flips, self.stride)
            signs = np.ones(len(rows), np.int8)
            signs[::2] = -1
            return rows, columns, signs
        # a mask and the mask one column to the right differ exactly where a row begins or ends
        own, count = self.flips, len(self.flips)
        both = np.concatenate([own, own + self.height])
        order = np.argsort(both, kind="stable")
        both, from_own = both[order], order < count
        inside = np.cumsum(from_own) & 1
        before = np.cumsum(~from_own) & 1
        lengths = np.diff(both, append=both[-1:]) * (inside != before)
        places = np.arange(lengths.sum()) + np.repeat(both - np.cumsum(lengths) + lengths, lengths)
        columns, rows = np.divmod(places, self.height)
        return rows, columns, np.repeat(np.where(inside, -1, 1).astype(np.int8), lengths)


def scratch_for(height: int, width: int) -> np.ndarray:
    """Memory for `MaskRuns.from_array`: the mask with a column of zeros, and where it flips."""
    return np.zeros((2, height, width + 1), bool)


def mask_runs(masks: MaskLike | Iterable[MaskLike]) -> list[MaskRuns]:
    """Masks in any form as runs, checked.

    Args:
        masks: (R, H, W) array or tensor, or R masks of one size: (H, W) arrays, COCO encodings,
            `Region`s. What is not zero is inside.

    Raises:
        ValueError: no masks.
        RegionError: not two-dimensional or not numbers, no pixels, a malformed encoding, or
            another size than the first; names the mask by its place and, where it has one, its id.
    """
    if isinstance(masks, Region | Mapping):
        raise WrongTypeError("tiling takes a list of masks: put a single mask into a list")
    if isinstance(masks, np.ndarray | torch.Tensor):
        check_stack(masks)
    found, scratch = [], None
    for place, mask in enumerate(masks):
        try:
            if isinstance(mask, Region | Mapping):
                found.append(_from_encoding(mask))
            else:
                array = _checked_array(mask)
                if scratch is None or scratch.shape[1:] != (array.shape[0], array.shape[1] + 1):
                    scratch = scratch_for(*array.shape)
                found.append(MaskRuns.from_array(array, scratch))
            if (size := found[-1].size) != found[0].size:
                raise SizeMismatchError(
                    f"this mask is {size[1]} x {size[0]} but the first is "
                    f"{found[0].width} x {found[0].height} (width x height)"
                )
        except RegionError as error:
            region_id = getattr(mask, "id", error.region_id)
            raise type(error)(f"mask {place}: {error.reason}", None, region_id) from None
    if not found:
        raise ValueError("no masks: tiling needs at least one")
    return found


def check_stack(masks: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """The masks, once they are known to be (R, H, W) numbers with R, H and W above zero."""
    if masks.ndim != 3:
        raise WrongTypeError(f"masks are (R, H, W), not {tuple(masks.shape)}")
    if len(masks) == 0:
        raise ValueError("no masks: tiling needs at least one")
    check_size(*masks.shape[1:])
    return masks


def _from_encoding(mask: Region | Mapping[str, Any]) -> MaskRuns:
    if isinstance(mask, Region):
        return MaskRuns.from_run_lengths(run_lengths(mask.rle["counts"]), *mask.size)
    try:
        rle, _ = check_rle(mask)
    except EmptyMaskError:
        return MaskRuns(np.zeros(0, np.int64), *map(int, mask["size"]), by_columns=True)
    return MaskRuns.from_run_lengths(run_lengths(rle["counts"]), *rle["size"])


def _checked_array(mask: Any) -> np.ndarray:
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu()
        mask = mask.float() if mask.dtype == torch.bfloat16 else mask  # numpy has no bfloat16
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise WrongTypeError(
            f"a mask is a (H, W) array of numbers, a COCO encoding or a Region, not "
            f"{array.ndim}-dimensional {array.dtype}"
        )
    check_size(*array.shape)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise WrongTypeError("the mask holds NaN")
    return array
