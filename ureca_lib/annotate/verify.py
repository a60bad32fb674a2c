"""Stage 5: what a verification reply says (Sec. 3, evaluation set)."""

from __future__ import annotations

import re
from typing import NamedTuple


class Verdict(NamedTuple):
    """Whether a caption stays in the test set, and why not."""

    keep: bool
    reason: str | None = None


def parse_verdict(text: str) -> Verdict:
    """Read a verification reply: "keep", or "drop" and the reason.

    Raises:
        ValueError: the reply starts with neither word.
    """
    found = re.match(r"\W*(keep|drop)\b\W*(.*)", text.strip(), re.IGNORECASE | re.DOTALL)
    if found is None:
        raise ValueError(f"a verification reply starts with keep or drop, not {text[:80]!r}")
    reason = found.group(2).strip() or None
    return Verdict(found.group(1).lower() == "keep", reason)
