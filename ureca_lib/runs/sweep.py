"""Sweeps: a YAML file with one notebook, settings and seeds; each run is done once.

Everything in the file is checked against the notebook's typed parameters before anything runs.
"""

from __future__ import annotations

import builtins
import hashlib
import itertools
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ureca_lib.engine import Outcome, map_tasks, stopping
from ureca_lib.markdown import printable
from ureca_lib.runs.parameters import (
    Parameter,
    ParameterError,
    check_parameters,
    notebook_parameters,
)
from ureca_lib.runs.record import RunRecord, path_in_project
from ureca_lib.runs.runner import RunFailedError, finished_run, run_notebook

_LONGEST = 64_000  # bytes of a file
_MOST_VALUES = 10_000  # in a file, with every alias written out
_DEEPEST = 50  # lists and mappings inside each other
_MOST_RUNS = 2_000  # of a sweep


_Model = TypeVar("_Model", bound=BaseModel)


class SweepError(ValueError):
    """The sweep cannot be run; the message names its file and the reason."""


class Setting(BaseModel):
    """Entry of `list`: parameters that belong together, under a name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    label: str = Field(min_length=1, description="name of the setting in the table and the plot")
    parameters: dict[str, Any] = Field(default_factory=dict, description="values by name")


class SweepSettings(BaseModel):
    """Content of a sweep's YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    notebook: str = Field(description="path of the notebook, relative to this file")
    title: str = Field("", description="heading of the table; the file's name if empty")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="fixed parameters; the others keep their defaults"
    )
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="values by parameter; every combination is run"
    )
    settings: list[Setting] = Field(
        default_factory=list, alias="list", description="settings, instead of a grid"
    )
    seeds: list[int] = Field(
        default_factory=lambda: [0], min_length=1, description="each setting runs once per seed"
    )
    report: list[str] = Field(
        default_factory=list,
        description="measured values in table and plot, such as 'size.small' for an entry of a "
        "dictionary; all plain numbers if empty",
    )
    timeout: float | int | None = Field(None, description="most seconds per cell")


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
        SweepError: naming the file, the entry and the reason: no such file or notebook, an unknown
            field or parameter, a value of another type, two equal runs, or too many of them.
    """
    source = Path(path)
    settings = _settings(source)
    notebook = source.parent / settings.notebook
    try:
        known = notebook_parameters(notebook)
    except (OSError, ValueError) as error:
        raise SweepError(f"{source}: {error}") from None
    runs = [
        _plan(source, notebook, known, settings, label, varied, seed)
        for label, varied in expand(settings)
        for seed in settings.seeds
    ]
    _no_twins(source, runs)
    return Sweep(source.stem, source, notebook.resolve(), settings, tuple(runs))


def expand(settings: SweepSettings) -> list[tuple[str, dict[str, Any]]]:
    """Return each setting's label and parameters: the list, or the product of the grid.

    Args:
        settings: with a grid, a list, or neither, which is one setting of defaults.
    """
    if settings.settings:
        return [(item.label, dict(item.parameters)) for item in settings.settings]
    combinations = itertools.product(*settings.grid.values())
    settings_of = [dict(zip(settings.grid, values, strict=True)) for values in combinations]
    return [(_label(varied), varied) for varied in settings_of]


def _label(varied: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in varied.items()) or "defaults"


def _shown(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError):  # such as a date, which the run's own check refuses by name
        return str(value)


def _settings(path: Path) -> SweepSettings:
    settings = read_yaml(path, SweepSettings)
    if settings.grid and settings.settings:
        raise SweepError(f"{path}: a sweep has a grid or a list, not both")
    for name, values in settings.grid.items():
        if not values:
            raise SweepError(f"{path}: grid.{name} has no values")
    combinations = math.prod(map(len, settings.grid.values()))
    runs = (len(settings.settings) or combinations) * len(settings.seeds)
    if runs > _MOST_RUNS:
        raise SweepError(f"{path}: {runs:,} runs are too many; a sweep has at most {_MOST_RUNS:,}")
    return settings


def read_yaml(path: Path, model: type[_Model]) -> _Model:
    """Read a small YAML file; a key that is there twice is an error, not the later value.

    Args:
        path: the file.
        model: fields of the file.

    Raises:
        SweepError: naming the file, the field and the reason; also if the file is too large.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise SweepError(f"{path}: is larger than {_LONGEST:,} bytes")
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is not None:
            _check_size(node)
        content = loader.construct_document(node) if node is not None else None
        if not isinstance(content, dict):
            raise SweepError(f"{path}: holds no 'name: value' lines")
        return model.model_validate(content)
    except SweepError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: cannot read it ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SweepError(f"{path}: {place or 'the file'}: {first['msg']}") from None
    # PyYAML raises these for values that are not what their form promises, such as 2020-99-99
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SweepError(f"{path}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SweepError(f"{path}: lists and mappings are nested too deeply") from None


def _check_size(root: yaml.Node) -> None:
    """Refuse a file whose aliases stand for more values than anybody would write."""
    known: dict[int, tuple[int, int]] = {}  # number of values and height, by node

    def measured(node: yaml.Node, depth: int) -> tuple[int, int]:
        if depth > _DEEPEST:
            raise yaml.YAMLError("lists and mappings are nested too deeply")
        if id(node) not in known:
            inside = [] if isinstance(node, yaml.ScalarNode) else node.value
            parts = [
                part for item in inside for part in (item if isinstance(item, tuple) else (item,))
            ]
            sizes = [measured(part, depth + 1) for part in parts]
            known[id(node)] = (
                1 + sum(size for size, _ in sizes),
                1 + max((height for _, height in sizes), default=0),
            )
        size, height = known[id(node)]
        if size > _MOST_VALUES:
            raise yaml.YAMLError(f"holds more than {_MOST_VALUES:,} values")
        if depth + height > _DEEPEST:
            raise yaml.YAMLError("lists and mappings are nested too deeply")
        return size, height

    measured(root, 0)


_MERGE = "tag:yaml.org,2002:merge"  # of the key <<, whose mapping the block's own keys override
# numbers of YAML 1.2. In YAML 1.1, PyYAML's, 012 is 10, 1:30 is 90, and 3e-4 is a text
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"""^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9]+[eE][-+]?[0-9]+
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        letter: [(tag, form) for tag, form in forms if tag not in _NUMBERS]
        for letter, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"'{key}' is there twice in the block from line {line} on")
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _form in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _form, list("-+.0123456789"))


def _plan(
    source: Path,
    notebook: Path,
    known: Mapping[str, Parameter],
    settings: SweepSettings,
    label: str,
    varied: dict[str, Any],
    seed: int,
) -> PlannedRun:
    where = f"{source}: setting '{label}'"
    if "output_dir" in settings.parameters or "output_dir" in varied:
        raise SweepError(f"{where}: output_dir is each run's own folder; leave it out")
    if "seed" in settings.parameters or "seed" in varied:
        raise SweepError(f"{where}: seeds are listed under 'seeds'")
    if "seed" not in known:
        raise SweepError(f"{where}: {notebook.name} has no parameter 'seed'")
    twice = sorted(settings.parameters.keys() & varied.keys())
    if twice:
        raise SweepError(f"{where}: '{twice[0]}' is fixed under 'parameters' too")
    wanted = {**settings.parameters, **varied, "seed": seed}
    try:
        values = check_parameters(known, typed(known, wanted))
    except ParameterError as error:
        raise SweepError(f"{where}: {error}") from None
    values.pop("output_dir", None)
    return PlannedRun(label, seed, varied, values, _run_name(notebook.stem, values, known))


def typed(known: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn strings of a YAML file into floats if the parameter is one: `inf`, or `"3e-4"`.

    Raises:
        ParameterError: a string that is no number, for a float.
    """
    return {
        name: known[name].parse(value)
        if isinstance(value, str) and name in known and known[name].type_name == "float"
        else value
        for name, value in values.items()
    }


def _run_name(stem: str, values: Mapping[str, Any], known: Mapping[str, Parameter]) -> str:
    """Return the name of a run's folder, from all that it runs: sweeps that share a run find it.

    Only values that are not at their defaults count, so that records keep their place when a
    notebook gets another parameter.
    """
    set_here = {name: value for name, value in values.items() if value != known[name].default}
    text = json.dumps([stem, set_here], sort_keys=True)
    return f"{stem}-seed{values['seed']}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _no_twins(source: Path, runs: list[PlannedRun]) -> None:
    labels: dict[str, Mapping[str, Any]] = {}
    names: dict[str, PlannedRun] = {}
    for run in runs:
        if labels.setdefault(run.label, run.varied) != run.varied:
            raise SweepError(f"{source}: two settings are called '{run.label}'")
        other = names.setdefault(run.name, run)
        if other is not run:
            raise SweepError(
                f"{source}: setting '{run.label}' with seed {run.seed} is the same run as "
                f"'{other.label}' with seed {other.seed}"
            )


@dataclass
class SweepResult:
    """Names of the runs' folders by how the runs ended."""

    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # done before, or by another process
    failed: list[str] = field(default_factory=list)
    stopped: bool = False  # by Ctrl-C


def run_sweep(
    sweep: Sweep, root: str | Path, jobs: int = 1, keep: bool = False, progress: bool = True
) -> SweepResult:
    """Execute the runs of a sweep that are not done yet; a failing run does not stop the others.

    Several processes may run sweeps into one folder at the same time: each run is done by one of
    them, and a failure there counts here too. A killed sweep is resumed by the same call, which
    repeats only unfinished and failed runs.

    Args:
        sweep: from `load_sweep`.
        root: folder of the sweeps; each run gets `runs/NAME` in it.
        jobs: runs at a time; each gets its share of the cores as threads.
        keep: keep finished runs even if the notebook or the library has changed since, or if only
            the record is there, as in a clone of a repository.
        progress: print a line as each run begins and ends.

    Returns:
        The runs by how they ended. After Ctrl-C `.stopped` is set, and no run is left running.

    Raises:
        ValueError: fewer than one job.
        SweepError: a run's folder holds a run of another notebook with the same file name.
    """
    if jobs < 1:
        raise ValueError(f"a sweep takes at least one job, not {jobs}")
    folder, result = Path(root), SweepResult()
    # a record that differs from this one later was written by another process meanwhile
    before = {run.name: _version(earlier_record(sweep, run, folder)) for run in sweep.runs}
    report = _Progress(sweep, folder, jobs, progress)
    waiting = list(sweep.runs)
    try:
        # runs of other processes come last: nothing waits for them as long as there is work
        for wait in (False, True):
            busy: list[PlannedRun] = []

            def tasks(runs: list[PlannedRun] = waiting, wait: bool = wait) -> Iterator[dict]:
                for run in runs:
                    if _finished(sweep, run, folder, keep):
                        result.kept.append(run.name)
                        report.end(run, "done before")
                    else:
                        report.begin(run, wait)
                        yield _task(sweep, run, folder, before[run.name], wait)

            with closing(map_tasks(attempt_run, tasks(), jobs)) as outcomes:
                for outcome in outcomes:
                    run = next(run for run in waiting if run.name == outcome.item["name"])
                    if outcome.value == "elsewhere":
                        busy.append(run)
                    else:
                        _note_end(sweep, run, folder, before[run.name], outcome, result, report)
            waiting = busy
    except KeyboardInterrupt:
        result.stopped = True
    return result


def attempt_run(task: Mapping[str, Any]) -> str:
    """Execute one run of a sweep under its lock; `run_sweep` calls it in a process of its own.

    Returns:
        "done" or "failed"; "kept" or "failed elsewhere" if another process ended the run since
        the sweep began; "elsewhere" if another process has the run now and `wait` is not set;
        "foreign" if another notebook of the same name took the folder.
    """
    folder, notebook = Path(task["folder"]), Path(task["notebook"])
    # the system frees the lock when this process ends, however it ends
    lock = FileLock(task["lock"], thread_local=False)
    try:
        lock.acquire(timeout=-1 if task["wait"] else 0)
    except Timeout:
        return "elsewhere"
    record = RunRecord.load(folder)
    if record and not record.is_of(notebook):
        return "foreign"
    if record and _version(record) != task["before"] and not record.was_interrupted:
        # another process has had the run since the sweep began
        if record.status == "done":
            return "kept"
        if record.status == "failed":
            return "failed elsewhere"
    try:
        run_notebook(notebook, task["parameters"], folder, timeout=task["timeout"], progress=False)
    except RunFailedError as error:
        if stopping.is_set():  # the kernel did not die by itself
            place = {name: (error.record.error or {}).get(name) for name in ("cell", "source")}
            error.record.error = place | {"name": "Interrupted", "message": "stopped"}
            error.record.save(folder)
        return "failed"
    return "done"


def runs_folder(root: Path) -> Path:
    """Return the folder of all sweeps' runs: sweeps that share a run do it once."""
    return root / "runs"


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


def check_folders(sweeps: Sequence[tuple[Sweep, Path]]) -> None:
    """Check that no folder is for runs of two notebooks with the same file name.

    Args:
        sweeps: each with the folder of the sweeps that it is for.

    Raises:
        SweepError: naming the sweep, the folder and both notebooks.
    """
    notebooks: dict[Path, Path] = {}
    for sweep, root in sweeps:
        for run in sweep.runs:
            earlier_record(sweep, run, root)
            folder = (runs_folder(root) / run.name).resolve()
            other = notebooks.setdefault(folder, sweep.notebook)
            if other != sweep.notebook:
                raise _shared_folder(sweep, folder, path_in_project(other))


def earlier_record(sweep: Sweep, run: PlannedRun, root: Path) -> RunRecord | None:
    """Read the record in a run's folder; None if there is none.

    Raises:
        SweepError: it is of another notebook with the same file name, and would be overwritten.
    """
    folder = runs_folder(root) / run.name
    record = RunRecord.load(folder)
    if record is None or record.is_of(sweep.notebook):
        return record
    raise _shared_folder(sweep, folder, record.path or record.notebook)


def _shared_folder(sweep: Sweep, folder: Path, other: str) -> SweepError:
    return SweepError(
        f"{sweep.path}: {folder} is for runs of {other}, and those of "
        f"{path_in_project(sweep.notebook)} would go there too: give the sweep another folder "
        "(--out), or the notebook another name"
    )


def _version(record: RunRecord | None) -> list[str] | None:
    """Return what differs between two attempts of a run, and between begin and end of one."""
    return [record.started, record.status] if record else None


def _finished(sweep: Sweep, run: PlannedRun, root: Path, keep: bool) -> bool:
    folder = runs_folder(root) / run.name
    return finished_run(sweep.notebook, run.parameters, folder, keep) is not None


def _task(
    sweep: Sweep, run: PlannedRun, root: Path, before: list[str] | None, wait: bool
) -> dict[str, Any]:
    place = root.resolve()
    return {
        "name": run.name,
        "notebook": str(sweep.notebook),
        "parameters": dict(run.parameters),
        "folder": str(runs_folder(place) / run.name),
        "lock": run_lock(place, run.name).lock_file,
        "timeout": sweep.settings.timeout,
        "before": before,
        "wait": wait,
    }


def _note_end(
    sweep: Sweep,
    run: PlannedRun,
    root: Path,
    before: list[str] | None,
    outcome: Outcome,
    result: SweepResult,
    report: _Progress,
) -> None:
    """Count a run that has ended; if its process died, write the reason to its record."""
    state = outcome.value
    if state == "foreign":
        earlier_record(sweep, run, root)  # raises
    if outcome.error:
        # a process may also die after the end of its run
        state = "done" if _finished(sweep, run, root, keep=False) else "failed"
    if outcome.error and state == "failed":
        _note_death(sweep, run, root, before, outcome.error)
    ended = {"done": result.done, "kept": result.kept}.get(state, result.failed)
    ended.append(run.name)
    texts = {"kept": "done in another process", "failed elsewhere": "failed in another process"}
    report.end(run, texts.get(state, state))


def _note_death(
    sweep: Sweep, run: PlannedRun, root: Path, before: list[str] | None, reason: str
) -> None:
    # if another process has begun the run anew, the record is of that one
    with suppress(Timeout), run_lock(root, run.name).acquire(timeout=0):
        record = earlier_record(sweep, run, root)
        if record is None or _version(record) == before:  # the process died before its first word
            record = RunRecord.begin(sweep.notebook, "", run.parameters)
        elif record.status != "running":  # it has the reason
            return
        record.status = "failed"
        record.error = {"cell": None, "source": "", "name": "WorkerDied", "message": reason}
        record.save(runs_folder(root) / run.name)


class _Progress:
    """Lines about runs that begin and end, with the time left."""

    def __init__(self, sweep: Sweep, root: Path, jobs: int, shown: bool):
        self._runs, self._jobs, self._all = runs_folder(root), jobs, len(sweep.runs)
        # in a notebook, standard error is a red block
        self._stream = sys.stdout if hasattr(builtins, "__IPYTHON__") else sys.stderr
        self._shown, self._ended = shown, 0
        self._began: dict[str, float] = {}
        self._seconds: list[float] = []

    def begin(self, run: PlannedRun, waits: bool) -> None:
        self._began[run.name] = time.monotonic()
        self._say(f"{'waits for another process' if waits else 'begins'}: {run}")

    def end(self, run: PlannedRun, how: str) -> None:
        self._ended += 1
        took = ""
        if began := self._began.get(run.name):
            self._seconds.append(time.monotonic() - began)
            took = f" after {self._seconds[-1]:.0f} s"
        place = self._runs / run.name
        self._say(f"[{self._ended}/{self._all}] {how}{took}: {run} -> {place}{self._left()}")

    def _left(self) -> str:
        todo = self._all - self._ended
        if not (todo and self._seconds):
            return ""
        minutes = statistics.fmean(self._seconds) * todo / self._jobs / 60
        return f"; about {minutes:.0f} min left" if minutes >= 1 else "; less than 1 min left"

    def _say(self, text: str) -> None:
        if self._shown:
            print(printable(text), file=self._stream, flush=True)
