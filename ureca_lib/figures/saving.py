"""Saving figures: a PNG to look at and a vector PDF to print, the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# no dates and no names of programs, so that a figure changes only where its data do
_NO_STAMPS: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}
# letters stay text, to be searched and edited; SVG ids come from a fixed salt
_LETTERS = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "ureca"}


def save_figure(figure: Figure, path: str | Path, dpi: int = 200, trim: bool = True) -> Path:
    """Save a figure by the file's suffix; a PNG is joined by a vector PDF of the same stem.

    Args:
        figure: what to save.
        path: `.png`, `.pdf` or `.svg`.
        dpi: of a PNG, and of photos inside a vector file.
        trim: cut the margins to what is drawn; False keeps the figure's own width, which is a
            paper's (see `COLUMN_WIDTH` and `PAGE_WIDTH`), so that points stay points in print.

    Returns:
        The path.

    Raises:
        ValueError: another suffix.
    """
    target = Path(path)
    if target.suffix not in _NO_STAMPS:
        raise ValueError(f"{target}: figures are saved as {', '.join(_NO_STAMPS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    files = [target, target.with_suffix(".pdf")] if target.suffix == ".png" else [target]
    with matplotlib.rc_context(_LETTERS):
        for file in files:
            stamps = _NO_STAMPS[file.suffix]
            box = "tight" if trim else None
            figure.savefig(file, dpi=dpi, bbox_inches=box, metadata=stamps)
    return target
