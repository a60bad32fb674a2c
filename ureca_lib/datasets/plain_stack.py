"""The stack and memo of a pickle, for plain data alone: bounded, and closed against cycles."""

from __future__ import annotations

from typing import Any

from ureca_lib.regions.errors import AnnotationFormatError

MARK = object()


class PickleRefusedError(AnnotationFormatError):
    """A pickle that is truncated, damaged, too large, or asks for more than plain data."""


class PlainStack:
    """Values on their way into containers.

    A container is closed when it is put into another, so that nothing can hold itself, and its
    depth and the number of values in it (counted as often as a walk meets them) are final then.

    Args:
        max_depth: how deep containers may lie in one another.
        max_values: how many values there may be, made or met in a walk.
    """

    def __init__(self, max_depth: int, max_values: int):
        self.max_depth, self.max_values = max_depth, max_values
        self.at = 0  # byte that the errors name
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        # of each container: itself (so that its id stays its own), depth, values in it, closed
        self.known: dict[int, list[Any]] = {}

    def wrong(self, reason: str) -> PickleRefusedError:
        """The error to raise, at the present byte."""
        return PickleRefusedError(f"byte {self.at}: {reason}")

    def pop(self) -> Any:
        """The value on top, taken off."""
        if not self.stack or self.stack[-1] is MARK:
            raise self.wrong("a value is missing; the file is damaged")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """The values above the last mark, taken off with it."""
        found = []
        while self.stack and self.stack[-1] is not MARK:
            found.append(self.stack.pop())
        if not self.stack:
            raise self.wrong("a mark is missing; the file is damaged")
        self.stack.pop()
        return found[::-1]

    def open(self, container: list | dict) -> None:
        """Push an empty container."""
        self.known[id(container)] = [container, 1, 1, False]
        self.stack.append(container)

    def top(self, kind: type) -> Any:
        """The container on top, which must be open."""
        if not self.stack or type(self.stack[-1]) is not kind:
            raise self.wrong(f"no {kind.__name__} is there to add to; the file is damaged")
        container = self.stack[-1]
        if self.known[id(container)][3]:
            raise self.wrong("a container is added to after it was put into another")
        return container

    def hold(self, parent: Any, child: Any) -> None:
        """Note that a child lies in a container; it can hold no more from here on."""
        note = self.known.get(id(child))
        depth, values = (note[1], note[2]) if note else (0, 1)
        if note:
            note[3] = True
        if child is parent:
            raise self.wrong("a container holds itself")
        mine = self.known[id(parent)]
        mine[1], mine[2] = max(mine[1], depth + 1), mine[2] + values
        if mine[1] > self.max_depth:
            raise self.wrong(f"containers lie deeper than {self.max_depth} in one another")
        if mine[2] > self.max_values:
            raise self.wrong(f"there are more than {self.max_values:,} values")

    def extend(self, parent: list, items: list[Any]) -> None:
        """Put items into a list."""
        for item in items:
            self.hold(parent, item)
            parent.append(item)

    def put(self, parent: dict, items: list[Any]) -> None:
        """Put items, keys and values by turns, into a dictionary."""
        if len(items) % 2:
            raise self.wrong("a key has no value; the file is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int, float, type(None))):
                raise self.wrong(f"a key is a {type(key).__name__}, not a text or a number")
            self.hold(parent, value)
            parent[key] = value

    def tuple(self, items: list[Any]) -> None:
        """Push a tuple of items."""
        made = tuple(items)
        if made:  # the empty tuple is one object everywhere
            self.known[id(made)] = [made, 1, 1, True]
            for item in items:
                self.hold(made, item)
        self.stack.append(made)

    def recall(self, index: int) -> None:
        """Push a value of the memo."""
        if index not in self.memo:
            raise self.wrong(f"value {index} was never noted; the file is damaged")
        self.stack.append(self.memo[index])

    def note(self, index: int) -> None:
        """Put the value on top into the memo."""
        if not self.stack or self.stack[-1] is MARK:
            raise self.wrong("a value is missing; the file is damaged")
        self.memo[index] = self.stack[-1]
