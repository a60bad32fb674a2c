"""Captions of a scene's regions in several styles, each true of its region alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from ureca_lib.scenes.description import Description, Facts
from ureca_lib.scenes.lexicon import BACKGROUNDS, GROUPS, NUMBERS, VERBS, plural
from ureca_lib.scenes.phrases import Phrase, fits, noun_words, where_words, words

Style = Literal["phrase", "minimal", "sentence"]
STYLES: tuple[Style, ...] = ("phrase", "minimal", "sentence")
_NUMBER_WORDS = {number: word for word, number in NUMBERS.items() if word not in ("a", "an")}


def write_captions(scene: Description, style: Style = "phrase") -> dict[int, str]:
    """A caption for each region, unique in its scene.

    Args:
        scene: facts about the regions.
        style: "phrase" states looks, whole and place in the same way for all regions of a kind,
            so that it depends on the region and its whole alone. "minimal" is that phrase
            without everything that is not needed to distinguish the region from the others,
            and so depends on them. "sentence" states everything that is known, with parts.

    Raises:
        ValueError: no such style, or no phrase fits one region only.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
    captions = {}
    for facts in scene.facts:
        phrase = unique_phrase(scene, facts)
        if style == "minimal":
            captions[facts.id] = words(shortened(scene, facts.id, phrase))
        elif style == "sentence":
            captions[facts.id] = sentence(scene, facts, phrase)
        else:
            captions[facts.id] = words(phrase)
    return captions


def unique_phrase(scene: Description, facts: Facts) -> Phrase:
    """The shortest of a few fixed forms that fits this region only.

    Raises:
        ValueError: none of them does.
    """
    for every_whole, full in ((False, False), (True, False), (True, True)):
        phrase = _phrase(scene, facts, every_whole, full)
        if len(fits(phrase, scene)) == 1:
            return phrase
    raise ValueError(f"region {facts.id}: '{words(phrase)}' is true of another region too")


def _phrase(scene: Description, facts: Facts, every_whole: bool, full: bool) -> Phrase:
    said = _looks(facts, full)
    said = replace(said, pattern=facts.pattern if full or facts.pattern != "plain" else None)
    if facts.member:
        said = replace(said, member=facts.member)
    return replace(said, whole=_whole(scene, facts, every_whole, full))


def _looks(facts: Facts, full: bool) -> Phrase:
    return Phrase(
        facts.kind,
        facts.side,
        facts.pattern if full else None,
        facts.surface if facts.mention else None,
        facts.place,
        facts.row if full else None,
    )


def _whole(scene: Description, facts: Facts, every: bool, full: bool) -> Phrase | None:
    """The whole of a region; intermediate wholes are skipped unless their side is needed."""
    if facts.parent is None or facts.place:
        return None
    parent = scene[facts.parent]
    between = parent.parent is not None and not parent.place and scene[parent.parent].member is None
    if between and not parent.side and not every:
        return _whole(scene, parent, every, full)
    above = _whole(scene, parent, every, full)
    said = replace(_looks(parent, full), whole=above)
    return replace(said, surface=None) if between and not full else said


def shortened(scene: Description, region_id: int, phrase: Phrase) -> Phrase:
    """Remove what is not needed to identify the region, least informative first.

    The result fits this region only, and nothing more can be removed from it.
    """
    shorter: Phrase | None = phrase
    while shorter is not None:
        phrase = shorter
        shorter = next(
            (each for each in _shorter(phrase) if fits(each, scene) == {region_id}), None
        )
    return phrase


def _shorter(phrase: Phrase) -> Iterator[Phrase]:
    """Variants of the phrase with one detail less, wholes first."""
    if phrase.whole is not None:
        if phrase.whole.whole is not None:  # skip the whole in between
            yield replace(phrase, whole=phrase.whole.whole)
        yield replace(phrase, whole=None)
        yield from (replace(phrase, whole=each) for each in _shorter(phrase.whole))
    # looks are kept longest, after Dale and Reiter (1995): absolute before relative attributes
    for name, nothing in (("row", None), ("place", None), ("side", ()), ("pattern", None)):
        if getattr(phrase, name):
            yield replace(phrase, **{name: nothing})
    for name in ("member", "surface"):
        if getattr(phrase, name):
            yield replace(phrase, **{name: None})


def sentence(scene: Description, facts: Facts, phrase: Phrase) -> str:
    """Everything that is known about a region as one sentence: looks, whole, place and parts."""
    own = replace(phrase, surface=facts.surface, row=facts.row)
    text = noun_words(own, "The")
    if facts.place:
        text += [VERBS[facts.kind], *where_words(own)]
    elif facts.kind in BACKGROUNDS:
        text += ["is in the background"]
    elif facts.parent is not None and scene[facts.parent].member:
        text += [VERBS[facts.kind], "in", words(phrase.whole)]
    else:
        nearest = _whole(scene, facts, every=True, full=False) or phrase.whole
        text += ["belongs to", words(nearest)]
    return " ".join([*text, *_parts(scene, facts)]) + "."


def _parts(scene: Description, facts: Facts) -> list[str]:
    """The region's own parts, counted: with a grey roof, a blue door and two white windows."""
    if facts.kind in GROUPS:
        return []
    children = [each for each in scene.children(facts.id) if not each.place]
    counts = Counter((each.surface, each.kind) for each in children)
    items = []
    for (surface, kind), count in counts.items():
        article = "an" if surface[0] in "aeiou" else "a"
        noun = kind if count == 1 else plural(kind)
        items.append(" ".join([article if count == 1 else _NUMBER_WORDS[count], surface, noun]))
    if len(items) < 2:
        return ["with", *items] if items else []
    return ["with", ", ".join(items[:-1]), "and", items[-1]]
