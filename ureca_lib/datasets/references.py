"""References from files or data sets, as `ureca evaluate --refs` takes them.

| file | reference of |
|---|---|
| JSON `{"IMAGE/REGION": "text" or ["text", ...]}` | each id |
| JSONL `{"id": "IMAGE/REGION", "references": ["text", ...]}`, such as predictions | each line |
| JSONL of the published layout, or of `ureca export` | image, as predicted, and `mask_id` |
| any text that `open_captioned` takes, such as `scenes:test:500` | each region with a caption |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ureca_lib.datasets.captioned import CaptionedError, open_captioned
from ureca_lib.datasets.jsonl import read_jsonl
from ureca_lib.datasets.published import published_keys
from ureca_lib.mask_tree import RegionId

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
        pairs = _of_json(path)
    elif path.suffix == ".jsonl" and path.is_file():
        pairs = _of_jsonl(path)
    else:
        pairs = (
            (prediction_id(image.image_id, region_id), texts)
            for image in open_captioned(source)
            for region_id, texts in image.captions.items()
        )
    found: References = {}
    for key, texts in pairs:
        try:
            split_id(key)
        except ValueError as error:
            raise CaptionedError(f"{path}: {error}") from None
        found.setdefault(key, []).extend(texts)
    if not found:
        raise CaptionedError(f"{source}: there are no references")
    return found


def _of_json(path: Path) -> Iterable[tuple[str, list[str]]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CaptionedError(f"{path}: truncated or not JSON ({error})") from None
    if not isinstance(document, dict):
        raise CaptionedError(f"{path}: references are an object {{id: texts}}")
    return [(key, _texts(value, f"{path}: id {key}")) for key, value in document.items()]


def _of_jsonl(path: Path) -> Iterable[tuple[str, list[str]]]:
    rows = list(read_jsonl(path))
    published = [names for row in rows if "conversations" in row and (names := _names(row))]
    keys = published_keys(published)
    for number, row in enumerate(rows, 1):
        place = f"{path}: row {number}"
        try:
            yield _published(row, keys, place) if "conversations" in row else _plain(row, place)
        except CaptionedError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise CaptionedError(f"{place}: {type(error).__name__}: {error}") from None


def _names(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return photo and masks of a published row; None if the row is at fault."""
    photo, masks = row.get("image"), row.get("masks")
    if not isinstance(photo, str) or not isinstance(masks, str | None):
        return None
    return photo, masks or PurePosixPath(photo).with_suffix(".json").as_posix()


def _published(
    row: Mapping[str, Any], keys: Mapping[tuple[str, str], str], place: str
) -> tuple[str, list[str]]:
    turns = [turn["value"] for turn in row["conversations"] if turn["from"] == "gpt"]
    if (names := _names(row)) is None:
        raise CaptionedError(f"{place}: 'image', and 'masks' if there, are file names")
    return prediction_id(keys[names], row["mask_id"]), _texts(turns, place)


def _plain(row: Mapping[str, Any], place: str) -> tuple[str, list[str]]:
    texts, row_id = row.get("references", row.get("caption")), row.get("id")
    if row_id is None and "image_id" in row and "region_id" in row:
        row_id = prediction_id(row["image_id"], row["region_id"])
    if not isinstance(row_id, str):
        raise CaptionedError(f"{place}: 'id' is a text IMAGE/REGION, not {row_id!r}")
    return row_id, _texts(texts, f"{place}: id {row_id}")


def _texts(value: Any, place: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    good = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    if not good or not any(text.strip() for text in texts):
        raise CaptionedError(f"{place}: references are texts that are not all empty")
    return [text for text in texts if text.strip()]
