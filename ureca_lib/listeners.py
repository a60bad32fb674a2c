"""Listeners score every caption against every region of an image; their scores are cached.

A listener that is the model under test favors it, because both make the same errors, and every
model prefers the style of its training captions: name the listener with every number, and compare
systems by the same listener. On procedural scenes the grammar is the listener, and it is exact.

The scores go into a journal, so that uniqueness can be recomputed without the model, one image per
line:

    {"image_id": "scene_2000000", "listener": "exact", "system": "ureca", "size": [448, 560],
     "regions": [{"id": 1, "area": 5120, "level": 1, "look_alikes": [7]}, ...],
     "captions": ["the red car", ...], "said": [[1, 0], ...], "scores": [[-0.69, ...], ...],
     "unscorable": [[4, "reason"]]}

`captions` are the distinct texts, and `said` pairs a region's id with the index of its caption.
`scores` are log-likelihoods to four decimals, with a row per region and a column per text, null if
a region is ruled out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from tqdm.auto import tqdm

from ureca_lib.annotate.look_alikes import (
    ColorTextureFeatures,
    LookAlikeSettings,
    find_look_alikes,
    normalized,
)
from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.devices import chosen_device
from ureca_lib.journal import Journal, JournalError, unique
from ureca_lib.mask_tree import RegionId
from ureca_lib.provenance import model_record
from ureca_lib.scenes import resolve

DECIMALS = 4  # of a log-likelihood on disk
EXACT = "exact"
STYLE_NOTE = (
    "A model that listens prefers the style of its training captions: on the same scenes, class "
    "names had a recall of 29.6 by a trained model and of 51.4 by the exact grammar. Compare "
    "systems by one listener, and take one that wrote none of the captions and was not trained on "
    "them."
)
Captions = Mapping[str, Mapping[str, str]]  # image id -> region id, as a text -> caption
_SHOWN = 3  # ids in an error


class Listener(Protocol):
    """Scores captions of an image that comes with its regions."""

    name: str  # in records

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> np.ndarray:
        """(R, C) log p(caption | image, region), -inf if a region is ruled out."""

    def refusal(self, caption: str) -> str | None:
        """The reason why the listener cannot score a caption; None if it can."""


class ExactListener:
    """The grammar of procedural scenes: a caption fits a set of regions equally well, or none.

    p(region | caption) is 1 / N for the N regions that the caption is true of. A caption that does
    not parse, or is true of no region, fits none.
    """

    name = EXACT

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> np.ndarray:
        """See `Listener`.

        Raises:
            ValueError: the image is not a procedural scene.
        """
        if image.scene is None:
            raise ValueError(
                f"{image.image_id} is not a procedural scene: the exact listener cannot score it"
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
        captioner: a `RegionCaptioner`, or an object with the same `score`.
        name: in records.
    """

    def __init__(self, captioner: Any, name: str):
        self.captioner, self.name = captioner, name

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> np.ndarray:
        """See `Listener`."""
        captions = list(captions)
        scores = self.captioner.score(image.pixels, image.regions, captions, progress=False)
        return np.asarray(scores, np.float64)

    def refusal(self, caption: str) -> str | None:
        """The reason if a caption has a special token, which `RegionCaptioner` refuses."""
        try:
            self.captioner.processor.conversation.answer_ids(caption)
        except ValueError as error:
            return str(error)
        return None


def make_listener(spec: str, device: str | None = "cpu") -> Listener:
    """Make a listener by its name.

    Args:
        spec: "exact", or the folder of a checkpoint for `RegionCaptioner`.
        device: of the model; None for CUDA if there is a GPU.

    Raises:
        ValueError: there is no such folder or device. CheckpointError: it holds no checkpoint.
    """
    if spec == EXACT:
        return ExactListener()
    from ureca_lib.captioner import RegionCaptioner

    name = listener_name(spec)
    return ModelListener(RegionCaptioner.from_pretrained(spec, chosen_device(device)), name)


def listener_name(spec: str) -> str:
    """The name of a listener in records: "exact", or folder and digest of the weights.

    Raises:
        ValueError: there is no such folder, or no weights in it.
    """
    if spec == EXACT:
        return spec
    folder = Path(spec)
    if not folder.is_dir():
        raise ValueError(f"{spec}: a listener is 'exact' or the folder of a checkpoint")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{spec}: there are no weights (.safetensors)")
    return f"{folder.resolve().name}-{model_record(folder)['weights']}"


def look_alikes(image: CaptionedImage) -> dict[RegionId, list[RegionId]]:
    """Look-alikes of each region: in a scene by name, else as stage 4 finds them without a model.

    Raises:
        RegionError: the photo is needed and cannot be read.
    """
    ids, settings = [region.id for region in image.regions], LookAlikeSettings()
    if image.scene is None:
        features = ColorTextureFeatures()
        found = features(image.image, ids)
        return find_look_alikes(found, image.tree, settings, features.threshold)
    names = {region.id: region.name for region in image.regions}
    return {
        one: [o for o in ids if o != one and name is not None and names[o] == name]
        for one, name in names.items()
    }


@dataclass(frozen=True)
class ScoredRegion:
    """A region that captions may be about.

    Attributes:
        id: unique in its image.
        area: pixels of the mask.
        level: depth in the mask tree, 1 for the top; None if it is not known.
        look_alikes: ids of the regions that it is confused with.
    """

    id: RegionId
    area: int
    level: int | None = None
    look_alikes: tuple[RegionId, ...] = ()


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class ListenerScores:
    """Scores of an image with R regions and C distinct captions.

    Attributes:
        image_id: of the image.
        listener, system: names of the listener, and of the system that wrote the captions.
        size: (H, W) of the image in pixels.
        regions: all regions of the image.
        captions: the distinct texts.
        caption_index: by region id, the index of the region's caption in `captions`.
        scores: (R, C) log-likelihoods, -inf if a region is ruled out.
        unscorable: by index, why the listener refused a caption; such a caption fits no region.

    Raises:
        ValueError: a part of another type.
    """

    image_id: str
    listener: str
    system: str
    size: tuple[int, int]
    regions: tuple[ScoredRegion, ...]
    captions: tuple[str, ...]
    caption_index: dict[RegionId, int]
    scores: np.ndarray
    unscorable: dict[int, str] = field(default_factory=dict)

    @property
    def texts(self) -> dict[RegionId, str]:
        """Captions by region id."""
        return {region_id: self.captions[index] for region_id, index in self.caption_index.items()}

    def row(self) -> dict[str, Any]:
        """The scores as JSON can hold them."""
        row = {name: getattr(self, name) for name in ("image_id", "listener", "system", "size")}
        rounded = np.round(self.scores, DECIMALS).tolist()
        return row | {
            "regions": [asdict(region) for region in self.regions],
            "captions": self.captions,
            "said": list(self.caption_index.items()),
            "scores": [[None if np.isneginf(x) else x for x in row] for row in rounded],
            "unscorable": list(self.unscorable.items()),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> ListenerScores:
        """Read scores from JSON.

        Raises:
            ValueError: a part that is missing, of another type, or about nothing.
        """
        try:
            scores = np.array(row["scores"], np.float64)  # null is read as NaN
            scores = scores.reshape(len(row["regions"]), len(row["captions"]))
            index, unscorable = dict(row.pop("said")), dict(row.pop("unscorable"))
            row |= {"scores": np.where(np.isnan(scores), -np.inf, scores)}
            found = cls(**row, caption_index=index, unscorable=unscorable)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not scores of a listener ({error!r})") from None
        ids = {region.id for region in found.regions}
        named = {*index, *(other for region in found.regions for other in region.look_alikes)}
        known = named <= ids and {*index.values()} <= {*range(len(found.captions))}
        if not known or len(ids) != len(found.regions):
            raise ValueError("a region is there twice, or a region or caption is not there")
        return found


def score_image(
    image: CaptionedImage,
    captions: Mapping[RegionId, str],
    listener: Listener,
    system: str = "",
) -> ListenerScores:
    """Score the captions of an image.

    The listener does not get captions without a word: they fit no region. Nor does a caption that
    it refuses, whose reason is recorded.

    Args:
        image: with all the regions that a caption might be about.
        captions: of some or all regions, by id.
        listener: computes log-likelihoods.
        system: that wrote the captions.

    Raises:
        ValueError: a caption of a region that the image lacks, or scores of another shape.
    """
    ids = [region.id for region in image.regions]
    texts = tuple(dict.fromkeys(captions.values()))
    reasons = {i: listener.refusal(text) for i, text in enumerate(texts) if normalized(text)}
    asked = [index for index, reason in reasons.items() if reason is None]
    scores = np.full((len(ids), len(texts)), -np.inf)
    if asked:
        columns = listener.score(image, [texts[index] for index in asked])
        if np.isnan(columns).any() or np.isposinf(columns).any():
            raise ValueError(f"{image.image_id}: scores of {listener.name} hold NaN or +inf")
        scores[:, asked] = columns  # (R, asked) -> columns of (R, C)
    alike, levels = look_alikes(image), image.levels
    regions = tuple(
        ScoredRegion(r.id, r.area, levels[r.id], (*alike.get(r.id, ()),)) for r in image.regions
    )
    index = {region_id: texts.index(text) for region_id, text in captions.items()}
    refused = {place: reason for place, reason in reasons.items() if reason is not None}
    about = (image.image_id, listener.name, system, image.size)
    return ListenerScores(*about, regions, texts, index, scores, refused)


def score_images(
    data: Callable[[], CaptionedImages],
    captions: Captions,
    listener: Callable[[], Listener],
    listener_name: str,
    path: str | Path,
    system: str = "",
    progress: bool = True,
) -> list[ListenerScores]:
    """Score every image that has captions, and resume an interrupted run.

    Args:
        data: opens the images. It and `listener` are only called if an image is left to score, so
            that a finished file needs neither images nor model.
        captions: by image and region. Regions of these images that have references and no caption
            count as not found.
        listener: makes the listener.
        listener_name: its name in records.
        path: JSONL that is appended to.
        system: that wrote the captions.
        progress: show a bar.

    Returns:
        Scores of each image, in the order of the captions.

    Raises:
        JournalError: the file has other captions, another listener's scores or a bad line, or
            another process is writing it.
        ValueError: an image or a region that the data lack, naming it.
    """
    with Journal(path, unique(ListenerScores.from_row, "image_id")) as journal:
        done = {scores.image_id: scores for scores in journal.rows}
        for scores in journal.rows:
            _check_same(journal.path, scores, captions, listener_name)
        left = [image_id for image_id in captions if image_id not in done]
        if left:
            images, scorer = data(), listener()
            places = {image_id: place for place, image_id in enumerate(images.ids)}
            if missing := [image_id for image_id in left if image_id not in places]:
                count = f"{len(missing)} of the images with captions"
                raise ValueError(f"{images.name} lacks {count}: {', '.join(missing[:_SHOWN])}")
            for image_id in tqdm(left, "images", disable=not progress):
                image = images[places[image_id]]
                own = _own(image, captions[image_id])
                scores = done[image_id] = score_image(image, own, scorer, system)
                journal.append(scores.row())
    return [done[image_id] for image_id in captions]


def _own(image: CaptionedImage, captions: Mapping[str, str]) -> dict[RegionId, str]:
    """Captions by the regions' own ids, in the order of the regions.

    A region that has references and no prediction gets an empty caption, which leads nowhere.
    """
    ids = {str(region.id): region.id for region in image.regions}
    if unknown := [name for name in captions if name not in ids]:
        raise ValueError(f"{image.image_id} has no region {unknown[0]!r}, but there is a caption")
    wanted = {str(region.id) for region in image.targets} | captions.keys()
    return {ids[name]: captions.get(name, "") for name in ids if name in wanted}


def _check_same(path: Path, scores: ListenerScores, captions: Captions, listener_name: str) -> None:
    """Raise JournalError for scores of another listener or of other captions."""
    given, reason = dict(captions.get(scores.image_id, {})), ""
    # regions without a prediction were scored with an empty caption
    texts = {str(i): text for i, text in scores.texts.items() if text or str(i) in given}
    if texts != given:
        reason = "has other captions than the predictions"
    if scores.listener != listener_name:
        reason = f"was scored by {scores.listener}, not {listener_name}"
    if reason:
        raise JournalError(path, f"{scores.image_id} {reason}; name another file")
