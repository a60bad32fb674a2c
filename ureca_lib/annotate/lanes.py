"""Lanes: an annotator's queue of ready steps, and the threads that ask it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any, NamedTuple

from ureca_lib.annotate.asking import AnnotatorStoppedError, OpenImage
from ureca_lib.annotate.protocol import Annotator
from ureca_lib.annotate.records import Step

_SPARE = 4  # threads that prepare questions while the others wait for answers


class Lane:
    """One annotator: its ready steps, its threads, and at most `calls` calls at a time.

    A thread answers one step and is free again; it never waits for another step.
    """

    def __init__(self, annotator: Annotator, in_flight: int | None = None):
        most = max(1, annotator.max_in_flight)
        self.annotator, self.calls = annotator, min(most, in_flight or most)
        self.stopped: str | None = None  # why no call is begun any more
        self._slots = BoundedSemaphore(self.calls)
        self._pool = ThreadPoolExecutor(self.calls + _SPARE, "ask")
        self._waiting: list[tuple[int, int, OpenImage, Step]] = []  # a heap, oldest image first
        self._added = 0
        self.busy = 0

    @property
    def hungry(self) -> bool:
        """Whether it could take more steps than it has."""
        return self.busy + len(self._waiting) < self.calls + _SPARE

    def add(self, turn: int, work: OpenImage, step: Step) -> None:
        """Queue a step; those of the image with the smallest turn go first."""
        self._added += 1
        heapq.heappush(self._waiting, (turn, self._added, work, step))

    def take(self) -> tuple[OpenImage, Step] | None:
        """The next step, if a thread is free."""
        if not self._waiting or self.busy >= self.calls + _SPARE:
            return None
        return heapq.heappop(self._waiting)[2:]

    def submit(self, task: Any, *arguments: Any) -> Future:
        """Run a task in one of the threads; `busy` is counted down by who takes its result."""
        self.busy += 1
        return self._pool.submit(task, *arguments)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One of the calls at a time.

        Raises:
            AnnotatorStoppedError: a call before it could not go on, or the run was stopped.
        """
        with self._slots:
            if self.stopped is not None:
                raise AnnotatorStoppedError(self.stopped)
            try:
                yield
            except AnnotatorStoppedError as error:
                self.stopped = self.stopped or str(error)
                raise

    def close(self) -> None:
        """Begin no call any more, and wait for those in flight."""
        self.stopped = self.stopped or "the run is over"
        self._pool.shutdown(wait=True, cancel_futures=True)


class Pair(NamedTuple):
    """Who captions the images of a split, and who verifies them."""

    captions: Lane
    verifies: Lane


def lanes_of_splits(
    splits: Iterable[str],
    annotator: Annotator | Mapping[str, Annotator],
    verifier: Annotator | None,
    in_flight: int | None,
) -> dict[str, Pair]:
    """The lanes of each split; one annotator has one lane, whatever it does.

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
    everyone = [*chosen.values(), *([verifier] if verifier and chosen else [])]
    lanes = {id(one): Lane(one, in_flight) for one in {id(a): a for a in everyone}.values()}
    return {
        split: Pair(lanes[id(one)], lanes[id(verifier or one)]) for split, one in chosen.items()
    }
