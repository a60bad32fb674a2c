"""Stage 1 of the pipeline: building the mask tree (Sec. 3, App. F)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from ureca_lib.mask_tree.containment import by_area, containment_matrix
from ureca_lib.mask_tree.tree import CONTAINMENT_THRESHOLD, MaskTree
from ureca_lib.regions import Region

ParentRule = Literal["smallest", "first"]


def build_mask_tree(
    regions: Iterable[Region],
    threshold: float = CONTAINMENT_THRESHOLD,
    parent_rule: ParentRule = "smallest",
) -> MaskTree:
    """Build the mask tree of one image (Sec. 3, stage 1).

    Regions are inserted in order of area, largest first, ties in the order given.

    Args:
        regions: of one image.
        threshold: the share of a region that its parent must hold, in (0, 1].
        parent_rule: "smallest" takes the last region before it in that order, that is the
            smallest one, that holds the share. "first" is the published greedy rule: start at
            the root and go down into the first child that holds the share, until none does.

    Returns:
        The tree. The same list always gives the same tree.

    Raises:
        ValueError: threshold or rule is not one of those.
        SizeMismatchError, DuplicateIdError: the regions are not of one image.
    """
    regions = list(regions)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    if parent_rule not in ("smallest", "first"):
        raise ValueError(f"parent_rule must be 'smallest' or 'first', not {parent_rule!r}")
    order = by_area(regions)
    holds = containment_matrix(regions)[np.ix_(order, order)] >= threshold
    choose = _smallest_container if parent_rule == "smallest" else _first_container
    ranks = choose(holds)
    parents = {
        regions[order[rank]].id: None if parent is None else regions[order[parent]].id
        for rank, parent in enumerate(ranks)
    }
    return MaskTree(regions, parents, threshold, parent_rule)


def _smallest_container(holds: np.ndarray) -> list[int | None]:
    """Rank of each region's parent; `holds[i, j]`: region j holds enough of region i."""
    parents: list[int | None] = []
    for rank in range(len(holds)):
        before = np.flatnonzero(holds[rank, :rank])
        parents.append(int(before[-1]) if before.size else None)
    return parents


def _first_container(holds: np.ndarray) -> list[int | None]:
    parents: list[int | None] = []
    children: dict[int | None, list[int]] = {None: []}
    for rank in range(len(holds)):
        parent: int | None = None
        while True:
            down = next((child for child in children[parent] if holds[rank, child]), None)
            if down is None:
                break
            parent = down
        children[parent].append(rank)
        children[rank] = []
        parents.append(parent)
    return parents
