"""Questions of the pipeline and answers of annotators: one protocol for every kind.

A chat model reads the filled prompt and looks at the views. The embedded annotator, which needs no
model, reads the image, the tree and the context instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ureca_lib.chat import AnnotatorUnavailableError as AnnotatorUnavailableError
from ureca_lib.chat import BudgetSpentError as BudgetSpentError
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import RegionImage

Stage = Literal["short", "long", "unique", "verify"]
STAGES: tuple[Stage, ...] = ("short", "long", "unique", "verify")
Status = Literal["done", "failed"]


@dataclass(frozen=True)
class Context:
    """Captions known when a stage asks about a region (Tables 7, 8, 9)."""

    parent: str | None = None  # caption of the parent; None where the parent is the image
    siblings: Mapping[RegionId, str] = field(default_factory=dict)  # captions so far, by id
    children: Mapping[RegionId, str] = field(default_factory=dict)  # captions, by id
    current: str | None = None  # the region's caption so far
    look_alikes: Sequence[RegionId] = ()  # numbered from 1 in the view, in this order
    look_alike_captions: Mapping[RegionId, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One question about one region.

    Args:
        stage: "short" (stage 2), "long" (stage 3), "unique" (stage 4) or "verify".
        image: the photo and its regions.
        tree: of these regions.
        region_id: the region asked about.
        prompt: the filled prompt; its version is `prompt_version`.
        views: (H, W, 3) uint8 images in the order in which the prompt speaks of them.
        context: what the prompt was filled with.
    """

    stage: Stage
    image: RegionImage
    tree: MaskTree
    region_id: RegionId
    prompt: str
    prompt_version: str
    views: Sequence[np.ndarray]
    context: Context


@dataclass(frozen=True)
class Reply:
    """An answer: cleaned and checked text, or a failure with its reason. Never a silent empty text.

    `unique` is the annotator's own judgment of its caption, if it has one.
    """

    text: str
    status: Status = "done"
    error: str | None = None
    prompt_tokens: int = 0
    reply_tokens: int = 0
    attempts: int = 1
    unique: bool | None = None


@runtime_checkable
class Annotator(Protocol):
    """Anything that answers a `Request`.

    `answer` is called from several threads at once, at most `max_in_flight` of them. It returns
    a `Reply` with status "failed" for a question it cannot answer, and raises only if no question
    can be answered: `BudgetSpentError` or `AnnotatorUnavailableError`.
    Settings that decide its answers (temperature, limits) may be given as plain data in an
    attribute `answer_settings`: a change there asks again, as a changed name does.

    Two more attributes are optional. `answer_async(request)`, a coroutine, is awaited instead of
    `answer`. A `version` says that answers are free and computed from everything in the request,
    masks and names too: another version answers anew, also in older stores.
    """

    name: str  # kind and model, as it goes into the record: "openai:gpt-4o-mini-2024-07-18"
    max_in_flight: int

    def answer(self, request: Request) -> Reply:
        """Answer one question."""
        ...
