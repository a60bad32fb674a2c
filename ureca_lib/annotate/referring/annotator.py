"""The embedded annotator: it needs no model and no network.

Short captions distinguish a region from its siblings only, as Table 7 asks; long ones add its
look, its place and its parts (Table 8), and unique ones begin with the shortest phrase that fits
no other region of the image (Table 9). A long caption begins with that phrase too if the short
one fits another region: it is the final caption of a region without look-alikes.

Every caption carries its logical form, which `ImageAttributes.fits` reads back against all regions
of the image: what the caption states is true of its region, and it is called unique only if it
fits no other.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ureca_lib.annotate.protocol import Reply, Request, Stage
from ureca_lib.annotate.referring.attributes import NOUNS_WITHOUT_NAME
from ureca_lib.annotate.referring.english import (
    MANY,
    counted,
    is_group,
    is_plural,
    listing,
    place_phrase,
    plural,
)
from ureca_lib.annotate.referring.expressions import KINDS, PREFERENCE, Composer, ReferringPhrase
from ureca_lib.annotate.referring.predicates import (
    EXTENTS,
    PLACES,
    Attribute,
    Description,
    ImageAttributes,
)
from ureca_lib.mask_tree import MaskTree, RegionId, build_mask_tree
from ureca_lib.regions import RegionImage

_WIDE = 0.6  # of the image's width or height, above which no place is named
# verb and object of an extent, for one thing
_EXTENTS = {
    "most": ("fills", "most of the image"),
    "much": ("fills", "much of the image"),
    "width": ("spans", "the width of the image"),
    "height": ("spans", "the height of the image"),
    "quarter": ("covers", "about a quarter of the image"),
    "small": ("covers", "a small part of the image"),
}


@dataclass(frozen=True)
class AttributeCaption:
    """A caption and its logical form.

    Args:
        region_id: of the region.
        text: a noun phrase, such as "the left eye of the cat", or a sentence that begins with it.
        unique: the attributes fit no other region of the image. False too if there is nothing to
            compare: an image's only region, without a name.
        same_as: regions with the identical mask, which nothing can separate from this one.
        confused_with: the other regions that all attributes fit too, or that have the same phrase.
        attributes: of the noun phrase, in the order in which they were added.
        claims: the attributes that the rest of a sentence states; they fit the region.
    """

    region_id: RegionId
    text: str
    unique: bool
    same_as: tuple[RegionId, ...] = ()
    confused_with: tuple[RegionId, ...] = ()
    attributes: Description = ()
    claims: Description = ()


class ImageCaptions:
    """Captions of the regions of one image, for each stage. Shared measurements are made once.

    Args:
        image: with its photo, unless colors are not used.
        tree: of its regions.
        preference, max_words, max_whole_words: of the `Composer`.
    """

    def __init__(self, image: RegionImage, tree: MaskTree, *composer: Any):
        self.tree = tree
        self.scene = ImageAttributes(image, tree, color="color" in composer[0])
        self._composer = Composer(self.scene, *composer)
        self._texts = Counter(phrase.text for phrase in self._composer.phrases.values())
        self._families: dict[RegionId, dict[int, ReferringPhrase]] = {}

    def caption(
        self, stage: Stage, region_id: RegionId, children: Iterable[RegionId] = ()
    ) -> AttributeCaption:
        """The caption of a region after a stage; "verify" gives the phrase of "unique" alone.

        Args:
            stage: of the pipeline.
            region_id: of the region.
            children: parts that a sentence names.
        """
        index = self.scene.index[region_id]
        phrase = self._composer.phrases[index]
        if stage in ("short", "long"):
            of_family = self._short(index)
            # a long caption is final for a region without look-alikes (Sec. 3, stage 4)
            if stage == "short" or self.scene.isolates(of_family.description):
                phrase = of_family
        if stage in ("short", "verify"):
            return self._read_back(index, phrase, phrase.text)
        parts = [self.scene.index[child] for child in children]
        claims = self._claims(index, phrase.description, parts)
        return self._read_back(index, phrase, _sentence(phrase, claims), claims)

    def _short(self, index: int) -> ReferringPhrase:
        """A phrase that fits no sibling; siblings without a parent are all regions of the image."""
        parent = self.tree.parent(self.scene.ids[index])
        if parent is None:
            return self._composer.phrases[index]
        if parent not in self._families:
            members = [self.scene.index[child] for child in self.tree.children(parent)]
            self._families[parent] = self._composer.family(members, self.scene.index[parent])
        return self._families[parent][index]

    def _read_back(
        self, index: int, phrase: ReferringPhrase, text: str, claims: Description = ()
    ) -> AttributeCaption:
        """The caption with the regions that its phrase fits, of all regions of the image."""
        scene, ids = self.scene, self.scene.ids
        fits = scene.fits(phrase.description)
        if self._texts[phrase.text] > 1:  # other attributes may read the same
            same_text = (other.text == phrase.text for other in self._in_order())
            fits = fits | np.fromiter(same_text, bool, len(ids))
        same = scene.twin == scene.twin[index]
        others = np.flatnonzero(fits & ~same)
        twins = [i for i in np.flatnonzero(same) if i != index]
        known = self._named(index) or (len(phrase.description) > 1 and not same.all())
        return AttributeCaption(
            ids[index],
            text,
            known and not twins and not others.size,
            tuple(ids[i] for i in twins),
            tuple(ids[i] for i in others),
            phrase.description,
            claims,
        )

    def _named(self, index: int) -> bool:
        return self.scene.regions[index].noun not in NOUNS_WITHOUT_NAME

    def _in_order(self) -> Iterable[ReferringPhrase]:
        return (self._composer.phrases[index] for index in range(len(self.scene)))

    def _claims(self, index: int, subject: Description, parts: list[int]) -> Description:
        """Its look, its place or extent, and its parts, without what the subject states."""
        region, stated = self.scene.regions[index], {attribute.kind for attribute in subject}
        claims = []
        if "color" not in stated:
            claims += self._composer.values(index, "color")[:1]
        if "shape" not in stated and not is_plural(region.noun) and not is_group(region.noun):
            claims += self._composer.values(index, "shape")[:1]
        in_image = any(a.kind == "place" and not a.among for a in subject)
        if not (in_image and claims):
            claims.append(self._place(index))
        nouns = Counter(self.scene.regions[part].noun for part in parts)
        named = [noun for noun in nouns if noun not in NOUNS_WITHOUT_NAME]
        for noun in named or nouns:
            number = min(int(self.scene.part_counts(noun)[index]), MANY)
            # not "the eyes with two eyes"; a child with the region's own mask is no part of it
            if number and plural(noun).casefold() != region.noun.casefold():
                claims.append(Attribute("with", noun, number))
        return tuple(claims)

    def _place(self, index: int) -> Attribute:
        """The narrowest place of the image that the center is in, or the extent of a large region.

        A center between the middle and a side is in the middle.
        """
        places = [value for value in PLACES if self.scene.placed(index, value, ())]
        extent = self.scene.boxes[index, 2:] / self.scene.size
        middle = Attribute("place", "middle")
        if not places and (extent <= _WIDE).all() and self.scene.fits((middle,))[index]:
            places = ["middle"]
        if places:
            return Attribute("place", places[-1])
        extents = [Attribute("extent", value) for value in EXTENTS]
        return next(claim for claim in extents if self.scene.fits((claim,))[index])


def _sentence(phrase: ReferringPhrase, claims: Description) -> str:
    """One sentence that begins with a phrase and states the claims."""
    noun = next(a.value for a in phrase.description if a.kind == "type")
    several = is_plural(noun)
    looks = [claim.value for claim in claims if claim.kind in ("color", "shape")]
    looks += [f"{place_phrase(a.value)} of the image" for a in claims if a.kind == "place"]
    verbs = [f"{'are' if several else 'is'} {listing(looks)}"] if looks else []
    for verb, extent in (_EXTENTS[a.value] for a in claims if a.kind == "extent"):
        verbs.append(f"{verb.removesuffix('s') if several else verb} {extent}")
    sentence = f"{phrase.text[0].upper()}{phrase.text[1:]} {listing(verbs)}"
    parts = [counted(claim.value, claim.number) for claim in claims if claim.kind == "with"]
    return f"{sentence}, with {listing(parts)}." if parts else f"{sentence}."


@dataclass(frozen=True, kw_only=True)
class AttributeAnnotator:
    """Captions from pixels, masks, names and the tree, each unique among the image's regions.

    It captions a whole image by `caption`, and answers the pipeline's questions by `answer`.
    """

    name = "attributes"
    version = 2  # of its captions: answers that are stored under another version are asked again
    max_in_flight = 2  # it computes: more threads would only take turns

    preference: tuple[str, ...] = field(
        default=PREFERENCE,
        metadata={"help": "attributes after the noun, in order; 'with' names a part it has"},
    )
    max_words: int = field(default=24, metadata={"help": "most words of a phrase"})
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
        """Settings that affect an answer; part of the record."""
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
            Captions in the order of `image.regions`: phrases. Those that are unique have different
            texts.

        Raises:
            FileMissingError: the photo is needed but there is none.
            ValueError: the tree is not of these regions.
        """
        if not len(image):
            return []
        captions = self.captions(image, build_mask_tree(image.regions) if tree is None else tree)
        return [captions.caption("verify", region.id) for region in image]

    def captions(self, image: RegionImage, tree: MaskTree) -> ImageCaptions:
        """The captions of all stages with their logical forms; raises as `caption` does."""
        settings = (self.preference, self.max_words, self.max_whole_words)
        return ImageCaptions(image, tree, *settings)

    def answer(self, request: Request) -> Reply:
        """Answer one question of the pipeline.

        Raises:
            FileMissingError: the photo is needed but there is none.
        """
        with self._lock:  # the measurements of an image are shared by its questions
            captions = self._images.get(request.image)
            if captions is None or captions.tree is not request.tree:
                captions = self._images[request.image] = self.captions(request.image, request.tree)
            region_id = request.region_id
            if request.stage == "verify":
                return _verdict(captions, region_id, request.context.current or "")
            children = request.context.children
            if request.stage == "unique":
                children = request.tree.children(region_id)
            caption = captions.caption(request.stage, region_id, children)
            return Reply(caption.text, unique=caption.unique)


def _verdict(captions: ImageCaptions, region_id: RegionId, text: str) -> Reply:
    """Keep or drop a caption that this annotator wrote; it cannot read others."""
    for stage in ("verify", "short"):  # the phrase of the image, then that of the family
        own = captions.caption(stage, region_id)
        if text.casefold().startswith(own.text.casefold()):
            verdict = "keep" if own.unique else "drop: it fits other regions too"
            return Reply(verdict, unique=own.unique)
    error = "the embedded annotator can only verify captions that it wrote itself"
    return Reply("", status="failed", error=error)
