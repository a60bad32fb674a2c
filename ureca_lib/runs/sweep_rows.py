"""A sweep's settings as measured rows below the paper's, in its Tables 3, 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ureca_lib.evaluate import tables
from ureca_lib.evaluate.tables import NOT_SAID, PERCENT, Cell, Row, Table, paper_table
from ureca_lib.runs.summary import SUMMARY_NAME, Measure, SettingSummary, SweepSummary

# what a training run records, a share each, by the label of its column
OURS = {name: tables.OURS[name] for name in ("exact_match", "unique")}

# the sweeps that repeat a table of the paper, by the names of their files
TABLES = {"table_3_components": 3, "table_4_model_size": 4, "table_5_mask_tokens": 5}


def ablation_tables(summaries: Mapping[str, SweepSummary], folder: str | Path) -> dict[int, Table]:
    """Tables 3, 4 and 5 with the rows of their sweeps; one without a sweep is as printed.

    Args:
        summaries: by the sweep's name.
        folder: of the sweeps, as the tables shall name it.

    Returns:
        By the table's number.
    """
    tables = {}
    for name, number in TABLES.items():
        summary = summaries.get(name)
        if summary is None:
            tables[number] = paper_table(number)
            continue
        data = str(summary.fixed.get("evaluate_data", NOT_SAID))
        place = Path(folder) / name / SUMMARY_NAME
        tables[number] = sweep_table(number, summary, place, data)
    return tables


def sweep_table(
    number: int,
    summary: SweepSummary,
    place: str | Path,
    data: str,
    ours: Mapping[str, str] = OURS,
) -> Table:
    """The paper's table with a measured row for each setting of a sweep.

    Each figure is a mean over seeds, in percent; its interval is the mean less and plus one
    sample standard deviation, and none for a single seed.

    Args:
        number: of the table.
        summary: of the sweep.
        place: its `summary.json`, as the table shall name it.
        data: what was captioned, as the table shall name it.
        ours: labels of further columns by measured value, each a share from 0 to 1.

    Raises:
        TableError: no such table.
    """
    table = paper_table(number)
    extra = {name: label for name, label in ours.items() if name not in table.columns}
    wanted = {**table.columns, **extra}
    rows = [_row(setting, wanted, summary, place, data) for setting in summary.settings]
    return table.with_rows(rows, extra)


def _row(
    setting: SettingSummary,
    columns: Mapping[str, str],
    summary: SweepSummary,
    place: str | Path,
    data: str,
) -> Row:
    cells = {}
    for name in columns:
        found = setting.measures.get(name)
        n = found.n if found else 0
        label = f"{name} of {summary.notebook}, mean of {n} seeds"
        source = {"origin": "measured", "place": str(place), "command": "ureca sweep"}
        cells[name] = _cell(found, source | {"label": label}, setting)
    steps = {**summary.fixed, **setting.parameters}
    told = [str(steps.get(name, NOT_SAID)) for name in ("steps_1", "steps_2", "data")]
    trained = "{} + {} steps on {}".format(*told)
    return Row(setting.label, trained, data, cells)


def _cell(found: Measure | None, source: Mapping[str, Any], setting: SettingSummary) -> Cell:
    if found is None:
        any_run = bool(setting.measures)
        reason = "not measured" if any_run else "no run is done yet"
        return Cell(value=None, reason=reason, **source)
    spread = {}
    if found.spread is not None:
        spread = {
            "low": PERCENT * (found.mean - found.spread),
            "high": PERCENT * (found.mean + found.spread),
        }
    return Cell(value=PERCENT * found.mean, **spread, **source)
