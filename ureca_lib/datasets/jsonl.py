"""The published data set's layout: one JSON object a line, one line a region.

{"id": ..., "image": "sa_1.jpg", "mask_id": 523353737,
 "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": ...}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ureca_lib.journal import parse_line


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
