"""How fast a server is asked that limits its rate: one pace for all threads."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

_EASE = 0.9  # of the gap that is left after a reply
_LEAST = 0.01  # seconds


class Slot(NamedTuple):
    """When a question may be asked.

    Args:
        taken: now, by the monotonic clock, for `Pace.slow`.
        wait: seconds until the turn: until asking is allowed again, and until those before it were
            asked.
        held: seconds of it until asking is allowed again.
    """

    taken: float
    wait: float
    held: float


class Pace:
    """Turns to ask: at once while nothing is refused, else with a gap between two calls.

    A gap and not a wait of each thread by itself: those would all ask again at the same time.

    Args:
        least, most: the first and the longest gap, in seconds.
    """

    def __init__(self, least: float, most: float):
        self._least, self._most = max(least, _LEAST), most
        self._lock = threading.Lock()
        self._gap, self._next, self._open, self._slowed = 0.0, 0.0, 0.0, 0.0

    def turn(self, most: float) -> Slot:
        """Take the next turn, unless nobody may ask for too long.

        Waiting behind others is no reason to give up: each of their turns is a call made.

        Args:
            most: seconds that `held` may be; if it is more, no turn was taken.
        """
        with self._lock:
            now = time.monotonic()
            held = max(0.0, self._open - now)
            start = max(now, self._next)
            if held <= most:
                self._next = start + self._gap
            return Slot(now, start - now, held)

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
            self._open = max(self._open, now + max(asked, self._gap))
            self._next = max(self._next, self._open)

    def ease(self) -> None:
        """A call went well: the next ones may come a little faster."""
        with self._lock:
            self._gap *= _EASE
            if self._gap < self._least / 2:
                self._gap = 0.0
