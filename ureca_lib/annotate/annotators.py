"""Annotators, which write the captions: chat models, and one that needs no model and no network.

`ModelAnnotator` asks a chat model and checks its replies. `AttributeAnnotator` composes captions by
the incremental algorithm for referring expressions (Dale and Reiter, Computational Interpretations
of the Gricean Maxims, Cognitive Science 19, 1995): name the kind of thing, then go through the
attributes in a fixed order of preference and add an attribute only if it rules out a region that is
still left, until none is.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ureca_lib.annotate.attribute_stages import ImageStages
from ureca_lib.annotate.predicates import Description, ImageAttributes
from ureca_lib.annotate.protocol import Annotator, Reply, Request
from ureca_lib.annotate.referring import KINDS, PREFERENCE, Composer, ReferringPhrase
from ureca_lib.annotate.replies import answer_checked
from ureca_lib.chat import (
    ChatModel,
    ChatReply,
    OpenAIChat,
    TransformersChat,
    Turn,
    at_least,
    make_chat,
)
from ureca_lib.event_loop import run_coroutine
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


@dataclass(eq=False)
class ModelAnnotator:
    """An annotator that asks a chat model, checks its replies and sends bad ones back.

    Args:
        chat: the model.
        max_corrections: most times that a bad reply is sent back.
    """

    chat: ChatModel
    max_corrections: int = 2

    def __post_init__(self) -> None:
        at_least(self, max_corrections=0)
        self.name, self.max_in_flight = self.chat.name, self.chat.max_in_flight
        self.answer_settings = self.chat.answer_settings

    def answer(self, request: Request) -> Reply:
        """Answer one question; may be called from many threads. See `answer_async`."""
        return run_coroutine(self.answer_async(request))

    async def answer_async(self, request: Request) -> Reply:
        """Answer one question.

        Returns:
            The checked reply, or a failed one with the reason.

        Raises:
            BudgetSpentError: the next call may exceed the budget.
            AnnotatorUnavailableError: the model answers no question.
        """
        image, prompt = request.image, request.prompt
        shown = (image.path, image.image_id, image.file_name)
        photo = id(image) if shown == (None,) * 3 else shown

        async def ask(turns: Sequence[Turn]) -> ChatReply:
            return await self.chat.complete([Turn("user", prompt), *turns], request.views, photo)

        return await answer_checked(request.stage, ask, prompt, self.max_corrections)


class OpenAIAnnotator(ModelAnnotator):
    """An annotator behind an OpenAI-compatible server; arguments of `OpenAIChat`."""

    def __init__(self, *arguments: Any, max_corrections: int = 2, **settings: Any):
        super().__init__(OpenAIChat(*arguments, **settings), max_corrections)


class TransformersAnnotator(ModelAnnotator):
    """An annotator in this process; arguments of `TransformersChat`."""

    def __init__(self, *arguments: Any, max_corrections: int = 2, **settings: Any):
        super().__init__(TransformersChat(*arguments, **settings), max_corrections)


def make_annotator(
    kind: str,
    model: str | None = None,
    base_url: str | None = None,
    device: str | None = "cpu",
    api_key_env: str | None = None,
    in_flight: int | None = None,
    **settings: Any,
) -> Annotator:
    """An annotator by name, for commands and notebooks.

    Args:
        kind: "attributes" (no model), or a kind of `make_chat`.
        model, base_url, device, api_key_env, settings: as `make_chat` takes them.
        in_flight: most calls of a server at a time; the other kinds have limits of their own.

    Raises:
        ValueError: no such kind, device or key, or options that do not go together.
        ImportError: "openai" without the extra of that name.
        AnnotatorUnavailableError: the model cannot be loaded.
    """
    if kind not in ("attributes", "openai", "transformers"):
        raise ValueError(f"an annotator is attributes, openai or transformers, not {kind!r}")
    if kind == "attributes":
        if model or base_url or api_key_env or settings:
            raise ValueError(
                "the annotator attributes needs no key, model, address or settings: these go with "
                "--annotator openai or transformers"
            )
        return AttributeAnnotator()
    if kind == "openai" and in_flight is not None:
        settings["max_in_flight"] = in_flight
    return ModelAnnotator(make_chat(kind, model, base_url, device, api_key_env, **settings))
