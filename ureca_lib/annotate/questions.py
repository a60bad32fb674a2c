"""One question to an annotator: its prompt, its pictures, its key in the store, and its answer.

An answer is stored with a key, a hash of everything that decides it; the same key is not asked
again. Recipe 2 of the key, that of new stores, hashes what the annotator sees: the prompt and the
pixels of the pictures. An annotator with a `version` attribute is a program that may read the
masks, the tree and all captions of the request, so those are hashed instead. Recipe 1, that of
stores made before, hashes settings and masks; it is frozen.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import xxhash

from ureca_lib.annotate.pipeline import ImageCaptions, parse_verdict
from ureca_lib.annotate.prompts import fill_prompt
from ureca_lib.annotate.protocol import Annotator, Context, Reply, Request, Stage
from ureca_lib.annotate.records import Answer, Step, digest
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import Source
from ureca_lib.annotate.views import ImageViews, stage_views
from ureca_lib.regions import RegionImage

Result = TypeVar("Result")

SPARE = 4  # questions prepared while as many as are allowed wait for their answers


class AnnotatorStoppedError(RuntimeError):
    """The annotator raised an error: asking again makes no sense. The message is the reason."""


@dataclass(frozen=True)
class OpenImage:
    """An image while its captions are written."""

    source: Source
    image: RegionImage
    views: ImageViews
    captions: ImageCaptions
    stored: Mapping[Step, Answer]  # answers of earlier runs
    settings: PipelineSettings

    @cached_property
    def content(self) -> str:
        """A hash of all that a program can read of the image: pixels, masks, names and tree."""
        tree = self.captions.tree
        masks = [[r.id, r.rle["counts"].decode("ascii"), r.name] for r in self.image]
        parents = [tree.parent(region.id) for region in self.image]
        return digest(self.image.pixels.tobytes(), self.image.pixels.shape, masks, parents)

    @cached_property
    def content_1(self) -> str:
        """The content as recipe 1 has it: with the settings of the views."""
        return digest(self.content, self.settings.record(1)["views"])


@dataclass(frozen=True)
class Question:
    """A question that is ready to be asked, and the key of its answer."""

    step: Step
    request: Request
    key: str


def fingerprint(annotator: Annotator) -> list[Any]:
    """The part of an annotator that decides its answers, as plain data."""
    version = getattr(annotator, "version", None)
    known = [annotator.name, getattr(annotator, "answer_settings", None)]
    return known if version is None else [*known, version]


def prepare(
    work: OpenImage, step: Step, context: Context, annotator: Annotator, recipe: int
) -> Question | Answer:
    """Fill a step's prompt and draw its pictures; or find its answer among the stored ones.

    Args:
        work: the step's image.
        step, context: the question.
        annotator: would be asked.
        recipe: of the key, see `Store.recipe`.
    """
    compare = step.round > 1  # Table 9, which is the first round, does not show captions
    tree = work.captions.tree
    prompt, version = fill_prompt(step.stage, tree, step.region_id, context, compare)
    asked, key = fingerprint(annotator), None
    if recipe == 1:
        key = _read_key(work.content_1, step, context, [asked, version, prompt])
    elif len(asked) > 2:  # a program
        key = _read_key(work.content, step, context, [asked, prompt, step.round])
    old = work.stored.get(step)
    known = ("done",) if work.settings.retry_failed else ("done", "failed")
    old = old if old is not None and old.status in known else None
    if old is not None and old.inputs_hash == key:
        return old
    views = stage_views(step.stage, work.views, tree, step.region_id, context)
    if key is None:
        # pixels are hashed by xxHash: 3 MB a picture, for which other hashes take milliseconds
        pixels = [[*view.shape, xxhash.xxh3_128_hexdigest(view)] for view in views]
        key = digest([step.stage, step.round, asked, prompt], pixels)
        if old is not None and old.inputs_hash == key:
            return old
    request = Request(step.stage, work.image, tree, step.region_id, prompt, version, views, context)
    return Question(step, request, key)


def _read_key(content: str, step: Step, context: Context, asked: list[Any]) -> str:
    captions = (context.siblings, context.children, context.look_alike_captions)
    return digest(
        [content, step.stage, step.region_id, asked],
        [context.parent, context.current, list(context.look_alikes)],
        [list(known.items()) for known in captions],
    )


def checked(stage: Stage, reply: Reply) -> Reply:
    """The reply, or a failed one if it is empty, is no verdict, or fails without a reason."""
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


class Caller:
    """One annotator with its limit of calls at a time.

    Args:
        annotator: with `answer_async(request)`, a coroutine, it is awaited; else its `answer` is
            called in threads.
        in_flight: most calls at a time, if fewer than the annotator takes.

    Attributes:
        answered: number of answers by status.
        stopped: the reason why no call is begun anymore.
    """

    def __init__(self, annotator: Annotator, in_flight: int | None = None):
        most = max(1, annotator.max_in_flight)
        self.annotator, self.calls = annotator, min(most, in_flight or most)
        self.threads = ThreadPoolExecutor(self.calls, "annotator")
        self.turns, self._slots = Turns(self.calls + SPARE), asyncio.Semaphore(self.calls)
        self.stopped: str | None = None
        self.answered: Counter[str] = Counter()

    async def ask(self, question: Question, save: Callable[[Answer], None]) -> Answer:
        """Ask a question and save its answer, even if the task is cancelled meanwhile.

        Raises:
            AnnotatorStoppedError: the annotator raised an error, for this question or before.
        """
        async with self._slots:
            if self.stopped is not None:
                raise AnnotatorStoppedError(self.stopped)
            return await to_the_end(self._call(question, save))

    async def _call(self, question: Question, save: Callable[[Answer], None]) -> Answer:
        in_thread, start = asyncio.get_running_loop().run_in_executor, time.perf_counter()
        if hasattr(self.annotator, "answer_async"):
            try:
                reply = await self.annotator.answer_async(question.request)
            except Exception as error:
                raise self._stop(error) from error
            answer = await in_thread(self.threads, self._saved, question, reply, start, save)
        else:
            answer = await in_thread(self.threads, self._answered, question, start, save)
        self.answered[answer.status] += 1
        return answer

    def _answered(self, question: Question, start: float, save: Callable[[Answer], None]) -> Answer:
        try:
            reply = self.annotator.answer(question.request)
        except Exception as error:  # here, because a future takes any error but StopIteration
            raise self._stop(error) from error
        return self._saved(question, reply, start, save)

    def _saved(
        self, question: Question, reply: Reply, start: float, save: Callable[[Answer], None]
    ) -> Answer:
        """The answer that a reply gives, once it is saved."""
        seconds, request = round(time.perf_counter() - start, 6), question.request
        reply = checked(request.stage, reply)
        text = (reply.text, reply.status, reply.error)
        made = (self.annotator.name, request.prompt_version, question.key, seconds)
        spent = (reply.prompt_tokens, reply.reply_tokens, reply.attempts)
        answer = Answer(question.step, *text, *made, *spent, reply.unique)
        save(answer)
        return answer

    def _stop(self, error: Exception) -> AnnotatorStoppedError:
        self.stopped = self.stopped or f"{type(error).__name__}: {error}"
        return AnnotatorStoppedError(self.stopped)


class Turns:
    """A semaphore that goes to the oldest image first, so that images finish in turn."""

    def __init__(self, most: int):
        self.free = most
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap
        self._number = itertools.count()

    @asynccontextmanager
    async def turn(self, age: int) -> AsyncIterator[None]:
        """Wait for a turn; a smaller `age` goes first, then who came first."""
        if self.free:
            self.free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (age, next(self._number), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it came just before
                    self._next()
                raise
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        while self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


async def to_the_end(work: Awaitable[Result]) -> Result:
    """Await work that a cancelled task still waits for, such as a paid call."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody else takes it
        raise
