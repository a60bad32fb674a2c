"""The stages of the pipeline as the embedded annotator answers them, for one image.

Short captions tell a region from its siblings only, as Table 7 asks; long ones add what it looks
like, where it is and what it has (Table 8); unique ones begin with a phrase that fits no other
region of the image (Table 9). So the stages differ here in the way that a model's answers do.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ureca_lib.annotate.protocol import Reply, Request
from ureca_lib.annotate.referring.attributes import UNNAMED, UNNAMED_PART, RegionAttributes
from ureca_lib.annotate.referring.english import (
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
from ureca_lib.annotate.referring.expressions import KINDS, PREFERENCE, Composer, ReferringPhrase
from ureca_lib.annotate.referring.predicates import PLACES, Description, ImageAttributes
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
    """Captions from pixels, masks, names and the tree, each unique among the image's regions.

    It captions a whole image by `caption`, and answers the pipeline's questions by `answer`.
    """

    name = "attributes"
    max_in_flight = 2  # it computes: more threads would only take turns

    preference: tuple[str, ...] = field(
        default=PREFERENCE,
        metadata={"help": "attributes after the noun, in order; 'with' names a part it has"},
    )
    max_words: int = field(default=24, metadata={"help": "most words of a caption"})
    max_whole_words: int = field(
        default=14, metadata={"help": "most words that describe the whole a region is part of"}
    )

    _images: WeakKeyDictionary = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    @property
    def answer_settings(self) -> dict[str, Any]:
        """What decides an answer besides the question; part of the record."""
        words = {"max_words": self.max_words, "max_whole_words": self.max_whole_words}
        return {"preference": list(self.preference), **words}

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
        phrases = self._composer(scene).compose()
        return [_caption(scene, index, phrase) for index, phrase in enumerate(phrases)]

    def answer(self, request: Request) -> Reply:
        """Answer one question of the pipeline; see `ImageStages`.

        Raises:
            FileMissingError: the photo is needed but there is none.
        """
        with self._lock:  # the measurements of an image are shared by its questions
            stages = self._images.get(request.image)
            if stages is None or stages.tree is not request.tree:
                color = "color" in self.preference
                stages = ImageStages(request.image, request.tree, self._composer, color)
                self._images[request.image] = stages
            return stages.reply(request)

    def _composer(self, scene: ImageAttributes) -> Composer:
        return Composer(scene, self.preference, self.max_words, self.max_whole_words)


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
