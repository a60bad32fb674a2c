"""Measured values of a sweep: mean, spread and number over seeds, from the runs' `run.json`.

A summary is written as Markdown, CSV, JSON, and a plot.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

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

    def __str__(self) -> str:
        """Return the value as the tables show it, such as `0.71 ± 0.02 (3)`."""
        spread = "" if self.spread is None else f" ± {self.spread:.2g}"
        return f"{self.mean:.4g}{spread} ({self.n})"


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
    def done(self) -> list[RunState]:
        """Runs that are done."""
        return [run for run in self.runs if run.status == "done"]

    @property
    def failures(self) -> list[RunState]:
        """Runs that stopped with an error."""
        return [run for run in self.runs if run.status == "failed"]

    @property
    def seconds(self) -> float:
        """Seconds of the finished runs, one after another."""
        return round(sum(run.seconds for run in self.done), 1)

    def has_group(self, group: str, value: str) -> bool:
        """Tell whether a run recorded a value in a dictionary of dictionaries, such as by size."""
        names = [name for setting in self.settings for name in setting.measures]
        return any(n.startswith(f"{group}.") and n.endswith(f".{value}") for n in names)


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
    states, made = [], []
    settings: dict[str, list[tuple[PlannedRun, dict[str, float]]]] = {}
    for run in sweep.runs:
        record = RunRecord.load(folder / "runs" / run.name)
        ours = record and record.is_of(sweep.notebook)
        if not ours or not same_parameters(known, record.parameters, run.parameters):
            record = None
        state, numbers = _state(run, record, folder)
        states.append(state)
        settings.setdefault(run.label, []).append((run, numbers))
        made += [record] if state.status == "done" else []
    plain = [name for record in made for name in flat_numbers(record.metrics) if "." not in name]
    fixed = sweep.runs[0].parameters
    return SweepSummary(
        name=sweep.name,
        title=sweep.title,
        notebook=sweep.notebook.name,
        seeds=list(dict.fromkeys(run.seed for run in sweep.runs)),
        fixed={name: fixed[name] for name in sweep.settings.parameters},
        report=list(sweep.settings.report or dict.fromkeys(plain)),
        settings=[_setting(runs) for runs in settings.values()],
        runs=states,
        machines=_distinct(record.machine for record in made),
        versions=_distinct(record.versions for record in made),
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
        return TypeAdapter(SweepSummary).validate_json(source.read_bytes())
    except ValueError as error:
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


def _setting(runs: Sequence[tuple[PlannedRun, Mapping[str, float]]]) -> SettingSummary:
    by_name: dict[str, dict[int, float]] = {}
    for run, numbers in runs:
        for name, value in numbers.items():
            if math.isfinite(value):
                by_name.setdefault(name, {})[run.seed] = value
    measures = {name: measure(values) for name, values in by_name.items()}
    return SettingSummary(runs[0][0].label, dict(runs[0][0].varied), len(runs), measures)


def _state(
    run: PlannedRun, record: RunRecord | None, root: Path
) -> tuple[RunState, dict[str, float]]:
    """Return the state of a run, and the numbers that it measured if it is done."""
    status = record.status if record else "not started"
    if is_running(root, run.name):
        status = "running"
    elif status == "running":
        status = "killed"
    elif record and record.was_interrupted:
        status = "stopped"
    error = record.error if record and status in ("failed", "stopped") else None
    if error:
        error = {name: error.get(name) for name in ("cell", "source", "name", "message")}
    numbers = flat_numbers(record.metrics) if record and status == "done" else {}
    seconds, commit = (record.seconds, record.commit) if record else (0.0, None)
    odd = [name for name, value in numbers.items() if not math.isfinite(value)]
    folder = f"runs/{run.name}"
    return RunState(run.label, run.seed, folder, status, seconds, commit, error, odd), numbers


def _distinct(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(item, sort_keys=True): item for item in items}.values())


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
    write_json(folder / SUMMARY_NAME, asdict(summary) | {"seconds": summary.seconds})
    write_text(folder / "summary.md", summary_markdown(summary))
    write_text(folder / "summary.csv", summary_csv(summary))
    if set(summary.report) - set(_missing(summary)):
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
    fixed = ", ".join(f"{name} {json.dumps(value)}" for name, value in summary.fixed.items())
    fixed = f"; {escaped(fixed)}" if fixed else ""
    names = summary.report[:_COLUMNS]
    values = [[s.label, *(s.measures.get(name, "–") for name in names)] for s in summary.settings]
    rows = []
    for run in summary.runs:
        error = run.error or {}
        place = "" if error.get("cell") is None else f"cell {error['cell']}: "
        reason = f"{place}{error.get('name')}: {error.get('message')}" if error else ""
        rows.append(
            [run.label, str(run.seed), run.status, f"{run.seconds:.0f} s", run.folder, reason]
        )
    lines = [
        f"# {escaped(summary.title)}\n",
        f"Mean ± sample standard deviation (number of seeds) of `{summary.notebook}`, "
        f"{len(summary.done)} of {len(summary.runs)} runs done{fixed}.\n",
        table(["setting", *names], values, right=range(1, len(names) + 1)),
        *_notes(summary),
        "## Runs\n",
        table(["setting", "seed", "state", "time", "folder", "error"], rows, right=(1, 3)),
    ]
    return "\n".join(lines)


def summary_csv(summary: SweepSummary) -> str:
    """Return a row per setting and measured value: label, parameters, mean, spread, n, planned."""
    rows = [
        [s.label, json.dumps(s.parameters), name, one.mean, one.spread, one.n, s.planned]
        for s in summary.settings
        for name, one in s.measures.items()
    ]
    columns = ["setting", "parameters", "value", "mean", "spread", "n", "planned"]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False)


def _missing(summary: SweepSummary) -> list[str]:
    """Return the values of the report that no run recorded."""
    there = {name for setting in summary.settings for name in setting.measures}
    return [name for name in summary.report if name not in there]


def _notes(summary: SweepSummary) -> list[str]:
    unknown, done = _missing(summary), summary.done
    odd = sorted({name for run in summary.runs for name in run.not_finite})
    changed = sum((run.commit or "").endswith("+") for run in done)
    where = escaped("; ".join(map(machine_text, summary.machines)))
    more = len(summary.report) - _COLUMNS
    notes = [
        (unknown, f"Not recorded by any run: {escaped(', '.join(unknown))}."),
        (more > 0, f"{more} further values are in `summary.csv`."),
        (odd, f"Infinite or not a number in some run, and left out: {escaped(', '.join(odd))}."),
        (where, f"All runs one after another: {summary.seconds:.0f} s, on {where}."),
        (
            changed,
            f"{changed} of {len(done)} runs were made with uncommitted changes of the code: their "
            "commits, which end with +, do not have it.",
        ),
        (
            summary.code > 1,
            f"The runs were made at {summary.code} different commits of the code.",
        ),
    ]
    return [f"{note}\n" for needed, note in notes if needed]


def machine_text(machine: Mapping[str, Any]) -> str:
    """Return a record's machine in words."""
    return f"{machine.get('device')}, {machine.get('cores')} cores, {machine.get('platform')}"
