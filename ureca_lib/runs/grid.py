"""A sweep's file: one notebook, fixed parameters, a grid or a list of settings, seeds.

Everything is checked against the notebook's typed parameters before anything runs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ureca_lib.runs.parameters import (
    NotebookError,
    Parameter,
    ParameterError,
    check_parameters,
    notebook_parameters,
)
from ureca_lib.runs.yaml_values import ValueLoader


class SweepError(ValueError):
    """A sweep's file that cannot be run; the message names the file and what is wrong in it."""


class Setting(BaseModel):
    """One entry of `list`: parameters that belong together, under a name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    label: str = Field(min_length=1, description="what the table and the plot call it")
    parameters: dict[str, Any] = Field(default_factory=dict, description="values by name")


class SweepSettings(BaseModel):
    """What a sweep's YAML file says."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    notebook: str = Field(description="path of the notebook, relative to this file")
    title: str = Field("", description="what the table is headed with; the file's name if empty")
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
        default_factory=lambda: [0], min_length=1, description="each setting runs once a seed"
    )
    report: list[str] = Field(
        default_factory=list,
        description="measured values of table and plot, 'size.small' for one in a dictionary; "
        "all that are plain numbers if empty",
    )
    timeout: float | int | None = Field(None, description="seconds that a cell may take")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    label: str  # of its setting
    seed: int
    varied: Mapping[str, Any]  # what its setting sets
    parameters: Mapping[str, Any]  # all of the notebook's, without `output_dir`
    name: str  # of its folder; the same for the same notebook and parameters


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
        """What the table is headed with."""
        return self.settings.title or self.name


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep's file and plan its runs; nothing is executed.

    Args:
        path: a YAML file with the fields of `SweepSettings`.

    Returns:
        The sweep: its runs in the file's order, seeds innermost.

    Raises:
        SweepError: naming the file, the entry and the reason: no such file or notebook, a field or
            parameter that is not known, a value of another type, or two runs that are the same.
    """
    source = Path(path)
    settings = _read(source)
    notebook = source.parent / settings.notebook
    try:
        known = notebook_parameters(notebook)
    except (FileNotFoundError, NotebookError, ParameterError) as error:
        raise SweepError(f"{source}: {error}") from None
    runs = [
        _plan(source, notebook, known, settings, label, varied, seed)
        for label, varied in expand(settings)
        for seed in settings.seeds
    ]
    _no_twins(source, runs)
    return Sweep(source.stem, source, notebook.resolve(), settings, tuple(runs))


def expand(settings: SweepSettings) -> list[tuple[str, dict[str, Any]]]:
    """Each setting's label and parameters: the list, or the product of the grid.

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
    except (TypeError, ValueError):  # a date, say, which the run's own check refuses by name
        return str(value)


def _read(path: Path) -> SweepSettings:
    content = read_yaml(path)
    try:
        settings = SweepSettings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SweepError(f"{path}: {place or 'the file'}: {first['msg']}") from None
    if settings.grid and settings.settings:
        raise SweepError(f"{path}: a sweep has a grid or a list, not both")
    for name, values in settings.grid.items():
        if not values:
            raise SweepError(f"{path}: grid.{name} has no values")
    return settings


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a key that is there twice is an error, not the later one.

    Raises:
        SweepError: naming the file and the reason.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: cannot read it ({error})") from None
    except yaml.YAMLError as error:
        raise SweepError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SweepError(f"{path}: holds no 'name: value' lines")
    return content


_MERGE = "tag:yaml.org,2002:merge"  # of the key <<, whose mapping the block's own keys override


class _UniqueKeys(ValueLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != _MERGE]
        keys = [self.construct_object(key, deep=True) for key in own]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"'{twice}' is there twice in the block from line {line} on")
        return super().construct_mapping(node, deep)


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
    """Values from YAML, with strings made floats where one is wanted: `inf`, or a number quoted.

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
    """The folder of a run, by what it runs: sweeps that share a run find it there.

    Only what is not at its default counts, so that records keep their place when a notebook gets
    another parameter.
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
