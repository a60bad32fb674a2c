"""Headless runs of notebooks: parameters checked, a record written, done runs not repeated."""

from ureca_lib.runs.index import write_index
from ureca_lib.runs.parameters import (
    NotebookError,
    Parameter,
    ParameterError,
    check_parameters,
    notebook_parameters,
)
from ureca_lib.runs.record import RunRecord, record_metrics, show_versions
from ureca_lib.runs.runner import RunFailedError, default_folder, finished_run, run_notebook

__all__ = [
    "NotebookError",
    "Parameter",
    "ParameterError",
    "RunFailedError",
    "RunRecord",
    "check_parameters",
    "default_folder",
    "finished_run",
    "notebook_parameters",
    "record_metrics",
    "run_notebook",
    "show_versions",
    "write_index",
]
