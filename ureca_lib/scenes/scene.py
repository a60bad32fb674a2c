"""`Scene`: a picture, its regions, their tree, and captions that each fit one region only."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ureca_lib.mask_tree import MaskTree
from ureca_lib.regions import RegionImage
from ureca_lib.scenes.description import Description
from ureca_lib.scenes.parsing import GrammarError, parse
from ureca_lib.scenes.phrases import fits
from ureca_lib.scenes.writing import Style, write_captions


class Scene:
    """A procedural scene.

    Args:
        regions: with exact masks; each region's name is its kind.
        description: facts about the regions, with the same ids.
        seed: the seed of the generator.
        version: of the specification.

    Raises:
        ValueError: regions and description have different ids.
    """

    def __init__(self, regions: RegionImage, description: Description, seed: int, version: str):
        ids = {region.id for region in regions}
        told = {facts.id for facts in description.facts}
        if ids != told:
            raise ValueError(f"regions and description differ in the ids {sorted(ids ^ told)}")
        self.regions, self.description = regions, description
        self.seed, self.version = seed, version
        self._captions: dict[str, dict[int, str]] = {}

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB; loaded at first use for a stored scene."""
        return self.regions.pixels

    @property
    def width(self) -> int:
        """Pixels."""
        return self.regions.width

    @property
    def height(self) -> int:
        """Pixels."""
        return self.regions.height

    @cached_property
    def tree(self) -> MaskTree:
        """The true tree of parts; `build_mask_tree` finds the same."""
        parents = {facts.id: facts.parent for facts in self.description.facts}
        return MaskTree(self.regions.regions, parents)

    @property
    def captions(self) -> dict[int, str]:
        """A short phrase for each region; no other region of the scene fits it."""
        return self.captions_in("phrase")

    def captions_in(self, style: Style) -> dict[int, str]:
        """Captions by region id in a style: "phrase", "minimal" or "sentence".

        Raises:
            ValueError: no such style.
        """
        if style not in self._captions:
            self._captions[style] = write_captions(self.description, style)
        return dict(self._captions[style])

    def __repr__(self) -> str:
        size = f"{self.width} x {self.height}"
        return f"Scene(seed {self.seed}, {size}, {len(self.regions)} regions)"


def resolve(caption: str, scene: Scene) -> set[int]:
    """Find the regions of a scene that a caption fits, by parsing it.

    Args:
        caption: in any style, from any source; it may be wrong or ambiguous.
        scene: in which regions are searched.

    Returns:
        Ids: one for a unique caption, several for an ambiguous one, none if it fits no region or
        is not in the caption language.
    """
    try:
        return fits(parse(caption), scene.description)
    except GrammarError:
        return set()
