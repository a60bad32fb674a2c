"""Attributes as predicates: for any of them, exactly which regions of an image it fits.

A caption is a list of attributes read from left to right. Some look at a region alone (a colour),
some at the regions that the attributes before them leave ("the second from the left"), some at
another description ("of the left eye"). Those carry what they look at in `among`, so that a list
can be evaluated by itself, over all regions, by anyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ureca_lib.annotate.referring.attributes import different_ancestors, mask_keys, measure_regions
from ureca_lib.mask_tree import MaskTree
from ureca_lib.regions import RegionImage

# directions in which regions are ranked, each from the end that it names
DIRECTIONS = ("left", "right", "top", "bottom", "largest", "smallest")
# tried where all of those are equal
SECONDARY = (
    *("widest", "narrowest", "tallest", "shortest"),
    *("far left", "far right", "far up", "far down"),
)
ROW_DIRECTIONS = ("top", "bottom", "left", "right")
# place: ranges of the centre, as shares of a frame, in which it is said and in which it fits
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
_PLACE_EXTENT = 0.6  # of the frame, above which a region is not said to be on a side of it
_LEAST = 6  # regions, under which nobody speaks of rows
_SPLIT = 0.5  # of the median extent: a larger gap between centres starts a new row


@dataclass(frozen=True)
class Attribute:
    """One attribute of a region and its value.

    Args:
        kind: "type", "whole" (what the region is part of), "color", "shape", "place", "row",
            "column", "rank" or "with" (a part it has).
        value: the noun, the colour, ... or the end that a rank is counted from.
        number: of a rank, row or column: 1 is the first from the end in `value`.
        of: how many regions, rows or columns are counted.
        among: the attributes that this one is relative to: those that say which regions are
            counted, or those that describe the whole.
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
    """All regions of an image with their attributes, and which of them a description fits.

    Args:
        image: the regions and, where `color` is set, the photo.
        tree: of the same regions.
        color: False does without the photo and without colours.

    Raises:
        FileMissingError: the photo is needed but there is none.
        ValueError: the tree is not of these regions.
    """

    def __init__(self, image: RegionImage, tree: MaskTree, color: bool = True):
        found = measure_regions(image, tree, color)
        self.regions = list(found.values())
        self.ids = list(found)
        index = {region_id: i for i, region_id in enumerate(self.ids)}
        keys = mask_keys(image)
        self.mask_keys = [keys[region_id] for region_id in self.ids]
        first: dict[bytes, int] = {}
        # index of the first region that has the same mask
        self.twin = np.array(
            [first.setdefault(key, i) for i, key in enumerate(self.mask_keys)], np.intp
        )
        holders = different_ancestors(tree, keys)
        self.ancestors = [[index[other] for other in holders[i]] for i in self.ids]
        self.depths = [tree.depth(region_id) for region_id in self.ids]
        self.size = (image.width, image.height)
        self.kinds = np.array([region.noun.casefold() for region in self.regions], dtype=object)
        self.boxes = np.array([region.box for region in self.regions]).reshape(-1, 4)
        self.centers = np.array([region.center for region in self.regions]).reshape(-1, 2)
        self.keys = self._rank_keys()
        self._fits: dict[Description, np.ndarray] = {}
        self._frames: dict[Description, np.ndarray] = {}

    def _rank_keys(self) -> dict[str, np.ndarray]:
        """For each direction the (R,) numbers that regions are ranked by, the first smallest."""
        x, y, columns, rows = self.boxes.T
        across, down = self.centers.T
        area = np.array([region.area for region in self.regions], np.int64)
        return {
            **{"left": across, "right": -across, "top": down, "bottom": -down},
            **{"largest": -area, "smallest": area, "widest": -columns, "narrowest": columns},
            **{"tallest": -rows, "shortest": rows, "far left": x, "far right": -(x + columns)},
            **{"far up": y, "far down": -(y + rows)},
        }

    def __len__(self) -> int:
        return len(self.regions)

    def matching(self, description: Description) -> tuple[int | str, ...]:
        """Ids of the regions that every attribute fits, in the order of the image."""
        return tuple(self.ids[i] for i in np.flatnonzero(self.fits(description)))

    def fits(self, description: Description) -> np.ndarray:
        """(R,) bool: the regions that every attribute fits."""
        if not description:
            return np.ones(len(self), bool)
        if description not in self._fits:
            *before, last = description
            self._fits[description] = self.fits(tuple(before)) & self._fits_one(last)
        return self._fits[description]

    def counted(self, description: Description) -> np.ndarray:
        """Indices of the regions that fit, one for each mask."""
        return np.unique(self.twin[self.fits(description)])

    def isolates(self, description: Description) -> bool:
        """Whether the regions that fit all have one mask."""
        return len(self.counted(description)) == 1

    def _fits_one(self, attribute: Attribute) -> np.ndarray:
        value = attribute.value
        if attribute.kind == "type":
            return self.kinds == value.casefold()
        if attribute.kind == "color":
            return self._where(value in region.color.fits for region in self.regions)
        if attribute.kind == "shape":
            return self._where(value in region.shape_fits for region in self.regions)
        if attribute.kind == "whole":
            whole = self.fits(attribute.among)
            return self._where(whole[above].any() for above in self.ancestors)
        if attribute.kind == "with":
            return self._has_part(value)
        if attribute.kind == "place":
            return self._in_place(tuple(_WIDER[side] for side in PLACES[value]), attribute.among)
        if attribute.kind == "rank":
            return self._ranked(attribute)
        if attribute.kind in ("row", "column"):
            counted = self.counted(attribute.among)
            numbers = self.row_numbers(counted, attribute.value)
            fits = np.zeros(len(self), bool)
            fits[counted] = False if numbers is None else numbers == attribute.number
            return fits[self.twin]
        raise ValueError(f"there is no attribute of kind {attribute.kind!r}")

    def _where(self, values: object) -> np.ndarray:
        return np.fromiter(values, bool, len(self))  # type: ignore[call-overload]

    def _has_part(self, noun: str) -> np.ndarray:
        fits = np.zeros(len(self), bool)
        for part in np.flatnonzero(self.kinds == noun.casefold()):
            fits[self.ancestors[part]] = True
        return fits

    def _ranked(self, attribute: Attribute) -> np.ndarray:
        counted = self.counted(attribute.among)
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
        shares = (self.centers - frames[:, :2] + 0.5) / frames[:, 2:]
        low, high = np.array(ranges).T
        return ((low <= shares) & (shares <= high)).all(1)

    def _frames_of(self, among: Description) -> np.ndarray:
        """(R, 4) boxes of the nearest whole that `among` fits; of the image where there is none."""
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


def row_numbers(centers: np.ndarray, boxes: np.ndarray, axis: int) -> np.ndarray | None:
    """The row (or column) of each region, or None where they do not clearly stand in rows.

    Rows are runs of sorted centres, split at large gaps. They are clear when at least two, and
    most of them, have two regions or more, each is thinner than the smallest gap between two
    rows, and the regions of a row stand beside each other.

    Args:
        centers: (R, 2) x and y in pixels.
        boxes: (R, 4) x, y, columns, rows in pixels.
        axis: 1 for rows, which are split along y, 0 for columns.

    Returns:
        (R,) int, 1 for the topmost row or leftmost column.
    """
    if len(centers) < _LEAST:
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
