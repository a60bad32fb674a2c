"""Figures of the paper's first pages: teaser (Fig. 1), pipeline (Fig. 2), ambiguity (Fig. 5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
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

# inches of the teaser: a card, between card and photo, a card's colored edge, between cards
_CARD, _LEAD, _STRIPE, _BETWEEN = 1.72, 0.16, 0.05, 0.1
_TARGET, _PARENT, _CHILD, _ALIKE = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]
_COLUMN, _GAP = 1.6, 0.1666  # inches of the pipeline; four columns and three gaps make a page
_TITLES = ("1 · mask tree", "2 · short, top-down", "3 · long, bottom-up", "4 · unique")
_LINE = 0.14  # inches per line of the pipeline's tree
_MOST_LINES = 9  # of a caption in the pipeline
_MOST_ARROWS = 8
_SOLID = {"dash_offset": 0, "dash_list": None}


@dataclass(frozen=True)
class _Card:
    region: Region
    color: str
    head: str
    caption: str
    anchor: tuple[float, float]  # in the photo's pixels

    @property
    def height(self) -> float:
        return text_height(self.head, SMALL) + text_height(self.caption)


def teaser_figure(
    regions: RegionImage,
    tree: MaskTree,
    captions: Mapping[RegionId, str],
    ids: Sequence[RegionId] | None = None,
) -> Figure:
    """Draw a photo between the captions of some of its regions, each joined to its region.

    Args:
        regions: with the photo.
        tree: of these regions.
        captions: text by region id.
        ids: regions to show, at most 7; None takes those of `spread_over_levels`.

    Raises:
        ValueError: no regions, or more than there are colors.
    """
    chosen = spread_over_levels(tree, list(captions), 6) if ids is None else list(ids)
    if not 0 < len(chosen) <= len(PALETTE):
        raise ValueError(f"a teaser shows 1 to {len(PALETTE)} regions, not {len(chosen)}")
    cards = []
    for region_id, color in zip(chosen, PALETTE, strict=False):
        region = regions[region_id]
        inside = [regions[other] for other in tree.descendants(region_id) if other in set(chosen)]
        share = 100 * region.area / (regions.width * regions.height)
        head = f"level {tree.depth(region_id)} · {share:.2g}% of the image"
        text = fitted(captions[region_id], _CARD - 2 * _STRIPE)
        cards.append(_Card(region, color, head, text, anchor_point(region, inside)))
    across = sorted(cards, key=lambda card: card.anchor[0])
    half = (len(cards) + 1) // 2
    sides = [
        sorted(part, key=lambda card: card.anchor[1]) for part in (across[:half], across[half:])
    ]
    width = PAGE_WIDTH - 2 * (_CARD + _LEAD)
    photo_height = width * regions.height / regions.width
    stacked = [sum(card.height + _BETWEEN for card in side) for side in sides]
    height = max(photo_height, *stacked) + 0.06
    figure, grid = sheet([_CARD, _LEAD, width, _LEAD, _CARD], [height])
    photo = figure.add_subplot(grid[2])
    draw_photo(photo, regions.pixels)
    for card in sorted(cards, key=lambda card: -card.region.area):
        draw_outline(photo, card.region, card.color, 1.6)
    top, scale = (height - photo_height) / 2, width / regions.width
    for side, column in zip(sides, (0, 4), strict=True):
        wanted = [top + card.anchor[1] * scale - card.height / 2 for card in side]
        tops = _placed(wanted, [card.height for card in side], height)
        for card, down in zip(side, tops, strict=True):
            _draw_card(card, grid[column], down, photo)
    return figure


def _placed(wanted: Sequence[float], heights: Sequence[float], bottom: float) -> list[float]:
    """Tops as close to those wanted as possible without overlap, above `bottom`."""
    tops: list[float] = []
    edge = 0.02
    for top, height in zip(wanted, heights, strict=True):
        tops.append(max(edge, top))
        edge = tops[-1] + height + _BETWEEN
    edge = bottom
    for place in range(len(tops) - 1, -1, -1):
        tops[place] = min(tops[place], edge - heights[place])
        edge = tops[place] - _BETWEEN
    return tops


def _draw_card(card: _Card, cell: SubplotSpec, down: float, photo: Axes) -> None:
    """Write a card `down` inches from the top of its column, with a line to its region."""
    figure = photo.figure
    box = cell.get_position(figure)
    left = box.x0 < 0.5
    align, indent = ("right", -2 * _STRIPE) if left else ("left", 2 * _STRIPE)
    _bar(cell, down, down + card.height, card.color, _CARD - _STRIPE if left else 0)
    end = write(cell, card.head, SMALL, align, down, indent, color=FAINT)
    write(cell, card.caption, BODY, align, end, indent)
    middle = box.y1 - (down + card.height / 2) / figure.get_figheight()
    style = {"color": card.color, "linewidth": 1.1, "capstyle": "butt"}
    style["path_effects"] = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    ends = (box.x1 if left else box.x0, middle), card.anchor, figure.transFigure, photo.transData
    figure.add_artist(ConnectionPatch(*ends, **style))
    photo.plot(*card.anchor, "o", ms=4.5, mec="white", mew=0.8, color=card.color, zorder=9)


def _bar(cell: SubplotSpec, top: float, bottom: float, color: str, left: float = 0) -> None:
    """Draw an upright bar in a cell, in inches from its top and left."""
    figure = cell.get_gridspec().figure
    box, (wide, high) = cell.get_position(figure), figure.get_size_inches()
    corner = (box.x0 + left / wide, box.y1 - bottom / high)
    size = (_STRIPE / wide, (bottom - top) / high)
    figure.add_artist(Rectangle(corner, *size, color=color, lw=0))


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
    alike = list(work.finals[region_id].look_alikes)[:most]
    context: dict[str, list[tuple[str, str, RegionId]]] = {
        "short": [] if parent is None else [(_PARENT, "parent", parent)],
        "long": [(_CHILD, "part", child) for child in children],
        "unique": [(_ALIKE, f"look-alike {n}", other) for n, other in enumerate(alike, 1)],
    }
    columns = [
        [
            (color, fitted(who, 1.5, SMALL, 1), _caption(work.text(stage, one)))
            for color, who, one in (*rows, (_TARGET, _name(region), region_id))
        ]
        for stage, rows in context.items()
    ]
    branch = _branch(work, region_id, children)
    views = [work.views(stage, region_id)[-1] for stage in context]
    tallest = max(view.shape[0] / view.shape[1] for view in (image.pixels, *views))
    below = max(_LINE * len(branch), *(sum(map(_said_height, column)) for column in columns))
    heights = [0.25, min(1.3, _COLUMN * tallest), 0.08, below]
    figure, grid = sheet([_COLUMN, _GAP] * 3 + [_COLUMN], heights)
    for number, title in enumerate(_TITLES):
        write(grid[0, 2 * number], title, HEAD, "center", 0.05, fontweight="bold")
    _draw_branch(figure.add_subplot(grid[1, 0]), work, region_id, children)
    for row, (text, depth, color) in enumerate(branch):
        style = {"color": color, "fontweight": "bold" if color == _TARGET else "normal"}
        write(grid[3, 0], text, SMALL, down=_LINE * row, right=0.12 * depth, **style)
    for number, (view, column) in enumerate(zip(views, columns, strict=True), 1):
        draw_photo(figure.add_subplot(grid[1, 2 * number]), view)
        gap = grid[1, 2 * number - 1].get_position(figure)
        middle = gap.y0 + gap.height / 2
        style = {"arrowstyle": "-|>", "mutation_scale": 7, "color": INK}
        ends = (gap.x0, middle), (gap.x1, middle)
        figure.add_artist(ConnectionPatch(*ends, "figure fraction", **style))
        _write_said(grid[3, 2 * number], column)
    return figure


def _write_said(cell: SubplotSpec, rows: Sequence[tuple[str, str, str]]) -> None:
    """Write captions below each other; the last one, in bold, is the stage's answer."""
    down = 0.0
    for number, (color, who, text) in enumerate(rows):
        end = down + _said_height(rows[number])
        _bar(cell, down, end - 0.08, color)
        body = write(cell, who, SMALL, down=down, right=0.1, color=FAINT)
        weight = "bold" if number == len(rows) - 1 else "normal"
        write(cell, text, BODY, down=body, right=0.1, fontweight=weight)
        down = end


def _said_height(row: tuple[str, str, str]) -> float:
    return text_height(row[1], SMALL) + text_height(row[2]) + 0.08


def _caption(text: str) -> str:
    # bold letters are about a tenth wider
    return fitted(text or "no caption", 0.9 * (_COLUMN - 0.1), BODY, _MOST_LINES)


def _name(region: Region) -> str:
    return region.name or f"region {region.id}"


def _branch(
    work: AnnotatedImage, region_id: RegionId, children: Sequence[RegionId]
) -> list[tuple[str, int, str]]:
    """The region's branch of the tree: text, level and color of each line."""
    up = list(reversed(work.tree.ancestors(region_id)))
    rows = [("image", 0, INK)]
    rows += [(_name(work.image[one]), depth, FAINT) for depth, one in enumerate(up, 1)]
    if up:
        rows[-1] = (*rows[-1][:2], _PARENT)
    depth = len(up) + 1
    rows.append((_name(work.image[region_id]), depth, _TARGET))
    rows += [(_name(work.image[child]), depth + 1, _CHILD) for child in children]
    rest = len(work.tree.children(region_id)) - len(children)
    if rest > 0:
        rows.append((f"and {rest} more", depth + 1, FAINT))
    return [
        (fitted(("└ ● " if level else "● ") + text, _COLUMN - 0.12 * level, SMALL, 1), level, color)
        for text, level, color in rows
    ]


def _draw_branch(
    ax: Axes, work: AnnotatedImage, region_id: RegionId, children: Sequence[RegionId]
) -> None:
    """Outline a region, its parent and its children on the photo around the parent."""
    image, parent = work.image, work.tree.parent(region_id)
    around = image[region_id if parent is None else parent]
    draw_photo(ax, image.pixels, view=close_view(around, image.width / image.height, 0.25))
    if parent is not None:
        draw_outline(ax, image[parent], _PARENT)
    draw_outline(ax, image[region_id], _TARGET)
    for child in children:
        draw_outline(ax, image[child], _CHILD, 1.1)


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

    Raises:
        ValueError: a caption that fits no region.
    """
    gap, pad = 0.2, 0.1
    width = (PAGE_WIDTH - gap) / 2
    blocks = [fitted(f"“{text}”", 0.9 * (width - 2 * pad), HEAD) for text, _ in (ambiguous, unique)]
    head = max(text_height(block, HEAD) for block in blocks)
    photo = min(3.2, width * regions.height / regions.width)
    figure, grid = sheet([width, gap, width], [head + 2 * pad, 0.26, photo, 0.2])
    for column, block, (text, fitting) in zip((0, 2), blocks, (ambiguous, unique), strict=True):
        if not fitting:
            raise ValueError(f"{text!r} fits no region, so there is nothing to point at")
        color = RIGHT_COLOR if len(fitting) == 1 else WRONG_COLOR
        frame = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": color}
        down = pad + (head - text_height(block, HEAD)) / 2
        write(grid[0, column], block, HEAD, "center", down, fontweight="bold", bbox=frame)
        ax = figure.add_subplot(grid[2, column])
        ordered = sorted(fitting, key=lambda one: one == target)  # the target last, on top
        draw_photo(ax, regions.pixels, [regions[one] for one in ordered])
        for one in ordered:
            draw_outline(ax, regions[one], RIGHT_COLOR if one == target else WRONG_COLOR)
        for one in ordered if len(ordered) <= _MOST_ARROWS else [target]:
            _point_at(ax, regions[one], one == target, 0.26 / photo)
        count = len(fitting)
        note = "fits 1 region of the image" if count == 1 else f"fits {count} regions of the image"
        write(grid[3, column], note, SMALL, "center", 0.05, color=FAINT)
    return figure


def _point_at(ax: Axes, region: Region, right: bool, lead: float) -> None:
    """Draw an arrow from the caption above the photo to a region; `lead` in photo heights."""
    x, y = anchor_point(region)
    # each arrow leaves the caption above its own region, as far as the caption reaches
    start = (0.5 + 0.6 * ((x + 0.5) / region.size[1] - 0.5), 1 + lead)
    style = {
        "arrowstyle": "-|>",
        "mutation_scale": 12,
        "linewidth": 1.5,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    style |= {"color": RIGHT_COLOR if right else WRONG_COLOR}
    style |= {"linestyle": "-" if right else (0, (3, 1.5))}
    style["path_effects"] = [
        patheffects.Stroke(linewidth=3.2, foreground="white", dashes=_SOLID),
        patheffects.Normal(),
    ]
    places = {"xy": (x, y), "xytext": start, "textcoords": "axes fraction"}
    ax.annotate("", **places, arrowprops=style, annotation_clip=False, zorder=9 if right else 8)


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
