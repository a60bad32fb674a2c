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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
# value (in percent, or None) with its 95% interval (low, high), or reason of a dash; place (the
# paper's table, or the predictions file), command and sha256 of the predictions; label, backend,
# version, tokenizer, model and settings of the software; printed, as the paper has the value
Cell = Mapping[str, Any]
Record = Mapping[str, Any]  # as `ureca evaluate`, `clair` or `uniqueness` wrote it
_NUMBERS = ("value", "low", "high")
_ABOUT = ("system", "trained on", "data", "column")
_SOURCE = ("reason", "origin", "place", "label", "backend", "version", "tokenizer", "model")
_SOURCE += ("settings", "command", "sha256")
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
_WHY_NOT = {"quoted": "the paper does not measure it", "measured": "not measured"}
_REASONS = {"clair": "CLAIR needs a judge, and none was asked"}
_PIECE = 200  # characters that `escaped` leaves whole
_LETTERS = [*ascii_lowercase, *map("".join, product(ascii_lowercase, repeat=2))]  # a, ..., z, aa
_SIGNS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater"}
_SIGNS |= {"|": "bar", '"': "quotedbl"}
_LATEX = {sign: rf"\text{name}{{}}" for sign, name in _SIGNS.items()}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"–": "--", "…": r"\ldots{}"}


@dataclass(frozen=True)
class Row:
    """A system's values, all measured here, or all quoted.

    Attributes:
        system: its name.
        trained_on: its training data.
        data: that was captioned.
        cells: by the key of the column; see `Cell`.
        origin: whether the paper prints the row, or it was measured here.
    """

    system: str
    trained_on: str
    data: str
    cells: Mapping[str, Cell]
    origin: Origin = "measured"


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
            place = next(iter(row.cells.values()))["place"]
            dash = {"value": None, "reason": _WHY_NOT[row.origin], "place": place}
            filled.append(replace(row, cells=dict.fromkeys(columns, dash) | dict(row.cells)))
        return replace(self, columns=columns, rows=tuple(filled))

    def cells_frame(self) -> pandas.DataFrame:
        """One line per cell, with interval, reason and all of its provenance."""
        lines = [
            {"system": row.system, "trained on": row.trained_on, "data": row.data, "column": label}
            | {"origin": row.origin, **row.cells[key]}
            for row in self.rows
            for key, label in self.columns.items()
        ]
        frame = pandas.DataFrame(lines).reindex(columns=[*_ABOUT, *_NUMBERS, *_SOURCE])
        return frame.astype(dict.fromkeys(_NUMBERS, "float64"))

    def blocks(self, intervals: bool = False) -> tuple[dict[str, pandas.DataFrame], list[str]]:
        """The texts of quoted and of measured rows, each block under its title, and the notes.

        Args:
            intervals: show 95% intervals of measured values.
        """
        letters: dict[str, str] = {}  # of the reasons for dashes

        def shown(cell: Cell) -> str:
            if cell["value"] is not None:
                return cell_text(cell, self.decimals, intervals)
            return f"{DASH} ({letters.setdefault(cell['reason'], _LETTERS[len(letters)])})"

        head, blocks = [self.head, "Trained on", "Data", *self.columns.values()], {}
        for origin, title in ORIGINS.items():
            lines = [
                [row.system, row.trained_on, row.data, *(shown(row.cells[k]) for k in self.columns)]
                for row in self.rows
                if row.origin == origin
            ]
            blocks |= {title: pandas.DataFrame(lines, columns=head)} if lines else {}
        notes = [*self.notes, *(f"({letter}) {reason}." for reason, letter in letters.items())]
        if len({row.data for row in self.rows}) > 1:
            notes.append("Rows of different data do not compare.")
        notes += [_provenance(row, self.columns) for row in self.rows if row.origin == "measured"]
        listeners = {str(cell.get("model")) for row in self.rows for cell in row.cells.values()}
        if any(name.startswith("listener ") and name != "listener exact" for name in listeners):
            notes.append(STYLE_NOTE)
        return blocks, notes

    @property
    def caption(self) -> str:
        """Number and title."""
        return f"Table {self.number} of the paper: {self.title}, in percent"

    def _repr_html_(self) -> str:
        return html(self)


def cell_text(cell: Cell, decimals: int, intervals: bool = False) -> str:
    """A value as shown."""
    shown = cell.get("printed") or f"{cell['value']:.{decimals}f}"
    if intervals and cell.get("low") is not None:
        shown += f" [{cell['low']:.{decimals}f}, {cell['high']:.{decimals}f}]"
    return shown


def markdown(content: Table, intervals: bool = False) -> str:
    """A heading, a table for each block, and notes."""
    blocks, notes = content.blocks(intervals)
    parts = [f"**{escaped(content.caption)}**\n"]
    for title, frame in blocks.items():
        grid = markdown_table(list(frame), frame.values.tolist(), range(3, frame.shape[1]))
        parts += [f"{title}:\n", grid]
    for note in notes:  # `escaped` cuts long texts
        pieces = textwrap.wrap(note, _PIECE, break_on_hyphens=False)
        parts.append(f"- {' '.join(map(escaped, pieces))}")
    return "\n".join(parts) + "\n"


def latex(content: Table, intervals: bool = False) -> str:
    """A `table` with a `tabular` for each block; needs the packages booktabs and [T1]{fontenc}."""
    blocks, notes = content.blocks(intervals)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_escaped(content.caption)}}}"]
    for title, frame in blocks.items():
        form = "lll" + "r" * (frame.shape[1] - 3)
        plain = frame.rename(columns=latex_escaped).map(latex_escaped)
        grid = plain.to_latex(index=False, escape=False, column_format=form)
        lines += [rf"\par {title}:\par", grid.rstrip()]
    lines += [rf"\par\footnotesize {latex_escaped(note)}" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html(content: Table, intervals: bool = False) -> str:
    """A `<table>` for each block and notes, without scripts or styles from elsewhere."""
    blocks, notes = content.blocks(intervals)
    parts = [f"<p><b>{escape(content.caption)}</b></p>"]
    for title, frame in blocks.items():
        one_line = frame.map(lambda text: " ".join(text.split()))
        with pandas.option_context("display.max_colwidth", None):
            grid = one_line.to_html(index=False, border=0, escape=True)
        parts += [f"<p>{title}:</p>", grid]
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


def _provenance(row: Row, columns: Iterable[str]) -> str:
    """Software, predictions and command of a measured row."""
    labels: dict[str, list[str]] = {}
    files, commands = {}, {}
    for cell in map(row.cells.__getitem__, columns):
        digest, command = cell.get("sha256"), cell.get("command")
        files[cell["place"] + (f" (sha256 {digest[:12]})" if digest else "")] = None
        commands |= {command: None} if command else {}
        named = " ".join(filter(None, (cell.get("backend"), cell.get("version"))))
        tokens = f"{cell['tokenizer']} tokens" if cell.get("tokenizer") else None
        if cell["value"] is not None and (named or cell.get("model") or tokens):
            software = ", ".join(filter(None, (named, cell.get("model"), tokens)))
            labels.setdefault(software, []).append((cell.get("label") or "") + _guess(cell))
    backends = [f"{', '.join(names)} by {software}" for software, names in labels.items()]
    parts = [f"{row.system}: {'; '.join(backends) or 'nothing was measured'}"]
    parts.append(f"predictions {', '.join(files)}")
    parts += [f"made by {', '.join(commands)}"] if commands else []
    return "; ".join(parts) + "."


def _guess(cell: Cell) -> str:
    """Behind a recall that of a guess, and the number of candidates."""
    settings = cell.get("settings") or {}
    if settings.get("chance") is None:
        return ""
    chance = f"{PERCENT * settings['chance']:.1f}"
    return f" (a guess: {chance}, of {settings['candidates']:.1f} regions on average)"


def paper_table(number: int) -> Table:
    """Table 2, 3, 4, 5 or 6 as the paper prints it.

    Raises:
        ValueError: no such table here.
    """
    file = resources.files("ureca_lib") / "evaluate/paper_tables.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    if str(number) not in tables:
        raise ValueError(f"there are Tables {', '.join(tables)}, not {number}")
    about, rows, place = tables[str(number)], [], f"the paper, Table {number}"
    data = about.pop("data")
    for system, values, trained_on in about.pop("rows"):
        cells = {
            key: {"value": None, "reason": "the paper prints none", "place": place}
            if value == "-"
            else {"value": float(value), "printed": value, "place": place}
            for key, value in zip(about["columns"], values.split(), strict=True)
        }
        rows.append(Row(system, trained_on, data, cells, "quoted"))
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
    scores = [pair for part in parts for pair in (part or {}).items()]
    return {key: score for key, score in scores if isinstance(score, Mapping) and "value" in score}


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
    files: dict[tuple[str, str], dict[str, Record]] = {}  # the record of each score
    for record in records:
        identity = str(record.get("sha256") or record.get("predictions"))
        scored = files.setdefault((record["system"], identity), {})
        scored |= dict.fromkeys(_scores(record), record)
    known = {key for scored in files.values() for key in scored}
    extra = {key: label for key, label in OURS.items() if ours and key in known}
    columns, rows = (*table.columns, *extra), []
    for scored in files.values():
        some = next(iter(scored.values()))
        rows.append(_measured_row({key: (scored.get(key, some), key) for key in columns}))
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
    if number != 6:
        return table_with(number, [read_record(file) for file in files], ours)
    table, systems = paper_table(number), {}
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
    predictions, cell = record.get("predictions"), {"value": None, **_scores(record).get(key, {})}
    if cell["value"] is None:
        cell = {"value": None, "reason": cell.get("reason") or _REASONS.get(key, "not measured")}
    cell |= {name: PERCENT * cell[name] for name in _NUMBERS if cell.get(name) is not None}
    return cell | {
        "place": display_path(predictions) if predictions else NOT_SAID,
        "command": command_text((record.get("meta") or {}).get("command")),
        "sha256": record.get("sha256"),
    }
