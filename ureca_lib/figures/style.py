"""What all figures share: a colour-blind-safe palette, sizes, saving."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")  # Okabe-Ito
TARGET_COLOUR = "#FFD700"  # the pipeline's contours are yellow
COLUMN_WIDTH, PAGE_WIDTH = 3.3, 6.9  # inches, of a two-column paper


def wrapped(text: str, width: int) -> str:
    """A caption broken into lines of at most `width` characters, safe for matplotlib."""
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")


def save_figure(figure: Figure, path: str | Path, dpi: int = 200) -> Path:
    """Save a figure by the file's suffix; a PNG is joined by a vector PDF of the same stem.

    Args:
        figure: what to save.
        path: `.png`, `.pdf` or `.svg`.
        dpi: of a PNG, and of photos inside a vector file.

    Returns:
        The path.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=dpi, bbox_inches="tight")
    if target.suffix == ".png":
        figure.savefig(target.with_suffix(".pdf"), dpi=dpi, bbox_inches="tight")
    return target
