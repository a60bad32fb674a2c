"""Tables 2 to 6 of the paper, with rows measured here beside the rows it prints.

A row is quoted or measured, wholly: its cells can be nothing else. A measured figure knows what
computed it from which predictions, and a cell without a figure says why. What a system was trained
on and which data it captioned stand in every row, as figures of other data do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ureca_lib.evaluate.published_numbers import PUBLISHED, PublishedRow, PublishedTable

if TYPE_CHECKING:
    import pandas

Origin = Literal["quoted", "measured"]
PERCENT = 100  # pycocoevalcap's scale is 0 to 1, the paper's tables are in percent
NOT_SAID = "not recorded"
Record = Mapping[str, Any]  # what `ureca evaluate` or `ureca uniqueness` wrote


class TableError(ValueError):
    """Rows or records that a table cannot hold, naming them."""


@dataclass(frozen=True)
class Source:
    """Where a figure comes from.

    Attributes:
        origin: printed in the paper, or measured here.
        place: the paper's table, or the predictions file.
        label: how the metric is called by what computed it; says when it is no plain METEOR.
        backend, version, tokenizer, model, settings: what computed it; empty where quoted.
        command: that made the predictions.
        sha256: of the predictions file.
    """

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

    @property
    def computed_by(self) -> str:
        """Backend, version, model and tokenizer as a person reads them; empty where quoted."""
        parts = [f"{self.backend} {self.version}".strip(), self.model]
        parts += [self.tokenizer and f"{self.tokenizer} tokens"]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Cell:
    """One figure in percent, or the reason why there is none.

    Attributes:
        value: None for a dash. printed: as the paper prints it.
        low, high: 95% interval over images, of a measured figure.
        source: where it comes from, or would have come from.
        reason: of a dash.

    Raises:
        TableError: neither a figure nor a reason, or both.
    """

    value: float | None
    source: Source
    printed: str | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise TableError("a cell has a figure, or a reason why there is none")
        if self.printed is not None and self.source.origin != "quoted":
            raise TableError("only a quoted figure is shown as it was printed")

    def text(self, decimals: int, intervals: bool = False) -> str:
        """The figure as shown; empty for a dash."""
        if self.value is None:
            return ""
        shown = self.printed or f"{self.value:.{decimals}f}"
        if intervals and self.low is not None:
            shown += f" [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"
        return shown


@dataclass(frozen=True)
class Row:
    """A system's figures, all quoted or all measured.

    Raises:
        TableError: a cell of the other origin.
    """

    system: str
    origin: Origin
    trained_on: str
    data: str
    cells: Mapping[str, Cell]

    def __post_init__(self) -> None:
        for key, cell in self.cells.items():
            if cell.source.origin != self.origin:
                raise TableError(
                    f"{self.system}: {key} is {cell.source.origin}, the row is {self.origin}"
                )


@dataclass(frozen=True)
class Table:
    """Rows under common columns.

    Attributes:
        number: the paper's; title, head, columns, decimals, notes: see `PublishedTable`.
        rows: quoted ones first.
    """

    number: int
    title: str
    head: str
    columns: Mapping[str, str]
    decimals: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if missing := [key for key in self.columns if key not in row.cells]:
                raise TableError(f"{row.system}: has no cell for {missing[0]}, not even a dash")

    def with_rows(self, rows: Sequence[Row], extra: Mapping[str, str] | None = None) -> Table:
        """The table with measured rows below, and columns that the paper does not have.

        Args:
            rows: for each column a cell.
            extra: labels of further columns by key; rows without a cell get a dash.

        Raises:
            TableError: a quoted row, or one that lacks a column of the table.
        """
        if quoted := [row.system for row in rows if row.origin != "measured"]:
            raise TableError(f"{quoted[0]}: a row that is added is measured")
        wanted = {**self.columns, **(extra or {})}
        filled = [_filled(row, wanted, self.columns) for row in (*self.rows, *rows)]
        return replace(self, columns=wanted, rows=tuple(filled))

    def frame(self) -> pandas.DataFrame:
        """One row a system: who, origin, training and test data, then figures in percent.

        Figures are float64, NaN for a dash; `cells_frame` says why and where from.
        """
        import pandas

        rows = []
        for row in self.rows:
            told = {
                self.head: row.system,
                "origin": row.origin,
                "trained on": row.trained_on,
                "data": row.data,
            }
            figures = {label: row.cells[key].value for key, label in self.columns.items()}
            rows.append(told | figures)
        frame = pandas.DataFrame(rows)
        return frame.astype({label: "float64" for label in self.columns.values()})

    def cells_frame(self) -> pandas.DataFrame:
        """One row a cell, with interval, reason and all of its provenance."""
        import pandas

        rows = []
        for row in self.rows:
            for key, label in self.columns.items():
                cell, source = row.cells[key], row.cells[key].source
                told = {"system": row.system, "trained on": row.trained_on, "data": row.data}
                told |= {"column": label, "value": cell.value, "low": cell.low, "high": cell.high}
                rows.append(told | {"reason": cell.reason, **vars(source)})
        return pandas.DataFrame(rows).astype(dict.fromkeys(("value", "low", "high"), "float64"))

    def _repr_html_(self) -> str:
        from ureca_lib.evaluate.table_texts import html

        return html(self)


def paper_table(number: int) -> Table:
    """Table 2, 3, 4, 5 or 6 as the paper prints it.

    Raises:
        TableError: no such table here.
    """
    if number not in PUBLISHED:
        raise TableError(f"there are Tables {', '.join(map(str, PUBLISHED))}, not {number}")
    table = PUBLISHED[number]
    rows = tuple(_quoted(table, row) for row in table.rows)
    about = (table.number, table.title, table.head, table.columns, table.decimals)
    return Table(*about, rows, table.notes)


def _quoted(table: PublishedTable, row: PublishedRow) -> Row:
    source = Source("quoted", f"the paper, Table {table.number}")
    cells = {}
    for key, figure in zip(table.columns, row.figures.split(), strict=True):
        if figure == "-":
            cells[key] = Cell(None, source, reason="the paper prints none")
        else:
            cells[key] = Cell(float(figure), source, printed=figure)
    return Row(row.system, "quoted", row.trained_on, table.data, cells)


def _filled(row: Row, wanted: Mapping[str, str], before: Mapping[str, str]) -> Row:
    cells = dict(row.cells)
    place = next(iter(cells.values())).source
    for key in wanted:
        if key not in cells and row.origin == "measured" and key in before:
            raise TableError(f"{row.system}: has no cell for {key}, not even a dash")
        reason = "the paper does not measure it" if row.origin == "quoted" else "not measured"
        cells.setdefault(key, Cell(None, Source(row.origin, place.place), reason=reason))
    return replace(row, cells=cells)
