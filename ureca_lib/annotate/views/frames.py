"""Where a view looks: a box of the photo and the size it is shown at; masks and pixels in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ureca_lib.annotate.views.settings import ViewSettings
from ureca_lib.regions import Region

Box = tuple[int, int, int, int]  # x, y, columns, rows in photo pixels


@dataclass(frozen=True)
class Cut:
    """A mask within its tight box: `x`, `y` of the box's corner in its image, mask (h, w) bool."""

    x: int
    y: int
    mask: np.ndarray

    @property
    def box(self) -> Box:
        """(x, y, columns, rows)."""
        return self.x, self.y, self.mask.shape[1], self.mask.shape[0]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the box, for indexing."""
        return (
            slice(self.y, self.y + self.mask.shape[0]),
            slice(self.x, self.x + self.mask.shape[1]),
        )

    def trimmed(self) -> Cut:
        """The same mask in its tight box."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        inside = self.mask[top : rows[-1] + 1, left : columns[-1] + 1]
        return Cut(self.x + left, self.y + top, inside)

    @classmethod
    def of(cls, region: Region) -> Cut:
        """A region's mask, cut out of its image."""
        x, y, columns, rows = region.pixel_box
        return cls(x, y, np.ascontiguousarray(region.mask[y : y + rows, x : x + columns]))


@dataclass(frozen=True)
class Frame:
    """A box of the photo, and the size in pixels of the picture that shows it."""

    x: int
    y: int
    columns: int
    rows: int
    width: int
    height: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the photo, for indexing."""
        return slice(self.y, self.y + self.rows), slice(self.x, self.x + self.columns)

    def shifted(self, cut: Cut) -> Cut:
        """The mask in photo pixels counted from the frame's corner."""
        return Cut(cut.x - self.x, cut.y - self.y, cut.mask)

    def resized(self, pixels: np.ndarray) -> np.ndarray:
        """(rows, columns, 3) of the photo -> (height, width, 3) of the picture, uint8."""
        if pixels.shape[:2] == (self.height, self.width):
            return pixels
        size = (self.width, self.height)
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

    def mapped(self, cut: Cut) -> Cut:
        """The mask in pixels of the picture; never empty, however small it becomes."""
        cut = self.shifted(cut)
        if (self.rows, self.columns) == (self.height, self.width):
            return cut
        left, right, pad_x, x_span = _span(cut.x, cut.mask.shape[1], self.columns, self.width)
        top, bottom, pad_y, y_span = _span(cut.y, cut.mask.shape[0], self.rows, self.height)
        levels = Image.fromarray(np.pad(cut.mask.view(np.uint8) * 255, (pad_y, pad_x)))
        source = (x_span[0], y_span[0], x_span[1], y_span[1])
        size = (right - left, bottom - top)
        shown = np.asarray(levels.resize(size, Image.Resampling.BILINEAR, source))
        # half covered, or, where the mask is thinner than a pixel, as covered as it gets
        inside = shown >= min(128, max(1, int(shown.max())))
        if not inside.any():
            inside[size[1] // 2, size[0] // 2] = True
        return Cut(left, top, inside).trimmed()


def frame_of(boxes: list[Box], height: int, width: int, settings: ViewSettings) -> Frame:
    """The frame around boxes, with the margin of the settings, cut at the image's edges.

    Args:
        boxes: (x, y, columns, rows) in photo pixels, at least one.
        height, width: of the photo in pixels.
    """
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    margin = math.ceil(settings.margin * max(right - left, bottom - top))
    margin = max(margin, settings.min_margin)
    left, top = max(0, left - margin), max(0, top - margin)
    right, bottom = min(width, right + margin), min(height, bottom + margin)
    columns, rows = right - left, bottom - top
    longest, scale = max(columns, rows), 1.0
    if longest < settings.min_side:
        scale = settings.min_side / longest
    elif settings.max_side and longest > settings.max_side:
        scale = settings.max_side / longest
    shown = max(1, round(columns * scale)), max(1, round(rows * scale))
    return Frame(left, top, columns, rows, *shown)


def _span(
    start: int, length: int, photo_side: int, shown_side: int
) -> tuple[int, int, tuple[int, int], tuple[float, float]]:
    """One axis of a mask brought to the picture's scale.

    Returns:
        First and last picture pixel it may touch; the padding in photo pixels that it needs on
        both sides, none where the frame ends; the same stretch in pixels of the padded mask.
    """
    scale = shown_side / photo_side
    first = max(0, math.floor(start * scale) - 1)
    last = min(shown_side, math.ceil((start + length) * scale) + 1)
    reach = math.ceil(2 / scale) + 1
    before = min(reach, start)
    after = min(reach, photo_side - start - length)
    offset = before - start
    span = max(0.0, first / scale + offset), min(before + length + after, last / scale + offset)
    return first, last, (before, after), span
