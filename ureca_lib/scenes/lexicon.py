"""The words of the caption language."""

from __future__ import annotations

from functools import lru_cache

from ureca_lib.scenes.palette import COLORS, MATERIALS, PATTERNS

SURFACES = (*COLORS, *MATERIALS)
SIDES = ("top", "bottom", "left", "middle", "right")
PLACES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
ROWS = {"front": "in front", "back": "at the back"}
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
GROUPS = ("pair", "row")
ARTICLES = ("the", "a", "an")

# kinds of whole things, with what they do where they are
VERBS = {
    "house": "stands", "lamp": "stands", "robot": "stands", "sofa": "stands", "tree": "grows",
    "flower": "grows", "mushroom": "grows", "snowman": "stands", "cat": "sits", "car": "stands",
    "train": "stands", "boat": "floats", "balloon": "floats", "plane": "flies",
    "picture": "hangs", "clock": "hangs", "pair": "is", "row": "is", "cloud": "floats",
    "hill": "rises", "mountain": "rises",
}  # fmt: skip
BACKGROUNDS = (
    "sky", "grass", "lawn", "pavement", "road", "pond", "sea", "beach", "snow", "ice", "wall",
    "skirting", "floor", "rug",
)  # fmt: skip
PARTS = (
    "antenna", "apple", "arm", "armrest", "attic", "backrest", "basket", "bee", "bell", "blossom",
    "body", "bulb", "bumper", "button", "cabin", "canvas", "cap", "centre", "chimney", "cockpit",
    "collar", "crown", "cushion", "dial", "door", "dot", "drawing", "ear", "egg", "emblem",
    "engine", "envelope", "eye", "fin", "flag", "foot", "funnel", "hand", "handle", "hat",
    "hatch", "head", "headlight", "hollow", "hub", "hull", "jet", "knob", "leaf", "leg", "lily",
    "manhole", "marking", "mast", "moon", "mouth", "nail", "nest", "nose", "pane", "panel",
    "paw", "pointer", "pole", "porthole", "pupil", "ribbon", "ring", "roof", "sail", "sandbag",
    "scarf", "seat", "shade", "shell", "shutter", "snail", "snowcap", "stalk", "stem", "sun",
    "switch", "tail", "tip", "trunk", "vent", "wagon", "wheel", "window", "wing",
)  # fmt: skip
LINKS = {"sun": "in", "moon": "in", "marking": "on", "lily": "on", "shell": "on", "manhole": "in"}
KINDS = (*VERBS, *BACKGROUNDS, *PARTS)
_IRREGULAR = {"foot": "feet", "leaf": "leaves", "snowman": "snowmen"}
PREPOSITIONS = ("of", "in", "on")


def plural(kind: str) -> str:
    """The plural of a kind."""
    if kind in _IRREGULAR:
        return _IRREGULAR[kind]
    if kind.endswith("y") and kind[-2] not in "aeiou":
        return kind[:-1] + "ies"
    return kind + ("es" if kind.endswith(("s", "x", "ch", "sh")) else "s")


@lru_cache(maxsize=1)
def singulars() -> dict[str, str]:
    """Map from plurals to kinds."""
    return {plural(kind): kind for kind in KINDS}


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """All words and punctuation marks of captions of any style, sorted.

    A caption splits into these by its spaces, with the final full stop and commas apart.
    """
    words = {*KINDS, *SURFACES, *PATTERNS, *SIDES, *NUMBERS, *ARTICLES, *PREPOSITIONS}
    words |= {word for phrase in (*PLACES.values(), *ROWS.values()) for word in phrase.split()}
    words |= {*VERBS.values(), *singulars(), "belongs", "to", "with", "and", "background", ",", "."}
    return tuple(sorted(words))
