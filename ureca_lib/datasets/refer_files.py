"""Referring expressions in the files of the refer API: `refs(umd).p`, `refs(google).p`, JSON.

A reference: {"ref_id", "ann_id", "image_id", "category_id", "split", "file_name", "sent_ids",
"sentences": [{"sent_id", "sent", "raw", "tokens"}]}. Its `file_name` is not that of the photo.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ureca_lib.datasets.json_stream import stream_json
from ureca_lib.datasets.plain_pickle import read_plain_pickle
from ureca_lib.journal import replacing
from ureca_lib.regions import (
    AnnotationFormatError,
    DuplicateIdError,
    FileMissingError,
    MissingKeyError,
    RegionError,
)
from ureca_lib.regions.parsing import get, need_object, optional

Partition = Literal["umd", "google"]
PARTITIONS: dict[Partition, tuple[str, ...]] = {
    "umd": ("train", "val", "test"),
    "google": ("train", "val"),
}


@dataclass(frozen=True)
class Expression:
    """A sentence that refers to an object.

    Attributes:
        sent_id: unique in the file.
        sent: lower case, without punctuation, as the refer API's evaluation compares it.
        raw: as it was written, where the file has it.
        tokens: the words of `sent`, where the file has them.
    """

    sent_id: int
    sent: str
    raw: str | None = None
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """An object and the expressions for it."""

    ref_id: int
    ann_id: int
    image_id: int
    category_id: int
    split: str
    expressions: tuple[Expression, ...]


def reference_file(folder: str | Path, partition: Partition = "umd") -> Path:
    """The file of a partition's references in a folder.

    Raises:
        ValueError: no such partition. FileMissingError: no such folder or file.
    """
    if partition not in PARTITIONS:
        raise ValueError(f"partition must be one of {', '.join(PARTITIONS)}, not {partition!r}")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileMissingError("there is no such folder", folder)
    names = [f"refs({partition}){suffix}" for suffix in (".p", ".json")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileMissingError(f"there is neither {names[0]} nor {names[1]}", folder)


def read_references(path: str | Path) -> list[Reference]:
    """All references of a file, of every split, in file order.

    Args:
        path: `refs(umd).p`, `refs(google).p`, or a JSON file of the same list.

    Raises:
        FileMissingError, AnnotationFormatError: the file; MissingKeyError, WrongTypeError,
        DuplicateIdError: a reference, naming its ref_id or place.
    """
    path = Path(path)
    if path.suffix == ".json":
        entries: Any = [item for key, item in stream_json(path) if key is None]
    else:
        entries = read_plain_pickle(path)
    if not isinstance(entries, list) or not entries:
        kind = f"a {type(entries).__name__}" if not isinstance(entries, list) else "nothing"
        raise AnnotationFormatError(f"the file holds {kind}, not a list of references", path)
    found: list[Reference] = []
    refs, sentences = set(), set()
    for index, entry in enumerate(entries):
        try:
            reference = _reference(entry)
            _new(reference.ref_id, refs, "ref_id")
            for expression in reference.expressions:
                _new(expression.sent_id, sentences, "sent_id")
        except RegionError as error:
            stated = entry.get("ref_id") if isinstance(entry, Mapping) else None
            label = f"ref_id {stated}" if isinstance(stated, int) else f"reference number {index}"
            raise type(error)(f"{label}: {error.reason}", path) from None
        found.append(reference)
    return found


def write_references_json(path: str | Path, target: str | Path) -> int:
    """Convert `refs(PARTITION).p` to JSON, the list as it is; returns how many references.

    Raises:
        RegionError: as `read_references`, before anything is written.
    """
    count = len(read_references(path))
    with replacing(target) as file:
        json.dump(read_plain_pickle(path), file, ensure_ascii=False, allow_nan=False)
    return count


def _new(value: int, seen: set[int], what: str) -> None:
    if value in seen:
        raise DuplicateIdError(f"{what} {value} is there twice")
    seen.add(value)


def _reference(entry: Any) -> Reference:
    need_object(entry)
    numbers = [get(entry, key, int) for key in ("ref_id", "ann_id", "image_id", "category_id")]
    sentences = get(entry, "sentences", list)
    if not sentences:
        raise MissingKeyError("'sentences' is empty")
    expressions = tuple(_expression(sentence) for sentence in sentences)
    stated = optional(entry, "sent_ids", list)
    if stated is not None and stated != [one.sent_id for one in expressions]:
        raise AnnotationFormatError("'sent_ids' are not those of 'sentences'")
    return Reference(*numbers, get(entry, "split", str), expressions)


def _expression(sentence: Any) -> Expression:
    need_object(sentence)
    tokens = optional(sentence, "tokens", list) or []
    sent = get(sentence, "sent", str)
    if not sent.strip():
        raise MissingKeyError("a sentence is empty")
    raw = optional(sentence, "raw", str)
    return Expression(get(sentence, "sent_id", int), sent, raw, tuple(map(str, tokens)))
