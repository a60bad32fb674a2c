"""Annotators: what writes the captions. The first one needs no model and no network.

`AttributeAnnotator` composes captions by the incremental algorithm for referring expressions (Dale
and Reiter, Computational Interpretations of the Gricean Maxims, Cognitive Science 19, 1995): say
what kind of thing it is, then go through the attributes in a fixed order of preference and add one
only if it rules out a region that is still left, until none is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ureca_lib.annotate.predicates import Description, ImageAttributes
from ureca_lib.annotate.referring import KINDS, PREFERENCE, Composer, ReferringPhrase
from ureca_lib.mask_tree import MaskTree, build_mask_tree
from ureca_lib.regions import RegionImage


@dataclass(frozen=True)
class AttributeCaption:
    """A caption and what it rests on.

    Args:
        region_id: of the region.
        text: a noun phrase, such as "the left eye of the cat".
        unique: the attributes fit no other region of the image.
        same_as: regions with the identical mask, which nothing can separate from this one.
        confused_with: the other regions that all attributes fit too.
        attributes: what was used, in the order in which it was added.
    """

    region_id: int | str
    text: str
    unique: bool
    same_as: tuple[int | str, ...] = ()
    confused_with: tuple[int | str, ...] = ()
    attributes: Description = ()


@dataclass(frozen=True, kw_only=True)
class AttributeAnnotator:
    """Captions from pixels, masks, names and the tree, each unique among the image's regions."""

    preference: tuple[str, ...] = field(
        default=PREFERENCE,
        metadata={"help": "attributes after the noun, in order; 'with' names a part it has"},
    )
    max_words: int = field(default=24, metadata={"help": "most words of a caption"})
    max_whole_words: int = field(
        default=14, metadata={"help": "most words that describe the whole a region is part of"}
    )

    def __post_init__(self) -> None:
        unknown = set(self.preference) - set(KINDS)
        if unknown or len(set(self.preference)) < len(self.preference):
            wrong = ", ".join(sorted(unknown)) or "an attribute given twice"
            raise ValueError(f"preference takes each of {', '.join(KINDS)} once, not {wrong}")
        if self.max_words < 4:
            raise ValueError(f"max_words must be at least 4, not {self.max_words}")

    def caption(self, image: RegionImage, tree: MaskTree | None = None) -> list[AttributeCaption]:
        """Caption every region of an image.

        Args:
            image: the regions, and the photo unless "color" is not in `preference`.
            tree: of the same regions; None builds the default one.

        Returns:
            Captions in the order of `image.regions`. No two regions have the same text, except
            where their masks are identical.

        Raises:
            FileMissingError: the photo is needed but there is none.
            ValueError: the tree is not of these regions.
        """
        if not len(image):
            return []
        if tree is None:
            tree = build_mask_tree(image.regions)
        scene = ImageAttributes(image, tree, color="color" in self.preference)
        composer = Composer(scene, self.preference, self.max_words, self.max_whole_words)
        return [_caption(scene, index, phrase) for index, phrase in enumerate(composer.compose())]


def _caption(scene: ImageAttributes, index: int, phrase: ReferringPhrase) -> AttributeCaption:
    fits = scene.fits(phrase.description)
    same = scene.twin == scene.twin[index]
    others = np.flatnonzero(fits & ~same)
    twins = [i for i in np.flatnonzero(same) if i != index]
    return AttributeCaption(
        scene.ids[index],
        phrase.text,
        not twins and not others.size,
        tuple(scene.ids[i] for i in twins),
        tuple(scene.ids[i] for i in others),
        phrase.description,
    )
