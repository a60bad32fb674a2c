"""Figures in matplotlib, from data, for notebooks and papers."""

from ureca_lib.figures.regions import (
    caption_figure,
    deepest_point,
    draw_regions,
    draw_target,
    level_figure,
    tree_figure,
)
from ureca_lib.figures.style import PALETTE, save_figure, wrapped

__all__ = [
    "PALETTE",
    "caption_figure",
    "deepest_point",
    "draw_regions",
    "draw_target",
    "level_figure",
    "save_figure",
    "tree_figure",
    "wrapped",
]
