"""The reference run: every notebook at the settings of one file, small enough to be committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ureca_lib.runs.parameters import (
    NotebookError,
    ParameterError,
    check_parameters,
    notebook_parameters,
    same_value,
)
from ureca_lib.runs.record import RECORD_NAME, RunRecord
from ureca_lib.runs.sweep import SweepError, read_yaml, typed

NOTEBOOKS = "[0-9][0-9]_*.ipynb"


class ReferenceFileError(ValueError):
    """A reference file that does not go with the notebooks."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    notebooks: dict[str, dict[str, Any]] = Field(description="parameters by notebook, no suffix")


@dataclass(frozen=True)
class ReferenceRun:
    """One notebook of the reference, and all of its parameters but `output_dir`."""

    notebook: Path
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.notebook.stem


def load_reference(path: str | Path, notebooks: str | Path) -> list[ReferenceRun]:
    """What the reference run executes: every numbered notebook, in order.

    Args:
        path: YAML; `notebooks` holds parameters by notebook, for those not run with defaults.
        notebooks: the folder of the notebooks.

    Raises:
        ReferenceFileError: naming the file and what is wrong: a notebook, parameter or type.
    """
    source = Path(path)
    found = {place.stem: place for place in sorted(Path(notebooks).glob(NOTEBOOKS))}
    try:
        wanted = read_yaml(source, _File).notebooks
    except SweepError as error:
        raise ReferenceFileError(str(error)) from None
    if unknown := [name for name in wanted if name not in found]:
        raise ReferenceFileError(f"{source}: there is no notebook '{unknown[0]}' in {notebooks}")
    return [_planned(source, place, wanted.get(name, {})) for name, place in found.items()]


def compare_reference(runs: Sequence[ReferenceRun], folder: str | Path) -> list[str]:
    """Where a committed reference does not go with the present notebooks and their settings.

    Args:
        runs: from `load_reference`.
        folder: of the committed reference.

    Returns:
        One line a difference; empty where all records are of done runs with these parameters.
    """
    root, differences = Path(folder), []
    there = {path.parent.name for path in root.glob(f"*/{RECORD_NAME}")}
    differences += [f"{name}: a record of no notebook" for name in there - {r.name for r in runs}]
    for run in runs:
        record = RunRecord.load(root / run.name)
        if record is None:
            differences.append(f"{run.name}: no record")
            continue
        if record.status != "done":
            differences.append(f"{run.name}: its run is '{record.status}'")
        then = {name: value for name, value in record.parameters.items() if name != "output_dir"}
        for name in sorted(then.keys() | run.parameters.keys()):
            old, new = then.get(name, "missing"), run.parameters.get(name, "missing")
            if not same_value(old, new):
                differences.append(f"{run.name}: {name} was {old!r}, and now is {new!r}")
    return sorted(differences)


def _planned(source: Path, notebook: Path, wanted: Mapping[str, Any]) -> ReferenceRun:
    try:
        known = notebook_parameters(notebook)
        values = check_parameters(known, typed(known, wanted))
    except (NotebookError, ParameterError) as error:
        raise ReferenceFileError(f"{source}: {notebook.stem}: {error}") from None
    if "output_dir" in wanted:
        raise ReferenceFileError(f"{source}: {notebook.stem}: output_dir is the run's own folder")
    values.pop("output_dir", None)
    return ReferenceRun(notebook, values)
