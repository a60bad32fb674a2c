"""Captioning systems that can be evaluated, by name: `build_system("contour", "OpenGVLab/...")`.

| `ureca predict --system` | captions | `--model` |
|---|---|---|
| `ureca` | of a checkpoint, for all regions of an image together | folder or hub id |
| `no_mask` | the same with masks of zeros: for a model trained without masks | folder or hub id |
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
code. `ureca convert-predictions` reads what DAM and GAR write, and COCO's caption results (see
`foreign`). Or let it write a predictions file, one line per region; two columns are enough:

    {"id": "sa_1/523353737", "caption": "the left boot", "system": "Osprey"}

with the `id` that any system of `ureca predict` gives the region (see `predictions`); then
`ureca evaluate osprey.jsonl --refs test.jsonl` scores it like all others. Its training data go into
`osprey.meta.json`: `{"system": "Osprey", "trained_on": "URECA"}`.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ureca_lib.annotate.cuts import Cut
from ureca_lib.annotate.replies import clean_reply, final_answer
from ureca_lib.annotate.views import ImageViews, ViewSettings, frame_of
from ureca_lib.boxes import box_question
from ureca_lib.chat import (
    AnnotatorUnavailableError,
    BudgetSpentError,
    ChatModel,
    ChatReply,
    NoAnswerError,
    OpenAIChat,
    TransformersChat,
    Turn,
    generate_in_batches,
)
from ureca_lib.conversation import QUESTION, TURN_END
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.devices import chosen_device
from ureca_lib.evaluate.predictions import Caption
from ureca_lib.evaluate.settings import MODEL_FREE, NATIVE, SystemOptions
from ureca_lib.event_loop import run_coroutine
from ureca_lib.provenance import model_record
from ureca_lib.regions import Region

_OURS = ("internvl", "ureca")  # model types that this package reads itself

# ours: the paper does not print its questions
QUESTIONS: Mapping[str, str] = {
    "none": QUESTION,
    "contour": "Describe the region inside the yellow contour in the image.",
    "crop": "Describe what is in this crop of an image.",
    "box": QUESTION,
}


# or instead of a caption the error that ended the run, such as a budget that is spent
Captions = Sequence[Caption | Exception]


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

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> Captions:
        """One caption for each of some regions, in order.

        Args:
            image: with all of its regions.
            regions: to caption.

        Returns:
            Captions; instead of a caption the error that ended the run before the system came to
            this region, for instance because a budget is spent.
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
    system = wanted.system
    if system in MODEL_FREE:
        built: System = ModelFreeSystem(system, wanted.seed)
    elif system in ("ureca", "no_mask"):
        built = UrecaSystem(wanted)
    elif system in NATIVE:
        from ureca_lib.evaluate.native_systems import Kosmos2System, VipLlavaSystem

        built = VipLlavaSystem(wanted) if system == "vip-llava" else Kosmos2System(wanted)
    else:
        built = PromptedSystem(_reader(wanted), system, wanted.question)
    built.name = wanted.name or built.name
    return built


def _reader(options: SystemOptions) -> Reader:
    """The model that a prompted system asks."""
    model, limit, size = str(options.model), options.max_new_tokens, options.batch_size
    if options.base_url:
        url = None if options.base_url == "openai" else options.base_url
        given = {"api_key_env": options.api_key_env, "max_reply_tokens": limit}
        return ChatReader(OpenAIChat(model, url, **given, **options.server))
    if is_ours(model):
        return OwnReader(options)
    if options.system == "box":
        raise ValueError("the system box needs an InternVL that was taught boxes in text")
    device = chosen_device(options.device)
    return ChatReader(TransformersChat(model, device, options.dtype, size, limit, with_scores=True))


def is_ours(model: str | Path) -> bool:
    """Whether a folder holds a checkpoint that this package's own classes read."""
    from ureca_lib.checkpoints.tensors import read_json

    config = Path(model).expanduser() / "config.json"
    if not config.is_file():
        return False
    document = read_json(config)
    return document.get("model_type") in _OURS or "llm_config" in document


class UrecaSystem:
    """A checkpoint of this package: "ureca", or "no_mask", which sees masks of zeros only.

    Args:
        options: without a `question`, the data set's question for a region's first reference is
            asked, or the model's default if the data set has none.

    Raises:
        CheckpointError: the folder holds no such checkpoint.
    """

    def __init__(self, options: SystemOptions):
        from ureca_lib.captioner import RegionCaptioner

        self.name, self._question = options.system, options.question
        device = chosen_device(options.device)
        self._captioner = RegionCaptioner.from_pretrained(options.model, device)
        self.model, self._no_mask = model_record(str(options.model)), options.system == "no_mask"
        if self._no_mask:
            self._captioner.processor = self._captioner.processor.without_masks()
        self.settings = {
            "question": options.question or QUESTION,
            "max_new_tokens": options.max_new_tokens,
            "max_tiles": options.max_tiles,
        }
        # not in the record where they change nothing: files of earlier versions are resumed
        self.settings |= {"beams": options.beams} if options.beams > 1 else {}
        self.settings |= {"together": True} if options.together else {}

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """See `System`."""
        default, own = self.settings["question"], {} if self._question else image.questions
        asked = image.image.regions if self.settings.get("together") else regions
        questions = {region.id: (own.get(region.id) or [default])[0] for region in asked}
        if self._no_mask and len(set(questions.values())) == 1:
            # without masks all regions are the same to the model, which then is asked once
            asked = asked[:1]
        options = {**self.settings, "question": [questions[region.id] for region in asked]}
        with warnings.catch_warnings():
            # thousands of lines on a whole test set; the rows' areas say which regions are small
            warnings.filterwarnings("ignore", ".*vanishes when its mask is resized")
            captions = self._captioner.caption(image.pixels, asked, **options, progress=False)
        found = {caption.region_id: caption for caption in captions}
        rows = []
        for region in regions:
            caption, question = found.get(region.id, captions[0]), questions[region.id]
            question = None if question == default else question
            chosen = {"instead_of": caption.instead_of, "cost": caption.cost}
            rows.append(Caption(caption.text, caption.score, question=question, **chosen))
        return rows


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
        self._annotator = AttributeAnnotator()
        self.settings: Mapping[str, Any] = {
            "attributes": self._annotator.answer_settings,
            "shuffled": {"seed": seed},
        }.get(name, {})

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """See `System`.

        Raises:
            ValueError: a region without the reference or the name that the caption is made of.
        """
        if self._kind == "attributes":
            captions = self._annotator.caption(image.image, image.tree)
            texts = {caption.region_id: caption.text for caption in captions}
        elif self._kind == "class-name":
            texts = {region.id: f"the {region.name}" for region in regions if region.name}
        else:
            texts = {key: captions[0] for key, captions in image.captions.items() if captions}
        if without := [region.id for region in regions if region.id not in texts]:
            needed = "name" if self._kind == "class-name" else "reference"
            raise ValueError(
                f"{image.image_id}: {len(without)} of {len(regions)} regions have no {needed}, "
                f"such as {without[0]!r}; the system {self._kind!r} is made of them"
            )
        if self._kind == "shuffled":
            ids = [region.id for region in image.targets]
            dealt = [texts[region_id] for region_id in ids]
            random.Random(f"{self.settings['seed']}:{image.image_id}").shuffle(dealt)
            texts = dict(zip(ids, dealt, strict=True))
        return [Caption(texts[region.id]) for region in regions]


class Question(NamedTuple):
    """A picture (h, w, 3) uint8, and a text about it."""

    picture: np.ndarray
    text: str


class PromptedSystem:
    """An MLLM that cannot see masks, prompted with a region by pictures or words; see the module.

    Args:
        reader: the model, with the name of its kind, the record of its weights, and everything
            else that its answers depend on.
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

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> Captions:
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

    def read(self, questions: Sequence[Question]) -> Captions:
        """Answers to questions about one photo, in order; see `System.describe`."""
        return run_coroutine(self._read(questions))

    async def _read(self, questions: Sequence[Question]) -> Captions:
        stopped: list[Exception] = []
        photo, slots = object(), asyncio.Semaphore(self._chat.max_in_flight)

        async def answer(question: Question) -> Caption | Exception:
            async with slots:
                if stopped:
                    return stopped[0]  # not asked any more
                turns = [Turn("user", question.text)]
                try:
                    reply = await self._chat.complete(turns, [question.picture], photo)
                except NoAnswerError as error:
                    return Caption("", error=str(error))
                except (AnnotatorUnavailableError, BudgetSpentError) as error:
                    stopped.append(error)
                    return error
            if not self._served:
                return Caption(final_answer(reply.text).strip(), reply.score)
            text = clean_reply("long", reply.text)
            problem = None if text else f"the reply {reply.problem or 'is empty'}"
            return Caption(text, error=problem)

        return await asyncio.gather(*map(answer, questions))


class OwnReader:
    """An InternVL read by this package: a base in transformers' layout, or a URECA without masks.

    The question stands in the chat format without mask tokens, behind the image.

    Raises:
        CheckpointError: no such checkpoint, or one without a tokenizer.
    """

    name = "ureca-lib"

    def __init__(self, options: SystemOptions):
        from ureca_lib.checkpoints import load_model_and_processor
        from ureca_lib.checkpoints.internvl import internvl_reader
        from ureca_lib.checkpoints.tokenizer import load_tokenizer
        from ureca_lib.processor import UrecaProcessor

        folder, device = Path(str(options.model)).expanduser(), chosen_device(options.device)
        if load := internvl_reader(folder):
            self.network, tokenizer = load(folder, device=device), load_tokenizer(folder)
            self.processor = UrecaProcessor.from_config(self.network.config, tokenizer)
        else:
            self.network, self.processor = load_model_and_processor(folder, device)
        tokenizer = self.processor.tokenizer
        stops = {tokenizer.convert_tokens_to_ids(TURN_END), tokenizer.eos_token_id} - {None}
        self.network.generation_config.eos_token_id = sorted(stops)
        self.model, self.batch_size = model_record(str(options.model)), options.batch_size
        limits = {"max_new_tokens": options.max_new_tokens, "max_tiles": options.max_tiles}
        self.settings: Mapping[str, Any] = limits
        self._picture: np.ndarray | None = None  # the latest one, with its features

    def read(self, questions: Sequence[Question]) -> Captions:
        """Answers in order."""
        # only prompts of one length go together: padding would change digits
        groups: dict[tuple[Any, int], list[int]] = {}
        for place, (picture, text) in enumerate(questions):
            length = len(self.processor.tokenizer(text).input_ids)
            groups.setdefault((picture.shape, length), []).append(place)
        found: dict[int, ChatReply] = {}
        for places in groups.values():
            asked = [questions[place] for place in places]
            found |= zip(places, generate_in_batches(self, self._inputs, asked), strict=True)
        return [Caption(found[i].text.strip(), found[i].score) for i in range(len(questions))]

    def _encode(self, picture: np.ndarray) -> Any:
        """Image features, (T, tokens, D); once for questions about the same picture."""
        if picture is not self._picture:
            tiles = self.processor.image_tiles(picture, self.settings["max_tiles"])
            pixels = tiles.to(self.network.device, self.network.dtype)
            found = self.network.model.get_image_features(pixels, return_dict=True)
            self._picture, self._features = picture, found.pooler_output
        return self._features

    def _inputs(self, questions: Sequence[Question]) -> Any:
        import torch
        from transformers import BatchFeature

        processor, features, rows = self.processor, [], []
        conversation = replace(processor.conversation, with_mask=False)
        with torch.inference_mode():
            for picture, text in questions:
                features.append(self._encode(picture))
                repeats = {processor.image_token_id: features[-1].shape[:2].numel()}
                rows.append(conversation.tokenize(text, repeats=repeats)[0])
            ids = torch.tensor(rows, device=self.network.device)
            embeds = self.network.model.embed_inputs(ids, image_features=torch.cat(features))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return BatchFeature(inputs | {"inputs_embeds": embeds})


Reader = ChatReader | OwnReader
