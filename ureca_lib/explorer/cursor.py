"""A place in the mask tree, and the steps from it."""

from __future__ import annotations

from ureca_lib.mask_tree import MaskTree, RegionId, region_label


class TreeCursor:
    """The region that is looked at. Going up and down again comes back to where one was.

    Args:
        tree: it moves in.
        region_id: where it starts; None is the whole image.
    """

    def __init__(self, tree: MaskTree, region_id: RegionId | None = None):
        self.tree = tree
        self._last_child: dict[RegionId | None, RegionId] = {}
        self.region_id: RegionId | None = None
        self.move_to(region_id)

    def move_to(self, region_id: RegionId | None) -> None:
        """Go to a region, or with None to the whole image.

        Raises:
            KeyError: the tree has no such region.
        """
        if region_id is not None and region_id not in self.tree:
            raise KeyError(f"the tree has no region {region_id!r}")
        self.region_id = region_id
        while region_id is not None:
            parent = self.tree.parent(region_id)
            self._last_child[parent] = region_id
            region_id = parent

    def up(self) -> None:
        """To the parent; from the image nowhere."""
        if self.region_id is not None:
            self.region_id = self.tree.parent(self.region_id)

    def down(self) -> None:
        """To the child one came from, else the largest; from a leaf nowhere."""
        children = self.tree.children(self.region_id)
        last = self._last_child.get(self.region_id)
        if children:
            self.move_to(last if last in children else children[0])

    def aside(self, step: int) -> None:
        """To a sibling: the next smaller one for 1, the next larger one for -1, around the end."""
        if self.region_id is not None:
            family = self.tree.children(self.tree.parent(self.region_id))
            place = family.index(self.region_id) + step
            self.move_to(family[place % len(family)])

    def path(self) -> list[RegionId]:
        """Ids from a child of the image down to the region itself; empty for the image."""
        if self.region_id is None:
            return []
        return [*reversed(self.tree.ancestors(self.region_id)), self.region_id]

    def label(self, region_id: RegionId | None) -> str:
        """What a region is called: its name and id."""
        return "image" if region_id is None else region_label(self.tree[region_id])
