"""Table 2's baselines: an MLLM that cannot see masks, told of a region in other ways.

| `ureca predict --system` | what the model sees (Sec. 5.1) | `--model` |
|---|---|---|
| `none` | the image alone, so all of its regions get one caption | any |
| `contour` | the image with the region's contour drawn on it | any |
| `crop` | a crop of the region | any |
| `box` | the image, and the region's box as words | the tiny base, which was taught it |
| `vip-llava` | a red contour or box | `llava-hf/vip-llava-7b-hf`, `-13b-hf` |
| `kosmos-2` | the image and location tokens | `microsoft/kosmos-2-patch14-224` |

The first three ask any MLLM: an InternVL of this package's (the tiny base among them), any
image-text-to-text model of transformers with a chat template, or a server (`--base-url`, GPT-4o is
`--base-url openai --model gpt-4o`). The paper prints no questions for them; ours are `QUESTIONS`,
part of the record, and `--question` sets another.

Every other system of Tables 2 and 6 (SCA, Osprey, OMG-LLaVA, ControlMLLM, GRiT, SLR, GLaMM, Groma,
RegionGPT, Omni-RGPT, Draw-and-Understand), and newer ones (DAM, PAM, GAR), runs where its authors'
code runs. Let it write a predictions file, one line a region, two columns are enough:

    {"id": "sa_1/523353737", "caption": "the left boot", "system": "Osprey"}

with the `id` that any system of `ureca predict` gives the region (see `predictions`); then
`ureca evaluate osprey.jsonl --refs test.jsonl` scores it as it scores all. What it was trained on
goes into `osprey.meta.json`: `{"system": "Osprey", "trained_on": "URECA"}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ureca_lib.annotate.views import Cut, ImageViews, ViewSettings, frame_of
from ureca_lib.boxes import box_question
from ureca_lib.conversation import QUESTION
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.evaluate.systems import Said
from ureca_lib.regions import Region

Prompting = Literal["none", "contour", "crop", "box"]
Background = Literal["photo", "blurred"]
PROMPTINGS: tuple[Prompting, ...] = get_args(Prompting)

# ours: the paper does not print what it asked
QUESTIONS: Mapping[str, str] = {
    "none": QUESTION,
    "contour": "Describe the region inside the yellow contour in the image.",
    "crop": "Describe what is in this crop of an image.",
    "box": QUESTION,
}


@dataclass(frozen=True)
class Ask:
    """One question: a picture (h, w, 3) uint8, and what is asked about it."""

    view: np.ndarray
    question: str


class Reader(Protocol):
    """A model that answers questions about pictures.

    Attributes:
        name: of the model's kind.
        model: which weights.
        settings: what else its answers depend on.
    """

    name: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]

    def read(self, asks: Sequence[Ask]) -> list[Said]:
        """One answer each, in order."""


@dataclass(frozen=True)
class PromptSettings:
    """How a region is shown to a model that cannot see masks."""

    prompting: Prompting = field(metadata={"help": "none, contour, crop or box"})
    question: str | None = field(
        default=None, metadata={"help": "what is asked; None is that of `QUESTIONS`"}
    )
    background: Background = field(
        default="photo",
        metadata={"help": "of a crop: the photo's, or blurred away as annotators see it"},
    )
    view: ViewSettings = field(
        default_factory=ViewSettings, metadata={"help": "of contours and crops"}
    )

    def __post_init__(self) -> None:
        if self.prompting not in PROMPTINGS:
            raise ValueError(f"prompting is {', '.join(PROMPTINGS)}, not {self.prompting!r}")
        if self.background not in get_args(Background):
            raise ValueError(f"background is photo or blurred, not {self.background!r}")
        if self.question is None:
            object.__setattr__(self, "question", QUESTIONS[self.prompting])


class PromptedSystem:
    """An MLLM told of regions by pictures or words; see the module.

    Args:
        reader: the model.
        settings: how a region is shown.
        name: as tables show it; by default the prompting's.
    """

    def __init__(self, reader: Reader, settings: PromptSettings, name: str | None = None):
        self._reader, self._settings = reader, settings
        self.name, self.model = name or settings.prompting, reader.model
        self.settings = asdict(settings) | {"reader": reader.name} | dict(reader.settings)

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Said]:
        """See `System`."""
        if self._settings.prompting == "none":
            # the model is told nothing of the region, so it is asked once
            (said,) = self._reader.read([Ask(image.pixels, self._settings.question or "")])
            return [said] * len(regions)
        return self._reader.read(asks_about(image, regions, self._settings))


def asks_about(
    image: CaptionedImage, regions: Sequence[Region], settings: PromptSettings
) -> list[Ask]:
    """What is shown and asked for each region."""
    question = settings.question or ""
    if settings.prompting == "none":
        return [Ask(image.pixels, question)] * len(regions)
    if settings.prompting == "box":
        return [Ask(image.pixels, box_question(region, question)) for region in regions]
    if settings.prompting == "crop" and settings.background == "photo":
        return [Ask(crop(image.pixels, region, settings.view), question) for region in regions]
    views = ImageViews(image.image, settings.view)
    draw = views.contoured_image if settings.prompting == "contour" else views.target_crop
    return [Ask(draw(region.id), question) for region in regions]


def crop(pixels: np.ndarray, region: Region, settings: ViewSettings | None = None) -> np.ndarray:
    """The region's box with its margin, cut out of the photo and enlarged where it is small.

    Args:
        pixels: (H, W, 3) uint8.
        region: of that image.

    Returns:
        (h, w, 3) uint8; nothing is drawn on it, and what lies around the region stays.
    """
    settings = settings or ViewSettings()
    height, width = pixels.shape[:2]
    frame = frame_of([Cut.of(region).box], height, width, settings)
    return frame.resized(np.ascontiguousarray(pixels[frame.window]))


def red(settings: ViewSettings) -> ViewSettings:
    """The same views with a red contour, which is what ViP-LLaVA speaks of."""
    return replace(settings, contour_color=(255, 0, 0))
