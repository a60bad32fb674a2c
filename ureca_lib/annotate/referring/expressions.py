"""Referring expressions by the incremental algorithm (Dale and Reiter 1995).

One attribute after the other, in a fixed order of preference, is added if it rules out at least
one of the regions that are left. Of an attribute with several values the best one is taken (their
FindBestValue): the one that rules out most, or, for wholes and positions, that is said in the
fewest words. A whole is described first, by itself, so that its parts can refer to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ureca_lib.annotate.referring.attributes import UNNAMED_PART
from ureca_lib.annotate.referring.english import (
    is_collective,
    is_group,
    is_light,
    ordinal,
    phrase,
    plural,
)
from ureca_lib.annotate.referring.predicates import (
    DIRECTIONS,
    PLACES,
    ROW_DIRECTIONS,
    SECONDARY,
    Attribute,
    Description,
    ImageAttributes,
)

PREFERENCE = ("whole", "color", "shape", "position")
KINDS = (*PREFERENCE, "with")
_WHOLES = 6  # ancestors, from the nearest, that may be the whole
_LEFT_OVER = 6.0  # words that a whole is charged when it leaves other regions
_FAR = 1.0  # words that a whole is charged for each level it is further away
# words that these are charged when a position is needed too
_VAGUE = {"color": 1.0, "shape": 2.0}

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
class ReferringPhrase:
    """A description and its English."""

    description: Description
    text: str


class Composer:
    """Describes every region of one image, wholes before their parts.

    Args:
        scene: the regions.
        preference: attributes after the noun, in the order in which they are tried.
        max_words: most words of a phrase, as long as there is a shorter one.
        max_whole_words: most words of a whole's phrase inside another.
    """

    def __init__(
        self,
        scene: ImageAttributes,
        preference: tuple[str, ...] = PREFERENCE,
        max_words: int = 24,
        max_whole_words: int = 14,
    ):
        self.scene, self.preference = scene, preference
        self.max_words, self.max_whole_words = max_words, max_whole_words
        self.phrases: dict[int, ReferringPhrase] = {}
        self._groups = self._find_groups()

    def compose(self) -> list[ReferringPhrase]:
        """A phrase for each region, in the scene's order; the same only where masks are."""
        scene = self.scene
        # an order that rests on what the regions are, and not on how they are listed
        order = sorted(
            range(len(scene)),
            key=lambda i: (
                scene.depths[i],
                -scene.regions[i].area,
                scene.mask_keys[i],
                scene.regions[i].noun,
            ),
        )
        said: dict[str, int] = {}
        for index in order:
            self.phrases[index] = self._phrase(index, said)
            said[self.phrases[index].text] = int(scene.twin[index])
        return [self.phrases[index] for index in range(len(scene))]

    def _phrase(self, index: int, said: dict[str, int]) -> ReferringPhrase:
        twin = int(self.scene.twin[index])
        first = None
        for description in self._descriptions(index):
            found = ReferringPhrase(description, phrase(description))
            first = first or found
            free = said.get(found.text, twin) == twin
            as_good = self.scene.isolates(description) >= self.scene.isolates(first.description)
            if free and as_good and len(found.text.split()) <= self.max_words:
                return found
        return self._numbered(first, said, twin)

    def _numbered(self, first: ReferringPhrase, said: dict[str, int], twin: int) -> ReferringPhrase:
        """Where nothing separates regions whose masks differ, a count at least does."""
        text, number = first.text, 1
        while said.get(text, twin) != twin:
            number += 1
            text = f"{first.text}, the {ordinal(number)} such"
        return ReferringPhrase(first.description, text)

    def _descriptions(self, index: int) -> Iterator[Description]:
        """The incremental description, then others, should it be too long or already said."""
        noun = (Attribute("type", self.scene.regions[index].noun),)
        yield self._incremental(index, noun, self.preference)
        without = tuple(kind for kind in self.preference if kind != "whole")
        yield self._incremental(index, noun, without)
        yield self._incremental(index, noun, ("position",))
        for option in position_options(self.scene, index, noun):
            yield option.description

    def _incremental(
        self, index: int, description: Description, preference: tuple[str, ...]
    ) -> Description:
        for kind in preference:
            if self.scene.isolates(description):
                break
            if kind == "position":
                description = self._positioned(index, description)
            elif kind == "whole":
                description = self._with_whole(index, description)
            else:
                description = self._with_best(index, description, self._values(index, kind))
        return description

    def _values(self, index: int, kind: str) -> list[Attribute]:
        region = self.scene.regions[index]
        if kind == "color":
            if is_light(region.noun):
                return []
            return [Attribute("color", value) for value in region.color.said]
        if kind == "shape":
            return [Attribute("shape", value) for value in region.shapes]
        parts = (i for i, above in enumerate(self.scene.ancestors) if index in above)
        nouns = {self.scene.regions[part].noun for part in parts}
        return [Attribute("with", noun) for noun in sorted(nouns)]

    def _with_best(
        self, index: int, description: Description, values: list[Attribute]
    ) -> Description:
        """Add the value that rules out most, the first of equals, if it rules out any."""
        left = len(self.scene.counted(description))
        best = description
        for value in values:
            count = len(self.scene.counted((*description, value)))
            if count < left:
                best, left = (*description, value), count
        return best

    def _with_whole(self, index: int, description: Description) -> Description:
        left = len(self.scene.counted(description))
        found = []
        for level, whole in enumerate(self._wholes(index)):
            of = Attribute("whole", self.scene.regions[whole].noun, among=self._known(whole))
            count = len(self.scene.counted((*description, of)))
            if count < left:
                text = phrase((*description, of))
                cost = len(text.split()) + _LEFT_OVER * (count > 1) + _FAR * level
                found.append((cost, count, text, (*description, of)))
        return min(found, key=lambda one: one[:3])[3] if found else description

    def _wholes(self, index: int) -> list[int]:
        """Ancestors that can be named: told apart, of another kind, and not just a group."""
        near = [i for i in self.scene.ancestors[index] if i not in self._groups][:_WHOLES]
        # what is on a coin in a row is not "in the row"
        near = near[:1] + [i for i in near[1:] if not is_group(self.scene.regions[i].noun)]
        kinds = self.scene.kinds
        return [
            whole
            for whole in near
            if (kinds[whole] != kinds[index] or kinds[whole] == UNNAMED_PART)
            and len(self.phrases[whole].text.split()) <= self.max_whole_words
            and self.scene.isolates(self._known(whole))
        ]

    def _known(self, whole: int) -> Description:
        return self.phrases[whole].description

    def _positioned(self, index: int, description: Description) -> Description:
        """With position, and without colour and shape where position alone is said more simply."""
        variants = dict.fromkeys(
            tuple(attribute for attribute in description if attribute.kind not in left_out)
            for count in range(len(_VAGUE) + 1)
            for left_out in combinations(_VAGUE, count)
        )
        options = [o for v in variants for o in position_options(self.scene, index, v)[:1]]
        best = min(options, key=_preferred, default=None)
        return best.description if best else description

    def _find_groups(self) -> set[int]:
        """Regions that are only several others taken together: "coins", "tableware"."""
        regions = self.scene.regions
        kinds = [region.noun.casefold() for region in regions]
        groups = {i for i, kind in enumerate(kinds) if is_collective(kind)}
        for part, above in enumerate(self.scene.ancestors):
            groups |= {i for i in above if kinds[i] == plural(kinds[part])}
        return groups


def _preferred(option: Option) -> tuple[bool, float, int]:
    # counting far among things that only a vague word picks out is hard
    counted = max((a.number for a in option.description if a.kind == "rank"), default=1)
    charge = sum(_VAGUE.get(attribute.kind, 0.0) for attribute in option.description)
    return not option.isolates, option.cost + counted * charge, len(option.description)


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
