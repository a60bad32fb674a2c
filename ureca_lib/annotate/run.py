"""Annotate many images: several at once, interrupted and resumed at any time.

`annotate_images` opens images in turn and lets `pipeline.ImageCaptions` write their captions. An
answer is in the store before it counts, so a killed run loses the calls in flight at most.

An answer is stored with a key, a hash of everything that decides it; the same key is not asked
again. Recipe 2 of the key, that of new stores, hashes what the annotator sees: the prompt and the
pixels of the pictures. An annotator with a `version` attribute is a program that may read the
masks, the tree and all captions of the request, so those are hashed instead. Recipe 1, that of
stores made before, hashes settings and masks; it is frozen.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import xxhash
from tqdm.auto import tqdm

from ureca_lib.annotate.look_alikes import ColorTextureFeatures, RegionFeatures, find_look_alikes
from ureca_lib.annotate.pipeline import ImageCaptions, parse_verdict
from ureca_lib.annotate.prompts import PROMPT_VERSIONS, fill_prompt
from ureca_lib.annotate.protocol import (
    Annotator,
    AnnotatorUnavailableError,
    Context,
    Reply,
    Request,
    Stage,
)
from ureca_lib.annotate.records import STATES, Answer, ImageRow, Step, digest, masks_digest
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import Source, SourceLike, SplitRule, find_sources
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.annotate.views import ImageViews, stage_views
from ureca_lib.event_loop import run_coroutine
from ureca_lib.regions import RegionError, RegionImage
from ureca_lib.regions.sources import shortened

Result = TypeVar("Result")

VERSION = 1  # of the pipeline's behavior under the same settings
MOST_FAILURES = 5  # failures listed in a summary
_SPARE = 4  # questions prepared while as many as are allowed wait for their answers
_POLL = 0.2  # seconds between two looks at images of other processes
_NOTE = 2.0  # seconds between two records of a run's progress


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
        counts = [(self.done, "done"), (self.already, "were done before")]
        counts += [(self.partial, "with failed answers"), (self.failed, "unreadable")]
        counts += [(self.elsewhere, "in another process")]
        images = ", ".join(f"{count} {name}" for count, name in counts if count)
        parts = [f"{counted(self.images, 'image')}: {images or 'none finished'}"]
        states = ", ".join(f"{self.states[name]} {name}" for name in STATES if self.states[name])
        if states:
            parts.append(f"regions: {states}")
        elif self.already:
            parts.append(f"the store holds {counted(self.stored, 'region')}")
        kept = f", {counted(self.reused, 'answer')} kept" if self.reused else ""
        parts.append(f"{counted(self.calls, 'call')}{kept}, {self.seconds:.1f} s")
        return "; ".join([*parts, f"stopped: {self.stopped}"] if self.stopped else parts)


def counted(count: int, noun: str) -> str:
    """A number and a noun: 1 image, 2 images."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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
        images: photos, folders of photos or files of masks (see `ureca_lib.regions.sources`), or
            `RegionImage`s.
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
        callers: dict[int, _Caller] = {}  # one per annotator
        by_split = {}
        for split in sorted(set(of_image.values())):
            if isinstance(annotator, Mapping):
                try:
                    one = annotator[split]
                except KeyError:
                    raise ValueError(f"there is no annotator for the split {split!r}") from None
            else:
                one = annotator
            for asked in (one, verifier or one):
                callers.setdefault(id(asked), _Caller(asked, in_flight))
            by_split[split] = (callers[id(one)], callers[id(verifier or one)])
        bar = stack.enter_context(tqdm(total=len(sources), unit="image", disable=not progress))
        settings = (settings or PipelineSettings()).for_store(opened.recipe)
        run = _Run(opened, settings, features or ColorTextureFeatures(), of_image, by_split, bar)
        stack.callback(run.close)
        return run_coroutine(run.go(sources, wait))


def _stored_splits(store: Store, rule: SplitRule, splits: Mapping[str, str]) -> dict[str, str]:
    """The splits of a run's images, after those that the store has them in.

    Training data must not become test data, nor the other way round, because an option was left
    out; so only a list that names an image moves it.
    """
    found, changed = dict(splits), defaultdict(list)
    for name, split in store.rows("SELECT image, split FROM images"):
        wanted = found.get(name, split)
        if wanted != split and rule.listed(name):
            change = "move, as the list of splits has them"
            changed[change].append(f"{name} (from {split} to {wanted})")
        elif wanted != split:
            change = "stay there; a list of splits can move them"
            changed[change].append(f"{name} ({split}, not {wanted})")
            found[name] = split
    for change, names in changed.items():
        count = counted(len(names), "image")
        text = f"{count} in another split from an earlier run {change}: {shortened(names)}"
        warnings.warn(f"{store.path}: {text}", stacklevel=3)
    return found


class _Caller:
    """One annotator with its limit of calls at a time.

    Args:
        annotator: with `answer_async(request)`, a coroutine, it is awaited; else its `answer` is
            called in threads.
        in_flight: most calls at a time, if fewer than the annotator takes.

    Attributes:
        fingerprint: the part of the annotator that decides its answers, as plain data.
        stopped: the reason why no call is begun anymore.
    """

    def __init__(self, annotator: Annotator, in_flight: int | None):
        most = max(1, annotator.max_in_flight)
        self.annotator, self.calls = annotator, min(most, in_flight or most)
        self.threads = ThreadPoolExecutor(self.calls, "annotator")
        self.turns = asyncio.Semaphore(self.calls + _SPARE)  # of questions, with their pictures
        self.slots = asyncio.Semaphore(self.calls)
        self.stopped: str | None = None
        self.version = getattr(annotator, "version", None)
        self.fingerprint = [annotator.name, getattr(annotator, "answer_settings", None)]
        self.fingerprint += [] if self.version is None else [self.version]

    async def reply(self, request: Request) -> Reply:
        """Ask a question.

        Raises:
            AnnotatorUnavailableError: the annotator raised an error: asking again makes no sense.
        """
        try:
            if hasattr(self.annotator, "answer_async"):
                reply = await self.annotator.answer_async(request)
            else:
                loop = asyncio.get_running_loop()
                reply = await loop.run_in_executor(self.threads, self._answer, request)
        except Exception as error:
            self.stopped = self.stopped or f"{type(error).__name__}: {error}"
            raise AnnotatorUnavailableError(self.stopped) from error
        return _checked(request.stage, reply)

    def _answer(self, request: Request) -> Reply:
        try:
            return self.annotator.answer(request)
        except StopIteration as error:  # no future ends with it, so the run would wait for ever
            raise RuntimeError("the annotator raised StopIteration") from error


def _checked(stage: Stage, reply: Reply) -> Reply:
    """The reply, or a failed one if it is empty, is no verdict, or fails without a reason."""
    if reply.status != "done":
        return replace(reply, text="", error=reply.error or "the annotator gave no reason")
    text = reply.text.encode("utf-8", "replace").decode("utf-8")  # no half surrogate pairs
    try:
        if not text.strip():
            raise ValueError("the reply is empty")
        if stage == "verify":
            parse_verdict(text)
    except ValueError as error:
        return replace(reply, text="", status="failed", error=str(error))
    return replace(reply, text=text)


@dataclass(frozen=True)
class _Work:
    """An image while its captions are written."""

    source: Source
    image: RegionImage
    views: ImageViews
    captions: ImageCaptions
    stored: Mapping[Step, Answer]  # answers of earlier runs

    @cached_property
    def content(self) -> str:
        """A hash of all that a program can read of the image: pixels, masks, names and tree."""
        tree = self.captions.tree
        masks = [[r.id, r.rle["counts"].decode("ascii"), r.name] for r in self.image]
        parents = [tree.parent(region.id) for region in self.image]
        return digest(self.image.pixels.tobytes(), self.image.pixels.shape, masks, parents)


@dataclass(eq=False)
class _Run:
    """One run. Its coroutines share one thread, so its counts need no lock.

    Args:
        store: takes the answers.
        settings: of all stages.
        features: by which look-alikes are found.
        splits: image name -> split.
        by_split: split -> the callers that caption its images and verify them.
        bar: shows the finished images.
    """

    store: Store
    settings: PipelineSettings
    features: RegionFeatures
    splits: Mapping[str, str]
    by_split: Mapping[str, tuple[_Caller, _Caller]]
    bar: tqdm

    def __post_init__(self) -> None:
        self.summary = Summary(images=len(self.splits))
        self.callers = {caller for pair in self.by_split.values() for caller in pair}
        self._most = max((caller.calls for caller in self.callers), default=1)  # images open
        self._preparers = ThreadPoolExecutor(_SPARE, "prepare")  # load images, draw pictures
        self._open = 0  # images in memory
        self._held: list[Source] = []  # images of other processes
        self._changed, self._noted = asyncio.Event(), 0.0

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
        record, used = self.settings.record(self.store.recipe), asdict(self.settings)
        used |= {"features": self.features.name}
        shared = {name: value for name, value in record.items() if name != "strict"}
        shared = digest([VERSION, shared, self.features.name], dict(PROMPT_VERSIONS))
        self._made_with, self._decides, asked, kept = {}, {}, {}, {}
        for split, pair in self.by_split.items():
            asked[split] = [caller.fingerprint for caller in pair]
            verified = split in self.settings.verify_splits
            made_with = f"{shared}/{digest(asked[split], verified)}"
            kept[made_with] = used | {"annotators": asked[split]}
            self._made_with[split] = made_with
            self._decides[split] = [VERSION, record, asked[split], verified, self.features.name]
        self.store.register(self.splits.items())
        self._number = self.store.begin_run(used | {"annotators": asked}, kept)

    async def _annotate_all(self, sources: list[Source], wait: bool) -> None:
        """Annotate all images; then look again at those that other processes had.

        They are looked at once more at least, for a process may have ended before it came to
        them. Nothing is held meanwhile, so that no two processes wait for each other.
        """
        loop, again = asyncio.get_running_loop(), False
        while sources:
            self._held = []
            try:
                async with asyncio.TaskGroup() as group:
                    for source in sources:
                        await self._room()
                        if self._take(source):
                            with self._alone(source):
                                work = await loop.run_in_executor(
                                    self._preparers, self._load, source
                                )
                                self._open += 1
                                group.create_task(self._write(work))
            except BaseExceptionGroup as errors:
                for error in errors.exceptions:
                    if not isinstance(error, AnnotatorUnavailableError):
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
        while self._open >= self._most or all(caller.turns.locked() for caller in self.callers):
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
        if source.masks is None:
            return None
        decides = self._decides[self.splits[source.name]]
        return digest(decides, [dict(PROMPT_VERSIONS), _stamp(source.masks.path), _stamp(photo)])

    @contextmanager
    def _alone(self, source: Source) -> Iterator[None]:
        """An error of an image's own fails this image; the others go on."""
        try:
            yield
        except (AnnotatorUnavailableError, StoreError):
            raise
        except Exception as error:
            known = isinstance(error, RegionError)  # names the file itself
            reason = str(error) if known else f"{source.name}: {type(error).__name__}: {error}"
            place = (source.path and str(source.path), None, None, None)
            row = (source.name, self.splits[source.name], "failed", reason, *place, ())
            self.store.finish(ImageRow(*row, self._inputs(source, None)))
            self._count(source.name, "failed", reason)

    def _load(self, source: Source) -> _Work:
        """Load an image, build its tree (stage 1) and find its look-alikes."""
        settings, features = self.settings, self.features
        stored = self.store.answers(source.name)
        image = source.load(settings.strict, settings.boxes)
        tree = settings.tree.build(image.regions)
        views, chosen = ImageViews(image, settings.views), settings.tree.chosen(tree)
        threshold = settings.look_alikes.threshold
        threshold = features.threshold if threshold is None else threshold
        alike = find_look_alikes(features(image, chosen), tree, settings.look_alikes, threshold)
        verify = self.splits[source.name] in settings.verify_splits
        leaves = settings.describe_leaves
        captions = ImageCaptions(tree, chosen, alike, settings.check, verify, leaves)
        return _Work(source, image, views, captions, stored)

    async def _write(self, work: _Work) -> None:
        """Write the captions of an image."""
        try:
            with self._alone(work.source):
                captions = await work.captions.write(partial(self._ask, work))
                row, answers = self._row(work), work.captions.answers.values()
                self.store.finish(row, answers, captions)
                self.summary.states.update(caption.state for caption in captions)
                self._count(row.image, row.status, row.error)
        finally:
            self._open -= 1
            self._changed.set()

    async def _ask(self, work: _Work, step: Step, context: Context) -> Answer:
        """The answer of a step: from the store if it was asked before, else by the annotator."""
        caller = self.by_split[self.splits[work.source.name]][step.stage == "verify"]
        loop, question = asyncio.get_running_loop(), (work, step, context, caller)
        async with caller.turns:
            found = await loop.run_in_executor(self._preparers, self._prepare, *question)
            if isinstance(found, Answer):
                self.summary.reused += 1
            else:
                async with caller.slots:
                    if caller.stopped is not None:
                        raise AnnotatorUnavailableError(caller.stopped)
                    found = await _to_the_end(self._call(work, step, caller, *found))
        self.summary.lost += found.status == "failed"
        self._changed.set()
        self._note()
        return found

    def _prepare(
        self, work: _Work, step: Step, context: Context, caller: _Caller
    ) -> Answer | tuple[Request, str]:
        """A step's stored answer; if there is none, its question and the key of the answer.

        Args:
            work, step, context: the question.
            caller: of the annotator that would be asked.
        """
        stage, number, region_id = step
        tree, asked, key = work.captions.tree, caller.fingerprint, None
        # Table 9, which is the first round, does not show captions
        prompt, version = fill_prompt(stage, tree, region_id, context, compare=number > 1)
        if self.store.recipe == 1 or caller.version is not None:
            content, asking = work.content, [asked, prompt, number]
            if self.store.recipe == 1:
                views, asking = self.settings.record(1)["views"], [asked, version, prompt]
                content = digest(content, views)
            captions = (context.siblings, context.children, context.look_alike_captions)
            key = digest(
                [content, stage, region_id, asking],
                [context.parent, context.current, list(context.look_alikes)],
                [list(known.items()) for known in captions],
            )
        old = work.stored.get(step)
        known = ("done",) if self.settings.retry_failed else ("done", "failed")
        reusable = old is not None and old.status in known
        if reusable and old.inputs_hash == key:
            return old
        views = stage_views(stage, work.views, tree, region_id, context)
        if key is None:
            # pixels are hashed by xxHash: 3 MB a picture, for which other hashes take milliseconds
            pixels = [[*view.shape, xxhash.xxh3_128_hexdigest(view)] for view in views]
            key = digest([stage, number, asked, prompt], pixels)
            if reusable and old.inputs_hash == key:
                return old
        return Request(stage, work.image, tree, region_id, prompt, version, views, context), key

    async def _call(
        self, work: _Work, step: Step, caller: _Caller, request: Request, key: str
    ) -> Answer:
        """Ask a question, and save its answer."""
        start = time.perf_counter()
        reply = await caller.reply(request)
        seconds = round(time.perf_counter() - start, 6)
        made = (caller.annotator.name, request.prompt_version, key, seconds)
        spent = (reply.prompt_tokens, reply.reply_tokens, reply.attempts, reply.unique)
        answer = Answer(step, reply.text, reply.status, reply.error, *made, *spent)
        self.store.save(work.source.name, answer)
        self.summary.calls += 1
        return answer

    def _row(self, work: _Work) -> ImageRow:
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
        waits = bool(self._held) and not self._open and not last
        self.bar.set_description("waiting for another process" if waits else None, refresh=False)
        self.bar.set_postfix(calls=summary.calls, kept=summary.reused, failed=summary.lost)
        finished = summary.done + summary.partial
        self.store.update_run(self._number, finished, summary.calls, summary.stopped)


async def _to_the_end(work: Awaitable[Result]) -> Result:
    """Await work that a cancelled task still waits for, such as a paid call."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody else takes it
        raise


def _stamp(path: Path | str | None) -> list[int] | None:
    """Size in bytes and time of the last change in ns of a file, to see whether it changed."""
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else [found.st_size, found.st_mtime_ns]
