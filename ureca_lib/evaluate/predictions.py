"""Predictions files: captions of any system for the regions of any data, as JSON Lines.

    {"id": "scene_2000000/7", "image_id": "scene_2000000", "region_id": 7,
     "caption": "the blue door of the house", "references": ["the blue door of the left house"],
     "score": -0.12, "area": 512, "image_size": [448, 560], "level": 2, "system": "ureca"}

`caption` is required, and either `id` or `image_id` and `region_id`; the rest may be missing or
null, so that a system that runs elsewhere needs two columns only:

    {"id": "sa_1/523353737", "caption": "the left boot"}

An `id` is `IMAGE/REGION`: the part behind its last slash is the region's id, a number if it reads
as a number. `references` are the data's captions, or come from `ureca evaluate --refs`. `score` is
the mean log-probability of the caption's tokens, `area` the mask's pixels, `image_size` [H, W],
`level` the depth in the mask tree, 1 directly below the image. An empty caption is a prediction and
is scored. `error` says why there is none. Other keys are preserved.

`PRED.meta.json` beside `PRED.jsonl` is the record of the run: system, model and data, training
data, all settings, versions and the command. Rows are only ever appended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ureca_lib.datasets.references import prediction_id, split_id
from ureca_lib.journal import (
    Journal,
    JournalError,
    check_same_run,
    read_journal,
    unique,
    write_json,
)
from ureca_lib.mask_tree import RegionId

# two runs into one file must agree on these
_SAME = ("system", "model", "trained_on", "data", "data_settings", "settings", "seed")
_Filled = Annotated[str, Field(min_length=1)]
# JSON has lists for tuples
_Texts = Annotated[tuple[str, ...], Field(strict=False)]
_Size = Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]


def _not_nan(value: float) -> float:
    if value != value:
        raise ValueError("not a number")
    return value


_Number = Annotated[float, AfterValidator(_not_nan)]


class _Columns(BaseModel):
    """The columns of a row, as a file must have them; descriptions are for errors."""

    model_config = ConfigDict(strict=True)

    image_id: _Filled | None = Field(None, description="a text")
    region_id: int | _Filled | None = Field(None, description="a whole number or a text")
    caption: str = Field(description="a text")
    references: _Texts | None = Field(None, description="a list of texts")
    score: _Number | None = Field(None, description="a number")
    area: PositiveInt | None = Field(None, description="a whole number from 1")
    image_size: _Size | None = Field(None, description="[H, W] in pixels")
    level: PositiveInt | None = Field(None, description="a whole number from 1")
    system: str | None = Field(None, description="a text")


_NAMES = ("id", *_Columns.model_fields)  # in the order of a row


@dataclass(frozen=True)
class Caption:
    """A system's caption of one region.

    Attributes:
        text: may be empty.
        score: mean log-probability of its tokens, if the system has one.
        error: why there is no text.
        question: of the data set, if the system was asked that.
    """

    text: str
    score: float | None = None
    error: str | None = None
    question: str | None = None


@dataclass(frozen=True)
class Prediction:
    """One row of a predictions file; None for a value that the file lacks.

    Attributes:
        id: `IMAGE/REGION`.
        image_id, region_id: the parts of the id.
        caption: may be empty.
        references: captions of the data.
        score: mean log-probability of the caption's tokens.
        area: pixels of the mask. image_size: (H, W). level: depth in the mask tree, from 1.
        system: name of the system.
        extra: other keys of the row.
    """

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
        """The system's reason why there is no caption."""
        return self.extra.get("error")

    def to_dict(self) -> dict[str, Any]:
        """The row of the file."""
        row = {name: getattr(self, name) for name in _NAMES}
        size = None if self.image_size is None else list(self.image_size)
        return row | {"references": list(self.references), "image_size": size} | dict(self.extra)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """Check a row of a file.

        Raises:
            ValueError: naming the row's id and the column at fault.
        """
        row_id = row.get("id")
        try:
            columns = _checked(row)
            image_id, region_id = _region_of(columns, row_id)
            known = prediction_id(image_id, region_id)
            if isinstance(row_id, str) and row_id != known:
                raise ValueError(f"the id is not that of image_id and region_id, {known!r}")
        except ValueError as error:
            place = f"id {row_id}: " if isinstance(row_id, str) else ""
            raise ValueError(f"{place}{error}") from None
        values = columns.model_dump(exclude_none=True)
        values |= {"id": known, "image_id": image_id, "region_id": region_id}
        extra = {name: value for name, value in row.items() if name not in _NAMES}
        return cls(**values, extra=extra)


def read_predictions(path: str | Path) -> list[Prediction]:
    """All rows of a predictions file, without half a row at the end that a kill left.

    Raises:
        FileNotFoundError: no such file.
        JournalError: a bad row, an id that occurs twice, or no rows at all.
    """
    rows = list(read_journal(path, unique(Prediction.from_row, "id")))
    if not rows:
        raise JournalError(path, "there are no predictions")
    return rows


def system_of(path: Path, rows: Sequence[Prediction], meta: Mapping[str, Any]) -> str:
    """The name of the system of a predictions file, from its rows, its record, or its name.

    Raises:
        ValueError: there are several.
    """
    named = sorted({row.system for row in rows if row.system})
    if len(named) > 1:
        raise ValueError(f"{path}: captions of several systems: {', '.join(named)}")
    return named[0] if named else str(meta.get("system") or path.stem)


def meta_path(path: str | Path) -> Path:
    """The path of the record beside a predictions file."""
    path = Path(path)
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.meta.json")


def read_meta(path: str | Path) -> dict[str, Any]:
    """The content of `PRED.meta.json` for `PRED.jsonl`; empty if there is none.

    Raises:
        JournalError: it is not a JSON object.
    """
    beside = meta_path(path)
    if not beside.is_file():
        return {}
    try:
        return {**json.loads(beside.read_text(encoding="utf-8"))}
    except (ValueError, TypeError) as error:
        raise JournalError(beside, f"not a JSON object ({error})") from None


class PredictionWriter:
    """Appends to a predictions file, and resumes it.

    Only one process may have it open. The rows of an image are added together and are on the disk
    when `add` returns.

    Args:
        path: the file, NAME.jsonl; created with its folder if there is none.
        meta: content of the record beside it. A file with rows must have the same system, model,
            data, settings and seed, so that two systems are never mixed in a file.
        retry_failed: drop the rows that have an error, so that they can be predicted again.

    Attributes:
        ids: of the rows in the file. errors: reasons of those without a caption, by id.

    Raises:
        JournalError: the file is open elsewhere, is of another run, or has a bad row.
    """

    def __init__(self, path: str | Path, meta: Mapping[str, Any], retry_failed: bool = False):
        self.path = Path(path)
        if self.path.suffix != ".jsonl":
            raise JournalError(self.path, "a predictions file is called NAME.jsonl")
        self._journal = Journal(self.path, unique(Prediction.from_row, "id"))
        try:
            rows = self._journal.rows
            known = read_meta(self.path)
            if rows and not known:
                beside = meta_path(self.path).name
                reason = f"the file is there without its {beside}; name another file"
                raise JournalError(self.path, reason)
            if rows:
                check_same_run(self.path, known, meta, _SAME)
            if retry_failed and any(row.error for row in rows):
                rows = [row for row in rows if not row.error]
                self._journal.rewrite(row.to_dict() for row in rows)
            self.note(**meta)
        except BaseException:
            self.close()
            raise
        self.ids = {row.id for row in rows}
        self.errors = {row.id: row.error for row in rows if row.error}

    def add(self, rows: Sequence[Prediction]) -> None:
        """Append rows, those of an image together.

        Raises:
            JournalError: an id that the file has.
        """
        for row in rows:
            if row.id in self.ids:
                raise JournalError(self.path, f"id {row.id}: the id is there already")
            self.ids.add(row.id)
            if row.error:
                self.errors[row.id] = row.error
        self._journal.append(*(row.to_dict() for row in rows))

    def note(self, **more: Any) -> None:
        """Add to the record beside the file."""
        write_json(meta_path(self.path), read_meta(self.path) | more)

    def close(self) -> None:
        """Close the file and let other processes open it."""
        self._journal.close()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _checked(row: Mapping[str, Any]) -> _Columns:
    try:
        return _Columns.model_validate(row)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        needed = _Columns.model_fields[name].description
        raise ValueError(f"'{name}' is {needed}, not {_short(row.get(name))}") from None


def _region_of(columns: _Columns, row_id: Any) -> tuple[str, RegionId]:
    """Image and region of a row, from its own columns or from its id."""
    image_id, region_id = columns.image_id, columns.region_id
    if image_id is None and region_id is None:
        if not isinstance(row_id, str):
            raise ValueError(f"'id' is a text IMAGE/REGION, not {_short(row_id)}")
        return split_id(row_id)
    for name in ("image_id", "region_id"):
        if getattr(columns, name) is None:
            raise ValueError(f"'{name}' is {_Columns.model_fields[name].description}, not None")
    return image_id, region_id


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
