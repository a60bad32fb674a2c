"""Regions on their photo: by level, one by one with captions, several images, an overview."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.figures.outlines import anchor_point, close_view, draw_edge, draw_outline, draw_photo
from ureca_lib.figures.style import (
    HEAD,
    LEGEND,
    PAGE_WIDTH,
    PALETTE,
    chart,
    fitted,
    panels,
    sheet,
    text_height,
    wrapped,
    write,
)
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region, RegionImage

_HALO = [patheffects.withStroke(linewidth=2, foreground="black")]
_TINY = 0.02  # share of the image below which a region also gets a close-up
_INSET = 0.4  # side of the close-up, as a share of the picture's height


@dataclass(frozen=True)
class Example:
    """A region of an image, its caption, and a line above it, such as its source.

    Args:
        image: (H, W, 3) uint8.
        region: of the image.
        caption: its text.
        head: a line; it is cut if it is too long.
    """

    image: np.ndarray
    region: Region
    caption: str
    head: str = ""


def draw_regions(
    ax: Axes, image: np.ndarray, regions: Iterable[Region], labels: bool = True, fill: float = 0.35
) -> None:
    """Draw regions, each in a color of its own, with its name inside.

    Args:
        ax: where to draw.
        image: (H, W, 3) uint8.
        regions: of the image; smaller ones are drawn over larger ones.
        labels: write the names (or ids) at a point well inside each region.
        fill: opacity of the color, 0 to 1.
    """
    ordered = sorted(regions, key=lambda region: -region.area)
    colors = [PALETTE[number % len(PALETTE)] for number in range(len(ordered))]
    pairs = list(zip(ordered, colors, strict=True))
    draw_photo(ax, image, tints=((region.mask, color, fill) for region, color in pairs))
    written: list[tuple[float, float, float]] = []  # row, column, half width of each label
    for region, color in pairs:
        draw_edge(ax, region, color, 1.2)
        if labels:
            _label(ax, region, written)


def _label(ax: Axes, region: Region, written: list[tuple[float, float, float]]) -> None:
    """Name a region inside it, or above it if it is small; not over another name."""
    width = region.size[1]
    letter = width / 45  # about the width of a letter in a panel of three
    text = wrapped(region.name or str(region.id), 30, 1)
    half = letter * len(text) / 2
    column, row = anchor_point(region)
    _, y, columns, rows = region.pixel_box
    if columns < 2 * half and rows < 5 * letter:
        row = y - 2 * letter if y > 3 * letter else y + rows + 2 * letter
    column = min(max(column, half), width - half)
    if any(abs(row - r) < 3 * letter and abs(column - c) < half + h for r, c, h in written):
        return
    written.append((row, column, half))
    style = {"color": "white", "fontsize": 6, "path_effects": _HALO}
    ax.text(column, row, text, ha="center", va="center", **style)


def draw_target(ax: Axes, image: np.ndarray, region: Region, context: float = 0.6) -> None:
    """Show a region and its surroundings, with its contour and the rest dimmed.

    Args:
        ax: where to draw; the view has its shape.
        image: (H, W, 3) uint8.
        region: of the image.
        context: margin on each side, as a share of the region's longer side.
    """
    box = ax.get_window_extent()
    draw_photo(ax, image, [region], close_view(region, box.width / box.height, context))
    draw_outline(ax, region)


def level_figure(regions: RegionImage, tree: MaskTree, columns: int = 3) -> Figure:
    """Draw the photo, and the regions of each level of the tree: granularity (Sec. 3).

    Args:
        regions: with the photo.
        tree: of these regions.
        columns: pictures per row.
    """
    levels = levels_of(tree)
    notes = [[regions.file_name or "photo"], *([level_head(*item)] for item in levels.items())]
    shape = regions.width / regions.height
    figure, (first, *axes) = panels(notes, columns, shape, align="center")
    draw_photo(first, regions.pixels)
    for ax, members in zip(axes, levels.values(), strict=True):
        draw_regions(ax, regions.pixels, members)
    return figure


def levels_of(tree: MaskTree) -> dict[int, list[Region]]:
    """Regions by level, from the top of the tree."""
    levels: dict[int, list[Region]] = {}
    for region in tree.top_down():
        levels.setdefault(tree.depth(region.id), []).append(region)
    return dict(sorted(levels.items()))


def level_head(depth: int, members: Sequence[Region]) -> str:
    """Name a level with the number of its regions."""
    return f"level {depth} · {len(members)} region" + ("s" if len(members) > 1 else "")


def caption_figure(
    regions: RegionImage,
    captions: Mapping[RegionId, str],
    ids: Sequence[RegionId] | None = None,
    columns: int = 4,
    others: Mapping[str, Mapping[RegionId, str]] | None = None,
) -> Figure:
    """Draw a picture per region, with the region's id and its caption below.

    Args:
        regions: with the photo.
        captions: text by region id.
        ids: regions to show, in this order; None takes all that have a caption.
        columns: pictures per row.
        others: further systems' captions by name; each is written after its system's name.

    Raises:
        ValueError: no regions.
    """
    chosen = list(captions) if ids is None else list(ids)
    if not chosen:
        raise ValueError("there are no captions to draw")
    notes = [
        [f"region {region_id}", captions[region_id]]
        + [f"{name}: {texts.get(region_id, '–')}" for name, texts in (others or {}).items()]
        for region_id in chosen
    ]
    columns = max(1, min(columns, len(chosen)))
    figure, axes = panels(notes, columns, panel_shape(regions))
    for ax, region_id in zip(axes, chosen, strict=True):
        draw_target(ax, regions.pixels, regions[region_id])
    return figure


def panel_shape(regions: RegionImage) -> float:
    """Width over height of pictures of a photo's parts: the photo's own, if it is not extreme."""
    return min(max(regions.width / regions.height, 2 / 3), 2)


def examples_figure(examples: Sequence[Example], columns: int = 4) -> Figure:
    """Draw regions of several images with their captions (after Fig. 7).

    A region smaller than 2% of its image is shown a second time, magnified, in the corner that is
    farthest from it.

    Args:
        examples: in rows from left to right.
        columns: pictures per row, 1 to 6.

    Raises:
        ValueError: no examples, or columns out of range.
    """
    if not examples or not 1 <= columns <= 6:
        raise ValueError(f"{len(examples)} examples in {columns} columns: need some, in 1 to 6")
    figure, axes = panels([[one.head, one.caption] for one in examples], columns, 4 / 3)
    for ax, example in zip(axes, examples, strict=True):
        region, (height, width) = example.region, example.image.shape[:2]
        ax.set_anchor("S")
        draw_photo(ax, example.image, [region])
        draw_outline(ax, region)
        if region.area < _TINY * height * width:
            x, y, columns, rows = region.pixel_box
            side = _INSET * height / width  # as a share of the width: the inset is square
            left = 0 if x + columns / 2 > width / 2 else 1 - side
            bottom = 1 - _INSET if y + rows / 2 > height / 2 else 0
            inset = ax.inset_axes((left, bottom, side, _INSET))
            draw_photo(inset, example.image, view=close_view(region, context=0.3))
            draw_outline(inset, region, width=1.0)
            inset.axis("on")
            inset.set(xticks=[], yticks=[])
            inset.spines[:].set(color="white", linewidth=1.2)
    return figure


def spread_over_levels(tree: MaskTree, ids: Sequence[RegionId], count: int) -> list[RegionId]:
    """Choose regions of an image that together show its granularities.

    Levels take turns; in each, the largest region comes first whose middle differs from those
    chosen.

    Args:
        tree: of the image's regions.
        ids: from which to choose.
        count: at most.

    Returns:
        Ids, from the top of the tree downwards.
    """
    known = set(ids)
    queues = [
        sorted((region for region in level if region.id in known), key=lambda r: -r.area)
        for level in levels_of(tree).values()
    ]
    chosen: list[Region] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue and len(chosen) < count:
                region = queue.pop(0)
                if all(_apart(region, other) for other in chosen):
                    chosen.append(region)
                    break
    return [region.id for region in sorted(chosen, key=lambda r: tree.depth(r.id))]


def _apart(region: Region, other: Region) -> bool:
    """Whether the middles of two regions are more than 2% of the photo's diagonal apart."""
    distance = np.hypot(*(_middle(region) - _middle(other)))
    return bool(distance > 0.02 * np.hypot(*region.size))


def spread_examples(works: Mapping[str, AnnotatedImage], count: int = 8) -> list[Example]:
    """Choose examples of several annotated images, evenly, and of their different levels.

    Args:
        works: finished images by name.
        count: of examples, at most.

    Returns:
        Image by image; each head has the image's name, the level and the share of the image.
    """
    examples: list[Example] = []
    for number, (name, work) in enumerate(works.items()):
        texts = {region_id: text for region_id, text in work.captions.items() if text}
        share = count // len(works) + (number < count % len(works))
        for region_id in spread_over_levels(work.tree, list(texts), 2 * share)[1::2]:
            region = work.image[region_id]
            covered = 100 * region.area / (work.image.width * work.image.height)
            head = f"{name} · level {work.tree.depth(region_id)} · {covered:.2g}%"
            examples.append(Example(work.image.pixels, region, texts[region_id], head))
    return examples


@dataclass(frozen=True)
class OverviewColumn:
    """A column of the overview: regions of one granularity.

    Attributes:
        title: above the photo.
        ids: of the regions, in the order of their captions.
        view: (x, y, width, height) of the part of the photo to show; None shows all of it.
    """

    title: str
    ids: Sequence[RegionId]
    view: tuple[int, int, int, int] | None = None


def overview_figure(
    regions: RegionImage, captions: Mapping[RegionId, str], columns: Sequence[OverviewColumn]
) -> Figure:
    """Draw the photo once per column with numbered regions, and their captions below.

    Args:
        regions: with the photo.
        captions: text by region id.
        columns: from coarse to fine.
    """
    gap, badge, whole = 0.14, 0.22, (0, 0, regions.width, regions.height)
    width = (PAGE_WIDTH - gap * (len(columns) - 1)) / len(columns)
    views = [column.view or whole for column in columns]
    texts = [[fitted(captions[i], width - badge, HEAD) for i in c.ids] for c in columns]
    below = max(sum(text_height(text, HEAD) + 0.05 for text in column) for column in texts)
    picture = max(width * height / wide for _, _, wide, height in views)
    figure, grid = sheet([width, gap] * (len(columns) - 1) + [width], [0.27, picture, below + 0.12])
    number = 1
    for place, (column, (x, y, wide, height)) in enumerate(zip(columns, views, strict=True)):
        title = wrapped(column.title, 30, 1)
        write(grid[0, 2 * place], title, HEAD + 1, down=0.03, fontweight="bold")
        ax = figure.add_subplot(grid[1, 2 * place], anchor="N")
        shown = {number + i: regions[region_id] for i, region_id in enumerate(column.ids)}
        _draw_numbered(ax, regions.pixels, shown, (x, y, x + wide, y + height))
        cell, down = grid[2, 2 * place], 0.09
        for (number, _), text in zip(shown.items(), texts[place], strict=True):
            style = {"color": _number_color(number), "fontweight": "bold"}
            write(cell, str(number), HEAD, down=down, right=0.03, **style)
            down = write(cell, text, HEAD, down=down, right=badge) + 0.05
        number += 1
    return figure


def _number_color(number: int) -> str:
    return PALETTE[(number - 1) % (len(PALETTE) - 1)]  # the last one, yellow, is faint on white


def _draw_numbered(
    ax: Axes, image: np.ndarray, shown: Mapping[int, Region], view: tuple[float, ...]
) -> None:
    """Draw a part of a photo with regions outlined and tinted, each with its number."""
    ordered = sorted(shown.items(), key=lambda item: -item[1].area)
    tints = ((region.mask, _number_color(number), 0.28) for number, region in ordered)
    draw_photo(ax, image, view=view, tints=tints)
    for number, region in ordered:
        draw_outline(ax, region, _number_color(number))
    # pixels of the photo that a number's badge takes
    inches = ax.get_window_extent().width / ax.figure.dpi
    badge = 0.09 * (view[2] - view[0]) / inches
    small = [region for region in shown.values() if min(region.pixel_box[2:]) < 2.4 * badge]
    for number, region in shown.items():
        x, y = anchor_point(region, [one for one in shown.values() if one.area < region.area])
        if region in small:  # its number would hide it, so it stands beside, away from the others
            here = _middle(region)
            others = [_middle(other) for other in small if other is not region]
            nearest = min(others, key=lambda at: np.hypot(*(at - here)), default=here - 1)
            left, _, wide, _ = region.pixel_box
            x = left - 1.5 * badge if nearest[0] > here[0] else left + wide + 1.5 * badge
        text = {"color": "white", "fontsize": 7, "fontweight": "bold", "ha": "center"}
        circle = {"boxstyle": "circle,pad=0.22", "fc": _number_color(number), "ec": "white"}
        ax.text(
            x, y, str(number), va="center_baseline", bbox=circle | {"lw": 0.8}, zorder=9, **text
        )


def _middle(region: Region) -> np.ndarray:
    """(x, y) of the middle of a region's box."""
    x, y, columns, rows = region.pixel_box
    return np.array([x + columns / 2, y + rows / 2])


def tree_order(tree: MaskTree) -> list[RegionId]:
    """Ids of all regions, each followed by everything below it."""
    order, stack = [], list(reversed(tree.children()))
    while stack:
        order.append(stack.pop())
        stack.extend(reversed(tree.children(order[-1])))
    return order


def views_figure(views: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Draw an annotator's pictures side by side, all of one height, each under its title.

    Args:
        views: (H, W, 3) uint8 each.
        titles: of the views.
    """
    shares = [view.shape[1] / view.shape[0] for view in views]
    height = min(3.2, (PAGE_WIDTH - 0.1 * (len(views) - 1)) / sum(shares))
    blocks = [fitted(t, height * s, HEAD) for t, s in zip(titles, shares, strict=True)]
    widths = [width for share in shares for width in (height * share, 0.1)][:-1]
    figure, grid = sheet(widths, [max(text_height(block, HEAD) for block in blocks) + 0.06, height])
    for number, (view, block) in enumerate(zip(views, blocks, strict=True)):
        write(grid[0, 2 * number], block, HEAD, "center", 0.02)
        draw_photo(figure.add_subplot(grid[1, 2 * number]), view)
    return figure


def statistics_figure(
    depths: Sequence[int], shares: Sequence[float], words: Mapping[str, Sequence[int]]
) -> Figure:
    """Draw numbers of regions by level and by size, and words per caption in each stage.

    Args:
        depths: level of each region.
        shares: share of the image that each region covers, 0 to 1.
        words: lengths of captions in words, by stage.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(PAGE_WIDTH, 2.2), layout="constrained"
    )
    levels = Counter(depths)
    left.bar(list(levels), list(levels.values()), color=PALETTE[0])
    left.set_xticks(range(1, max(levels) + 1))
    chart(left, "level in the tree", "regions")
    bins = np.logspace(np.log10(100 * min(shares)), 2, 20)
    middle.hist([100 * share for share in shares], bins=list(bins), color=PALETTE[0])
    middle.set_xscale("log")
    middle.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    chart(middle, "share of the image, %", "regions")
    most = max(max(lengths) for lengths in words.values())
    for number, (stage, lengths) in enumerate(words.items()):
        style = {"histtype": "step", "color": PALETTE[number % len(PALETTE)]}
        right.hist(lengths, bins=range(1, most + 2), label=wrapped(stage, 20), **style)
    chart(right, "words per caption", "captions")
    right.legend(**LEGEND)
    return figure
