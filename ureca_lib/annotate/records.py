"""Records of the pipeline: steps and their answers, final captions, and rows of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ureca_lib.annotate.protocol import Stage
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region

AnswerStatus = Literal["done", "failed", "blocked", "kept"]
State = Literal["unique", "unresolved", "failed", "dropped", "skipped"]
STATES: tuple[State, ...] = ("unique", "unresolved", "failed", "dropped", "skipped")


class Step(NamedTuple):
    """One question of the pipeline: a stage, for stage 4 its round, and the region."""

    stage: Stage
    round: int
    region_id: RegionId


@dataclass(frozen=True)
class Answer:
    """The result of a step.

    Status "done" and "failed": the annotator was asked. "blocked": it was not asked, because the
    caption that the step builds on failed. "kept": it was not asked, because an earlier caption
    serves: a region without look-alikes keeps its long caption (and under the published rules a
    leaf its short one).
    """

    step: Step
    text: str
    status: AnswerStatus = "done"
    error: str | None = None
    annotator: str = ""
    prompt_version: str = ""
    inputs_hash: str = ""
    seconds: float = 0.0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    attempts: int = 0
    unique: bool | None = None


@dataclass(frozen=True)
class FinalCaption:
    """Final state of a region.

    State "unique": its caption differs from those of all other regions; "unresolved": it has a
    caption, but another region has a caption too similar or the same mask, or the annotator
    reports that the caption fits another region; "failed": no caption, or one that could not be
    verified; "dropped": by verification; "skipped": not below a main object.
    """

    region_id: RegionId
    text: str
    state: State
    reason: str | None = None
    stage: Stage | None = None  # stage and round that wrote the text
    round: int = 0
    parent: RegionId | None = None
    depth: int = 1
    height: int = 1
    look_alikes: tuple[RegionId, ...] = field(default=())


@dataclass(frozen=True)
class ImageRow:
    """An image of the store.

    Status "waiting": not finished; "done"; "partial": finished, but some answers failed;
    "failed": it could not be read, `error` gives the reason.
    """

    image: str
    split: str
    status: str
    error: str | None
    path: str | None
    photo: str | None
    width: int | None
    height: int | None
    left_out: tuple[str, ...]
    inputs: str | None  # digest of everything that decided its captions; the same: nothing to do
    masks: str | None = None  # `masks_digest` of the captioned masks
    made_with: str | None = None  # digest of the settings, see `Store.settings`


def region_key(region_id: RegionId | None) -> str | None:
    """A region's id as JSON, so that 7 and "7" differ."""
    return None if region_id is None else json.dumps(region_id, ensure_ascii=False)


def region_of(key: str | None) -> RegionId | None:
    """The id of such a key."""
    return None if key is None else json.loads(key)


def digest(*parts: Any) -> str:
    """A short hash of plain data (anything that JSON can hold, and bytes), stable across runs."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, (bytes, memoryview)):
            hasher.update(b"b%d:" % len(part))
            hasher.update(part)
        else:
            text = json.dumps(part, sort_keys=True, ensure_ascii=False).encode()
            hasher.update(b"j%d:" % len(text))
            hasher.update(text)
    return hasher.hexdigest()


def masks_digest(regions: Iterable[Region]) -> str:
    """A hash of an image's masks and their ids that does not depend on their order."""
    masks = [[region.id, *region.size, region.rle["counts"].decode("ascii")] for region in regions]
    return digest(sorted(masks, key=json.dumps))
