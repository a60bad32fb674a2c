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

| listener | hears a caption by |
|---|---|
| `exact` | the grammar of procedural scenes |
| folder of a checkpoint | the captioner's likelihood of the caption for each region |
| `openai:NAME`, `transformers:NAME` | a chat model, which points at one of the numbered regions |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from pydantic import BeforeValidator, ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from tqdm.auto import tqdm

from ureca_lib.annotate.look_alikes import (
    ColorTextureFeatures,
    LookAlikeSettings,
    find_look_alikes,
    normalized,
)
from ureca_lib.annotate.replies import final_answer
from ureca_lib.annotate.views import ImageViews, ViewSettings
from ureca_lib.chat import ChatModel, NoAnswerError, make_chat
from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.datasets.rows import first_reason
from ureca_lib.devices import chosen_device
from ureca_lib.journal import Journal, JournalError, unique
from ureca_lib.mask_tree import RegionId
from ureca_lib.provenance import model_record
from ureca_lib.scenes import resolve

DECIMALS = 4  # of a log-likelihood on disk
EXACT = "exact"
CHATS = ("openai", "transformers")  # kinds of chat models, before a colon and the model's name
# the whole photo with all regions outlined and numbered
MARKED = ViewSettings(look_alike_frame="image", numbers="digits", min_side=896)
POINT = (
    "Image-1 is a photo. Image-2 is the same photo with regions outlined and numbered from 0 to "
    "{last}. A description of one of the regions is: {caption}\n"
    "Which region is meant? Answer with its number alone, or with none if it fits no region."
)
STYLE_NOTE = (
    "A model that listens prefers the style of its training captions: on the same scenes, class "
    "names had a recall of 29.6 by a trained model and of 51.4 by the exact grammar. Compare "
    "systems by one listener, and take one that wrote none of the captions and was not trained on "
    "them."
)
Captions = Mapping[str, Mapping[str, str]]  # image id -> region id, as a text -> caption
Heard = tuple[np.ndarray, dict[int, str]]  # see `Listener.score`
_SHOWN = 3  # ids in an error
Item, Result = TypeVar("Item"), TypeVar("Result")


class Listener(Protocol):
    """Scores captions of an image that comes with its regions."""

    name: str  # in records

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> Heard:
        """Score C captions against the R regions of an image.

        Returns:
            (R, C) log p(caption | image, region), -inf if a region is ruled out; and by the index
            of a caption that the listener cannot score, the reason.
        """


class ExactListener:
    """The grammar of procedural scenes: a caption fits a set of regions equally well, or none.

    p(region | caption) is 1 / N for the N regions that the caption is true of. A caption that does
    not parse, or is true of no region, fits none.
    """

    name = EXACT

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> Heard:
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
        return scores, {}


class ModelListener:
    """A captioner as a listener; it refuses captions with special tokens.

    Args:
        captioner: a `RegionCaptioner`, or an object with the same `score`.
        name: in records.
    """

    def __init__(self, captioner: Any, name: str):
        self.captioner, self.name = captioner, name

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> Heard:
        """See `Listener`."""
        refused: dict[int, str] = {}
        for place, caption in enumerate(captions):
            try:
                self.captioner.processor.conversation.answer_ids(caption)
            except ValueError as error:
                refused[place] = str(error)
        asked = [place for place in range(len(captions)) if place not in refused]
        scores = np.full((len(image.regions), len(captions)), -np.inf)
        if asked:
            texts = [captions[place] for place in asked]
            found = self.captioner.score(image.pixels, image.regions, texts, progress=False)
            scores[:, asked] = found  # (R, asked) -> columns of (R, C)
        return scores, refused


class ChatListener:
    """A chat model that points at a region: it takes no part in writing captions.

    It sees the photo, and the photo with all regions outlined and numbered (Yang et al. 2023,
    Set-of-Mark Prompting), and names the number that a caption means. So the best region is all
    that is known, and a wrong choice is the last rank. Regions that have no room for their number
    cannot be found: compare systems on the same images.

    Args:
        chat: the model; it reads images.
    """

    def __init__(self, chat: ChatModel):
        self.name, self._chat = chat.name, chat

    def score(self, image: CaptionedImage, captions: Sequence[str]) -> Heard:
        """See `Listener`: 0 for the region that is pointed at.

        Raises:
            BudgetSpentError, AnnotatorUnavailableError: the model answers no more.
        """
        first, *others = (region.id for region in image.regions)
        pictures = [image.pixels, ImageViews(image.image, MARKED).numbered(first, others)]
        scores = np.full((len(image.regions), len(captions)), -np.inf)
        refused: dict[int, str] = {}

        def ask(place: int) -> None:
            question = POINT.format(last=len(others), caption=captions[place])
            try:
                reply = final_answer(self._chat.ask(question, pictures).text)
            except NoAnswerError as error:
                refused[place] = str(error)
                return
            numbers = {int(text) for text in re.findall(r"\d{1,9}", reply)}
            if len(numbers) == 1 and numbers <= {*range(len(scores))}:
                scores[numbers.pop(), place] = 0

        for _ in in_threads(ask, range(len(captions)), self._chat.max_in_flight):
            pass
        return scores, refused


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], number: int
) -> Iterator[Result]:
    """Results in order, of a number of threads; an error drops the work that has not begun."""
    pool = ThreadPoolExecutor(number)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def make_listener(spec: str, device: str | None = "cpu", **chat: Any) -> Listener:
    """Make a listener by its name; see the module for the names.

    Args:
        spec: "exact", the folder of a checkpoint for `RegionCaptioner`, or a chat model.
        device: of the model; None for CUDA if there is a GPU.
        chat: options of `make_chat`, for a chat model.

    Raises:
        ValueError: there is no such folder, device or key. CheckpointError: it holds no checkpoint.
        ImportError, AnnotatorUnavailableError: see `make_chat`.
    """
    name, (kind, _, model) = listener_name(spec), spec.partition(":")
    if kind in CHATS:
        return ChatListener(make_chat(kind, model, device=device, **chat))
    if given := [option for option, value in chat.items() if value is not None]:
        raise ValueError(f"{given[0]} goes with a listener openai:NAME or transformers:NAME")
    if spec == EXACT:
        return ExactListener()
    from ureca_lib.captioner import RegionCaptioner

    return ModelListener(RegionCaptioner.from_pretrained(spec, chosen_device(device)), name)


def listener_name(spec: str) -> str:
    """The name of a listener in records: a folder has the digest of its weights added.

    Raises:
        ValueError: there is no such folder, or no weights in it.
    """
    if spec == EXACT or spec.partition(":")[0] in CHATS:
        return spec
    folder = Path(spec)
    if not folder.is_dir():
        raise ValueError(
            f"{spec}: a listener is 'exact', the folder of a checkpoint, or a chat model as "
            f"{' or '.join(f'{kind}:NAME' for kind in CHATS)}"
        )
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


def _matrix(rows: Any) -> np.ndarray:
    """Scores as a file has them, or as they are: null is -inf."""
    scores = np.array(rows, np.float64)  # null is read as NaN
    return np.where(np.isnan(scores), -np.inf, scores)


_Pairs = BeforeValidator(dict)  # JSON has pairs for a dictionary whose keys are numbers


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class ListenerScores:
    """Scores of an image with R regions and C distinct captions: a line of the file.

    Attributes:
        image_id: of the image.
        listener, system: names of the listener, and of the system that wrote the captions.
        size: (H, W) of the image in pixels.
        regions: all regions of the image.
        captions: the distinct texts.
        said: by region id, the index of the region's caption in `captions`.
        scores: (R, C) log-likelihoods, -inf if a region is ruled out.
        unscorable: by index, why the listener refused a caption; such a caption fits no region.

    Raises:
        ValueError: a part that is missing, of another type, or about nothing.
    """

    image_id: str
    listener: str
    system: str
    size: tuple[int, int]
    regions: tuple[ScoredRegion, ...]
    captions: tuple[str, ...]
    said: Annotated[dict[RegionId, int], _Pairs]
    scores: Annotated[np.ndarray, BeforeValidator(_matrix)]
    unscorable: Annotated[dict[int, str], _Pairs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = {region.id for region in self.regions}
        named = {*self.said, *(other for region in self.regions for other in region.look_alikes)}
        known = named <= ids and {*self.said.values()} <= {*range(len(self.captions))}
        if not known or len(ids) != len(self.regions):
            raise ValueError("a region is there twice, or a region or caption is not there")
        if self.scores.shape != (len(ids), len(self.captions)):
            raise ValueError("the scores have another shape than regions and captions")

    def row(self) -> dict[str, Any]:
        """The scores as JSON can hold them."""
        rounded = np.round(self.scores, DECIMALS).tolist()
        return asdict(self) | {
            "said": list(self.said.items()),
            "scores": [[None if np.isneginf(x) else x for x in row] for row in rounded],
            "unscorable": list(self.unscorable.items()),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> ListenerScores:
        """Read scores from JSON.

        Raises:
            ValueError: see the class.
        """
        try:
            return cls(**row)
        except ValidationError as error:
            raise ValueError(f"not scores of a listener ({first_reason(error)})") from None


def score_image(
    image: CaptionedImage,
    captions: Mapping[RegionId, str],
    listener: Listener,
    system: str = "",
) -> ListenerScores:
    """Score the captions of an image.

    The listener does not get captions without a word: they fit no region. A caption that it
    refuses fits none either, and the reason is recorded.

    Args:
        image: with all the regions that a caption might be about.
        captions: of some or all regions, by id.
        listener: computes log-likelihoods.
        system: that wrote the captions.

    Raises:
        ValueError: a caption of a region that the image lacks, or scores of another shape.
    """
    texts = tuple(dict.fromkeys(captions.values()))
    asked = [place for place, text in enumerate(texts) if normalized(text)]
    scores, refused = np.full((len(image.regions), len(texts)), -np.inf), {}
    if asked:
        columns, reasons = listener.score(image, [texts[place] for place in asked])
        if np.isnan(columns).any() or np.isposinf(columns).any():
            raise ValueError(f"{image.image_id}: scores of {listener.name} hold NaN or +inf")
        scores[:, asked] = columns  # (R, asked) -> columns of (R, C)
        refused = {asked[place]: reason for place, reason in reasons.items()}
    alike, levels = look_alikes(image), image.levels
    regions = tuple(
        ScoredRegion(r.id, r.area, levels[r.id], (*alike.get(r.id, ()),)) for r in image.regions
    )
    said = {region_id: texts.index(text) for region_id, text in captions.items()}
    about = (image.image_id, listener.name, system, image.size)
    return ListenerScores(*about, regions, texts, said, scores, refused)


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
    given, image_id = captions.get(scores.image_id, {}), scores.image_id
    texts = {str(region_id): scores.captions[place] for region_id, place in scores.said.items()}
    # regions without a prediction were scored with an empty caption
    texts = {key: text for key, text in texts.items() if text or key in given}
    if scores.listener != listener_name:
        reason = f"was scored by {scores.listener}, not {listener_name}"
        raise JournalError(path, f"{image_id} {reason}; name another file")
    if texts != given:
        reason = "has other captions than the predictions"
        raise JournalError(path, f"{image_id} {reason}; name another file")
