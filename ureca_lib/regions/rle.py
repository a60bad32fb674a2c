"""COCO run-length encodings: checked before they are decoded, and read without decoding.

pycocotools decodes and compares encodings in C and trusts its input: a malformed encoding could
read or write past its buffer, and an encoding with empty runs is compared wrongly. Every encoding
that enters the package goes through `check_rle`, which returns the canonical encoding.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    RegionError,
    SizeMismatchError,
)

# of a photo and its masks: the largest that a phone takes; as RGB it takes 600 MB. SA-1B's largest
# have 2**24. From 2**29 on, a run takes seven groups, which pycocotools does not hold
MAX_PIXELS = 200_000_000
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
    # letters that ASCII lacks become bytes that no encoding has
    text = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else bytes(counts)
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise AnnotationFormatError(
            "the encoding is empty, breaks off, or holds a character that no COCO encoding has"
        )
    ends = np.flatnonzero((codes & 0x20) == 0)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > 7:  # 7 * 5 bits is more than any 32-bit run takes
        raise AnnotationFormatError("the encoding holds a number that is too large for a run")
    starts = ends - lengths + 1
    place = np.arange(codes.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    runs -= (codes[ends] >> 4 & 1) << (5 * lengths)  # the highest bit is the sign
    runs[1::2] = np.cumsum(runs[1::2])  # runs 0, 1 and 2 are written as they are
    runs[2::2] = np.cumsum(runs[2::2])
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
    total = runs.sum()
    # where an even number of borders meet, an empty run separates two runs of one kind
    borders, times = np.unique(np.cumsum(runs)[:-1], return_counts=True)
    borders = borders[(times % 2 == 1) & (borders < total)]
    runs = np.diff(borders, prepend=0, append=total)
    values = runs.copy()
    values[3:] -= runs[1:-2]
    groups = 1 + np.searchsorted(_GROUP_ENDS, np.where(values < 0, ~values, values), side="right")
    left = np.repeat(np.cumsum(groups), groups) - np.arange(groups.sum()) - 1
    place = np.repeat(groups, groups) - 1 - left
    codes = (np.repeat(values, groups) >> (5 * place)) & 0x1F
    return (codes + 0x20 * (left > 0) + 48).astype(np.uint8).tobytes()


def check_size(height: int, width: int) -> None:
    """Raise unless (height, width) is a positive size of at most `MAX_PIXELS` pixels."""
    if not (is_whole(height) and is_whole(width)):
        raise AnnotationFormatError(f"a size is two whole numbers, not {width!r} x {height!r}")
    height, width = int(height), int(width)  # numpy's 32-bit integers overflow when multiplied
    if height < 1 or width < 1:
        raise SizeMismatchError(f"the size {width} x {height} has no pixels")
    if height * width > MAX_PIXELS:
        raise AnnotationFormatError(
            f"the size {width} x {height} has {height * width:,} pixels, more than the "
            f"{MAX_PIXELS:,} allowed"
        )


def check_rle(rle: Any) -> tuple[dict[str, Any], int]:
    """Check a COCO RLE, compressed or not, and return it compressed, with its area.

    Args:
        rle: `{"size": [H, W], "counts": str | bytes | list of int}`.

    Returns:
        `({"size": [H, W], "counts": bytes}, area)`: the canonical encoding, the same for the same
        mask, and the area in pixels.

    Raises:
        AnnotationFormatError, SizeMismatchError, EmptyMaskError: before anything is decoded.
    """
    size = as_list(rle.get("size")) if isinstance(rle, Mapping) else None
    if size is None or len(size) != 2:
        raise AnnotationFormatError(
            "a run-length encoding is an object with 'counts' and a 'size' of two whole numbers"
        )
    check_size(*size)
    counts = rle.get("counts")
    packed = isinstance(counts, _PACKED)
    runs = run_lengths(counts) if packed else _uncompressed_runs(as_list(counts))
    total, area = int(runs.sum()), int(runs[1::2].sum())
    height, width = int(size[0]), int(size[1])
    if total != height * width:
        raise AnnotationFormatError(
            f"the runs add up to {total} pixels but the size has {height * width}"
        )
    if area == 0:
        raise EmptyMaskError("the mask has no pixels")
    return {"size": [height, width], "counts": pack_runs(runs)}, area


def _uncompressed_runs(counts: list[Any] | None) -> np.ndarray:
    if counts is None:
        raise AnnotationFormatError("'counts' is a string or a list")
    if not all(is_whole(count) and 0 <= count <= MAX_PIXELS for count in counts):
        raise AnnotationFormatError(
            "uncompressed counts are whole numbers, none negative or too large for a run"
        )
    return np.array(counts, np.int64)


def as_list(value: Any) -> list[Any] | None:
    """Return the items of a list, a tuple or an array; None for anything else, strings too."""
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim else None
    listed = isinstance(value, Sequence) and not isinstance(value, _PACKED)
    return list(value) if listed else None


def is_whole(value: Any) -> bool:
    """Tell whether a value is an integer and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Tell whether a value is a finite number within the range of floats, and no bool."""
    numeric = isinstance(value, (int, float, np.integer, np.floating))
    # a comparison, which unlike a conversion takes whole numbers of any length
    return numeric and not isinstance(value, bool) and bool(abs(value) <= sys.float_info.max)


def check_box(box: Any) -> tuple[float, float, float, float]:
    """Return a box (x, y, width, height) in pixels as floats.

    Raises:
        AnnotationFormatError: not four finite numbers.
    """
    sides = as_list(box)
    if sides is None or len(sides) != 4 or not all(map(is_finite, sides)):
        raise AnnotationFormatError(f"a box is four finite numbers, not {reprlib.repr(box)}")
    return tuple(map(float, sides))  # type: ignore[return-value]


def encode_polygons(polygons: Any, height: int, width: int) -> tuple[dict[str, Any], int]:
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
    reach = max(height, width)
    points = [ring for ring in map(_ring_points, rings) if len(ring) >= 3]
    if not points:
        raise AnnotationFormatError("a polygon is at least three (x, y) pairs of finite numbers")
    if any(ring.min() < -reach or ring.max() > 2 * reach for ring in points):
        raise SizeMismatchError("a polygon is far outside the image")
    sides = [np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1) + 1 for ring in points]
    if sum(side.sum() for side in sides) > _OUTLINE_LIMIT:
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
    flat = all(map(is_finite, rings))
    pairs = len(rings) > 2 and all(map(_is_pair, rings))
    return [rings] if rings and (flat or pairs) else rings


def extent(rings: Iterable[Any]) -> tuple[float, float]:
    """Return the largest x and y of rings in pixels, ignoring malformed rings."""
    points = [np.zeros((1, 2))]
    for ring in rings:
        with suppress(RegionError):
            points.append(_ring_points(ring))
    right, bottom = np.concatenate(points).max(axis=0)
    return float(right), float(bottom)


def _is_pair(value: Any) -> bool:
    pair = as_list(value)
    return pair is not None and len(pair) == 2 and all(map(is_finite, pair))


def _ring_points(ring: Any) -> np.ndarray:
    """(P, 2) float64 x and y of a ring in pixels."""
    values = as_list(ring)
    if values is None:
        raise AnnotationFormatError(
            f"a polygon is a list of coordinates, not {type(ring).__name__}"
        )
    if values and all(map(_is_pair, values)):
        values = [value for pair in values for value in pair]
    if len(values) % 2 or not all(map(is_finite, values)):
        raise AnnotationFormatError("a polygon is at least three (x, y) pairs of finite numbers")
    return np.array(values, np.float64).reshape(-1, 2)  # (P * 2,) -> (P, 2)
