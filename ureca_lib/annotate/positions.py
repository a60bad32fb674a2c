"""Ways to tell a region from others by where it lies or how large it is, the best one first.

Position is one attribute with many values, from "left" to "the third from the left in the second
row from the top". Dale and Reiter's FindBestValue becomes a choice among all values that hold: the
one with the fewest words, with a charge for what is hard to see or to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ureca_lib.annotate.english import is_group, phrase
from ureca_lib.annotate.predicates import (
    DIRECTIONS,
    PLACES,
    ROW_DIRECTIONS,
    SECONDARY,
    Attribute,
    Description,
    ImageAttributes,
)

# charges, in words
_COUNTING = 0.7  # for each step of a count
_CLOSE = 8.0  # for neighbours in the count that are hard to tell apart, times how hard
_CLEAR = 0.35  # gap over extent, or logarithm of an area's ratio, that is easy to see
_FAINT, _FAINT_GAP = 6.0, 0.15  # for a gap so small that few would see it
_UNEVEN, _EVEN = 2.0, 0.5  # for neighbours much closer than the regions are on average
_SIZE, _SIZE_COUNT = 1.0, 3.0  # for a size where a side would do, and for each step of its count
_PLACE, _PLACE_RANK = 0.5, 2.5  # for a place, and for a rank inside it
_COLUMN = 0.5  # for a column where a row would do
_GROUP_SIZE = 6.0  # for the size of an arrangement, such as a row
_SECONDARY = 8.0


@dataclass(frozen=True)
class Option:
    """A description that position was added to, and what it costs, in words and charges."""

    description: Description
    charge: float
    isolates: bool

    @property
    def text(self) -> str:
        """The description as a noun phrase."""
        return phrase(self.description)

    @property
    def cost(self) -> float:
        """Words plus charges."""
        return len(self.text.split()) + self.charge


def position_options(scene: ImageAttributes, index: int, description: Description) -> list[Option]:
    """Descriptions that tell a region from all others by its position, the best first.

    Args:
        scene: the regions.
        index: of the region.
        description: that fits it, and others.

    Returns:
        Those that fit no region with another mask; where there is none, the one that leaves the
        fewest, made of as many positions as help.
    """
    options = _options(scene, index, description)
    good = [option for option in options if option.isolates]
    if good:
        return sorted(good, key=lambda option: option.cost)
    left = len(scene.counted(description))
    best = min(
        options,
        key=lambda option: (len(scene.counted(option.description)), option.cost),
        default=None,
    )
    if best is None or len(scene.counted(best.description)) >= left:
        return []
    return position_options(scene, index, best.description) or [best]


def _options(scene: ImageAttributes, index: int, description: Description) -> list[Option]:
    options = list(_ranks(scene, index, description, (*DIRECTIONS, *SECONDARY)))
    for row in _rows(scene, index, description):
        options.append(row)
        across = ROW_DIRECTIONS[2:] if row.description[-1].kind == "row" else ROW_DIRECTIONS[:2]
        options += _extended(_ranks(scene, index, row.description, across), row.charge)
    for place in _places(scene, index, description):
        options.append(place)
        ranks = _ranks(scene, index, place.description, DIRECTIONS)
        options += _extended(ranks, place.charge + _PLACE_RANK)
    return options


def _extended(options: Iterable[Option], charge: float) -> Iterator[Option]:
    return (Option(o.description, o.charge + charge, o.isolates) for o in options)


def _ranks(
    scene: ImageAttributes, index: int, description: Description, directions: tuple[str, ...]
) -> Iterator[Option]:
    counted = scene.counted(description)
    total = len(counted)
    if total < 2:
        return
    for direction in directions:
        keys = np.sort(scene.keys[direction][counted])
        own = scene.keys[direction][index]
        number = int(np.searchsorted(keys, own, side="left")) + 1
        alone = np.searchsorted(keys, own, side="right") == number
        far = number > (total + 1) // 2 and not direction.startswith("far")  # count from the other
        if far or (not alone and keys[0] == keys[-1]):
            continue
        rank = Attribute("rank", direction, number, total, description)
        charge = _charge(scene, counted, direction, keys[: number + 1])
        yield Option((*description, rank), charge + _COUNTING * (number - 1), bool(alone))


def _charge(
    scene: ImageAttributes, counted: np.ndarray, direction: str, prefix: np.ndarray
) -> float:
    """What it costs to tell the regions up to and after the one that is meant apart."""
    steps = len(prefix) - 2
    if direction in SECONDARY:
        return _SECONDARY + _SIZE_COUNT * steps
    if direction in ("largest", "smallest"):
        ratio = float(np.abs(np.diff(np.log(np.abs(prefix)))).min())
        group = _GROUP_SIZE * is_group(scene.regions[counted[0]].noun)
        return _SIZE + _SIZE_COUNT * steps + _seeing(ratio) + group
    axis = 0 if direction in ("left", "right") else 1
    gap = float(np.diff(prefix).min())
    extent = int(scene.boxes[counted, 2 + axis].sum()) / len(counted)
    spread = float(np.ptp(scene.centers[counted], axis=0).max()) / (len(counted) - 1)
    share = gap / spread if spread else 1.0
    uneven = _UNEVEN * max(0.0, _EVEN - share) + _FAINT * (share < _FAINT_GAP)
    return max(_seeing(gap / extent), uneven)


def _seeing(gap: float) -> float:
    return _CLOSE * max(0.0, _CLEAR - gap) + _FAINT * (gap < _FAINT_GAP)


def _rows(scene: ImageAttributes, index: int, description: Description) -> Iterator[Option]:
    counted = scene.counted(description)
    at = int(np.searchsorted(counted, scene.twin[index]))
    for direction in ROW_DIRECTIONS:
        numbers = scene.row_numbers(counted, direction)
        if numbers is None:
            continue
        number, total = int(numbers[at]), int(numbers.max())
        if number <= (total + 1) // 2:
            kind = "column" if direction in ("left", "right") else "row"
            row = Attribute(kind, direction, number, total, description)
            alone = np.count_nonzero(numbers == number) == 1
            charge = _COUNTING * (number - 1) + _COLUMN * (kind == "column")
            yield Option((*description, row), charge, alone)


def _places(scene: ImageAttributes, index: int, description: Description) -> Iterator[Option]:
    whole = next((a.among for a in description if a.kind == "whole"), ())
    before = len(scene.counted(description))
    if any(attribute.kind == "place" for attribute in description):
        return
    for value in PLACES:
        if scene.placed(index, value, whole):
            placed = (*description, Attribute("place", value, among=whole))
            if len(scene.counted(placed)) < before:
                yield Option(placed, _PLACE, scene.isolates(placed))
