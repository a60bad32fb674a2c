"""The published data set's layout: one JSON object a line, one line a region.

{"id": ..., "image": "sa_1.jpg", "mask_id": 523353737,
 "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": ...}]}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from ureca_lib.journal import json_line, parse_line, replacing

QUESTION = "<image>\nDescribe this region in the image."  # what the model is asked by default


class RegionCaption(Protocol):
    """What a captioner gives for one region."""

    region_id: int | str
    text: str


def caption_rows(image: str, captions: Iterable[RegionCaption]) -> Iterator[dict[str, Any]]:
    """Rows of the published layout for the captions of one image.

    Args:
        image: the photo's file name, under which the masks' file has it too.
        captions: one a region; where one says whether it is `unique`, the row keeps it.
    """
    for caption in captions:
        row: dict[str, Any] = {
            "id": f"{Path(image).stem}_{caption.region_id}",
            "image": image,
            "mask_id": caption.region_id,
            "conversations": conversation(caption.text),
        }
        unique = getattr(caption, "unique", None)
        yield row if unique is None else row | {"unique": unique}


def conversation(text: str, question: str = QUESTION) -> list[dict[str, str]]:
    """The two turns of a row: what is asked, and the caption."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": text}]


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows, the whole file or nothing; returns how many.

    Raises:
        ValueError: naming the row that JSON cannot hold; NaN and infinity it cannot.
    """
    count = 0
    with replacing(path) as file:
        for row in rows:
            try:
                line = json_line(row)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}: row {count + 1} does not go into JSON ({error})"
                ) from None
            file.write(line)
            count += 1
    return count


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
