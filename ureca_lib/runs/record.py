"""`run.json`: the record of a notebook run: parameters, code, machine and measured values.

papermill's own metadata holds neither the defaults of parameters nor the state of the code.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import nbformat
from pydantic import TypeAdapter

from ureca_lib.journal import write_json
from ureca_lib.provenance import environment_record, library_hash, project_root

RECORD_NAME = "run.json"
METRICS_NAME = "metrics.json"


@dataclass
class RunRecord:
    """One run of a notebook, as `run.json` holds it."""

    notebook: str
    key: str
    parameters: dict[str, Any]
    status: Literal["running", "done", "failed"]
    output: str
    seconds: float = 0.0
    started: str = ""
    seed: int | None = None
    commit: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    path: str | None = None  # of the notebook in its project; None in records of earlier versions
    repeated: bool = field(default=False, compare=False)  # the record of an earlier run, reused

    @classmethod
    def begin(cls, notebook: Path, key: str, parameters: Mapping[str, Any]) -> RunRecord:
        """Return the record of a run that starts now, with versions, machine and commit.

        Args:
            notebook: path of the notebook.
            key: from `run_key`.
            parameters: all values, as the record shows them.
        """
        seed = parameters.get("seed")
        return cls(
            *(notebook.name, key, dict(parameters), "running", notebook.name),
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seed=seed if isinstance(seed, int) else None,
            path=path_in_project(notebook),
            **environment_record(notebook.parent),
        )

    @property
    def was_interrupted(self) -> bool:
        """True if the run was stopped from outside, which is not a failure of the notebook."""
        return self.status == "failed" and (self.error or {}).get("name") == "Interrupted"

    def save(self, folder: Path) -> None:
        """Replace `run.json` in the run's folder."""
        content = asdict(self)
        del content["repeated"]
        write_json(folder / RECORD_NAME, content)

    def is_of(self, notebook: Path) -> bool:
        """Tell a run of this notebook from runs of others with the same file name.

        If the recorded path has no notebook any more, this one was moved from there.

        Args:
            notebook: path of the notebook.
        """
        if self.notebook != notebook.name:
            return False
        if self.path is None or self.path == path_in_project(notebook):
            return True
        return not (_project(notebook) / self.path).is_file()

    @classmethod
    def load(cls, folder: Path) -> RunRecord | None:
        """Read the record in a folder; None if there is none that can be read."""
        try:
            record = TypeAdapter(cls).validate_json((folder / RECORD_NAME).read_bytes())
        except (OSError, ValueError):
            return None
        # a file of this folder, whatever the record says
        record.output = Path(record.output).name
        return record


def record_metrics(output_dir: str | Path, **metrics: Any) -> None:
    """Record measured values of a notebook; the runner copies them to `run.json`.

    Args:
        output_dir: the run's folder, which the runner sets as the parameter of that name.
        metrics: numbers, texts, lists and dictionaries that JSON can hold. Earlier ones stay,
            unless they have the same name.
    """
    path = Path(output_dir) / METRICS_NAME
    write_json(path, read_metrics(path.parent) | metrics)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the values that `record_metrics` wrote in a folder; empty if there are none."""
    path = folder / METRICS_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def path_in_project(notebook: Path) -> str:
    """Return a notebook's path from the top of its project: the same in every clone."""
    return notebook.resolve().relative_to(_project(notebook)).as_posix()


def _project(notebook: Path) -> Path:
    """Return the top of the notebook's project, or else the folder above the notebook's."""
    folders = notebook.resolve().parents
    return project_root(folders[0]) or folders[min(1, len(folders) - 1)]


def run_key(notebook: Path, parameters: Mapping[str, Any]) -> str:
    """Hash everything that decides a run: code of the notebook, parameters, the library."""
    cells = nbformat.read(notebook, as_version=4).cells
    content = [[cell.cell_type, cell.source] for cell in cells]
    settings = {name: value for name, value in parameters.items() if name != "output_dir"}
    text = json.dumps([content, settings, library_hash()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
