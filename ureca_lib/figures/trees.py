"""Figures of mask trees: containment, two rules side by side, granularity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ureca_lib.figures.regions import draw_target
from ureca_lib.figures.style import COLUMN_WIDTH, PAGE_WIDTH, PALETTE
from ureca_lib.mask_tree import MaskTree, RegionId, region_label
from ureca_lib.regions import RegionImage

LEVEL_COLORS = PALETTE[:6]
_LARGEST = 300.0  # inches per side; matplotlib writes no picture of more than 65,536 px


def containment_figure(regions: RegionImage, matrix: np.ndarray) -> Figure:
    """A containment matrix as an image, regions sorted by area, largest first.

    Args:
        regions: R regions.
        matrix: (R, R), as `containment_matrix` gives it.
    """
    order = np.argsort([-region.area for region in regions], kind="stable")
    names = [regions.regions[i].name or str(regions.regions[i].id) for i in order]
    side = max(COLUMN_WIDTH, 0.11 * len(names) + 1.2)
    figure, ax = plt.subplots(figsize=(side, side), layout="constrained")
    shown = ax.imshow(matrix[np.ix_(order, order)], cmap="viridis", vmin=0, vmax=1)
    labels = [name.replace("$", r"\$") for name in names]
    ax.set_xticks(range(len(names)), labels, rotation=90, fontsize=5)
    ax.set_yticks(range(len(names)), labels, fontsize=5)
    ax.set_xlabel("lies in", fontsize=8)
    ax.set_ylabel("share of", fontsize=8)
    bar = figure.colorbar(shown, ax=ax, shrink=0.6)
    bar.ax.tick_params(labelsize=7)
    return figure


def parent_figure(
    regions: RegionImage, smallest: MaskTree, first: MaskTree, region_id: RegionId
) -> Figure:
    """A region beside the parent that each rule gives it.

    Args:
        regions: with the photo.
        smallest, first: trees built with the two rules.
        region_id: whose parents differ.
    """
    figure, axes = plt.subplots(1, 3, figsize=(PAGE_WIDTH, PAGE_WIDTH / 2.7), layout="constrained")
    _panel(axes[0], regions, region_id, "the region")
    _panel(axes[1], regions, smallest.parent(region_id), 'parent, "smallest"')
    _panel(axes[2], regions, first.parent(region_id), 'parent, "first" (published)')
    return figure


def granularity_figure(trees: Mapping[str, MaskTree]) -> Figure:
    """Area of each region against its level, one colour a photo.

    Args:
        trees: by the photo's name.
    """
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 3), layout="constrained")
    for number, (name, tree) in enumerate(trees.items()):
        levels = [tree.depth(region.id) for region in tree.regions]
        shares = [100 * region.area / np.prod(region.size) for region in tree.regions]
        shift = (number - (len(trees) - 1) / 2) * 0.12  # photos side by side within a level
        ax.scatter(
            np.add(levels, shift), shares, s=14, color=PALETTE[number % len(PALETTE)], label=name
        )
    ax.set_yscale("log")
    ax.set_xlabel("level in the tree")
    ax.set_ylabel("share of the image, %")
    ax.legend(fontsize=7, frameon=False, ncols=2)
    return figure


def _panel(ax: Axes, regions: RegionImage, region_id: RegionId | None, title: str) -> None:
    ax.axis("off")
    if region_id is None:
        ax.imshow(regions.pixels)
        name = "the image"
    else:
        draw_target(ax, regions.pixels, regions[region_id], context=0.3)
        name = regions[region_id].name or f"region {region_id}"
    ax.set_title(f"{title}:\n{name}".replace("$", r"\$"), fontsize=8)


def plot_tree(tree: MaskTree, ax: Axes | None = None) -> Axes:
    """Draw a tree: the image on the left, one column per level, one line per region.

    Args:
        tree: of any size; the drawing grows with the number of regions.
        ax: where to draw; None makes a figure.

    Returns:
        The axes drawn on.
    """
    if ax is None:
        width, height = 1.6 * (tree.height() + 1), max(2.0, 0.22 * (len(tree) + 1))
        size = min(width, _LARGEST), min(height, _LARGEST)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    rows: dict[RegionId | None, int] = {None: 0}
    stack = list(reversed(tree.children()))
    while stack:
        region_id = stack.pop()
        rows[region_id] = len(rows)
        stack.extend(reversed(tree.children(region_id)))
    for region_id, row in rows.items():
        depth = tree.depth(region_id)
        color, label = "#444444", "image"
        if region_id is not None:
            color, label = (
                LEVEL_COLORS[(depth - 1) % len(LEVEL_COLORS)],
                region_label(tree[region_id]),
            )
            up = rows[tree.parent(region_id)]
            ax.plot([depth - 1, depth - 1, depth], [up, row, row], color="#bbbbbb", lw=1, zorder=1)
        ax.plot(depth, row, "o", color=color, ms=5, zorder=2)
        ax.annotate(
            label.replace("$", r"\$"),  # not mathematics to matplotlib
            (depth, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    ax.set_xlim(-0.2, tree.height() + 1)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.axis("off")
    return ax
