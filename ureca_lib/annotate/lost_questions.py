"""When a run ends because nobody answers."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from ureca_lib.annotate.protocol import AnnotatorUnavailableError
from ureca_lib.annotate.run import counted

_REFUSED_IMAGES = 3  # as many must be refused before it is said that all are


class LostQuestions:
    """Counts questions in a row that got no reply; threads may share it.

    A server may refuse all questions about one photo, as a content filter does, and answer those
    about the next. So refusals count only where they are of several images.

    Args:
        most: how many end the run: nothing is wrong with so many questions, but with who is asked.
    """

    def __init__(self, most: int):
        self._most, self._lock = most, threading.Lock()
        self._lost, self._refused, self._images = 0, 0, set[Hashable]()

    def add(self, message: str, image: Hashable = None) -> None:
        """Count one.

        Args:
            message: what went wrong.
            image: stands for the image, where the question was refused; None where it was lost.

        Raises:
            AnnotatorUnavailableError: with the message, where it is one too many.
        """
        with self._lock:
            if image is None:
                self._lost += 1
            else:
                self._refused += 1
                self._images.add(image)
            several = len(self._images) >= _REFUSED_IMAGES
            count = self._lost + self._refused * several
        if count >= self._most:
            lost = counted(count, "question")
            raise AnnotatorUnavailableError(f"{lost} in a row got no reply; the last: {message}")

    def end(self) -> None:
        """A question got a reply."""
        with self._lock:
            self._lost = self._refused = 0
            self._images.clear()
