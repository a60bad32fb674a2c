"""Settings of the stages. They decide which questions are asked, and what the annotator sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ureca_lib.annotate import PAPER_DIFFERENCES
from ureca_lib.annotate.look_alikes import LookAlikeSettings
from ureca_lib.annotate.views import MIN_MARGIN, NUMBER_HEIGHT, ViewSettings
from ureca_lib.mask_tree import (
    CONTAINMENT_THRESHOLD,
    PAPER_MAX_AREA,
    PAPER_MIN_AREA,
    PAPER_MIN_HEIGHT,
    MaskTree,
    ParentRule,
    RegionId,
    build_mask_tree,
)
from ureca_lib.options import at_least, setting
from ureca_lib.regions import Region


@dataclass(frozen=True)
class TreeSettings:
    """Stage 1: the tree, and the main objects under which regions are captioned (App. F).

    The default captions every region.
    """

    threshold: float = setting(CONTAINMENT_THRESHOLD, "share of a region its parent holds")
    parent_rule: ParentRule = setting("smallest", "'smallest', or 'first', the published rule")
    min_height: int = setting(1, "least levels of a main object's subtree; a leaf has 1")
    min_area: float = setting(0.0, "least share of the image that a main object covers")
    max_area: float = setting(1.0, "largest share of the image that a main object covers")
    min_part_area: float = setting(0.0, "least share of the image that a part covers")

    @classmethod
    def paper(cls) -> TreeSettings:
        """The published rule: main objects of 4 levels and 0.7% to 70%, parts from 0.7%."""
        areas = (PAPER_MIN_AREA, PAPER_MAX_AREA, PAPER_MIN_AREA)
        return cls(CONTAINMENT_THRESHOLD, "first", PAPER_MIN_HEIGHT, *areas)

    def build(self, regions: Iterable[Region]) -> MaskTree:
        """The mask tree of an image's regions."""
        return build_mask_tree(regions, self.threshold, self.parent_rule)

    def chosen(self, tree: MaskTree) -> list[RegionId]:
        """Ids of the regions to caption, top-down; the ancestors of a chosen region are chosen."""
        mains = tree.main_objects(self.min_height, self.min_area, self.max_area)
        inside = {region.id for region in mains}
        for region in tree.top_down():
            share = region.area / (region.size[0] * region.size[1])
            if tree.parent(region.id) in inside and share >= self.min_part_area:
                inside.add(region.id)
        return [region.id for region in tree.top_down() if region.id in inside]


@dataclass(frozen=True)
class CheckSettings:
    """Stage 4: how often captions are refined, while some read the same.

    Raises:
        ValueError: a value out of range.
    """

    rounds: int = setting(3, "most refinements of a region; the paper makes 1")
    most: int = setting(8, "look-alikes shown in a round after the first")

    def __post_init__(self) -> None:
        at_least(self, rounds=1, most=1)


@dataclass(frozen=True)
class PipelineSettings:
    """All settings of a run except its annotators."""

    tree: TreeSettings = field(default_factory=TreeSettings)
    views: ViewSettings = field(default_factory=ViewSettings)
    look_alikes: LookAlikeSettings = field(default_factory=LookAlikeSettings)
    check: CheckSettings = field(default_factory=CheckSettings)
    describe_leaves: bool = setting(
        True,
        "stage 3 asks about regions without parts too; False: their long caption is the short "
        "one, without a call (published code)",
    )
    verify_splits: tuple[str, ...] = setting(
        (), "splits that are verified; the paper verifies its test set"
    )
    strict: bool = setting(True, "a bad mask fails its image; else it is left out")
    boxes: bool = setting(False, "a box is a region where there is no mask")
    retry_failed: bool = setting(True, "ask questions again that failed in an earlier run")

    @classmethod
    def paper(cls) -> PipelineSettings:
        """The published rules: main objects of App. F, one refinement, the test set verified.

        All regions above the threshold are look-alikes, ancestors and descendants too. A leaf's
        long caption is its short one, as in the authors' code.
        """
        return cls(
            tree=TreeSettings.paper(),
            look_alikes=LookAlikeSettings.paper(),
            check=CheckSettings(rounds=1),
            describe_leaves=False,
            verify_splits=("test",),
        )

    def for_store(self, recipe: int) -> PipelineSettings:
        """The settings as a store of that recipe takes them, see `Store.recipe`.

        Stores of recipe 1 keep what their answers were given for, so that nothing is asked
        again: bare digits as the numbers of look-alikes, and a question about each leaf.
        """
        if recipe > 1:
            return self
        return replace(self, views=replace(self.views, numbers="digits"), describe_leaves=True)

    def record(self, recipe: int) -> dict[str, Any]:
        """The settings that decide an image's captions, as plain data, in the recipe's fields.

        Those of recipe 1 are frozen: another name, or one more, would ask every question of those
        stores again. A setting that is removed from its class keeps its former default here.
        """
        known = asdict(self)
        for name in ("retry_failed", "verify_splits"):
            del known[name]
        if not self.boxes:  # stores of before it was a setting have the same answers
            del known["boxes"]
        known["check"]["max_overlap"] = 1.0
        if recipe == 1:
            del known["describe_leaves"], known["views"]["numbers"]
            known["views"] |= {"min_margin": MIN_MARGIN, "number_height": NUMBER_HEIGHT}
        return known


# one table for the docstring and for `ureca annotate --help`
PipelineSettings.paper.__func__.__doc__ += f"\n\n{PAPER_DIFFERENCES}"  # type: ignore[attr-defined]
