"""COCO polygons, checked and filled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    SizeMismatchError,
)
from ureca_lib.regions.rle import as_list

_OUTLINE_LIMIT = 2**22  # pixels; pycocotools takes 80 bytes for each and trusts malloc


def encode_polygons(polygons: Sequence[Sequence[Any]], height: int, width: int) -> dict[str, Any]:
    """The union of polygons as a COCO RLE, filled as COCO's tools fill them.

    Args:
        polygons: rings of at least three points, flat `[x, y, x, y, ...]` or pairs, pixels.
        height, width: the image's size in pixels.

    Returns:
        `{"size": [H, W], "counts": bytes}`, which may be an empty mask.

    Raises:
        AnnotationFormatError, SizeMismatchError, EmptyMaskError
    """
    rings = as_list(polygons)
    if rings is None:
        raise AnnotationFormatError(f"polygons are a list of rings, not {type(polygons).__name__}")
    if not rings:
        raise EmptyMaskError("there is no polygon")
    points = [_ring_points(ring, max(height, width)) for ring in rings]
    if sum(map(_outline, points)) > _OUTLINE_LIMIT:
        raise AnnotationFormatError(
            f"the polygons' outline is longer than {_OUTLINE_LIMIT:,} pixels"
        )
    flat = [ring.ravel().tolist() for ring in points]  # (P, 2) -> (P * 2,)
    return coco_mask.merge(coco_mask.frPyObjects(flat, height, width))


def extent(rings: Iterable[Any]) -> tuple[float, float]:
    """The largest x and y of rings in pixels; rings that are malformed are passed over."""
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
    """(P, 2) float64 x and y of a ring that stays near the image."""
    values = as_list(ring)
    if values is None:
        raise AnnotationFormatError(
            f"a polygon is a list of coordinates, not {type(ring).__name__}"
        )
    pairs = [as_list(value) for value in values]
    if pairs and all(pair is not None and len(pair) == 2 for pair in pairs):
        values = [value for pair in pairs for value in pair]
    if len(values) < 6 or len(values) % 2 or not all(is_finite(value) for value in values):
        raise AnnotationFormatError("a polygon is at least three (x, y) pairs of finite numbers")
    points = np.array(values, np.float64).reshape(-1, 2)  # (P * 2,) -> (P, 2)
    if points.min() < -reach or points.max() > 2 * reach:
        raise SizeMismatchError("a polygon lies far outside the image")
    return points


def is_finite(value: Any) -> bool:
    """True for a number that is neither a bool, nor infinite, nor beyond what a float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
