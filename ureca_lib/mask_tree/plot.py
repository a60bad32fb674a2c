"""A mask tree as a drawing: one line a region, one column a level."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from ureca_lib.mask_tree.label import region_label

if TYPE_CHECKING:
    from ureca_lib.mask_tree.tree import MaskTree, RegionId

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe-Ito
_LARGEST = 300.0  # inches a side; matplotlib writes no picture of more than 65,536 px


def plot_tree(tree: MaskTree, ax: Axes | None = None) -> Axes:
    """Draw a tree with its root, the image, on the left and its leaves from top to bottom.

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
        colour = "#444444" if region_id is None else _COLOURS[(depth - 1) % len(_COLOURS)]
        if region_id is not None:
            up = rows[tree.parent(region_id)]
            ax.plot([depth - 1, depth - 1, depth], [up, row, row], color="#bbbbbb", lw=1, zorder=1)
        ax.plot(depth, row, "o", color=colour, ms=5, zorder=2)
        ax.annotate(
            _label(tree, region_id),
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


def _label(tree: MaskTree, region_id: RegionId | None) -> str:
    if region_id is None:
        return "image"
    return region_label(tree[region_id]).replace("$", r"\$")  # not mathematics to matplotlib
