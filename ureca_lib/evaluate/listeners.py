"""Listener models: score every caption against every region of an image.

A listener that is the model under test favors it, as both make the same errors: name the listener
with every number, and compare systems by the same listener. On procedural scenes the grammar is the
listener, and it is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ureca_lib.annotate.look_alikes import (
    ColorTextureFeatures,
    LookAlikeSettings,
    RegionFeatures,
    find_look_alikes,
)
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.devices import chosen_device
from ureca_lib.mask_tree import RegionId
from ureca_lib.provenance import model_record
from ureca_lib.scenes import resolve

LookAlikes = Mapping[RegionId, Sequence[RegionId]]


class ListenerError(ValueError):
    """A listener that does not exist, or that cannot score this image."""


class Captioner(Protocol):
    """Scores captions, as `RegionCaptioner` does."""

    def score(self, image: Any, regions: Sequence[Any], captions: Sequence[str]) -> Any:
        """(R, C) log p(caption | image, region)."""
        ...


class Listener(Protocol):
    """Scores captions of an image that comes with its regions."""

    name: str  # in records

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> np.ndarray:
        """(R, C) log p(caption | image, region), -inf where a region is ruled out."""
        ...

    def refusal(self, caption: str) -> str | None:
        """The reason why the listener cannot score a caption; None if it can."""
        ...


class ExactListener:
    """The grammar of procedural scenes: a caption fits a set of regions equally well, or none.

    p(region | caption) is 1 / N for the N regions that the caption is true of. A caption that does
    not parse, or is true of no region, fits none.
    """

    name = "exact"

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> np.ndarray:
        """See `Listener`.

        Raises:
            ListenerError: the image is not a procedural scene.
        """
        if image.scene is None:
            raise ListenerError(
                f"{image.image_id} is no procedural scene: the exact listener does not know it"
            )
        rows = {region.id: row for row, region in enumerate(image.regions)}
        scores = np.full((len(rows), len(captions)), -np.inf)
        for column, caption in enumerate(captions):
            fitting = resolve(caption, image.scene)
            for region_id in fitting:
                scores[rows[region_id], column] = -np.log(len(fitting))
        return scores

    def refusal(self, caption: str) -> None:
        """None: the grammar takes every text."""


class ModelListener:
    """A captioner as a listener.

    Args:
        captioner: has `.score(image, regions, captions)`.
        name: in records.
    """

    def __init__(self, captioner: Captioner, name: str):
        self.captioner, self.name = captioner, name

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> np.ndarray:
        """See `Listener`."""
        scores = self.captioner.score(image.pixels, image.regions, list(captions))
        return np.asarray(scores, np.float64)

    def refusal(self, caption: str) -> str | None:
        """The reason for a special token in a caption, which `RegionCaptioner` refuses."""
        processor = getattr(self.captioner, "processor", None)
        if processor is None:
            return None
        try:
            processor.conversation.answer_ids(caption)
        except ValueError as error:
            return str(error)
        return None


def make_listener(spec: str, device: str | None = "cpu") -> Listener:
    """Make a listener by its name.

    Args:
        spec: "exact", or the folder of a checkpoint for `RegionCaptioner`.
        device: of the model; None for CUDA if there is a GPU.

    Raises:
        ListenerError: there is no such folder. CheckpointError: it holds no such checkpoint.
        ValueError: no such device.
    """
    if spec == ExactListener.name:
        return ExactListener()
    from ureca_lib.captioner import RegionCaptioner

    name = listener_name(spec)
    captioner = RegionCaptioner.from_pretrained(spec, chosen_device(device))
    return ModelListener(_Quiet(captioner), name)


def listener_name(spec: str) -> str:
    """The name of a listener in records: "exact", or folder and digest of the weights.

    Raises:
        ListenerError: there is no such folder, or no weights in it.
    """
    if spec == ExactListener.name:
        return spec
    folder = Path(spec)
    if not folder.is_dir():
        raise ListenerError(f"{spec}: a listener is 'exact' or the folder of a checkpoint")
    if not any(folder.glob("*.safetensors")):
        raise ListenerError(f"{spec}: there are no weights (.safetensors)")
    return f"{folder.resolve().name}-{model_record(folder)['weights']}"


class _Quiet:
    """A `RegionCaptioner` without a bar for each image."""

    def __init__(self, captioner: Any):
        self.captioner, self.processor = captioner, captioner.processor

    def score(self, image: Any, regions: Sequence[Any], captions: Sequence[str]) -> Any:
        return self.captioner.score(image, regions, captions, progress=False)


def same_kind(image: CaptionedImage) -> dict[RegionId, list[RegionId]]:
    """Look-alikes by name: the other regions with the same name. Needs no photo."""
    return {
        region.id: [
            other.id
            for other in image.regions
            if other.id != region.id and other.name is not None and other.name == region.name
        ]
        for region in image.regions
    }


def look_alikes(
    image: CaptionedImage,
    features: RegionFeatures | None = None,
    settings: LookAlikeSettings | None = None,
) -> dict[RegionId, list[RegionId]]:
    """Look-alikes of each region: in a scene by name, else as stage 4 finds them.

    Args:
        image: a scene, or a photo with regions.
        features: of the regions of a photo; None is `ColorTextureFeatures`, which needs no model.
        settings: of stage 4; None is the default.

    Raises:
        RegionError: the photo is needed and cannot be read.
    """
    if image.scene is not None:
        return same_kind(image)
    features, settings = features or ColorTextureFeatures(), settings or LookAlikeSettings()
    ids = [region.id for region in image.regions]
    threshold = features.threshold if settings.threshold is None else settings.threshold
    found = features(image.image, ids)
    return find_look_alikes(found, image.tree, settings, threshold)
