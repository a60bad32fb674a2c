"""What each stage of the annotation pipeline makes of one region (after Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.figures.outlines import close_up, draw_outline, draw_photo
from ureca_lib.figures.page import Box, Page
from ureca_lib.figures.style import FAINT, PALETTE
from ureca_lib.mask_tree import RegionId

# who a line of text or an outline is about, in every column
_TARGET, _PARENT, _CHILD, _ALIKE = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]
_COLUMN, _GAP = 1.6, 0.1666  # inches; four columns and three gaps make a page
_PICTURE = 1.3  # inches, the highest that a picture may be
_HEAD, _SMALL, _BODY = 7.0, 6.0, 7.0  # points
_TITLES = ("1 · mask tree", "2 · short, top-down", "3 · long, bottom-up", "4 · unique")
_MOST_LINES = 6  # of one caption
_NOTHING = "no caption"


def pipeline_figure(work: AnnotatedImage, region_id: RegionId, most: int = 2) -> Figure:
    """One region on its way through the four stages: what was seen, known and answered.

    Args:
        work: a finished image of a store.
        region_id: of the region that is followed.
        most: how many children and look-alikes are shown.

    Raises:
        KeyError: no such region.
    """
    page = Page()
    region = work.image[region_id]
    children = work.tree.children(region_id)[:most]
    alike = list(work.finals[region_id].look_alikes)[:most]
    lefts = [number * (_COLUMN + _GAP) for number in range(4)]
    for left, title in zip(lefts, _TITLES, strict=True):
        _heading(page, left, title)
    views = [_last(work.views(stage, region_id)) for stage in ("short", "long", "unique")]
    shapes = [work.image.pixels, *views]
    height = min(_PICTURE, max(_COLUMN * s.shape[0] / s.shape[1] for s in shapes))
    tops = 0.27
    _tree_picture(page, work, region_id, children, Box(lefts[0], tops, _COLUMN, height))
    for left, view in zip(lefts[1:], views, strict=True):
        _picture(page, view, Box(left, tops, _COLUMN, height), _fill(view))
    below = tops + height + 0.08
    _tree_text(page, work, region_id, children, lefts[0], below)
    parent = work.tree.parent(region_id)
    short = [] if parent is None else [(_PARENT, "parent", work.text("short", parent))]
    short.append((_TARGET, _name(region), work.text("short", region_id)))
    long = [(_CHILD, "part", work.text("long", child)) for child in children]
    long.append((_TARGET, _name(region), work.text("long", region_id)))
    unique = [(_ALIKE, "look-alike", work.text("unique", other)) for other in alike]
    unique.append((_TARGET, _name(region), work.text("unique", region_id)))
    for left, rows in zip(lefts[1:], (short, long, unique), strict=True):
        _said(page, left, below, rows)
    for left in lefts[1:]:
        _arrow(page, left - _GAP + 0.02, left - 0.02, tops + height / 2)
    return page.figure()


def telling_region(work: AnnotatedImage) -> RegionId:
    """A region that shows most of the pipeline: with a parent, parts, and a changed caption.

    Args:
        work: a finished image of a store.

    Returns:
        Of those that show most, the largest one's id.
    """

    def told(region_id: RegionId) -> tuple[int, int]:
        long, unique = (work.text(stage, region_id) for stage in ("long", "unique"))
        shown = (
            bool(unique) and unique != long,
            bool(work.finals[region_id].look_alikes),
            work.tree.parent(region_id) is not None,
            bool(work.tree.children(region_id)),
        )
        return sum(shown), work.image[region_id].area

    return max(work.finals, key=told)


def _heading(page: Page, left: float, title: str) -> None:
    style = {"facecolor": "#E8EEF4", "edgecolor": "none", "boxstyle": "round,pad=0"}
    box = FancyBboxPatch((left, 0.02), _COLUMN, 0.19, **style)
    page.draw(lambda ax: ax.add_patch(box), above=False)
    page.text(left, 0.06, title, _COLUMN, _HEAD, align="center", fontweight="bold", most=1)


def _picture(page: Page, shown: np.ndarray, place: Box, draw: Callable[[Axes], None]) -> None:
    """A picture in its own shape, in the middle of a place."""
    rows, columns = shown.shape[:2]
    width = min(place.width, place.height * columns / rows)
    height = width * rows / columns
    left = place.left + (place.width - width) / 2
    page.picture(Box(left, place.top + (place.height - height) / 2, width, height), draw)


def _fill(view: np.ndarray) -> Callable[[Axes], None]:
    return lambda ax: draw_photo(ax, view)


def _tree_picture(
    page: Page,
    work: AnnotatedImage,
    region_id: RegionId,
    children: Sequence[RegionId],
    place: Box,
) -> None:
    image, parent = work.image, work.tree.parent(region_id)

    def draw(ax: Axes) -> None:
        draw_photo(ax, image.pixels)
        close_up(ax, image[region_id if parent is None else parent], context=0.25)
        if parent is not None:
            draw_outline(ax, image[parent], _PARENT)
        draw_outline(ax, image[region_id], _TARGET)
        for child in children:
            draw_outline(ax, image[child], _CHILD, 1.1)

    _picture(page, image.pixels, place, draw)


def _tree_text(
    page: Page,
    work: AnnotatedImage,
    region_id: RegionId,
    children: Sequence[RegionId],
    left: float,
    top: float,
) -> None:
    """The region's branch of the tree, a line each, indented by level."""
    tree = work.tree
    up = list(reversed(tree.ancestors(region_id)))
    rows = [("image", 0, "#444444", False)]
    for depth, other in enumerate(up, 1):
        rows.append((_name(work.image[other]), depth, _PARENT if other == up[-1] else FAINT, False))
    rows.append((_name(work.image[region_id]), len(up) + 1, _TARGET, True))
    rows += [(_name(work.image[child]), len(up) + 2, _CHILD, False) for child in children]
    rest = len(tree.children(region_id)) - len(children)
    if rest > 0:
        rows.append((f"and {rest} more", len(up) + 2, FAINT, False))
    step, size = 0.13, _SMALL + 0.5
    for number, (text, depth, colour, bold) in enumerate(rows):
        x, y = left + 0.06 + step * depth, top + 0.15 * number
        page.draw(_node(x, y + 0.06, colour, step if depth else 0, _up(rows, number)))
        weight = "bold" if bold else "normal"
        room = _COLUMN - (x - left) - 0.09
        page.text(x + 0.09, y, text, room, size, most=1, fontweight=weight)


def _up(rows: Sequence[tuple], number: int) -> float:
    """Inches from a line up to that of its parent."""
    depth = rows[number][1]
    parents = (n for n in range(number - 1, -1, -1) if rows[n][1] == depth - 1)
    return 0.15 * (number - next(parents, number))


def _node(x: float, y: float, colour: str, step: float, up: float) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        if step:
            ax.plot([x - step, x - step, x], [y - up, y, y], color="#BBBBBB", lw=0.8, zorder=1)
        ax.plot(x, y, "o", ms=4, color=colour, zorder=2)

    return draw


def _said(page: Page, left: float, top: float, rows: Sequence[tuple[str, str, str]]) -> None:
    """Captions below each other, each with whose it is; the last one is the stage's answer."""
    for number, (colour, who, text) in enumerate(rows):
        last = number == len(rows) - 1
        head = page.text(left + 0.1, top, who, _COLUMN - 0.1, _SMALL, most=1, color=FAINT)
        weight = "bold" if last else "normal"
        room = _COLUMN - 0.1
        said = text or _NOTHING
        body = page.text(
            left + 0.1, head.bottom + 0.02, said, room, _BODY, _MOST_LINES, fontweight=weight
        )
        page.draw(_bar(left, top, body.bottom, colour))
        top = body.bottom + 0.09


def _bar(left: float, top: float, bottom: float, colour: str) -> Callable[[Axes], None]:
    return lambda ax: ax.add_patch(Rectangle((left, top), 0.04, bottom - top, color=colour, lw=0))


def _arrow(page: Page, start: float, stop: float, y: float) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 7, "color": "#444444", "linewidth": 1}
    arrow = FancyArrowPatch((start, y), (stop, y), shrinkA=0, shrinkB=0, **style)
    page.draw(lambda ax: ax.add_patch(arrow))


def _last(views: Sequence[np.ndarray]) -> np.ndarray:
    """The picture that the annotator is shown last: of the target itself."""
    return views[-1]


def _name(region) -> str:
    return region.name or f"region {region.id}"
