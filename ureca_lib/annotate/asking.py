"""One image while it is worked on, and the asking of one of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ureca_lib.annotate.look_alikes import RegionFeatures, find_look_alikes
from ureca_lib.annotate.prompts import fill_prompt
from ureca_lib.annotate.protocol import Annotator, Context, Reply, Request, Stage
from ureca_lib.annotate.records import Answer, Step, digest
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import Source
from ureca_lib.annotate.stages import ImagePlan
from ureca_lib.annotate.verify import parse_verdict
from ureca_lib.annotate.views import ImageViews, stage_views
from ureca_lib.mask_tree import MaskTree
from ureca_lib.regions import RegionImage


class AnnotatorStoppedError(RuntimeError):
    """The annotator cannot go on; the cause says why."""


@dataclass(frozen=True)
class OpenImage:
    """An image whose turn has come: all that its steps need, until it is finished."""

    source: Source
    image: RegionImage
    tree: MaskTree
    views: ImageViews
    plan: ImagePlan
    stored: Mapping[Step, Answer]
    content: str  # hash of what an annotator may see or read: pixels, masks, names, tree, views


def open_image(
    source: Source,
    stored: Mapping[Step, Answer],
    settings: PipelineSettings,
    features: RegionFeatures,
    verify: bool,
) -> OpenImage:
    """Load an image, build its tree, find its look-alikes and plan its steps.

    Raises:
        RegionError: the annotations or the photo are bad, naming the file and why.
    """
    image = source.load(settings.strict)
    tree = settings.tree.build(image.regions)
    views = ImageViews(image, settings.views)
    chosen = settings.tree.chosen(tree)
    threshold = settings.look_alikes.threshold
    threshold = features.threshold if threshold is None else threshold
    alike = find_look_alikes(features(image, chosen), tree, settings.look_alikes, threshold)
    plan = ImagePlan(tree, chosen, alike, settings.check, verify)
    masks = [[region.id, region.rle["counts"].decode("ascii"), region.name] for region in image]
    parents = [tree.parent(region.id) for region in image]
    content = digest(image.pixels.tobytes(), image.pixels.shape, masks, parents)
    content = digest(content, asdict(settings.views))
    return OpenImage(source, image, tree, views, plan, stored, content)


def ask(
    work: OpenImage,
    step: Step,
    context: Context,
    annotator: Annotator,
    slot: AbstractContextManager,
    save: Callable[[Answer], None],
    retry_failed: bool,
) -> tuple[Answer, bool]:
    """Answer a step: from what is stored if its inputs are the same, else by the annotator.

    Args:
        work: the step's image.
        step, context: what is asked.
        annotator: who is asked.
        slot: held from the call until its answer is saved, and no longer, so that questions are
            prepared while others wait for answers.
        save: commits an answer.
        retry_failed: whether a stored failure is asked again.

    Returns:
        The answer, and whether the annotator was called.

    Raises:
        AnnotatorStoppedError: the annotator raised.
    """
    compare = step.round > 1  # Table 9, which is the first round, does not show captions
    prompt, version = fill_prompt(step.stage, work.tree, step.region_id, context, compare)
    inputs = _inputs_hash(work, step, context, [who(annotator), version, prompt])
    old = work.stored.get(step)
    known = ("done",) if retry_failed else ("done", "failed")
    if old is not None and old.inputs_hash == inputs and old.status in known:
        return old, False
    views = stage_views(step.stage, work.views, work.tree, step.region_id, context)
    place = (step.stage, work.image, work.tree, step.region_id)
    request = Request(*place, prompt, version, views, context)
    with slot:
        reply, seconds = _call(annotator, request)
        made = (reply.text, reply.status, reply.error, annotator.name, version, inputs, seconds)
        spent = (reply.prompt_tokens, reply.reply_tokens, reply.attempts)
        answer = Answer(step, *made, *spent, unique=reply.unique)
        save(answer)
    return answer, True


def _call(annotator: Annotator, request: Request) -> tuple[Reply, float]:
    """The checked reply, and the seconds that it took."""
    start = time.perf_counter()
    try:
        reply = annotator.answer(request)
    except Exception as error:
        raise AnnotatorStoppedError(f"{type(error).__name__}: {error}") from error
    return checked(request.stage, reply), round(time.perf_counter() - start, 6)


def _inputs_hash(work: OpenImage, step: Step, context: Context, asked: list[Any]) -> str:
    """A hash of everything that decides an answer."""
    captions = (context.siblings, context.children, context.look_alike_captions)
    return digest(
        [work.content, step.stage, step.region_id, asked],
        [context.parent, context.current, list(context.look_alikes)],
        [list(known.items()) for known in captions],
    )


def who(annotator: Annotator) -> list[Any]:
    """What of an annotator decides its answers: plain data."""
    return [annotator.name, getattr(annotator, "answer_settings", None)]


def checked(stage: Stage, reply: Reply) -> Reply:
    """The reply, failed where it is empty, gives no reason for failing, or is no verdict."""
    if reply.status != "done":
        return replace(reply, text="", error=reply.error or "the annotator gave no reason")
    text = reply.text.encode("utf-8", "replace").decode("utf-8")  # no half surrogate pairs
    if not text.strip():
        return replace(reply, text="", status="failed", error="the reply is empty")
    if stage == "verify":
        try:
            parse_verdict(reply.text)
        except ValueError as error:
            return replace(reply, text="", status="failed", error=str(error))
    return replace(reply, text=text)


def stamp(path: Path | str | None) -> list[int] | None:
    """Size in bytes and time of the last change in ns of a file, to see whether it changed."""
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else [found.st_size, found.st_mtime_ns]
