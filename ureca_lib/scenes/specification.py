"""Settings of the procedural scenes: the frozen specification and its seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal

from ureca_lib.scenes.palette import COLORS, MATERIALS, PATTERNS

VERSION = "1"  # captions, pixels or masks of a seed change: raise it and measure again
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SceneSpecification:
    """Settings of the scene generator. The defaults are the frozen specification.

    Raises:
        ValueError: names a setting that no scene can meet.
    """

    version: str = field(default=VERSION, metadata={"help": "what the numbers were measured for"})
    train_seeds: tuple[int, int] = field(
        default=(0, 1_000_000), metadata={"help": "first seed, and one past the last, for training"}
    )
    validation_seeds: tuple[int, int] = field(
        default=(1_000_000, 1_010_000), metadata={"help": "the same for validation"}
    )
    test_seeds: tuple[int, int] = field(
        default=(2_000_000, 2_010_000), metadata={"help": "the same for testing"}
    )
    canvases: tuple[tuple[int, int], ...] = field(
        default=((560, 448), (560, 448), (600, 450), (672, 448), (448, 560)),
        metadata={"help": "(width, height) in pixels, one drawn for a scene; repeats weigh"},
    )
    min_objects: int = field(default=4, metadata={"help": "least whole objects, group members too"})
    regions: tuple[int, int] = field(
        default=(20, 40), metadata={"help": "least and most regions of a scene"}
    )
    min_depth: int = field(default=3, metadata={"help": "least levels of the tree"})
    min_twins: int = field(default=2, metadata={"help": "least objects of one kind in a scene"})
    same_color_share: float = field(
        default=0.5, metadata={"help": "chance that the planned twins share colour and pattern"}
    )
    group_share: float = field(default=0.6, metadata={"help": "chance of a pair or row of objects"})
    smallest_region: int = field(
        default=12, metadata={"help": "least visible pixels of a region; smaller ones are left out"}
    )
    min_visible_object: float = field(
        default=0.5, metadata={"help": "least visible share of a whole object"}
    )
    min_visible_part: float = field(
        default=0.4, metadata={"help": "least visible share of a part; others are left out"}
    )
    palette: tuple[str, ...] = field(
        default=(*COLORS, *MATERIALS), metadata={"help": "colours and materials of whole objects"}
    )
    patterns: tuple[str, ...] = field(
        default=PATTERNS, metadata={"help": "patterns of whole objects"}
    )
    lighting: float = field(
        default=1.0, metadata={"help": "strength of tint, gradient and vignette; 0 is none"}
    )
    noise: float = field(
        default=3.0, metadata={"help": "largest standard deviation of the grain, in grey levels"}
    )

    def __post_init__(self) -> None:
        if not self.canvases or any(min(canvas) < 448 for canvas in self.canvases):
            raise ValueError(f"canvases need sides of at least 448 px, got {self.canvases}")
        low, high = self.regions
        if not 1 <= low <= high <= 100:
            raise ValueError(f"regions must be two rising numbers from 1 to 100, got {low}, {high}")
        for name in ("same_color_share", "group_share", "min_visible_object", "min_visible_part"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if self.smallest_region < 1 or self.lighting < 0 or self.noise < 0:
            raise ValueError("smallest_region must be positive, lighting and noise not negative")
        unknown = (set(self.palette) - {*COLORS, *MATERIALS}) | (set(self.patterns) - {*PATTERNS})
        if unknown or "plain" not in self.patterns:
            raise ValueError(f"unknown colours or patterns: {sorted(unknown)}, or no 'plain'")
        spans = sorted((self.train_seeds, self.validation_seeds, self.test_seeds))
        if any(a[1] > b[0] for a, b in pairwise(spans)):
            raise ValueError(f"the seeds of the splits overlap: {spans}")

    def seeds(self, split: Split, count: int | None = None) -> range:
        """The seeds of a split, or its first `count`.

        Raises:
            ValueError: no such split, or more seeds than it has.
        """
        if split not in ("train", "validation", "test"):
            raise ValueError(f"split must be 'train', 'validation' or 'test', not {split!r}")
        first, stop = getattr(self, f"{split}_seeds")
        if count is not None and not 0 <= count <= stop - first:
            raise ValueError(f"the {split} split has {stop - first} seeds, not {count}")
        return range(first, stop if count is None else first + count)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-compatible data."""
        return asdict(self)

    @classmethod
    def help(cls) -> dict[str, str]:
        """Help text of each setting."""
        return {each.name: each.metadata["help"] for each in fields(cls)}
