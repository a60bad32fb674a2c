"""Headless runs of notebooks by papermill: checked, recorded, and not repeated."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from ureca_lib.runs.parameters import check_parameters, notebook_parameters, same_parameters
from ureca_lib.runs.record import METRICS_NAME, RunRecord, read_metrics, run_key


class RunFailedError(RuntimeError):
    """A notebook stopped with an error; `.record` is the content of its `run.json`."""

    def __init__(self, record: RunRecord, folder: Path):
        self.record = record
        error = record.error or {}
        cell = error.get("cell")
        place = "" if cell is None else f" in cell {cell} ({error.get('source', '')!r})"
        super().__init__(
            f"{record.notebook} failed{place}: {error.get('name')}: {error.get('message')}; "
            f"the notebook as far as it got: {folder / record.output}"
        )


def run_notebook(
    notebook: str | Path,
    parameters: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    force: bool = False,
    texts: bool = False,
    timeout: int | None = None,
    progress: bool = True,
) -> RunRecord:
    """Execute a notebook with papermill and write its record.

    The notebook runs in its own folder, in the Python that runs this, whatever kernels are
    installed. If it has a parameter `output_dir`, that is the run's folder.

    Args:
        notebook: path of the notebook.
        parameters: values by name; the others keep their defaults.
        output_dir: folder of the executed notebook, `run.json` and the files that the notebook
            writes; by default `papermill_runs/latest/NAME` of the notebook's project.
        force: run even if the same run was done before.
        texts: the values are texts from a command line.
        timeout: most seconds per cell.
        progress: show papermill's bar.

    Returns:
        The record; the old one, with `repeated` set, if the run was done with the same notebook,
        parameters and library.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: the file is not a notebook, or a parameter has an unknown name or a wrong
            type; nothing was run.
        RunFailedError: a cell failed, no kernel started, or the disk is full; the partly executed
            notebook and the record are kept.
    """
    source = Path(notebook).resolve()
    values = check_parameters(notebook_parameters(source), parameters or {}, texts)
    folder = Path(output_dir).resolve() if output_dir else default_folder(source)
    shown = dict(values)
    if "output_dir" in values:
        values["output_dir"], shown["output_dir"] = str(folder), "."
    if not force and (old := finished_run(source, values, folder)):
        return replace(old, repeated=True)
    key, target = run_key(source, values), folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS_NAME).unlink(missing_ok=True)
    record = RunRecord.begin(source, key, shown)
    record.save(folder)
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=values,
            kernel_name=NATIVE_KERNEL_NAME,
            language="python",
            cwd=str(source.parent),
            progress_bar=progress,
            execution_timeout=timeout,
            kernel_manager_class=_ThisPython,
        )
        record.status = "done"
    except Exception as error:  # of a cell; or the kernel, a cell's time, the disk
        record.status, record.error = "failed", _error(error, target)
    finally:
        if record.status == "running":  # stopped from outside: the exception goes on
            record.status = "failed"
            record.error = _last_started(target) | {"name": "Interrupted", "message": ""}
        record.seconds = round(time.monotonic() - start, 1)
        record.metrics = read_metrics(folder)
        record.save(folder)
    if record.status == "failed":
        raise RunFailedError(record, folder)
    return record


def finished_run(
    notebook: str | Path,
    parameters: Mapping[str, Any],
    output_dir: str | Path,
    any_code: bool = False,
) -> RunRecord | None:
    """Return the record of a run that is done and need not be repeated; None if there is none.

    Args:
        notebook: path of the notebook.
        parameters: all of its parameters, checked.
        output_dir: the run's folder.
        any_code: a run with the same parameters counts even if the notebook or the library has
            changed since, and even if only its record is left, as in a clone.
    """
    source, folder = Path(notebook).resolve(), Path(output_dir).resolve()
    record = RunRecord.load(folder)
    if not record or record.status != "done" or not record.is_of(source):
        return None
    if any_code:
        same = same_parameters(notebook_parameters(source), record.parameters, parameters)
    else:
        executed = (folder / source.name).is_file()
        same = executed and record.key == run_key(source, parameters)
    return record if same else None


def default_folder(notebook: Path) -> Path:
    """Return `papermill_runs/latest/NAME` beside the notebook's folder."""
    return notebook.parent.parent / "papermill_runs" / "latest" / notebook.stem


class _ThisPython(AsyncKernelManager):
    """Starts kernels in this very Python, whatever kernels are installed."""

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """Return the command of the kernel."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", self.connection_file]
        # the kernel listens on the loopback address only; it need not warn at every start
        return [*command, "--IPKernelApp.log_level=ERROR"]


def _error(error: Exception, target: Path) -> dict[str, Any]:
    """Return the cell of an error, its name and message; those of the cell's own error if any."""
    lines = str(error).strip().splitlines() or [""]
    place = _last_started(target)
    if isinstance(error, PapermillExecutionError):
        place = {"cell": error.cell_index, "source": _first_line(error.source)}
        place["traceback"] = list(error.traceback)[-10:]
    name = getattr(error, "ename", type(error).__name__)
    return place | {"name": name, "message": getattr(error, "evalue", lines[-1])}


def _last_started(target: Path) -> dict[str, Any]:
    """Return the last cell that papermill began, according to the saved notebook."""
    with suppress(Exception):  # no notebook yet, or half of one: a full disk has no place for more
        cells = nbformat.read(target, as_version=4).cells
        for index, cell in reversed(list(enumerate(cells))):
            if cell.metadata.get("papermill", {}).get("start_time"):
                return {"cell": index, "source": _first_line(cell.source)}
    return {"cell": None, "source": ""}


def _first_line(source: str) -> str:
    return source.strip().partition("\n")[0]
