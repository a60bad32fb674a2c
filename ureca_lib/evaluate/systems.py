"""Captioning systems that can be evaluated, by name: `build_system("contour", "OpenGVLab/...")`.

| `ureca predict --system` | captions | `--model` |
|---|---|---|
| `ureca` | of a checkpoint, for all regions of an image together | folder or hub id |
| `blind` | the same with masks of zeros: for a model trained without masks | folder or hub id |
| `none` | of any MLLM that sees the image alone: one caption for all regions (Sec. 5.1) | any |
| `contour` | of an MLLM that sees the image with the region's contour (Sec. 5.1) | any |
| `crop` | of an MLLM that sees a crop of the region (Sec. 5.1) | any |
| `box` | of an MLLM that reads the region's box in words | the tiny base, which was taught it |
| `vip-llava` | red contour or box | `llava-hf/vip-llava-7b-hf`, `-13b-hf` |
| `kosmos-2` | location tokens | `microsoft/kosmos-2-patch14-224` |
| `attributes` | the embedded annotator's | |
| `oracle` | each region's first reference: the best that a metric can give, or nearly so | |
| `shuffled` | the references of the image, assigned to its regions at random | |
| `class-name` | "the" and the region's name: a detector with perfect classes | |

`none`, `contour` and `crop` prompt any MLLM: an InternVL of this package (the tiny base among
them), any image-text-to-text model of transformers with a chat template, or a server (`--base-url`;
GPT-4o is `--base-url openai --model gpt-4o`). The paper prints no questions for them; ours are
`QUESTIONS`, part of the record, and `--question` sets another.

Every other system of Tables 2 and 6 (SCA, Osprey, OMG-LLaVA, ControlMLLM, GRiT, SLR, GLaMM, Groma,
RegionGPT, Omni-RGPT, Draw-and-Understand), and newer ones (DAM, PAM, GAR), runs with its authors'
code. Let it write a predictions file, one line per region; two columns are enough:

    {"id": "sa_1/523353737", "caption": "the left boot", "system": "Osprey"}

with the `id` that any system of `ureca predict` gives the region (see `predictions`); then
`ureca evaluate osprey.jsonl --refs test.jsonl` scores it like all others. Its training data go into
`osprey.meta.json`: `{"system": "Osprey", "trained_on": "URECA"}`.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ureca_lib.annotate.replies import clean_reply, final_answer
from ureca_lib.annotate.views import Cut, ImageViews, ViewSettings, frame_of
from ureca_lib.boxes import box_question
from ureca_lib.chat import (
    AnnotatorUnavailableError,
    BudgetSpentError,
    ChatModel,
    NoAnswerError,
    OpenAIChat,
    TransformersChat,
    Turn,
)
from ureca_lib.conversation import QUESTION, TURN_END
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.devices import chosen_device
from ureca_lib.evaluate.predictions import Caption
from ureca_lib.evaluate.settings import (
    MODEL_FREE,
    NATIVE,
    SystemOptions,
)
from ureca_lib.event_loop import run_coroutine
from ureca_lib.provenance import model_record
from ureca_lib.regions import Region
from ureca_lib.tiling import best_grid

if TYPE_CHECKING:
    import torch

_OURS = ("internvl", "ureca")  # model types that this package reads itself

# ours: the paper does not print its questions
QUESTIONS: Mapping[str, str] = {
    "none": QUESTION,
    "contour": "Describe the region inside the yellow contour in the image.",
    "crop": "Describe what is in this crop of an image.",
    "box": QUESTION,
}


class StoppedEarlyError(Exception):
    """A system stopped within an image, for instance because a budget is spent.

    Args:
        captions: its captions so far, None for the other regions.
        cause: the reason.
    """

    def __init__(self, captions: Sequence[Caption | None], cause: Exception):
        self.captions, self.cause = list(captions), cause
        super().__init__(str(cause))


class System(Protocol):
    """A source of region captions.

    Attributes:
        name: heading of its row in tables.
        model: record of the weights; None if there are none.
        settings: everything else that its captions depend on, as JSON can hold it.
    """

    name: str
    model: Mapping[str, Any] | None
    settings: Mapping[str, Any]

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """One caption for each of some regions, in order.

        Args:
            image: with all of its regions.
            regions: to caption.
        """


def build_system(system: str, model: str | Path | None = None, **options: Any) -> System:
    """Build a captioning system by its name; see the module for the names.

    Args:
        system: name.
        model: folder, hub id, or name on the server; None for the systems without a model.
        options: other fields of `SystemOptions`.

    Raises:
        ValueError, CheckpointError, AnnotatorUnavailableError: it cannot be built.
        ImportError: a server without the extra "openai".
    """
    wanted = SystemOptions(system, None if model is None else str(model), **options)
    built = _build(wanted)
    built.name = wanted.name or built.name
    return built


def _build(options: SystemOptions) -> System:
    name, model, limit = options.system, options.model or "", options.max_new_tokens
    if name in MODEL_FREE:
        return ModelFreeSystem(name, options.seed)
    if options.base_url:
        url = None if options.base_url == "openai" else options.base_url
        settings = {"api_key_env": options.api_key_env, "max_reply_tokens": limit}
        chat = OpenAIChat(model, url, **settings, **options.server)
        return PromptedSystem(ChatReader(chat), name, options.question)
    device, size = chosen_device(options.device), options.batch_size
    if name in ("ureca", "blind"):
        asked = (options.question, limit, options.max_tiles, name == "blind")
        return UrecaSystem(model, device, *asked)
    if name in NATIVE:
        from ureca_lib.evaluate.native_systems import Kosmos2System, VipLlavaSystem

        kind = VipLlavaSystem if name == "vip-llava" else Kosmos2System
        return kind(model, device, options.dtype, options.question, limit, size)
    if is_ours(model):
        reader = OwnReader(model, device, limit, options.max_tiles, size)
    elif name == "box":
        raise ValueError("the system box needs an InternVL that was taught boxes in text")
    else:
        chat = TransformersChat(model, device, options.dtype, size, limit, with_scores=True)
        reader = ChatReader(chat)
    return PromptedSystem(reader, name, options.question)


def is_ours(model: str | Path) -> bool:
    """Whether a folder holds a checkpoint that this package's own classes read."""
    from ureca_lib.checkpoints.tensors import read_json

    config = Path(model).expanduser() / "config.json"
    if not config.is_file():
        return False
    document = read_json(config)
    return document.get("model_type") in _OURS or "llm_config" in document


class UrecaSystem:
    """A checkpoint of this package.

    Args:
        model: folder of the checkpoint. device: where it runs.
        question: asked about every region; None takes the data set's question for a region's first
            reference, or the model's default if the data set has none.
        max_new_tokens, max_tiles: see `RegionCaptioner.caption`.
        blind: show it masks of zeros only, as for training the baseline without masks.

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

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """See `System`."""
        questions = self._questions(image, regions)
        # without masks all regions are the same to the model, which then is asked once
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
            Caption(caption.text, caption.score, question=None if each == default else each)
            for caption, each in zip(captions, questions, strict=True)
        ]

    def _questions(self, image: CaptionedImage, regions: Sequence[Region]) -> list[str]:
        if self._question is not None:
            return [self._question] * len(regions)
        known = (image.questions.get(region.id) for region in regions)
        return [(texts and texts[0]) or QUESTION for texts in known]


class ModelFreeSystem:
    """A yardstick without weights: attributes, oracle, shuffled or class-name; see the module.

    Args:
        name: one of `MODEL_FREE`.
        seed: of "shuffled": the same seed and image give the same captions.
    """

    model = None

    def __init__(self, name: str, seed: int = 0):
        from ureca_lib.annotate.annotators import AttributeAnnotator

        self.name = self._kind = name
        self.settings: Mapping[str, Any] = {"seed": seed} if name == "shuffled" else {}
        if name == "attributes":
            self._annotator = AttributeAnnotator()
            self.settings = self._annotator.answer_settings

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """See `System`.

        Raises:
            ValueError: a region without the reference or the name that the caption is made of.
        """
        if self._kind == "attributes":
            texts = {c.region_id: c.text for c in self._annotator.caption(image.image, image.tree)}
        elif self._kind == "class-name":
            if nameless := [region.id for region in regions if not region.name]:
                raise ValueError(f"{image.image_id}: region {nameless[0]} has no name")
            texts = {region.id: f"the {region.name}" for region in regions}
        else:
            texts = _references(image, self._kind)
        if self._kind == "shuffled":
            dealt = list(texts.values())
            random.Random(f"{self.settings['seed']}:{image.image_id}").shuffle(dealt)
            texts = dict(zip(texts, dealt, strict=True))
        return [Caption(texts[region.id]) for region in regions]


def _references(image: CaptionedImage, system: str) -> dict[Any, str]:
    """First reference of each region that is to be captioned."""
    without = [region.id for region in image.targets if not image.captions.get(region.id)]
    if without:
        count = f"{len(without)} of {len(image.targets)} regions"
        raise ValueError(
            f"{image.image_id}: {count} have no reference, such as {without[0]!r}; the system "
            f"{system!r} is made of references"
        )
    return {region.id: image.captions[region.id][0] for region in image.targets}


class Question(NamedTuple):
    """A picture (h, w, 3) uint8, and a text about it."""

    picture: np.ndarray
    text: str


class Reader(Protocol):
    """A model that answers questions about pictures.

    Attributes:
        name: of the model's kind. model: record of its weights.
        settings: everything else that its answers depend on.
    """

    name: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]

    def read(self, questions: Sequence[Question]) -> list[Caption]:
        """One answer each, in order."""


class PromptedSystem:
    """An MLLM that cannot see masks, prompted with a region by pictures or words; see the module.

    Args:
        reader: the model.
        prompting: one of `PROMPTED`.
        question: None is that of `QUESTIONS`.
    """

    def __init__(self, reader: Reader, prompting: str, question: str | None = None):
        self._reader, self._prompting = reader, prompting
        self._question = question or QUESTIONS[prompting]
        self.name, self.model = prompting, reader.model
        shown = {"prompting": prompting, "question": self._question, "background": "photo"}
        self.settings = shown | {"view": asdict(ViewSettings()), "reader": reader.name}
        self.settings |= reader.settings

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """See `System`."""
        if self._prompting == "none":
            # the prompt is the same for all regions, so the model is asked once
            return self._reader.read([Question(image.pixels, self._question)]) * len(regions)
        return self._reader.read(self.questions(image, regions))

    def questions(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Question]:
        """The picture and the text for each region."""
        if self._prompting == "contour":
            views = ImageViews(image.image, ViewSettings())
            return [Question(views.contoured_image(r.id), self._question) for r in regions]
        if self._prompting == "crop":
            return [Question(crop(image.pixels, r), self._question) for r in regions]
        return [Question(image.pixels, box_question(r, self._question)) for r in regions]


def crop(pixels: np.ndarray, region: Region, settings: ViewSettings | None = None) -> np.ndarray:
    """The region's box with its margin, cut out of the photo and enlarged if it is small.

    Args:
        pixels: (H, W, 3) uint8.
        region: of that image.

    Returns:
        (h, w, 3) uint8; nothing is drawn on it, and the surroundings of the region stay.
    """
    height, width = pixels.shape[:2]
    frame = frame_of([Cut.of(region).box], height, width, settings or ViewSettings())
    return frame.resized(np.ascontiguousarray(pixels[frame.box.window]))


class ChatReader:
    """A chat model: behind a server, GPT-4o among them, or of transformers in this process.

    Answers are not corrected. A server's are cleaned of quotes and labels around them.

    Args:
        chat: the model.
    """

    def __init__(self, chat: ChatModel):
        self._chat, self._served = chat, isinstance(chat, OpenAIChat)
        self.name, self.model = "transformers", model_record(chat.model)
        if isinstance(chat, OpenAIChat):
            self.name, self.model = "server", {"path": chat.model, "server": chat.base_url}
        self.settings = chat.answer_settings

    def read(self, questions: Sequence[Question]) -> list[Caption]:
        """See `Reader`; the questions are about one photo.

        Raises:
            StoppedEarlyError: the budget is spent or the model is unavailable, with the answers so
                far.
        """
        return run_coroutine(self._read(questions))

    async def _read(self, questions: Sequence[Question]) -> list[Caption]:
        stopped: list[Exception] = []
        photo, slots = object(), asyncio.Semaphore(self._chat.max_in_flight)

        async def answer(question: Question) -> Caption | None:
            async with slots:
                if stopped:
                    return None  # not asked any more
                turns = [Turn("user", question.text)]
                try:
                    reply = await self._chat.complete(turns, [question.picture], photo)
                except NoAnswerError as error:
                    return Caption("", error=str(error))
                except (AnnotatorUnavailableError, BudgetSpentError) as error:
                    stopped.append(error)
                    return None
            if not self._served:
                return Caption(final_answer(reply.text).strip(), reply.score)
            text = clean_reply("long", reply.text)
            problem = None if text else f"the reply {reply.problem or 'is empty'}"
            return Caption(text, error=problem)

        captions = await asyncio.gather(*map(answer, questions))
        if stopped:
            raise StoppedEarlyError(captions, stopped[0])
        return captions


class OwnReader:
    """An InternVL read by this package: a base in transformers' layout, or a URECA without masks.

    The question stands in the chat format without mask tokens, behind the image.

    Args:
        model: folder of the checkpoint, with its tokenizer.
        device: where it runs. max_new_tokens: per answer. batch_size: questions per batch.
        max_tiles: of an image's grid; by default the model's for inference.

    Raises:
        CheckpointError: no such checkpoint, or one without a tokenizer.
    """

    name = "ureca-lib"

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        max_new_tokens: int = 256,
        max_tiles: int | None = None,
        batch_size: int = 4,
    ):
        from ureca_lib.checkpoints import load_pair
        from ureca_lib.checkpoints.internvl import internvl_reader
        from ureca_lib.checkpoints.tokenizer import load_tokenizer
        from ureca_lib.processor import UrecaProcessor

        folder = Path(model).expanduser()
        load = internvl_reader(folder) if (folder / "config.json").is_file() else None
        if load is None:
            self._network, self._processor = load_pair(model, device)
        else:
            self._network = load(folder, device=device)
            tokenizer = load_tokenizer(folder)
            self._processor = UrecaProcessor.from_config(self._network.config, tokenizer)
        self.model, self._batch_size = model_record(model), batch_size
        self.settings = {"max_new_tokens": max_new_tokens, "max_tiles": max_tiles}

    def read(self, questions: Sequence[Question]) -> list[Caption]:
        """See `Reader`."""
        found: dict[int, Caption] = {}
        for places in self._batches(questions):
            found |= zip(places, self._answers([questions[i] for i in places]), strict=True)
        return [found[place] for place in range(len(questions))]

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[int]]:
        """Places of questions whose prompts have one length, so that none needs padding."""
        same: dict[tuple[int, int], list[int]] = {}
        for place, question in enumerate(questions):
            tiles = self._tiles(*question.picture.shape[:2])
            words = len(self._ids(question.text, tiles))
            same.setdefault((tiles, words), []).append(place)
        for places in same.values():
            for start in range(0, len(places), self._batch_size):
                yield places[start : start + self._batch_size]

    def _answers(self, questions: Sequence[Question]) -> list[Caption]:
        import torch

        from ureca_lib.decoding import BatchRows, greedy

        network, tokenizer = self._network, self._processor.tokenizer
        with torch.inference_mode():
            seen: dict[int, torch.Tensor] = {}  # a picture of several questions is encoded once
            for picture, _ in questions:
                if id(picture) not in seen:
                    seen[id(picture)] = self._features(picture)
            features = [seen[id(picture)] for picture, _ in questions]  # (T, tokens, D) each
            pairs = zip(questions, features, strict=True)
            ids = torch.tensor([self._ids(q.text, len(f)) for q, f in pairs], device=network.device)
            prompts = network.model.embed_inputs(ids, image_features=torch.cat(features))
            decoded = greedy(
                BatchRows(network.model.language_model, prompts),
                network.lm_head,
                network.get_input_embeddings(),
                {tokenizer.convert_tokens_to_ids(TURN_END), tokenizer.eos_token_id} - {None},
                self.settings["max_new_tokens"],
            )
        texts = [tokenizer.decode(each.ids, skip_special_tokens=True) for each in decoded]
        return [
            Caption(text.strip(), each.log_likelihood / each.tokens)
            for text, each in zip(texts, decoded, strict=True)
        ]

    def _features(self, picture: np.ndarray) -> torch.Tensor:
        tiles = self._processor.image_tiles(picture, self._max_tiles)
        tiles = tiles.to(self._network.device, self._network.lm_head.weight.dtype)
        return self._network.get_image_features(tiles).pooler_output

    @property
    def _max_tiles(self) -> int:
        return self.settings["max_tiles"] or self._processor.max_tiles

    def _tiles(self, height: int, width: int) -> int:
        processor = self._processor
        grid = best_grid(width, height, self._max_tiles, processor.min_tiles, processor.tile_size)
        count = grid[0] * grid[1]
        return count + (processor.use_thumbnail and count > 1)

    def _ids(self, question: str, tiles: int) -> list[int]:
        conversation = replace(self._processor.conversation, with_mask=False)
        once = conversation.tokenize(question).input_ids
        image = self._processor.image_token_id
        repeats = self._processor.image_seq_length * tiles
        return [i for token in once for i in [token] * (repeats if token == image else 1)]
