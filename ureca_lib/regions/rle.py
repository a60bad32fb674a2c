"""COCO run-length encodings: checked before they are decoded, and read without decoding.

pycocotools decodes and compares encodings in C and trusts its input: a malformed encoding could
read or write past its buffer, and an encoding with empty runs is compared wrongly. Every encoding
that enters the package goes through `check_rle`, which returns the canonical encoding.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    SizeMismatchError,
)

MAX_PIXELS = 2**28  # a mask of this size takes 256 MiB decoded; SA-1B's largest have 2**24
_PIXEL_LIMIT = 2**29 - 1  # beyond, a run takes seven groups, which pycocotools does not hold
# magnitudes from which a number takes one group of five bits more
_GROUP_ENDS = 2 ** (5 * np.arange(1, 7) - 1)
_OUTLINE_LIMIT = 2**22  # pixels; pycocotools takes 80 bytes for each and trusts malloc
_PACKED = (str, bytes, bytearray, memoryview)


def run_lengths(counts: str | bytes) -> np.ndarray:
    """Read the run lengths of a compressed COCO encoding, without decoding the mask.

    The encoding (COCO API, `rleToString`) writes each run as the difference to the run two
    before it, in groups of five bits, least significant first.

    Args:
        counts: the `counts` of a compressed RLE.

    Returns:
        (runs,) int64: pixels outside, inside, outside, ... the mask, in column-major order.

    Raises:
        AnnotationFormatError: an unknown character, an unfinished number, a negative run.
    """
    codes = np.frombuffer(_as_bytes(counts), np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        raise AnnotationFormatError("the encoding is empty")
    if codes.min() < 0 or codes.max() > 63:
        raise AnnotationFormatError("the encoding holds a character that no COCO encoding has")
    last = (codes & 0x20) == 0
    if not last[-1]:
        raise AnnotationFormatError("the encoding breaks off in the middle of a number")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 7 * 5 bits is more than any 32-bit run takes
        raise AnnotationFormatError("the encoding holds a number that is too large for a run")
    place = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = (codes[ends] & 0x10) != 0
    values = values - (negative.astype(np.int64) << (5 * lengths))
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])  # runs 0, 1 and 2 are written as they are
    runs[2::2] = np.cumsum(values[2::2])
    if runs.min() < 0:
        raise AnnotationFormatError("the encoding has a run of negative length")
    return runs


def pack_runs(runs: np.ndarray) -> bytes:
    """Encode run lengths canonically: the inverse of `run_lengths`.

    No run but the first is empty, and no number has more groups than it needs, so that equal
    masks have equal encodings. pycocotools' own writer is not used: it keeps empty runs, and
    allots six characters a run with none for the end of the string.

    Args:
        runs: (runs,) int64, none negative, of less than 2**29 pixels in all.
    """
    runs = _without_empty(runs)
    values = _differences(runs)
    groups = _groups(values)
    last = np.cumsum(groups) - 1
    place = np.arange(groups.sum()) - np.repeat(last - groups + 1, groups)
    codes = ((np.repeat(values, groups) >> (5 * place)) & 0x1F) | 0x20
    codes[last] &= 0x1F
    return (codes + 48).astype(np.uint8).tobytes()


def _differences(runs: np.ndarray) -> np.ndarray:
    values = runs.copy()
    values[3:] -= runs[1:-2]
    return values


def _groups(values: np.ndarray) -> np.ndarray:
    """Number of groups of five bits per number; the highest bit is the sign."""
    return 1 + np.searchsorted(_GROUP_ENDS, np.where(values < 0, ~values, values), side="right")


def _canonical(counts: bytes, runs: np.ndarray) -> bytes:
    """`pack_runs(runs)`, given an encoding of those runs, which most often is canonical."""
    if runs[1:].all() and len(counts) == _groups(_differences(runs)).sum():
        return counts
    return pack_runs(runs)


def _without_empty(runs: np.ndarray) -> np.ndarray:
    if runs[1:].all():
        return runs
    inside = np.arange(runs.size) % 2
    inside, runs = inside[runs > 0], runs[runs > 0]
    starts = np.flatnonzero(np.diff(inside, prepend=-1))
    merged = np.add.reduceat(runs, starts)
    return np.concatenate([[0], merged]) if inside[0] else merged


def check_size(height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raise unless (height, width) is a positive size of at most `max_pixels` pixels."""
    if not (is_whole(height) and is_whole(width)):
        raise AnnotationFormatError(f"a size is two whole numbers, not {width!r} x {height!r}")
    height, width = int(height), int(width)  # numpy's 32-bit integers overflow when multiplied
    if height < 1 or width < 1:
        raise SizeMismatchError(f"the size {width} x {height} has no pixels")
    allowed = min(max_pixels, _PIXEL_LIMIT)
    if height * width > allowed:
        hint = "; raise max_pixels if it is meant" if max_pixels < _PIXEL_LIMIT else ""
        raise AnnotationFormatError(
            f"the size {width} x {height} has {height * width:,} pixels, more than the "
            f"{allowed:,} allowed{hint}"
        )


def check_rle(rle: Any, max_pixels: int = MAX_PIXELS) -> tuple[dict[str, Any], int]:
    """Check a COCO RLE, compressed or not, and return it compressed, with its area.

    Args:
        rle: `{"size": [H, W], "counts": str | bytes | list of int}`.
        max_pixels: the largest size allowed; 2**29 - 1 at most.

    Returns:
        `({"size": [H, W], "counts": bytes}, area)`: the canonical encoding, the same for the same
        mask, and the area in pixels.

    Raises:
        AnnotationFormatError, SizeMismatchError, EmptyMaskError: before anything is decoded.
    """
    size, counts = _size_and_counts(rle)
    check_size(*size, max_pixels)
    packed = isinstance(counts, bytes)
    runs = run_lengths(counts) if packed else _uncompressed_runs(counts)
    total, area = int(runs.sum()), int(runs[1::2].sum())
    if total != size[0] * size[1]:
        raise AnnotationFormatError(
            f"the runs add up to {total} pixels but the size has {size[0] * size[1]}"
        )
    if area == 0:
        raise EmptyMaskError("the mask has no pixels")
    counts = _canonical(counts, runs) if packed else pack_runs(runs)
    return {"size": list(size), "counts": counts}, area


def _size_and_counts(rle: Any) -> tuple[tuple[int, int], bytes | list[Any]]:
    if not isinstance(rle, Mapping):
        raise AnnotationFormatError(f"a run-length encoding is an object, not {type(rle).__name__}")
    for key in ("size", "counts"):
        if key not in rle:
            raise AnnotationFormatError(f"the segmentation has no '{key}'")
    size, counts = as_list(rle["size"]), rle["counts"]
    if size is None or len(size) != 2 or not all(is_whole(side) for side in size):
        found = reprlib.repr(rle["size"])
        raise AnnotationFormatError(f"the segmentation's size is two whole numbers, not {found}")
    counts = _as_bytes(counts) if isinstance(counts, _PACKED) else as_list(counts)
    if counts is None:
        kind = type(rle["counts"]).__name__
        raise AnnotationFormatError(f"counts is a string or a list, not {kind}")
    return (int(size[0]), int(size[1])), counts


def _as_bytes(counts: str | bytes) -> bytes:
    # letters that ASCII lacks become bytes that no encoding has
    return counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else bytes(counts)


def _uncompressed_runs(counts: list[Any]) -> np.ndarray:
    if not all(is_whole(count) for count in counts):
        raise AnnotationFormatError("uncompressed counts are whole numbers")
    if not counts:
        raise AnnotationFormatError("the encoding is empty")
    if min(counts) < 0:
        raise AnnotationFormatError("the encoding has a run of negative length")
    if max(counts) > _PIXEL_LIMIT:
        raise AnnotationFormatError("the encoding holds a number that is too large for a run")
    return np.asarray(counts, np.int64)


def as_list(value: Any) -> list[Any] | None:
    """Return the items of a list, a tuple or an array; None for anything else, strings too."""
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim else None
    listed = isinstance(value, Sequence) and not isinstance(value, _PACKED)
    return list(value) if listed else None


def is_whole(value: Any) -> bool:
    """Tell whether a value is an integer and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def encode_polygons(polygons: Sequence[Any], height: int, width: int) -> tuple[dict[str, Any], int]:
    """Fill the union of polygons as COCO's tools fill it.

    Args:
        polygons: rings, flat `[x, y, x, y, ...]` or pairs, in pixels; or a single ring. Rings of
            fewer than three points have no area and are dropped, as long as another is left.
        height, width: the image's size in pixels.

    Returns:
        `{"size": [H, W], "counts": bytes}`, which may be an empty mask; number of rings dropped.

    Raises:
        AnnotationFormatError, SizeMismatchError, EmptyMaskError
    """
    rings = split_rings(polygons)
    if not rings:
        raise EmptyMaskError("there is no polygon")
    points = [_ring_points(ring, max(height, width)) for ring in rings]
    points = [ring for ring in points if len(ring) >= 3]
    if not points:
        raise AnnotationFormatError("a polygon is at least three (x, y) pairs of finite numbers")
    if sum(map(_outline, points)) > _OUTLINE_LIMIT:
        raise AnnotationFormatError(
            f"the polygons' outline is longer than {_OUTLINE_LIMIT:,} pixels"
        )
    flat = [ring.ravel().tolist() for ring in points]  # (P, 2) -> (P * 2,)
    rle = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    return rle, len(rings) - len(points)


def split_rings(polygons: Any) -> list[Any]:
    """List the rings of a COCO segmentation; a single ring may lack the list around it.

    Raises:
        AnnotationFormatError: not a list.
    """
    rings = as_list(polygons)
    if rings is None:
        raise AnnotationFormatError(f"polygons are a list of rings, not {type(polygons).__name__}")
    flat = all(is_finite(value) for value in rings)
    pairs = len(rings) > 2 and all(_is_pair(ring) for ring in rings)
    return [rings] if rings and (flat or pairs) else rings


def _is_pair(value: Any) -> bool:
    pair = as_list(value)
    return pair is not None and len(pair) == 2 and all(map(is_finite, pair))


def extent(rings: Iterable[Any]) -> tuple[float, float]:
    """Return the largest x and y of rings in pixels, ignoring malformed rings."""
    right = bottom = 0.0
    for ring in rings:
        try:
            points = np.array(ring, np.float64).reshape(-1, 2)  # flat or pairs
        except (ValueError, TypeError, OverflowError):
            continue
        if len(points) and np.isfinite(points).all():
            right, bottom = max(right, points[:, 0].max()), max(bottom, points[:, 1].max())
    return float(right), float(bottom)


def _outline(points: np.ndarray) -> float:
    sides = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
    return float(sides.sum()) + len(points)


def _ring_points(ring: Any, reach: int) -> np.ndarray:
    """(P, 2) float64 x and y of a ring near the image."""
    values = as_list(ring)
    if values is None:
        raise AnnotationFormatError(
            f"a polygon is a list of coordinates, not {type(ring).__name__}"
        )
    pairs = [as_list(value) for value in values]
    if pairs and all(pair is not None and len(pair) == 2 for pair in pairs):
        values = [value for pair in pairs for value in pair]
    if len(values) % 2 or not all(is_finite(value) for value in values):
        raise AnnotationFormatError("a polygon is at least three (x, y) pairs of finite numbers")
    points = np.array(values, np.float64).reshape(-1, 2)  # (P * 2,) -> (P, 2)
    if len(points) and (points.min() < -reach or points.max() > 2 * reach):
        raise SizeMismatchError("a polygon is far outside the image")
    return points


def is_finite(value: Any) -> bool:
    """Tell whether a value is a finite number within the range of floats, and no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
