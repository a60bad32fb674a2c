"""English words: ordinals, plurals, prepositions, and kinds of nouns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

_ONES = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"),
    *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth"),
    *("seventeenth", "eighteenth", "nineteenth"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_DIGITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_IRREGULAR = {"foot": "feet", "tooth": "teeth", "man": "men", "woman": "women", "person": "people"}
_IRREGULAR |= {"child": "children", "leaf": "leaves", "shelf": "shelves", "mouse": "mice"}
_IRREGULAR |= {"knife": "knives", "loaf": "loaves", "wolf": "wolves", "half": "halves"}
_SAME = ("sheep", "fish", "deer", "aircraft", "spacecraft")
_MASS = ("coffee", "foam", "foliage", "fur", "grass", "hair", "sand", "sky", "snow", "water")
MANY = len(_DIGITS) + 1  # from here on a number of things is "many"

COLLECTIVES = ("tableware", "furniture", "scenery", "foreground", "scene")  # not wholes of parts
GROUPS = ("bunch", "column", "crowd", "group", "heap", "pile", "row", "set", "stack")
LIGHT = ("glare", "highlight", "reflection", "shadow")  # these have no color of their own
# marks are on the thing that they are part of
_MARKS = (
    *("badge", "button", "crack", "dot", "emblem", "freckle", "gouge", "graffiti", "highlight"),
    *("inscription", "label", "letter", "logo", "mark", "pattern", "reflection", "scratch"),
    *("shadow", "sign", "spot", "stain", "sticker", "streak", "stripe", "tag", "wrinkle"),
)
_CONTAINERS = (*GROUPS, "background", "sky", "water")
_LUCID = ("eye", "iris", "pupil", "glass", "lens", "mirror", "visor")  # light is seen in them
# heads are on them, but their edge is of them
_PICTURED = ("badge", "coin", "emblem", "logo", "medal", "patch", "poster", "stamp")
_EDGES = ("border", "edge", "rim", "side")


def ordinal(number: int) -> str:
    """1 -> "first", 23 -> "twenty-third", 117 -> "one hundred and seventeenth"; up to 9,999."""
    if number < 20:
        return _ONES[number - 1]
    if number < 100:
        tens, ones = divmod(number, 10)
        word = _TENS[tens - 2]
        return f"{word}-{_ONES[ones - 1]}" if ones else f"{word[:-1]}ieth"
    scale, unit = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, scale)
    head = f"{_DIGITS[count - 1]} {unit}"
    joined = " and " if rest < 100 else " "
    return f"{head}{joined}{ordinal(rest)}" if rest else f"{head}th"


@cache
def plural(noun: str) -> str:
    """ "coin" -> "coins", "space suit" -> "space suits", "row of coins" -> "rows of coins"."""
    head, of, tail = noun.partition(" of ")
    before, space, word = head.rpartition(" ")
    if word in _IRREGULAR:
        word = _IRREGULAR[word]
    elif word not in _SAME:
        word = re.sub(r"(?<=[^aeiou])y$", "ie", re.sub(r"(s|x|z|ch|sh)$", r"\1e", word)) + "s"
    return f"{before}{space}{word}{of}{tail}"


def preposition(part: str, whole: str) -> str:
    """The word that joins a part to its whole: "on" for marks, "in" for containers, else "of"."""
    if is_kind(part, _MARKS):
        return "in" if is_kind(whole, (*_LUCID, *_CONTAINERS)) else "on"
    if is_kind(whole, _CONTAINERS):
        return "in"
    return "on" if _head(whole) in _PICTURED and _head(part) not in _EDGES else "of"


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
    if is_plural(noun) or _head(noun) in _MASS:
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
    return f"{_DIGITS[number - 1] if number < MANY else 'many'} {plural(noun)}"
