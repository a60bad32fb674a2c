"""Figures in matplotlib, from data, for notebooks and papers.

The names here need no model. `model` and `tiles` draw a model's parts, `comparison` and `ablations`
evaluations, `training` runs in progress; `model`, `tiles` and `training` load PyTorch.
"""

# ruff: noqa: F401, names for users of the package

from ureca_lib.figures.comparison import ComparedRegion, comparison_figure
from ureca_lib.figures.outlines import deepest_point, draw_outline
from ureca_lib.figures.paper import (
    ambiguity_figure,
    pipeline_figure,
    shared_name,
    teaser_figure,
    telling_region,
)
from ureca_lib.figures.regions import (
    Example,
    caption_figure,
    draw_regions,
    draw_target,
    examples_figure,
    level_figure,
    spread_examples,
    spread_over_levels,
    statistics_figure,
    views_figure,
)
from ureca_lib.figures.style import PALETTE, save_figure, wrapped
from ureca_lib.figures.trees import (
    containment_figure,
    granularity_figure,
    mask_tree_figure,
    parent_figure,
    plot_tree,
    similarity_figure,
    survey_figure,
)
