"""`ureca notebooks`, `ureca run`, `ureca sweep` and `ureca reference`."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ureca_lib.engine import EngineOptions
from ureca_lib.options import options_of

if TYPE_CHECKING:
    from ureca_lib.runs.sweep import Sweep


def notebooks(
    folder: Path = typer.Argument(help="Gets three folders, none of which may exist."),
) -> None:
    """Copy the course into a folder: notebooks/, data_samples/ and papermill_runs/.

    The notebooks read samples, the tiny checkpoints and records from the two others.

    \b
    ureca notebooks course
    """
    from ureca_lib.course import copy_course

    first = copy_course(folder)
    typer.echo(f"{folder}: the course and its samples; begin with: jupyter lab {first}")


def run(
    notebooks: list[Path] = typer.Argument(help="Notebooks, run in this order."),
    parameter: list[str] | None = typer.Option(
        None,
        "-p",
        "--parameter",
        metavar="NAME VALUE",
        help="Set a parameter: JSON or plain text, by its type. May be repeated.",
    ),
    out: Path | None = typer.Option(
        None, "-o", "--out", help="Folder; each run gets a folder of its name in it."
    ),
    force: bool = typer.Option(
        False, help="Run again what was done before with the same settings."
    ),
    timeout: int | None = typer.Option(None, help="Most seconds per cell."),
) -> None:
    """Run notebooks headless; what was done before with the same settings is not run again.

    \b
    ureca run notebooks/01_mask_tree.ipynb -p threshold 0.7 --out papermill_runs/threshold
    """
    from ureca_lib.runs import default_folder, write_index
    from ureca_lib.runs.parameters import check_parameters, notebook_parameters, paths_from_here

    texts = {}
    for pair in parameter or []:
        name, separator, texts[name] = pair.partition("=")
        if not separator:
            raise ValueError(f"-p takes a name and a value; {name!r} has no value")
    plans, folders = {}, {}
    for notebook in notebooks:  # all of them, before the first runs
        known = notebook_parameters(notebook)
        plans[notebook] = paths_from_here(known, texts, notebook)
        check_parameters(known, plans[notebook], texts=True)
        folders[notebook] = out / notebook.stem if out else default_folder(notebook.resolve())
        for name, path in plans[notebook].items() - texts.items():
            moved = f"{name}: {texts[name]} is {path} from the notebook's folder"
            typer.echo(f"{notebook.name}: {moved}", err=True)
    failed = _run_all(plans, folders, force=force, texts=True, timeout=timeout)
    for root in dict.fromkeys(folder.parent for folder in folders.values()):
        typer.echo(f"executed notebooks, their figures and records: {root}")
        typer.echo(f"index page: {write_index(root)}")
    if failed:
        raise typer.Exit(1)


def _run_all(
    plans: Mapping[Path, Mapping[str, Any]], folders: Mapping[Path, Path], **options: Any
) -> int:
    """Run notebooks one after another, and say how each ended; returns how many failed."""
    from ureca_lib.runs import RunFailedError, run_notebook

    failed = 0
    for notebook, values in plans.items():
        try:
            with _stopped_by_sigterm():
                record = run_notebook(notebook, values, folders[notebook], **options)
        except RunFailedError as error:
            typer.echo(str(error), err=True)
            failed += 1
        else:
            took = f"{record.status} in {record.seconds:g} s"
            took = f"was {took}, not run again" if record.repeated else took
            typer.echo(f"{notebook.name}: {took} -> {folders[notebook]}")
    if failed:
        typer.echo(f"{failed} of {len(plans)} notebooks failed", err=True)
    return failed


@options_of(EngineOptions, into="engine")
def sweep(
    files: list[Path] = typer.Argument(help="Sweep files (YAML), run in this order."),
    out: Path | None = typer.Option(
        None, "-o", "--out", help="Folder of the sweeps; default: sweeps/ beside the file."
    ),
    keep: bool = typer.Option(
        False,
        help="Keep finished runs even if the notebook or the library has changed since, "
        "or if only the record is there, as in a clone.",
    ),
    dry_run: bool = typer.Option(False, help="List the runs, and run nothing."),
    summary_only: bool = typer.Option(
        False, help="Write table and plot of the finished runs, and run nothing."
    ),
    *,
    engine: EngineOptions,
) -> None:
    """Run a notebook at many settings and seeds; ends with one table and one plot.

    Finished runs are not run again. A failing run leaves its notebook and its error, and does not
    stop the others.

    \b
    ureca sweep papermill_runs/mask_tiles.yaml --jobs 2
    """
    from ureca_lib.runs.sweep import finished, load_sweep

    left = 0
    with _stopped_by_sigterm():
        for item in [load_sweep(path) for path in files]:  # all of them, before the first runs
            root = out or item.path.parent / "sweeps"
            if not dry_run:
                left += _execute(item, root, engine, keep, summary_only)
                continue
            for planned in item.runs:
                state = "done" if finished(item, planned, root, keep) else "to run"
                typer.echo(f"{item.name}: {state}: {planned} -> {root / 'runs' / planned.name}")
    if left:
        raise typer.Exit(1)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C, so that the record of a run says that it was stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _execute(item: Sweep, root: Path, engine: EngineOptions, keep: bool, summary_only: bool) -> int:
    """Run a sweep and write its summary.

    Returns:
        The number of runs that failed, or were left out by `--summary-only`.
    """
    from ureca_lib.runs import summary as summaries
    from ureca_lib.runs.sweep import run_sweep

    stopped = not summary_only and run_sweep(item, root, engine.jobs, keep, engine=engine).stopped
    summary = summaries.summarize_sweep(item, root)
    # before anything is written: it needs neither the disk nor a plot
    typer.echo(summaries.summary_markdown(summary))
    typer.echo(f"table, plot and values: {summaries.write_summary(summary, root)}")
    for run in summary.failures:
        reason = f"{run.error.get('name')}: {run.error.get('message')}"
        place = root / run.folder / summary.notebook
        typer.echo(f"failed: {run.label}, seed {run.seed}: {reason}; see {place}", err=True)
    if stopped:
        typer.echo("stopped; rerun the command to resume", err=True)
        raise typer.Exit(130)  # as a shell has it for Ctrl-C
    return len(summary.runs) - len(summary.done)


def reference(
    out: Path = typer.Option(
        Path("papermill_runs/reference"), "-o", "--out", help="The folder that is committed."
    ),
) -> None:
    """Run every notebook at the reference settings, and write the results that are committed.

    The settings are those of papermill_runs/reference.yaml. Runs go to
    papermill_runs/latest/reference; those that were finished there are kept.
    """
    from ureca_lib.runs.reference import load_reference, publish_runs

    runs = load_reference("papermill_runs/reference.yaml", "notebooks")
    work = Path("papermill_runs/latest/reference")
    if _run_all(runs, {notebook: work / notebook.stem for notebook in runs}):
        typer.echo(f"nothing is written to {out}", err=True)
        raise typer.Exit(1)
    megabytes = publish_runs(work, out, [notebook.stem for notebook in runs], Path.cwd())
    typer.echo(f"{out}: {megabytes:.1f} MB; index page: {out / 'README.md'}")
