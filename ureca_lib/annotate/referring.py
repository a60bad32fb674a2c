"""Referring expressions by the incremental algorithm (Dale and Reiter 1995).

One attribute after the other, in a fixed order of preference, is added if it rules out at least
one of the regions that are left. Of an attribute with several values the best one is taken (their
FindBestValue): the one that rules out most, or, for wholes and positions, that is said in the
fewest words. A whole is described first, by itself, so that its parts can refer to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from ureca_lib.annotate.attributes import UNNAMED_PART
from ureca_lib.annotate.english import is_collective, is_group, is_light, ordinal, phrase, plural
from ureca_lib.annotate.positions import Option, position_options
from ureca_lib.annotate.predicates import Attribute, Description, ImageAttributes

PREFERENCE = ("whole", "color", "shape", "position")
KINDS = (*PREFERENCE, "with")
_WHOLES = 6  # ancestors, from the nearest, that may be the whole
_LEFT_OVER = 6.0  # words that a whole is charged when it leaves other regions
_FAR = 1.0  # words that a whole is charged for each level it is further away
# words that these are charged when a position is needed too
_VAGUE = {"color": 1.0, "shape": 2.0}


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
