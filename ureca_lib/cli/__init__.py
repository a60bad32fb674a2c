"""The `ureca` command: its commands by group, loaded when they are used, and its error exit.

Exit status: 0 if something was done, 1 if nothing or not all of it was, 2 if the input is at
fault.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import ureca_lib
from ureca_lib.markdown import printable

_PACKAGE = Path(__file__).parents[1]
# the module of each command, whose function has the command's name, and its line in `ureca --help`
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Caption": {
        "caption": ("cli.caption", "Caption the regions of photos."),
        "segment": ("cli.caption", "Find nested masks in a photo; write SA-1B JSON."),
        "serve": ("cli.serve", "Serve captions: OpenAI's protocol and a web page."),
    },
    "Data set": {
        "annotate": ("cli.annotate", "Caption every region of images uniquely."),
        "status": ("cli.annotate", "Show counts, failures and time left of a store."),
        "look-alikes": ("cli.annotate", "Choose the threshold of look-alikes."),
        "export": ("cli.annotate", "Write a store's captions as a data set."),
        "data": ("datasets.commands", "List data sets and their layouts; check a folder."),
    },
    "Train": {
        "train": ("train.commands", "Train a stage, also on many GPUs."),
        "merge": ("train.commands", "Write a trained model without adapters."),
        "train-base": ("train.commands", "Train the tiny base."),
        "train-recipe": ("train.commands", "Train both stages from a base, and measure the model."),
        "presets": ("cli.models", "Print each preset's parameters and memory."),
        "convert": ("cli.models", "Convert a published checkpoint."),
    },
    "Evaluate": {
        "predict": ("evaluate.commands", "Caption every region of a data set."),
        "convert-predictions": ("evaluate.foreign", "Read captions of DAM, GAR, COCO results."),
        "evaluate": ("evaluate.commands", "Score predictions of any system."),
        "clair": ("evaluate.commands", "Score predictions by a judge (CLAIR)."),
        "uniqueness": ("evaluate.commands", "Measure self-retrieval and collisions."),
        "table": ("evaluate.commands", "Print a table of the paper; reproduce Table 2."),
        "agreement": ("evaluate.commands", "Compare reviewers with each other."),
    },
    "Notebooks": {
        "notebooks": ("cli.runs", "Copy the course and its samples into a folder."),
        "run": ("cli.runs", "Run notebooks headless."),
        "sweep": ("cli.runs", "Run a notebook at many settings and seeds."),
        "reference": ("cli.runs", "Run every notebook; write the committed results."),
    },
}
_MODULES = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}


class Command(TyperCommand):
    """A command that also reads `--output` for `--out`, and `-p NAME VALUE` as papermill does."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Join the name and value of a parameter, a pair that typer has no type for."""
        joined: list[str] = []
        rest = list(args)
        pairs = any("--parameter" in parameter.opts for parameter in self.params)
        while rest:
            word = re.sub(r"^--output(?==|$)", "--out", rest.pop(0))
            joined.append(word)
            if word == "--":
                break
            if pairs and word in ("-p", "--parameter") and rest:
                name = rest.pop(0)
                whole = re.match(r"\w+=", name) or not rest or rest[0].startswith("--")
                joined.append(name if whole else f"{name}={rest.pop(0)}")
        return super().parse_args(ctx, joined + rest)


class Group(TyperGroup):
    """The commands by group, each imported when it is looked up, with one exit for all errors."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        """Return the names without importing the commands."""
        return list(_MODULES)

    def get_command(self, ctx: typer.Context, name: str) -> Any:
        """Import a command; None if there is none of that name."""
        if name not in _MODULES:
            return None
        function = getattr(import_module(f"ureca_lib.{_MODULES[name]}"), name.replace("-", "_"))
        # without rich's markup, for which scenes:train:2000 has a picture of a train
        one = typer.Typer(add_completion=False, rich_markup_mode=None)
        one.command(name, cls=Command)(function)
        return typer.main.get_command(one)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:
        """Write the commands of each group with a line of help."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(12), text) for name, (_, text) in commands.items()])

    def invoke(self, ctx: typer.Context) -> Any:
        """Run a command; an error is one line on standard error and exit status 2."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # typer shows its own errors, of options and arguments
            if hasattr(error, "exit_code") or ctx.params.get("debug"):
                raise
            text = " ".join(str(error).splitlines())
            if not _explains_itself(error):
                text = f"{type(error).__name__}: {text} (ureca --debug shows the traceback)"
            typer.echo(printable(f"ureca: {text}"), err=True)
            raise typer.Exit(2) from None


def _explains_itself(error: Exception) -> bool:
    """Tell errors whose message is for users from those of a fault in the code."""
    ours = type(error).__module__.partition(".")[0] == ureca_lib.__name__
    return bool(str(error)) and (ours or isinstance(error, ValueError | OSError | ImportError))


app = typer.Typer(
    cls=Group,
    help="URECA: unique captions for the regions of images.",
    no_args_is_help=True,
    rich_markup_mode=None,
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
    version: bool = typer.Option(
        False, "--version", callback=_print_version, help="Print the version."
    ),
    debug: bool = typer.Option(
        False, "--debug", envvar="URECA_DEBUG", help="Show the traceback of an error."
    ),
) -> None:
    ctx.with_resource(_printable())


@contextmanager
def _printable() -> Iterator[None]:
    """Replace control characters in all that commands echo, such as names from files or servers.

    Warnings of ours are echoed too, without a source location.
    """
    python, echo = warnings.formatwarning, typer.echo

    def plain(message: str, category: type[Warning], filename: str, *more: Any) -> str:
        ours = category is UserWarning and Path(filename).is_relative_to(_PACKAGE)
        text = printable(f"ureca: {message}\n", keep="\n\t")
        return text if ours else python(message, category, filename, *more)

    def shown(message: Any = None, *others: Any, **options: Any) -> None:
        text = printable(message, keep="\n\t") if isinstance(message, str) else message
        echo(text, *others, **options)

    warnings.formatwarning, typer.echo = plain, shown
    try:
        yield
    finally:
        warnings.formatwarning, typer.echo = python, echo
