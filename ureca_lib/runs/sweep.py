"""Sweeps: a YAML file with one notebook, settings and seeds; each run is done once.

Everything in the file is checked against the notebook's typed parameters before anything runs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from filelock import FileLock, Timeout
from pydantic import BaseModel, Field, ValidationError

from ureca_lib.engine import EngineOptions, Progress, stopping
from ureca_lib.runs.parameters import (
    Parameter,
    check_parameters,
    json_value,
    notebook_parameters,
)
from ureca_lib.runs.record import RunRecord
from ureca_lib.runs.runner import RunFailedError, finished_run, run_notebook

_LONGEST = 64_000  # bytes of a file
_MOST_RUNS = 2_000  # of a sweep

_Model = TypeVar("_Model", bound=BaseModel)


class Setting(BaseModel, extra="forbid"):
    """Entry of `list`: parameters that belong together, under a name."""

    label: str = Field(min_length=1)  # name of the setting in the table and the plot
    parameters: dict[str, Any] = {}  # values by name


class SweepSettings(BaseModel, extra="forbid"):
    """Content of a sweep's YAML file. Values are texts, which the notebook's types decide about."""

    notebook: str  # path of the notebook, relative to this file
    title: str = ""  # heading of the table; the file's name if empty
    parameters: dict[str, Any] = {}  # fixed parameters; the others keep their defaults
    # values by parameter; every combination is run
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    settings: list[Setting] = Field([], alias="list")  # instead of a grid
    seeds: list[str] = Field(["0"], min_length=1)  # each setting runs once per seed
    # measured values in table and plot, such as "size.small" for an entry of a dictionary; all
    # plain numbers if empty
    report: list[str] = []
    timeout: int | None = None  # most seconds per cell


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    label: str  # of its setting
    seed: int
    varied: Mapping[str, Any]  # parameters of its setting
    parameters: Mapping[str, Any]  # all of the notebook's, without `output_dir`
    name: str  # of its folder; the same for the same notebook and parameters

    def __str__(self) -> str:
        return f"{self.label}, seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """A sweep's file, read and checked."""

    name: str
    path: Path
    notebook: Path
    settings: SweepSettings
    runs: tuple[PlannedRun, ...]

    @property
    def title(self) -> str:
        """Heading of the table."""
        return self.settings.title or self.name


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep's file and plan its runs; nothing is executed.

    Args:
        path: a YAML file with the fields of `SweepSettings`.

    Returns:
        The sweep: its runs in the file's order, seeds innermost.

    Raises:
        ValueError: naming the file, the entry and the reason: no such file or notebook, an unknown
            field or parameter, a value of another type, two equal runs, or too many of them.
    """
    source = Path(path)
    settings = read_yaml(source, SweepSettings)
    notebook = (source.parent / settings.notebook).absolute()
    try:
        runs = tuple(_plan(settings, notebook))
        by_name: dict[str, PlannedRun] = {}
        by_label: dict[str, PlannedRun] = {}
        for run in runs:
            if (other := by_name.setdefault(run.name, run)) is not run:
                raise ValueError(f"setting '{run}' is the same run as '{other}'")
            if by_label.setdefault(str(run), run) is not run:
                raise ValueError(f"two settings are called '{run.label}'")
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
    return Sweep(source.stem, source, notebook.resolve(), settings, runs)


def read_yaml(path: Path, model: type[_Model]) -> _Model:
    """Read a small YAML file whose values are texts, lists and mappings.

    Args:
        path: the file. A key that is there twice, an anchor and an alias are errors.
        model: fields of the file.

    Raises:
        ValueError: naming the file, the field and the reason; also if the file is too large.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError(f"is larger than {_LONGEST:,} bytes")
        return model.model_validate(yaml.load(path.read_text(encoding="utf-8"), _Loader))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{path}: {place}: {first['msg']}") from None
    except RecursionError:
        raise ValueError(f"{path}: lists and mappings are nested too deeply") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


class _Loader(yaml.BaseLoader):
    """Reads every value as a text: YAML 1.1 takes 012 for 10, 1:30 for 90 and 3e-4 for a text."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Refuse anchors: a few lines of aliases may stand for billions of values."""
        if getattr(self.peek_event(), "anchor", None):
            raise yaml.YAMLError("anchors and aliases (& and *) are not read; repeat the values")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice, of which YAML would take the later value."""
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"'{name}' is there twice in the block from line {line} on")
        return super().construct_mapping(node, deep)


def _plan(settings: SweepSettings, notebook: Path) -> Iterator[PlannedRun]:
    if settings.grid and settings.settings:
        raise ValueError("a sweep has a grid or a list, not both")
    combinations = math.prod(map(len, settings.grid.values()))
    runs = (len(settings.settings) or combinations) * len(settings.seeds)
    if runs > _MOST_RUNS:
        raise ValueError(f"{runs:,} runs are too many; a sweep has at most {_MOST_RUNS:,}")
    known = notebook_parameters(notebook)
    if "seed" not in known:
        raise ValueError(f"{notebook.name} has no parameter 'seed'")
    for label, varied in _expand(settings):
        for seed in settings.seeds:
            try:
                yield _planned(settings.parameters, label, varied, seed, notebook.stem, known)
            except ValueError as error:
                raise ValueError(f"setting '{label}': {error}") from None


def _expand(settings: SweepSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each setting's label and parameters: the list, or the product of the grid."""
    for item in settings.settings:
        yield item.label, item.parameters
    if not settings.settings:
        for values in itertools.product(*settings.grid.values()):
            varied = dict(zip(settings.grid, values, strict=True))
            shown = (
                f"{name} {value if isinstance(value, str) else json.dumps(json_value(value))}"
                for name, value in varied.items()
            )
            yield ", ".join(shown) or "defaults", varied


def _planned(
    fixed: Mapping[str, Any],
    label: str,
    varied: Mapping[str, Any],
    seed: str,
    stem: str,
    known: Mapping[str, Parameter],
) -> PlannedRun:
    wanted = {**fixed, **varied}
    if "output_dir" in wanted:
        raise ValueError("output_dir is each run's own folder; leave it out")
    if "seed" in wanted:
        raise ValueError("seeds are listed under 'seeds'")
    if twice := sorted(fixed.keys() & varied.keys()):
        raise ValueError(f"'{twice[0]}' is fixed under 'parameters' too")
    values = check_parameters(known, wanted | {"seed": seed}, texts=True)
    values.pop("output_dir", None)
    # Only values that are not at their defaults count, so that records keep their place when a
    # notebook gets another parameter, and sweeps that share a run find it.
    set_here = {name: value for name, value in values.items() if value != known[name].default}
    text = json.dumps([stem, set_here], sort_keys=True)
    name = f"{stem}-seed{values['seed']}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return PlannedRun(label, values["seed"], {n: values[n] for n in varied}, values, name)


@dataclass
class SweepResult:
    """Names of the runs' folders by how the runs ended."""

    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # done before, or by another process
    failed: list[str] = field(default_factory=list)
    stopped: bool = False  # by Ctrl-C


def run_sweep(
    sweep: Sweep,
    root: str | Path,
    jobs: int | None = 1,
    keep: bool = False,
    progress: bool = True,
    engine: EngineOptions | None = None,
) -> SweepResult:
    """Execute the runs of a sweep that are not done yet; a failing run does not stop the others.

    Several processes may run sweeps into one folder at the same time: each run is done by one of
    them, and a failure there counts here too. A killed sweep is resumed by the same call, which
    repeats only unfinished and failed runs.

    Args:
        sweep: from `load_sweep`.
        root: folder of the sweeps; each run gets `runs/NAME` in it.
        jobs: runs at a time; each gets its share of the cores as threads. None: one, on Ray all.
        keep: keep finished runs even if the notebook or the library has changed since, or if only
            the record is there, as in a clone of a repository.
        progress: print a line as each run begins and ends.
        engine: that runs them; None is this machine. On Ray, all machines see the folder.

    Returns:
        The runs by how they ended. After Ctrl-C `.stopped` is set, and no run is left running.

    Raises:
        ValueError: fewer than one job.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"a sweep takes at least one job, not {jobs}")
    engine = engine or EngineOptions()
    engine = replace(engine, jobs=jobs or (None if engine.engine == "ray" else 1))
    folder, result = Path(root).resolve(), SweepResult()
    runs = {run.name: run for run in sweep.runs}
    result.kept = [name for name, run in runs.items() if finished(sweep, run, folder, keep)]
    tasks = [
        {
            "name": name,
            "root": str(folder),
            "notebook": str(sweep.notebook),
            "parameters": dict(run.parameters),
            "timeout": sweep.settings.timeout,
            # a record that differs from this one was written by another process meanwhile
            "before": _version(RunRecord.load(folder / "runs" / name)),
        }
        for name, run in runs.items()
        if name not in result.kept
    ]
    report = Progress(len(tasks), progress)
    if result.kept:
        report.say(f"{len(result.kept)} of {len(runs)} runs were done before")
    try:
        # runs of other processes come last: nothing waits for them as long as there is work
        for wait in (False, True):
            named = ((str(runs[task["name"]]), task | {"wait": wait}) for task in tasks)
            tasks = []
            with closing(engine.map(attempt_run, report.begun(named), len(runs))) as outcomes:
                for task, state, error, _ in outcomes:
                    name = task["name"]
                    if state == "elsewhere":
                        tasks.append(task)
                        continue
                    if error:
                        state = _note_death(task, error)
                    lists = {"done": result.done, "kept": result.kept}
                    lists.get(state, result.failed).append(name)
                    report.ended(f"{state}: {runs[name]} -> {folder / 'runs' / name}")
    except KeyboardInterrupt:
        result.stopped = True
    return result


def attempt_run(task: Mapping[str, Any]) -> str:
    """Execute one run of a sweep under its lock; `run_sweep` calls it in a process of its own.

    Returns:
        "done" or "failed"; "kept" or "failed in another process" if another process ended the run
        since the sweep began; "elsewhere" if one has the run now and `wait` is not set.

    Raises:
        ValueError: another notebook of the same name took the folder.
    """
    root, notebook = Path(task["root"]), Path(task["notebook"])
    folder = root / "runs" / task["name"]
    # the system frees the lock when this process ends, however it ends
    lock = run_lock(root, task["name"])
    try:
        lock.acquire(timeout=-1 if task["wait"] else 0)
    except Timeout:
        return "elsewhere"
    record = RunRecord.load(folder)
    if record and not record.is_of(notebook):
        raise ValueError(
            f"{folder} is for runs of {record.path or record.notebook}: give the sweep another "
            "folder (--out), or the notebook another name"
        )
    if record and _version(record) != task["before"] and not record.was_interrupted:
        if record.status == "done":
            return "kept"
        if record.status == "failed":
            return "failed in another process"
    try:
        run_notebook(notebook, task["parameters"], folder, timeout=task["timeout"], progress=False)
    except RunFailedError as error:
        if stopping.is_set():  # the kernel did not die by itself
            error.record.error |= {"name": "Interrupted", "message": "stopped"}
            error.record.save(folder)
        return "failed"
    return "done"


def run_lock(root: Path, name: str) -> FileLock:
    """Return the lock of a run, which the system frees when its process ends.

    Args:
        root: folder of the sweeps.
        name: of the run's folder.
    """
    path = root / ".locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # the file stays: removing it would let two processes lock two files of this name
    return FileLock(path, thread_local=False)


def is_running(root: Path, name: str) -> bool:
    """Tell whether a process holds the lock of a run."""
    try:
        with run_lock(root, name).acquire(timeout=0):
            return False
    except Timeout:
        return True


def finished(sweep: Sweep, run: PlannedRun, root: Path, keep: bool) -> bool:
    """Tell whether a run is done and need not be repeated; for `keep` see `run_sweep`."""
    return bool(finished_run(sweep.notebook, run.parameters, root / "runs" / run.name, keep))


def _version(record: RunRecord | None) -> list[str] | None:
    """Return what differs between two attempts of a run, and between begin and end of one."""
    return [record.started, record.status] if record else None


def _note_death(task: Mapping[str, Any], reason: str) -> str:
    """Write the reason to the record of a run whose process died; return the run's state."""
    root, notebook = Path(task["root"]), Path(task["notebook"])
    folder = root / "runs" / task["name"]
    # another process may have begun the run anew, or the folder may be another notebook's
    with suppress(Timeout), run_lock(root, task["name"]).acquire(timeout=0):
        record = RunRecord.load(folder)
        if record and not record.is_of(notebook):
            return f"failed ({reason})"
        if record is None or _version(record) == task["before"]:  # it died before its first word
            record = RunRecord.begin(notebook, "", task["parameters"])
        if record.status == "done":  # it died after its last
            return "done"
        if record.status == "running":
            record.status = "failed"
            record.error = {"cell": None, "source": "", "name": "WorkerDied", "message": reason}
            record.save(folder)
    return f"failed ({reason})"
