"""The `ureca` command."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import ureca_lib
from ureca_lib.annotate import commands as annotate_commands
from ureca_lib.cli import caption
from ureca_lib.datasets import commands as dataset_commands
from ureca_lib.evaluate import clair_command, table_command, uniqueness_command
from ureca_lib.evaluate import commands as evaluate_commands
from ureca_lib.runs import reference_commands, sweep_commands
from ureca_lib.train import commands as train_commands

_PACKAGE = Path(__file__).parents[1]


class PairCommand(TyperCommand):
    """A command whose `-p` takes `NAME VALUE`, as papermill's does, or `NAME=VALUE`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Join name and value, a pair that typer has no type for."""
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            joined.append(word)
            if word in ("-p", "--parameter") and rest:
                name = rest.pop(0)
                whole = re.match(r"\w+=", name) or not rest or rest[0].startswith("--")
                joined.append(name if whole else f"{name}={rest.pop(0)}")
        return super().parse_args(ctx, joined)


app = typer.Typer(
    help="URECA: mask trees, unique region captions, notebooks run headless.",
    no_args_is_help=True,
    rich_markup_mode=None,  # or scenes:train:2000 is shown with a picture of a train
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ureca {ureca_lib.__version__}")
        raise typer.Exit


@app.callback()
def _begin(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    ctx.with_resource(_plain_warnings())


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print our warnings without a source location."""
    python = warnings.formatwarning

    def plain(message: str, category: type[Warning], filename: str, *more: Any) -> str:
        ours = category is UserWarning and Path(filename).is_relative_to(_PACKAGE)
        return f"ureca: {message}\n" if ours else python(message, category, filename, *more)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = python


@app.command(cls=PairCommand)
def run(
    notebooks: Annotated[list[Path], typer.Argument(help="Notebooks, run in this order.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p", "--parameter", metavar="NAME VALUE", help="Set a parameter; may be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder; each run gets a folder of its name in it."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Run again what was done before.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a cell may take.")] = None,
) -> None:
    """Run notebooks headless; what was done before with the same settings is not run again."""
    from ureca_lib.runs import (
        NotebookError,
        ParameterError,
        RunFailedError,
        default_folder,
        run_notebook,
        write_index,
    )

    values = {}
    for pair in parameter or []:
        name, separator, value = pair.partition("=")
        if not separator:
            raise _stop(f"-p takes a name and a value; {name!r} has no value")
        values[name] = value
    roots, failed = [], 0
    for notebook in notebooks:
        folder = output / notebook.stem if output else default_folder(notebook.resolve())
        try:
            record = run_notebook(notebook, values, folder, force, texts=True, timeout=timeout)
        except (FileNotFoundError, NotebookError, ParameterError) as error:
            raise _stop(error) from None
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


app.command()(caption.caption)
app.command()(caption.segment)
app.command()(annotate_commands.annotate)
app.command()(annotate_commands.status)
app.command()(annotate_commands.look_alikes)
app.command()(annotate_commands.export)
app.command()(dataset_commands.data)
app.command()(evaluate_commands.predict)
app.command()(evaluate_commands.evaluate)
app.command()(clair_command.clair)
app.command()(uniqueness_command.uniqueness)
app.command()(table_command.table)
app.command()(sweep_commands.sweep)
app.command()(reference_commands.reference)
app.command()(train_commands.train)
app.command()(train_commands.merge)
app.command("train-base")(train_commands.train_base)
app.command("train-recipe")(train_commands.train_recipe)


@app.command()
def presets() -> None:
    """Print each preset's parameters, tokens and memory; nothing is downloaded."""
    from ureca_lib.presets import presets_text

    typer.echo(presets_text())


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published URECA or an InternVL checkpoint.")],
    destination: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
) -> None:
    """Write a published checkpoint in this package's layout, without remote code.

    InternVL's own get a new mask encoder, for stage 1 of training.
    """
    from ureca_lib.checkpoints import CheckpointError
    from ureca_lib.checkpoints import convert as convert_checkpoint

    try:
        convert_checkpoint(source, destination, progress=True)
    except (CheckpointError, OSError, ValueError) as error:
        raise _stop(error) from None
    typer.echo(f"written: {destination}")


def _stop(reason: Exception | str) -> typer.Exit:
    """Print the reason on standard error and exit with status 2: the input is at fault."""
    typer.echo(f"ureca: {reason}", err=True)
    return typer.Exit(2)
