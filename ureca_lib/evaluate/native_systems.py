"""Captioners of other authors with region prompts of their own, through transformers' classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps
from transformers import Kosmos2ForConditionalGeneration, VipLlavaForConditionalGeneration

from ureca_lib.annotate.views import Cut, ViewSettings, draw_contour, frame_of
from ureca_lib.chat import generate_greedily, load_transformers
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.evaluate.predictions import Caption
from ureca_lib.provenance import model_record
from ureca_lib.regions import Region

Shape = Literal["mask contour", "rectangle"]
RED = (255, 0, 0)
# twice its input of 336 px, so that contours of 4 px are 2 px in the model's input
_VIP_VIEW = ViewSettings(contour_color=RED, contour_width=4, min_side=672, max_side=672)
# the chat format of its model card
_VIP_CHAT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.###Human: <image>\n"
    "{question}###Assistant:"
)
# Peng et al. 2023, Sec. 4.1.2: a region's description by its box, without examples
_KOSMOS_PROMPT = "<grounding><phrase> It</phrase> is"


class _NativeSystem:
    """A model of transformers that is prompted with regions, a batch at a time."""

    name: str
    settings: dict[str, Any]

    def __init__(
        self, kind: Any, model: str | Path, device: str, dtype: str, limit: int, batch_size: int
    ):
        self._network, self._processor = load_transformers(kind, model, device, dtype)
        self.model, self._limit, self._batch_size = model_record(model), limit, batch_size

    def inputs(self, image: CaptionedImage, regions: Sequence[Region]) -> Any:
        """The model's inputs for some regions of an image."""
        raise NotImplementedError

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """See `System`."""
        captions: list[Caption] = []
        for start in range(0, len(regions), self._batch_size):
            inputs = self.inputs(image, regions[start : start + self._batch_size])
            options = (self._processor.tokenizer, self._limit)
            for reply in generate_greedily(self._network, inputs, *options, with_scores=True):
                captions.append(Caption(self._clean(reply.text).strip(), reply.score))
        return captions

    def _clean(self, reply: str) -> str:
        raise NotImplementedError


class VipLlavaSystem(_NativeSystem):
    """ViP-LLaVA (Cai et al. 2024): the region marked in red on the image, and named in words.

    Args:
        model: folder or hub id, such as `llava-hf/vip-llava-7b-hf`.
        device, dtype: of the model.
        question: None asks for a description of the region "within the red SHAPE", in the words of
            its training.
        max_new_tokens: per answer. batch_size: regions per batch.
        shape: drawn around the region, "mask contour" or "rectangle".

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
        max_new_tokens: int = 256,
        batch_size: int = 4,
        shape: Shape = "mask contour",
    ):
        if shape not in get_args(Shape):
            raise ValueError(f"a shape is {' or '.join(get_args(Shape))}, not {shape!r}")
        kind = VipLlavaForConditionalGeneration
        super().__init__(kind, model, device, dtype, max_new_tokens, batch_size)
        processor = self._processor
        processor.tokenizer.padding_side = "left"
        # an older checkpoint's processor does not know its number of image tokens
        if processor.patch_size is None:
            processor.patch_size = self._network.config.vision_config.patch_size
        if processor.vision_feature_select_strategy is None:
            processor.vision_feature_select_strategy = "default"  # all but the class token
            processor.num_additional_image_tokens = 1
        question = question or f"Please describe the region within the red {shape} in the image."
        self.settings = {"question": question, "shape": shape, "dtype": dtype}
        self.settings |= {"max_new_tokens": max_new_tokens, "padding": "square"}

    def inputs(self, image: CaptionedImage, regions: Sequence[Region]) -> Any:
        """The whole image, marked and made square, and the question."""
        # CLIP's processor cuts the middle square out of a picture; ViP-LLaVA was trained, and is
        # evaluated, on pictures that are padded with the mean color before
        mean = tuple(int(255 * value) for value in self._processor.image_processor.image_mean)
        size = (_VIP_VIEW.max_side, _VIP_VIEW.max_side)
        shown = [marked(image.pixels, region, self.settings["shape"]) for region in regions]
        pictures = [ImageOps.pad(Image.fromarray(each), size, color=mean) for each in shown]
        text = [_VIP_CHAT.format(question=self.settings["question"])] * len(regions)
        return self._processor(text=text, images=pictures, return_tensors="pt", padding=True)

    def _clean(self, reply: str) -> str:
        return reply.split("###")[0]  # the chat's next turn is text to its tokenizer


class Kosmos2System(_NativeSystem):
    """KOSMOS-2 (Peng et al. 2023): the region's box as location tokens behind a phrase.

    Args:
        model: folder or hub id, such as `microsoft/kosmos-2-patch14-224`.
        device, dtype: of the model.
        question: the prompt, with one `<phrase>`; None is that of the paper's zero-shot test.
        max_new_tokens: per answer. batch_size: regions per batch.

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
        max_new_tokens: int = 256,
        batch_size: int = 4,
    ):
        question = question or _KOSMOS_PROMPT
        if question.count("<phrase>") != 1 or question.count("</phrase>") != 1:
            raise ValueError(
                f"a prompt for KOSMOS-2 has one <phrase>...</phrase>, not {question!r}"
            )
        kind = Kosmos2ForConditionalGeneration
        super().__init__(kind, model, device, dtype, max_new_tokens, batch_size)
        self.settings = {"question": question, "dtype": dtype, "max_new_tokens": max_new_tokens}

    def inputs(self, image: CaptionedImage, regions: Sequence[Region]) -> Any:
        """The whole image, and each region's location tokens."""
        return self._processor(
            text=[self.settings["question"]] * len(regions),
            images=[Image.fromarray(image.pixels)] * len(regions),
            bboxes=[[relative_box(region)] for region in regions],
            return_tensors="pt",
            padding=True,
        )

    def _clean(self, reply: str) -> str:
        # removes the phrases' tags and the location tokens that the model adds
        return self._processor.post_process_generation(reply)[0]


def marked(pixels: np.ndarray, region: Region, shape: Shape) -> np.ndarray:
    """The photo with a region marked in red, at the size of ViP-LLaVA's input.

    Args:
        pixels: (H, W, 3) uint8.
        shape: the region's contour, or its box.

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
