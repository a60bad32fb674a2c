"""Region captioners of others with region prompts of their own, through transformers' classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps
from transformers import Kosmos2ForConditionalGeneration, VipLlavaForConditionalGeneration

from ureca_lib.annotate.views import Cut, ViewSettings, draw_contour, frame_of
from ureca_lib.chat import generate_greedily, load_transformers
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.evaluate.baseline_models import MAX_NEW_TOKENS
from ureca_lib.evaluate.systems import Said, model_record
from ureca_lib.regions import Region

Shape = Literal["mask contour", "rectangle"]
RED = (255, 0, 0)
# twice its input of 336 px, so that contours of 4 px are 2 px where the model sees them
_VIP_VIEW = ViewSettings(contour_color=RED, contour_width=4, min_side=672, max_side=672)
# the chat format of its model card
_VIP_CHAT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.###Human: <image>\n"
    "{question}###Assistant:"
)
# Peng et al. 2023, Sec. 4.1.2: a region's description by its box, without examples
_KOSMOS_PROMPT = "<grounding><phrase> It</phrase> is"


class VipLlavaSystem:
    """ViP-LLaVA (Cai et al. 2024): the region marked in red on the image, and named in words.

    Args:
        model: folder or hub id, such as `llava-hf/vip-llava-7b-hf`.
        device, dtype: where and as what it runs.
        question: what is asked; None asks for a description of what is "within the red SHAPE", the
            words of its training. shape: what is drawn, "mask contour" or "rectangle".
        max_new_tokens: of an answer. batch_size: regions that go together.

    Raises:
        AnnotatorUnavailableError: it cannot be loaded.
    """

    name = "vip-llava"

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        dtype: str = "auto",
        question: str | None = None,
        shape: Shape = "mask contour",
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 4,
    ):
        if shape not in get_args(Shape):
            raise ValueError(f"a shape is {' or '.join(get_args(Shape))}, not {shape!r}")
        question = question or f"Please describe the region within the red {shape} in the image."
        self._network, self._processor = load_transformers(
            VipLlavaForConditionalGeneration, model, device, dtype
        )
        _complete(self._processor, self._network)
        self._processor.tokenizer.padding_side = "left"
        self.model: Mapping[str, Any] = model_record(model)
        self._batch_size = batch_size
        self.settings = {"question": question, "shape": shape, "dtype": dtype}
        self.settings |= {"max_new_tokens": max_new_tokens, "padding": "square"}

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """See `System`."""
        found: list[Said] = []
        for start in range(0, len(regions), self._batch_size):
            found += self._answers(image, regions[start : start + self._batch_size])
        return found

    def inputs(self, image: CaptionedImage, regions: Sequence[Region]) -> Any:
        """What the model is given: the whole image, marked and made square, and the question."""
        # CLIP's processor cuts the middle square out of a picture; ViP-LLaVA was trained, and is
        # evaluated, on pictures that are padded with the mean colour before
        mean = tuple(int(255 * value) for value in self._processor.image_processor.image_mean)
        side = _VIP_VIEW.max_side
        pictures = [
            ImageOps.pad(
                Image.fromarray(marked(image.pixels, region, self.settings["shape"])),
                (side, side),
                color=mean,
            )
            for region in regions
        ]
        text = _VIP_CHAT.format(question=self.settings["question"])
        return self._processor(
            text=[text] * len(regions), images=pictures, return_tensors="pt", padding=True
        )

    def _answers(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        inputs = self.inputs(image, regions)
        tokenizer = self._processor.tokenizer
        limit = self.settings["max_new_tokens"]
        replies = generate_greedily(self._network, inputs, tokenizer, limit, with_scores=True)
        # the chat's next turn is text to its tokenizer
        return [Said(reply.text.split("###")[0].strip(), reply.score) for reply in replies]


class Kosmos2System:
    """KOSMOS-2 (Peng et al. 2023): the region's box as location tokens behind a phrase.

    Args:
        model: folder or hub id, such as `microsoft/kosmos-2-patch14-224`.
        device, dtype: where and as what it runs.
        question: the prompt, with one `<phrase>`; None is that of the paper's zero-shot test.
        max_new_tokens: of an answer. batch_size: regions that go together.

    Raises:
        AnnotatorUnavailableError: it cannot be loaded. ValueError: a prompt without one phrase.
    """

    name = "kosmos-2"

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        dtype: str = "auto",
        question: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 4,
    ):
        question = question or _KOSMOS_PROMPT
        if question.count("<phrase>") != 1 or question.count("</phrase>") != 1:
            raise ValueError(
                f"a prompt for KOSMOS-2 has one <phrase>...</phrase>, not {question!r}"
            )
        self._network, self._processor = load_transformers(
            Kosmos2ForConditionalGeneration, model, device, dtype
        )
        self.model: Mapping[str, Any] = model_record(model)
        self._batch_size = batch_size
        self.settings = {"question": question, "dtype": dtype, "max_new_tokens": max_new_tokens}

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """See `System`."""
        found: list[Said] = []
        for start in range(0, len(regions), self._batch_size):
            found += self._answers(image, regions[start : start + self._batch_size])
        return found

    def inputs(self, image: CaptionedImage, regions: Sequence[Region]) -> Any:
        """What the model is given: the whole image, and each region's location tokens."""
        picture = Image.fromarray(image.pixels)
        boxes = [[relative_box(region)] for region in regions]
        return self._processor(
            text=[self.settings["question"]] * len(regions),
            images=[picture] * len(regions),
            bboxes=boxes,
            return_tensors="pt",
            padding=True,
        )

    def _answers(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        tokenizer = self._processor.tokenizer
        inputs = self.inputs(image, regions)
        limit = self.settings["max_new_tokens"]
        found = []
        for reply in generate_greedily(self._network, inputs, tokenizer, limit, with_scores=True):
            # removes the phrases' tags and the location tokens that the model adds
            text, _ = self._processor.post_process_generation(reply.text)
            found.append(Said(text.strip(), reply.score))
        return found


def marked(pixels: np.ndarray, region: Region, shape: Shape) -> np.ndarray:
    """The photo with a region marked in red, as large as ViP-LLaVA is shown it.

    Args:
        pixels: (H, W, 3) uint8.
        shape: its contour, or its box.

    Returns:
        (h, w, 3) uint8, the longer side of 672 pixels.
    """
    height, width = pixels.shape[:2]
    frame = frame_of([(0, 0, width, height)], height, width, _VIP_VIEW)
    canvas = np.array(frame.resized(pixels))
    cut = frame.mapped(Cut.of(region))
    if shape == "rectangle":
        cut = Cut(cut.x, cut.y, np.ones_like(cut.mask))
    draw_contour(canvas, cut, _VIP_VIEW.contour_width, RED)
    return canvas


def relative_box(region: Region) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a region as shares of the image's width and height."""
    x, y, columns, rows = region.pixel_box
    height, width = region.size
    return x / width, y / height, (x + columns) / width, (y + rows) / height


def _complete(processor: Any, network: Any) -> None:
    """Tell an older checkpoint's processor how many image tokens it has to make room for."""
    if processor.patch_size is None:
        processor.patch_size = network.config.vision_config.patch_size
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = "default"  # all but the class token
        processor.num_additional_image_tokens = 1
