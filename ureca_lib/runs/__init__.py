"""Headless runs of notebooks: checked parameters, a record per run, nothing repeated."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ureca_lib.provenance import show_versions

if TYPE_CHECKING:
    from ureca_lib.runs.index import write_index
    from ureca_lib.runs.parameters import (
        NotebookError,
        Parameter,
        ParameterError,
        check_parameters,
        notebook_parameters,
    )
    from ureca_lib.runs.record import RunRecord, record_metrics
    from ureca_lib.runs.runner import (
        RunFailedError,
        default_folder,
        finished_run,
        run_notebook,
    )
    from ureca_lib.runs.summary import (
        SweepSummary,
        read_summaries,
        read_summary,
        summarize_sweep,
        summary_markdown,
        write_summary,
    )
    from ureca_lib.runs.sweep import SweepError, load_sweep, run_sweep

# loaded on first use: papermill and nbconvert take seconds, and most notebooks and commands need
# only the record
_MODULES = {
    "index": ("write_index",),
    "parameters": (
        "NotebookError",
        "Parameter",
        "ParameterError",
        "check_parameters",
        "notebook_parameters",
    ),
    "record": ("RunRecord", "record_metrics"),
    "runner": ("RunFailedError", "default_folder", "finished_run", "run_notebook"),
    "summary": (
        "SweepSummary",
        "read_summaries",
        "read_summary",
        "summarize_sweep",
        "summary_markdown",
        "write_summary",
    ),
    "sweep": ("SweepError", "load_sweep", "run_sweep"),
}

__all__ = [
    "NotebookError",
    "Parameter",
    "ParameterError",
    "RunFailedError",
    "RunRecord",
    "SweepError",
    "SweepSummary",
    "check_parameters",
    "default_folder",
    "finished_run",
    "load_sweep",
    "notebook_parameters",
    "read_summaries",
    "read_summary",
    "record_metrics",
    "run_notebook",
    "run_sweep",
    "show_versions",
    "summarize_sweep",
    "summary_markdown",
    "write_index",
    "write_summary",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"ureca_lib.runs.{module}"), name)
    raise AttributeError(f"module 'ureca_lib.runs' has no attribute {name!r}")
