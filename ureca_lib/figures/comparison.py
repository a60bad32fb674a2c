"""Captions of several systems for the same regions, side by side (after Figs. 4, 6, 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ureca_lib.figures.outlines import close_up, draw_outline, draw_photo
from ureca_lib.figures.page import Box, Page, broken, lines_height
from ureca_lib.figures.style import FAINT, PAGE_WIDTH, RIGHT_COLOUR, WRONG_COLOUR
from ureca_lib.regions import Region

_PICTURE = (1.3, 0.87)  # inches, width and height
_PAD = 0.08  # inches
_HEAD, _BODY, _SMALL = 7.5, 7.0, 6.0  # points
_MOST_LINES = 12  # of a caption
_OURS = "#EAF2F8"  # behind the column that is pointed out


@dataclass(frozen=True)
class ComparedRegion:
    """A region and what each system says of it.

    Args:
        image: (H, W, 3) uint8.
        region: of the image.
        captions: text by the system's name; a system without one is shown with a dash.
        fits: by the system's name, how many regions of the image its caption fits and whether
            this one is among them, where that is known; None for a caption that whoever counts
            cannot read. Drawn as a mark under the caption.
        note: a line under the picture, such as its size.
    """

    image: np.ndarray
    region: Region
    captions: Mapping[str, str]
    fits: Mapping[str, tuple[int, bool] | None] | None = None
    note: str = ""


def comparison_figure(
    rows: Sequence[ComparedRegion], systems: Sequence[str], ours: str | None = None
) -> Figure:
    """A grid: one row a region, with its picture, one column a system.

    Args:
        rows: regions, from the same image or from several.
        systems: whose captions are shown, in this order; at most 5.
        ours: the system whose column is pointed out.

    Raises:
        ValueError: no rows, no systems or too many, or `ours` is not among them.
    """
    if not rows or not 0 < len(systems) <= 5:
        raise ValueError(f"a grid has rows and 1 to 5 systems, not {len(rows)} and {len(systems)}")
    if ours is not None and ours not in systems:
        raise ValueError(f"{ours!r} is not among the systems {', '.join(systems)}")
    page = Page()
    column = (PAGE_WIDTH - _PICTURE[0] - _PAD) / len(systems)
    lefts = {name: _PICTURE[0] + _PAD + place * column for place, name in enumerate(systems)}
    room = column - 1.5 * _PAD
    deepest = max(
        page.text(left + _PAD, 0.05, name, room, _HEAD, 2, fontweight="bold").bottom
        for name, left in lefts.items()
    )
    top = deepest + 0.06
    page.draw(_rule(top, "#444444", 0.9))
    for number, row in enumerate(rows):
        if number:
            page.draw(_rule(top, "#CCCCCC", 0.6))
        top = _row(page, row, lefts, room, top + 0.06) + 0.06
    page.draw(_rule(top, "#444444", 0.9), bottom=top)
    if ours is not None:
        patch = Rectangle((lefts[ours], 0), column - 0.5 * _PAD, top, color=_OURS, lw=0)
        page.draw(lambda ax: ax.add_patch(patch), above=False)
    return page.figure()


def _row(
    page: Page, row: ComparedRegion, lefts: Mapping[str, float], room: float, top: float
) -> float:
    """Draws a row; the inches down to its end."""
    height, width = row.image.shape[:2]
    box = Box(0, top, *_PICTURE)
    if height > width:  # an upright photo: as high as it may be, in the middle
        narrow = _PICTURE[0] * max(0.6, width / height)
        box = Box((_PICTURE[0] - narrow) / 2, top, narrow, _PICTURE[1])
    page.picture(box, partial(_draw_region, row))
    bottom = box.bottom
    if row.note:
        style = {"align": "center", "color": FAINT}
        bottom = page.text(0, bottom + 0.03, row.note, _PICTURE[0], _SMALL, 2, **style).bottom
    # a short caption stands in the middle of its row
    blocks = {name: broken(_caption(row, name), room, _BODY, most=_MOST_LINES) for name in lefts}
    tallest = max(_block_height(lines, row, name) for name, lines in blocks.items())
    space = max(bottom - top, tallest)
    for name, left in lefts.items():
        start = top + (space - _block_height(blocks[name], row, name)) / 2
        known = name in row.captions
        style = {"color": "#222222" if known else FAINT}
        text = _caption(row, name)
        said = page.text(left + _PAD, start, text, room, _BODY, _MOST_LINES, **style)
        if row.fits and name in row.fits:
            _mark(page, row.fits[name], left + _PAD, said.bottom + 0.04, room)
    return top + space


def _caption(row: ComparedRegion, name: str) -> str:
    return row.captions.get(name) or "–"


def _block_height(lines: Sequence[str], row: ComparedRegion, name: str) -> float:
    marked = bool(row.fits and name in row.fits)
    return lines_height(len(lines), _BODY) + (0.04 + lines_height(1, _SMALL) if marked else 0)


def _mark(page: Page, fits: tuple[int, bool] | None, left: float, top: float, room: float) -> None:
    """Whether a caption is unique: a sign of its own shape and colour, and words."""
    if fits is None:
        page.text(left, top, "not scenes' words", room, _SMALL, most=1, color=FAINT)
        return
    count, among = fits
    if among:
        told = "fits this region only" if count == 1 else f"fits {count} regions"
    else:
        told = "fits no region" if count == 0 else "fits another region"
    page.draw(_sign(left, top, count == 1 and among))
    page.text(left + 0.13, top, told, room - 0.13, _SMALL, most=1, color=FAINT)


def _sign(left: float, top: float, right: bool) -> Callable[[Axes], None]:
    """A tick or a cross, drawn, so that it does not depend on a font."""
    strokes = (
        [([0, 0.03, 0.085], [0.045, 0.08, 0.005])]
        if right
        else [([0.01, 0.08], [0.01, 0.08]), ([0.01, 0.08], [0.08, 0.01])]
    )
    style = {"color": RIGHT_COLOUR if right else WRONG_COLOUR, "linewidth": 1.3}

    def draw(ax: Axes) -> None:
        for xs, ys in strokes:
            ax.plot(np.add(xs, left), np.add(ys, top), solid_capstyle="round", **style)

    return draw


def _draw_region(row: ComparedRegion, ax: Axes) -> None:
    draw_photo(ax, row.image, [row.region])
    close_up(ax, row.region, context=0.9, least=0.25)
    draw_outline(ax, row.region)


def _rule(y: float, colour: str, width: float) -> Callable[[Axes], None]:
    return lambda ax: ax.plot([0, PAGE_WIDTH], [y, y], color=colour, linewidth=width)
