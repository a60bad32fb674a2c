"""References from files or data sets, as `ureca evaluate --refs` takes them.

| file | reference of |
|---|---|
| JSON `{"IMAGE/REGION": "text" or ["text", ...]}` | each id |
| JSONL `{"id": "IMAGE/REGION", "references": ["text", ...]}`, such as predictions | each line |
| JSONL of the published layout, or of `ureca export` | image, as predicted, and `mask_id` |
| any text that `open_captioned` takes, such as `scenes:test:500` | each region with a caption |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ureca_lib.datasets.captioned import CaptionedError, open_captioned
from ureca_lib.datasets.published import PublishedRow, published_keys
from ureca_lib.datasets.rows import first_reason, read_jsonl
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions.sa1b import read_json

References = dict[str, list[str]]
_NUMBER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)


def prediction_id(image_id: str, region_id: RegionId) -> str:
    """Return the id of a region in files of references and predictions: `IMAGE/REGION`."""
    return f"{image_id}/{region_id}"


def split_id(text: str) -> tuple[str, RegionId]:
    """Split an id into image and region; a region's id that reads as a number is one.

    Raises:
        ValueError: there is no slash with something on both sides.
    """
    image_id, _, region = text.rpartition("/")
    if not image_id or not region:
        raise ValueError(f"an id is IMAGE/REGION, not {text!r}")
    return image_id, int(region) if _NUMBER.fullmatch(region) else region


def read_references(source: str | Path) -> References:
    """Read references by id; see the module for the forms of `source`.

    Raises:
        FileNotFoundError, ValueError: naming the file and the id or line at fault.
    """
    path = Path(source)
    if path.suffix == ".json" and path.is_file():
        rows: Iterable[tuple[str, Any]] = read_json(path).items()
    elif path.suffix == ".jsonl" and path.is_file():
        rows = _of_jsonl(path)
    else:
        rows = (
            (prediction_id(image.image_id, region_id), texts)
            for image in open_captioned(source)
            for region_id, texts in image.captions.items()
        )
    found: References = {}
    for key, value in rows:
        texts = [value] if isinstance(value, str) else value
        good = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        filled = [text for text in texts if text.strip()] if good else []
        try:
            split_id(key)
            if not filled:
                raise ValueError(f"id {key}: references are texts that are not all empty")
        except ValueError as error:
            raise CaptionedError(f"{path}: {error}") from None
        found.setdefault(key, []).extend(filled)
    if not found:
        raise CaptionedError(f"{source}: there are no references")
    return found


def _of_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    rows = list(enumerate(read_jsonl(path), 1))
    published: dict[int, PublishedRow] = {}
    for number, row in rows:
        if "conversations" in row:
            try:
                published[number] = PublishedRow.model_validate(row)
            except ValidationError as error:
                reason = first_reason(error)
                raise CaptionedError(f"{path}: row {number}: {reason}") from None
    keys = published_keys((row.image, row.masks) for row in published.values())
    for number, row in rows:
        if known := published.get(number):
            key = keys[known.image, known.masks]
            yield prediction_id(key, known.mask_id), known.said("gpt")
            continue
        row_id = row.get("id")
        if row_id is None and {"image_id", "region_id"} <= row.keys():
            row_id = prediction_id(row["image_id"], row["region_id"])
        if not isinstance(row_id, str):
            raise CaptionedError(f"{path}: row {number}: id {row_id}: an id is a text IMAGE/REGION")
        yield row_id, row.get("references", row.get("caption"))
