"""`ureca sweep`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ureca_lib.runs.sweep import Sweep

_STOPPED = 130  # as a shell has it for Ctrl-C


def sweep(
    files: Annotated[list[Path], typer.Argument(help="Sweep files (YAML), run in this order.")],
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Runs at a time.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the sweeps; default: sweeps/ beside the file."),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            help="Keep what is done, even if notebook or library were changed since, "
            "or only the record is there, as in a clone."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Say what would run, and run nothing.")] = False,
    summary_only: Annotated[
        bool, typer.Option(help="Write table and plot of what is there, and run nothing.")
    ] = False,
) -> None:
    """Run a notebook at many settings and seeds; ends with one table and one plot.

    What was done before is not run again; a run that fails leaves its notebook and its error, and
    the others go on.
    """
    from ureca_lib.runs.sweep import SweepError, check_folders, load_sweep

    failed = 0
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sweeps = [load_sweep(path) for path in files]
        places = [(item, out or item.path.parent / "sweeps") for item in sweeps]
        check_folders(places)
        for item, root in places:
            if dry_run:
                _list(item, root, keep)
            else:
                failed += _execute(item, root, jobs, keep, summary_only)
    except SweepError as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(2) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if failed:
        raise typer.Exit(1)


def _execute(item: Sweep, root: Path, jobs: int, keep: bool, summary_only: bool) -> int:
    """Run a sweep and write its summary.

    Returns:
        The number of runs that failed, or were left out by `--summary-only`.
    """
    from ureca_lib.runs.summary import summarize_sweep
    from ureca_lib.runs.sweep import run_sweep
    from ureca_lib.runs.sweep_tables import summary_markdown, write_summary

    stopped = not summary_only and run_sweep(item, root, jobs, keep).stopped
    summary = summarize_sweep(item, root)
    typer.echo(summary_markdown(summary))  # first: it needs neither the disk nor a plot
    folder = write_summary(summary, root)
    typer.echo(f"table, plot and values: {folder}")
    for run in summary.failures:
        error = run.error or {}
        reason = f"{error.get('name')}: {error.get('message')}"
        place = root / run.folder / summary.notebook
        typer.echo(f"failed: {run.label}, seed {run.seed}: {reason}; see {place}", err=True)
    if stopped:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(_STOPPED)
    return sum(run.status != "done" for run in summary.runs)


def _list(item: Sweep, root: Path, keep: bool) -> None:
    from ureca_lib.runs.runner import finished_run
    from ureca_lib.runs.sweep import runs_folder

    for run in item.runs:
        folder = runs_folder(root) / run.name
        done = finished_run(item.notebook, run.parameters, folder, keep)
        state = "done" if done else "to run"
        typer.echo(f"{item.name}: {state}: {run.label}, seed {run.seed} -> {folder}")
