"""Regions on their photo: by level, one by one with captions, several images, an overview."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, zip_longest

import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.figures.outlines import anchor_point, close_view, draw_outline, draw_photo
from ureca_lib.figures.style import (
    LEGEND,
    PAGE_WIDTH,
    PALETTE,
    chart,
    panels,
    wrapped,
)
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region, RegionImage

_NAME = {"fontsize": 6, "color": "white"}
_NAME["path_effects"] = [patheffects.withStroke(linewidth=2, foreground="black")]
_TINY = 0.005  # share of the image below which a region's name stands above it


@dataclass(frozen=True)
class Example:
    """A region of an image, its caption, and a line above it, such as its source.

    Args:
        image: (H, W, 3) uint8.
        region: of the image; None is the whole image.
        caption: its text; line breaks are kept.
        head: a line; it is cut if it is too long.
    """

    image: np.ndarray
    region: Region | None
    caption: str
    head: str = ""


def draw_regions(ax: Axes, image: np.ndarray, regions: Iterable[Region]) -> None:
    """Draw regions, each in a color of its own, with its name inside; not over another name.

    Args:
        ax: where to draw.
        image: (H, W, 3) uint8.
        regions: of the image; smaller ones are drawn over larger ones.
    """
    ordered = sorted(regions, key=lambda region: -region.area)
    pairs = list(zip(ordered, cycle(PALETTE), strict=False))
    draw_photo(ax, image, tints=((region.mask, color, 0.35) for region, color in pairs))
    written: list[Bbox] = []
    for region, color in pairs:
        draw_outline(ax, region, color, 0.9)
        (x, y), (height, width) = anchor_point(region), region.size
        # names stay on the photo, and do not cover small regions
        side = "left" if x < 0.1 * width else "right" if x > 0.9 * width else "center"
        up = -6 if y < 0.1 * height else 8 if region.area < _TINY * height * width else 0
        name = wrapped(region.name or str(region.id), 30, 1)
        style = {"ha": side, "va": "center", "textcoords": "offset points", **_NAME}
        label = ax.annotate(name, (x, y), (0, up), **style)
        box = label.get_window_extent().padded(4)
        if any(box.overlaps(other) for other in written):
            label.remove()
        else:
            written.append(box)


def draw_target(ax: Axes, image: np.ndarray, region: Region) -> None:
    """Show a region and its surroundings, with its contour and the rest dimmed.

    Args:
        ax: where to draw; the view has its shape.
        image: (H, W, 3) uint8.
        region: of the image.
    """
    box = ax.get_window_extent()
    draw_photo(ax, image, [region], close_view(region, box.width / box.height, least=0.25))
    draw_outline(ax, region)


def level_figure(regions: RegionImage, tree: MaskTree) -> Figure:
    """Draw the photo, and the regions of each level of the tree: granularity (Sec. 3).

    Args:
        regions: with the photo.
        tree: of these regions.
    """
    levels = levels_of(tree)
    heads = [level_head(*item) for item in levels.items()]
    notes = [[head] for head in (regions.file_name or "photo", *heads)]
    figure, (first, *axes) = panels(notes, 3, regions.width / regions.height)
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
    examples = []
    for one in captions if ids is None else ids:
        said = [f"{name}: {texts.get(one, '–')}" for name, texts in (others or {}).items()]
        text, head = "\n".join([captions[one], *said]), f"region {one}"
        examples.append(Example(regions.pixels, regions[one], text, head))
    return examples_figure(examples, max(1, min(columns, len(examples))))


def examples_figure(examples: Sequence[Example], columns: int = 4) -> Figure:
    """Draw regions of one or several images with their captions (after Fig. 7).

    Args:
        examples: in rows from left to right.
        columns: pictures per row.

    Raises:
        ValueError: no examples.
    """
    if not examples:
        raise ValueError("there are no captions to draw")
    notes = [[example.head, *example.caption.split("\n")] for example in examples]
    figure, axes = panels(notes, columns, 4 / 3)
    for ax, example in zip(axes, examples, strict=True):
        if example.region is None:
            ax.set_anchor("SW")
            draw_photo(ax, example.image)
        else:
            draw_target(ax, example.image, example.region)
    return figure


def spread_over_levels(tree: MaskTree, ids: Sequence[RegionId], count: int) -> list[RegionId]:
    """Choose regions of an image that together show its granularities.

    Levels take turns, from the largest region to the smallest. A region is passed over if its
    middle is within 2% of the photo's diagonal of the middle of a chosen one.

    Args:
        tree: of the image's regions.
        ids: from which to choose.
        count: at most.

    Returns:
        Ids, from the top of the tree downwards.
    """
    known = set(ids)
    levels = [
        sorted((region for region in level if region.id in known), key=lambda r: -r.area)
        for level in levels_of(tree).values()
    ]
    chosen: list[Region] = []
    for region in filter(None, chain.from_iterable(zip_longest(*levels))):
        least = 0.02 * np.hypot(*region.size)
        apart = [np.hypot(*(_middle(region) - _middle(other))) > least for other in chosen]
        if len(chosen) < count and all(apart):
            chosen.append(region)
    return [region.id for region in sorted(chosen, key=lambda r: tree.depth(r.id))]


def spread_examples(works: Mapping[str, AnnotatedImage], count: int = 8) -> list[Example]:
    """Choose examples of several annotated images, evenly, and of their different levels.

    Args:
        works: finished images by name.
        count: of examples, at most.

    Returns:
        Image by image; each head has the image's name, the level and the share of the image.
    """
    examples = []
    for number, (name, work) in enumerate(works.items()):
        texts = {region_id: text for region_id, text in work.captions.items() if text}
        share = count // len(works) + (number < count % len(works))
        for region_id in spread_over_levels(work.tree, list(texts), 2 * share)[1::2]:
            region = work.image[region_id]
            covered = 100 * region.area / np.prod(region.size)
            head = f"{name} · level {work.tree.depth(region_id)} · {covered:.2g}%"
            examples.append(Example(work.image.pixels, region, texts[region_id], head))
    return examples


def _middle(region: Region) -> np.ndarray:
    """(x, y) of the middle of a region's box."""
    x, y, columns, rows = region.pixel_box
    return np.array([x + columns / 2, y + rows / 2])


def views_figure(views: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Draw an annotator's pictures side by side, each above its title.

    Args:
        views: (H, W, 3) uint8 each.
        titles: of the views.
    """
    examples = [Example(view, None, title) for view, title in zip(views, titles, strict=True)]
    return examples_figure(examples, max(2, len(examples)))


def statistics_figure(
    depths: Sequence[int], shares: Sequence[float], words: Mapping[str, Sequence[int]]
) -> Figure:
    """Draw numbers of regions by level and by size, and words per caption in each stage.

    Args:
        depths: level of each region.
        shares: share of the image that each region covers, 0 to 1.
        words: lengths of captions in words, by stage.
    """
    figure = plt.figure(figsize=(PAGE_WIDTH, 2.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    most = max(depths)
    left.hist(depths, bins=np.arange(0.5, most + 1), rwidth=0.8, color=PALETTE[0])
    left.set_xticks(range(1, most + 1))
    chart(left, "level in the tree", "regions")
    bins = np.geomspace(100 * min(shares), 100, 20)
    middle.hist([100 * share for share in shares], bins=bins, color=PALETTE[0])
    middle.set_xscale("log")
    middle.xaxis.set_major_formatter("{x:g}")
    chart(middle, "share of the image, %", "regions")
    bins = np.arange(1, max(map(max, words.values())) + 2)
    labels, colors = [wrapped(stage, 20) for stage in words], PALETTE[: len(words)]
    right.hist(list(words.values()), bins, histtype="step", label=labels, color=colors)
    chart(right, "words per caption", "captions")
    right.legend(**LEGEND)
    return figure
