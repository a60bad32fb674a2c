"""Tables 2 to 6 of the paper, with the rows it prints and rows measured here in separate blocks.

A row is quoted or measured, wholly: its cells can be nothing else. A measured value has its
software, predictions file and command, and a cell without a value has a reason. The training data
of a system and the data that it captioned stand in every row, because values on different data
cannot be compared.

Tables are shown as Markdown, LaTeX and HTML; every text from outside is escaped. A dash carries a
letter, and its reason stands below under that letter, as does the software of each measured row.

The numbers that the paper prints are in `paper_tables.toml`.
"""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from importlib import resources
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Literal

import pandas

from ureca_lib.listeners import STYLE_NOTE
from ureca_lib.markdown import escaped
from ureca_lib.markdown import table as markdown_table
from ureca_lib.provenance import command_text, display_path

Origin = Literal["quoted", "measured"]
Record = Mapping[str, Any]  # as `ureca evaluate`, `clair` or `uniqueness` wrote it
ORIGINS = {"quoted": "Printed in the paper", "measured": "Measured here"}
PERCENT = 100  # pycocoevalcap's scale is 0 to 1, the paper's tables are in percent
NOT_SAID = "not recorded"
DASH = "–"
# columns beside the paper's if they were measured; the last two are better when low
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
_PIECE = 200  # characters that `escaped` leaves whole
# of the reasons for dashes: a, b, ..., z, aa, ab, ...
_LETTERS = [*ascii_lowercase, *map("".join, product(ascii_lowercase, repeat=2))]
_SIGNS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater"}
_SIGNS |= {"|": "bar", '"': "quotedbl"}
_LATEX = {sign: rf"\text{name}{{}}" for sign, name in _SIGNS.items()}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"–": "--", "…": r"\ldots{}"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value in percent, or the reason why there is none, with its origin.

    Attributes:
        value: None for a dash.
        low, high: 95% interval over images, of a measured value.
        reason: of a dash.
        origin: printed in the paper, or measured here.
        place: the paper's table, or the predictions file.
        label: name that the software gives the metric; says when it is no plain METEOR.
        backend, version, tokenizer, model, settings: of the software; empty if quoted.
        command: that made the predictions.
        sha256: of the predictions file.
        printed: the value as the paper prints it.

    Raises:
        ValueError: neither a value nor a reason, or both.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    origin: Origin
    place: str
    label: str = ""
    backend: str = ""
    version: str = ""
    tokenizer: str | None = None
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    sha256: str | None = None
    printed: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a cell has a value, or a reason why there is none")

    def text(self, decimals: int, intervals: bool = False) -> str:
        """The value as shown; empty for a dash."""
        if self.value is None:
            return ""
        shown = self.printed or f"{self.value:.{decimals}f}"
        if intervals and self.low is not None:
            shown += f" [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"
        return shown


@dataclass(frozen=True)
class Row:
    """A system's values, all quoted or all measured.

    Attributes:
        system: its name.
        trained_on: its training data. data: that was captioned.
        cells: by the key of the column.

    Raises:
        ValueError: cells of both origins.
    """

    system: str
    trained_on: str
    data: str
    cells: Mapping[str, Cell]

    def __post_init__(self) -> None:
        if len({cell.origin for cell in self.cells.values()}) != 1:
            raise ValueError(f"{self.system}: a row is quoted or measured, not both")

    @property
    def origin(self) -> Origin:
        """Whether the paper prints the row, or it was measured here."""
        return next(iter(self.cells.values())).origin


@dataclass(frozen=True)
class Table:
    """Rows under common columns.

    Attributes:
        number, title: in the paper.
        head: heading of the first column.
        columns: the label of each, by the key that scores here have.
        decimals: that are printed.
        rows: from the top, quoted ones first.
        notes: needed to read the table.
    """

    number: int
    title: str
    head: str
    columns: Mapping[str, str]
    decimals: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def with_rows(self, rows: Sequence[Row], extra: Mapping[str, str] | None = None) -> Table:
        """The table with measured rows added, and columns that the paper does not have.

        Args:
            rows: a column without a cell gets a dash.
            extra: labels of further columns by key.

        Raises:
            ValueError: a quoted row.
        """
        if quoted := [row.system for row in rows if row.origin != "measured"]:
            raise ValueError(f"{quoted[0]}: a row that is added is measured")
        columns, filled = {**self.columns, **(extra or {})}, []
        for row in (*self.rows, *rows):
            why = "the paper does not measure it" if row.origin == "quoted" else "not measured"
            place = next(iter(row.cells.values())).place
            dash = Cell(value=None, origin=row.origin, place=place, reason=why)
            filled.append(replace(row, cells=dict.fromkeys(columns, dash) | dict(row.cells)))
        return replace(self, columns=columns, rows=tuple(filled))

    def cells_frame(self) -> pandas.DataFrame:
        """One line per cell, with interval, reason and all of its provenance."""
        lines = [
            {"system": row.system, "trained on": row.trained_on, "data": row.data, "column": label}
            | asdict(row.cells[key])
            for row in self.rows
            for key, label in self.columns.items()
        ]
        numbers = dict.fromkeys(("value", "low", "high"), "float64")
        return pandas.DataFrame(lines).drop(columns="printed").astype(numbers)

    def blocks(self, intervals: bool = False) -> tuple[dict[Origin, pandas.DataFrame], list[str]]:
        """The texts of quoted and of measured rows, each block by itself, and the notes.

        Args:
            intervals: show 95% intervals of measured values.
        """
        letters: dict[str, str] = {}
        blocks: dict[Origin, list[list[str]]] = {}
        for row in sorted(self.rows, key=lambda row: row.origin != "quoted"):
            texts = [row.system, row.trained_on, row.data]
            for cell in map(row.cells.__getitem__, self.columns):
                if cell.reason and cell.reason not in letters:
                    letters[cell.reason] = _LETTERS[len(letters)]
                dash = cell.reason and f"{DASH} ({letters[cell.reason]})"
                texts.append(dash or cell.text(self.decimals, intervals))
            blocks.setdefault(row.origin, []).append(texts)
        notes = [*self.notes, *(f"({letter}) {reason}." for reason, letter in letters.items())]
        if len({row.data for row in self.rows}) > 1:
            notes.append("Rows of different data do not compare.")
        notes += [_provenance(row, self) for row in self.rows if row.origin == "measured"]
        listeners = {str(cell.model) for row in self.rows for cell in row.cells.values()}
        if any(name.startswith("listener ") and name != "listener exact" for name in listeners):
            notes.append(STYLE_NOTE)
        head = [self.head, "Trained on", "Data", *self.columns.values()]
        return {o: pandas.DataFrame(rows, columns=head) for o, rows in blocks.items()}, notes

    @property
    def caption(self) -> str:
        """Number and title."""
        return f"Table {self.number} of the paper: {self.title}, in percent"

    def _repr_html_(self) -> str:
        return html(self)


def markdown(content: Table, intervals: bool = False) -> str:
    """A heading, a table for each block, and notes."""
    blocks, notes = content.blocks(intervals)
    parts = [f"**{escaped(content.caption)}**\n"]
    for origin, frame in blocks.items():
        grid = markdown_table(list(frame), frame.values.tolist(), range(3, frame.shape[1]))
        parts += [f"{ORIGINS[origin]}:\n", grid]
    for note in notes:  # `escaped` cuts long texts
        pieces = textwrap.wrap(note, _PIECE, break_on_hyphens=False)
        parts.append(f"- {' '.join(map(escaped, pieces))}")
    return "\n".join(parts) + "\n"


def latex(content: Table, intervals: bool = False) -> str:
    """A `table` with a `tabular` for each block; needs the packages booktabs and [T1]{fontenc}."""
    blocks, notes = content.blocks(intervals)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_escaped(content.caption)}}}"]
    for origin, frame in blocks.items():
        form = "lll" + "r" * (frame.shape[1] - 3)
        plain = frame.rename(columns=latex_escaped).map(latex_escaped)
        grid = plain.to_latex(index=False, escape=False, column_format=form)
        lines += [rf"\par {ORIGINS[origin]}:\par", grid.rstrip()]
    lines += [rf"\par\footnotesize {latex_escaped(note)}" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html(content: Table, intervals: bool = False) -> str:
    """A `<table>` for each block and notes, without scripts or styles from elsewhere."""
    blocks, notes = content.blocks(intervals)
    parts = [f"<p><b>{escape(content.caption)}</b></p>"]
    for origin, frame in blocks.items():
        one_line = frame.map(lambda text: " ".join(text.split()))
        with pandas.option_context("display.max_colwidth", None):
            grid = one_line.to_html(index=False, border=0, classes=origin, escape=True)
        parts += [f"<p>{ORIGINS[origin]}:</p>", grid]
    return "\n".join([*parts, *(f"<p><small>{escape(note)}</small></p>" for note in notes)])


def csv(content: Table, intervals: bool = True) -> str:
    """One line per cell, with all of its provenance; a spreadsheet computes nothing of it."""

    def plain(value: Any) -> Any:
        """Texts may come from other people's files, and a formula begins with these."""
        is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@")
        return f"'{value}" if is_formula else value

    return content.cells_frame().map(plain).to_csv(index=False)


def latex_escaped(text: str) -> str:
    """Text in one line that LaTeX sets as it is."""
    return re.sub(r".", lambda found: _LATEX.get(found[0], found[0]), " ".join(text.split()))


def _provenance(row: Row, content: Table) -> str:
    """Software, predictions and command of a measured row."""
    labels: dict[str, list[str]] = {}
    files, commands = {}, {}
    for cell in map(row.cells.__getitem__, content.columns):
        files[cell.place + (f" (sha256 {cell.sha256[:12]})" if cell.sha256 else "")] = None
        commands |= {cell.command: None} if cell.command else {}
        tokens = cell.tokenizer and f"{cell.tokenizer} tokens"
        software = filter(None, (f"{cell.backend} {cell.version}".strip(), cell.model, tokens))
        if backend := ", ".join(software):
            labels.setdefault(backend, []).append(cell.label + _guess(cell))
    backends = [f"{', '.join(names)} by {backend}" for backend, names in labels.items()]
    parts = [f"{row.system}: {'; '.join(backends) or 'nothing was measured'}"]
    parts.append(f"predictions {', '.join(files)}")
    parts += [f"made by {', '.join(commands)}"] if commands else []
    return "; ".join(parts) + "."


def _guess(cell: Cell) -> str:
    """Behind a recall that of a guess, and the number of candidates."""
    if cell.settings.get("chance") is None:
        return ""
    chance, candidates = PERCENT * cell.settings["chance"], cell.settings["candidates"]
    return f" (a guess: {chance:.1f}, of {candidates:.1f} regions on average)"


def paper_table(number: int) -> Table:
    """Table 2, 3, 4, 5 or 6 as the paper prints it.

    Raises:
        ValueError: no such table here.
    """
    file = resources.files("ureca_lib") / "evaluate/paper_tables.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    if str(number) not in tables:
        raise ValueError(f"there are Tables {', '.join(tables)}, not {number}")
    about, rows = tables[str(number)], []
    data, origin = about.pop("data"), {"origin": "quoted", "place": f"the paper, Table {number}"}
    for system, values, trained_on in about.pop("rows"):
        cells = {
            key: Cell(value=None, reason="the paper prints none", **origin)
            if value == "-"
            else Cell(value=float(value), printed=value, **origin)
            for key, value in zip(about["columns"], values.split(), strict=True)
        }
        rows.append(Row(system, trained_on, data, cells))
    return Table(number, **about, rows=tuple(rows))


def read_record(path: str | Path) -> dict[str, Any]:
    """A record that `ureca evaluate`, `clair` or `uniqueness` wrote.

    Raises:
        FileNotFoundError: no such file. ValueError: it is no such record.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("system"), str):
        raise ValueError(f"{path}: no record of scores, it names no system")
    if not _scores(record):
        raise ValueError(f"{path}: no record of scores, it holds none")
    return record


def _scores(record: Record) -> dict[str, Mapping[str, Any]]:
    """Scores by key, from all parts of a record."""
    exact = record.get("exact") or {}
    parts = (record.get("metrics"), exact.get("overall"), record.get("overall"))
    scores = {key: score for part in parts for key, score in (part or {}).items()}
    return {k: s for k, s in scores.items() if isinstance(s, Mapping) and "value" in s}


def zero_shot_row(records: Mapping[str, Record]) -> Row:
    """A row of Table 6: METEOR on each benchmark, with a predictions file each.

    Args:
        records: by "refcocog" and "visual_genome", of `ureca evaluate`; one may be missing.

    Raises:
        ValueError: another benchmark, several systems, or none.
    """
    benchmarks = paper_table(6).columns
    if unknown := sorted(records.keys() - benchmarks.keys()):
        raise ValueError(f"benchmarks are {', '.join(benchmarks)}, not {unknown[0]}")
    systems = sorted({record["system"] for record in records.values()})
    if len(systems) != 1:
        raise ValueError(f"a row is of one system, not of {', '.join(systems) or 'none'}")
    some = next(iter(records.values()))
    found = {key: (records[key], "meteor") if key in records else (some, key) for key in benchmarks}
    return _measured_row(found)


def table_with(number: int, records: Sequence[Record], ours: bool = True) -> Table:
    """Table 2, 3, 4 or 5 with a row for each predictions file.

    Args:
        number: of the table.
        records: of any systems; those of one predictions file make one row.
        ours: add columns for uniqueness and exact match, if a record has them.

    Raises:
        ValueError: Table 6, whose rows have two files each (`zero_shot_row`).
    """
    table = paper_table(number)
    if number == 6:
        raise ValueError("Table 6 has a column for each benchmark: use BENCHMARK=RECORD")
    files: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        identity = str(record.get("sha256") or record.get("predictions"))
        files.setdefault((record["system"], identity), []).append(record)
    known = {key for record in records for key in _scores(record)}
    extra = {key: label for key, label in OURS.items() if ours and key in known}
    rows = []
    for of_file in files.values():
        scored = {key: record for record in of_file for key in _scores(record)}
        columns = (*table.columns, *extra)
        rows.append(_measured_row({key: (scored.get(key, of_file[0]), key) for key in columns}))
    return table.with_rows(rows, extra)


def read_tables(number: int, files: Sequence[str], ours: bool = True) -> Table:
    """A table with a row for each predictions file, from records on disk.

    Args:
        number: of the table.
        files: records; for Table 6 `refcocog=FILE` and `visual_genome=FILE`, those of one system
            in one row.
        ours: see `table_with`.

    Raises:
        FileNotFoundError: no such file. ValueError: a file that is no record, or lacks the name
            of its benchmark.
    """
    table = paper_table(number)
    if number != 6:
        return table_with(number, [read_record(file) for file in files], ours)
    systems: dict[str, dict[str, Record]] = {}
    for file in files:
        benchmark, _, path = file.partition("=")
        if not path or benchmark not in table.columns:
            raise ValueError(f"{file}: for Table 6 say {' or '.join(table.columns)}=FILE")
        record = read_record(path)
        if benchmark in systems.setdefault(record["system"], {}):
            raise ValueError(f"{file}: a second record of {record['system']} on {benchmark}")
        systems[record["system"]][benchmark] = record
    return table.with_rows([zero_shot_row(each) for each in systems.values()])


def _measured_row(found: Mapping[str, tuple[Record, str]]) -> Row:
    """The row of one system, from a record and the key of a score there for each column."""
    records = [record for record, _ in found.values()]
    metas = [record.get("meta") or {} for record in records]
    trained_on, data = (
        "; ".join(dict.fromkeys(str(meta.get(name) or NOT_SAID) for meta in metas))
        for name in ("trained_on", "data")
    )
    cells = {column: _cell(record, key) for column, (record, key) in found.items()}
    return Row(records[0]["system"], trained_on, data, cells)


def _cell(record: Record, key: str) -> Cell:
    predictions, score = record.get("predictions"), _scores(record).get(key, {"value": None})
    about = {
        "origin": "measured",
        "place": display_path(predictions) if predictions else NOT_SAID,
        "command": command_text((record.get("meta") or {}).get("command")),
        "sha256": record.get("sha256"),
    }
    if score["value"] is None:
        reason = score.get("reason") or _REASONS.get(key, "not measured")
        return Cell(value=None, reason=str(reason), **about)
    about |= {name: score.get(name) for name in ("tokenizer", "model")}
    about |= {name: score.get(name) or "" for name in ("label", "backend", "version")}
    numbers = {name: score.get(name) for name in ("value", "low", "high")}
    numbers = {name: None if n is None else PERCENT * n for name, n in numbers.items()}
    return Cell(**about, **numbers, settings=score.get("settings") or {})
