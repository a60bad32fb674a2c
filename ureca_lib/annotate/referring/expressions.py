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
from itertools import combinations

import numpy as np

from ureca_lib.annotate.referring.attributes import NOUNS_WITHOUT_NAME, UNNAMED_PART
from ureca_lib.annotate.referring.english import (
    COLLECTIVES,
    GROUPS,
    LIGHT,
    is_kind,
    ordinal,
    place_phrase,
    plural,
    preposition,
)
from ureca_lib.annotate.referring.predicates import (
    DIRECTIONS,
    SECONDARY,
    Attribute,
    Description,
    ImageAttributes,
    row_numbers,
)

PREFERENCE = ("whole", "color", "shape", "position")
MAX_WORDS = 24  # of a phrase, if there is a shorter one
MAX_WHOLE_WORDS = 14  # of a whole's phrase inside another
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
_GROUP_SIZE = 6.0  # for the size of an arrangement, such as a row
_SECONDARY = 8.0

# words of a direction: for one of two, and for the first of many
_OF_TWO = {"left": "left", "right": "right", "top": "upper", "bottom": "lower"}
_OF_TWO |= {"largest": "larger", "smallest": "smaller", "widest": "wider", "narrowest": "narrower"}
_OF_TWO |= {"tallest": "taller", "shortest": "shorter"}
_OF_MANY = {"left": "leftmost", "right": "rightmost", "top": "top", "bottom": "bottom"}


def phrase(description: Description) -> str:
    """A noun phrase, such as "the second coin from the left in the top row".

    Args:
        description: its attributes; a "type" is among them.

    Returns:
        Lower case except for names, without a full stop.
    """
    if len(description) == 1 and description[0].value in NOUNS_WITHOUT_NAME:
        return f"an unnamed {description[0].value}"  # nothing is known of it
    return _noun_phrase(description)


def _noun_phrase(description: Description, noun: str | None = None) -> str:
    """The phrase; `noun` replaces the type's value."""
    by_kind = {attribute.kind: attribute for attribute in description}
    noun = noun or by_kind["type"].value
    ranks = [_rank(attribute) for attribute in description if attribute.kind == "rank"]
    words = ["the", *(before for before, _ in reversed(ranks))]
    words += [by_kind[kind].value for kind in ("shape", "color") if kind in by_kind]
    words += [noun, *(after for _, after in ranks)]
    if "row" in by_kind:
        before, after = _rank(by_kind["row"])
        words += ["in the", before, "row", after]
    place, whole = by_kind.get("place"), by_kind.get("whole")
    if place:
        words.append(place_phrase(place.value, whole is not None))
    if whole:
        words += ["of" if place else preposition(noun, whole.value), _whole(whole, noun)]
    return " ".join(filter(None, words))


def _rank(attribute: Attribute) -> tuple[str, str]:
    """The words before and after the noun."""
    end, number, of = attribute.value, attribute.number, attribute.of
    reach = end.removeprefix("far ")
    if reach != end:
        count = f"{ordinal(number)} " if number > 1 else ""
        return "", f"that reaches {count}{'further' if of == 2 else 'furthest'} {reach}"
    if number == 1:
        return _OF_TWO[end] if of == 2 else _OF_MANY.get(end, end), ""
    if end not in _OF_MANY:
        return f"{ordinal(number)} {end}", ""
    return ("middle", "") if of == 3 else (ordinal(number), f"from the {end}")


def _whole(attribute: Attribute, part: str) -> str:
    """The whole's own description; "row" is enough for a "row of coins" when a coin is in it."""
    group, _, members = attribute.value.partition(" of ")
    described = len(attribute.among) > 1 and members.casefold() == plural(part).casefold()
    short = group if described else None
    return _noun_phrase(attribute.among, short)


def is_named(noun: str) -> bool:
    """Whether it is the name of a thing, and no noun for regions without one."""
    return noun not in NOUNS_WITHOUT_NAME


class Composer:
    """Describes every region of one image, wholes before their parts.

    Args:
        scene: the regions.

    Attributes:
        descriptions: of each region, by its index.
    """

    def __init__(self, scene: ImageAttributes):
        self.scene = scene
        self._rivals = np.ones(len(scene), bool)  # (R,) the regions to rule out
        self._groups = self._find_groups()
        self.descriptions: dict[int, Description] = {}
        texts: dict[str, int] = {}
        for index in sorted(range(len(scene)), key=self._order):
            self.descriptions[index] = self._choose(index, self._candidates(index), texts)

    def family(self, members: Sequence[int], parent: int) -> dict[int, Description]:
        """Descriptions that distinguish the children of one parent from one another (Table 7).

        They may fit regions elsewhere in the image if they name the parent ("the pupil of the
        iris"). Counts are over the whole image, or over the parts of the one parent, as the words
        say.
        """
        self._rivals = np.isin(self.scene.twin, self.scene.twin[list(members)])
        shorts = {index: self._in_family(index, parent) for index in members}
        self._rivals = np.ones(len(self.scene), bool)
        texts: dict[str, int] = {}
        found = {}
        for index in sorted(members, key=self._order):
            short, own = shorts[index], self.descriptions[index]
            scoped = is_named(self.scene.nouns[index]) and any(a.kind == "whole" for a in short)
            candidates = (short, own) if scoped or self.scene.isolates(short) else (own,)
            found[index] = self._choose(index, candidates, texts)
        return found

    def _order(self, index: int) -> tuple:
        """A key that depends on the regions, and not on the order in which they are listed."""
        scene = self.scene
        area = -scene.regions[index].area
        return scene.depths[index], area, scene.mask_keys[index], scene.nouns[index]

    def _choose(
        self, index: int, candidates: Iterable[Description], texts: dict[str, int]
    ) -> Description:
        """The first that is short enough and is no other mask's text, else the first."""
        twin = int(self.scene.twin[index])
        first = None
        for description in candidates:
            first, text = first or description, phrase(description)
            as_good = self._isolates(description) >= self._isolates(first)
            if texts.get(text, twin) == twin and as_good and len(text.split()) <= MAX_WORDS:
                first = description
                break
        texts[phrase(first)] = twin
        return first

    def _left(self, description: Description) -> int:
        """The number of masks among the rivals that a description fits."""
        return len(np.unique(self.scene.twin[self.scene.fits(description) & self._rivals]))

    def _isolates(self, description: Description) -> bool:
        return self._left(description) == 1

    def _candidates(self, index: int) -> Iterator[Description]:
        """The incremental description, then others, in case it is too long or already used."""
        noun = self._noun(index)
        yield self._informed(index, self._incremental(index, noun, PREFERENCE))
        yield from self._positions(index, noun)

    def _noun(self, index: int) -> Description:
        return (Attribute("type", self.scene.nouns[index]),)

    def _in_family(self, index: int, parent: int) -> Description:
        """As short as siblings allow: the whole is named by its noun alone if nothing is counted.

        Otherwise it is described so that it is clear whose parts are counted.
        """
        noun, kinds = self._noun(index), self.scene.kinds
        # not the same mask again, nor "the eye of the eyes"; but "in the top row" may be counted
        no_whole = (
            self.scene.twin[parent] == self.scene.twin[index]
            or kinds[parent] == plural(kinds[index])
            or is_kind(kinds[parent], COLLECTIVES)
        )
        described = noun
        if not no_whole and is_named(kinds[parent]) and not is_kind(kinds[parent], GROUPS):
            described = (*noun, self._whole(parent, self._noun(parent)))
        described = self._incremental(index, described, PREFERENCE[1:])
        if any(attribute.of for attribute in described):
            if not no_whole and self._can_be_whole(parent):
                noun = (*noun, self._whole(parent, self.descriptions[parent]))
            described = self._incremental(index, noun, PREFERENCE[1:])
        return self._informed(index, described)

    def _whole(self, whole: int, description: Description) -> Attribute:
        return Attribute("whole", self.scene.nouns[whole], among=description)

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
                # the value that rules out most, the first of equals, if it rules out any
                values = [(*description, value) for value in self.values(index, kind)]
                description = min((description, *values), key=self._left)
        return description

    def _informed(self, index: int, description: Description) -> Description:
        """With a color, else a place, where an unnamed noun alone would carry no information."""
        if len(description) > 1 or is_named(description[0].value):
            return description
        known = self.values(index, "color")[:1] or self.scene.place(index)[-1:]
        return (*description, *known)

    def values(self, index: int, kind: str) -> list[Attribute]:
        """Colors or shapes that are said of a region, the plainest first."""
        if kind == "color" and is_kind(self.scene.nouns[index], LIGHT):
            return []
        return [Attribute(kind, value) for value in self.scene.regions[index].said[kind]]

    def _with_whole(self, index: int, description: Description) -> Description:
        left = self._left(description)
        candidates = []
        for level, whole in enumerate(self._wholes(index)):
            longer = (*description, self._whole(whole, self.descriptions[whole]))
            count = self._left(longer)
            if count < left:
                text = phrase(longer)
                cost = len(text.split()) + _LEFT_OVER * (count > 1) + _FAR * level
                candidates.append((cost, count, text, longer))
        return min(candidates, key=lambda item: item[:3])[3] if candidates else description

    def _wholes(self, index: int) -> list[int]:
        """Ancestors that can be named: unique, of another kind, and not just a group."""
        kinds = self.scene.kinds
        near = [i for i in self.scene.ancestors[index] if i not in self._groups]
        return [
            whole
            for whole in near
            if (kinds[whole] != kinds[index] or kinds[whole] == UNNAMED_PART)
            # what is on a coin in a row is not "in the row"
            and (whole == near[0] or not is_kind(kinds[whole], GROUPS))
            and self._can_be_whole(whole)
        ]

    def _can_be_whole(self, whole: int) -> bool:
        own = self.descriptions[whole]
        return len(phrase(own).split()) <= MAX_WHOLE_WORDS and self.scene.isolates(own)

    def _find_groups(self) -> set[int]:
        """Regions that are only several others taken together: "coins", "tableware"."""
        kinds = self.scene.kinds
        groups = {i for i, kind in enumerate(kinds) if is_kind(kind, COLLECTIVES)}
        for part, above in enumerate(self.scene.ancestors):
            groups |= {i for i in above if kinds[i] == plural(kinds[part])}
        return groups

    def _with_position(self, index: int, description: Description) -> Description:
        """With position, and without color and shape if position alone takes fewer words."""
        variants = dict.fromkeys(
            tuple(attribute for attribute in description if attribute.kind not in left_out)
            for count in range(len(_VAGUE) + 1)
            for left_out in combinations(_VAGUE, count)
        )
        options = [option for v in variants for option in self._positions(index, v)[:1]]
        return min(options, key=self._preferred, default=description)

    def _preferred(self, description: Description) -> tuple[bool, float, int]:
        # counting far among things that only a vague word picks out is hard
        counted = max((a.number for a in description if a.kind == "rank"), default=1)
        charge = counted * sum(_VAGUE.get(attribute.kind, 0.0) for attribute in description)
        cost = self._cost(description) + charge
        return not self._isolates(description), cost, len(description)

    def _positions(self, index: int, description: Description) -> list[Description]:
        """Descriptions with a position that leave no other rival, the best first.

        If there are none, the one that leaves the fewest, made of as many positions as help.
        """
        options = list(self._options(index, description))
        good = [option for option in options if self._isolates(option)]
        if good:
            return sorted(good, key=self._cost)
        best = min(options, key=lambda o: (self._left(o), self._cost(o)), default=description)
        if self._left(best) >= self._left(description):
            return []
        return self._positions(index, best) or [best]

    def _options(self, index: int, description: Description) -> Iterator[Description]:
        """Descriptions with one more position, or with a rank in it."""
        yield from self._ranks(index, description, (*DIRECTIONS, *SECONDARY))
        if description[-1].kind == "rank":  # words after a count would restrict it
            return
        for row in self._rows(index, description):
            yield row
            yield from self._ranks(index, row, ("left", "right"))
        for place in self._places(index, description):
            yield place
            yield from self._ranks(index, place, DIRECTIONS)

    def _ranks(
        self, index: int, description: Description, directions: tuple[str, ...]
    ) -> Iterator[Description]:
        scene, counted = self.scene, self.scene.counted(description)
        total = len(counted)
        # the largest of the reddish coins is the largest of the red ones; the third need not be
        first_only = description[-1].kind == "rank" or not scene.is_crisp(description)
        for direction in directions:
            keys = np.sort(scene.keys[direction][counted])
            number = int(np.searchsorted(keys, scene.keys[direction][index])) + 1
            far = number > (total + 1) // 2 and not direction.startswith("far")
            if far or keys[0] == keys[-1] or (number > 1 and first_only):
                continue  # counted from the other end; or not at all
            if (number, total) != (2, 3) or self._is_middle(index, counted, direction):
                yield (*description, Attribute("rank", direction, number, total, description))

    def _is_middle(self, index: int, counted: np.ndarray, direction: str) -> bool:
        """Whether "the middle one" of three means the second in this direction."""
        if direction not in _OF_MANY:
            return True
        across = self.scene.centers[counted]  # (3, 2)
        along = 0 if direction in ("left", "right") else 1
        spread = np.ptp(across, axis=0)
        second = np.sort(across[:, 1 - along])[1] == self.scene.centers[index, 1 - along]
        return bool(second or 2 * spread[1 - along] <= spread[along])

    def _rows(self, index: int, description: Description) -> Iterator[Description]:
        counted = self.scene.counted(description)
        numbers = row_numbers(self.scene.boxes[counted])
        if numbers is not None and self.scene.is_crisp(description):
            total = int(numbers.max())
            from_top = int(numbers[np.searchsorted(counted, self.scene.twin[index])])
            for end, number in (("top", from_top), ("bottom", total + 1 - from_top)):
                if number <= (total + 1) // 2:
                    yield (*description, Attribute("row", end, number, total, description))

    def _places(self, index: int, description: Description) -> Iterator[Description]:
        if any(attribute.kind == "place" for attribute in description):
            return
        whole = next((a.among for a in description if a.kind == "whole"), ())
        for place in self.scene.place(index, whole):
            if self._left((*description, place)) < self._left(description):
                yield (*description, place)

    def _cost(self, description: Description) -> float:
        """Words, and charges for a position that is hard to see or to count.

        The position is the last attribute, or a rank and the row or place before it.
        """
        before, last = description[-2:]
        charges = self._charge(last)
        if before.kind in ("row", "place"):
            charges += self._charge(before) + _PLACE_RANK * (before.kind == "place")
        return len(phrase(description).split()) + charges

    def _charge(self, attribute: Attribute) -> float:
        scene, direction, steps = self.scene, attribute.value, attribute.number - 1
        if attribute.kind == "place":
            return _PLACE
        if attribute.kind == "row":
            return _COUNTING * steps
        if attribute.kind != "rank":
            return 0.0
        if direction in SECONDARY:
            return _SECONDARY + (_COUNTING + _SIZE_COUNT) * steps
        counted = scene.counted(attribute.among)
        # the regions up to and after the target have to be distinguished
        prefix = np.sort(scene.keys[direction][counted])[: steps + 2]
        if direction in ("largest", "smallest"):
            ratio = float(np.abs(np.diff(np.log(np.abs(prefix)))).min())
            group = _GROUP_SIZE * is_kind(scene.nouns[counted[0]], GROUPS)
            return _SIZE + (_COUNTING + _SIZE_COUNT) * steps + _seeing(ratio) + group
        axis = 0 if direction in ("left", "right") else 1
        gap = float(np.diff(prefix).min())
        extent = float(scene.boxes[counted, 2 + axis].mean())
        spread = float(np.ptp(scene.centers[counted], axis=0).max()) / (len(counted) - 1)
        share = gap / spread if spread else 1.0
        uneven = _UNEVEN * max(0.0, _EVEN - share) + _FAINT * (share < _FAINT_GAP)
        return _COUNTING * steps + max(_seeing(gap / extent), uneven)


def _seeing(gap: float) -> float:
    return _CLOSE * max(0.0, _CLEAR - gap) + _FAINT * (gap < _FAINT_GAP)
