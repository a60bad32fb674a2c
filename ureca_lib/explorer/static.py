"""The explorer's view as a figure: for papermill, exported pages and papers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ureca_lib.explorer.captions import Judgement
from ureca_lib.explorer.geometry import outline_rings
from ureca_lib.explorer.view import verdict
from ureca_lib.figures.style import FAINT, INK, PAGE_WIDTH, PALETTE, TARGET_COLOR, wrapped
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region

if TYPE_CHECKING:
    from ureca_lib.explorer.exploration import Exploration

_SIDE = 1200  # pixels of the photo's longer side in the figure
_LETTERS = 50  # of a line of text in the right half
_LINE = 0.148  # inches from one line of text to the next
_NUMBERS = 25  # of them fit side by side along the photo
_RIVAL = PALETTE[4]


def explorer_figure(state: Exploration, region_id: RegionId | None = None) -> Figure:
    """The photo with a region and its rivals, and beside it what the panel would say.

    Captions and probabilities are those that are known already.

    Args:
        state: what is explored.
        region_id: the region; None shows all of them.
    """
    height, width = state.pixels.shape[:2]
    panel = 3.3
    tall = (PAGE_WIDTH - panel) * height / width
    lines = _panel_lines(state, region_id)
    size = (PAGE_WIDTH, max(tall, _LINE * (1 + sum(_rows(line) for line in lines))) + 0.1)
    figure = plt.figure(figsize=size)
    left = figure.add_axes(
        (0.0, 1 - tall / size[1], (PAGE_WIDTH - panel) / PAGE_WIDTH, tall / size[1])
    )
    photo = Image.fromarray(state.pixels)
    photo.thumbnail((_SIDE, _SIDE))
    left.imshow(photo, extent=(0, width, height, 0), aspect="auto")
    left.axis("off")
    _draw_regions(left, state, region_id)
    start = (PAGE_WIDTH - panel + 0.15) / PAGE_WIDTH
    right = figure.add_axes((start, 0, 1 - start, 1))
    right.set(xlim=(0, panel - 0.15), ylim=(size[1], 0))
    right.axis("off")
    _write(right, lines)
    return figure


def figure_png(figure: Figure, dpi: int = 110) -> bytes:
    """A figure as PNG; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def _draw_regions(ax: Axes, state: Exploration, region_id: RegionId | None) -> None:
    for one in state.tree.top_down():
        _outline(ax, one, "white", 0.5, alpha=0.75)
    if region_id is None:
        return
    judgement = state.judged(region_id)
    taken: list[np.ndarray] = []
    for number, rival in enumerate(judgement.rivals if judgement else (), 1):
        region = state.tree[rival.region_id]
        _outline(ax, region, _RIVAL, 1.2)
        place = _free_place(region, taken)
        taken.append(place)
        style = {"boxstyle": "circle,pad=0.15", "facecolor": _RIVAL, "edgecolor": "black"}
        ax.text(*place, str(number), fontsize=6, ha="center", va="center",
                bbox=style | {"linewidth": 0.5}, color="black", clip_on=True)  # fmt: skip
    _outline(ax, state.tree[region_id], TARGET_COLOR, 2.0)


def _free_place(region: Region, taken: Sequence[np.ndarray]) -> np.ndarray:
    """(x, y) on a region's outline where there is room for a number beside those that stand."""
    ring = max(outline_rings(region), key=len)
    candidates = ring[np.linspace(0, len(ring) - 1, 13).astype(int)]
    if not taken:
        return candidates[0]
    gaps = np.linalg.norm(candidates[:, None] - np.array(taken), axis=2).min(1)  # (places,)
    free = np.flatnonzero(gaps > max(region.size) / _NUMBERS)
    return candidates[free[0] if len(free) else gaps.argmax()]


def _outline(ax: Axes, region: Region, colour: str, width: float, alpha: float = 1.0) -> None:
    casing = [patheffects.withStroke(linewidth=width + 1.0, foreground="black", alpha=0.6 * alpha)]
    for ring in outline_rings(region):
        line = ax.plot(*ring.T, color=colour, linewidth=width, alpha=alpha, scalex=False)
        ax.set_autoscaley_on(False)
        line[0].set_path_effects(casing)


Line = tuple[str, dict, float | None]  # text, its style, and the length of a bar beside it


def _rows(line: Line) -> float:
    return 0.5 if not line[0] else line[0].count("\n") + 1


def _panel_lines(state: Exploration, region_id: RegionId | None) -> list[Line]:
    if region_id is None:
        facts = f"{len(state.tree)} regions on {state.tree.height()} levels"
        return [_line("image", weight="bold", fontsize=9), _line(facts, color=FAINT)]
    cursor, judgement = state.cursor, state.judged(region_id)
    above = [*reversed(state.tree.ancestors(region_id)), region_id]
    path = " › ".join(["image", *(cursor.label(one) for one in above)])
    entry = state.book.known(region_id)
    lines = [_line(path, color=FAINT, fontsize=6.5), ("", {}, None)]
    lines.append(_line(entry.text if entry else "(no caption)", weight="bold", fontsize=8.5))
    if entry and entry.score is not None:
        lines.append(_line(f"mean log-probability {entry.score:.2f}", color=FAINT))
    said = verdict(entry, judgement)
    colour = {"good": PALETTE[2], "bad": PALETTE[1]}.get(said["kind"], INK)
    mark = {"good": "✓ ", "bad": "✗ "}.get(said["kind"], "")
    lines += [_line(mark + said["text"], color=colour), ("", {}, None)]
    return lines + (_rival_lines(state, judgement) if judgement else [])


def _rival_lines(state: Exploration, judgement: Judgement) -> list[Line]:
    lines = []
    if judgement.probability is not None:
        lines.append(("this region", {"color": INK, "fontsize": 7}, judgement.probability))
    for number, rival in enumerate(judgement.rivals, 1):
        entry = state.book.known(rival.region_id)
        clash = f" ({rival.clash})" if rival.clash else ""
        label = f"{number}  {state.cursor.label(rival.region_id)}{clash}".replace("$", r"\$")
        lines.append((label, {"color": INK, "fontsize": 7}, rival.probability))
        if entry and entry.text:
            lines.append(_line("     " + entry.text, color=FAINT, fontsize=6.5))
    return lines


def _line(text: str, **style: object) -> Line:
    letters = int(_LETTERS * 7 / float(style.get("fontsize", 7)))
    return (wrapped(text, letters), {"color": INK, "fontsize": 7} | style, None)


def _write(ax: Axes, lines: Sequence[Line]) -> None:
    row = _LINE
    for text, style, bar in lines:
        ax.text(0, row, text, va="top", linespacing=1.3, **style)
        if bar is not None:
            ax.add_patch(plt.Rectangle((2.1, row), 0.6 * bar, 0.09, color=_RIVAL))
            ax.add_patch(plt.Rectangle((2.1, row), 0.6, 0.09, fill=False, lw=0.4, ec=FAINT))
            ax.text(2.76, row, f"{100 * bar:.0f}%", va="top", fontsize=6.5, color=INK)
        row += _LINE * _rows((text, style, bar))
