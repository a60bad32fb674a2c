"""One run of the pipeline over many images.

One thread, the caller's, holds all the plans: it hands ready steps to the lanes of their
annotators and takes the answers back. No thread ever waits for a step but this one, which waits
for whatever comes first, so there is nothing that could lock up.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

from tqdm.auto import tqdm

from ureca_lib.annotate.asking import AnnotatorStoppedError, OpenImage, ask, open_image, stamp, who
from ureca_lib.annotate.finals import final_captions
from ureca_lib.annotate.lanes import Lane, Pair
from ureca_lib.annotate.look_alikes import RegionFeatures
from ureca_lib.annotate.prompts import PROMPT_VERSIONS
from ureca_lib.annotate.protocol import Context
from ureca_lib.annotate.records import Answer, Step, digest, masks_digest
from ureca_lib.annotate.schema import ImageRow
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import Source
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.annotate.summary import MOST_FAILURES, Summary, counted
from ureca_lib.regions import RegionError

VERSION = 1  # of what the pipeline does with the same settings
_OPENERS = 2  # threads that load images
_POLL = 0.2  # seconds between two looks at images that another process has
_NOTE = 2.0  # seconds between two notes of how far a run has come


class Run:
    """The state of one run.

    Args:
        store: what is done, and where answers go.
        settings: of all stages.
        features: that look-alikes are found by.
        splits: for each image's name its split.
        lanes: for each split its annotators.
        bar: shows the images that are finished.
        wait: for images that another process has, as long as it lives.
    """

    def __init__(
        self,
        store: Store,
        settings: PipelineSettings,
        features: RegionFeatures,
        splits: Mapping[str, str],
        lanes: Mapping[str, Pair],
        bar: tqdm,
        wait: bool,
    ):
        self.store, self.settings, self.features = store, settings, features
        self.splits, self.pairs, self.bar, self._wait = splits, lanes, bar, wait
        self.lanes = list(dict.fromkeys(lane for pair in lanes.values() for lane in pair))
        most = max((lane.calls for lane in self.lanes), default=1)
        self.summary, self._most_open = Summary(images=len(splits)), settings.open_images or most
        self._open: dict[str, int] = {}  # images being worked on, with their turns
        self._claimed: set[str] = set()
        self._opening, self._turn, self._noted = 0, 0, 0.0
        self._events: queue.SimpleQueue[tuple[Any, Future]] = queue.SimpleQueue()
        self._held: list[Source] = []

    def go(self, sources: list[Source]) -> Summary:
        """Work until all is done, or nothing more can be."""
        start, self._queue, self._again = time.perf_counter(), iter(sources), False
        self._begin()
        self._loader = ThreadPoolExecutor(_OPENERS, "open")
        try:
            self._work()
            ((self.summary.stored,),) = self.store.rows("SELECT count(*) FROM captions")
        except KeyboardInterrupt:
            self.summary.stopped = "interrupted"
            raise
        finally:
            self._loader.shutdown(wait=True, cancel_futures=True)
            for lane in self.lanes:
                lane.close()  # answers in flight are saved by their threads
            for name in self._claimed:
                self.store.release(name)
            self.summary.elsewhere = len(self._held)
            self.summary.seconds = time.perf_counter() - start
            self._note(last=True)
        return self.summary

    def _begin(self) -> None:
        self._number = self.store.begin_run()
        self.store.register(self.splits.items())
        askers = {
            split: [who(lane.annotator) for lane in pair] for split, pair in self.pairs.items()
        }
        used = asdict(self.settings) | {"features": self.features.name}
        self._made_with = {split: self._digest_of(split, one) for split, one in askers.items()}
        kept = {self._made_with[split]: used | {"annotators": one} for split, one in askers.items()}
        self.store.set_settings(used | {"annotators": askers}, kept)

    def _digest_of(self, split: str, askers: list[Any]) -> str:
        """What the captions of a split depend on, but for its images: two digests.

        The first is of what all splits share, the second of what may differ between them.
        """
        settings = asdict(self.settings)
        for name in ("retry_failed", "open_images", "verify_splits", "strict"):
            del settings[name]
        shared = digest([VERSION, settings, self.features.name], dict(PROMPT_VERSIONS))
        return f"{shared}/{digest(askers, split in self.settings.verify_splits)}"

    def _work(self) -> None:
        while True:
            if self.summary.stopped is None:
                self._hand_out()
                self._open_more()
            if not self._opening and not any(lane.busy for lane in self.lanes):
                if not self._look_again():
                    return
                continue
            what, future = self._events.get()
            if isinstance(what, Source):
                self._opened(what, future)
            else:
                self._answered(*what, future)
            self._note()

    def _look_again(self) -> bool:
        """Put images that another process had back into the queue; False where none is left.

        Once at least, for it may have ended before it came to them. Nothing is held here
        meanwhile, so that no two processes wait for each other.
        """
        if self.summary.stopped or not self._held or (self._again and not self._wait):
            return False
        if self._wait:
            self._note()
            time.sleep(_POLL)
        self._queue, self._held, self._again = iter(self._held), [], True
        return True

    def _hand_out(self) -> None:
        for lane in self.lanes:
            while (taken := lane.take()) is not None:
                work, step = taken
                if work.source.name in self._open:  # has not failed in the meantime
                    future = lane.submit(self._ask, lane, work, step, work.plan.context(step))
                    self._watch((work, lane), future)

    def _ask(
        self, lane: Lane, work: OpenImage, step: Step, context: Context
    ) -> tuple[Answer, bool]:
        save = partial(self.store.save, work.source.name)
        retry = self.settings.retry_failed
        return ask(work, step, context, lane.annotator, lane.slot(), save, retry)

    def _open_more(self) -> None:
        """Open images as long as a lane could do with more steps."""
        while (
            self._opening < _OPENERS
            and len(self._open) + self._opening < self._most_open
            and any(lane.hungry for lane in self.lanes)
        ):
            source = self._next_source()
            if source is None:
                return
            self._opening += 1
            stored, verify = self.store.answers(source.name), self._verified(source)
            arguments = (source, stored, self.settings, self.features, verify)
            self._watch(source, self._loader.submit(open_image, *arguments))

    def _watch(self, what: Any, future: Future) -> None:
        future.add_done_callback(lambda done: self._events.put((what, done)))

    def _verified(self, source: Source) -> bool:
        return self.splits[source.name] in self.settings.verify_splits

    def _next_source(self) -> Source | None:
        """The next image that is neither finished nor another process's."""
        for source in self._queue:
            row = self.store.image(source.name)
            same = row.inputs is not None and row.inputs == self._inputs(source, row.photo)
            failed = row.status in ("partial", "failed")
            if same and (row.status == "done" or (failed and not self.settings.retry_failed)):
                if row.made_with is None:  # the inputs say more than the digest
                    self.store.set_made_with(row.image, self._made_with[self.splits[row.image]])
                self._count(source.name, row.status if failed else "already", row.error)
            elif self.store.claim(source.name):
                self._claimed.add(source.name)
                return source
            else:
                self._held.append(source)
        return None

    def _inputs(self, source: Source, photo: str | None) -> str | None:
        """What decides an image's captions, seen from outside; None for an image in memory."""
        if source.path is None:
            return None
        askers = [who(lane.annotator) for lane in self.pairs[self.splits[source.name]]]
        settings = asdict(self.settings)
        for name in ("retry_failed", "open_images", "verify_splits"):
            del settings[name]
        return digest(
            [VERSION, settings, askers, self._verified(source), self.features.name],
            [dict(PROMPT_VERSIONS), stamp(source.path), stamp(photo)],
        )

    def _opened(self, source: Source, future: Future) -> None:
        self._opening -= 1
        try:
            work = future.result()
        except Exception as error:
            self._fail(source, error)
            return
        self._turn += 1
        self._open[source.name] = self._turn
        self._advance(work)

    def _answered(self, work: OpenImage, lane: Lane, future: Future) -> None:
        lane.busy -= 1
        try:
            answer, called = future.result()
        except AnnotatorStoppedError as error:
            self.summary.stopped = self.summary.stopped or str(error)
            for other in self.lanes:
                other.stopped = self.summary.stopped
            return
        except StoreError:
            raise
        except Exception as error:
            self._fail(work.source, error)
            return
        self.summary.calls += called
        self.summary.reused += not called
        self.summary.lost += answer.status == "failed"
        if work.source.name in self._open:
            work.plan.record(answer)
            self._advance(work)

    def _advance(self, work: OpenImage) -> None:
        """Queue the steps that have become ready, or finish the image."""
        pair = self.pairs[self.splits[work.source.name]]
        for step in work.plan.ready():
            lane = pair.verifies if step.stage == "verify" else pair.captions
            lane.add(self._open[work.source.name], work, step)
        if work.plan.finished:
            self._finish(work)

    def _finish(self, work: OpenImage) -> None:
        image, name = work.image, work.source.name
        answers, captions = work.plan.answers.values(), final_captions(work.plan)
        errors = [answer.error for answer in answers if answer.status == "failed"]
        failed = f"{counted(len(errors), 'answer')} failed: {min(errors)}" if errors else None
        status = "partial" if failed else "done"
        photo = str(image.photo) if image.photo else None
        self.store.finish(
            ImageRow(
                name,
                self.splits[name],
                status,
                failed,
                None if work.source.path is None else str(work.source.path),
                photo,
                image.width,
                image.height,
                tuple(str(item) for item in image.left_out),
                self._inputs(work.source, photo),
                masks_digest(image),
                self._made_with[self.splits[name]],
            ),
            answers,
            captions,
        )
        self.summary.states.update(caption.state for caption in captions)
        self._end(name, status, failed)

    def _fail(self, source: Source, error: Exception) -> None:
        """Record why an image could not be worked on; the others go on."""
        if source.name not in self._claimed:
            return  # another step of it failed before
        known = isinstance(error, RegionError)  # names the file itself
        reason = str(error) if known else f"{source.name}: {type(error).__name__}: {error}"
        path = None if source.path is None else str(source.path)
        size = (None, None)
        inputs = self._inputs(source, None)
        split = self.splits[source.name]
        self.store.finish(
            ImageRow(source.name, split, "failed", reason, path, None, *size, (), inputs)
        )
        self._end(source.name, "failed", reason)

    def _end(self, name: str, status: str, reason: str | None) -> None:
        self._open.pop(name, None)
        self._claimed.discard(name)
        self._count(name, status, reason)

    def _count(self, name: str, status: str, reason: str | None) -> None:
        setattr(self.summary, status, getattr(self.summary, status) + 1)
        if status in ("partial", "failed") and len(self.summary.failures) < MOST_FAILURES:
            self.summary.failures.append((name, reason or "no reason is known"))
        self.bar.update()

    def _note(self, last: bool = False) -> None:
        """Show and record how far the run has come, now and then."""
        now = time.perf_counter()
        if not last and now - self._noted < _NOTE:
            return
        self._noted, summary = now, self.summary
        waits = bool(self._held) and not self._open and not last
        self.bar.set_description("waiting for another process" if waits else None, refresh=False)
        self.bar.set_postfix(calls=summary.calls, kept=summary.reused, failed=summary.lost)
        finished = summary.done + summary.partial
        self.store.update_run(self._number, finished, summary.calls, summary.stopped)
