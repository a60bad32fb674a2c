"""`ureca reference`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ureca_lib.runs.reference import ReferenceRun

_RUNS = Path("papermill_runs")


def reference(
    file: Annotated[Path, typer.Option(help="YAML with the parameters of each notebook.")] = _RUNS
    / "reference.yaml",
    notebooks: Annotated[Path, typer.Option(help="Folder of the notebooks.")] = Path("notebooks"),
    work: Annotated[
        Path, typer.Option(help="Where notebooks are executed; what is done there is kept.")
    ] = _RUNS / "latest" / "reference",
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder that is committed.")] = _RUNS
    / "reference",
    limit_mb: Annotated[float, typer.Option(help="Most megabytes of that folder.")] = 12.0,
    check: Annotated[
        bool, typer.Option(help="Run nothing: compare the committed records with the notebooks.")
    ] = False,
) -> None:
    """Run every notebook at the reference settings, and write the results that are committed."""
    from ureca_lib.runs.publish import TooLargeError, publish_runs
    from ureca_lib.runs.reference import ReferenceFileError, compare_reference, load_reference

    try:
        runs = load_reference(file, notebooks)
    except ReferenceFileError as error:
        raise _stop(error, 2) from None
    if check:
        differences = compare_reference(runs, out)
        for line in differences:
            typer.echo(line, err=True)
        raise typer.Exit(1 if differences else 0)
    failed = sum(not _execute(run, work / run.name) for run in runs)
    if failed:
        raise _stop(f"{failed} of {len(runs)} notebooks failed; nothing is written to {out}", 1)
    try:
        names = [run.name for run in runs]
        size, level = publish_runs(work, out, names, notebooks.resolve().parent, limit_mb)
    except TooLargeError as error:
        raise _stop(error, 1) from None
    side = f"figures of at most {level.longest_side} pixels"
    typer.echo(f"{out}: {size:.1f} MB, {side}; index page: {out / 'README.md'}")


def _execute(run: ReferenceRun, folder: Path) -> bool:
    from ureca_lib.runs.runner import RunFailedError, run_notebook

    try:
        record = run_notebook(run.notebook, run.parameters, folder)
    except RunFailedError as error:
        typer.echo(str(error), err=True)
        return False
    again = ", not run again" if record.repeated else ""
    typer.echo(f"{run.name}: {record.status} in {record.seconds:g} s{again}")
    return True


def _stop(reason: Exception | str, status: int) -> typer.Exit:
    typer.echo(f"ureca: {reason}", err=True)
    return typer.Exit(status)
