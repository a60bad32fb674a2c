"""Markdown tables whose cells say what they are given, whatever characters that has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_LONGEST = 240  # characters of a cell
# inside a line; a colon makes links and emoji only where text follows
_ACTIVE = re.compile(r"([\\`*_\[\]<>|~^&@$]|:(?=\S))")


def escaped(value: Any) -> str:
    """Text in one line that Markdown shows as it is, cut where it is very long.

    Every run of spaces and line ends becomes one space, and characters that are not shown, among
    them those that turn the direction of writing, a replacement character.
    """
    text = " ".join(str(value).split())
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1].rstrip()}…"
    text = _ACTIVE.sub(r"\\\1", printable(text))
    # what would become a link by itself
    return re.sub(r"www\.", lambda found: f"{found[0][:-1]}\\.", text, flags=re.IGNORECASE)


def printable(text: str, keep: str = "") -> str:
    """Replace characters that a terminal obeys instead of showing them, such as escapes.

    Args:
        text: from a file, a server or a model.
        keep: characters that stay, such as line ends.
    """
    return "".join(
        letter
        if letter in keep or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn")
        else "\ufffd"
        for letter in text
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[int] = ()) -> str:
    """A Markdown table; every cell is escaped.

    Args:
        head: names of the columns.
        rows: of as many cells each; whole numbers get separators, None is empty.
        right: columns that are set flush right.
    """
    rule = ["---:" if place in right else "---" for place in range(len(head))]
    lines = [[escaped(name) for name in head], rule]
    lines += [[_cell(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escaped(value)


def percent(part: float, whole: float) -> str:
    """A share with one decimal, such as `97.3%`; a dash where there is nothing to share."""
    return f"{100 * part / whole:.1f}%" if whole else "–"
