"""Geometry of the explorer: the region at a pixel, outlines, the photo to send, drawn regions."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.path import Path
from PIL import Image
from skimage.measure import block_reduce, find_contours

from ureca_lib.annotate.cuts import Cut
from ureca_lib.mask_tree import by_area
from ureca_lib.regions import AnnotationFormatError, Region

PHOTO_SIDE = 1600  # pixels of the longer side of the photo that the browser gets
_OUTLINE_SIDE = 1200.0  # pixels of a photo on which an outline may be a quarter of a pixel off
_TOLERANCE = 0.25
_OUTLINE_PIXELS = 4_000_000  # of a mask above which its outline is that of a smaller copy


class LabelMap:
    """The smallest region at each pixel, so that a click is one look into an array.

    Args:
        regions: of one image; at least one.
    """

    def __init__(self, regions: Sequence[Region]):
        self._labels = np.full(regions[0].size, -1, np.int32)  # (H, W)
        self._ids = [region.id for region in regions]
        for index in by_area(regions):  # the smallest last, above all that contain it
            cut = Cut.of(regions[index])
            self._labels[cut.box.window][cut.mask] = index

    def at(self, x: float, y: float) -> int | str | None:
        """Id of the smallest region at (x, y) in pixels, or None if there is none."""
        height, width = self._labels.shape
        column, row = math.floor(x), math.floor(y)
        if not (0 <= column < width and 0 <= row < height):
            return None
        index = int(self._labels[row, column])
        return None if index < 0 else self._ids[index]


def outline_rings(region: Region) -> list[np.ndarray]:
    """Compute the lines around each piece and each hole of a region.

    Returns:
        Closed rings, (P, 2) float64 x and y in pixels of the image, whose left edge is at x = 0;
        simplified by less than can be seen when the whole image is shown.
    """
    cut = Cut.of(region)
    x, y, mask = cut.x, cut.y, cut.mask
    # the outline of a ragged mask over a phone photo would take a gigabyte
    step = math.ceil(math.sqrt(mask.size / _OUTLINE_PIXELS))
    small = block_reduce(mask, step, np.max) if step > 1 else mask
    tolerance = max(0.3, _TOLERANCE * max(region.size) / _OUTLINE_SIDE) / step
    contours = find_contours(np.pad(small, 1).astype(np.float32), 0.5)
    # the center of a pixel is at + 0.5, and the padding has moved everything by 1
    return [
        (_simplified(contour, tolerance)[:, ::-1] - 0.5) * step + (x, y) for contour in contours
    ]


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """(Q, 2) of the (P, 2) points of a closed ring, off by less than the tolerance in pixels.

    Matplotlib's simplification is compiled; scikit-image's takes a hundred times as long.
    """
    path = Path(ring)
    path.should_simplify, path.simplify_threshold = True, tolerance
    kept = path.cleaned(simplify=True)
    points = kept.vertices[kept.codes != Path.STOP]
    # a closed ring of three points is a line: the region is too small to be simplified
    return points if len(points) > 3 else ring


def outline_path(region: Region) -> str:
    """Encode a region's outline as the data of an SVG path, for the even-odd fill rule."""
    rings = (" ".join(f"{x:.1f} {y:.1f}" for x, y in ring) for ring in outline_rings(region))
    return "".join(f"M{ring}Z" for ring in rings)


def photo_jpeg(pixels: np.ndarray, side: int = PHOTO_SIDE) -> bytes:
    """Encode a photo as JPEG, reduced if its longer side is above `side` pixels.

    Args:
        pixels: (H, W, 3) uint8.
        side: of the result at most.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def drawn_region(id: int | str, points: Sequence[Sequence[float]], size: tuple[int, int]) -> Region:
    """Make a region from a drawing: two points are corners of a box, more are a polygon.

    Args:
        id: of the region.
        points: (x, y) in pixels; the part outside of the image is cut off.
        size: (H, W) of the image.

    Raises:
        AnnotationFormatError: malformed points, or a single point.
        EmptyMaskError: no pixel inside.
    """
    try:
        corners = np.array(points, np.float64).reshape(-1, 2)  # (P, 2), x and y
    except (TypeError, ValueError):
        raise AnnotationFormatError("a drawing is a list of (x, y) points", None, id) from None
    if len(corners) < 2 or not np.isfinite(corners).all():
        raise AnnotationFormatError("a drawing has at least two points, all finite", None, id)
    height, width = size
    corners = corners.clip(0, (width, height))
    if len(corners) > 2:
        return Region.from_polygons(id, [corners], height, width)
    (left, top), (right, bottom) = np.sort(corners, axis=0).round().astype(int)
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return Region.from_mask(id, mask)
