"""What all figures share: a colour-blind-safe palette, sizes, text without mathematics."""

from __future__ import annotations

import textwrap

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")  # Okabe-Ito
TARGET_COLOUR = "#FFD700"  # the pipeline's contours are yellow
COLUMN_WIDTH, PAGE_WIDTH = 3.3, 6.9  # inches, of a two-column paper
SMALLEST = 6  # points, of any text at those widths
INK, FAINT = "#222222", "#5A5A5A"  # text, and text that may be passed over
# right and wrong are told apart by shape too, never by colour alone
RIGHT_COLOUR, WRONG_COLOUR = PALETTE[2], PALETTE[1]


def wrapped(text: str, width: int) -> str:
    """A caption broken into lines of at most `width` characters, safe for matplotlib."""
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")
