"""The logical form of a caption, and the function that reads it back.

A caption's description is a list of attributes, read from left to right. Some look at a region
alone (a color), some at the regions that the attributes before them leave ("the second from the
left"), some at another description ("of the left eye"). These carry it in `among`, so that
`ImageAttributes.fits` can decide for any description exactly which regions of an image it fits,
without the code that composed it. A caption is true if it fits its region, and unique if it fits
no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ureca_lib.annotate.referring.attributes import (
    UNNAMED,
    UNNAMED_MAIN,
    UNNAMED_PART,
    different_ancestors,
    mask_keys,
    measure_regions,
)
from ureca_lib.annotate.referring.english import MANY
from ureca_lib.mask_tree import MaskTree
from ureca_lib.regions import RegionImage

# directions in which regions are ranked, each from the end that it names
DIRECTIONS = ("left", "right", "top", "bottom", "largest", "smallest")
# tried if all of those are equal
SECONDARY = (
    *("widest", "narrowest", "tallest", "shortest"),
    *("far left", "far right", "far up", "far down"),
)
ROW_DIRECTIONS = ("top", "bottom", "left", "right")
# place: ranges of the center, as shares of a frame, in which it is said and in which it fits
_LOW, _MIDDLE, _HIGH, _ANY = (0.0, 0.35), (0.38, 0.62), (0.65, 1.0), (0.0, 1.0)
_WIDER = {_LOW: (0.0, 0.48), _MIDDLE: (0.27, 0.73), _HIGH: (0.52, 1.0), _ANY: _ANY}
PLACES = {
    "left": (_LOW, _ANY),
    "right": (_HIGH, _ANY),
    "top": (_ANY, _LOW),
    "bottom": (_ANY, _HIGH),
    "middle": (_MIDDLE, _MIDDLE),
    "top left": (_LOW, _LOW),
    "top right": (_HIGH, _LOW),
    "bottom left": (_LOW, _HIGH),
    "bottom right": (_HIGH, _HIGH),
    "middle left": (_LOW, _MIDDLE),
    "middle right": (_HIGH, _MIDDLE),
    "top middle": (_MIDDLE, _LOW),
    "bottom middle": (_MIDDLE, _HIGH),
}
# extent: ranges of the share of the image's area, width and height, the clearest first
EXTENTS = {
    "most": ((0.6, 1.0), _ANY, _ANY),
    "much": ((0.3, 1.0), _ANY, _ANY),
    "width": (_ANY, (0.9, 1.0), _ANY),
    "height": (_ANY, _ANY, (0.9, 1.0)),
    "quarter": ((0.2, 0.3), _ANY, _ANY),
    "small": ((0.0, 0.2), _ANY, _ANY),
}
_PLACE_EXTENT = 0.6  # of the frame, above which a region is not said to be on a side of it
_LEAST_IN_ROWS = 6  # fewer regions are not described in rows
_SPLIT = 0.5  # of the median extent: a larger gap between centers starts a new row


@dataclass(frozen=True)
class Attribute:
    """One attribute of a region and its value.

    Args:
        kind: "type", "whole" (that the region is part of), "color", "shape", "place", "extent",
            "row", "column", "rank" or "with" (a part of it).
        value: the noun, the color, ... or the end from which a rank is counted.
        number: of a rank, row or column: 1 is the first from the end in `value`. Of "with": the
            number of parts; 1 is at least one, and `MANY` that or more.
        of: number of regions, rows or columns that are counted; 0 is not checked.
        among: the attributes that this one is relative to: those that define the regions to count
            (for ranks, rows and columns, all attributes before it), or those of the whole.
    """

    kind: str
    value: str
    number: int = 1
    of: int = 0
    among: Description = ()

    def __str__(self) -> str:
        count = f" {self.number} of {self.of}" if self.of else ""
        among = f" ({', '.join(map(str, self.among))})" if self.kind == "whole" else ""
        return f"{self.kind}: {self.value}{count}{among}"


Description = tuple[Attribute, ...]


class ImageAttributes:
    """All regions of an image with their attributes, and the regions that a description fits.

    Args:
        image: the regions and, if `color` is set, the photo.
        tree: of the same regions.
        color: False needs no photo, and there are no colors.

    Raises:
        FileMissingError: the photo is needed but there is none.
        ValueError: the tree is not of these regions.
    """

    def __init__(self, image: RegionImage, tree: MaskTree, color: bool = True):
        attributes = measure_regions(image, tree, color)
        self.regions = list(attributes.values())
        self.ids = list(attributes)
        self.index = {region_id: i for i, region_id in enumerate(self.ids)}
        keys = mask_keys(image)
        self.mask_keys = [keys[region_id] for region_id in self.ids]
        first: dict[bytes, int] = {}
        # (R,) index of the first region that has the same mask
        self.twin = np.array(
            [first.setdefault(key, i) for i, key in enumerate(self.mask_keys)], np.intp
        )
        holders = different_ancestors(tree, keys)
        self.ancestors = [[self.index[other] for other in holders[i]] for i in self.ids]
        self.depths = [tree.depth(region_id) for region_id in self.ids]
        self.size = (image.width, image.height)
        self.kinds = np.array([region.noun.casefold() for region in self.regions], dtype=object)
        self.boxes = np.array([region.box for region in self.regions]).reshape(-1, 4)
        self.centers = np.array([region.center for region in self.regions]).reshape(-1, 2)
        self.keys = self._rank_keys()
        self._fits: dict[tuple[Description, bool], np.ndarray] = {}
        self._frames: dict[Description, np.ndarray] = {}

    def _rank_keys(self) -> dict[str, np.ndarray]:
        """The (R,) numbers by which each direction ranks regions, the first smallest."""
        x, y, columns, rows = self.boxes.T
        across, down = self.centers.T
        self.areas = np.array([region.area for region in self.regions], np.int64)
        return {
            **{"left": across, "right": -across, "top": down, "bottom": -down},
            **{"largest": -self.areas, "smallest": self.areas, "widest": -columns},
            **{"narrowest": columns, "tallest": -rows, "shortest": rows, "far left": x},
            **{"far right": -(x + columns), "far up": y, "far down": -(y + rows)},
        }

    def __len__(self) -> int:
        return len(self.regions)

    def matching(self, description: Description) -> tuple[int | str, ...]:
        """Ids of the regions that every attribute fits, in the order of the image."""
        return tuple(self.ids[i] for i in np.flatnonzero(self.fits(description)))

    def fits(self, description: Description, clearly: bool = False) -> np.ndarray:
        """(R,) bool: the regions that every attribute fits.

        Args:
            description: read from left to right.
            clearly: colors, shapes and places must be those that are said of a region, and not
                just fit it in a wider sense.

        Raises:
            ValueError: an attribute of no known kind, or a count that is not over the regions
                that the attributes before it leave.
        """
        if not description:
            return np.ones(len(self), bool)
        key = (description, clearly)
        if key not in self._fits:
            *before, last = description
            if last.kind in ("rank", "row", "column") and last.among != tuple(before):
                raise ValueError(f"{last} counts among other regions than the words before it")
            fits = self._fits_clearly if clearly else self._fits_widely
            self._fits[key] = self.fits(tuple(before), clearly) & fits(last)
        return self._fits[key]

    def counted(self, description: Description) -> np.ndarray:
        """Indices of the regions that fit, one per mask."""
        return np.unique(self.twin[self.fits(description)])

    def isolates(self, description: Description) -> bool:
        """Whether the regions that fit all have one mask."""
        return len(self.counted(description)) == 1

    def is_crisp(self, description: Description) -> bool:
        """Whether nobody could draw the line elsewhere: all regions that fit fit clearly.

        Only such regions can be counted: "the third red coin" is undecidable if one is reddish.
        """
        return bool((self.fits(description) == self.fits(description, clearly=True)).all())

    def _fits_clearly(self, attribute: Attribute) -> np.ndarray:
        kind, value = attribute.kind, attribute.value
        if kind == "color":
            return self._where(value in region.color.said for region in self.regions)
        if kind == "shape":
            return self._where(value in region.shapes for region in self.regions)
        if kind == "place":
            return self._where(self.placed(i, value, attribute.among) for i in range(len(self)))
        return self._fits_widely(attribute)

    def _fits_widely(self, attribute: Attribute) -> np.ndarray:
        kind, value = attribute.kind, attribute.value
        if kind == "type":
            return self._of_type(value.casefold())
        if kind == "color":
            return self._where(value in region.color.fits for region in self.regions)
        if kind == "shape":
            return self._where(value in region.shape_fits for region in self.regions)
        if kind == "whole":
            whole = self.fits(attribute.among)
            return self._where(whole[above].any() for above in self.ancestors)
        if kind == "with":
            parts = self.part_counts(value)
            few = attribute.number not in (1, MANY)
            return parts == attribute.number if few else parts >= attribute.number
        if kind == "place":
            return self._in_place(tuple(_WIDER[side] for side in PLACES[value]), attribute.among)
        if kind == "extent":
            shares = np.stack([self.areas, *self.boxes[:, 2:].T], 1).astype(float)  # (R, 3)
            shares /= (self.size[0] * self.size[1], *self.size)
            return _within(shares, EXTENTS[value])
        if kind == "rank":
            return self._ranked(attribute)
        if kind in ("row", "column"):
            counted = self.counted(attribute.among)
            numbers = self.row_numbers(counted, attribute.value)
            fits = np.zeros(len(self), bool)
            if numbers is not None and attribute.of in (0, numbers.max()):
                fits[counted] = numbers == attribute.number
            return fits[self.twin]
        raise ValueError(f"there is no attribute of kind {kind!r}")

    def _where(self, values: Iterable[bool]) -> np.ndarray:
        return np.fromiter(values, bool, len(self))

    def _of_type(self, noun: str) -> np.ndarray:
        """Regions of a name; a noun for regions without a name means those with one too."""
        if noun == UNNAMED:
            return np.ones(len(self), bool)
        if noun in (UNNAMED_MAIN, UNNAMED_PART):
            return self._where(bool(above) == (noun == UNNAMED_PART) for above in self.ancestors)
        return self.kinds == noun

    def part_counts(self, noun: str) -> np.ndarray:
        """(R,) int: the number of different masks of this name in each region.

        "part" means all regions directly in it, named or not. Regions of one mask have the same
        parts, and a part counts wherever one of the regions of its mask stands in the tree.
        """
        nearest = 1 if noun == UNNAMED_PART else None
        pairs = {
            (self.twin[holder], self.twin[part])
            for part in np.flatnonzero(self._of_type(noun.casefold()))
            for holder in self.ancestors[part][:nearest]
        }
        counts = np.zeros(len(self), np.int64)
        for holder, _ in pairs:
            counts[holder] += 1
        return counts[self.twin]

    def _ranked(self, attribute: Attribute) -> np.ndarray:
        counted = self.counted(attribute.among)
        if attribute.of not in (0, len(counted)):
            return np.zeros(len(self), bool)
        keys = self.keys[attribute.value]
        before = np.searchsorted(np.sort(keys[counted]), keys, side="left")
        return before == attribute.number - 1

    def row_numbers(self, counted: np.ndarray, direction: str) -> np.ndarray | None:
        """Row (column) of each counted region, from 1 at the end `direction`; None: not in rows."""
        axis = 0 if direction in ("left", "right") else 1
        numbers = row_numbers(self.centers[counted], self.boxes[counted], axis)
        if numbers is None or direction in ("left", "top"):
            return numbers
        return numbers.max() + 1 - numbers

    def placed(self, index: int, value: str, among: Description) -> bool:
        """Whether a region is clearly at a place in the image, or in the whole that `among` is."""
        extent = self.boxes[index, 2:] / self._frames_of(among)[index, 2:]
        sides = zip(PLACES[value], extent, strict=True)
        small = all(side is _ANY or share < _PLACE_EXTENT for side, share in sides)
        return small and bool(self._in_place(PLACES[value], among)[index])

    def _in_place(self, ranges: tuple[tuple[float, float], ...], among: Description) -> np.ndarray:
        frames = self._frames_of(among)
        return _within((self.centers - frames[:, :2] + 0.5) / frames[:, 2:], ranges)

    def _frames_of(self, among: Description) -> np.ndarray:
        """(R, 4) boxes of the nearest whole that `among` fits; of the image if there is none."""
        if among not in self._frames:
            frames = np.tile([0, 0, *self.size], (len(self), 1))
            if among:
                fits = self.fits(among)
                for index, above in enumerate(self.ancestors):
                    whole = next((i for i in above if fits[i]), None)
                    if whole is not None:
                        frames[index] = self.boxes[whole]
            self._frames[among] = frames
        return self._frames[among]


def _within(values: np.ndarray, ranges: tuple[tuple[float, float], ...]) -> np.ndarray:
    """(R, K) values and K ranges -> (R,) bool: all K values of a row are in their range."""
    low, high = np.array(ranges).T
    return ((low <= values) & (values <= high)).all(1)


def row_numbers(centers: np.ndarray, boxes: np.ndarray, axis: int) -> np.ndarray | None:
    """The row (or column) of each region, or None if they are not clearly in rows.

    Rows are runs of sorted centers, split at large gaps. They are clear if at least two, and most
    of them, have two regions or more, each is thinner than the smallest gap between two rows, and
    the regions of a row stand beside each other.

    Args:
        centers: (R, 2) x and y in pixels.
        boxes: (R, 4) x, y, columns, rows in pixels.
        axis: 1 for rows, which are split along y, 0 for columns.

    Returns:
        (R,) int, 1 for the topmost row or leftmost column.
    """
    if len(centers) < _LEAST_IN_ROWS:
        return None
    across = centers[:, axis]
    order = np.argsort(across, kind="stable")
    gaps = np.diff(across[order])
    split = gaps > _SPLIT * np.median(boxes[:, 2 + axis])
    rows = np.split(order, np.flatnonzero(split) + 1)
    several = sum(len(row) > 1 for row in rows)
    if several < 2 or several <= len(rows) / 2:
        return None
    if gaps[split].min() <= max(np.ptp(across[row]) for row in rows):
        return None
    if not all(_beside(boxes[row, 1 - axis], boxes[row, 3 - axis]) for row in rows):
        return None
    numbers = np.empty(len(centers), np.int64)
    for number, row in enumerate(rows, 1):
        numbers[row] = number
    return numbers


def _beside(starts: np.ndarray, extents: np.ndarray) -> bool:
    order = np.argsort(starts, kind="stable")
    return all(starts[one] + extents[one] <= starts[other] for one, other in pairwise(order))
