"""Which views each stage shows, in the order in which its prompt speaks of them."""

from __future__ import annotations

import numpy as np

from ureca_lib.annotate.protocol import STAGES, Context, Stage
from ureca_lib.annotate.views.image_views import ImageViews
from ureca_lib.mask_tree import MaskTree, RegionId


def stage_views(
    stage: Stage, views: ImageViews, tree: MaskTree, region_id: RegionId, context: Context
) -> list[np.ndarray]:
    """The pictures that go with a stage's prompt (Sec. 3, Tables 7-9).

    Args:
        stage: "short": the contoured parent and the cropped target; "long": the contoured image;
            "unique": the numbered look-alikes; "verify": the contoured image and the crop.
        views: of the image.
        tree: of its regions.
        region_id: the target.
        context: its look-alikes are numbered in their order.

    Returns:
        (h, w, 3) uint8 each.

    Raises:
        ValueError: no such stage.
    """
    if stage == "short":
        ancestors = tree.ancestors(region_id)
        main_object = ancestors[-1] if ancestors else None
        contoured = views.contoured_parent(region_id, tree.parent(region_id), main_object)
        return [contoured, views.target_crop(region_id)]
    if stage == "long":
        return [views.contoured_image(region_id)]
    if stage == "unique":
        return [views.numbered(region_id, context.look_alikes)]
    if stage == "verify":
        return [views.contoured_image(region_id), views.target_crop(region_id)]
    raise ValueError(f"a stage is one of {', '.join(STAGES)}, not {stage!r}")
