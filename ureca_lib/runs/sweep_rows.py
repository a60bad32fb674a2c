"""A sweep's settings as measured rows below the paper's, in its Tables 3, 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ureca_lib.evaluate import tables
from ureca_lib.evaluate.tables import NOT_SAID, PERCENT, Cell, Row, Table, paper_table
from ureca_lib.runs.summary import SUMMARY_NAME, SettingSummary, SweepSummary

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
    tables = {number: paper_table(number) for number in TABLES.values()}
    for name, number in TABLES.items():
        if summary := summaries.get(name):
            data = str(summary.fixed.get("evaluate_data", NOT_SAID))
            place = Path(folder) / name / SUMMARY_NAME
            tables[number] = sweep_table(number, summary, place, data)
    return tables


def sweep_table(number: int, summary: SweepSummary, place: str | Path, data: str) -> Table:
    """The paper's table with a measured row for each setting of a sweep.

    Each figure is a mean over seeds, in percent; its interval is the mean less and plus one
    sample standard deviation, and none for a single seed. Our own columns are added.

    Args:
        number: of the table.
        summary: of the sweep.
        place: its `summary.json`, as the table shall name it.
        data: what was captioned, as the table shall name it.

    Raises:
        ValueError: no such table.
    """
    table = paper_table(number)
    extra = {name: label for name, label in OURS.items() if name not in table.columns}
    rows = []
    for setting in summary.settings:
        steps = {**summary.fixed, **setting.parameters}
        told = [str(steps.get(name, NOT_SAID)) for name in ("steps_1", "steps_2", "data")]
        cells = {
            name: _cell(f"{name} of {summary.notebook}", setting, name, place)
            for name in (*table.columns, *extra)
        }
        rows.append(Row(setting.label, "{} + {} steps on {}".format(*told), data, cells))
    return table.with_rows(rows, extra)


def _cell(label: str, setting: SettingSummary, name: str, place: str | Path) -> Cell:
    source = {"place": str(place), "command": "ureca sweep"}
    found = setting.measures.get(name)
    if found is None:
        reason = "not measured" if setting.measures else "no run is done yet"
        label = f"{label}, mean of 0 seeds"
        return {"value": None, "reason": reason, "label": label, **source}
    ends = {}
    if found.spread is not None:
        ends["low"] = PERCENT * (found.mean - found.spread)
        ends["high"] = PERCENT * (found.mean + found.spread)
    source["label"] = f"{label}, mean of {found.n} seeds"
    return {"value": PERCENT * found.mean, **ends, **source}
