"""Large JSON files, entry by entry, in the memory that the largest entry takes.

Visual Genome's `region_descriptions.json` has 700 MB in one array, and RefCOCOg's `instances.json`
over a hundred in three. The standard library's decoder reads each entry; this module only finds
where one ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ureca_lib.regions.errors import AnnotationFormatError, FileMissingError

CHUNK = 2**20  # characters
MAX_ENTRY = 2**26  # characters of one entry
_NEAR_END = 16  # characters from the end, where a number or an escape may be cut in two
_UNFINISHED = ("", *".eE+-0123456789")
_DECODER = json.JSONDecoder()


def stream_json(
    path: str | Path, chunk: int = CHUNK, max_entry: int = MAX_ENTRY
) -> Iterator[tuple[str | None, Any]]:
    """The entries of a JSON file.

    Args:
        path: a file that holds an array or an object.
        chunk: characters read at a time.
        max_entry: the longest entry read, in characters.

    Yields:
        Of an array (None, item) for each item. Of an object (key, item) for each item of a value
        that is an array, and (key, value) for every other value.

    Raises:
        FileMissingError: there is no such file.
        AnnotationFormatError: truncated, not JSON, not text, or an entry that is too long; the
            entries before the fault have been yielded by then.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _entries(_Source(file, chunk, max_entry))
    except FileNotFoundError:
        raise FileMissingError("the annotation file does not exist", path) from None
    except UnicodeDecodeError:
        raise AnnotationFormatError("the file is not text", path) from None
    except OSError as error:
        raise AnnotationFormatError(f"the file cannot be read ({error})", path) from None
    except RecursionError:
        raise AnnotationFormatError("the file's lists lie too deep in one another", path) from None
    except AnnotationFormatError as error:
        raise error.located(path) from None


class _Source:
    """Text that is read on as it is needed, and how far it has been taken."""

    def __init__(self, file: TextIO, chunk: int, max_entry: int):
        self.file, self.chunk, self.max_entry = file, chunk, max_entry
        self.text, self.place, self.before, self.ended = "", 0, 0, False

    def more(self) -> None:
        left = len(self.text) - self.place
        if left > self.max_entry:
            raise self.wrong(f"an entry is longer than {self.max_entry:,} characters")
        # as much again as is held, so that a long entry is not decoded time after time
        read = self.file.read(max(self.chunk, left))
        self.ended = not read
        self.before += self.place
        self.text, self.place = self.text[self.place :] + read, 0

    def wrong(self, reason: str) -> AnnotationFormatError:
        return AnnotationFormatError(f"character {self.before + self.place}: {reason}")

    def peek(self) -> str:
        """The next character that is no space, or "" at the end."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in " \t\r\n":
                self.place += 1
            if self.place < len(self.text) or self.ended:
                return self.text[self.place : self.place + 1]
            self.more()

    def expect(self, characters: str) -> str:
        found = self.peek()
        if not found:
            raise self.wrong("the file is truncated")
        if found not in characters:
            wanted = " or ".join(repr(each) for each in characters)
            raise self.wrong(f"the file is not JSON: {found!r} where {wanted} should be")
        self.place += 1
        return found

    def value(self) -> Any:
        if not self.peek():
            raise self.wrong("the file is truncated")
        while True:
            try:
                found, end = _DECODER.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated")
                cut = cut or error.pos >= len(self.text) - _NEAR_END
                if not cut or self.ended:
                    what = "truncated" if cut else f"not JSON ({error.msg})"
                    raise self.wrong(f"the file is {what}") from None
            except ValueError as error:  # endless numbers
                raise self.wrong(f"the file is not JSON ({error})") from None
            else:
                # a bracket has to follow, and a number may go on
                if self.text[end : end + 1] not in _UNFINISHED:
                    self.place = end
                    return found
                if self.ended or end + _NEAR_END < len(self.text):
                    what = "truncated" if self.ended else "not JSON: an entry does not end"
                    raise self.wrong(f"the file is {what}")
            self.more()


def _entries(source: _Source) -> Iterator[tuple[str | None, Any]]:
    if source.expect("[{") == "[":
        yield from ((None, item) for item in _items(source))
    elif source.peek() == "}":
        source.expect("}")
    else:
        yield from _members(source)
    if source.peek():
        raise source.wrong("something follows the end of the JSON")


def _items(source: _Source) -> Iterator[Any]:
    """The items of an array whose bracket has been taken."""
    if source.peek() == "]":
        source.expect("]")
        return
    while True:
        yield source.value()
        if source.expect(",]") == "]":
            return


def _members(source: _Source) -> Iterator[tuple[str, Any]]:
    while True:
        if source.peek() not in ('"', ""):
            raise source.wrong("the file is not JSON: a key should be here")
        key = source.value()
        source.expect(":")
        if source.peek() == "[":
            source.expect("[")
            for item in _items(source):
                yield key, item
        else:
            yield key, source.value()
        if source.expect(",}") == "}":
            return
