"""One photo, regions of several granularities, a caption of its own for each (after Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ureca_lib.figures.outlines import anchor_point, draw_outline, draw_photo
from ureca_lib.figures.page import Box, Page, broken, lines_height
from ureca_lib.figures.style import FAINT, PAGE_WIDTH, PALETTE
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region, RegionImage

_CARD, _GAP = 1.72, 0.16  # inches: a card's width, and between card and photo
_STRIPE, _BETWEEN = 0.05, 0.1  # inches: a card's coloured edge, and least space between cards
_HEAD, _BODY = 6.0, 7.0  # points
_LEAST_APART = 0.02  # of the photo's diagonal, between two regions that are chosen


@dataclass(frozen=True)
class _Card:
    region: Region
    colour: str
    head: str
    caption: str
    anchor: tuple[float, float]  # in the photo's pixels

    @property
    def height(self) -> float:
        lines = broken(self.caption, _CARD - 2 * _STRIPE, _BODY)
        return lines_height(1, _HEAD) + 0.03 + lines_height(len(lines), _BODY)


def teaser_figure(
    regions: RegionImage,
    tree: MaskTree,
    captions: Mapping[RegionId, str],
    ids: Sequence[RegionId] | None = None,
) -> Figure:
    """A photo between the captions of some of its regions, each tied to its region.

    Args:
        regions: with the photo.
        tree: of these regions.
        captions: text by region id.
        ids: which regions, at most 7; None takes those of `spread_over_levels`.

    Raises:
        ValueError: no regions, or more than there are colours.
    """
    chosen = spread_over_levels(tree, list(captions), 6) if ids is None else list(ids)
    if not 0 < len(chosen) <= len(PALETTE):
        raise ValueError(f"a teaser shows 1 to {len(PALETTE)} regions, not {len(chosen)}")
    cards = [_card(regions, tree, captions, chosen, number) for number in range(len(chosen))]
    width = PAGE_WIDTH - 2 * (_CARD + _GAP)
    height = width * regions.height / regions.width
    across = sorted(cards, key=lambda card: card.anchor[0])
    half = (len(cards) + 1) // 2
    sides = [sorted(part, key=lambda c: c.anchor[1]) for part in (across[:half], across[half:])]
    page = Page()
    tallest = max(height, *map(_stacked, sides))
    photo = Box(_CARD + _GAP, (tallest - height) / 2 + 0.04, width, height)
    page.picture(photo, lambda ax: _draw_regions(ax, regions.pixels, cards))
    scale = width / regions.width
    for side, left in zip(sides, (0.0, PAGE_WIDTH - _CARD), strict=True):
        wanted = [photo.top + card.anchor[1] * scale - card.height / 2 for card in side]
        tops = _placed(wanted, [card.height for card in side], tallest + 0.04)
        for card, top in zip(side, tops, strict=True):
            _draw_card(page, card, left, top, photo, scale)
    return page.figure()


def spread_over_levels(tree: MaskTree, ids: Sequence[RegionId], count: int) -> list[RegionId]:
    """Some regions of an image that together show its granularities.

    Levels take turns; in each, the largest region comes first whose middle is not where another's
    is.

    Args:
        tree: of the image's regions.
        ids: from which to choose.
        count: how many at most.

    Returns:
        Ids, from the top of the tree downwards.
    """
    levels: dict[int, list[Region]] = {}
    known = set(ids)
    for region in tree.top_down():
        if region.id in known:
            levels.setdefault(tree.depth(region.id), []).append(region)
    queues = [sorted(level, key=lambda r: -r.area) for _, level in sorted(levels.items())]
    chosen: list[Region] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue and len(chosen) < count:
                region = queue.pop(0)
                if all(_apart(region, other) for other in chosen):
                    chosen.append(region)
                    break
    return [region.id for region in sorted(chosen, key=lambda r: tree.depth(r.id))]


def _apart(one: Region, other: Region) -> bool:
    centers = []
    for region in (one, other):
        x, y, columns, rows = region.pixel_box
        centers.append((x + columns / 2, y + rows / 2))
    distance = np.hypot(*np.subtract(*centers))
    return bool(distance > _LEAST_APART * np.hypot(*one.size))


def _card(
    regions: RegionImage,
    tree: MaskTree,
    captions: Mapping[RegionId, str],
    chosen: Sequence[RegionId],
    number: int,
) -> _Card:
    region = regions[chosen[number]]
    inside = [regions[other] for other in tree.descendants(region.id) if other in set(chosen)]
    share = 100 * region.area / (regions.width * regions.height)
    head = f"level {tree.depth(region.id)} · {share:.2g}% of the image"
    anchor = anchor_point(region, inside)
    return _Card(region, PALETTE[number], head, captions[region.id], anchor)


def _stacked(cards: Sequence[_Card]) -> float:
    return sum(card.height for card in cards) + _BETWEEN * (len(cards) - 1)


def _placed(wanted: Sequence[float], heights: Sequence[float], bottom: float) -> list[float]:
    """Tops as close to those wanted as can be without overlap, inside 0.04 and `bottom`."""
    tops: list[float] = []
    edge = 0.04
    for top, height in zip(wanted, heights, strict=True):
        tops.append(max(edge, top))
        edge = tops[-1] + height + _BETWEEN
    edge = bottom
    for place in range(len(tops) - 1, -1, -1):
        tops[place] = min(tops[place], edge - heights[place])
        edge = tops[place] - _BETWEEN
    return tops


def _draw_regions(ax: Axes, image: np.ndarray, cards: Sequence[_Card]) -> None:
    draw_photo(ax, image)
    for card in sorted(cards, key=lambda card: -card.region.area):
        draw_outline(ax, card.region, card.colour, 1.6)


def _draw_card(page: Page, card: _Card, left: float, top: float, photo: Box, scale: float) -> None:
    on_left = left < photo.left
    stripe = left + _CARD - _STRIPE if on_left else left
    text_left, text_width = (left, _CARD - 2 * _STRIPE)
    text_left = left if on_left else left + 2 * _STRIPE
    align = "right" if on_left else "left"
    head = page.text(text_left, top, card.head, text_width, _HEAD, align=align, color=FAINT)
    body = page.text(text_left, head.bottom + 0.03, card.caption, text_width, _BODY, align=align)
    x, y = photo.left + card.anchor[0] * scale, photo.top + card.anchor[1] * scale
    edge = left + _CARD if on_left else left
    casing = [patheffects.withStroke(linewidth=2.2, foreground="white")]

    def draw(ax: Axes) -> None:
        ax.add_patch(Rectangle((stripe, top), _STRIPE, card.height, color=card.colour, lw=0))
        style = {"color": card.colour, "linewidth": 1.1, "path_effects": casing}
        style["solid_capstyle"] = "butt"
        ax.plot([edge, x], [top + card.height / 2, y], **style)
        ax.plot(x, y, "o", ms=4.5, mec="white", mew=0.8, color=card.colour)

    page.draw(draw, bottom=body.bottom)
