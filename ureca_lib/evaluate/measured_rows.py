"""Rows of the tables from the records that `ureca evaluate` and `ureca uniqueness` write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ureca_lib.evaluate.published_numbers import TABLE_6
from ureca_lib.evaluate.tables import (
    NOT_SAID,
    PERCENT,
    Cell,
    Record,
    Row,
    Source,
    Table,
    TableError,
    paper_table,
)
from ureca_lib.provenance import command_text, display_path

# shown beside the paper's columns where they were measured; the last two are better when low
OURS = {
    "cider": "CIDEr",
    "recall_at_1": "Recall at 1",
    "look_alike_recall_at_1": "among look-alikes",
    "unique": "Unique",
    "exact_match": "Exact",
    "collision_equal": "Equal captions",
    "collision_near": "Nearly equal",
}
_REASONS = {"clair": "CLAIR needs a judge, and none was asked"}
BENCHMARKS = tuple(TABLE_6.columns)


def read_record(path: str | Path) -> dict[str, Any]:
    """A record that `ureca evaluate` or `ureca uniqueness` wrote.

    Raises:
        FileNotFoundError: no such file. TableError: it is no such record.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise TableError(f"{path}: not JSON ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("system"), str):
        raise TableError(f"{path}: no record of scores, it names no system")
    if not dict(_scores(record)):
        raise TableError(f"{path}: no record of scores, it holds none")
    return record


def _scores(record: Record) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Scores by key, wherever in the record they are."""
    exact = record.get("exact") or {}
    for part in (record.get("metrics"), exact.get("overall"), record.get("overall")):
        for key, score in (part or {}).items():
            if isinstance(score, Mapping) and "value" in score:
                yield key, score


def measured_row(
    records: Sequence[Record], columns: Sequence[str], system: str | None = None
) -> Row:
    """One system's row from the records of one predictions file.

    Args:
        records: of `ureca evaluate`, `ureca uniqueness`, or both.
        columns: keys of scores; one that was not measured gets a dash and the reason.
        system: name in the table; None is the records' own.

    Raises:
        TableError: records of several systems or predictions files, or none.
    """
    first = _same(records)
    scores = {key: score for record in records for key, score in _scores(record)}
    cells = {key: _cell(key, scores.get(key), first) for key in columns}
    return _row(system or first["system"], [first], cells)


def zero_shot_row(records: Mapping[str, Record], system: str | None = None) -> Row:
    """A row of Table 6: METEOR on each benchmark, a predictions file each.

    Args:
        records: by "refcocog" and "visual_genome", of `ureca evaluate`; one may be missing.
        system: name in the table; None is the records' own.

    Raises:
        TableError: another benchmark, several systems, or none.
    """
    if unknown := sorted(set(records) - set(BENCHMARKS)):
        raise TableError(f"benchmarks are {', '.join(BENCHMARKS)}, not {unknown[0]}")
    systems = sorted({record["system"] for record in records.values()})
    if len(systems) != 1:
        raise TableError(f"a row is of one system, not of {', '.join(systems) or 'none'}")
    any_record = next(iter(records.values()))
    cells = {}
    for key in BENCHMARKS:
        record = records.get(key)
        score = None if record is None else dict(_scores(record)).get("meteor")
        cells[key] = _cell("meteor" if record else key, score, record or any_record)
    return _row(system or systems[0], list(records.values()), cells)


def table_with(number: int, records: Sequence[Record], ours: bool = True) -> Table:
    """Table 2, 3, 4 or 5 with a row for each predictions file.

    Args:
        number: of the table.
        records: of any systems; those of one predictions file make one row.
        ours: whether uniqueness and exact match get columns, where a record has them.

    Raises:
        TableError: Table 6, whose rows have two files each (`zero_shot_row`), or bad records.
    """
    table = paper_table(number)
    if number == TABLE_6.number:
        raise TableError("Table 6 has a column for each benchmark: say which record is of which")
    files: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        files.setdefault((record["system"], str(_identity(record))), []).append(record)
    known = {key for record in records for key, _ in _scores(record)}
    extra = {key: label for key, label in OURS.items() if ours and key in known}
    wanted = [*table.columns, *extra]
    return table.with_rows([measured_row(each, wanted) for each in files.values()], extra)


def read_tables(number: int, files: Sequence[str], ours: bool = True) -> Table:
    """A table with a row for each predictions file, from records on disk.

    Args:
        number: of the table.
        files: records; for Table 6 `refcocog=FILE` and `visual_genome=FILE`, those of one system
            in one row.
        ours: see `table_with`.

    Raises:
        FileNotFoundError: no such file. TableError: a file that is no record, or says not of
            which benchmark it is.
    """
    if number != TABLE_6.number:
        return table_with(number, [read_record(file) for file in files], ours)
    systems: dict[str, dict[str, Record]] = {}
    for file in files:
        benchmark, separator, path = file.partition("=")
        if not separator or benchmark not in BENCHMARKS:
            raise TableError(f"{file}: for Table 6 say {' or '.join(BENCHMARKS)}=FILE")
        record = read_record(path)
        columns = systems.setdefault(record["system"], {})
        if benchmark in columns:
            raise TableError(f"{file}: a second record of {record['system']} on {benchmark}")
        columns[benchmark] = record
    return paper_table(number).with_rows([zero_shot_row(each) for each in systems.values()])


def _identity(record: Record) -> Any:
    return record.get("sha256") or record.get("predictions")


def _same(records: Sequence[Record]) -> Record:
    if not records:
        raise TableError("a measured row needs a record of scores")
    first = records[0]
    for record in records[1:]:
        if record["system"] != first["system"] or _identity(record) != _identity(first):
            raise TableError(
                f"records of different predictions: {first['system']} ({first.get('predictions')}) "
                f"and {record['system']} ({record.get('predictions')})"
            )
    return first


def _row(system: str, records: Sequence[Record], cells: Mapping[str, Cell]) -> Row:
    metas = [record.get("meta") or {} for record in records]
    trained = list(dict.fromkeys(str(meta.get("trained_on") or NOT_SAID) for meta in metas))
    data = list(dict.fromkeys(str(meta.get("data") or NOT_SAID) for meta in metas))
    return Row(system, "measured", "; ".join(trained), "; ".join(data), cells)


def _cell(key: str, score: Mapping[str, Any] | None, record: Record) -> Cell:
    meta = record.get("meta") or {}
    predictions = record.get("predictions")
    place = {
        "place": display_path(predictions) if predictions else NOT_SAID,
        "command": command_text(meta.get("command")),
        "sha256": record.get("sha256"),
    }
    if score is None or score["value"] is None:
        reason = (score or {}).get("reason") or _REASONS.get(key, "not measured")
        return Cell(None, Source("measured", **place), reason=str(reason))
    told = {name: score.get(name) for name in ("tokenizer", "model")}
    told |= {name: score.get(name) or "" for name in ("label", "backend", "version")}
    source = Source("measured", **place, **told, settings=score.get("settings") or {})
    low, high = (
        None if score.get(end) is None else PERCENT * score[end] for end in ("low", "high")
    )
    return Cell(PERCENT * score["value"], source, low=low, high=high)
