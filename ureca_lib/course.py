"""The course and its samples: where they are, and a copy of them to work in.

A clone has `notebooks/`, `data_samples/` and `papermill_runs/` at its top; in an installed package
the same folders are inside it, so that both read the same files.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_FOLDERS = ("notebooks", "data_samples", "papermill_runs")
# of a clone: results that are long or not committed, and traces of work
_LEFT_OUT = ("latest", "reference", "benchmarks", "bases", "smaller_bases", "*.work", "*.sqlite*")
_LEFT_OUT += ("__pycache__", ".ipynb_checkpoints", ".*.arrow", ".*.lock")


def course_folder() -> Path:
    """The folder that holds the notebooks, the samples and the sweeps."""
    package = Path(__file__).parent
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent


def copy_course(folder: str | Path) -> Path:
    """Copy the notebooks, and all that they read, into a new or empty folder.

    Args:
        folder: gets `notebooks/`, `data_samples/` and `papermill_runs/`.

    Returns:
        The first notebook.

    Raises:
        FileExistsError: the folder has one of the three already; nothing is overwritten.
        OSError: the folder cannot be written.
    """
    top = Path(folder)
    for name in _FOLDERS:
        if (top / name).exists():
            raise FileExistsError(f"{top / name} exists: name a new folder; nothing was copied")
    for name in _FOLDERS:
        shutil.copytree(
            course_folder() / name, top / name, ignore=shutil.ignore_patterns(*_LEFT_OUT)
        )
    return top / "notebooks" / "00_quickstart.ipynb"
