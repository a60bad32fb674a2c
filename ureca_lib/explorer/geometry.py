"""Where regions are on the picture: which one is at a pixel, how to draw one, how one is drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.path import Path
from PIL import Image
from skimage.measure import find_contours

from ureca_lib.annotate.referring.attributes import cropped_mask
from ureca_lib.mask_tree import by_area
from ureca_lib.regions import AnnotationFormatError, EmptyMaskError, Region

PHOTO_SIDE = 1600  # pixels of the longer side of the picture that the browser gets
_OUTLINE_SIDE = 1200.0  # pixels of a picture at which an outline may be a quarter of a pixel off
_TOLERANCE = 0.25


class LabelMap:
    """For each pixel the smallest region there, so that a click is one look into an array.

    Args:
        regions: of one image; at least one.
    """

    def __init__(self, regions: Sequence[Region]):
        kind = np.int16 if len(regions) < np.iinfo(np.int16).max else np.int32
        self._labels = np.full(regions[0].size, -1, kind)  # (H, W)
        self._ids = [region.id for region in regions]
        for index in by_area(regions):  # the smallest last, over all that it lies in
            (x, y, columns, rows), mask = cropped_mask(regions[index])
            self._labels[y : y + rows, x : x + columns][mask] = index

    def at(self, x: float, y: float) -> int | str | None:
        """Id of the smallest region at (x, y) in pixels, or None where there is none."""
        height, width = self._labels.shape
        column, row = math.floor(x), math.floor(y)
        if not (0 <= column < width and 0 <= row < height):
            return None
        index = int(self._labels[row, column])
        return None if index < 0 else self._ids[index]


def outline_rings(region: Region) -> list[np.ndarray]:
    """The lines around each piece and each hole of a region.

    Returns:
        Closed rings, (P, 2) float64 x and y in pixels of the image, whose left edge is at x = 0.
        Simplified by less than what is seen where the whole image is.
    """
    (x, y, _, _), mask = cropped_mask(region)
    tolerance = max(0.3, _TOLERANCE * max(region.size) / _OUTLINE_SIDE)
    rings = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        points = _simplified(contour, tolerance)
        # a pixel's centre is at + 0.5, and the padding moved all by - 1
        rings.append(points[:, ::-1] + (x - 0.5, y - 0.5))
    return rings


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """(Q, 2) of the (P, 2) points of a closed ring, off by less than the tolerance in pixels.

    Matplotlib's simplification is compiled; that of scikit-image takes a hundred times as long.
    """
    path = Path(ring)
    path.should_simplify, path.simplify_threshold = True, tolerance
    kept = path.cleaned(simplify=True)
    points = kept.vertices[kept.codes != Path.STOP]
    # closed, so fewer than three corners: too small to be simplified
    return points if len(points) > 3 else ring


def outline_path(region: Region) -> str:
    """A region's outline as the data of an SVG path, to be filled by the even-odd rule."""
    rings = (" ".join(f"{x:.1f} {y:.1f}" for x, y in ring) for ring in outline_rings(region))
    return "".join(f"M{ring}Z" for ring in rings)


def photo_jpeg(pixels: np.ndarray, side: int = PHOTO_SIDE) -> bytes:
    """A photo as JPEG, made smaller where its longer side is above `side` pixels.

    Args:
        pixels: (H, W, 3) uint8.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def drawn_region(id: int | str, points: Sequence[Sequence[float]], size: tuple[int, int]) -> Region:
    """A region that a person has drawn: two points are corners of a box, more are a polygon.

    Args:
        id: of the region.
        points: (x, y) in pixels; what lies outside the image is cut off.
        size: (H, W) of the image.

    Raises:
        AnnotationFormatError: points that are none, or one point alone.
        EmptyMaskError: no pixel inside.
    """
    try:
        corners = np.array(points, np.float64).reshape(-1, 2)  # (P, 2), x and y
    except (TypeError, ValueError):
        raise AnnotationFormatError("a drawing is a list of (x, y) points", None, id) from None
    if len(corners) < 2 or not np.isfinite(corners).all():
        raise AnnotationFormatError("a drawing has two points or more, all finite", None, id)
    height, width = size
    corners = corners.clip(0, (width, height))
    if len(corners) > 2:
        return Region.from_polygons(id, [corners], height, width)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    mask = np.zeros(size, bool)
    mask[round(top) : round(bottom), round(left) : round(right)] = True
    if not mask.any():
        raise EmptyMaskError("the box has no pixels", None, id)
    return Region.from_mask(id, mask)
