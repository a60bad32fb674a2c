"""Systems: what captions regions for a predictions file, by name.

Here are the model of this package and the yardsticks that need none; those that a model is prompted
for are in `baselines`.

| name | captions |
|---|---|
| `ureca` | a checkpoint's, of all regions of an image together |
| `blind` | the same, of masks that are all zeros: for a model trained without masks |
| `attributes` | the embedded annotator's, which needs no model |
| `oracle` | each region's first reference |
| `shuffled` | the references of the image dealt out at random |
| `class-name` | "the" and the region's name |
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ureca_lib.conversation import QUESTION
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.provenance import model_record
from ureca_lib.regions import Region


class UnusableSystemError(ValueError):
    """A system that cannot be made, or data that it cannot caption."""


@dataclass(frozen=True)
class Said:
    """What a system said of one region.

    Attributes:
        text: may be empty.
        score: mean log-probability of its tokens, where the system has one.
        error: why there is no text.
        question: of the data set, if the system was asked that.
    """

    text: str
    score: float | None = None
    error: str | None = None
    question: str | None = None


class System(Protocol):
    """Anything that captions regions.

    Attributes:
        name: as tables show it.
        model: which weights; None where there are none.
        settings: everything else that its captions depend on, as JSON can hold it.
    """

    name: str
    model: Mapping[str, Any] | None
    settings: Mapping[str, Any]

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """One caption for each region, in order.

        Args:
            image: with all of its regions.
            regions: those that are asked for.
        """


class UrecaSystem:
    """A checkpoint of this package.

    Args:
        model: folder of the checkpoint. device: where it runs.
        question: asked about every region; None takes the data set's question for a region's first
            reference, or the model's default if the data set has none.
        max_new_tokens, max_tiles: see `RegionCaptioner.caption`.
        blind: show it masks of zeros only, as it was trained for the baseline without masks.

    Raises:
        CheckpointError: the folder holds no such checkpoint.
    """

    name = "ureca"

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        question: str | None = None,
        max_new_tokens: int = 256,
        max_tiles: int | None = None,
        blind: bool = False,
    ):
        from ureca_lib.captioner import RegionCaptioner

        self._captioner = RegionCaptioner.from_pretrained(model, device)
        self.model, self._blind, self._question = model_record(model), blind, question
        if blind:
            self.name = "blind"
            self._captioner.processor = self._captioner.processor.without_masks()
        self.settings = {
            "question": question or QUESTION,
            "max_new_tokens": max_new_tokens,
            "max_tiles": max_tiles,
        }

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """See `System`."""
        questions = self._questions(image, regions)
        # without masks all regions are one to the model, which then is asked once
        same = self._blind and len(set(questions)) == 1
        asked = regions[:1] if same else regions
        options = {**self.settings, "question": questions[: len(asked)]}
        with warnings.catch_warnings():
            # thousands of lines on a whole test set; the rows' areas say which regions are small
            warnings.filterwarnings("ignore", ".*vanishes when its mask is resized")
            found = self._captioner.caption(image.pixels, asked, **options, progress=False)
        captions = found * len(regions) if same else found
        default = self.settings["question"]
        return [
            Said(caption.text, caption.score, question=None if each == default else each)
            for caption, each in zip(captions, questions, strict=True)
        ]

    def _questions(self, image: CaptionedImage, regions: Sequence[Region]) -> list[str]:
        if self._question is not None:
            return [self._question] * len(regions)
        known = (image.questions.get(region.id) for region in regions)
        return [(texts and texts[0]) or QUESTION for texts in known]


class AttributesSystem:
    """The embedded annotator: colour, shape, place and names, by an algorithm."""

    name = "attributes"
    model = None

    def __init__(self) -> None:
        from ureca_lib.annotate.annotators import AttributeAnnotator

        self._annotator = AttributeAnnotator()
        self.settings = self._annotator.answer_settings

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """See `System`."""
        texts = {c.region_id: c.text for c in self._annotator.caption(image.image, image.tree)}
        return [Said(texts[region.id]) for region in regions]


class OracleSystem:
    """The first reference of each region: the best that a metric can give, or nearly so."""

    name = "oracle"
    model = None
    settings: Mapping[str, Any] = {}

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """See `System`.

        Raises:
            UnusableSystemError: a region has no reference.
        """
        references = _references(image, self.name)
        return [Said(references[region.id]) for region in regions]


class ShuffledSystem:
    """The references of an image, dealt out to its regions at random: true words, wrong place."""

    name = "shuffled"
    model = None

    def __init__(self, seed: int = 0):
        self.settings = {"seed": seed}

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """See `System`; the same seed and image give the same captions.

        Raises:
            UnusableSystemError: a region has no reference.
        """
        references = _references(image, self.name)
        texts = list(references.values())
        random.Random(f"{self.settings['seed']}:{image.image_id}").shuffle(texts)
        dealt = dict(zip(references, texts, strict=True))
        return [Said(dealt[region.id]) for region in regions]


class ClassNameSystem:
    """What a detector with perfect classes would say: "the window"."""

    name = "class-name"
    model = None
    settings: Mapping[str, Any] = {}

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """See `System`.

        Raises:
            UnusableSystemError: a region has no name.
        """
        for region in regions:
            if not region.name:
                raise UnusableSystemError(f"{image.image_id}: region {region.id} has no name")
        return [Said(f"the {region.name}") for region in regions]


def _references(image: CaptionedImage, system: str) -> dict[Any, str]:
    """First reference of each region that is to be captioned."""
    without = [region.id for region in image.targets if not image.captions.get(region.id)]
    if without:
        count = f"{len(without)} of {len(image.targets)} regions"
        raise UnusableSystemError(
            f"{image.image_id}: {count} have no reference, such as {without[0]!r}; the system "
            f"{system!r} is made of references"
        )
    return {region.id: image.captions[region.id][0] for region in image.targets}
