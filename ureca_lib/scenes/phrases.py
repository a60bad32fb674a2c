"""Noun phrases: the meaning of a caption, the regions that it fits, and its words.

A phrase is a description in symbols. `fits` finds its regions in a scene, `words` writes it as
text, and `parsing` reads the text back.
"""

from __future__ import annotations

from dataclasses import dataclass

from ureca_lib.scenes.description import Description, Facts
from ureca_lib.scenes.lexicon import LINKS, PLACES, ROWS, plural


@dataclass(frozen=True)
class Phrase:
    """A noun phrase. Fields that are None or empty fit everything.

    Args:
        kind: the noun.
        side, pattern, surface: adjectives.
        place, row: its place; a part has the place of its whole.
        member: kind of the members of a pair or row.
        whole: what it is a part of, at any depth.
        having: (minimum number, phrase) of its parts, at any depth.
    """

    kind: str
    side: tuple[str, ...] = ()
    pattern: str | None = None
    surface: str | None = None
    place: str | None = None
    row: str | None = None
    member: str | None = None
    whole: Phrase | None = None
    having: tuple[tuple[int, Phrase], ...] = ()


def fits(phrase: Phrase, scene: Description) -> set[int]:
    """Ids of the regions of a scene that fit a phrase."""
    candidates = [each for each in scene.by_kind.get(phrase.kind, ()) if _looks(phrase, each)]
    if phrase.place or phrase.row:
        candidates = [each for each in candidates if _stands(phrase, scene, each)]
    if phrase.whole is not None and candidates:
        wholes = fits(phrase.whole, scene)
        candidates = [each for each in candidates if wholes & set(scene.ancestors(each.id))]
    found = {each.id for each in candidates}
    for least, part in phrase.having:
        parts = fits(part, scene)
        found = {
            each for each in found if sum(each in scene.ancestors(one) for one in parts) >= least
        }
    return found


def _looks(phrase: Phrase, facts: Facts) -> bool:
    return (
        (phrase.surface is None or phrase.surface == facts.surface)
        and (phrase.pattern is None or phrase.pattern == facts.pattern)
        and (phrase.member is None or phrase.member == facts.member)
        and set(phrase.side) <= set(facts.side)
    )


def _stands(phrase: Phrase, scene: Description, facts: Facts) -> bool:
    standing = scene.standing(facts.id)
    if standing is None:
        return False
    return phrase.place in (None, standing.place) and phrase.row in (None, standing.row)


def noun_words(phrase: Phrase, article: str = "the") -> list[str]:
    """Article, adjectives and noun."""
    adjectives = [*phrase.side]
    adjectives += [each for each in (phrase.pattern, phrase.surface) if each]
    words = [article, *adjectives, phrase.kind]
    return [*words, "of", plural(phrase.member)] if phrase.member else words


def where_words(phrase: Phrase) -> list[str]:
    """Words of the place."""
    words = [PLACES[phrase.place]] if phrase.place else []
    return [*words, ROWS[phrase.row]] if phrase.row else words


def words(phrase: Phrase) -> str:
    """The phrase in words, without its list of parts."""
    said = [*noun_words(phrase), *where_words(phrase)]
    if phrase.whole is not None:
        said += [LINKS.get(phrase.kind, "of"), words(phrase.whole)]
    return " ".join(said)
