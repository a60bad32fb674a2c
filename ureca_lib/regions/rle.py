"""COCO run-length encodings: checked before they are decoded, and read without decoding.

pycocotools decodes and compares encodings in C and trusts what it is given, so a malformed one
could read or write past its buffer. Everything that enters the package goes through
`check_rle` first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ureca_lib.regions.errors import (
    EmptyMaskError,
    MissingKeyError,
    RLEError,
    SizeMismatchError,
    TooLargeError,
    WrongTypeError,
)

MAX_PIXELS = 2**28  # a mask of this size takes 256 MiB decoded; SA-1B's largest have 2**24


def run_lengths(counts: str | bytes) -> np.ndarray:
    """Run lengths of a compressed COCO encoding, without decoding the mask.

    The encoding (COCO API, `rleToString`) writes each run as the difference to the run two
    before it, in groups of five bits, least significant first.

    Args:
        counts: the `counts` of a compressed RLE.

    Returns:
        (runs,) int64: pixels outside, inside, outside, ... the mask, in column-major order.

    Raises:
        RLEError: a character outside the alphabet, an unfinished number, a negative run.
    """
    raw = counts.encode("ascii", "replace") if isinstance(counts, str) else bytes(counts)
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        raise RLEError("the encoding is empty")
    if codes.min() < 0 or codes.max() > 63:
        raise RLEError("the encoding holds a character that no COCO encoding has")
    last = (codes & 0x20) == 0
    if not last[-1]:
        raise RLEError("the encoding breaks off in the middle of a number")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 7 * 5 bits is more than any 32-bit run takes
        raise RLEError("the encoding holds a number that is too large for a run")
    place = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = (codes[ends] & 0x10) != 0
    values = values - (negative.astype(np.int64) << (5 * lengths))
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])  # runs 0, 1 and 2 are written as they are
    runs[2::2] = np.cumsum(values[2::2])
    if runs.min() < 0:
        raise RLEError("the encoding has a run of negative length")
    return runs


def check_size(height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raise unless (height, width) is a positive size of at most `max_pixels` pixels."""
    if height < 1 or width < 1:
        raise SizeMismatchError(f"the size {width} x {height} has no pixels")
    if height * width > max_pixels:
        raise TooLargeError(
            f"the size {width} x {height} has {height * width:,} pixels, more than the "
            f"{max_pixels:,} allowed; raise max_pixels if it is meant"
        )


def check_rle(
    rle: Any, height: int | None = None, width: int | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[dict[str, Any], int]:
    """Check a COCO RLE, compressed or not, and return it compressed, with its area.

    Args:
        rle: `{"size": [H, W], "counts": str | bytes | list of int}`.
        height, width: the image's size in pixels; the mask's must be the same when given.
        max_pixels: the largest size allowed.

    Returns:
        `({"size": [H, W], "counts": bytes}, area)`, the area in pixels.

    Raises:
        MissingKeyError, WrongTypeError, TooLargeError, SizeMismatchError, RLEError,
        EmptyMaskError: see their descriptions. Nothing is decoded before all checks passed.
    """
    size, counts = _size_and_counts(rle)
    check_size(*size, max_pixels)
    if height is not None and width is not None and size != (height, width):
        raise SizeMismatchError(
            f"the mask is {size[1]} x {size[0]} but the image is {width} x {height} "
            "(width x height)"
        )
    packed = isinstance(counts, (str, bytes))
    runs = run_lengths(counts) if packed else _uncompressed_runs(counts)
    total, area = int(runs.sum()), int(runs[1::2].sum())
    if total != size[0] * size[1]:
        raise RLEError(f"the runs add up to {total} pixels but the size has {size[0] * size[1]}")
    if area == 0:
        raise EmptyMaskError("the mask has no pixels")
    if packed:
        data = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    else:
        data = coco_mask.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)["counts"]
    return {"size": list(size), "counts": data}, area


def _size_and_counts(rle: Any) -> tuple[tuple[int, int], Any]:
    if not isinstance(rle, Mapping):
        raise WrongTypeError(f"a run-length encoding is an object, not {type(rle).__name__}")
    for key in ("size", "counts"):
        if key not in rle:
            raise MissingKeyError(f"the segmentation has no '{key}'")
    size, counts = rle["size"], rle["counts"]
    whole = isinstance(size, (Sequence, np.ndarray)) and len(size) == 2
    if not whole or not all(is_whole(side) for side in size):
        raise WrongTypeError(f"the segmentation's size is two whole numbers, not {size!r}")
    if not isinstance(counts, (str, bytes, Sequence, np.ndarray)):
        raise WrongTypeError(f"counts is a string or a list, not {type(counts).__name__}")
    return (int(size[0]), int(size[1])), counts


def _uncompressed_runs(counts: Sequence[Any] | np.ndarray) -> np.ndarray:
    if not all(is_whole(count) for count in counts):
        raise WrongTypeError("uncompressed counts are whole numbers")
    if len(counts) == 0:
        raise RLEError("the encoding is empty")
    if max(counts) > 2**32:
        raise RLEError("the encoding holds a number that is too large for a run")
    runs = np.asarray(counts, np.int64)
    if runs.min() < 0:
        raise RLEError("the encoding has a run of negative length")
    return runs


def is_whole(value: Any) -> bool:
    """True for an integer that is not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)
