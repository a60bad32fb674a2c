"""English for descriptions: noun phrases that a person would say, with ordinals in words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from ureca_lib.annotate.referring.predicates import Attribute, Description

_ONES = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"),
    *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth"),
    *("seventeenth", "eighteenth", "nineteenth"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_DIGITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_IRREGULAR = {"foot": "feet", "tooth": "teeth", "man": "men", "woman": "women", "person": "people"}
_IRREGULAR |= {"child": "children", "leaf": "leaves", "shelf": "shelves", "mouse": "mice"}
_SAME = ("sheep", "fish", "deer", "aircraft", "spacecraft")
# for direction: how it is said of one of two, and of the first of many
_OF_TWO = {"left": "left", "right": "right", "top": "upper", "bottom": "lower"}
_OF_TWO |= {"largest": "larger", "smallest": "smaller", "widest": "wider", "narrowest": "narrower"}
_OF_TWO |= {"tallest": "taller", "shortest": "shorter"}
_OF_MANY = {"left": "leftmost", "right": "rightmost", "top": "top", "bottom": "bottom"}
_REACH = {"far left": "left", "far right": "right", "far up": "up", "far down": "down"}
_PLACES = {
    **{"left": "on the left", "right": "on the right", "middle": "in the middle"},
    **{"middle left": "in the middle on the left", "middle right": "in the middle on the right"},
    **{"top middle": "in the middle at the top", "bottom middle": "in the middle at the bottom"},
}
# what differs inside a whole, where "of" follows
_SIDES = {
    **{"left": "on the left side", "right": "on the right side"},
    **{"middle left": "in the middle of the left side"},
    **{"middle right": "in the middle of the right side"},
}

_COLLECTIVES = ("tableware", "furniture", "scenery", "foreground", "scene")  # not wholes of parts
_GROUPS = ("bunch", "column", "crowd", "group", "heap", "pile", "row", "set", "stack")
# marks are on what they are part of
_MARKS = (
    *("badge", "button", "crack", "dot", "emblem", "freckle", "gouge", "graffiti", "highlight"),
    *("inscription", "label", "letter", "logo", "mark", "name tag", "pattern", "reflection"),
    *("scratch", "shadow", "sign", "spot", "stain", "sticker", "streak", "stripe", "wrinkle"),
)
_LIGHT = ("glare", "highlight", "reflection", "shadow")
_CONTAINERS = (*_GROUPS, "background", "sky", "water")
_LUCID = ("eye", "iris", "pupil", "glass", "lens", "mirror", "visor")  # light is seen in them
# what is pictured is on them, but their edge is of them
_PICTURED = (
    "badge",
    "coin",
    "emblem",
    "logo",
    "medal",
    "patch",
    "poster",
    "stamp",
)  # heads are on them, but their edge is of them
_EDGES = ("border", "edge", "rim", "side")


def ordinal(number: int) -> str:
    """1 -> "first", 23 -> "twenty-third", 117 -> "one hundred and seventeenth"; up to 9,999."""
    if not 1 <= number <= 9999:
        raise ValueError(f"an ordinal is said from 1 to 9999, not {number}")
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
    """How a part is joined to its whole: "on" for marks, "in" for containers, else "of"."""
    part, whole = part.casefold(), whole.casefold()
    part_head, whole_head = _head(part), _head(whole)
    one = next((mark for mark in _MARKS if part_head in (mark, plural(mark))), None)
    if one is not None or part in _MARKS:
        return "in" if whole_head in _LUCID or whole_head in _CONTAINERS else "on"
    if whole_head in _CONTAINERS:
        return "in"
    return "on" if whole_head in _PICTURED and part_head not in _EDGES else "of"


def phrase(description: Description, noun: str | None = None) -> str:
    """A noun phrase, such as "the second coin from the left in the top row".

    Args:
        description: its attributes; a "type" is among them.
        noun: said instead of the type's value.

    Returns:
        Lower case but for names, without a full stop.
    """
    by_kind = {attribute.kind: attribute for attribute in description}
    noun = noun or by_kind["type"].value
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
    """What stands before and after the noun."""
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


def place_phrase(value: str, in_whole: bool = False) -> str:
    """ "top left" -> "at the top left"; `in_whole`: of what it is part of, not of the image."""
    if in_whole and value in _SIDES:
        return _SIDES[value]
    return _PLACES.get(value, f"at the {value}")


def _whole(attribute: Attribute, part: str) -> str:
    """The whole's own description; "row" is enough for a "row of coins" when a coin is in it."""
    group, of, members = attribute.value.partition(" of ")
    short = group if of and members.casefold() == plural(part).casefold() else None
    return phrase(attribute.among, short)


def indefinite(noun: str) -> str:
    """ "eye" -> "an eye", "eyes" -> "eyes"."""
    if is_plural(noun):
        return noun
    return f"{'an' if noun[0].casefold() in 'aeiou' else 'a'} {noun}"


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
    """Whether it is made of light, such as a "highlight", and has no colour of its own."""
    head = _head(noun.casefold())
    return any(head in (light, plural(light)) for light in _LIGHT)


def _head(noun: str) -> str:
    """The word that says what kind of thing it is: "spoon bowl" -> "bowl"."""
    return noun.partition(" of ")[0].split(" ")[-1]


def listing(items: Sequence[str]) -> str:
    """["an ear", "a nose", "eyes"] -> "an ear, a nose and eyes"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def counted(noun: str, number: int) -> str:
    """ "eye", 2 -> "two eyes"; above nine it is "many"."""
    if number == 1:
        return indefinite(noun)
    return f"{_DIGITS[number - 1] if number < 10 else 'many'} {plural(noun)}"
