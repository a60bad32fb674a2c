"""Colors, materials and patterns that a small model can distinguish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

Rgb = tuple[int, int, int]

COLORS: dict[str, Rgb] = {
    "red": (214, 38, 40),
    "orange": (246, 132, 24),
    "yellow": (250, 214, 48),
    "green": (52, 158, 66),
    "teal": (24, 178, 172),
    "blue": (38, 88, 208),
    "purple": (130, 56, 172),
    "pink": (248, 142, 188),
    "brown": (124, 78, 42),
    "white": (246, 246, 242),
    "grey": (142, 144, 150),
    "black": (38, 38, 44),
}
MATERIALS: dict[str, Rgb] = {
    "brick": (178, 84, 62),
    "wooden": (186, 134, 80),
    "stone": (172, 170, 160),
}
PATTERNS = ("plain", "striped", "dotted", "checkered")
PATTERNED = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white")
BRIGHT = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white")
_CONFUSABLE = (
    {"brick", "red", "brown", "wooden", "orange"},
    {"stone", "grey", "white"},
    {"grey", "black"},
    {"white", "yellow"},
)


def rgb_of(surface: str) -> Rgb:
    """RGB of a surface."""
    return COLORS[surface] if surface in COLORS else MATERIALS[surface]


def accent_of(surface: str) -> Rgb:
    """The second color of a pattern: far lighter, or darker where the surface is light."""
    if surface == "white":
        return 84, 92, 116
    if surface == "yellow":
        return 150, 92, 20
    r, g, b = rgb_of(surface)
    return (r + 3 * 255) // 4, (g + 3 * 255) // 4, (b + 3 * 255) // 4


def apart(first: str, second: str) -> bool:
    """Whether two adjacent surfaces are clearly different."""
    return first != second and not any({first, second} <= pair for pair in _CONFUSABLE)


def pick_apart(rng: Random, choices: Sequence[str], against: Iterable[str]) -> str:
    """Pick a surface that is clearly different from all adjacent ones."""
    against = tuple(against)
    clear = [each for each in choices if all(apart(each, other) for other in against)]
    return rng.choice(clear or list(choices))
