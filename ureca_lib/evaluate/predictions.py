"""Predictions files: what any system said of the regions of any data, one JSON object a line.

    {"id": "scene_2000000/7", "image_id": "scene_2000000", "region_id": 7,
     "caption": "the blue door of the house", "references": ["the blue door of the left house"],
     "score": -0.12, "area": 512, "image_size": [448, 560], "level": 2, "system": "ureca"}

`caption` and either `id` or `image_id` and `region_id` are needed; all else may be missing or null,
so that a system that runs elsewhere needs two columns only:

    {"id": "sa_1/523353737", "caption": "the left boot"}

An `id` is `IMAGE/REGION`: what stands behind its last slash is the region's id, a number where it
reads as one. `references` are the data's captions, or come from `ureca evaluate --refs`. `score` is
the mean log-probability of the caption's tokens, `area` the mask's pixels, `image_size` [H, W],
`level` the depth in the mask tree, 1 for those right below the image. An empty caption is a
prediction, and scores as one. `error` says why there is none. Other keys are kept.

Beside `PRED.jsonl` lies `PRED.meta.json`: which system, model and data, what it was trained on, all
settings, versions and the command. Lines are only ever appended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ureca_lib.datasets.jsonl import parse_line
from ureca_lib.datasets.references import prediction_id, split_id
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions.rle import is_whole

_FIELDS = ("id", "image_id", "region_id", "caption", "references", "score", "area")
_FIELDS = (*_FIELDS, "image_size", "level", "system")


class PredictionError(ValueError):
    """A predictions file, or a row of it, that is not as described in the module.

    Args:
        reason: what is wrong, in one sentence.
        file: the predictions file. line: in it, from 1. row_id: what the row says its id is.
    """

    def __init__(
        self,
        reason: str,
        file: str | Path,
        line: int | None = None,
        row_id: str | None = None,
    ):
        self.reason, self.file, self.line, self.row_id = reason, str(file), line, row_id
        place = [str(file), f"line {line}" if line else "", f"id {row_id}" if row_id else ""]
        super().__init__(": ".join([*filter(None, place), reason]))


@dataclass(frozen=True)
class Prediction:
    """One row of a predictions file; None where the file does not say."""

    id: str
    image_id: str
    region_id: RegionId
    caption: str
    references: tuple[str, ...] = ()
    score: float | None = None
    area: int | None = None
    image_size: tuple[int, int] | None = None
    level: int | None = None
    system: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str | None:
        """Why there is no caption, where the system said it."""
        return self.extra.get("error")

    def to_dict(self) -> dict[str, Any]:
        """The row, as it goes into the file."""
        row = {name: getattr(self, name) for name in _FIELDS}
        size = None if self.image_size is None else list(self.image_size)
        return row | {"references": list(self.references), "image_size": size} | dict(self.extra)


def read_predictions(path: str | Path) -> list[Prediction]:
    """All rows of a predictions file.

    A last line that was cut off by a kill has no end and is not a row.

    Raises:
        FileNotFoundError: no such file.
        PredictionError: a row at fault, an id that is there twice, or no rows at all.
    """
    file, found = Path(path), {}
    for number, line, _ in lines_of(file):
        try:
            row = parse_line(file, number, line)
        except ValueError as error:
            reason = str(error).removeprefix(f"{file}: line {number} ")
            raise PredictionError(f"the line {reason}", file, number) from None
        if row is None:
            continue
        one = _checked(row, file, number)
        if one.id in found:
            raise PredictionError("the id is there twice", file, number, one.id)
        found[one.id] = one
    if not found:
        raise PredictionError("there are no predictions", file)
    return list(found.values())


def read_meta(path: str | Path) -> dict[str, Any]:
    """What `PRED.meta.json` says of `PRED.jsonl`; empty where there is none.

    Raises:
        PredictionError: it is no JSON object.
    """
    beside = meta_path(path)
    if not beside.is_file():
        return {}
    try:
        meta = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PredictionError(f"not JSON ({error})", beside) from None
    if not isinstance(meta, dict):
        raise PredictionError("not a JSON object", beside)
    return meta


def meta_path(path: str | Path) -> Path:
    """Where the record beside a predictions file is."""
    path = Path(path)
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.meta.json")


def lines_of(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Number from 1, text and offset of each line that has an end or is whole JSON without one."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n") or _is_whole(line):
                yield number, line, offset
            offset += len(line)


def _is_whole(line: bytes) -> bool:
    """Whether a line without an end is a row all the same, as an editor may leave it."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _checked(row: dict[str, Any], file: Path, line: int) -> Prediction:
    row_id = row.get("id")
    named = row_id if isinstance(row_id, str) else None
    try:
        image_id, region_id = _place(row)
        known = prediction_id(image_id, region_id)
        if named is not None and named != known:
            raise ValueError(f"the id is not that of image_id and region_id, {known!r}")
        fields = {name: _CHECKS[name](row[name]) for name in _CHECKS if row.get(name) is not None}
        if not isinstance(row.get("caption"), str):
            raise ValueError(f"'caption' is a text, not {_short(row.get('caption'))}")
    except ValueError as error:
        raise PredictionError(str(error), file, line, named) from None
    extra = {name: value for name, value in row.items() if name not in _FIELDS}
    return Prediction(known, image_id, region_id, row["caption"], **fields, extra=extra)


def _place(row: dict[str, Any]) -> tuple[str, RegionId]:
    """Image and region of a row, from its own columns or from its id."""
    image_id, region_id = row.get("image_id"), row.get("region_id")
    if image_id is None and region_id is None:
        if not isinstance(row.get("id"), str):
            raise ValueError(f"'id' is a text IMAGE/REGION, not {_short(row.get('id'))}")
        return split_id(row["id"])
    if not isinstance(image_id, str) or not image_id:
        raise ValueError(f"'image_id' is a text, not {_short(image_id)}")
    if not is_whole(region_id) and not (isinstance(region_id, str) and region_id):
        raise ValueError(f"'region_id' is a whole number or a text, not {_short(region_id)}")
    return image_id, region_id


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"'references' is a list of texts, not {_short(value)}")
    return tuple(value)


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ValueError(f"'score' is a number, not {_short(value)}")
    return float(value)


def _count(name: str, least: int) -> Any:
    def check(value: Any) -> int:
        if not is_whole(value) or value < least:
            raise ValueError(f"'{name}' is a whole number from {least}, not {_short(value)}")
        return value

    return check


def _size(value: Any) -> tuple[int, int]:
    good = isinstance(value, list) and len(value) == 2
    if not good or not all(is_whole(side) and side > 0 for side in value):
        raise ValueError(f"'image_size' is [H, W] in pixels, not {_short(value)}")
    return value[0], value[1]


def _system(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"'system' is a text, not {_short(value)}")
    return value


_CHECKS = {
    "references": _texts,
    "score": _score,
    "area": _count("area", 1),
    "image_size": _size,
    "level": _count("level", 1),
    "system": _system,
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
