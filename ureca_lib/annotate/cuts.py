"""Boxes, and masks cut to their boxes: most regions are small in their photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ureca_lib.regions import Region
from ureca_lib.regions.rle import run_lengths


class Box(NamedTuple):
    """A box in pixels of the photo or of a picture: its upper left corner and its size."""

    x: int
    y: int
    columns: int
    rows: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns, for indexing."""
        return slice(self.y, self.y + self.rows), slice(self.x, self.x + self.columns)

    def overlap(self, other: Box) -> int:
        """Number of pixels in both."""
        columns = min(self.x + self.columns, other.x + other.columns) - max(self.x, other.x)
        rows = min(self.y + self.rows, other.y + other.rows) - max(self.y, other.y)
        return max(0, columns) * max(0, rows)


@dataclass(frozen=True)
class Cut:
    """A mask within its tight box: `x`, `y` of the box's corner in its image, mask (h, w) bool."""

    x: int
    y: int
    mask: np.ndarray

    @classmethod
    def of(cls, region: Region) -> Cut:
        """A region's mask, cut out of its image."""
        x, y, columns, rows = region.pixel_box
        height = region.size[0]
        # only the box's columns are decoded
        start, stop = x * height, (x + columns) * height
        ends = np.cumsum(run_lengths(region.rle["counts"])).clip(start, stop)
        pixels = np.repeat(np.arange(ends.size) % 2 == 1, np.diff(ends, prepend=start))
        # column-major: (columns * height,) -> (rows, columns)
        return cls(x, y, np.ascontiguousarray(pixels.reshape(columns, height).T[y : y + rows]))

    @property
    def box(self) -> Box:
        """The box around the mask."""
        return Box(self.x, self.y, self.mask.shape[1], self.mask.shape[0])

    @property
    def center(self) -> tuple[float, float]:
        """(x, y): the mean of the mask's pixels."""
        # whole numbers, so that equal masks have equal centers to the last bit
        area, (rows, columns) = np.count_nonzero(self.mask), self.mask.shape
        across = int(self.mask.sum(0, dtype=np.int32) @ np.arange(columns))
        down = int(self.mask.sum(1, dtype=np.int32) @ np.arange(rows))
        return self.x + across / area, self.y + down / area

    def pixels_in(self, box: Box) -> int:
        """Number of the mask's pixels in a box."""
        top, left = box.y - self.y, box.x - self.x
        rows = slice(max(0, top), max(0, top + box.rows))
        columns = slice(max(0, left), max(0, left + box.columns))
        return int(np.count_nonzero(self.mask[rows, columns]))
