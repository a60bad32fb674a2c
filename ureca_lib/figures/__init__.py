"""Figures in matplotlib, from data, for notebooks and papers."""

from ureca_lib.figures.overview import overview_figure
from ureca_lib.figures.regions import (
    caption_figure,
    deepest_point,
    draw_regions,
    draw_target,
    level_figure,
    tree_figure,
)
from ureca_lib.figures.saving import save_figure
from ureca_lib.figures.stages import similarity_figure, statistics_figure, views_figure
from ureca_lib.figures.style import PALETTE, wrapped
from ureca_lib.figures.trees import containment_figure, granularity_figure, parent_figure

__all__ = [
    "PALETTE",
    "caption_figure",
    "containment_figure",
    "deepest_point",
    "draw_regions",
    "draw_target",
    "granularity_figure",
    "level_figure",
    "overview_figure",
    "parent_figure",
    "save_figure",
    "similarity_figure",
    "statistics_figure",
    "tree_figure",
    "views_figure",
    "wrapped",
]
