"""Attributes that a caption names, by kind: how dense it is, whoever wrote it."""

from __future__ import annotations

import re

from ureca_lib.annotate.referring.colors import BASIC_COLORS

_KINDS: dict[str, frozenset[str]] = {
    "color": frozenset(
        [
            *BASIC_COLORS,
            *("gray", "gold", "golden", "silver", "tan", "maroon", "cream", "turquoise", "teal"),
            *("colorful", "colourful", "dark", "light", "bright", "pale"),
        ]
    ),
    "size": frozenset(
        [
            *("large", "larger", "largest", "small", "smaller", "smallest", "big", "tiny", "huge"),
            *("tall", "taller", "tallest", "short", "shorter", "shortest", "long", "wide"),
            *("wider", "widest", "narrow", "narrower", "narrowest", "thin", "thick"),
        ]
    ),
    "shape": frozenset(
        [
            *("round", "rounded", "circular", "oval", "square", "rectangular", "triangular"),
            *("curved", "straight", "flat", "pointed", "cylindrical", "spherical", "slanted"),
            *("arched", "folded", "bent", "curly"),
        ]
    ),
    "texture": frozenset(
        [
            *("wooden", "metal", "metallic", "plastic", "glass", "leather", "stone", "brick"),
            *("fabric", "knitted", "furry", "fluffy", "smooth", "rough", "shiny", "glossy"),
            *("matte", "transparent", "striped", "spotted", "checkered", "plaid", "patterned"),
            *("textured", "plain", "ribbed", "worn"),
        ]
    ),
    "position": frozenset(
        [
            *("left", "leftmost", "right", "rightmost", "top", "topmost", "bottom", "upper"),
            *("lower", "middle", "center", "centre", "front", "behind", "beside", "above"),
            *("below", "under", "near", "between", "foreground", "background", "corner", "edge"),
        ]
    ),
    "parts": frozenset(("with", "has", "having", "featuring", "wearing", "holding")),
}


def attribute_kinds(caption: str) -> set[str]:
    """Which kinds of attribute a caption names: color, size, shape, texture, position, parts.

    By a closed list of English words, so that the count is a lower bound.
    """
    words = set(re.findall(r"[a-z]+", caption.casefold()))
    return {kind for kind, known in _KINDS.items() if words & known}
