"""A sweep's summary as files: Markdown, CSV, JSON, and a plot."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from ureca_lib.datasets.markdown import escaped, table
from ureca_lib.journal import write_json, write_text
from ureca_lib.runs.summary import SUMMARY_NAME, Measure, SweepSummary

_SHOWN = 8  # columns of measured values in the Markdown table; the CSV has all


def write_summary(summary: SweepSummary, root: str | Path) -> Path:
    """Write `summary.md`, `.csv` and `.json`, and `summary.png` with `.pdf` where there is a value.

    Where there is none any more, the plot of earlier values goes.

    Args:
        summary: from `summarize_sweep`.
        root: folder of the sweeps; the files go to the folder of the sweep's name in it.

    Returns:
        That folder.
    """
    folder = Path(root) / summary.name
    write_json(folder / SUMMARY_NAME, summary.as_json())
    write_text(folder / "summary.md", summary_markdown(summary))
    write_text(folder / "summary.csv", summary_csv(summary))
    shown = [name for name in summary.report if any(name in s.measures for s in summary.settings)]
    if shown:
        # a figure needs matplotlib, which a sweep that has only begun does not
        from matplotlib import pyplot as plt

        from ureca_lib.figures import save_figure
        from ureca_lib.figures.ablations import sweep_figure

        figure = sweep_figure(summary)
        save_figure(figure, folder / "summary.png")
        plt.close(figure)  # a notebook would show it although it is not about it
    else:
        for suffix in (".png", ".pdf"):
            (folder / f"summary{suffix}").unlink(missing_ok=True)
    return folder


def summary_markdown(summary: SweepSummary) -> str:
    """The table, what it was measured with, and the runs with their errors."""
    done = sum(run.status == "done" for run in summary.runs)
    fixed = ", ".join(f"{name} {json.dumps(value)}" for name, value in summary.fixed.items())
    lines = [
        f"# {escaped(summary.title)}\n",
        f"Mean ± sample standard deviation (number of seeds) of `{summary.notebook}`, "
        f"{done} of {len(summary.runs)} runs done"
        + (f"; {escaped(fixed)}." if fixed else ".")
        + "\n",
        _value_table(summary),
        *(f"{note}\n" for note in _notes(summary)),
        "## Runs\n",
        _run_table(summary),
    ]
    return "\n".join(lines)


def summary_csv(summary: SweepSummary) -> str:
    """One row a setting and measured value: label, its parameters as JSON, mean, spread, n."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["setting", "parameters", "value", "mean", "spread", "n", "planned"])
    for setting in summary.settings:
        parameters = json.dumps(setting.parameters)
        for name, found in setting.measures.items():
            spread = "" if found.spread is None else repr(found.spread)
            row = [setting.label, parameters, name, repr(found.mean), spread, found.n]
            writer.writerow([*row, setting.planned])
    return text.getvalue()


def shown_measure(found: Measure | None) -> str:
    """A value as the tables show it, such as `0.71 ± 0.02 (3)`; a dash where there is none."""
    if found is None:
        return "–"
    spread = "" if found.spread is None else f" ± {found.spread:.2g}"
    return f"{found.mean:.4g}{spread} ({found.n})"


def _value_table(summary: SweepSummary) -> str:
    names = summary.report[:_SHOWN]
    rows = [
        [setting.label, *(shown_measure(setting.measures.get(name)) for name in names)]
        for setting in summary.settings
    ]
    return table(["setting", *names], rows, right=range(1, len(names) + 1))


def _notes(summary: SweepSummary) -> list[str]:
    notes = []
    unknown = [
        name for name in summary.report if not any(name in s.measures for s in summary.settings)
    ]
    if unknown:
        notes.append(f"Not recorded by any run: {escaped(', '.join(unknown))}.")
    if len(summary.report) > _SHOWN:
        notes.append(f"{len(summary.report) - _SHOWN} further values are in `summary.csv`.")
    odd = sorted({name for run in summary.runs for name in run.not_finite})
    if odd:
        notes.append(
            f"Infinite or not a number in some run, and left out: {escaped(', '.join(odd))}."
        )
    if summary.machines:
        where = "; ".join(
            f"{item.get('device')}, {item.get('cores')} cores, {item.get('platform')}"
            for item in summary.machines
        )
        notes.append(f"All runs one after another: {summary.seconds:.0f} s, on {escaped(where)}.")
    if summary.code > 1:
        notes.append(f"The runs were made at {summary.code} different commits of the code.")
    return notes


def _run_table(summary: SweepSummary) -> str:
    rows = []
    for run in summary.runs:
        error = run.error or {}
        place = "" if error.get("cell") is None else f"cell {error['cell']}: "
        reason = f"{place}{error.get('name')}: {error.get('message')}" if error else ""
        rows.append(
            [run.label, str(run.seed), run.status, f"{run.seconds:.0f} s", run.folder, reason]
        )
    return table(["setting", "seed", "state", "time", "folder", "error"], rows, right=(1, 3))
