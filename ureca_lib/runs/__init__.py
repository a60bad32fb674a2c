"""Headless runs of notebooks: checked parameters, a record per run, nothing repeated.

Names are loaded when they are used: papermill and nbconvert take seconds, and most notebooks and
commands need only the record.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ureca_lib.provenance import show_versions

_NAMES = {
    "index": "write_index",
    "parameters": "Parameter check_parameters notebook_parameters",
    "record": "RunRecord record_metrics",
    "runner": "RunFailedError default_folder finished_run run_notebook",
    "summary": "SweepSummary read_summaries read_summary summarize_sweep summary_markdown "
    "write_summary",
    "sweep": "load_sweep run_sweep",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = ["show_versions", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
