"""Rows of files: JSON Lines, and lists in JSON files of any size."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import ijson
from pydantic import BeforeValidator, ValidationError

from ureca_lib.journal import parse_line
from ureca_lib.regions import AnnotationFormatError, FileMissingError

MAX_DEPTH = 64  # of nested lists and objects in a JSON file
# pandas writes a column of whole numbers with a gap as floats
Whole = Annotated[
    int, BeforeValidator(lambda x: int(x) if isinstance(x, float) and x.is_integer() else x)
]


def first_reason(error: ValidationError) -> str:
    """The first fault that pydantic found, as `PLACE: reason, not VALUE`."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(map(str, fault["loc"])) or "the row"
    value = fault["input"]  # a list may hold itself over and over, and is not written out
    plain = value is None or isinstance(value, (str, int, float))
    return f"{place}: {fault['msg']}, not {reprlib.repr(value) if plain else type(value).__name__}"


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, one at a time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: naming the file and the line that is not a JSON object.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            row = parse_line(path, number, line)
            if row is not None:
                yield row


def stream_items(path: Path, prefix: str) -> Iterator[Any]:
    """Read the items of a list in a JSON file of any size, one at a time.

    Args:
        path: the file.
        prefix: "item" if the file holds a list, "images.item" for `images` of an object.

    Raises:
        FileMissingError: there is no such file.
        AnnotationFormatError: truncated, not JSON, or there is no such list; the items in the
            blocks before the fault have been yielded by then.
    """
    item = path  # stands for no item, which None would not
    try:
        with path.open("rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":  # a byte order mark
                file.seek(0)
            events = _shallow(ijson.basic_parse(file, use_float=True))
            for item in ijson.items(ijson.parse(events), prefix):
                yield item
    except FileNotFoundError:
        raise FileMissingError("the annotation file does not exist", path) from None
    except AnnotationFormatError as error:
        raise error.located(path) from None
    except (OSError, ValueError, ijson.JSONError) as error:
        reason = str(error).partition("\n")[0]
        raise AnnotationFormatError(f"the file is truncated or not JSON ({reason})", path) from None
    if item is path:
        what = prefix.removesuffix("item").strip(".") or "its items"
        raise AnnotationFormatError(f"there is no list of {what}, or it is empty", path)


def _shallow(events: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Bound the nesting: ijson keeps the path of each open list, 25 GB for 100 KB of `[`."""
    depth = 0
    for event, value in events:
        depth += event.startswith("start_") - event.startswith("end_")
        if depth > MAX_DEPTH:
            raise AnnotationFormatError(f"lists lie deeper than {MAX_DEPTH} in one another")
        yield event, value
