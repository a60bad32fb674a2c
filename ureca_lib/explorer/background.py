"""Work that must not keep the interface waiting: one thread, and only the latest wish counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class LatestOnly:
    """Runs tasks one after the other in a thread; one that a later one has overtaken is skipped.

    A task gets a function that says whether it is still wanted, to ask before it shows anything.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "explorer")
        self._lock = threading.Lock()
        self._latest = 0
        self._last: Future | None = None

    def submit(self, task: Callable[[Callable[[], bool]], None]) -> None:
        """Run a task after those that have begun, instead of those that have not."""
        with self._lock:
            self._latest += 1
            number = self._latest

            def wanted() -> bool:
                return number == self._latest

            self._last = self._pool.submit(lambda: task(wanted) if wanted() else None)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for what was submitted.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; whatever a task raised.
        """
        if self._last is not None:
            self._last.result(timeout)

    def close(self) -> None:
        """Begin nothing any more."""
        with self._lock:
            self._latest += 1
        self._pool.shutdown(wait=False, cancel_futures=True)
