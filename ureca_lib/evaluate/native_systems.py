"""Captioners of other authors with region prompts of their own, through transformers' classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import (
    Kosmos2ForConditionalGeneration,
    Kosmos2Model,
    VipLlavaForConditionalGeneration,
)

from ureca_lib.annotate.cuts import Cut
from ureca_lib.annotate.views import ViewSettings, draw_contour, frame_of
from ureca_lib.chat import generate_in_batches, load_transformers
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.devices import chosen_device
from ureca_lib.evaluate.predictions import Caption
from ureca_lib.evaluate.settings import SystemOptions
from ureca_lib.provenance import model_record
from ureca_lib.regions import Region

RED = (255, 0, 0)
# twice its input of 336 px, so that contours of 4 px are 2 px in the model's input
_VIP_VIEW = ViewSettings(contour_color=RED, contour_width=4, min_side=672, max_side=672)
# the chat format of its model card
_VIP_CHAT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.###Human: <image>\n"
    "{question}###Assistant:"
)


class NativeSystem:
    """A model of transformers that is prompted with regions, a batch at a time.

    Args:
        options: without a `question` the system's own is asked.

    Raises:
        AnnotatorUnavailableError: it cannot be loaded.
    """

    name: str
    kind: Any  # class of transformers
    question: str
    settings: dict[str, Any]

    def __init__(self, options: SystemOptions):
        model, device = str(options.model), chosen_device(options.device)
        self.network, self.processor = load_transformers(self.kind, model, device, options.dtype)
        self.model, self.batch_size = model_record(model), options.batch_size
        self.settings = {"question": options.question or self.question, "dtype": options.dtype}
        self.settings["max_new_tokens"] = options.max_new_tokens

    def inputs(self, image: CaptionedImage, regions: Sequence[Region]) -> Any:
        """The model's inputs for some regions of an image."""
        raise NotImplementedError

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """See `System`."""
        replies = generate_in_batches(self, partial(self.inputs, image), regions)
        return [Caption(self._clean(reply.text).strip(), reply.score) for reply in replies]

    def _clean(self, reply: str) -> str:
        raise NotImplementedError


class VipLlavaSystem(NativeSystem):
    """ViP-LLaVA (Cai et al. 2024): the region marked in red on the image, and named in words.

    `model` is, for instance, `llava-hf/vip-llava-7b-hf`. The question is in the words of its
    training.
    """

    name, kind = "vip-llava", VipLlavaForConditionalGeneration
    question = "Please describe the region within the red mask contour in the image."

    def __init__(self, options: SystemOptions):
        super().__init__(options)
        processor = self.processor
        processor.tokenizer.padding_side = "left"
        # an older checkpoint's processor does not know its number of image tokens
        if processor.patch_size is None:
            processor.patch_size = self.network.config.vision_config.patch_size
        if processor.vision_feature_select_strategy is None:
            processor.vision_feature_select_strategy = "default"  # all but the class token
            processor.num_additional_image_tokens = 1
        self.settings |= {"shape": "mask contour", "padding": "square"}

    def inputs(self, image: CaptionedImage, regions: Sequence[Region]) -> Any:
        """The whole image, marked and made square, and the question."""
        # CLIP's processor cuts the middle square out of a picture; ViP-LLaVA was trained, and is
        # evaluated, on pictures that are padded with the mean color before
        mean = tuple(int(255 * value) for value in self.processor.image_processor.image_mean)
        size = (_VIP_VIEW.max_side, _VIP_VIEW.max_side)
        shown = [Image.fromarray(marked(image.pixels, region)) for region in regions]
        pictures = [ImageOps.pad(each, size, color=mean) for each in shown]
        text = [_VIP_CHAT.format(question=self.settings["question"])] * len(regions)
        return self.processor(text=text, images=pictures, return_tensors="pt", padding=True)

    def _clean(self, reply: str) -> str:
        return reply.split("###")[0]  # the chat's next turn is text to its tokenizer


class Kosmos2System(NativeSystem):
    """KOSMOS-2 (Peng et al. 2023): the region's box as location tokens behind a phrase.

    `model` is, for instance, `microsoft/kosmos-2-patch14-224`. The question is that of the paper's
    zero-shot test (Sec. 4.1.2: a region's description by its box, without examples); another one
    has one `<phrase>` too.
    """

    name, kind = "kosmos-2", Kosmos2ForConditionalGeneration
    question = "<grounding><phrase> It</phrase> is"
    _image: CaptionedImage | None = None  # the latest one, with its features

    def inputs(self, image: CaptionedImage, regions: Sequence[Region]) -> Any:
        """The whole image, and each region's location tokens.

        Raises:
            ValueError: a question without one phrase.
        """
        question = self.settings["question"]
        if question.count("<phrase>") != 1 or question.count("</phrase>") != 1:
            raise ValueError(f"KOSMOS-2: a question has one <phrase>...</phrase>, not {question!r}")
        inputs = self.processor(
            text=[question] * len(regions),
            images=[Image.fromarray(image.pixels)] * len(regions),
            bboxes=[[relative_box(region)] for region in regions],
            return_tensors="pt",
            padding=True,
        )
        pixels = inputs.pop("pixel_values")[:1]  # the same for all regions: encoded once
        if image is not self._image:
            pixels = pixels.to(self.network.device, self.network.dtype)
            with torch.inference_mode():
                # the generating class has the same parts, but not the method
                found = Kosmos2Model.get_image_features(self.network, pixels, return_dict=True)
            self._image, self._features = image, found.pooler_output
        inputs["image_embeds"] = self._features.repeat(len(regions), 1, 1)
        return inputs

    def _clean(self, reply: str) -> str:
        # removes the phrases' tags and the location tokens that the model adds
        return self.processor.post_process_generation(reply)[0]


def marked(pixels: np.ndarray, region: Region) -> np.ndarray:
    """The photo with a region's contour in red, at the size of ViP-LLaVA's input.

    Args:
        pixels: (H, W, 3) uint8.

    Returns:
        (h, w, 3) uint8, the longer side of 672 pixels.
    """
    height, width = pixels.shape[:2]
    frame = frame_of([(0, 0, width, height)], height, width, _VIP_VIEW)
    canvas = np.array(frame.resized(pixels))
    draw_contour(canvas, frame.mapped(Cut.of(region)), _VIP_VIEW.contour_width, RED)
    return canvas


def relative_box(region: Region) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a region as shares of the image's width and height."""
    x, y, columns, rows = region.pixel_box
    height, width = region.size
    return x / width, y / height, (x + columns) / width, (y + rows) / height
