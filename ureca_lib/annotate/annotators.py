"""Annotators: what writes the captions. The first one needs no model and no network.

`AttributeAnnotator` composes captions by the incremental algorithm for referring expressions (Dale
and Reiter, Computational Interpretations of the Gricean Maxims, Cognitive Science 19, 1995): say
what kind of thing it is, then go through the attributes in a fixed order of preference and add one
only if it rules out a region that is still left, until none is.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ureca_lib.annotate.attribute_stages import ImageStages
from ureca_lib.annotate.predicates import Description, ImageAttributes
from ureca_lib.annotate.protocol import Annotator, Reply, Request
from ureca_lib.annotate.referring import KINDS, PREFERENCE, Composer, ReferringPhrase
from ureca_lib.devices import chosen_device
from ureca_lib.mask_tree import MaskTree, build_mask_tree
from ureca_lib.regions import RegionImage

_ELSEWHERE = {
    "OpenAIAnnotator": "ureca_lib.annotate.openai_annotator",
    "TransformersAnnotator": "ureca_lib.annotate.transformers_annotator",
}


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


def make_annotator(
    kind: str,
    model: str | None = None,
    base_url: str | None = None,
    device: str | None = "cpu",
    api_key_env: str | None = None,
    in_flight: int | None = None,
) -> Annotator:
    """An annotator by name, for commands and notebooks.

    Args:
        kind: "attributes" (no model), "openai" (any OpenAI-compatible server) or "transformers"
            (in this process).
        model: its name on the server, hub id or folder; not for "attributes".
        base_url: address of the server; None is OpenAI's.
        device: where "transformers" runs; None for CUDA where there is one.
        api_key_env: environment variable that holds the server's key; None is OPENAI_API_KEY at
            OpenAI, and no key at other servers.
        in_flight: most calls of a server at a time; the others know their own best.

    Raises:
        ValueError: no such kind, device or key, or options that do not go together.
        ImportError: "openai" without the extra of that name.
    """
    if kind not in ("attributes", "openai", "transformers"):
        raise ValueError(f"an annotator is attributes, openai or transformers, not {kind!r}")
    if kind == "attributes" and (model or base_url):
        raise ValueError("a model or an address goes with --annotator openai or transformers")
    if kind != "attributes" and not model:
        raise ValueError(f"the annotator {kind} needs a --model")
    if kind == "transformers" and base_url:
        raise ValueError("the annotator transformers runs here; --base-url is for openai")
    if kind != "openai" and api_key_env:
        raise ValueError(f"the annotator {kind} needs no key; it is for openai")
    if kind == "openai":
        more = {} if in_flight is None else {"max_in_flight": in_flight}
        more |= {"base_url": base_url, "api_key_env": api_key_env}
        return __getattr__("OpenAIAnnotator")(model, **more)
    if kind == "attributes":
        return AttributeAnnotator()
    return __getattr__("TransformersAnnotator")(model, device=chosen_device(device))


def __getattr__(name: str) -> Any:
    """The annotators with a model, imported when they are asked for: they take seconds to."""
    if name in _ELSEWHERE:
        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
