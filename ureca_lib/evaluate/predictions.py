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
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass

from ureca_lib.datasets.references import prediction_id, split_id
from ureca_lib.journal import (
    Journal,
    JournalError,
    check_same_run,
    read_journal,
    unique,
    write_json,
)

# two runs into one file must agree on these
SAME = ("system", "model", "trained_on", "data", "data_settings", "settings", "seed")
_Filled = Annotated[str, Field(min_length=1)]
# JSON has lists for tuples
_Texts = Annotated[tuple[str, ...], Field(strict=False)]
_Size = Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]


class Caption(NamedTuple):
    """A system's caption of one region.

    Attributes:
        text: may be empty.
        score: mean log-probability of its tokens, if the system has one.
        error: why there is no text.
        question: of the data set, if the system was asked that.
        instead_of, cost: see `ureca_lib.captioner.Caption`.
    """

    text: str
    score: float | None = None
    error: str | None = None
    question: str | None = None
    instead_of: str | None = None
    cost: float = 0.0


@dataclass(frozen=True, config=ConfigDict(strict=True))
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

    Raises:
        ValueError: a value of another type or range.
    """

    id: str
    image_id: _Filled
    region_id: int | _Filled
    caption: str
    references: _Texts = ()
    score: Annotated[float, Field(ge=-math.inf)] | None = None  # not NaN
    area: PositiveInt | None = None
    image_size: _Size | None = None
    level: PositiveInt | None = None
    system: str | None = None
    extra: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def error(self) -> str | None:
        """The system's reason why there is no caption."""
        return self.extra.get("error")

    def to_dict(self) -> dict[str, Any]:
        """The row of the file."""
        row = asdict(self)
        return row | row.pop("extra")

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """Check a row of a file.

        Raises:
            ValueError: naming the row's id and the column at fault.
        """
        names = {each.name for each in fields(cls)} - {"extra"}
        values = {n: value for n, value in row.items() if n in names and value is not None}
        row_id, values["extra"] = row.get("id"), {n: v for n, v in row.items() if n not in names}
        try:
            if not {"image_id", "region_id"} & values.keys():
                values["image_id"], values["region_id"] = split_id(str(row_id))
            values["id"] = prediction_id(values.get("image_id"), values.get("region_id"))
            if isinstance(row_id, str) and row_id != values["id"]:
                raise ValueError(f"the id is not that of image_id and region_id, {values['id']!r}")
            return cls(**values)
        except ValidationError as error:
            fault = error.errors()[0]
            reason = f"'{fault['loc'][0]}': {fault['msg']}"
        except ValueError as error:
            reason = str(error)
        raise ValueError(f"id {row_id}: {reason}") from None


def read_predictions(path: str | Path) -> list[Prediction]:
    """All rows of a predictions file, without half a row at the end that a kill left.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a bad row, an id that occurs twice, or no rows at all.
    """
    try:
        rows = list(read_journal(path, unique(Prediction.from_row, "id")))
    except JournalError as error:
        if Path(path).suffix != ".json":
            raise
        hint = "`ureca convert-predictions` reads the captions of other tools"
        raise ValueError(f"{error}; {hint}") from None
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


def left_out(rows: Sequence[Prediction], meta: Mapping[str, Any]) -> list[str]:
    """A sentence about the images of the data that have no prediction; empty if all have one."""
    seen, asked = len({row.image_id for row in rows}), meta.get("images")
    if not isinstance(asked, int) or seen >= asked:
        return []
    count = f"{asked - seen:,} of {asked:,} images have no captions and do not count"
    return [f"{count}: the run was stopped, or they could not be read; ureca predict resumes"]


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


def known_predictions(
    path: str | Path, meta: Mapping[str, Any], retry_failed: bool = False
) -> set[str]:
    """The ids of the rows that a run's file holds already; none if there is no file.

    Args:
        meta, retry_failed: see `PredictionWriter`.

    Raises:
        JournalError: the file is of another run, or has a bad row.
    """
    if not Path(path).is_file():
        return set()
    rows = list(read_journal(path, Prediction.from_row))
    if rows:
        check_same_run(path, read_meta(path) or None, meta, SAME)
    return {row.id for row in rows if not (retry_failed and row.error)}


class PredictionWriter(Journal[Prediction]):
    """Appends to a predictions file, and resumes it.

    Only one process may have it open. The rows of an image are added together and are on the disk
    when `add` returns.

    Args:
        path: the file, NAME.jsonl; created with its folder if there is none.
        meta: content of the record beside it. A file with rows must have the same system, model,
            data, settings and seed, so that two systems are never mixed in a file.
        retry_failed: drop the rows that have an error, so that they can be predicted again.

    Attributes:
        errors: by the id of each row in the file, why it has no caption; None if it has one.

    Raises:
        JournalError: the file is open elsewhere, is of another run, or has a bad row.
    """

    def __init__(self, path: str | Path, meta: Mapping[str, Any], retry_failed: bool = False):
        if Path(path).suffix != ".jsonl":
            raise JournalError(path, "a predictions file is called NAME.jsonl")
        super().__init__(path, unique(Prediction.from_row, "id"))
        try:
            known = read_meta(path)
            if self.rows and not known:
                beside = meta_path(path).name
                raise JournalError(path, f"the file is there without its {beside}; name another")
            if self.rows:
                check_same_run(path, known, meta, SAME)
            if retry_failed and any(row.error for row in self.rows):
                self.rows = [row for row in self.rows if not row.error]
                self.rewrite(row.to_dict() for row in self.rows)
            self.note(**meta)
        except BaseException:
            self.close()
            raise
        self.errors = {row.id: row.error for row in self.rows}

    def add(self, rows: Sequence[Prediction]) -> None:
        """Append rows, those of an image together."""
        self.append(*(row.to_dict() for row in rows))
        self.errors |= {row.id: row.error for row in rows}

    def note(self, **more: Any) -> None:
        """Add to the record beside the file."""
        write_json(meta_path(self.path), read_meta(self.path) | more)
