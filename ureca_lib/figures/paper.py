"""Figures of the paper's first pages: teaser (Fig. 1), pipeline (Fig. 2), ambiguity (Fig. 5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.figures.outlines import anchor_point, close_view, draw_outline, draw_photo
from ureca_lib.figures.regions import spread_over_levels
from ureca_lib.figures.style import (
    BODY,
    FAINT,
    HEAD,
    INK,
    PAGE_WIDTH,
    PALETTE,
    RIGHT_COLOR,
    SMALL,
    WRONG_COLOR,
    fitted,
    sheet,
    text_height,
    write,
)
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region, RegionImage

_CARD, _LEAD, _STRIPE = 1.72, 0.16, 0.05  # inches: a caption, to the photo, its colored edge
_TARGET, _PARENT, _CHILD, _ALIKE = PALETTE[:4]
_COLUMN, _GAP = 1.6, 0.1666  # inches of the pipeline; four columns and three gaps make a page
_TITLES = ("1 · mask tree", "2 · short, top-down", "3 · long, bottom-up", "4 · unique")
_LINE = 0.14  # inches per line of the pipeline's tree
_MOST_LINES = 9  # of a caption in the pipeline
_MOST_ARROWS = 8


def teaser_figure(regions: RegionImage, tree: MaskTree, captions: Mapping[RegionId, str]) -> Figure:
    """Draw a photo between the captions of up to 6 of its regions, each joined to its region.

    Args:
        regions: with the photo.
        tree: of these regions.
        captions: text by region id; `spread_over_levels` chooses from these regions.
    """
    chosen = spread_over_levels(tree, list(captions), 6)
    anchors, cards = {}, {}
    for one in chosen:
        parts = [regions[other] for other in tree.descendants(one) if other in chosen]
        anchors[one] = anchor_point(regions[one], parts)
        share = 100 * regions[one].area / (regions.width * regions.height)
        head = f"level {tree.depth(one)} · {share:.2g}% of the image"
        cards[one] = (head, fitted(captions[one], 0.95 * (_CARD - 0.1)))
    across = sorted(chosen, key=lambda one: anchors[one][0])
    half = (len(across) + 1) // 2
    sides = [sorted(p, key=lambda one: anchors[one][1]) for p in (across[:half], across[half:])]
    taken = [sum(_card_height(*cards[one]) for one in side) for side in sides]
    width = PAGE_WIDTH - 2 * (_CARD + _LEAD)
    height = max(width * regions.height / regions.width, *(high + 0.5 for high in taken))
    figure, ((left, photo, right),) = sheet([_CARD, width, _CARD], [height], _LEAD)
    draw_photo(photo, regions.pixels)
    colors = dict(zip(chosen, PALETTE, strict=False))
    for one in sorted(chosen, key=lambda one: -regions[one].area):
        draw_outline(photo, regions[one], colors[one], 1.6)
    line = {"linewidth": 1.1, "capstyle": "butt"}
    line["path_effects"] = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    dot = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 9}
    for cell, side, high, align in zip((left, right), sides, taken, ("right", "left"), strict=True):
        space = down = (height - high) / (len(side) + 1)
        for one in side:
            end = _card(cell, *cards[one], colors[one], down, align)
            edge = (_CARD if align == "right" else 0, (down + end) / 2)
            ends = edge, anchors[one], cell.transData, photo.transData
            figure.add_artist(ConnectionPatch(*ends, color=colors[one], **line))
            photo.plot(*anchors[one], "o", color=colors[one], **dot)
            down = end + space
    return figure


def _card_height(head: str, text: str) -> float:
    return text_height(head, SMALL) + text_height(text)


def _card(
    cell: Axes,
    head: str,
    text: str,
    color: str,
    down: float,
    align: str = "left",
    weight: str = "normal",
) -> float:
    """Write a head and a text beside a colored bar; return inches from the top to their end."""
    edge, indent = (0.0, 0.1) if align == "left" else (cell.get_xlim()[1] - _STRIPE, -0.1)
    body = write(cell, head, SMALL, align, down, indent, color=FAINT)
    end = write(cell, text, BODY, align, body, indent, fontweight=weight)
    cell.add_patch(Rectangle((edge, down), _STRIPE, end - down, color=color, lw=0))
    return end


def pipeline_figure(work: AnnotatedImage, region_id: RegionId, most: int = 2) -> Figure:
    """Draw a region on its way through the four stages: pictures, context and answers.

    Args:
        work: a finished image of a store.
        region_id: of the region that is followed.
        most: number of children and look-alikes shown.

    Raises:
        KeyError: no such region.
    """
    image, tree, region = work.image, work.tree, work.image[region_id]
    children, parent = tree.children(region_id)[:most], tree.parent(region_id)
    alike = work.finals[region_id].look_alikes[:most]
    context: dict[str, list[tuple[str, str, RegionId]]] = {
        "short": [] if parent is None else [(_PARENT, "parent", parent)],
        "long": [(_CHILD, "part", child) for child in children],
        "unique": [(_ALIKE, f"look-alike {n}", other) for n, other in enumerate(alike, 1)],
    }
    columns = [
        [
            (fitted(who, 1.5, SMALL, 1), _caption(work.text(stage, one)), color)
            for color, who, one in (*rows, (_TARGET, _name(region), region_id))
        ]
        for stage, rows in context.items()
    ]
    path = [None, *reversed(tree.ancestors(region_id)), region_id]
    names = ["image" if one is None else _name(image[one]) for one in path]
    branch = [*enumerate(names), *((len(path), _name(image[child])) for child in children)]
    rest = len(tree.children(region_id)) - len(children)
    branch += [(len(path), f"and {rest} more")] if rest else []
    hues = [FAINT] * (len(path) - 2) + [_PARENT, _TARGET] + [_CHILD] * len(children) + [FAINT]
    views = [work.views(stage, region_id)[-1] for stage in context]
    tallest = max(view.shape[0] / view.shape[1] for view in (image.pixels, *views))
    said = [sum(_card_height(*row[:2]) + 0.08 for row in column) for column in columns]
    heights = [0.25, min(1.3, _COLUMN * tallest), max(_LINE * len(branch), *said) + 0.08]
    figure, grid = sheet([_COLUMN] * 4, heights, _GAP)
    for cell, title in zip(grid[0], _TITLES, strict=True):
        write(cell, title, HEAD, "center", 0.05, fontweight="bold")
    colors = {parent: _PARENT, region_id: _TARGET, **dict.fromkeys(children, _CHILD)}
    around = image[region_id if parent is None else parent]
    draw_photo(grid[1, 0], image.pixels, view=close_view(around, image.width / image.height, 0.25))
    for one, color in colors.items():
        if one is not None:
            draw_outline(grid[1, 0], image[one], color, 1.1 if color == _CHILD else 1.4)
    for number, ((depth, name), hue) in enumerate(zip(branch, hues, strict=False)):
        text = fitted(f"{'└ ' if depth else ''}● {name}", _COLUMN - 0.12 * depth, SMALL, 1)
        down, right = 0.08 + _LINE * number, 0.12 * depth
        write(grid[2, 0], text, SMALL, down=down, right=right, color=hue)
    arrow = {"arrowstyle": "-|>", "mutation_scale": 7, "color": INK, "shrinkA": 0, "shrinkB": 0}
    for picture, cell, view, column in zip(*grid[1:, 1:], views, columns, strict=True):
        draw_photo(picture, view)
        start = (-_GAP / _COLUMN, 0.5)
        picture.annotate("", (0, 0.5), start, *["axes fraction"] * 2, arrowprops=arrow)
        down = 0.08
        for row in column:
            weight = "bold" if row is column[-1] else "normal"  # the stage's answer
            down = _card(cell, *row, down, weight=weight) + 0.08
    return figure


def _caption(text: str) -> str:
    # bold letters are about a tenth wider
    return fitted(text or "no caption", 0.9 * (_COLUMN - 0.1), BODY, _MOST_LINES)


def _name(region: Region) -> str:
    return region.name or f"region {region.id}"


def telling_region(work: AnnotatedImage) -> RegionId:
    """Choose a region that shows most of the pipeline: parent, parts, a changed caption.

    Args:
        work: a finished image of a store.

    Returns:
        The id of the largest of the regions that show most.
    """

    def shown(region_id: RegionId) -> tuple[int, int]:
        long, unique = (work.text(stage, region_id) for stage in ("long", "unique"))
        parts = (
            bool(unique) and unique != long,
            bool(work.finals[region_id].look_alikes),
            work.tree.parent(region_id) is not None,
            bool(work.tree.children(region_id)),
        )
        return sum(parts), work.image[region_id].area

    return max(work.finals, key=shown)


def ambiguity_figure(
    regions: RegionImage,
    target: RegionId,
    ambiguous: tuple[str, Collection[RegionId]],
    unique: tuple[str, Collection[RegionId]],
) -> Figure:
    """Draw a region under two captions, each with arrows to all regions that it fits.

    A solid green arrow leads to the region that is meant, dashed red ones to the others; if there
    are too many of those, they are only outlined.

    Args:
        regions: with the photo.
        target: the region that both captions are about.
        ambiguous: a caption, and the ids of all regions that it fits.
        unique: another caption, and the ids of all that it fits.
    """
    gap, pad = 0.2, 0.1
    width = (PAGE_WIDTH - gap) / 2
    blocks = [fitted(f"“{text}”", 0.9 * (width - 2 * pad), HEAD) for text, _ in (ambiguous, unique)]
    head = max(text_height(block, HEAD) for block in blocks) + 2 * pad
    photo = min(3.2, width * regions.height / regions.width)
    figure, grid = sheet([width] * 2, [head, 0.26, photo, 0.2], gap)
    for (top, _, ax, below), block, (_, fitting) in zip(
        grid.T, blocks, (ambiguous, unique), strict=True
    ):
        color = RIGHT_COLOR if len(fitting) == 1 else WRONG_COLOR
        frame = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": color}
        down = (head - text_height(block, HEAD)) / 2
        write(top, block, HEAD, "center", down, fontweight="bold", bbox=frame)
        ordered = sorted(fitting, key=lambda one: one == target)  # the target last, on top
        draw_photo(ax, regions.pixels, [regions[one] for one in ordered])
        pointed = ordered if len(ordered) <= _MOST_ARROWS else [target]
        for one in ordered:
            color = RIGHT_COLOR if one == target else WRONG_COLOR
            draw_outline(ax, regions[one], color)
            if one in pointed:
                _point_at(ax, regions[one], color, 0.26 / photo)
        note = f"fits {len(fitting)} region{'' if len(fitting) == 1 else 's'} of the image"
        write(below, note, SMALL, "center", 0.05, color=FAINT)
    return figure


def _point_at(ax: Axes, region: Region, color: str, lead: float) -> None:
    """Draw an arrow from the caption above the photo to a region; `lead` in photo heights."""
    x, y = anchor_point(region)
    # each arrow leaves the caption above its own region, as far as the caption reaches
    start = (0.5 + 0.6 * ((x + 0.5) / region.size[1] - 0.5), 1 + lead)
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 12, "linewidth": 1.5}
    style |= {"color": color, "linestyle": "-" if color == RIGHT_COLOR else (0, (3, 1.5))}
    style |= {"shrinkA": 0, "shrinkB": 0}
    style["path_effects"] = [patheffects.withStroke(linewidth=3.2, foreground="white")]
    ax.annotate("", (x, y), start, textcoords="axes fraction", arrowprops=style, zorder=9)


def shared_name(regions: RegionImage, most: int = _MOST_ARROWS) -> list[RegionId]:
    """Find regions of an image that share a name: a caption of that name alone fits them all.

    Args:
        regions: with names.
        most: number of regions that may share it.

    Returns:
        Of the names that 2 to `most` regions share, the ids of the name whose regions are largest,
        largest first.

    Raises:
        ValueError: no name is shared so.
    """
    named: dict[str, list[Region]] = {}
    for region in regions:
        if region.name:
            named.setdefault(region.name, []).append(region)
    shared = [group for group in named.values() if 2 <= len(group) <= most]
    if not shared:
        raise ValueError(f"no name of {regions.file_name or 'the image'} is shared by regions")
    group = max(shared, key=lambda group: min(region.area for region in group))
    return [region.id for region in sorted(group, key=lambda region: -region.area)]
