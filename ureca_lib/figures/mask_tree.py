"""A mask tree beside its photo, level by level in the tree's own colours (Sec. 3, stage 1)."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ureca_lib.figures.outlines import draw_outline, draw_photo
from ureca_lib.figures.page import POINT, Box, Page, text_width
from ureca_lib.figures.style import PAGE_WIDTH, PALETTE
from ureca_lib.mask_tree import MaskTree
from ureca_lib.regions import Region, RegionImage

LEVEL_COLOURS = PALETTE[:6]  # as a tree is plotted
_LEFT, _GAP = 3.1, 0.1  # inches: of the photos' column, and between panels
_LINE = 0.165  # inches, of the tree
_LABEL = 7  # points
_FILL = 0.3  # opacity of a region's colour


def mask_tree_figure(regions: RegionImage, tree: MaskTree) -> Figure:
    """The photo with all regions, each level alone, and the tree; a level has one colour in all.

    Args:
        regions: with the photo.
        tree: of these regions; more than about 50 of them do not fit one page.
    """
    page = Page()
    shape = regions.height / regions.width
    top = page.picture(
        Box(0, 0.03, _LEFT, _LEFT * shape), partial(_draw, regions, tree, list(tree.top_down()))
    ).bottom
    levels: dict[int, list[Region]] = {}
    for region in tree.top_down():
        levels.setdefault(tree.depth(region.id), []).append(region)
    width = (_LEFT - _GAP) / 2
    for number, (depth, members) in enumerate(sorted(levels.items())):
        left, row = number % 2 * (width + _GAP), number // 2
        at = top + _GAP + row * (width * shape + 0.25)
        page.draw(partial(_dot, left + 0.04, at + 0.05, _colour(depth)))
        count = f"{len(members)} region" + ("s" if len(members) > 1 else "")
        head = page.text(left + 0.12, at, f"level {depth} · {count}", width - 0.12, 6.5, most=1)
        box = Box(left, head.bottom + 0.03, width, width * shape)
        page.picture(box, partial(_draw, regions, tree, members))
    right = Box(_LEFT + 0.15, 0, PAGE_WIDTH - _LEFT - 0.15, _LINE * (len(tree) + 1))
    page.chart(right, partial(_plot, tree, right.width), bottom=right.bottom)
    return page.figure()


def _plot(tree: MaskTree, width: float, ax: Axes) -> None:
    """The tree, its levels as far apart as its longest label lets them be."""
    tree.plot(ax)
    level = width / (tree.height() + 1)
    for label in ax.texts:
        label.set_fontsize(_LABEL)
        taken = text_width(label.get_text(), _LABEL) + 8 * POINT  # with the dot before it
        level = min(level, (width - taken) / (label.xy[0] + 0.1))
    ax.set_xlim(-0.1, width / level - 0.1)


def _colour(depth: int) -> str:
    return LEVEL_COLOURS[(depth - 1) % len(LEVEL_COLOURS)]


def _draw(regions: RegionImage, tree: MaskTree, members: list[Region], ax: Axes) -> None:
    image = regions.pixels
    whole = len(members) == len(tree)
    if not whole:  # a level alone is filled; all levels together would hide the photo
        image = image.copy()
        for region in members:
            colour = 255 * np.array(to_rgb(_colour(tree.depth(region.id))))
            tinted = (1 - _FILL) * image[region.mask] + _FILL * colour
            image[region.mask] = tinted.astype(np.uint8)
    draw_photo(ax, image)
    for region in members:
        width = 1.3 if whole else 0.9
        draw_outline(ax, region, _colour(tree.depth(region.id)), width)


def _dot(x: float, y: float, colour: str, ax: Axes) -> None:
    ax.add_patch(Circle((x, y), 0.035, color=colour, lw=0))
