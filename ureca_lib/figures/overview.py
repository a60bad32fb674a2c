"""The project in one picture: a photo, its tree, and a caption that only one region fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ureca_lib.figures.style import PAGE_WIDTH, PALETTE, wrapped
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import RegionImage


def overview_figure(
    regions: RegionImage,
    tree: MaskTree,
    captions: Mapping[RegionId, str],
    ids: Sequence[RegionId],
) -> Figure:
    """Regions on the photo, and beside it their branch of the tree with names and captions.

    Args:
        regions: with the photo.
        tree: of these regions.
        captions: text by region id.
        ids: which regions to show.
    """
    chosen = [region.id for region in _depth_first(tree) if region.id in set(ids)]
    width = PAGE_WIDTH * 1.45
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(width, 0.26 * len(chosen) + 0.6), width_ratios=[1, 1.25]
    )
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.98, wspace=0.03)
    left.imshow(regions.pixels)
    left.axis("off")
    right.axis("off")
    right.set_xlim(0, 1)
    right.set_ylim(len(chosen) + 0.2, -1)
    _heading(right)
    for row, region_id in enumerate(chosen):
        colour = PALETTE[row % len(PALETTE)]
        mask = np.pad(regions[region_id].mask, 1)
        extent = (-1, regions.width, -1, regions.height)  # of the padded mask's pixel centres
        left.contour(mask, [0.5], colors=[colour], linewidths=1.6, extent=extent)
        depth = tree.depth(region_id)
        name = wrapped(regions[region_id].name or "region", 40)
        right.plot(0.01 + 0.028 * (depth - 1), row, "s", color=colour, ms=6)
        right.text(0.03 + 0.028 * (depth - 1), row, name, va="center", fontsize=8, color="#555555")
        right.text(0.36, row, wrapped(captions[region_id], 80), va="center", fontsize=8.5)
    return figure


def _heading(ax: Axes) -> None:
    style = {"va": "center", "fontsize": 8, "fontweight": "bold"}
    ax.text(0.0, -0.8, "mask tree", **style)
    ax.text(0.36, -0.8, "a caption that fits no other region", **style)


def _depth_first(tree: MaskTree) -> list:
    """Regions, each followed by everything below it."""
    found, stack = [], list(reversed(tree.children()))
    while stack:
        region_id = stack.pop()
        found.append(tree[region_id])
        stack.extend(reversed(tree.children(region_id)))
    return found
