"""Measured values of a sweep: mean, spread and number over seeds, from the runs' `run.json`.

A summary is written as Markdown, CSV, JSON, and a plot.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ureca_lib.journal import write_json, write_text
from ureca_lib.markdown import escaped, table
from ureca_lib.runs.parameters import notebook_parameters, same_parameters
from ureca_lib.runs.record import RunRecord
from ureca_lib.runs.sweep import PlannedRun, Sweep, is_running

SUMMARY_NAME = "summary.json"
_COLUMNS = 8  # measured values in the Markdown table; the CSV has all


@dataclass(frozen=True)
class Measure:
    """Measured value of a setting over its seeds."""

    mean: float
    spread: float | None  # sample standard deviation (n - 1); None for a single run
    n: int
    values: dict[str, float]  # by seed


@dataclass(frozen=True)
class SettingSummary:
    """Row of the table."""

    label: str
    parameters: dict[str, Any]  # of the setting
    planned: int  # runs, one per seed
    measures: dict[str, Measure]  # by name; `size.small` for `small` in the dictionary `size`


@dataclass(frozen=True)
class RunState:
    """State of a run: `done`, `failed`, `stopped`, `running`, `killed` or `not started`."""

    label: str
    seed: int
    folder: str  # relative to the folder of the sweeps
    status: str
    seconds: float = 0.0
    commit: str | None = None
    error: dict[str, Any] | None = None
    not_finite: list[str] = field(default_factory=list)  # measured, but not a number


@dataclass(frozen=True)
class SweepSummary:
    """A sweep's table, and the state of its runs; `summary.json` holds it."""

    name: str
    title: str
    notebook: str
    seeds: list[int]
    fixed: dict[str, Any]
    report: list[str]  # names of the values in the table and the plot
    settings: list[SettingSummary]
    runs: list[RunState]
    machines: list[dict[str, Any]]
    versions: list[dict[str, str]]
    code: int  # different states of notebook and library that done runs with equal parameters had

    @property
    def seconds(self) -> float:
        """Seconds of the finished runs, one after another."""
        return round(sum(run.seconds for run in self.runs if run.status == "done"), 1)

    @property
    def failures(self) -> list[RunState]:
        """Runs that stopped with an error."""
        return [run for run in self.runs if run.status == "failed"]

    @property
    def is_complete(self) -> bool:
        """True if every run is done."""
        return all(run.status == "done" for run in self.runs)

    def has_group(self, group: str, value: str) -> bool:
        """Tell whether a run recorded a value in a dictionary of dictionaries, such as by size."""
        names = [name for setting in self.settings for name in setting.measures]
        return any(n.startswith(f"{group}.") and n.endswith(f".{value}") for n in names)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `summary.json`."""
        return {**asdict(self), "seconds": self.seconds}


def summarize_sweep(sweep: Sweep, root: str | Path) -> SweepSummary:
    """Read the records of a sweep's runs; what is not done is listed, and not counted.

    Args:
        sweep: from `load_sweep`.
        root: folder of the sweeps.

    Returns:
        Means over the seeds that are done, with the sample standard deviation. A record of other
        parameters, as of a default that was changed since, is not counted; nor is one of
        another notebook with the same file name.
    """
    folder, known = Path(root), notebook_parameters(sweep.notebook)
    records = {
        run.name: record
        for run in sweep.runs
        if (record := RunRecord.load(folder / "runs" / run.name))
        and record.is_of(sweep.notebook)
        and same_parameters(known, record.parameters, run.parameters)
    }
    states = [_state(run, records.get(run.name), folder) for run in sweep.runs]
    finished = {
        run.name: record
        for run, state in zip(sweep.runs, states, strict=True)
        if state.status == "done" and (record := records.get(run.name))
    }
    measured = {name: flat_numbers(record.metrics) for name, record in finished.items()}
    settings = [
        _setting([run for run in sweep.runs if run.label == label], measured)
        for label in dict.fromkeys(run.label for run in sweep.runs)
    ]
    made = list(finished.values())
    return SweepSummary(
        name=sweep.name,
        title=sweep.title,
        notebook=sweep.notebook.name,
        seeds=list(sweep.settings.seeds),
        fixed=dict(sweep.settings.parameters),
        report=list(sweep.settings.report) or _plain_names(made),
        settings=settings,
        runs=states,
        machines=_distinct([record.machine for record in made]),
        versions=_distinct([record.versions for record in made]),
        code=len({record.commit for record in made}),
    )


def read_summary(path: str | Path) -> SweepSummary:
    """Read a `summary.json`, or the one in a folder.

    Raises:
        FileNotFoundError: there is none; the message names the command that writes it.
        ValueError: naming the file that is not a summary.
    """
    source = Path(path)
    source = source / SUMMARY_NAME if source.is_dir() else source
    if not source.is_file():
        raise FileNotFoundError(f"{source}: there is no such summary; 'ureca sweep' writes it")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        content.pop("seconds")
        content["settings"] = [_read_setting(item) for item in content["settings"]]
        content["runs"] = [RunState(**item) for item in content["runs"]]
        return SweepSummary(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: not a sweep's summary ({error})") from None


def read_summaries(folder: str | Path) -> dict[str, SweepSummary]:
    """Read the summaries of all sweeps in a folder, by name; empty if there is none.

    Raises:
        ValueError: naming a file that is not a summary.
    """
    found = [read_summary(path) for path in sorted(Path(folder).glob(f"*/{SUMMARY_NAME}"))]
    return {summary.name: summary for summary in found}


def flat_numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers among measured values; `size.small` for one in a dictionary.

    Args:
        metrics: as `record_metrics` kept them; texts, lists and truth values are left out.
        prefix: of the names.
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found


def measure(values: Mapping[int, float]) -> Measure:
    """Return mean, sample standard deviation and number of values by seed: one or more, finite."""
    numbers = list(values.values())
    spread = statistics.stdev(numbers) if len(numbers) > 1 else None
    by_seed = {str(seed): value for seed, value in values.items()}
    return Measure(statistics.fmean(numbers), spread, len(numbers), by_seed)


def _setting(
    runs: Sequence[PlannedRun], measured: Mapping[str, Mapping[str, float]]
) -> SettingSummary:
    names = dict.fromkeys(name for run in runs for name in measured.get(run.name, {}))
    measures = {}
    for name in names:
        values = {run.seed: measured.get(run.name, {}).get(name, math.nan) for run in runs}
        finite = {seed: value for seed, value in values.items() if math.isfinite(value)}
        if finite:
            measures[name] = measure(finite)
    return SettingSummary(runs[0].label, dict(runs[0].varied), len(runs), measures)


def _state(run: PlannedRun, record: RunRecord | None, root: Path) -> RunState:
    status, error = "not started", None
    if record is not None:
        status, error = record.status, record.error
    if is_running(root, run.name):
        status, error = "running", None
    elif status == "running":
        status = "killed"
    elif status == "failed" and (error or {}).get("name") == "Interrupted":
        status = "stopped"
    if error:
        error = {name: error.get(name) for name in ("cell", "source", "name", "message")}
    numbers = flat_numbers(record.metrics) if record and status == "done" else {}
    return RunState(
        run.label,
        run.seed,
        f"runs/{run.name}",
        status,
        record.seconds if record else 0.0,
        record.commit if record else None,
        error,
        [name for name, value in numbers.items() if not math.isfinite(value)],
    )


def _plain_names(records: Sequence[RunRecord]) -> list[str]:
    """Return names of measured numbers that are not in dictionaries."""
    names = [name for record in records for name in flat_numbers(record.metrics)]
    return [name for name in dict.fromkeys(names) if "." not in name]


def _distinct(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return kept


def _read_setting(item: dict[str, Any]) -> SettingSummary:
    measures = {name: Measure(**value) for name, value in item["measures"].items()}
    return SettingSummary(**{**item, "measures": measures})


def write_summary(summary: SweepSummary, root: str | Path) -> Path:
    """Write `summary.md`, `.csv` and `.json`, and `summary.png` with `.pdf` if there is a value.

    If there is none any more, the plot of earlier values is removed.

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
        plt.close(figure)  # else a notebook shows it although it is not about it
    else:
        for suffix in (".png", ".pdf"):
            (folder / f"summary{suffix}").unlink(missing_ok=True)
    return folder


def summary_markdown(summary: SweepSummary) -> str:
    """Return the table, notes on how it was measured, and the runs with their errors."""
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
    """Return a row per setting and measured value: label, parameters, mean, spread, n, planned."""
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
    """Return a value as the tables show it, such as `0.71 ± 0.02 (3)`; a dash if there is none."""
    if found is None:
        return "–"
    spread = "" if found.spread is None else f" ± {found.spread:.2g}"
    return f"{found.mean:.4g}{spread} ({found.n})"


def _value_table(summary: SweepSummary) -> str:
    names = summary.report[:_COLUMNS]
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
    if len(summary.report) > _COLUMNS:
        notes.append(f"{len(summary.report) - _COLUMNS} further values are in `summary.csv`.")
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
    done = [run for run in summary.runs if run.status == "done"]
    if changed := sum((run.commit or "").endswith("+") for run in done):
        notes.append(
            f"{changed} of {len(done)} runs were made with uncommitted changes of the code: their "
            "commits, which end with +, do not have it."
        )
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
