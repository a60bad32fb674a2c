"""Stage 1: the mask tree (Sec. 3, App. F).

Masks of one image lie in one another: a boot in a person, a lace in the boot. The tree makes that
explicit. Its root is the whole image, every other node is a region, and a region's parent is a
region that holds at least `threshold` of its pixels.
"""

from ureca_lib.mask_tree.build import ParentRule, build_mask_tree
from ureca_lib.mask_tree.containment import containment_matrix
from ureca_lib.mask_tree.tree import (
    CONTAINMENT_THRESHOLD,
    PAPER_MAX_AREA,
    PAPER_MIN_AREA,
    PAPER_MIN_HEIGHT,
    MaskTree,
    RegionId,
)

__all__ = [
    "CONTAINMENT_THRESHOLD",
    "PAPER_MAX_AREA",
    "PAPER_MIN_AREA",
    "PAPER_MIN_HEIGHT",
    "MaskTree",
    "ParentRule",
    "RegionId",
    "build_mask_tree",
    "containment_matrix",
]
