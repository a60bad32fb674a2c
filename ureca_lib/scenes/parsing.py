"""Parser of the caption language: from words to a phrase, and so to the regions it fits.

Its grammar:

    caption  = noun [where | whole]... [claim] [parts] ["."]
    noun     = [article] {side | pattern | surface} kind [("of" plural) after pair or row]
    where    = "on the left" | "in the middle" | "on the right" | "in front" | "at the back"
    whole    = ("of" | "in" | "on") caption-without-claim
    claim    = verb [where | whole]... | "belongs to" whole | "is in the background"
    parts    = "with" part {"," part} ["and" part]
    part     = number {pattern | surface} kind-or-plural
"""

from __future__ import annotations

from dataclasses import replace

from ureca_lib.scenes.lexicon import (
    ARTICLES,
    BACKGROUNDS,
    GROUPS,
    KINDS,
    NUMBERS,
    PLACES,
    PREPOSITIONS,
    ROWS,
    SIDES,
    SURFACES,
    VERBS,
    singulars,
)
from ureca_lib.scenes.palette import PATTERNS
from ureca_lib.scenes.phrases import Phrase

_WHERE = [(tuple(text.split()), "place", name) for name, text in PLACES.items()]
_WHERE += [(tuple(text.split()), "row", name) for name, text in ROWS.items()]
_SEVERAL_SIDES = 2  # "top left"
_BACKDROP = ("is", "in", "the", "background")


class GrammarError(ValueError):
    """The caption is not in the caption language."""


def parse(caption: str) -> Phrase:
    """Read a caption of any style; case and the final full stop do not matter.

    Raises:
        GrammarError: names the unexpected word.
    """
    text = caption.lower().strip().replace(",", " , ")
    reader = _Reader((text[:-1] if text.endswith(".") else text).split())
    phrase = reader.claim(reader.noun_phrase())
    if reader.peek("with"):
        phrase = replace(phrase, having=reader.parts())
    if reader.rest():
        raise reader.unexpected()
    return phrase


class _Reader:
    """Words, and the position of the parser in them."""

    def __init__(self, words: list[str]):
        self.words, self.at = words, 0

    def rest(self) -> list[str]:
        return self.words[self.at :]

    def peek(self, *words: str) -> bool:
        return tuple(self.words[self.at : self.at + len(words)]) == words

    def accept(self, *words: str) -> bool:
        found = self.peek(*words)
        self.at += len(words) if found else 0
        return found

    def unexpected(self) -> GrammarError:
        if not self.rest():
            return GrammarError("the caption breaks off")
        return GrammarError(f"'{self.rest()[0]}' is not expected as word {self.at + 1}")

    def noun_phrase(self) -> Phrase:
        """Read a noun, its place, and its whole."""
        return self.postmodified(self.noun())

    def noun(self, plurals: bool = False) -> Phrase:
        if self.rest() and self.rest()[0] in ARTICLES:
            self.at += 1
        side: tuple[str, ...] = ()
        looks: dict[str, str] = {}
        while self.rest() and self.rest()[0] not in KINDS:
            word = self.rest()[0]
            if plurals and word in singulars():
                break
            name = "pattern" if word in PATTERNS else "surface" if word in SURFACES else "side"
            if name == "side":
                if word not in SIDES or word in side or len(side) == _SEVERAL_SIDES:
                    raise self.unexpected()
                side = (*side, word)
            elif name in looks:
                raise self.unexpected()
            else:
                looks[name] = word
            self.at += 1
        if not self.rest():
            raise self.unexpected()
        kind = self.rest()[0]
        self.at += 1
        phrase = Phrase(kind if kind in KINDS else singulars()[kind], side, **looks)
        if kind in GROUPS and self.peek("of") and self.words[self.at + 1 :]:
            member = singulars().get(self.words[self.at + 1])
            if member is not None:
                self.at += 2
                return replace(phrase, member=member)
        return phrase

    def postmodified(self, phrase: Phrase) -> Phrase:
        """Read the place and the whole, each at most once."""
        while self.rest():
            where = next(
                ((name, value) for words, name, value in _WHERE if self.accept(*words)), None
            )
            if where is not None:
                if getattr(phrase, where[0]) is not None:
                    raise self.unexpected()
                phrase = replace(phrase, **{where[0]: where[1]})
            elif self.rest()[0] in PREPOSITIONS and phrase.whole is None:
                self.at += 1
                phrase = replace(phrase, whole=self.noun_phrase())
            else:
                break
        return phrase

    def claim(self, phrase: Phrase) -> Phrase:
        """Read what the caption claims about the noun."""
        if self.peek(*_BACKDROP):
            if phrase.kind not in BACKGROUNDS:
                raise self.unexpected()
            self.at += len(_BACKDROP)
            return phrase
        if self.accept("belongs", "to"):
            if phrase.whole is not None:
                raise self.unexpected()
            return replace(phrase, whole=self.noun_phrase())
        if self.rest() and self.rest()[0] == VERBS.get(phrase.kind):
            self.at += 1
            before, phrase = phrase, self.postmodified(phrase)
            if phrase == before:
                raise self.unexpected()
        return phrase

    def parts(self) -> tuple[tuple[int, Phrase], ...]:
        """Read the list after "with"."""
        found = []
        more = self.accept("with")
        while more:
            if not self.rest() or self.rest()[0] not in NUMBERS:
                raise self.unexpected()
            least = NUMBERS[self.rest()[0]]
            self.at += 1
            found.append((least, self.noun(plurals=least > 1)))
            more = self.accept(",") or self.accept("and")
        return tuple(found)
