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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ureca_lib.annotate.protocol import Reply, Request, Stage
from ureca_lib.annotate.referring.english import (
    GROUPS,
    MANY,
    counted,
    is_kind,
    is_plural,
    listing,
    place_phrase,
    plural,
)
from ureca_lib.annotate.referring.expressions import (
    MAX_WHOLE_WORDS,
    MAX_WORDS,
    PREFERENCE,
    Composer,
    is_named,
    phrase,
)
from ureca_lib.annotate.referring.predicates import (
    EXTENTS,
    Attribute,
    Description,
    ImageAttributes,
)
from ureca_lib.mask_tree import MaskTree, RegionId, build_mask_tree
from ureca_lib.regions import RegionImage

_WIDE = 0.6  # of the image's width or height, above which no place is named


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
        image: with its photo.
        tree: of its regions.
    """

    def __init__(self, image: RegionImage, tree: MaskTree):
        self.tree, self.scene = tree, ImageAttributes(image, tree)
        self._composer = Composer(self.scene)
        found = self._composer.descriptions
        self._texts = np.array([phrase(found[i]) for i in range(len(self.scene))], dtype=object)
        self._families: dict[RegionId, dict[int, Description]] = {}

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
        description = self._composer.descriptions[index]
        parent = self.tree.parent(region_id)
        # siblings without a parent are all regions of the image
        if stage in ("short", "long") and parent is not None:
            of_family = self._family(parent)[index]
            # a long caption is final for a region without look-alikes (Sec. 3, stage 4)
            if stage == "short" or self.scene.isolates(of_family):
                description = of_family
        if stage in ("short", "verify"):
            return self._read_back(index, description)
        parts = [self.scene.index[child] for child in children]
        return self._read_back(index, description, self._claims(index, description, parts))

    def _family(self, parent: RegionId) -> dict[int, Description]:
        if parent not in self._families:
            members = [self.scene.index[child] for child in self.tree.children(parent)]
            self._families[parent] = self._composer.family(members, self.scene.index[parent])
        return self._families[parent]

    def _read_back(
        self, index: int, description: Description, claims: Description = ()
    ) -> AttributeCaption:
        """The caption with the regions that its phrase fits, of all regions of the image."""
        scene, text = self.scene, phrase(description)
        fits = scene.fits(description)
        if np.count_nonzero(self._texts == text) > 1:  # other attributes may read the same
            fits = fits | (self._texts == text)
        same = scene.twin == scene.twin[index]
        others = [scene.ids[i] for i in np.flatnonzero(fits & ~same)]
        twins = [scene.ids[i] for i in np.flatnonzero(same) if i != index]
        known = is_named(scene.nouns[index]) or (len(description) > 1 and not same.all())
        unique = known and not twins and not others
        sentence = _sentence(text, scene.nouns[index], claims) if claims else text
        confused = (tuple(twins), tuple(others))
        return AttributeCaption(scene.ids[index], sentence, unique, *confused, description, claims)

    def _claims(self, index: int, subject: Description, parts: list[int]) -> Description:
        """Its look, its place or extent, and its parts, without what the subject states."""
        noun, stated = self.scene.nouns[index], {attribute.kind for attribute in subject}
        kinds = ["color"] if is_plural(noun) or is_kind(noun, GROUPS) else ["color", "shape"]
        claims = [
            claim
            for kind in kinds
            if kind not in stated
            for claim in self._composer.values(index, kind)[:1]
        ]
        in_image = any(a.kind == "place" and not a.among for a in subject)
        if not (in_image and claims):
            claims.append(self._place(index))
        nouns = dict.fromkeys(self.scene.nouns[part] for part in parts)
        for part in [part for part in nouns if is_named(part)] or nouns:
            number = min(int(self.scene.part_counts(part)[index]), MANY)
            # not "the eyes with two eyes"; a child with the region's own mask is no part of it
            if number and plural(part).casefold() != noun.casefold():
                claims.append(Attribute("with", part, number))
        return tuple(claims)

    def _place(self, index: int) -> Attribute:
        """The narrowest place of the image that the center is in, or the extent of a large region.

        A center between the middle and a side is in the middle.
        """
        claims = self.scene.place(index)[-1:]
        extent = self.scene.boxes[index, 2:] / self.scene.size
        if (extent <= _WIDE).all():
            claims.append(Attribute("place", "middle"))
        claims += [Attribute("extent", value) for value in EXTENTS]
        return next(claim for claim in claims if self.scene.fits((claim,))[index])


def _sentence(subject: str, noun: str, claims: Description) -> str:
    """One sentence that begins with a phrase and states the claims."""
    several = is_plural(noun)
    looks = [claim.value for claim in claims if claim.kind in ("color", "shape")]
    looks += [f"{place_phrase(a.value)} of the image" for a in claims if a.kind == "place"]
    verbs = [f"{'are' if several else 'is'} {listing(looks)}"] if looks else []
    for *_, verb, extent in (EXTENTS[a.value] for a in claims if a.kind == "extent"):
        verbs.append(f"{verb.removesuffix('s') if several else verb} {extent}")
    sentence = f"{subject[0].upper()}{subject[1:]} {listing(verbs)}"
    parts = [counted(claim.value, claim.number) for claim in claims if claim.kind == "with"]
    return f"{sentence}, with {listing(parts)}." if parts else f"{sentence}."


class AttributeAnnotator:
    """Captions from pixels, masks, names and the tree, each unique among the image's regions.

    It captions a whole image by `caption`, and answers the pipeline's questions by `answer`.

    Attributes:
        name, version, answer_settings: part of the record; answers that are stored under another
            version are asked again.
        max_in_flight: it computes, so more threads would only take turns.
    """

    name, version, max_in_flight = "attributes", 2, 2

    def __init__(self) -> None:
        words = {"max_words": MAX_WORDS, "max_whole_words": MAX_WHOLE_WORDS}
        self.answer_settings: dict[str, Any] = {"preference": list(PREFERENCE), **words}
        self._images: WeakKeyDictionary[RegionImage, ImageCaptions] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def caption(self, image: RegionImage, tree: MaskTree | None = None) -> list[AttributeCaption]:
        """Caption every region of an image.

        Args:
            image: the regions and the photo.
            tree: of the same regions; None builds the default one.

        Returns:
            Captions in the order of `image.regions`: phrases. Those that are unique have different
            texts.

        Raises:
            FileMissingError: there is no photo.
            ValueError: the tree is not of these regions.
        """
        if not len(image):
            return []
        captions = ImageCaptions(image, build_mask_tree(image.regions) if tree is None else tree)
        return [captions.caption("verify", region.id) for region in image]

    def answer(self, request: Request) -> Reply:
        """Answer one question of the pipeline.

        Raises:
            FileMissingError: there is no photo.
        """
        with self._lock:  # the measurements of an image are shared by its questions
            captions = self._images.get(request.image)
            if captions is None or captions.tree is not request.tree:
                captions = ImageCaptions(request.image, request.tree)
                self._images[request.image] = captions
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
