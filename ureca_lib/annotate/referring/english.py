"""English words: ordinals, plurals, prepositions, and kinds of nouns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources

import yaml

_TEXT = resources.files(__package__).joinpath("words.yaml").read_text(encoding="utf-8")
_WORDS = {name: words.split() for name, words in yaml.safe_load(_TEXT).items()}
_IRREGULAR = dict(zip(_WORDS["irregular"][::2], _WORDS["irregular"][1::2], strict=True))
COLLECTIVES, GROUPS, LIGHT = _WORDS["collectives"], _WORDS["groups"], _WORDS["light"]
MANY = len(_WORDS["digits"]) + 1  # from here on a number of things is "many"


def ordinal(number: int) -> str:
    """1 -> "first", 23 -> "twenty-third", 117 -> "one hundred and seventeenth"; up to 9,999."""
    if number < 20:
        return _WORDS["ordinals"][number - 1]
    if number < 100:
        tens, ones = divmod(number, 10)
        word = _WORDS["tens"][tens - 2]
        return f"{word}-{_WORDS['ordinals'][ones - 1]}" if ones else f"{word[:-1]}ieth"
    scale, unit = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, scale)
    head = f"{_WORDS['digits'][count - 1]} {unit}"
    joined = " and " if rest < 100 else " "
    return f"{head}{joined}{ordinal(rest)}" if rest else f"{head}th"


@cache
def plural(noun: str) -> str:
    """ "coin" -> "coins", "space suit" -> "space suits", "row of coins" -> "rows of coins"."""
    head, of, tail = noun.partition(" of ")
    before, space, word = head.rpartition(" ")
    if word in _IRREGULAR:
        word = _IRREGULAR[word]
    elif word not in _WORDS["same"]:
        word = re.sub(r"(?<=[^aeiou])y$", "ie", re.sub(r"(s|x|z|ch|sh)$", r"\1e", word)) + "s"
    return f"{before}{space}{word}{of}{tail}"


def preposition(part: str, whole: str) -> str:
    """The word that joins a part to its whole: "on" for marks, "in" for containers, else "of"."""
    if is_kind(part, _WORDS["marks"]):
        return "in" if is_kind(whole, _WORDS["lucid"] + _WORDS["containers"]) else "on"
    if is_kind(whole, _WORDS["containers"]):
        return "in"
    pictured = _head(whole) in _WORDS["pictured"] and _head(part) not in _WORDS["edges"]
    return "on" if pictured else "of"


def place_phrase(value: str, in_whole: bool = False) -> str:
    """ "top left" -> "at the top left"; `in_whole`: of the whole that follows, not of the image."""
    side = value.replace("middle", "").strip()
    if side in ("left", "right") and in_whole:
        return f"in the middle of the {side} side" if side != value else f"on the {side} side"
    if side != value:
        return f"in the middle {place_phrase(side)}" if side else "in the middle"
    return f"on the {side}" if side in ("left", "right") else f"at the {side}"


def indefinite(noun: str) -> str:
    """ "eye" -> "an eye", "eyes" -> "eyes", "hair" -> "hair"."""
    if is_plural(noun) or _head(noun) in _WORDS["mass"]:
        return noun
    vowel = re.match(r"(?!uni|use|ute|eu|one\b)[aeiou]", noun.casefold())
    return f"{'an' if vowel else 'a'} {noun}"


def is_plural(noun: str) -> bool:
    """Whether it names several things: "eyes", but not "row of coins", "glass" or "iris"."""
    head = _head(noun)
    return head in _IRREGULAR.values() or bool(re.search(r"(?<![siu])s$", head))


def is_kind(noun: str, kinds: Iterable[str]) -> bool:
    """Whether it names one or several things of some kinds: "row of coins" is one of `GROUPS`."""
    return any(_head(noun) in (kind, plural(kind)) for kind in kinds)


def _head(noun: str) -> str:
    """The word that names the kind of thing: "spoon bowl" -> "bowl"."""
    return noun.casefold().partition(" of ")[0].split(" ")[-1]


def listing(items: Sequence[str]) -> str:
    """["an ear", "a nose", "eyes"] -> "an ear, a nose and eyes"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def counted(noun: str, number: int) -> str:
    """ "eye", 2 -> "two eyes", "eyes", 2 -> "eyes"; above nine it is "many"."""
    if number == 1 or is_plural(noun):
        return indefinite(noun)
    return f"{_WORDS['digits'][number - 1] if number < MANY else 'many'} {plural(noun)}"
