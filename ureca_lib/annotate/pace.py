"""How fast a server is asked that limits its rate: one pace for all threads."""

from __future__ import annotations

import threading
import time

_EASE = 0.9  # of the gap that is left after a reply
_LEAST = 0.01  # seconds


class Pace:
    """Turns to ask: at once while nothing is refused, else with a gap between two calls.

    A gap and not a wait of each thread by itself: those would all ask again at the same time.

    Args:
        least, most: the first and the longest gap, in seconds.
    """

    def __init__(self, least: float, most: float):
        self._least, self._most = max(least, _LEAST), most
        self._lock = threading.Lock()
        self._gap, self._next, self._slowed = 0.0, 0.0, 0.0

    def turn(self, most: float) -> tuple[float, float]:
        """Take the next turn, unless it comes too late.

        Args:
            most: seconds that it may be away.

        Returns:
            Now, by the monotonic clock, for `slow`; and the seconds until the turn.
        """
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            if start - now <= most:
                self._next = start + self._gap
            return now, start - now

    def slow(self, taken: float, asked: float = 0.0) -> None:
        """A call was refused: nobody asks for a while, and then more slowly.

        Args:
            taken: when its turn was taken. One of a pace that was given up meanwhile says nothing
                of the present one.
            asked: seconds that the server asks to wait.
        """
        with self._lock:
            now = time.monotonic()
            if taken >= self._slowed:
                self._gap = min(self._most, max(self._least, 2 * self._gap))
                self._slowed = now
            self._next = max(self._next, now + max(asked, self._gap))

    def ease(self) -> None:
        """A call went well: the next ones may come a little faster."""
        with self._lock:
            self._gap *= _EASE
            if self._gap < self._least / 2:
                self._gap = 0.0
