"""`run.json`: what a run was, where it ran, and what it measured.

papermill's own metadata holds neither the defaults of parameters nor the state of the code.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import nbformat

import ureca_lib

RECORD_NAME = "run.json"
METRICS_NAME = "metrics.json"
PACKAGES = ("ureca-lib", "torch", "transformers", "peft", "numpy", "pycocotools", "papermill")


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
    repeated: bool = field(default=False, compare=False)  # this is an earlier run's record

    def save(self, folder: Path) -> None:
        """Write `run.json` in the run's folder, as a whole."""
        content = asdict(self)
        del content["repeated"]
        write_json(folder / RECORD_NAME, content)

    def is_of(self, notebook: Path) -> bool:
        """Whether this is a run of a notebook, not of another one with the same file name.

        Where no other one is at the recorded place, the notebook has been moved from there.

        Args:
            notebook: its path.
        """
        if self.notebook != notebook.name:
            return False
        if self.path is None or self.path == path_in_project(notebook):
            return True
        return not (_project(notebook) / self.path).is_file()

    @classmethod
    def load(cls, folder: Path) -> RunRecord | None:
        """The record in a folder, or None where there is none that can be read."""
        try:
            return cls(**json.loads((folder / RECORD_NAME).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def record_metrics(output_dir: str | Path, **metrics: Any) -> None:
    """Keep what a notebook measured; the runner copies it into `run.json`.

    Args:
        output_dir: the run's folder, which the runner sets as the parameter of that name.
        metrics: numbers, texts, lists and dictionaries that JSON can hold. Those recorded before
            stay, unless they have the same name.
    """
    path = Path(output_dir) / METRICS_NAME
    write_json(path, read_metrics(path.parent) | metrics)


def read_metrics(folder: Path) -> dict[str, Any]:
    """What `record_metrics` kept in a folder; empty where nothing."""
    path = folder / METRICS_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, content: Any) -> Path:
    """Write JSON so that a stop in between leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def path_in_project(notebook: Path) -> str:
    """A notebook's path from the top of its project, which is the same in every clone.

    Args:
        notebook: its path.
    """
    return notebook.resolve().relative_to(_project(notebook)).as_posix()


def _project(notebook: Path) -> Path:
    """The top of the git repository, or of the package; else the folder above the notebook's."""
    folders = notebook.resolve().parents
    for mark in (".git", "pyproject.toml"):  # the second, as a repository is also downloaded
        for folder in folders:
            if (folder / mark).exists():
                return folder
    return folders[min(1, len(folders) - 1)]


def run_key(notebook: Path, parameters: Mapping[str, Any]) -> str:
    """Hash of everything that decides a run: the notebook's code, parameters, the library."""
    cells = nbformat.read(notebook, as_version=4).cells
    content = [[cell.cell_type, cell.source] for cell in cells]
    settings = {name: value for name, value in parameters.items() if name != "output_dir"}
    text = json.dumps([content, settings, library_hash()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def library_hash() -> str:
    """Hash of the library's version and source, so that a changed library runs again."""
    digest = hashlib.sha256()
    root = Path(ureca_lib.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Platform, cores and accelerator of this machine."""
    import torch

    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"platform": platform.platform(), "cores": os.cpu_count(), "device": card or "cpu"}


def git_commit(folder: Path) -> str | None:
    """The commit a folder is at, with `+` where tracked files were changed; None outside git."""
    try:
        git = ["git", "-C", str(folder)]
        options = {"capture_output": True, "text": True, "check": True, "timeout": 10}
        commit = subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def show_versions() -> None:
    """Print the versions that a notebook runs with: its first code cell."""
    print(", ".join(f"{name} {number}" for name, number in package_versions().items()))
    print(f"executable {sys.executable}")
