"""`ureca data`: where data sets and weights are to be had, and whether a folder is complete.

InternVL2.5 weights come from https://huggingface.co/OpenGVLab: `InternVL2_5-1B`, `-2B`, `-4B` and
`-8B`, as published or in transformers' layout (`InternVL2_5-1B-hf`, ...). A folder holds
`config.json`, `*.safetensors` (with `model.safetensors.index.json` if there are several) and the
tokenizer's files. The URECA weights have the same layout; `ureca convert` reads both.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


def data(
    folder: Annotated[
        str | None,
        typer.Argument(
            help="Folder to check, or a text that `--data` takes, such as train.jsonl@sa1b/."
        ),
    ] = None,
    formats: Annotated[
        bool, typer.Option("--formats", help="List the formats of masks that are read.")
    ] = False,
) -> None:
    """List where data sets are to be had and how their folders must look; or check a folder."""
    from ureca_lib.datasets import open_captioned
    from ureca_lib.datasets.captioned import FINDERS
    from ureca_lib.regions.formats import format_table

    if formats:
        typer.echo(format_table())
        return
    if folder is None:
        for module in dict.fromkeys(map(inspect.getmodule, (open_captioned, *FINDERS, data))):
            typer.echo(f"{inspect.getdoc(module)}\n\n{'-' * 80}\n")
        return
    findings = list(check_data(folder))
    for text, _ in findings:
        typer.echo(text)
    if not any(usable for _, usable in findings):
        typer.echo(f"{folder}: nothing that can be read; `ureca data` lists the layouts", err=True)
        raise typer.Exit(1)


def check_data(source: str) -> Iterator[tuple[str, bool]]:
    """Look for each data set that a folder may hold; see `ureca data`.

    Args:
        source: a folder, or a text for `open_captioned`.

    Returns:
        For each what it is, in a line, and whether a reader can open it.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    from ureca_lib.datasets.captioned import FINDERS, OPENERS

    path = Path(source)
    if ".jsonl" in source or source.partition(":")[0] in OPENERS:
        yield _opened(source)
        return
    if not path.is_dir():
        raise FileNotFoundError(f"{source}: there is no such folder")
    weights = (path / "config.json").is_file()
    if weights:
        yield _weights(path)
    texts = [text for find in FINDERS for text in find(path)]
    # whatever is no other data set may be SA-1B's
    yield from map(_opened, texts or ([] if weights else [source]))


def _opened(text: str) -> tuple[str, bool]:
    """Open a data set, leaving out faulty entries, count it and read its first image."""
    from ureca_lib.datasets import open_captioned

    try:
        images = open_captioned(text, strict=False)
        counts = ", ".join(f"{count:,} {name}" for name, count in images.counts.items())
        note = f"; the first: {images[0]!r}"
    except (ValueError, OSError) as error:
        return f"{text}: {error}", False
    if images.left_out:
        note += f"; {len(images.left_out):,} entries left out, such as {images.left_out[0]}"
    own = "masks of " if Path(text).is_dir() else ""
    form = "published layout, " if ".jsonl" in text else own
    return f"{text}: {form}{counts}{note}", True


def _weights(folder: Path) -> tuple[str, bool]:
    """Check that a checkpoint has a configuration, all files of weights, and a tokenizer."""
    from ureca_lib.checkpoints.tensors import CheckpointError, read_json, tensor_files

    try:
        kind = read_json(folder / "config.json").get("model_type")
        about = f"{folder}: {kind} weights, {len(tensor_files(folder))} files"
    except CheckpointError as error:
        return f"{folder}: weights: {error}", False
    tokenizers = ("tokenizer.json", "tokenizer.model", "vocab.json")
    complete = any((folder / name).is_file() for name in tokenizers)
    return f"{about}, {'complete' if complete else 'missing a tokenizer'}", complete
