"""References from files: what `ureca evaluate --refs` reads, and how predictions meet them.

| file | reference of |
|---|---|
| JSON `{"IMAGE/REGION": "text" or ["text", ...]}` | each id |
| JSONL `{"id": "IMAGE/REGION", "references": ["text", ...]}`, such as predictions | each line |
| JSONL of the published layout, or of `ureca export` | image, as predicted, and `mask_id` |
| anything that `open_captioned` opens, such as `scenes:test:500` | each region with a caption |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.datasets.jsonl import read_jsonl
from ureca_lib.datasets.published import published_keys
from ureca_lib.evaluate.predictions import Prediction, prediction_id, split_id

References = dict[str, list[str]]
MISSING = "missing"  # marks rows that stand for references without a prediction
_SHOWN = 5  # ids that a message names


class ReferencesError(ValueError):
    """A file of references that cannot be used, naming the file and the id or line."""


@dataclass(frozen=True)
class Coverage:
    """How predictions and references meet.

    Attributes:
        scored: predictions with references.
        missing: ids of references without a prediction; they are scored as empty captions.
        surplus: ids of predictions without a reference; metrics with references leave them out.
    """

    scored: int
    missing: tuple[str, ...]
    surplus: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the first ids, as JSON can hold them."""
        told: dict[str, Any] = {"scored": self.scored}
        for name in ("missing", "surplus"):
            ids = getattr(self, name)
            told |= {name: len(ids), f"first_{name}": list(ids[:_SHOWN])}
        return told

    def messages(self) -> list[str]:
        """One sentence for each kind of trouble."""
        kinds = {
            "missing": "references have no prediction and score as empty captions",
            "surplus": "predictions have no reference and are left out",
        }
        found = []
        for name, what in kinds.items():
            if ids := getattr(self, name):
                more = ", ..." if len(ids) > _SHOWN else ""
                found.append(f"{len(ids):,} {what}: {', '.join(ids[:_SHOWN])}{more}")
        return found


def read_references(source: str | Path) -> References:
    """References by id; see the module for what `source` may be.

    Raises:
        FileNotFoundError, ValueError: naming the file and the id or line at fault.
    """
    path = Path(source)
    if path.suffix == ".json" and path.is_file():
        return _of_json(path)
    if path.suffix == ".jsonl" and path.is_file():
        return _of_jsonl(path)
    found: References = {}
    for image in open_captioned(source):
        for region_id, texts in image.captions.items():
            found[prediction_id(image.image_id, region_id)] = texts
    if not found:
        raise ReferencesError(f"{source}: there are no captions")
    return found


def with_references(
    predictions: Iterable[Prediction], references: Mapping[str, list[str]] | None = None
) -> tuple[list[Prediction], Coverage]:
    """Predictions with the references that they are scored against.

    Args:
        predictions: of one system.
        references: instead of those in the predictions' file; None keeps these.

    Returns:
        All predictions, those of missing ids, with an empty caption, last; and the coverage.

    Raises:
        ReferencesError: no prediction has the id of a reference: they are named otherwise.
    """
    rows = list(predictions)
    if references is None:
        surplus = tuple(row.id for row in rows if not row.references)
        return rows, Coverage(len(rows) - len(surplus), (), surplus)
    found = [replace(row, references=tuple(references.get(row.id, ()))) for row in rows]
    ids = {row.id for row in rows}
    if rows and references.keys().isdisjoint(ids):
        other = next(iter(references), None)
        raise ReferencesError(
            f"no prediction has the id of a reference: {rows[0].id!r} is one of the predictions, "
            f"{other!r} of the references"
        )
    missing = [one for one in references if one not in ids]
    found += [
        Prediction(one, *split_id(one), "", tuple(references[one]), extra={MISSING: True})
        for one in missing
    ]
    surplus = tuple(row.id for row in found if not row.references)
    return found, Coverage(len(rows) - len(surplus), tuple(missing), surplus)


def _of_json(path: Path) -> References:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ReferencesError(f"{path}: truncated or not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ReferencesError(f"{path}: references are an object {{id: texts}}")
    found = {key: _texts(value, f"{path}: id {key}") for key, value in document.items()}
    return _checked(found.items(), path)


def _of_jsonl(path: Path) -> References:
    rows = list(read_jsonl(path))
    published = [row for row in rows if "conversations" in row]
    keys = published_keys(name for row in published if (name := _names(row)) is not None)
    pairs: list[tuple[str, list[str]]] = []
    for number, row in enumerate(rows, 1):
        place = f"{path}: row {number}"
        try:
            of_row = _published(row, keys, place) if "conversations" in row else _plain(row, place)
            pairs.append(of_row)
        except (LookupError, TypeError, ValueError) as error:
            if isinstance(error, ReferencesError):
                raise
            raise ReferencesError(f"{place}: {type(error).__name__}: {error}") from None
    return _checked(pairs, path)


def _names(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Photo and masks of a published row; None where the row is at fault."""
    photo, masks = row.get("image"), row.get("masks")
    if not isinstance(photo, str) or not isinstance(masks, str | None):
        return None
    return photo, masks or PurePosixPath(photo).with_suffix(".json").as_posix()


def _published(
    row: Mapping[str, Any], keys: Mapping[tuple[str, str], str], place: str
) -> tuple[str, list[str]]:
    turns = [turn["value"] for turn in row["conversations"] if turn["from"] == "gpt"]
    if (names := _names(row)) is None:
        raise ReferencesError(f"{place}: 'image', and 'masks' if there, are file names")
    return prediction_id(keys[names], row["mask_id"]), _texts(turns, place)


def _plain(row: Mapping[str, Any], place: str) -> tuple[str, list[str]]:
    texts = row.get("references", row.get("caption"))
    row_id = row.get("id")
    if row_id is None and "image_id" in row and "region_id" in row:
        row_id = prediction_id(row["image_id"], row["region_id"])
    if not isinstance(row_id, str):
        raise ReferencesError(f"{place}: 'id' is a text IMAGE/REGION, not {row_id!r}")
    return row_id, _texts(texts, f"{place}: id {row_id}")


def _checked(pairs: Iterable[tuple[str, list[str]]], path: Path) -> References:
    found: References = {}
    for key, texts in pairs:
        try:
            split_id(key)
        except ValueError as error:
            raise ReferencesError(f"{path}: {error}") from None
        found.setdefault(key, []).extend(texts)
    if not found:
        raise ReferencesError(f"{path}: there are no references")
    return found


def _texts(value: Any, place: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    good = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    if not good or not any(text.strip() for text in texts):
        raise ReferencesError(f"{place}: references are texts that are not all empty")
    return [text for text in texts if text.strip()]
