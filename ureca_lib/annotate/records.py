"""What the pipeline keeps: steps, their answers, and the caption a region ends with."""

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
    """What came of a step.

    Status "done" and "failed" were asked; "blocked" was not, for want of the caption it builds
    on; "kept" was not either: the region has no look-alikes, so its long caption stays.
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
    """Where a region ended.

    State "unique": told apart from its look-alikes; "unresolved": it has a caption, but another
    region's is too much like it or has the same mask, or the annotator says that it fits another;
    "failed": no caption, or one that could not be verified; "dropped": by verification;
    "skipped": not below a main object.
    """

    region_id: RegionId
    text: str
    state: State
    reason: str | None = None
    stage: Stage | None = None  # the stage and round whose text it is
    round: int = 0
    parent: RegionId | None = None
    depth: int = 1
    height: int = 1
    look_alikes: tuple[RegionId, ...] = field(default=())


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
    """A hash of an image's masks and their ids, in whatever order they come."""
    masks = [[region.id, *region.size, region.rle["counts"].decode("ascii")] for region in regions]
    return digest(sorted(masks, key=json.dumps))
