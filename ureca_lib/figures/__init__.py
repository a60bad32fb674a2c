"""Figures in matplotlib, from data, for notebooks and papers.

Here are those that need no model. Those of the model and of what it says are in `architecture`,
`attention`, `compared`, `dynamic_mask`, `model` and `tiles`, which load PyTorch.
"""

from ureca_lib.figures.ambiguity import ambiguity_figure, shared_name
from ureca_lib.figures.comparison import ComparedRegion, comparison_figure
from ureca_lib.figures.examples import Example, examples_figure, spread_examples
from ureca_lib.figures.legible import Legibility, legibility
from ureca_lib.figures.mask_tree import mask_tree_figure
from ureca_lib.figures.outlines import deepest_point, draw_outline
from ureca_lib.figures.overview import OverviewColumn, overview_figure
from ureca_lib.figures.pipeline_example import pipeline_figure, telling_region
from ureca_lib.figures.regions import (
    caption_figure,
    draw_regions,
    draw_target,
    level_figure,
    tree_figure,
)
from ureca_lib.figures.saving import save_figure
from ureca_lib.figures.stages import (
    similarity_figure,
    statistics_figure,
    survey_figure,
    views_figure,
)
from ureca_lib.figures.style import PALETTE, wrapped
from ureca_lib.figures.teaser import spread_over_levels, teaser_figure
from ureca_lib.figures.trees import containment_figure, granularity_figure, parent_figure

__all__ = [
    "PALETTE",
    "ComparedRegion",
    "Example",
    "Legibility",
    "OverviewColumn",
    "ambiguity_figure",
    "caption_figure",
    "comparison_figure",
    "containment_figure",
    "deepest_point",
    "draw_outline",
    "draw_regions",
    "draw_target",
    "examples_figure",
    "granularity_figure",
    "legibility",
    "level_figure",
    "mask_tree_figure",
    "overview_figure",
    "parent_figure",
    "pipeline_figure",
    "save_figure",
    "shared_name",
    "similarity_figure",
    "spread_examples",
    "spread_over_levels",
    "statistics_figure",
    "survey_figure",
    "teaser_figure",
    "telling_region",
    "tree_figure",
    "views_figure",
    "wrapped",
]
