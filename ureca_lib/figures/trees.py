"""Mask trees: the tree beside its photo, two parent rules, containment, similarity, granularity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ureca_lib.annotate.look_alikes import NearPair
from ureca_lib.figures.outlines import draw_outline, draw_photo
from ureca_lib.figures.regions import Example, examples_figure, level_head, levels_of
from ureca_lib.figures.style import (
    BODY,
    COLUMN_WIDTH,
    LEGEND,
    PAGE_WIDTH,
    PALETTE,
    SMALL,
    chart,
    marks,
    wrapped,
)
from ureca_lib.mask_tree import MaskTree, RegionId, region_label
from ureca_lib.regions import Region, RegionImage

_PHOTOS = 3.1  # inches of the photos' column
_LINE = 0.165  # inches per line of the tree
_FILL = 0.3  # opacity of a region's color
_PAIRS = 4  # of look-alikes in a row


def plot_tree(tree: MaskTree, ax: Axes) -> None:
    """Draw a tree: the image on the left, one column per level, one line per region.

    Args:
        tree: of any size.
        ax: where to draw.
    """
    # each region is followed by everything below it
    places = {region.id: place for place, region in enumerate(tree.top_down())}
    order = sorted(places, key=lambda one: [places[up] for up in (*tree.ancestors(one)[::-1], one)])
    rows = dict(zip([None, *order], range(len(tree) + 1), strict=True))
    for region_id, row in rows.items():
        depth = tree.depth(region_id)
        color, label = "#444444", "image"
        if region_id is not None:
            color, label = level_color(depth), region_label(tree[region_id])
            up = rows[tree.parent(region_id)]
            ax.plot([depth - 1, depth - 1, depth], [up, row, row], color="#bbbbbb", lw=1, zorder=1)
        ax.plot(depth, row, "o", color=color, ms=4.5, zorder=2)
        style = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(wrapped(label, 60, 1), (depth, row), fontsize=BODY, **style)
    # the layout makes room for the labels
    ax.set(xlim=(-0.2, tree.height() + 0.2), ylim=(len(rows) - 0.5, -0.5))
    ax.axis("off")


def level_color(depth: int) -> str:
    """Color of a level, on photos and in the tree."""
    return PALETTE[(depth - 1) % len(PALETTE)]


def mask_tree_figure(regions: RegionImage, tree: MaskTree) -> Figure:
    """Draw the photo with all regions, each level alone, and the tree (Sec. 3, stage 1).

    A level has the same color everywhere.

    Args:
        regions: with the photo.
        tree: of these regions; more than about 50 of them do not fit a page.
    """
    levels, shape = levels_of(tree), regions.height / regions.width
    rows = (len(levels) + 1) // 2
    tall, small = shape * _PHOTOS, shape * _PHOTOS / 2 + 0.2
    height = max(tall + rows * small, _LINE * (len(tree) + 1))
    figure = plt.figure(figsize=(PAGE_WIDTH, height), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(_PHOTOS, PAGE_WIDTH - _PHOTOS))
    drawing = right.subplots()
    plot_tree(tree, drawing)
    drawing.set_ylim(height / _LINE - 0.5, -0.5)
    spare = height - tall - rows * small + 0.01  # below the pictures
    grid = left.add_gridspec(rows + 2, 2, height_ratios=[tall, *[small] * rows, spare])
    _draw_levels(left.add_subplot(grid[0, :]), regions, tree, list(tree.top_down()))
    for number, (depth, members) in enumerate(levels.items()):
        ax = left.add_subplot(grid[1 + number // 2, number % 2])
        _draw_levels(ax, regions, tree, members, _FILL)
        ax.set_title(level_head(depth, members), fontsize=SMALL)
    return figure


def _draw_levels(
    ax: Axes, regions: RegionImage, tree: MaskTree, members: Sequence[Region], fill: float = 0
) -> None:
    """Outline regions in their level's color; a level alone is filled too."""
    colors = {region.id: level_color(tree.depth(region.id)) for region in members}
    tints = ((region.mask, colors[region.id], fill) for region in members if fill)
    draw_photo(ax, regions.pixels, tints=tints)
    for region in members:
        draw_outline(ax, region, colors[region.id], 0.9 if fill else 1.3)


def parent_figure(
    regions: RegionImage, smallest: MaskTree, first: MaskTree, region_id: RegionId
) -> Figure:
    """Draw a region beside the parent that each rule gives it.

    Args:
        regions: with the photo.
        smallest, first: trees built with the two rules.
        region_id: whose parents differ.
    """
    shown = {
        "the region": region_id,
        'parent, "smallest"': smallest.parent(region_id),
        'parent, "first" (published)': first.parent(region_id),
    }
    examples = []
    for head, one in shown.items():
        region = None if one is None else regions[one]
        name = "the image" if region is None else region_label(region)
        examples.append(Example(regions.pixels, region, name, head))
    return examples_figure(examples, 3)


def containment_figure(regions: RegionImage, matrix: np.ndarray) -> Figure:
    """Draw a containment matrix, regions sorted by area, largest first.

    Args:
        regions: R regions.
        matrix: (R, R), as `containment_matrix` gives it.
    """
    order = np.argsort([-region.area for region in regions], kind="stable")
    labels = [region_label(regions.regions[place]) for place in order]
    shown = 100 * matrix[np.ix_(order, order)]
    figure, ax = _matrix(shown, labels, "share of the row's region in the column's, %", 100)
    ax.set_xlabel("in", fontsize=BODY)
    ax.set_ylabel("share of", fontsize=BODY)
    return figure


def similarity_figure(similarity: np.ndarray, names: Sequence[str], threshold: float) -> Figure:
    """Draw a matrix of cosine similarities; those at or above the threshold are marked.

    Args:
        similarity: (R, R), its diagonal ignored.
        names: R labels.
        threshold: least similarity of two regions that look alike.
    """
    shown = similarity.copy()
    np.fill_diagonal(shown, np.nan)
    label = f"cosine similarity (marked: at least {threshold:g})"
    figure, ax = _matrix(shown, names, label, 1)
    rows, columns = np.nonzero(np.nan_to_num(shown, nan=-1) >= threshold)
    ax.scatter(columns, rows, marker="s", s=5, color=PALETTE[1], linewidths=0)
    return figure


def _matrix(
    values: np.ndarray, names: Sequence[str], label: str, top: float
) -> tuple[Figure, Axes]:
    """Draw (R, R) values from 0 to `top` with names along both sides, and a color bar."""
    side = max(COLUMN_WIDTH, 0.12 * len(names) + 1.2)
    figure, ax = plt.subplots(figsize=(side, side), layout="constrained")
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=top)
    labels = [wrapped(name, 28, 1) for name in names]
    ax.set_xticks(range(len(names)), labels, rotation=90, fontsize=6)
    ax.set_yticks(range(len(names)), labels, fontsize=6)
    bar = figure.colorbar(image, ax=ax, shrink=0.6)
    bar.set_label(label, fontsize=BODY)
    bar.ax.tick_params(labelsize=SMALL)
    return figure, ax


def granularity_figure(trees: Mapping[str, MaskTree]) -> Figure:
    """Draw the area of each region against its level, one color per photo.

    Args:
        trees: by the photo's name.
    """
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 3), layout="constrained")
    for number, (name, tree) in enumerate(trees.items()):
        shift = (number - (len(trees) - 1) / 2) * 0.12  # photos side by side within a level
        levels = [tree.depth(region.id) + shift for region in tree.regions]
        shares = [100 * region.area / np.prod(region.size) for region in tree.regions]
        ax.plot(levels, shares, linestyle="", label=wrapped(name, 20), **marks(number))
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    chart(ax, "level in the tree", "share of the image, %")
    ax.legend(ncols=2, **LEGEND)
    return figure


def survey_figure(similarities: np.ndarray, threshold: float, pairs: Sequence[NearPair]) -> Figure:
    """Draw a histogram of the similarities of pairs of regions, and pairs near the threshold.

    Args:
        similarities: (P,) cosine similarities.
        threshold: from which two regions look alike.
        pairs: with their crops.
    """
    rows = -(-len(pairs) // _PAIRS)
    figure = plt.figure(figsize=(PAGE_WIDTH, 2 + 1.2 * rows), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2, 1.2 * rows))
    ax = top.subplots()
    ax.hist(similarities, bins=50, color=PALETTE[0])
    share = (similarities >= threshold).mean()
    ax.axvline(threshold, color=PALETTE[1], label=f"{threshold:g}: {share:.1%} of pairs are above")
    chart(ax, "cosine similarity", "pairs of regions")
    ax.legend(**LEGEND)
    axes = bottom.subplots(rows, 2 * _PAIRS, squeeze=False).flat
    for ax in axes:
        ax.axis("off")
    for first, second, pair in zip(axes[::2], axes[1::2], pairs, strict=False):
        for ax, crop, region_id in zip((first, second), pair.crops, pair.region_ids, strict=True):
            ax.imshow(crop)
            ax.set_title(wrapped(f"[{region_id}]", 16, 1), fontsize=6)
        first.set_title(wrapped(f"{pair.similarity:.3f} {first.get_title()}", 20, 1), fontsize=6)
    return figure
