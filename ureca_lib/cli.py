"""The `ureca` command."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ureca_lib.annotate import commands as annotate_commands
from ureca_lib.datasets import commands as dataset_commands
from ureca_lib.devices import DEVICE_HELP
from ureca_lib.evaluate import clair_command, table_command, uniqueness_command
from ureca_lib.evaluate import commands as evaluate_commands
from ureca_lib.runs import reference_commands, sweep_commands
from ureca_lib.train import commands as train_commands

if TYPE_CHECKING:
    from ureca_lib.regions import RegionImage

_PACKAGE = Path(__file__).parent
FEW_PIECES = (4, 8, 16)  # superpixels by level for a photo without masks: few enough to name


class PairCommand(TyperCommand):
    """A command whose `-p NAME VALUE` takes two words, as papermill's does; `-p NAME=VALUE` too."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Join the two words, which typer has no type for."""
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


@app.callback()
def _begin(ctx: typer.Context) -> None:
    ctx.with_resource(_plain_warnings())


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Our warnings without the place in our code: who reads them typed a command."""
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


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="The photo.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="SA-1B JSON; default: beside the photo.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="superpixels (no model needed) or sam.")
    ] = "superpixels",
    model: Annotated[
        str, typer.Option(help="SAM checkpoint: hub id or local folder.")
    ] = "facebook/sam-vit-base",
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
) -> None:
    """Find nested masks in a photo and write them as SA-1B JSON."""
    from ureca_lib.regions import save_sa1b

    options = {"model": model, "device": device} if method == "sam" else {}
    found = _segmented(image, method, **options)
    target = output or image.with_suffix(".json")
    if output is None and target.exists():
        raise _stop(f"{target} exists; name another file with --output")
    save_sa1b(found, target, image.name)
    typer.echo(f"{len(found)} masks ({method}) -> {target}")


@app.command()
def caption(
    image: Annotated[Path, typer.Argument(help="The photo.")],
    masks: Annotated[
        Path | None,
        typer.Option(
            help="SA-1B or COCO JSON, a label map PNG or a folder of mask PNGs. Default: the "
            "JSON beside the photo, else superpixels."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSONL; default: NAME.captions.jsonl.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw regions with their captions (.png, joined by a .pdf; .pdf; .svg)."),
    ] = None,
    shown: Annotated[int, typer.Option(help="Most regions in the figure, the largest.")] = 24,
    strict: Annotated[
        bool, typer.Option(help="Stop at a bad mask; --no-strict leaves it out and says so.")
    ] = True,
) -> None:
    """Caption every region of a photo uniquely, without a model, and write a data set."""
    from ureca_lib.annotate.annotators import AttributeAnnotator
    from ureca_lib.datasets import caption_rows, write_jsonl
    from ureca_lib.mask_tree import build_mask_tree
    from ureca_lib.regions import RegionError, load_regions

    beside = image.with_suffix(".json")
    target = output or image.with_suffix(".captions.jsonl")
    if target.is_dir():
        raise _stop(f"{target} is a folder; --output takes a file")
    if figure and figure.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise _stop(f"{figure}: a figure is .png, .pdf or .svg")
    try:
        if masks is None and not beside.is_file():
            regions = _segmented(image, "superpixels", levels=FEW_PIECES)
        else:
            regions = load_regions(masks or beside, image, strict)
        tree = build_mask_tree(regions)
        captions = AttributeAnnotator().caption(regions, tree)
    except RegionError as error:
        raise _stop(error) from None
    for item in regions.left_out:
        typer.echo(f"left out: {item}", err=True)
    write_jsonl(target, caption_rows(image.name, captions))
    for row in captions:
        typer.echo(f"{row.region_id}\t{row.text}")
    alike = sum(not row.unique for row in captions)
    typer.echo(f"{len(captions)} captions -> {target}", err=True)
    if alike:
        typer.echo(f"{alike} regions could not be told apart from others", err=True)
    if figure:
        from ureca_lib.figures import caption_figure, save_figure

        texts = {row.region_id: row.text for row in captions}
        largest = sorted(texts, key=lambda region_id: -regions[region_id].area)[:shown]
        save_figure(caption_figure(regions, texts, ids=largest), figure)
        typer.echo(f"figure -> {figure}", err=True)


app.command()(annotate_commands.annotate)
app.command()(annotate_commands.status)
app.command()(dataset_commands.export)
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


def _segmented(image: Path, method: str, **options: Any) -> RegionImage:
    from ureca_lib.regions import RegionError
    from ureca_lib.segment import SegmentationUnavailable, segment_image

    try:
        return segment_image(image, method=method, **options)
    except (RegionError, SegmentationUnavailable, ValueError) as error:
        raise _stop(error) from None


def _stop(reason: Exception | str) -> typer.Exit:
    """Say why, on standard error, and end with status 2: the input is at fault."""
    typer.echo(f"ureca: {reason}", err=True)
    return typer.Exit(2)


if __name__ == "__main__":
    app()
