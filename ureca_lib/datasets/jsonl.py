"""The published data set's layout: one JSON object a line, one line a region.

{"id": ..., "image": "sa_1.jpg", "mask_id": 523353737,
 "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": ...}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def json_line(row: dict[str, Any]) -> str:
    """A row as its line, with the line's end.

    Raises:
        TypeError, ValueError: JSON or UTF-8 cannot hold it; NaN and infinity JSON cannot.
    """
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    line.encode("utf-8")
    return line + "\n"


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


def parse_line(path: str | Path, number: int, line: bytes) -> dict[str, Any] | None:
    """The row of one line, counted from 1; None where it is blank.

    Raises:
        ValueError: naming the file and the line that is not a JSON object.
    """
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        row = json.loads(text) if text.strip() else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: line {number} is not JSON ({error})") from None
    if text.strip() and not isinstance(row, dict):
        raise ValueError(f"{path}: line {number} is not a JSON object")
    return row
