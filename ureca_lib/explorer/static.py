"""The explorer's view as a figure: for papermill, exported pages and papers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ureca_lib.explorer.geometry import outline_rings
from ureca_lib.explorer.state import CaptionCache, Judgement, TreeCursor, verdict
from ureca_lib.figures.style import FAINT, INK, PAGE_WIDTH, PALETTE, TARGET_COLOR, wrapped
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region

_SIDE = 1200  # pixels of the photo's longer side in the figure
_PANEL, _GAP = 3.3, 0.15  # inches of width
_LETTERS, _LETTERS_BESIDE_BAR = 50, 34  # per line of 7 points in the panel
_LINE = 0.148  # inches from one line of text to the next
_NUMBERS = 25  # badges that fit side by side along the photo
_RIVAL = PALETTE[4]  # as in explorer.css
_VERDICTS = {"good": ("✓ ", PALETTE[2]), "bad": ("✗ ", PALETTE[1]), "": ("", INK)}

Line = tuple[str, dict, float | None]  # text, its style, and the value of a bar beside it
_BLANK: Line = ("", {"x": 0}, None)


class Explored(Protocol):
    """The parts of a `RegionExplorer` that its still picture shows."""

    pixels: np.ndarray
    tree: MaskTree
    book: CaptionCache
    cursor: TreeCursor


def explorer_figure(
    explorer: Explored, region_id: RegionId | None = None, note: str = ""
) -> Figure:
    """Draw the photo with a region and its rivals, and beside it the content of the panel.

    Only captions and judgements that are known already are shown.

    Args:
        explorer: with the image.
        region_id: of the region; None shows all regions.
        note: last line of the panel.
    """
    height, width = explorer.pixels.shape[:2]
    judgement = explorer.book.judgements.get(region_id)
    lines = _panel_lines(explorer, region_id, judgement)
    lines += [_BLANK, _line(note, color=FAINT, fontsize=6.5)] if note else []
    wide = PAGE_WIDTH - _PANEL
    tall = wide * height / width
    page = max(tall, _LINE * (1 + sum(map(_rows, lines)))) + 0.1
    figure = plt.figure(figsize=(PAGE_WIDTH, page))
    left = figure.add_axes((0, 1 - tall / page, wide / PAGE_WIDTH, tall / page))
    photo = Image.fromarray(explorer.pixels)
    photo.thumbnail((_SIDE, _SIDE))
    left.imshow(photo, extent=(0, width, height, 0), aspect="auto")
    left.axis("off")
    left.autoscale(False)
    for region in explorer.tree.top_down():
        _outline(left, region, "white", 0.5, alpha=0.75)
    if judgement:
        _draw_rivals(left, explorer, judgement)
    if region_id is not None:
        _outline(left, explorer.tree[region_id], TARGET_COLOR, 2.0)
    start = (wide + _GAP) / PAGE_WIDTH
    right = figure.add_axes((start, 0, 1 - start, 1))
    right.set(xlim=(0, _PANEL - _GAP), ylim=(page, 0))
    right.axis("off")
    _write(right, lines)
    return figure


def figure_png(figure: Figure, dpi: int = 110) -> bytes:
    """Encode a figure as PNG, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def _draw_rivals(ax: Axes, explorer: Explored, judgement: Judgement) -> None:
    taken: list[np.ndarray] = []
    for number, rival in enumerate(judgement.rivals, 1):
        region = explorer.tree[rival.region_id]
        _outline(ax, region, _RIVAL, 1.2)
        taken.append(_free_place(region, taken))
        style = {"boxstyle": "circle,pad=0.15", "facecolor": _RIVAL, "edgecolor": "black"}
        ax.text(*taken[-1], str(number), fontsize=6, ha="center", va="center",
                bbox=style | {"linewidth": 0.5}, color="black", clip_on=True)  # fmt: skip


def _free_place(region: Region, taken: Sequence[np.ndarray]) -> np.ndarray:
    """(x, y) on a region's outline with room for a number beside those that are there."""
    ring = max(outline_rings(region), key=len)
    candidates = ring[np.linspace(0, len(ring) - 1, 13).astype(int)]
    if not taken:
        return candidates[0]
    gaps = np.linalg.norm(candidates[:, None] - np.array(taken), axis=2).min(1)  # (places,)
    free = np.flatnonzero(gaps > max(region.size) / _NUMBERS)
    return candidates[free[0] if len(free) else gaps.argmax()]


def _outline(ax: Axes, region: Region, color: str, width: float, alpha: float = 1.0) -> None:
    # one line for all rings, which NaN separates: a ragged mask can have thousands of them
    rings = [np.vstack([ring, (np.nan, np.nan)]) for ring in outline_rings(region)]
    (line,) = ax.plot(*np.concatenate(rings).T, color=color, linewidth=width, alpha=alpha)
    casing = patheffects.withStroke(linewidth=width + 1.0, foreground="black", alpha=0.6 * alpha)
    line.set_path_effects([casing])


def _rows(line: Line) -> float:
    return 0.5 if not line[0] else line[0].count("\n") + 1


def _line(text: str, bar: float | None = None, **style: object) -> Line:
    wide = _LETTERS if bar is None else _LETTERS_BESIDE_BAR
    letters = int(wide * 7 / float(style.get("fontsize", 7)))
    return (wrapped(text, letters), {"x": 0, "color": INK, "fontsize": 7} | style, bar)


def _panel_lines(
    explorer: Explored, region_id: RegionId | None, judgement: Judgement | None
) -> list[Line]:
    tree, label = explorer.tree, explorer.cursor.label
    if region_id is None:
        facts = f"{len(tree)} regions on {tree.height()} levels"
        return [_line("image", weight="bold", fontsize=9), _line(facts, color=FAINT)]
    path = " › ".join(map(label, (None, *reversed(tree.ancestors(region_id)), region_id)))
    entry = explorer.book.known(region_id)
    lines = [_line(path, color=FAINT, fontsize=6.5), _BLANK]
    lines.append(_line(entry.text if entry else "(no caption)", weight="bold", fontsize=8.5))
    if entry and entry.score is not None:
        lines.append(_line(f"mean log-probability {entry.score:.2f}", color=FAINT))
    found = verdict(entry, judgement)
    mark, color = _VERDICTS[found["kind"]]
    lines += [_line(mark + found["text"], color=color), _BLANK]
    if judgement and judgement.probability is not None:
        lines.append(_line("this region", judgement.probability))
    for number, rival in enumerate(judgement.rivals if judgement else (), 1):
        clash = f" ({rival.clash})" if rival.clash else ""
        lines.append(_line(f"{number}  {label(rival.region_id)}{clash}", rival.probability))
        other = explorer.book.known(rival.region_id)
        if other and other.text:
            lines.append(_line(other.text, color=FAINT, fontsize=6.5, x=_GAP))
    return lines


def _write(ax: Axes, lines: Sequence[Line]) -> None:
    row = _LINE
    for line in lines:
        text, style, bar = line
        ax.text(y=row, s=text, va="top", linespacing=1.3, **style)
        if bar is not None:
            ax.add_patch(plt.Rectangle((2.1, row), 0.6 * bar, 0.09, color=_RIVAL))
            ax.add_patch(plt.Rectangle((2.1, row), 0.6, 0.09, fill=False, lw=0.4, ec=FAINT))
            ax.text(2.76, row, f"{100 * bar:.0f}%", va="top", fontsize=6.5, color=INK)
        row += _LINE * _rows(line)
