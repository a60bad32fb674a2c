"""`ureca run`, `ureca sweep` and `ureca reference`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ureca_lib.runs.sweep import Sweep

_RUNS = Path("papermill_runs")
_STOPPED = 130  # as a shell has it for Ctrl-C


def run(
    notebooks: Annotated[list[Path], typer.Argument(help="Notebooks, run in this order.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME VALUE",
            help="Set a parameter: JSON or plain text, by its type. May be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder; each run gets a folder of its name in it."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Run again what was done before.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Most seconds per cell.")] = None,
) -> None:
    """Run notebooks headless; what was done before with the same settings is not run again.

    \b
    ureca run notebooks/01_mask_tree.ipynb -p threshold 0.7 --out papermill_runs/threshold
    """
    from ureca_lib.runs import RunFailedError, default_folder, run_notebook, write_index
    from ureca_lib.runs.parameters import check_parameters, notebook_parameters, paths_from_here

    texts = {}
    for pair in parameter or []:
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"-p takes a name and a value; {name!r} has no value")
        texts[name] = value
    plans, failed = {}, 0
    for notebook in notebooks:  # all of them, before the first runs
        known = notebook_parameters(notebook)
        plans[notebook] = paths_from_here(known, texts, notebook)
        check_parameters(known, plans[notebook], texts=True)
        for name in texts:
            if plans[notebook][name] != texts[name]:
                moved = f"{name}: {texts[name]} is {plans[notebook][name]}"
                typer.echo(f"{notebook.name}: {moved} from the notebook's folder", err=True)
    roots: list[Path] = []
    for notebook, values in plans.items():
        folder = out / notebook.stem if out else default_folder(notebook.resolve())
        try:
            record = run_notebook(notebook, values, folder, force, texts=True, timeout=timeout)
        except RunFailedError as error:
            typer.echo(str(error), err=True)
            failed += 1
        else:
            took = f"{record.status} in {record.seconds:g} s"
            took = f"was {took}, not run again (--force does)" if record.repeated else took
            typer.echo(f"{notebook.name}: {took} -> {folder}")
        if folder.parent not in roots:
            roots.append(folder.parent)
    for root in roots:
        typer.echo(f"executed notebooks, their figures and records: {root}")
        typer.echo(f"index page: {write_index(root)}")
    if failed:
        typer.echo(f"{failed} of {len(notebooks)} notebooks failed", err=True)
        raise typer.Exit(1)


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
            help="Keep finished runs even if the notebook or the library has changed since, "
            "or if only the record is there, as in a clone."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="List the runs, and run nothing.")] = False,
    summary_only: Annotated[
        bool, typer.Option(help="Write table and plot of the finished runs, and run nothing.")
    ] = False,
) -> None:
    """Run a notebook at many settings and seeds; ends with one table and one plot.

    Finished runs are not run again. A failing run leaves its notebook and its error, and does not
    stop the others.

    \b
    ureca sweep papermill_runs/mask_tiles.yaml --jobs 2
    """
    from ureca_lib.runs.sweep import check_folders, finished_run, load_sweep, runs_folder

    sweeps = [load_sweep(path) for path in files]
    places = [(item, out or item.path.parent / "sweeps") for item in sweeps]
    check_folders(places)
    left = 0
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for item, root in places:
            if not dry_run:
                left += _execute(item, root, jobs, keep, summary_only)
                continue
            for planned in item.runs:
                folder = runs_folder(root) / planned.name
                done = finished_run(item.notebook, planned.parameters, folder, keep)
                state = "done" if done else "to run"
                typer.echo(f"{item.name}: {state}: {planned} -> {folder}")
    finally:
        signal.signal(signal.SIGTERM, before)
    if left:
        raise typer.Exit(1)


def _execute(item: Sweep, root: Path, jobs: int, keep: bool, summary_only: bool) -> int:
    """Run a sweep and write its summary.

    Returns:
        The number of runs that failed, or were left out by `--summary-only`.
    """
    from ureca_lib.runs import summary as summaries
    from ureca_lib.runs.sweep import run_sweep

    stopped = not summary_only and run_sweep(item, root, jobs, keep).stopped
    summary = summaries.summarize_sweep(item, root)
    # before anything is written: it needs neither the disk nor a plot
    typer.echo(summaries.summary_markdown(summary))
    folder = summaries.write_summary(summary, root)
    typer.echo(f"table, plot and values: {folder}")
    for run in summary.failures:
        error = run.error or {}
        reason = f"{error.get('name')}: {error.get('message')}"
        place = root / run.folder / summary.notebook
        typer.echo(f"failed: {run.label}, seed {run.seed}: {reason}; see {place}", err=True)
    if stopped:
        typer.echo("stopped; rerun the command to resume", err=True)
        raise typer.Exit(_STOPPED)
    return sum(run.status != "done" for run in summary.runs)


def reference(
    file: Annotated[Path, typer.Option(help="YAML with the parameters of each notebook.")] = _RUNS
    / "reference.yaml",
    notebooks: Annotated[Path, typer.Option(help="Folder of the notebooks.")] = Path("notebooks"),
    work: Annotated[
        Path, typer.Option(help="Folder of the runs; finished runs in it are kept.")
    ] = _RUNS / "latest" / "reference",
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder that is committed.")] = _RUNS
    / "reference",
    limit_mb: Annotated[float, typer.Option(help="Most megabytes of that folder.")] = 12.0,
    check: Annotated[
        bool, typer.Option(help="Run nothing: compare the committed records with the notebooks.")
    ] = False,
) -> None:
    """Run every notebook at the reference settings, and write the results that are committed."""
    from ureca_lib.runs import RunFailedError, run_notebook
    from ureca_lib.runs.reference import compare_reference, load_reference, publish_runs

    runs = load_reference(file, notebooks)
    if check:
        differences = compare_reference(runs, out)
        for line in differences:
            typer.echo(line, err=True)
        raise typer.Exit(1 if differences else 0)
    failed = 0
    for run in runs:
        try:
            record = run_notebook(run.notebook, run.parameters, work / run.name)
        except RunFailedError as error:
            typer.echo(str(error), err=True)
            failed += 1
            continue
        again = ", not run again" if record.repeated else ""
        typer.echo(f"{run.name}: {record.status} in {record.seconds:g} s{again}")
    if failed:
        typer.echo(
            f"ureca: {failed} of {len(runs)} notebooks failed; nothing is written to {out}",
            err=True,
        )
        raise typer.Exit(1)
    names = [run.name for run in runs]
    size, level = publish_runs(work, out, names, notebooks.resolve().parent, limit_mb)
    side = f"figures of at most {level.longest_side} pixels"
    typer.echo(f"{out}: {size:.1f} MB, {side}; index page: {out / 'README.md'}")
