"""Style of all figures: colors, sizes, text that fits its place, a grid in inches, saved files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")  # Okabe-Ito
TARGET_COLOR = "#FFD700"  # the pipeline's contours are yellow
COLUMN_WIDTH, PAGE_WIDTH = 3.3, 6.9  # inches, of a two-column paper
SMALL, BODY, HEAD = 6.5, 7.0, 8.0  # points; nothing is smaller than 6 at those widths
INK, FAINT = "#222222", "#5A5A5A"  # text, and secondary text
# right and wrong differ in shape too, never in color alone
RIGHT_COLOR, WRONG_COLOR = PALETTE[2], PALETTE[1]
LINE_COLORS = (*PALETTE[:6], INK, FAINT)  # yellow is hard to see as a thin line
MARKERS = "osD^vP*Xh"
LEGEND = {"fontsize": SMALL, "frameon": False}
_MOST_LINES = 12  # of a text
_MOST_LETTERS = 10_000  # of a text that are looked at
_GAP = 0.1  # inches between pictures
_PANELS = 4  # in a row

# words for recorded names; values whose label has a percent sign are shares from 0 to 1
WORDS = {
    "exact_match": "exact match, % ↑",
    "unique": "unique captions, % ↑",
    "collision_equal": "equal captions, % ↓",
    "collision_near": "nearly equal captions, % ↓",
    "recall_at_1": "recall at 1, % ↑",
    "mean_iou_tiles": "mean IoU of tiles, % ↑",
    "mean_iou_single": "mean IoU of one mask, % ↑",
    "different_tiles": "tiles of more than one value",
    "num_mask_tokens": "mask tokens per tile",
    "max_tiles": "most tiles of an image",
}

# no dates and no names of programs, so that a file changes only if its data do
_NO_STAMPS: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}
# letters stay text, to be searched and edited; SVG ids come from a fixed salt
_LETTERS = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "ureca"}


def label_of(name: str) -> str:
    """Words for a recorded name, such as "unique captions, % ↑" for "unique"."""
    return WORDS.get(name, name.replace("_", " "))


def wrapped(text: str, width: int, lines: int = _MOST_LINES) -> str:
    """Break a text into lines, safe for matplotlib; an ellipsis marks the cut of a longer text.

    Args:
        text: any, also with letters that no font has, control characters or `$`.
        width: letters per line, at most; a longer word is broken.
        lines: at most.
    """
    # one word of thousands of letters must not cost more than the letters that are shown
    printable = "".join(c if c.isprintable() else " " for c in text[:_MOST_LETTERS])
    shown = " ".join(printable.split())[: lines * (width + 1) + 1]
    style = {"placeholder": "…", "break_on_hyphens": False, "max_lines": lines}
    return "\n".join(textwrap.wrap(shown, width, **style)).replace("$", r"\$")


def fitted(text: str, inches: float, size: float = BODY, lines: int = _MOST_LINES) -> str:
    """Break a text as `wrapped` does, into lines of at most `inches` at `size` points."""
    width = max(1, int(inches * 72 / (0.5 * size)))  # an average letter is half as wide as high
    while True:
        block = wrapped(text, width, lines)
        widest = max(text_width(line, size) for line in block.split("\n"))
        if widest <= inches or width == 1:
            return block
        width = max(1, min(width - 1, int(width * inches / widest)))


@lru_cache(4096)
def text_width(line: str, size: float) -> float:
    """Width of a line in inches, with a reserve for screens and bold letters."""
    font = FontProperties(size=100)
    return text_to_path.get_text_width_height_descent(line, font, False)[0] * size / 7200 * 1.04


def text_height(block: str, size: float = BODY) -> float:
    """Height of a broken text in inches; 0 for none."""
    return (block.count("\n") + 1) * 1.25 * size / 72 if block else 0.0


def sheet(
    widths: Sequence[float], heights: Sequence[float], gap: float = 0.1
) -> tuple[Figure, np.ndarray]:
    """Make a figure of columns and rows of these inches, without margins.

    Args:
        widths, heights: of the columns and rows.
        gap: inches between columns.

    Returns:
        The figure, and its axes (rows, columns): empty, with inches from their top left corner
        as the unit.
    """
    size = (sum(widths) + gap * (len(widths) - 1), sum(heights))
    grid = {"width_ratios": widths, "height_ratios": heights, "wspace": gap / np.mean(widths)}
    grid |= {"left": 0, "right": 1, "bottom": 0, "top": 1, "hspace": 0}
    shape = {"nrows": len(heights), "ncols": len(widths), "squeeze": False}
    figure, axes = plt.subplots(**shape, figsize=size, gridspec_kw=grid)
    for (row, column), ax in np.ndenumerate(axes):
        ax.set(xlim=(0, widths[column]), ylim=(heights[row], 0))
        ax.axis("off")
    return figure, axes


def write(
    ax: Axes,
    block: str,
    size: float = BODY,
    align: str = "left",
    down: float = 0.0,
    right: float = 0.0,
    **style: Any,
) -> float:
    """Write a broken text into a cell of a `sheet`.

    Args:
        ax: the cell.
        block: from `fitted` or `wrapped`.
        size: in points.
        align: "left", "center" or "right".
        down: inches from the top of the cell.
        right: inches by which the text is moved to the right.
        style: of matplotlib's text.

    Returns:
        Inches from the top of the cell to the end of the text.
    """
    start = right + {"left": 0.0, "center": 0.5, "right": 1.0}[align] * ax.get_xlim()[1]
    ax.text(start, down, block, ha=align, va="top", fontsize=size, **{"color": INK} | style)
    return down + text_height(block, size)


def panels(notes: Sequence[Sequence[str]], columns: int, shape: float) -> tuple[Figure, list[Axes]]:
    """Make a page of pictures in rows, with text below each.

    Args:
        notes: per picture a short head, which is cut to a line, and paragraphs.
        columns: pictures per row.
        shape: width of each picture over its height.

    Returns:
        The figure, and the axes of each picture.
    """
    width = (PAGE_WIDTH - (columns - 1) * _GAP) / columns
    blocks = [
        (fitted(head, width, SMALL, 1), "\n".join(fitted(text, width) for text in body))
        for head, *body in notes
    ]
    heights = []
    for first in range(0, len(blocks), columns):
        row = blocks[first : first + columns]
        below = max(text_height(head, SMALL) + text_height(body) for head, body in row)
        heights += [width / shape, below + 0.15]
    figure, grid = sheet([width] * columns, heights, _GAP)
    for cell, (head, body) in zip(grid[1::2].flat, blocks, strict=False):
        down = write(cell, head, SMALL, down=0.04, color=FAINT)
        write(cell, body, down=down)
    return figure, list(grid[::2].flat)[: len(blocks)]


def chart(ax: Axes, x: str = "", y: str = "", grid: str = "y", title: str = "") -> None:
    """Give a chart the style of all charts, and its labels."""
    ax.set_xlabel(wrapped(x, 60), fontsize=HEAD, color=INK)
    ax.set_ylabel(wrapped(y, 30), fontsize=HEAD, color=INK)
    ax.set_title(wrapped(title, 26), fontsize=HEAD, color=INK)
    ax.tick_params(labelsize=SMALL, length=2.5, colors=INK)
    ax.grid(axis=grid, color="#DDDDDD", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def marks(number: int) -> dict[str, Any]:
    """Marker and color of a line; where colors begin anew, markers are open."""
    color = LINE_COLORS[number % len(LINE_COLORS)]
    face = color if number < len(LINE_COLORS) else "white"
    shape = MARKERS[number % len(MARKERS)]
    return {"marker": shape, "color": color, "markerfacecolor": face, "markersize": 4}


Interval = tuple[float, float | None, float | None]  # value, low, high


def size_chart(
    ax: Axes,
    curves: Mapping[str, Mapping[str, Interval]],
    y: str,
    counts: Mapping[str, str] | None = None,
) -> None:
    """Draw a share by the size of regions, one line per system.

    Args:
        ax: of a figure with room for the legend beside or in it.
        curves: by system and size, from the smallest size, values in percent with their bounds;
            a bound that is not known is None. Bounds are cut at 0 and 100.
        y: label of the axis.
        counts: number of captions by size, written below the size.
    """
    sizes = list(dict.fromkeys(size for curve in curves.values() for size in curve))
    for number, (name, curve) in enumerate(curves.items()):
        if curve:
            # side by side within a size, so that intervals do not hide each other
            shift, style = 0.08 * (number - (len(curves) - 1) / 2), marks(number)
            places = [sizes.index(size) + shift for size in curve]
            values, *ends = np.array(list(curve.values()), float).T
            ax.vlines(places, *np.clip(ends, 0, 100), color=style["color"], linewidth=0.8)
            label = wrapped(name, 24)
            ax.plot(places, values, label=label, clip_on=False, linewidth=1, **style)
    ticks = [short_size(size) + (f"\n({counts[size]})" if counts else "") for size in sizes]
    ax.set_xticks(range(len(sizes)), ticks)
    # shares end at 100, and if all are near 0, nothing is magnified
    ax.set(xlim=(-0.5, len(sizes) - 0.5), ylim=(0, min(max(5, ax.get_ylim()[1]), 104)))
    chart(ax, "share of the image, %" + (" (regions)" if counts else ""), y)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), **LEGEND)


def interval_panels(
    rows: Mapping[str, Mapping[str, Interval]], titles: Mapping[str, str]
) -> tuple[Figure, list[Axes]]:
    """Draw a panel per value and a line per row: the value and its interval.

    Args:
        rows: by label, from the top, values and their bounds by name.
        titles: of the panels, by the name of their value.

    Returns:
        The figure, and the axes of each panel.
    """
    labels = [wrapped(label, 24, 2) for label in rows]
    line = 0.07 + 0.125 * max(label.count("\n") + 1 for label in labels)
    count, columns = -(-len(titles) // _PANELS), min(_PANELS, len(titles))
    size = (PAGE_WIDTH, count * (0.62 + line * len(rows)))
    style = {"squeeze": False, "sharey": True, "layout": "constrained"}
    figure, grid = plt.subplots(count, columns, figsize=size, **style)
    for ax in grid.flat[len(titles) :]:
        ax.set_axis_off()
    for ax, (name, title) in zip(grid.flat, titles.items(), strict=False):
        for place, values in enumerate(rows.values()):
            if name in values:
                style, (value, *ends) = marks(place), values[name]
                ax.plot(ends, [place] * 2, color=style["color"], linewidth=1)
                ax.plot([value], [place], linestyle="", **style)
        chart(ax, grid="x", title=title)
        ax.margins(x=0.1)
        ax.set_yticks(range(len(rows)), labels)
    grid[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    return figure, list(grid.flat)[: len(titles)]


def short_size(size: str) -> str:
    """Shorten `0.1% to 0.7%` to `0.1–0.7`, which fits under a chart."""
    bare = re.sub(r"%|\$", "", size).replace(" to ", "–")
    return wrapped(bare.replace("below ", "< ").replace("from ", "≥ "), 14)


def save_figure(figure: Figure, path: str | Path, dpi: int = 200, trim: bool = True) -> Path:
    """Save a figure by the file's suffix; a PNG is joined by a vector PDF of the same stem.

    Args:
        figure: to save.
        path: `.png`, `.pdf` or `.svg`.
        dpi: of a PNG, and of photos inside a vector file.
        trim: cut the margins to the content; False keeps the figure's own width, which is a
            paper's (see `COLUMN_WIDTH` and `PAGE_WIDTH`), so that points stay points in print.

    Returns:
        The path.

    Raises:
        ValueError: another suffix.
    """
    target = Path(path)
    if target.suffix not in _NO_STAMPS:
        raise ValueError(f"{target}: a figure is saved as {', '.join(_NO_STAMPS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    box = "tight" if trim else None
    with matplotlib.rc_context(_LETTERS):
        for suffix in {".png": (".png", ".pdf")}.get(target.suffix, (target.suffix,)):
            stamps = _NO_STAMPS[suffix]
            figure.savefig(target.with_suffix(suffix), dpi=dpi, bbox_inches=box, metadata=stamps)
    return target
