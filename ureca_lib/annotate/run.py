"""Annotate many images: several at once, interrupted and resumed at any time.

`annotate_images` opens images in turn and lets `pipeline.ImageCaptions` write their captions. An
answer is in the store before it counts, so a killed run loses the calls in flight at most.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from ureca_lib.annotate.look_alikes import ColorTextureFeatures, RegionFeatures, find_look_alikes
from ureca_lib.annotate.pipeline import ImageCaptions
from ureca_lib.annotate.prompts import PROMPT_VERSIONS
from ureca_lib.annotate.protocol import Annotator, Context
from ureca_lib.annotate.questions import (
    SPARE,
    AnnotatorStoppedError,
    Caller,
    OpenImage,
    fingerprint,
    prepare,
    to_the_end,
)
from ureca_lib.annotate.records import STATES, Answer, ImageRow, Step, digest, masks_digest
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import Source, SourceLike, SplitRule, find_sources
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.annotate.views import ImageViews
from ureca_lib.event_loop import run_coroutine
from ureca_lib.regions import RegionError

VERSION = 1  # of the pipeline's behavior under the same settings
MOST_FAILURES = 5  # failures listed in a summary
_POLL = 0.2  # seconds between two looks at images of other processes
_NOTE = 2.0  # seconds between two records of a run's progress
_SHOWN = 3  # images named in a warning


@dataclass
class Summary:
    """Counts of a run."""

    images: int = 0  # in all
    already: int = 0  # finished by an earlier run, with the same inputs
    done: int = 0  # finished by this run, without a failure
    partial: int = 0  # finished by this run, with answers that failed
    failed: int = 0  # could not be read
    elsewhere: int = 0  # being annotated by another process
    calls: int = 0  # of an annotator
    reused: int = 0  # answers taken from the store
    lost: int = 0  # answers that failed, of all images
    states: Counter[str] = field(default_factory=Counter)  # of the regions finished by this run
    stored: int = 0  # regions of finished images that the store holds at the end
    failures: list[tuple[str, str]] = field(default_factory=list)  # the first: image, reason
    stopped: str | None = None  # why the run ended early
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every image is finished and nothing failed."""
        return self.stopped is None and self.images == self.already + self.done

    def __str__(self) -> str:
        images = _counts(
            (self.done, "done"),
            (self.already, "were done before"),
            (self.partial, "with failed answers"),
            (self.failed, "unreadable"),
            (self.elsewhere, "in another process"),
        )
        parts = [f"{counted(self.images, 'image')}: {images or 'none finished'}"]
        if states := _counts(*((self.states[state], state) for state in STATES)):
            parts.append(f"regions: {states}")
        elif self.already:
            parts.append(f"the store holds {counted(self.stored, 'region')}")
        kept = f", {counted(self.reused, 'answer')} kept" if self.reused else ""
        parts.append(f"{counted(self.calls, 'call')}{kept}, {self.seconds:.1f} s")
        if self.stopped is not None:
            parts.append(f"stopped: {self.stopped}")
        return "; ".join(parts)


def counted(count: int, noun: str) -> str:
    """A number and a noun: 1 image, 2 images."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _counts(*counts: tuple[int, str]) -> str:
    return ", ".join(f"{count} {name}" for count, name in counts if count)


def annotate_images(
    images: Iterable[SourceLike] | SourceLike,
    store: Store | str | Path,
    annotator: Annotator | Mapping[str, Annotator],
    settings: PipelineSettings | None = None,
    *,
    splits: SplitRule | None = None,
    verifier: Annotator | None = None,
    features: RegionFeatures | None = None,
    in_flight: int | None = None,
    wait: bool = True,
    progress: bool = True,
    part: bool = False,
) -> Summary:
    """Caption every region of the images; questions that the store has answers to are not asked.

    Images are loaded in turn and dropped when they are finished. A run may be stopped at any time
    and resumed by the same call. Several processes may annotate into one store at once: each
    image is annotated by one of them.

    Args:
        images: SA-1B JSON files, folders of them, photos with the JSON beside, or `RegionImage`s.
        store: or its path; it is created if there is none.
        annotator: of all splits, or split -> annotator (App. I: one for training data, a larger
            one for the test set).
        settings: of all stages.
        splits: the split of each image; all are in "train" by default. An image that the store
            has in another split stays there, with a warning, unless `splits` names it.
        verifier: asked in stage 5; None asks the split's annotator.
        features: by which look-alikes are found; None takes `ColorTextureFeatures`.
        in_flight: most calls of an annotator at a time, if fewer than it takes.
        wait: at the end, for images that another process is annotating: they are taken over if
            it ends without finishing them. False leaves them to it.
        progress: show a bar.
        part: the images are a shard of a larger run, so that a list of splits has others.

    Returns:
        Counts of the run. If an annotator could not go on, `stopped` has the reason; all answers
        are kept.

    Raises:
        ValueError: a split without an annotator, in_flight below 1, image names that clash, or
            a list of splits that names none of the images.
        FileNotFoundError: a path does not exist; nothing is written.
        StoreError: the store cannot be used.
        KeyboardInterrupt: after the answers to calls in flight are stored.
    """
    if in_flight is not None and in_flight < 1:
        raise ValueError(f"in_flight is at least 1, not {in_flight}")
    rule = splits or SplitRule()
    # before the store is created: a wrong path leaves nothing behind
    sources = find_sources(images, store.path if isinstance(store, Store) else Path(store))
    of_image = rule.splits_of((source.name for source in sources), part)
    with ExitStack() as stack:
        opened = store if isinstance(store, Store) else stack.enter_context(Store(store))
        of_image = _stored_splits(opened, rule, of_image)
        callers = _callers_of_splits(set(of_image.values()), annotator, verifier, in_flight)
        bar = stack.enter_context(tqdm(total=len(sources), unit="image", disable=not progress))
        settings = (settings or PipelineSettings()).for_store(opened.recipe)
        run = _Run(opened, settings, features or ColorTextureFeatures(), of_image, callers, bar)
        stack.callback(run.close)
        return run_coroutine(run.go(sources, wait))


def _stored_splits(store: Store, rule: SplitRule, splits: Mapping[str, str]) -> dict[str, str]:
    """The splits of a run's images, after those that the store has them in.

    Training data must not become test data, nor the other way round, because an option was left
    out; so only a list that names an image moves it.
    """
    found, kept, moved = dict(splits), [], []
    for name, split in store.rows("SELECT image, split FROM images"):
        if found.get(name, split) != split:
            if rule.lists(name):
                moved.append(f"{name} (from {split} to {found[name]})")
            else:
                kept.append(f"{name} ({split}, not {found[name]})")
                found[name] = split
    for names, change in (
        (kept, "in another split from an earlier run stay there; a list of splits can move them"),
        (moved, "in another split from an earlier run move, as the list of splits has them"),
    ):
        if names:
            first = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            text = f"{store.path}: {counted(len(names), 'image')} {change}: {first}"
            warnings.warn(text, stacklevel=3)
    return found


def _callers_of_splits(
    splits: Iterable[str],
    annotator: Annotator | Mapping[str, Annotator],
    verifier: Annotator | None,
    in_flight: int | None,
) -> dict[str, tuple[Caller, Caller]]:
    """Split -> the callers that caption its images and verify them; one caller per annotator.

    Raises:
        ValueError: a split without an annotator.
    """
    chosen = {
        split: annotator.get(split) if isinstance(annotator, Mapping) else annotator
        for split in sorted(splits)
    }
    for split, one in chosen.items():
        if one is None:
            raise ValueError(f"there is no annotator for the split {split!r}")
    by_id = {id(one): one for one in (*chosen.values(), *([verifier] if verifier else []))}
    callers = {key: Caller(one, in_flight) for key, one in by_id.items()}
    return {
        split: (callers[id(one)], callers[id(verifier or one)]) for split, one in chosen.items()
    }


class _Run:
    """One run. Its coroutines share one thread, so its counts need no lock.

    Args:
        store: takes the answers.
        settings: of all stages.
        features: by which look-alikes are found.
        splits: image name -> split.
        callers: split -> the callers that caption its images and verify them.
        bar: shows the finished images.
    """

    def __init__(
        self,
        store: Store,
        settings: PipelineSettings,
        features: RegionFeatures,
        splits: Mapping[str, str],
        callers: Mapping[str, tuple[Caller, Caller]],
        bar: tqdm,
    ):
        self.store, self.settings, self.features = store, settings, features
        self.splits, self.by_split, self.bar = splits, callers, bar
        self.summary = Summary(images=len(splits))
        self.callers = list(dict.fromkeys(caller for pair in callers.values() for caller in pair))
        self._most = settings.open_images or max((c.calls for c in self.callers), default=1)
        self._preparers = ThreadPoolExecutor(SPARE, "prepare")  # load images, draw pictures
        self._open = 0  # images in memory
        self._held: list[Source] = []  # images of other processes
        self._changed, self._noted = asyncio.Event(), 0.0
        self._lost = 0  # answers of earlier runs that failed

    def close(self) -> None:
        """End the threads; calls in flight are finished before, or by these threads."""
        for pool in (self._preparers, *(caller.threads for caller in self.callers)):
            pool.shutdown(wait=True, cancel_futures=True)

    async def go(self, sources: list[Source], wait: bool) -> Summary:
        """Annotate until all images are finished, or nothing more can be done."""
        start = time.perf_counter()
        self._begin()
        try:
            await self._annotate_all(sources, wait)
            ((self.summary.stored,),) = self.store.rows("SELECT count(*) FROM captions")
        except asyncio.CancelledError:
            self.summary.stopped = "interrupted"
            raise
        finally:
            for source in sources:  # those that were claimed and not finished
                self.store.release(source.name)
            self.summary.elsewhere = len(self._held)
            self.summary.seconds = time.perf_counter() - start
            self._note(last=True)
        return self.summary

    def _begin(self) -> None:
        """Record the run and its settings, and what decides the captions of each split."""
        recipe, self._number = self.store.recipe, self.store.begin_run()
        self.store.register(self.splits.items())
        record, used = self.settings.record(recipe), asdict(self.settings)
        shared = {name: value for name, value in record.items() if name != "strict"}
        shared = digest([VERSION, shared, self.features.name], dict(PROMPT_VERSIONS))
        used |= {"features": self.features.name}
        self._made_with, self._decides, asked, kept = {}, {}, {}, {}
        for split, pair in self.by_split.items():
            asked[split] = [fingerprint(caller.annotator) for caller in pair]
            verified = split in self.settings.verify_splits
            made_with = f"{shared}/{digest(asked[split], verified)}"
            kept[made_with] = used | {"annotators": asked[split]}
            self._made_with[split] = made_with
            self._decides[split] = [VERSION, record, asked[split], verified, self.features.name]
        self.store.set_settings(used | {"annotators": asked}, kept)

    async def _annotate_all(self, sources: list[Source], wait: bool) -> None:
        """Annotate all images; then look again at those that other processes had.

        They are looked at once more at least, for a process may have ended before it came to
        them. Nothing is held meanwhile, so that no two processes wait for each other.
        """
        turns, again = itertools.count(), False
        while sources:
            self._held = []
            try:
                async with asyncio.TaskGroup() as group:
                    for source in sources:
                        await self._room()
                        if self._take(source) and (work := await self._load(source)):
                            self._open += 1
                            group.create_task(self._write(work, next(turns)))
            except BaseExceptionGroup as errors:
                for error in errors.exceptions:
                    if not isinstance(error, AnnotatorStoppedError):
                        raise error from None
                self.summary.stopped = str(errors.exceptions[0])
                return
            if not self._held or (again and not wait):
                return
            if wait:
                self._note()
                await asyncio.sleep(_POLL)
            sources, again = self._held, True

    async def _room(self) -> None:
        """Wait until one more image may be open, and an annotator has a turn free for it."""
        await asyncio.sleep(0)  # long lists of finished images do not block the loop
        while self._open >= self._most or not any(c.turns.free for c in self.callers):
            self._changed.clear()
            await self._changed.wait()

    def _take(self, source: Source) -> bool:
        """Claim an image, unless it is finished or another process has it."""
        row = self.store.image(source.name)
        same = row.inputs is not None and row.inputs == self._inputs(source, row.photo)
        # a store from before settings were recorded with the images has it looked at again
        if same and row.status == "done" and row.made_with is not None:
            self._count(source.name, "already", None)
        elif same and row.status in ("partial", "failed") and not self.settings.retry_failed:
            self._count(source.name, row.status, row.error)
        elif self.store.claim(source.name):
            return True
        else:
            self._held.append(source)
        return False

    def _inputs(self, source: Source, photo: str | None) -> str | None:
        """A hash of what decides an image's captions, without a look at it; None: in memory."""
        if source.path is None:
            return None
        decides = self._decides[self.splits[source.name]]
        return digest(decides, [dict(PROMPT_VERSIONS), _stamp(source.path), _stamp(photo)])

    @contextmanager
    def _alone(self, source: Source) -> Iterator[None]:
        """An error of an image's own fails this image; the others go on."""
        try:
            yield
        except (AnnotatorStoppedError, StoreError):
            raise
        except Exception as error:
            known = isinstance(error, RegionError)  # names the file itself
            reason = str(error) if known else f"{source.name}: {type(error).__name__}: {error}"
            place = (source.path and str(source.path), None, None, None)
            row = (source.name, self.splits[source.name], "failed", reason, *place, ())
            self.store.finish(ImageRow(*row, self._inputs(source, None)))
            self._count(source.name, "failed", reason)

    async def _load(self, source: Source) -> OpenImage | None:
        """Load an image, build its tree (stage 1) and find its look-alikes; None: it fails."""
        settings, features = self.settings, self.features

        def load() -> OpenImage:
            stored, image = self.store.answers(source.name), source.load(settings.strict)
            tree = settings.tree.build(image.regions)
            views, chosen = ImageViews(image, settings.views), settings.tree.chosen(tree)
            threshold = settings.look_alikes.threshold
            threshold = features.threshold if threshold is None else threshold
            vectors = features(image, chosen)
            alike = find_look_alikes(vectors, tree, settings.look_alikes, threshold)
            verify = self.splits[source.name] in settings.verify_splits
            leaves = settings.describe_leaves
            captions = ImageCaptions(tree, chosen, alike, settings.check, verify, leaves)
            return OpenImage(source, image, views, captions, stored, settings)

        with self._alone(source):
            return await asyncio.get_running_loop().run_in_executor(self._preparers, load)
        return None

    async def _write(self, work: OpenImage, turn: int) -> None:
        """Write the captions of an image."""
        try:
            with self._alone(work.source):
                captions = await work.captions.write(partial(self._ask, work, turn))
                row, answers = self._row(work), work.captions.answers.values()
                await to_the_end(asyncio.to_thread(self.store.finish, row, answers, captions))
                self.summary.states.update(caption.state for caption in captions)
                self._count(row.image, row.status, row.error)
        finally:
            self._open -= 1
            self._changed.set()

    async def _ask(self, work: OpenImage, turn: int, step: Step, context: Context) -> Answer:
        """The answer of a step: from the store if it was asked before, else by the annotator."""
        caller = self.by_split[self.splits[work.source.name]][step.stage == "verify"]
        question = (work, step, context, caller.annotator, self.store.recipe)
        loop = asyncio.get_running_loop()
        async with caller.turns.turn(turn):
            found = await loop.run_in_executor(self._preparers, prepare, *question)
            if isinstance(found, Answer):
                self.summary.reused += 1
                self._lost += found.status == "failed"
            else:
                found = await caller.ask(found, partial(self.store.save, work.source.name))
        self._changed.set()
        self._note()
        return found

    def _row(self, work: OpenImage) -> ImageRow:
        """A finished image as the store records it."""
        image, source, answers = work.image, work.source, work.captions.answers.values()
        errors = [answer.error for answer in answers if answer.status == "failed"]
        error = f"{counted(len(errors), 'answer')} failed: {min(errors)}" if errors else None
        split, status = self.splits[source.name], "partial" if errors else "done"
        photo = str(image.photo) if image.photo else None
        place = (source.path and str(source.path), photo, image.width, image.height)
        left_out, inputs = tuple(map(str, image.left_out)), self._inputs(source, photo)
        made_with = (masks_digest(image), self._made_with[split])
        return ImageRow(source.name, split, status, error, *place, left_out, inputs, *made_with)

    def _count(self, name: str, status: str, reason: str | None) -> None:
        setattr(self.summary, status, getattr(self.summary, status) + 1)
        if status in ("partial", "failed") and len(self.summary.failures) < MOST_FAILURES:
            self.summary.failures.append((name, reason or "no reason is known"))
        self.bar.update()

    def _note(self, last: bool = False) -> None:
        """Show and record the run's progress, at most every few seconds."""
        now = time.perf_counter()
        if not last and now - self._noted < _NOTE:
            return
        self._noted, summary = now, self.summary
        answered = [caller.answered for caller in self.callers]
        summary.calls = sum(counts.total() for counts in answered)
        summary.lost = self._lost + sum(counts["failed"] for counts in answered)
        waits = bool(self._held) and not self._open and not last
        self.bar.set_description("waiting for another process" if waits else None, refresh=False)
        self.bar.set_postfix(calls=summary.calls, kept=summary.reused, failed=summary.lost)
        finished = summary.done + summary.partial
        self.store.update_run(self._number, finished, summary.calls, summary.stopped)


def _stamp(path: Path | str | None) -> list[int] | None:
    """Size in bytes and time of the last change in ns of a file, to see whether it changed."""
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else [found.st_size, found.st_mtime_ns]
