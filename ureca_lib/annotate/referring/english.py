"""English words: ordinals, plurals, prepositions, and kinds of nouns."""

from __future__ import annotations

import re
from collections.abc import Sequence
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

_PLACES = {
    **{"left": "on the left", "right": "on the right", "middle": "in the middle"},
    **{"middle left": "in the middle on the left", "middle right": "in the middle on the right"},
    **{"top middle": "in the middle at the top", "bottom middle": "in the middle at the bottom"},
}
# places whose words differ if a whole follows after "of"
_SIDES = {
    **{"left": "on the left side", "right": "on the right side"},
    **{"middle left": "in the middle of the left side"},
    **{"middle right": "in the middle of the right side"},
}

_COLLECTIVES = ("tableware", "furniture", "scenery", "foreground", "scene")  # not wholes of parts
_GROUPS = ("bunch", "column", "crowd", "group", "heap", "pile", "row", "set", "stack")
# marks are on the thing that they are part of
_MARKS = (
    *("badge", "button", "crack", "dot", "emblem", "freckle", "gouge", "graffiti", "highlight"),
    *("inscription", "label", "letter", "logo", "mark", "name tag", "pattern", "reflection"),
    *("scratch", "shadow", "sign", "spot", "stain", "sticker", "streak", "stripe", "wrinkle"),
)
_LIGHT = ("glare", "highlight", "reflection", "shadow")
_CONTAINERS = (*_GROUPS, "background", "sky", "water")
_LUCID = ("eye", "iris", "pupil", "glass", "lens", "mirror", "visor")  # light is seen in them
# heads are on them, but their edge is of them
_PICTURED = ("badge", "coin", "emblem", "logo", "medal", "patch", "poster", "stamp")
_EDGES = ("border", "edge", "rim", "side")


def ordinal(number: int) -> str:
    """1 -> "first", 23 -> "twenty-third", 117 -> "one hundred and seventeenth"; up to 9,999."""
    if not 1 <= number <= 9999:
        raise ValueError(f"an ordinal is from 1 to 9999, not {number}")
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
    *before, word = head.split(" ")
    if word in _SAME:
        many = word
    elif word in _IRREGULAR:
        many = _IRREGULAR[word]
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        many = word + "es"
    elif word.endswith("y") and word[-2:-1] not in "aeiou":
        many = word[:-1] + "ies"
    else:
        many = word + "s"
    return " ".join([*before, many]) + of + tail


def preposition(part: str, whole: str) -> str:
    """The word that joins a part to its whole: "on" for marks, "in" for containers, else "of"."""
    part, whole = part.casefold(), whole.casefold()
    part_head, whole_head = _head(part), _head(whole)
    if part in _MARKS or any(part_head in (mark, plural(mark)) for mark in _MARKS):
        return "in" if whole_head in _LUCID or whole_head in _CONTAINERS else "on"
    if whole_head in _CONTAINERS:
        return "in"
    return "on" if whole_head in _PICTURED and part_head not in _EDGES else "of"


def place_phrase(value: str, in_whole: bool = False) -> str:
    """ "top left" -> "at the top left"; `in_whole`: of the whole that follows, not of the image."""
    if in_whole and value in _SIDES:
        return _SIDES[value]
    return _PLACES.get(value, f"at the {value}")


def indefinite(noun: str) -> str:
    """ "eye" -> "an eye", "eyes" -> "eyes", "hair" -> "hair"."""
    if is_plural(noun) or _head(noun.casefold()) in _MASS:
        return noun
    vowel = re.match(r"(?!uni|use|ute|eu|one\b)[aeiou]", noun.casefold())
    return f"{'an' if vowel else 'a'} {noun}"


def is_plural(noun: str) -> bool:
    """Whether it names several things: "eyes", but not "row of coins", "glass" or "iris"."""
    head = _head(noun.casefold())
    return head in _IRREGULAR.values() or (
        head.endswith("s") and not head.endswith(("ss", "is", "us"))
    )


def is_group(noun: str) -> bool:
    """Whether it is an arrangement of things, such as a "row of coins"."""
    return _head(noun.casefold()) in _GROUPS


def is_collective(noun: str) -> bool:
    """Whether it is a word for many things of several kinds, such as "tableware"."""
    return _head(noun.casefold()) in _COLLECTIVES


def is_light(noun: str) -> bool:
    """Whether it is made of light, such as a "highlight", and has no color of its own."""
    head = _head(noun.casefold())
    return any(head in (light, plural(light)) for light in _LIGHT)


def _head(noun: str) -> str:
    """The word that names the kind of thing: "spoon bowl" -> "bowl"."""
    return noun.partition(" of ")[0].split(" ")[-1]


def listing(items: Sequence[str]) -> str:
    """["an ear", "a nose", "eyes"] -> "an ear, a nose and eyes"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def counted(noun: str, number: int) -> str:
    """ "eye", 2 -> "two eyes", "eyes", 2 -> "eyes"; above nine it is "many"."""
    if number == 1 or is_plural(noun):
        return indefinite(noun)
    return f"{_DIGITS[number - 1] if number < MANY else 'many'} {plural(noun)}"
