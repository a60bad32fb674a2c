"""Stage 1: the mask tree (Sec. 3, App. F).

Masks of one image contain one another: a person holds a boot, the boot a lace. The tree makes that
explicit. Its root is the whole image, every other node is a region, and the parent of a region is a
region that contains at least `threshold` of its pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from pycocotools import mask as coco_mask

from ureca_lib.regions import AnnotationFormatError, Region

RegionId = int | str
ParentRule = Literal["smallest", "first"]

CONTAINMENT_THRESHOLD = 0.8  # as published
PAPER_MIN_HEIGHT = 4  # App. F, "whose depth exceeds a predefined threshold"; published: 4
PAPER_MIN_AREA = 0.007  # of the image; published
PAPER_MAX_AREA = 0.7  # of the image; published
_BLOCK = 64  # masks per block of the containment matrix
_SHOWN = 40  # regions in a tree's repr
_LONGEST = 40  # characters of a name that are shown


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
        SizeMismatchError, AnnotationFormatError: the regions are not of one image.
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
    before = (np.flatnonzero(holds[rank, :rank]) for rank in range(len(holds)))
    return [int(ranks[-1]) if ranks.size else None for ranks in before]


def _first_container(holds: np.ndarray) -> list[int | None]:
    parents: list[int | None] = []
    children: dict[int | None, list[int]] = {None: []}
    for rank in range(len(holds)):
        parent: int | None = None
        while (down := next((i for i in children[parent] if holds[rank, i]), None)) is not None:
            parent = down
        children[parent].append(rank)
        children[rank] = []
        parents.append(parent)
    return parents


def containment_matrix(regions: Iterable[Region]) -> np.ndarray:
    """Share of each mask that lies in each other mask, from the encodings, without decoding.

    Args:
        regions: R regions of one image.

    Returns:
        (R, R) float64; `[i, j]` is the number of pixels that i and j share, divided by the number
        that i has. Exact: both are whole numbers, and the division is the only rounding.

    Raises:
        SizeMismatchError: masks of different sizes.
    """
    regions = list(regions)
    for region in regions:
        region.check_size(*regions[0].size)  # of one image
    order = by_area(regions)
    rles = [regions[i].rle for i in order]
    areas = np.array([regions[i].area for i in order], np.float64)
    count = len(rles)
    shared = np.zeros((count, count))
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        # against a crowd, pycocotools' IoU is the intersection over the first mask's area; the
        # intersection is symmetric, so only blocks on and left of the diagonal are computed
        share = coco_mask.iou(rles[start:stop], rles[:stop], [1] * stop)
        shared[start:stop, :stop] = np.rint(share * areas[start:stop, None])
        shared[:start, start:stop] = shared[start:stop, :start].T
    matrix = np.empty_like(shared)
    matrix[np.ix_(order, order)] = shared / areas[:, None]
    return matrix


def by_area(regions: Sequence[Region]) -> np.ndarray:
    """Indices of the regions, largest first, ties in the order given."""
    return np.argsort([-region.area for region in regions], kind="stable").astype(np.intp)


class MaskTree:
    """Regions of one image as a tree. The root, the whole image, is not a region: it is `None`.

    Args:
        regions: in file order.
        parents: for each region's id its parent's id, or None for the image.
        threshold, parent_rule: what it was built with.

    Raises:
        AnnotationFormatError: two regions have one id.
        ValueError: a parent that is not a region, or a cycle.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        parents: Mapping[RegionId, RegionId | None],
        threshold: float = CONTAINMENT_THRESHOLD,
        parent_rule: str = "smallest",
    ):
        self.regions = list(regions)
        self.threshold, self.parent_rule = float(threshold), parent_rule
        self._by_id: dict[RegionId, Region] = {}
        for region in self.regions:
            if region.id in self._by_id:
                raise AnnotationFormatError("another region has this id", None, region.id)
            self._by_id[region.id] = region
        if set(parents) != set(self._by_id):
            wrong = sorted(map(str, set(parents) ^ set(self._by_id)))
            raise ValueError(f"parents and regions are not of the same ids: {', '.join(wrong)}")
        ordered = [self.regions[i].id for i in by_area(self.regions)]
        self._parents = {region_id: parents[region_id] for region_id in ordered}
        self._children: dict[RegionId | None, list[RegionId]] = {None: []}
        self._children.update({region_id: [] for region_id in ordered})
        for region_id, parent in self._parents.items():
            if parent not in self._children:
                raise ValueError(f"the parent {parent} of region {region_id} is not a region")
            self._children[parent].append(region_id)
        # level by level, within a level by parent and then by area, largest first
        self._order = self.descendants()
        if len(self._order) != len(self.regions):
            lost = sorted(map(str, set(self._parents) - set(self._order)))
            raise ValueError(f"the parents form a cycle among {', '.join(lost)}")
        self._depth: dict[RegionId | None, int] = {None: 0}
        for region_id in self._order:
            self._depth[region_id] = 1 + self._depth[self._parents[region_id]]
        self._height: dict[RegionId, int] = {}
        for region_id in reversed(self._order):
            below = (self._height[child] for child in self._children[region_id])
            self._height[region_id] = 1 + max(below, default=0)

    def __getitem__(self, region_id: RegionId) -> Region:
        return self._by_id[region_id]

    def __len__(self) -> int:
        return len(self.regions)

    def __contains__(self, region_id: object) -> bool:
        return region_id in self._by_id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskTree):
            return NotImplemented
        return (self.regions, self._parents) == (other.regions, other._parents)

    def parent(self, region_id: RegionId) -> RegionId | None:
        """The parent's id, or None where the parent is the whole image."""
        return self._parents[region_id]

    def children(self, region_id: RegionId | None = None) -> list[RegionId]:
        """Ids of the children, largest first; of the whole image for None."""
        return list(self._children[region_id])

    def siblings(self, region_id: RegionId) -> list[RegionId]:
        """Ids of the other children of the same parent, largest first."""
        return [other for other in self._children[self._parents[region_id]] if other != region_id]

    def ancestors(self, region_id: RegionId) -> list[RegionId]:
        """Ids from the parent up to the child of the image."""
        found = []
        while (region_id := self._parents[region_id]) is not None:
            found.append(region_id)
        return found

    def descendants(self, region_id: RegionId | None = None) -> list[RegionId]:
        """Ids of everything below, level by level."""
        found = list(self._children[region_id])
        for below in found:  # grows while it is read
            found.extend(self._children[below])
        return found

    def depth(self, region_id: RegionId | None) -> int:
        """Steps from the whole image, which has 0."""
        return self._depth[region_id]

    def height(self, region_id: RegionId | None = None) -> int:
        """Levels of the subtree; a leaf has 1. None gives the tree's, not counting the image."""
        if region_id is None:
            return max(self._height.values(), default=0)
        return self._height[region_id]

    def top_down(self) -> Iterator[Region]:
        """Regions, each after its parent: level by level, siblings largest first (stage 2)."""
        return (self._by_id[region_id] for region_id in self._order)

    def bottom_up(self) -> Iterator[Region]:
        """Regions, each after all of its children: `top_down` reversed (stage 3)."""
        return (self._by_id[region_id] for region_id in reversed(self._order))

    def main_objects(
        self,
        min_height: int = 1,
        min_area: float = 0.0,
        max_area: float = 1.0,
        paper: bool = False,
    ) -> list[Region]:
        """Children of the image that are worth starting from (App. F, stage 2), largest first.

        Args:
            min_height: least height of the subtree, in levels; a leaf has 1.
            min_area, max_area: share of the image that the region covers, both ends included.
            paper: take the published setting instead: 4 levels, 0.7% to 70% of the image.
        """
        if paper:
            min_height, min_area, max_area = PAPER_MIN_HEIGHT, PAPER_MIN_AREA, PAPER_MAX_AREA
        found = []
        for region_id in self._children[None]:
            region = self._by_id[region_id]
            share = region.area / (region.size[0] * region.size[1])
            if self._height[region_id] >= min_height and min_area <= share <= max_area:
                found.append(region)
        return found

    def __repr__(self) -> str:
        rule = f"threshold {self.threshold:g}, parent rule '{self.parent_rule}'"
        lines = [f"MaskTree of {len(self)} regions, {self.height()} levels ({rule})", "image"]
        stack = self._children[None][::-1]
        while stack:
            region_id = stack.pop()
            region = self._by_id[region_id]
            share = region.area / (region.size[0] * region.size[1])
            said = f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"
            lines.append(f"{'  ' * self._depth[region_id]}{region_label(region)} {said}%")
            stack.extend(reversed(self._children[region_id]))
        if len(self) > _SHOWN:
            lines[_SHOWN + 2 :] = [f"  ... and {len(self) - _SHOWN} more"]
        return "\n".join(lines)


def region_label(region: Region) -> str:
    """`name [id]` on one line, or `[id]`; a long name is cut."""
    name = " ".join((region.name or "").split())
    if len(name) > _LONGEST:
        name = name[: _LONGEST - 1] + "…"
    return f"{name} [{region.id}]".lstrip()
