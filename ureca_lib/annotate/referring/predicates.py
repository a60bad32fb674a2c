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
from itertools import product

import numpy as np
from scipy import ndimage

from ureca_lib.annotate.referring.attributes import (
    UNNAMED,
    UNNAMED_MAIN,
    UNNAMED_PART,
    mask_keys,
    measure_masks,
    region_noun,
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
# ranges of the center, as shares of a frame, in which a place is said, and in which it fits
_LOW, _MIDDLE = ((0.0, 0.35), (0.0, 0.48)), ((0.38, 0.62), (0.27, 0.73))
_HIGH, _ANY = ((0.65, 1.0), (0.52, 1.0)), ((0.0, 1.0), (0.0, 1.0))
_ACROSS = {"left": _LOW, "right": _HIGH, "middle": _MIDDLE}
_DOWN = {"top": _LOW, "bottom": _HIGH, "middle": _MIDDLE}
PLACES = {side: (_ACROSS[side], _ANY) for side in ("left", "right")}
PLACES |= {side: (_ANY, _DOWN[side]) for side in ("top", "bottom")}
PLACES["middle"] = (_MIDDLE, _MIDDLE)
PLACES |= {
    f"{down} {across}": (_ACROSS[across], _DOWN[down])
    for down, across in product(_DOWN, _ACROSS)
    if down != across  # of the middle
}
# extent, the clearest first: ranges of the share of the image's area, width and height; the verb
# and the object that state it
EXTENTS = {
    "most": ((0.6, 1), (0, 1), (0, 1), "fills", "most of the image"),
    "much": ((0.3, 1), (0, 1), (0, 1), "fills", "much of the image"),
    "width": ((0, 1), (0.9, 1), (0, 1), "spans", "the width of the image"),
    "height": ((0, 1), (0, 1), (0.9, 1), "spans", "the height of the image"),
    "quarter": ((0.2, 0.3), (0, 1), (0, 1), "covers", "about a quarter of the image"),
    "small": ((0, 0.2), (0, 1), (0, 1), "covers", "a small part of the image"),
}
_PLACE_EXTENT = 0.6  # of the frame, above which a region is not said to be on a side of it
_LEAST_IN_ROWS = 6  # fewer regions are not described in rows


@dataclass(frozen=True)
class Attribute:
    """One attribute of a region and its value.

    Args:
        kind: "type", "whole" (that the region is part of), "color", "shape", "place", "extent",
            "row", "rank" or "with" (a part of it).
        value: the noun, the color, ... or the end from which a rank is counted.
        number: of a rank or row: 1 is the first from the end in `value`. Of "with": the
            number of parts; 1 is at least one, and `MANY` that or more.
        of: number of regions or rows that are counted.
        among: the attributes that this one is relative to: those that define the regions to count
            (for ranks and rows, all attributes before it), or those of the whole.
    """

    kind: str
    value: str
    number: int = 1
    of: int = 0
    among: Description = ()


Description = tuple[Attribute, ...]


class ImageAttributes:
    """All regions of an image with their attributes, and the regions that a description fits.

    Args:
        image: the regions and the photo.
        tree: of the same regions.

    Attributes:
        nouns: name of each region, and in `kinds` without regard to case.
        regions: measures of each.
        twin: (R,) index of the first region that has the same mask.
        ancestors: indices for each region, from the parent up, without those of the same mask.

    Raises:
        FileMissingError: there is no photo.
        ValueError: the tree is not of these regions.
    """

    def __init__(self, image: RegionImage, tree: MaskTree):
        self.ids = [region.id for region in image]
        if different := {region.id for region in tree.regions}.symmetric_difference(self.ids):
            wrong = ", ".join(sorted(map(str, different)))
            raise ValueError(f"the tree and the image are not of the same regions: {wrong}")
        self.index = {region_id: i for i, region_id in enumerate(self.ids)}
        self.size = (image.width, image.height)
        keys = mask_keys(image)
        self.mask_keys = list(keys.values())
        self.twin = np.array([self.mask_keys.index(key) for key in self.mask_keys], np.intp)
        self.ancestors = [
            [self.index[other] for other in tree.ancestors(i) if keys[other] != keys[i]]
            for i in self.ids
        ]
        self.depths = [tree.depth(region_id) for region_id in self.ids]
        main = UNNAMED_MAIN if any(self.ancestors) else UNNAMED
        self.nouns = [
            region_noun(region.name, region.crowd) or (UNNAMED_PART if above else main)
            for region, above in zip(image, self.ancestors, strict=True)
        ]
        self.kinds = np.array([noun.casefold() for noun in self.nouns], dtype=object)
        self.regions = measure_masks(image, keys)
        self.areas = np.array([region.area for region in self.regions], np.int64)
        self.boxes = np.array([region.box for region in self.regions]).reshape(-1, 4)
        self.centers = np.array([region.center for region in self.regions]).reshape(-1, 2)
        (across, down), (x, y, columns, rows) = self.centers.T, self.boxes.T
        # (R,) numbers by which each direction ranks regions, the first smallest
        self.keys = {
            **{"left": across, "right": -across, "top": down, "bottom": -down},
            **{"largest": -self.areas, "smallest": self.areas, "widest": -columns},
            **{"narrowest": columns, "tallest": -rows, "shortest": rows, "far left": x},
            **{"far right": -(x + columns), "far up": y, "far down": -(y + rows)},
        }
        self._known: dict[tuple[Description, bool], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.regions)

    def fits(self, description: Description, clearly: bool = False) -> np.ndarray:
        """(R,) bool: the regions that every attribute fits.

        Args:
            description: read from left to right.
            clearly: colors, shapes and places must be those that are said of a region, and not
                just fit it in a wider sense.

        Raises:
            ValueError: a count that is not over the regions that the attributes before it leave.
        """
        if not description:
            return np.ones(len(self), bool)
        key = (description, clearly)
        if key not in self._known:
            *before, last = description
            if last.kind in ("rank", "row") and last.among != tuple(before):
                raise ValueError(f"{last} counts among other regions than the words before it")
            self._known[key] = self.fits(tuple(before), clearly) & self._fits(last, clearly)
        return self._known[key]

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

    def _fits(self, attribute: Attribute, clearly: bool) -> np.ndarray:
        kind, value, number = attribute.kind, attribute.value, attribute.number
        if kind == "type":
            return self._of_type(value)
        if kind in ("color", "shape"):
            words = (one.said[kind] if clearly else one.fits for one in self.regions)
            return self._where(value in known for known in words)
        if kind == "whole":
            whole = self.fits(attribute.among)
            return self._where(whole[above].any() for above in self.ancestors)
        if kind == "with":
            parts = self.part_counts(value)
            return parts == number if 1 < number < MANY else parts >= number
        if kind == "place":
            return self._in_place(value, attribute.among, clearly)
        if kind == "extent":
            shares = np.stack([self.areas, *self.boxes[:, 2:].T], 1).astype(float)  # (R, 3)
            return _within(shares / [np.prod(self.size), *self.size], EXTENTS[value][:3])
        counted = self.counted(attribute.among)
        if kind == "rank":
            before = np.searchsorted(np.sort(self.keys[value][counted]), self.keys[value])
            return (before == number - 1) & (attribute.of == len(counted))
        numbers, fits = row_numbers(self.boxes[counted]), np.zeros(len(self), bool)
        if numbers is not None and attribute.of == numbers.max():
            wanted = number if value == "top" else attribute.of + 1 - number
            fits[counted] = numbers == wanted
        return fits[self.twin]

    def _where(self, values: Iterable[bool]) -> np.ndarray:
        return np.fromiter(values, bool, len(self))

    def _of_type(self, noun: str) -> np.ndarray:
        """Regions of a name; a noun for regions without a name means those with one too."""
        if noun == UNNAMED:
            return np.ones(len(self), bool)
        if noun in (UNNAMED_MAIN, UNNAMED_PART):
            return self._where(bool(above) == (noun == UNNAMED_PART) for above in self.ancestors)
        return self.kinds == noun.casefold()

    def part_counts(self, noun: str) -> np.ndarray:
        """(R,) int: the number of different masks of this name in each region.

        "part" means all regions directly in it, named or not. Regions of one mask have the same
        parts, and a part counts wherever one of the regions of its mask stands in the tree.
        """
        nearest = 1 if noun == UNNAMED_PART else None
        pairs = {
            (self.twin[holder], self.twin[part])
            for part in np.flatnonzero(self._of_type(noun))
            for holder in self.ancestors[part][:nearest]
        }
        counts = np.zeros(len(self), np.int64)
        np.add.at(counts, [holder for holder, _ in pairs], 1)
        return counts[self.twin]

    def place(self, index: int, among: Description = ()) -> list[Attribute]:
        """Places that a region is clearly at in the image, or in the whole that `among` is.

        The narrowest is the last.
        """
        places = [Attribute("place", value, among=among) for value in PLACES]
        return [place for place in places if self.fits((place,), clearly=True)[index]]

    def _in_place(self, value: str, among: Description, clearly: bool) -> np.ndarray:
        # boxes of the nearest whole that `among` fits; of the image if there is none
        frames = np.tile([0, 0, *self.size], (len(self), 1))
        fits = self.fits(among)
        for index, above in enumerate(self.ancestors if among else ()):
            if wholes := [i for i in above if fits[i]]:
                frames[index] = self.boxes[wholes[0]]
        shares = (self.centers - frames[:, :2] + 0.5) / frames[:, 2:]
        said, wider = zip(*PLACES[value], strict=True)
        if not clearly:
            return _within(shares, wider)
        small = self.boxes[:, 2:] < _PLACE_EXTENT * frames[:, 2:]
        return _within(shares, said) & (small | [side is _ANY for side in PLACES[value]]).all(1)


def _within(values: np.ndarray, ranges: Iterable[tuple[float, float]]) -> np.ndarray:
    """(R, K) values and K ranges -> (R,) bool: all K values of a row are in their range."""
    low, high = np.array(tuple(ranges)).T
    return ((low <= values) & (values <= high)).all(1)


def row_numbers(boxes: np.ndarray) -> np.ndarray | None:
    """The row of each region, 1 for the topmost, or None if they are not clearly in rows.

    Between two rows a horizontal line crosses no region, and within a row one crosses all. Rows
    are clear if at least two, and most of them, have two regions or more, and if the regions of a
    row stand beside each other.

    Args:
        boxes: (R, 4) x, y, columns, rows in pixels.
    """
    if len(boxes) < _LEAST_IN_ROWS:
        return None
    (x, top, columns, rows), numbers = boxes.T, np.ones(len(boxes), np.int64)
    order = np.argsort(top, kind="stable")
    lowest = np.maximum.accumulate((top + rows)[order])
    numbers[order[1:]] += np.cumsum(top[order[1:]] >= lowest[:-1])
    sizes = np.bincount(numbers)[1:]
    inside = range(1, len(sizes) + 1)
    crossed = ndimage.maximum(top, numbers, inside) < ndimage.minimum(top + rows, numbers, inside)
    order = np.lexsort((x, numbers))  # row by row, from the left
    left, right = order[:-1], order[1:]
    overlap = (numbers[left] == numbers[right]) & (x[left] + columns[left] > x[right])
    several = np.count_nonzero(sizes > 1)
    clear = several >= 2 and several > len(sizes) / 2 and crossed.all() and not overlap.any()
    return numbers if clear else None
