"""The published data set's layout: one JSON object a line, one line a region.

{"id": ..., "image": "sa_1.jpg", "mask_id": 523353737,
 "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": ...}]}
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from ureca_lib.journal import parse_line

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
