"""Referring expressions by the incremental algorithm.

Dale and Reiter, Computational Interpretations of the Gricean Maxims, Cognitive Science 19, 1995.
Attributes are tried in a fixed order of preference, and one is added if it rules out at least one
of the regions that are left. Of an attribute with several values the best one is taken (their
FindBestValue): the one that rules out most, or, for wholes and positions, the one with the fewest
words. A whole is described first, by itself, so that its parts can refer to it.

Position is one attribute with many values, from "left" to "the third from the left in the second
row from the top". Its best value is the one with the fewest words, plus charges, in words, for
what is hard to see or to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ureca_lib.annotate.referring.attributes import NOUNS_WITHOUT_NAME, UNNAMED_PART
from ureca_lib.annotate.referring.english import (
    indefinite,
    is_collective,
    is_group,
    is_light,
    ordinal,
    place_phrase,
    plural,
    preposition,
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
# charges of a whole: if other regions are left, and per level of distance
_LEFT_OVER, _FAR = 6.0, 1.0
_VAGUE = {"color": 1.0, "shape": 2.0}  # charges of these if a position is needed too
_COUNTING = 0.7  # per step of a count
_CLOSE = 8.0  # for neighbors in the count that are hard to distinguish, times how hard
_CLEAR = 0.35  # gap over extent, or logarithm of an area's ratio, that is easy to see
_FAINT, _FAINT_GAP = 6.0, 0.15  # for a gap so small that few would see it
_UNEVEN, _EVEN = 2.0, 0.5  # for neighbors much closer than the regions are on average
_SIZE, _SIZE_COUNT = 1.0, 3.0  # for a size where a side would do, and per step of its count
_PLACE, _PLACE_RANK = 0.5, 2.5  # for a place, and for a rank inside it
_COLUMN = 0.5  # for a column where a row would do
_GROUP_SIZE = 6.0  # for the size of an arrangement, such as a row
_SECONDARY = 8.0
_SIDES = ("left", "right", "top", "bottom")

# words of a direction: for one of two, and for the first of many
_OF_TWO = {"left": "left", "right": "right", "top": "upper", "bottom": "lower"}
_OF_TWO |= {"largest": "larger", "smallest": "smaller", "widest": "wider", "narrowest": "narrower"}
_OF_TWO |= {"tallest": "taller", "shortest": "shorter"}
_OF_MANY = {"left": "leftmost", "right": "rightmost", "top": "top", "bottom": "bottom"}
_REACH = {"far left": "left", "far right": "right", "far up": "up", "far down": "down"}


def phrase(description: Description, noun: str | None = None) -> str:
    """A noun phrase, such as "the second coin from the left in the top row".

    Args:
        description: its attributes; a "type" is among them.
        noun: replaces the type's value.

    Returns:
        Lower case except for names, without a full stop.
    """
    by_kind = {attribute.kind: attribute for attribute in description}
    noun = noun or by_kind["type"].value
    if noun in NOUNS_WITHOUT_NAME and len(description) == 1:
        return f"an unnamed {noun}"  # nothing is known of it
    ranks = [_rank(a) for a in description if a.kind == "rank"]
    words = ["the", *(before for before, _ in reversed(ranks) if before)]
    words += [by_kind[kind].value for kind in ("shape", "color") if kind in by_kind]
    words.append(noun)
    if "with" in by_kind:
        words.append(f"with {indefinite(by_kind['with'].value)}")
    words += [after for _, after in ranks if after]
    words += [f"in the {_row(a)}" for a in description if a.kind in ("row", "column")]
    place, whole = by_kind.get("place"), by_kind.get("whole")
    if place is not None:
        words.append(place_phrase(place.value, whole is not None))
    if whole is not None:
        joined = "of" if place is not None else preposition(noun, whole.value)
        words.append(f"{joined} {_whole(whole, noun)}")
    return " ".join(words)


def _rank(attribute: Attribute) -> tuple[str, str]:
    """The words before and after the noun."""
    end, number = attribute.value, attribute.number
    if end in _REACH:
        many = "further" if attribute.of == 2 else "furthest"
        count = f"{ordinal(number)} " if number > 1 else ""
        return "", f"that reaches {count}{many} {_REACH[end]}"
    if attribute.of == 2 and number == 1:
        return _OF_TWO[end], ""
    if number == 1:
        return _OF_MANY.get(end, end), ""
    if end not in _OF_MANY:
        return f"{ordinal(number)} {end}", ""
    if attribute.of == 3:
        return "middle", ""
    return ordinal(number), f"from the {end}"


def _row(attribute: Attribute) -> str:
    end, number = attribute.value, attribute.number
    if attribute.of == 2:
        return f"{_OF_TWO[end]} {attribute.kind}"
    if number == 1:
        return f"{end} {attribute.kind}"
    if (attribute.of, number) == (3, 2):
        return f"middle {attribute.kind}"
    return f"{ordinal(number)} {attribute.kind} from the {end}"


def _whole(attribute: Attribute, part: str) -> str:
    """The whole's own description; "row" is enough for a "row of coins" when a coin is in it."""
    if attribute.among == (Attribute("type", attribute.value),):
        return f"the {attribute.value}"
    group, of, members = attribute.value.partition(" of ")
    short = group if of and members.casefold() == plural(part).casefold() else None
    return phrase(attribute.among, short)


@dataclass(frozen=True)
class ReferringPhrase:
    """A description and its English."""

    description: Description
    text: str


@dataclass(frozen=True)
class Option:
    """A description with a position added, and its charge in words."""

    description: Description
    charge: float
    isolates: bool

    @property
    def cost(self) -> float:
        """Words plus charges."""
        return len(phrase(self.description).split()) + self.charge


class Composer:
    """Describes every region of one image, wholes before their parts.

    Args:
        scene: the regions.
        preference: attributes after the noun, in the order in which they are tried.
        max_words: most words of a phrase, if there is a shorter one.
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
        self._rivals = np.ones(len(scene), bool)  # (R,) the regions to rule out
        self._groups = self._find_groups()
        self.phrases: dict[int, ReferringPhrase] = {}
        texts: dict[str, int] = {}
        for index in sorted(range(len(scene)), key=self._order):
            self.phrases[index] = self._choose(index, self._descriptions(index), texts)

    def family(self, members: Sequence[int], parent: int) -> dict[int, ReferringPhrase]:
        """Phrases that distinguish the children of one parent from one another (Table 7).

        They may fit regions elsewhere in the image if they name the parent ("the pupil of the
        iris"). Counts are over the whole image, or over the parts of the one parent, as the words
        say.
        """
        texts: dict[str, int] = {}
        phrases = {}
        for index in sorted(members, key=self._order):
            self._rivals = np.isin(self.scene.twin, self.scene.twin[list(members)])
            short = self._in_family(index, parent)
            self._rivals = np.ones(len(self.scene), bool)
            named = self.scene.kinds[index] not in NOUNS_WITHOUT_NAME
            scoped = named and any(attribute.kind == "whole" for attribute in short)
            own = self.phrases[index].description
            candidates = (short, own) if scoped or self.scene.isolates(short) else (own,)
            phrases[index] = self._choose(index, candidates, texts)
        return phrases

    def _order(self, index: int) -> tuple:
        """A key that depends on the regions, and not on the order in which they are listed."""
        region = self.scene.regions[index]
        return self.scene.depths[index], -region.area, self.scene.mask_keys[index], region.noun

    def _choose(
        self, index: int, descriptions: Iterable[Description], texts: dict[str, int]
    ) -> ReferringPhrase:
        """The first phrase that is short enough and is no other mask's text, else the first."""
        twin = int(self.scene.twin[index])
        first = None
        for description in descriptions:
            candidate = ReferringPhrase(description, phrase(description))
            first = first or candidate
            free = texts.get(candidate.text, twin) == twin
            as_good = self._isolates(description) >= self._isolates(first.description)
            if free and as_good and len(candidate.text.split()) <= self.max_words:
                first = candidate
                break
        texts[first.text] = twin
        return first

    def _left(self, description: Description) -> int:
        """The number of masks among the rivals that a description fits."""
        return len(np.unique(self.scene.twin[self.scene.fits(description) & self._rivals]))

    def _isolates(self, description: Description) -> bool:
        return self._left(description) == 1

    def _descriptions(self, index: int) -> Iterator[Description]:
        """The incremental description, then others, in case it is too long or already used."""
        noun = self._noun(index)
        yield self._informed(index, self._incremental(index, noun, self.preference))
        without = tuple(kind for kind in self.preference if kind != "whole")
        yield self._incremental(index, noun, without)
        yield self._incremental(index, noun, ("position",))
        for option in self._positions(index, noun):
            yield option.description

    def _noun(self, index: int) -> Description:
        return (Attribute("type", self.scene.regions[index].noun),)

    def _in_family(self, index: int, parent: int) -> Description:
        """As short as siblings allow: the whole is named by its noun alone if nothing is counted.

        Otherwise it is described so that it is clear whose parts are counted.
        """
        noun, kinds = self._noun(index), self.scene.kinds
        preference = tuple(kind for kind in self.preference if kind != "whole")
        # not the same mask again, nor "the eye of the eyes"; but "in the top row" may be counted
        no_whole = (
            self.scene.twin[parent] == self.scene.twin[index]
            or kinds[parent] == plural(kinds[index])
            or is_collective(kinds[parent])
        )
        whole = None if no_whole else parent
        named = whole is not None and kinds[whole] not in NOUNS_WITHOUT_NAME
        described = noun
        if named and not is_group(kinds[whole]):
            described = (*noun, self._whole(whole, self._noun(whole)))
        described = self._incremental(index, described, preference)
        if any(attribute.of for attribute in described):
            if whole is not None and self._can_be_whole(whole):
                noun = (*noun, self._whole(whole, self.phrases[whole].description))
            described = self._incremental(index, noun, preference)
        return self._informed(index, described)

    def _whole(self, whole: int, description: Description) -> Attribute:
        return Attribute("whole", self.scene.regions[whole].noun, among=description)

    def _incremental(
        self, index: int, description: Description, preference: tuple[str, ...]
    ) -> Description:
        for kind in preference:
            # a word after a count would read as if only such regions were counted
            if self._isolates(description) or description[-1].kind == "rank":
                break
            if kind == "position":
                description = self._with_position(index, description)
            elif kind == "whole":
                description = self._with_whole(index, description)
            else:
                description = self._with_best(description, self.values(index, kind))
        return description

    def _informed(self, index: int, description: Description) -> Description:
        """With a color, else a place, where an unnamed noun alone would carry no information."""
        if len(description) > 1 or description[0].value not in NOUNS_WITHOUT_NAME:
            return description
        known = self.values(index, "color")[:1] if "color" in self.preference else []
        placed = [value for value in PLACES if self.scene.placed(index, value, ())]
        return (*description, *(known or [Attribute("place", value) for value in placed[-1:]]))

    def values(self, index: int, kind: str) -> list[Attribute]:
        region = self.scene.regions[index]
        if kind == "color":
            said = () if is_light(region.noun) else region.color.said
            return [Attribute("color", value) for value in said]
        if kind == "shape":
            return [Attribute("shape", value) for value in region.shapes]
        parts = (i for i, above in enumerate(self.scene.ancestors) if index in above)
        nouns = {self.scene.regions[part].noun for part in parts}
        return [Attribute("with", noun) for noun in sorted(nouns - {UNNAMED_PART})]

    def _with_best(self, description: Description, values: list[Attribute]) -> Description:
        """Add the value that rules out most, the first of equals, if it rules out any."""
        left = self._left(description)
        best = description
        for value in values:
            count = self._left((*description, value))
            if count < left:
                best, left = (*description, value), count
        return best

    def _with_whole(self, index: int, description: Description) -> Description:
        left = self._left(description)
        candidates = []
        for level, whole in enumerate(self._wholes(index)):
            longer = (*description, self._whole(whole, self.phrases[whole].description))
            count = self._left(longer)
            if count < left:
                text = phrase(longer)
                cost = len(text.split()) + _LEFT_OVER * (count > 1) + _FAR * level
                candidates.append((cost, count, text, longer))
        return min(candidates, key=lambda item: item[:3])[3] if candidates else description

    def _wholes(self, index: int) -> list[int]:
        """Ancestors that can be named: unique, of another kind, and not just a group."""
        near = [i for i in self.scene.ancestors[index] if i not in self._groups][:_WHOLES]
        # what is on a coin in a row is not "in the row"
        near = near[:1] + [i for i in near[1:] if not is_group(self.scene.regions[i].noun)]
        kinds = self.scene.kinds
        return [
            whole
            for whole in near
            if (kinds[whole] != kinds[index] or kinds[whole] == UNNAMED_PART)
            and self._can_be_whole(whole)
        ]

    def _can_be_whole(self, whole: int) -> bool:
        short = len(self.phrases[whole].text.split()) <= self.max_whole_words
        return short and self.scene.isolates(self.phrases[whole].description)

    def _with_position(self, index: int, description: Description) -> Description:
        """With position, and without color and shape if position alone takes fewer words."""
        variants = dict.fromkeys(
            tuple(attribute for attribute in description if attribute.kind not in left_out)
            for count in range(len(_VAGUE) + 1)
            for left_out in combinations(_VAGUE, count)
        )
        options = [o for v in variants for o in self._positions(index, v)[:1]]
        best = min(options, key=_preferred, default=None)
        return best.description if best else description

    def _find_groups(self) -> set[int]:
        """Regions that are only several others taken together: "coins", "tableware"."""
        kinds = self.scene.kinds
        groups = {i for i, kind in enumerate(kinds) if is_collective(kind)}
        for part, above in enumerate(self.scene.ancestors):
            groups |= {i for i in above if kinds[i] == plural(kinds[part])}
        return groups

    def _positions(self, index: int, description: Description) -> list[Option]:
        """Descriptions with a position that leave no other rival, the best first.

        If there are none, the one that leaves the fewest, made of as many positions as help.
        """
        options = self._options(index, description)
        good = [option for option in options if option.isolates]
        if good:
            return sorted(good, key=lambda option: option.cost)
        left = self._left(description)
        best = min(options, key=lambda o: (self._left(o.description), o.cost), default=None)
        if best is None or self._left(best.description) >= left:
            return []
        return self._positions(index, best.description) or [best]

    def _options(self, index: int, description: Description) -> list[Option]:
        options = list(self._ranks(index, description, (*DIRECTIONS, *SECONDARY)))
        if description[-1].kind == "rank":  # words after a count would restrict it
            return options
        for row in self._rows(index, description):
            options.append(row)
            across = ROW_DIRECTIONS[2:] if row.description[-1].kind == "row" else ROW_DIRECTIONS[:2]
            options += _charged(self._ranks(index, row.description, across), row.charge)
        for place in self._places(index, description):
            options.append(place)
            ranks = self._ranks(index, place.description, DIRECTIONS)
            options += _charged(ranks, place.charge + _PLACE_RANK)
        return options

    def _ranks(
        self, index: int, description: Description, directions: tuple[str, ...]
    ) -> Iterator[Option]:
        scene, counted = self.scene, self.scene.counted(description)
        total = len(counted)
        if total < 2:
            return
        # the largest of the reddish coins is the largest of the red ones; the third need not be
        first_only = description[-1].kind == "rank" or not scene.is_crisp(description)
        rivals = counted[self._rivals[counted] & (counted != scene.twin[index])]
        for direction in directions:
            keys = np.sort(scene.keys[direction][counted])
            own = scene.keys[direction][index]
            number = int(np.searchsorted(keys, own, side="left")) + 1
            far = number > (total + 1) // 2 and not direction.startswith("far")
            if far or keys[0] == keys[-1] or (number > 1 and first_only):
                continue  # counted from the other end; or not at all
            if (number, total) == (2, 3) and not self._is_middle(index, counted, direction):
                continue
            rank = Attribute("rank", direction, number, total, description)
            charge = self._charge(counted, direction, keys[: number + 1])
            alone = not (scene.keys[direction][rivals] == own).any()
            yield Option((*description, rank), charge + _COUNTING * (number - 1), alone)

    def _is_middle(self, index: int, counted: np.ndarray, direction: str) -> bool:
        """Whether "the middle one" of three means the second in this direction."""
        if direction not in _SIDES:
            return True
        across = self.scene.centers[counted]  # (3, 2)
        along = 0 if direction in ("left", "right") else 1
        spread = np.ptp(across, axis=0)
        second = np.sort(across[:, 1 - along])[1] == self.scene.centers[index, 1 - along]
        return bool(second or 2 * spread[1 - along] <= spread[along])

    def _charge(self, counted: np.ndarray, direction: str, prefix: np.ndarray) -> float:
        """Charge for the difficulty to distinguish the regions up to and after the target."""
        scene, steps = self.scene, len(prefix) - 2
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

    def _rows(self, index: int, description: Description) -> Iterator[Option]:
        if not self.scene.is_crisp(description):
            return
        counted = self.scene.counted(description)
        at = int(np.searchsorted(counted, self.scene.twin[index]))
        for direction in ROW_DIRECTIONS:
            numbers = self.scene.row_numbers(counted, direction)
            if numbers is None:
                continue
            number, total = int(numbers[at]), int(numbers.max())
            if number <= (total + 1) // 2:
                kind = "column" if direction in ("left", "right") else "row"
                row = Attribute(kind, direction, number, total, description)
                charge = _COUNTING * (number - 1) + _COLUMN * (kind == "column")
                longer = (*description, row)
                yield Option(longer, charge, self._isolates(longer))

    def _places(self, index: int, description: Description) -> Iterator[Option]:
        if any(attribute.kind == "place" for attribute in description):
            return
        whole = next((a.among for a in description if a.kind == "whole"), ())
        before = self._left(description)
        for value in PLACES:
            if self.scene.placed(index, value, whole):
                placed = (*description, Attribute("place", value, among=whole))
                left = self._left(placed)
                if left < before:
                    yield Option(placed, _PLACE, left == 1)


def _charged(options: Iterable[Option], charge: float) -> Iterator[Option]:
    return (Option(o.description, o.charge + charge, o.isolates) for o in options)


def _seeing(gap: float) -> float:
    return _CLOSE * max(0.0, _CLEAR - gap) + _FAINT * (gap < _FAINT_GAP)


def _preferred(option: Option) -> tuple[bool, float, int]:
    # counting far among things that only a vague word picks out is hard
    counted = max((a.number for a in option.description if a.kind == "rank"), default=1)
    charge = sum(_VAGUE.get(attribute.kind, 0.0) for attribute in option.description)
    return not option.isolates, option.cost + counted * charge, len(option.description)
