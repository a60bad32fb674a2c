"""What a sweep measured: mean, spread and number over seeds, from the runs' own `run.json`."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ureca_lib.runs.parameters import notebook_parameters, same_parameters
from ureca_lib.runs.record import RunRecord
from ureca_lib.runs.sweep import PlannedRun, Sweep, is_running

SUMMARY_NAME = "summary.json"


@dataclass(frozen=True)
class Measure:
    """One measured value of a setting, over its seeds."""

    mean: float
    spread: float | None  # sample standard deviation (n - 1); None for a single run
    n: int
    values: dict[str, float]  # by seed


@dataclass(frozen=True)
class SettingSummary:
    """One row of the table."""

    label: str
    parameters: dict[str, Any]  # what the setting sets
    planned: int  # runs, one a seed
    measures: dict[str, Measure]  # by name; `size.small` for `small` in the dictionary `size`


@dataclass(frozen=True)
class RunState:
    """Where one run is: `done`, `failed`, `stopped`, `running`, `killed` or `not started`."""

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
        """What the finished runs took, one after another."""
        return round(sum(run.seconds for run in self.runs if run.status == "done"), 1)

    @property
    def failures(self) -> list[RunState]:
        """Runs that stopped with an error."""
        return [run for run in self.runs if run.status == "failed"]

    @property
    def is_complete(self) -> bool:
        """Whether every run is done."""
        return all(run.status == "done" for run in self.runs)

    def has_group(self, group: str, value: str) -> bool:
        """Whether some run recorded a value in a dictionary of dictionaries, such as by size."""
        names = [name for setting in self.settings for name in setting.measures]
        return any(n.startswith(f"{group}.") and n.endswith(f".{value}") for n in names)

    def as_json(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        return {**asdict(self), "seconds": self.seconds}


def summarize_sweep(sweep: Sweep, root: str | Path) -> SweepSummary:
    """Read the records of a sweep's runs; what is not done is listed, and not counted.

    Args:
        sweep: from `load_sweep`.
        root: folder of the sweeps.

    Returns:
        Means over the seeds that are done, with the sample standard deviation. A record of other
        parameters, as of a default that was changed since, is not one of the run's; nor is one of
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
        FileNotFoundError: there is none; the message says what writes it.
        ValueError: naming the file, where it is not a summary.
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
    """The summaries of all sweeps in a folder, by name; empty where there is none.

    Raises:
        ValueError: naming a file that is not a summary.
    """
    found = [read_summary(path) for path in sorted(Path(folder).glob(f"*/{SUMMARY_NAME}"))]
    return {summary.name: summary for summary in found}


def flat_numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in what a run measured; `size.small` for one in a dictionary.

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
    """Mean, sample standard deviation and number of values by seed; at least one, all finite."""
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
    """Names of measured numbers that are not in dictionaries."""
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
