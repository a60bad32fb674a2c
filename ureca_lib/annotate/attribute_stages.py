"""The stages of the pipeline as the embedded annotator answers them, for one image.

Short captions tell a region from its siblings only, as Table 7 asks; long ones add what it looks
like, where it is and what it has (Table 8); unique ones begin with a phrase that fits no other
region of the image (Table 9). So the stages differ here in the way that a model's answers do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from ureca_lib.annotate.attributes import UNNAMED, UNNAMED_PART, RegionAttributes
from ureca_lib.annotate.english import (
    counted,
    is_collective,
    is_group,
    is_light,
    is_plural,
    listing,
    place_phrase,
    plural,
    preposition,
)
from ureca_lib.annotate.predicates import PLACES, ImageAttributes
from ureca_lib.annotate.protocol import Reply, Request
from ureca_lib.annotate.referring import Composer, ReferringPhrase
from ureca_lib.mask_tree import MaskTree, RegionId, build_mask_tree
from ureca_lib.regions import RegionImage

_WIDE = 0.6  # of the image's width or height, above which no place is named
_MOST, _MUCH = 0.6, 0.3  # shares of the image that are worth a word

ComposerFactory = Callable[[ImageAttributes], Composer]


class ImageStages:
    """Answers about the regions of one image. What they share is measured once.

    Args:
        image: with its photo, unless colours are not used.
        tree: of its regions.
        compose: makes the composer of referring phrases for a set of regions.
        color: whether colours are used.
    """

    def __init__(
        self, image: RegionImage, tree: MaskTree, compose: ComposerFactory, color: bool = True
    ):
        self.image, self.tree, self._color = image, tree, color
        self._compose = compose
        self.scene = ImageAttributes(image, tree, color)
        self._index = {region_id: i for i, region_id in enumerate(self.scene.ids)}
        self._phrases: list[ReferringPhrase] | None = None
        self._families: dict[RegionId | None, dict[RegionId, str]] = {}

    def reply(self, request: Request) -> Reply:
        """Answer a request about this image."""
        region_id, context = request.region_id, request.context
        if request.stage == "short":
            return Reply(self.short(region_id))
        if request.stage == "long":
            return Reply(self.describe(region_id, self.short(region_id), context.children))
        phrase = self._unique_phrase(region_id)
        fits = self.scene.fits(phrase.description)
        unique = int(fits.sum()) == 1
        if request.stage == "unique":
            children = self.tree.children(region_id)
            return Reply(self.describe(region_id, phrase.text, children), unique=unique)
        return self._verdict(region_id, phrase, context.current or "", unique)

    def short(self, region_id: RegionId) -> str:
        """A phrase that no sibling fits, and what the region is a part of."""
        parent = self.tree.parent(region_id)
        if parent not in self._families:
            self._families[parent] = self._family(parent)
        phrase = self._families[parent][region_id]
        if parent is None:
            return phrase
        noun, whole = self._about(region_id).noun, self._about(parent).noun
        grouped = whole == plural(noun) or is_group(whole) or is_collective(whole)
        if grouped or whole in (UNNAMED, UNNAMED_PART):
            return phrase
        return f"{phrase} {preposition(noun, whole)} the {whole}"

    def _family(self, parent: RegionId | None) -> dict[RegionId, str]:
        """Phrases for the children of one parent, told apart from one another only."""
        members = [self.tree[region_id] for region_id in self.tree.children(parent)]
        photo = self.image.pixels if self._color else None
        family = RegionImage(members, self.image.width, self.image.height, photo)
        scene = ImageAttributes(family, build_mask_tree(members), self._color)
        phrases = self._compose(scene).compose()
        return {i: phrase.text for i, phrase in zip(scene.ids, phrases, strict=True)}

    def describe(self, region_id: RegionId, subject: str, children: Iterable[RegionId]) -> str:
        """One paragraph: what it looks like, where it is, how much of the image, what it has."""
        about = self._about(region_id)
        looks = [] if is_light(about.noun) else list(about.color.said[:1])
        looks = [word for word in (*looks, *about.shapes[:1]) if word not in subject.split()]
        be = "are" if is_plural(about.noun) else "is"
        said = [f"{be} {listing(looks)}"] if looks else []
        said += self._where(about, be)
        sentence = f"{subject[0].upper()}{subject[1:]} {listing(said)}"
        nouns = Counter(self._about(child).noun for child in children)
        if nouns:
            has = listing([counted(noun, number) for noun, number in nouns.items()])
            sentence += f", with {has}"
        return f"{sentence}."

    def _where(self, about: RegionAttributes, be: str) -> list[str]:
        """A verb phrase on its place, or how far it reaches."""
        place, share = self._place(about), about.area / (self.image.width * self.image.height)
        if place is not None:
            return [f"{be} {place_phrase(place)} of the image"]
        verb = ("fill", "reach") if be == "are" else ("fills", "reaches")
        if share >= _MUCH:
            return [f"{verb[0]} {'most' if share >= _MOST else 'much'} of the image"]
        wide = about.box[2] / self.image.width >= about.box[3] / self.image.height
        return [f"{verb[1]} far {'across' if wide else 'up and down'} the image"]

    def _verdict(
        self, region_id: RegionId, phrase: ReferringPhrase, caption: str, unique: bool
    ) -> Reply:
        """Keep or drop a caption of this annotator's own; of others' it knows no English."""
        subject = phrase.text.casefold()
        if caption.casefold().startswith(subject):
            if unique:
                return Reply("keep", unique=True)
            return Reply("drop: another region has the same mask or attributes", unique=False)
        if caption.casefold().startswith(self.short(region_id).casefold()):
            return Reply("keep") if self._told_apart(region_id) else Reply("drop: fits others too")
        error = "the embedded annotator can only verify captions that it wrote itself"
        return Reply("", status="failed", error=error)

    def _told_apart(self, region_id: RegionId) -> bool:
        """No other region has the same short caption."""
        own = self.short(region_id)
        return all(self.short(other) != own for other in self.scene.ids if other != region_id)

    def _unique_phrase(self, region_id: RegionId) -> ReferringPhrase:
        if self._phrases is None:
            self._phrases = self._compose(self.scene).compose()
        return self._phrases[self._index[region_id]]

    def _about(self, region_id: RegionId) -> RegionAttributes:
        return self.scene.regions[self._index[region_id]]

    def _place(self, about: RegionAttributes) -> str | None:
        """The narrowest place of the image that the centre is in; None for what reaches far."""
        size = np.array([self.image.width, self.image.height])
        if np.any(np.array(about.box[2:]) > _WIDE * size):
            return None
        x, y = np.array(about.center) / size
        found = [
            name
            for name, ((left, right), (top, bottom)) in PLACES.items()
            if left <= x <= right and top <= y <= bottom
        ]
        return found[-1] if found else "middle"  # between the middle and a side
