"""The marks on a view: the blurred background, sharp regions in it, and contours."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from ureca_lib.annotate.views.frames import Cut
from ureca_lib.annotate.views.settings import Color

_SIGMA_REDUCED = 8.0  # standard deviation in pixels of the reduced photo


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur as wide as the photo, in time that does not grow with its width.

    A wide blur leaves nothing that a reduced photo could not hold. The photo is reduced until the
    blur is 8 pixels wide, blurred there exactly, and enlarged again; what reducing and enlarging
    blur by themselves is taken off first. Against the exact Gaussian this is at most 3 of 255
    levels off at any width, and exact but for rounding below a width of 16 pixels, where box
    blurs repeated three times, as fast, are up to 20 levels off.

    Args:
        image: (H, W, 3) uint8.
        sigma: standard deviation in pixels.

    Returns:
        (H, W, 3) uint8; beyond the edge the photo is taken to be mirrored.
    """
    height, width = image.shape[:2]
    factor = max(1, int(sigma / _SIGMA_REDUCED))
    columns, rows = math.ceil(width / factor), math.ceil(height / factor)
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX)
    # a box of f pixels has the variance (f^2 - 1) / 12, linear enlarging by f about (f^2 - 1) / 6
    sigmas = [
        math.sqrt(max(sigma**2 - (step**2 - 1) / 4, 0)) / step
        for step in (height / rows, width / columns)
    ]
    levels = ndimage.gaussian_filter(np.asarray(small, np.float32), (*sigmas, 0), mode="reflect")
    smooth = Image.fromarray(np.rint(levels).astype(np.uint8))
    return np.array(smooth.resize((width, height), Image.Resampling.BILINEAR))


def show_sharp(canvas: np.ndarray, photo: np.ndarray, cut: Cut) -> None:
    """Copy a region's pixels from the photo onto a canvas of the same size, in place.

    Args:
        canvas, photo: (H, W, 3) uint8.
        cut: the region, in their pixels.
    """
    rows, columns = cut.mask.shape
    # a mask as deep as the pixels is 5 times faster than one that numpy has to broadcast
    inside = np.repeat(cut.mask, 3, axis=1).reshape(rows, columns, 3)  # (h, w * 3) -> (h, w, 3)
    np.copyto(canvas[cut.window], photo[cut.window], where=inside)


def grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """(h, w) bool -> (h + 2 radius, w + 2 radius) bool: all within `radius` pixels of the mask."""
    padded = np.pad(mask, radius)
    wide = [padded]  # grown sideways by 0, 1, ... pixels
    for reach in range(1, radius + 1):
        row = wide[-1].copy()
        row[:, reach:] |= padded[:, :-reach]
        row[:, :-reach] |= padded[:, reach:]
        wide.append(row)
    grown = wide[radius].copy()
    for step in range(1, radius + 1):
        row = wide[int(math.sqrt((radius + 0.5) ** 2 - step**2))]
        grown[step:] |= row[:-step]
        grown[:-step] |= row[step:]
    return grown


def contour_of(cut: Cut, width: int, height: int, columns: int) -> Cut:
    """The pixels of a region's contour: around it, and around its holes, on the outside.

    Where the region ends with the picture there is no outside, so the contour runs inside along
    the picture's edge; unless that would hide more than half of the region.

    Args:
        cut: the region in pixels of the picture.
        width: of the contour in pixels.
        height, columns: of the picture.
    """
    ring = grow(cut.mask, width)
    inner = ring[width:-width, width:-width]
    inner &= ~cut.mask
    x, y, w, h = cut.box
    edge = np.zeros_like(cut.mask)
    edge[: max(0, width - y)] = edge[:, : max(0, width - x)] = True
    edge[max(0, height - width - y) :] = edge[:, max(0, columns - width - x) :] = True
    edge &= cut.mask
    if 2 * np.count_nonzero(edge) <= np.count_nonzero(cut.mask):
        inner |= edge
    left, top = max(0, width - x), max(0, width - y)
    right, bottom = min(w + 2 * width, columns - x + width), min(h + 2 * width, height - y + width)
    return Cut(x - width + left, y - width + top, ring[top:bottom, left:right])


def draw_contour(canvas: np.ndarray, cut: Cut, width: int, color: Color) -> None:
    """Draw a region's contour onto a (H, W, 3) uint8 canvas, in place; `cut` in its pixels."""
    contour = contour_of(cut, width, *canvas.shape[:2])
    canvas[contour.window][contour.mask] = color
