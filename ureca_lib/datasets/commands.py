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
from typing import Annotated, NamedTuple

import typer


class Finding(NamedTuple):
    """One line about a folder; `usable` if a reader can open what it is about."""

    text: str
    usable: bool = False


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
    from ureca_lib.datasets import captioned, published, refcocog, visual_genome
    from ureca_lib.regions.formats import format_table

    if formats:
        typer.echo(format_table())
        return

    if folder is None:
        for module in (captioned, published, refcocog, visual_genome, inspect.getmodule(data)):
            typer.echo(f"{inspect.getdoc(module)}\n\n{'-' * 80}\n")
        return
    findings = list(check_data(folder))
    for finding in findings:
        typer.echo(finding.text)
    if not any(finding.usable for finding in findings):
        typer.echo(f"{folder}: nothing that can be read; `ureca data` lists the layouts", err=True)
        raise typer.Exit(1)


def check_data(source: str) -> Iterator[Finding]:
    """Look for each data set that a folder may hold; see `ureca data`.

    Args:
        source: a folder, or a text for `open_captioned`.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    from ureca_lib.datasets.captioned import OPENERS, jsonl_files
    from ureca_lib.datasets.visual_genome import REGIONS, SPLITS

    path = Path(source)
    if ".jsonl" in source or source.partition(":")[0] in OPENERS:
        yield _published(source) if ".jsonl" in source else _opened(source)
        return
    if not path.is_dir():
        raise FileNotFoundError(f"{source}: there is no such folder")
    missing, texts = [], []
    for partition, splits in {"umd": ("train", "val", "test"), "google": ("train", "val")}.items():
        names = [f"refs({partition}).p", f"refs({partition}).json"]
        if any((path / name).is_file() for name in names):
            texts += [f"refcocog:{partition}:{split}:{path}" for split in splits]
        elif (path / "instances.json").is_file():
            missing.append(names[0])
    if not (path / REGIONS).is_file():
        parts = [part for part in ("train", "test") if (path / f"{part}.json").is_file()]
    elif (path / SPLITS).is_file():
        parts = ["train", "val", "test"]
    else:
        missing.append(f"{SPLITS}, which says what train, val and test are")
        parts = ["all"]
    texts += [f"visual_genome:{part}:{path}" for part in parts]
    found = [Finding(f"{path}: missing {name}") for name in missing]
    found += map(_opened, texts)
    if (path / "config.json").is_file():
        found.append(_weights(path))
    found += [_published(str(file)) for file in jsonl_files(path)]
    yield from found or [_masks(path)]


def _opened(text: str) -> Finding:
    """Open a data set, leaving out faulty entries, and count it."""
    from ureca_lib.datasets.captioned import open_captioned

    try:
        images = open_captioned(text, strict=False)
    except (ValueError, OSError) as error:
        return Finding(f"{text}: {error}")
    if not hasattr(images, "expressions"):  # scenes are generated
        return Finding(f"{text}: {len(images):,} images", True)
    counts = f"{len(images):,} images, {images.regions:,} regions, {images.expressions:,} captions"
    notes = f"{images.without_photo:,} photos missing, {len(images.left_out):,} entries left out"
    return Finding(f"{text}: {counts}; {notes}", True)


def _published(text: str) -> Finding:
    from ureca_lib.datasets.captioned import split_masks
    from ureca_lib.datasets.published import load_published

    path, masks = split_masks(text)
    try:
        found = load_published(path, masks, strict=False)
    except (ValueError, OSError) as error:
        return Finding(f"{text}: {error}")
    note = ""
    if found.left_out:
        note = f"; {len(found.left_out):,} rows cannot be used: {found.left_out[0]}"
    if note and not found.rows:
        note += f"\nmasks elsewhere are named behind an @: {path}@MASKS"
    counts = f"published layout, {len(found):,} images, {found.rows:,} captions"
    return Finding(f"{text}: {counts}{note}", bool(found.rows))


def _masks(folder: Path) -> Finding:
    """Count the images of a folder that have masks, and read the first."""
    from ureca_lib.datasets.captioned import open_captioned
    from ureca_lib.regions.sources import find_masked

    images, owners, without = find_masked(folder)
    if not images:
        return Finding(f"{folder}: no files of masks, captions or weights")
    counts = f"{len(images):,} files of masks, {len(owners):,} with a photo beside"
    counts += f"; {len(without):,} photos without masks" if without else ""
    try:
        first = open_captioned(folder)[0]
    except (ValueError, OSError) as error:
        return Finding(f"{folder}: {counts}; the first cannot be read: {error}")
    return Finding(f"{folder}: {counts}; the first: {first!r}", True)


def _weights(folder: Path) -> Finding:
    """Check that a checkpoint has a configuration, all files of weights, and a tokenizer."""
    from ureca_lib.regions.sa1b import read_json

    index = folder / "model.safetensors.index.json"
    try:
        kind = read_json(folder / "config.json")["model_type"]
        names = {"model.safetensors"}
        if index.is_file():
            names = set(read_json(index)["weight_map"].values())
    except (ValueError, LookupError, AttributeError) as error:
        return Finding(f"{folder}: weights whose config.json or index cannot be read ({error})")
    missing = sorted(name for name in names if not (folder / name).is_file())
    tokenizers = ("tokenizer.json", "tokenizer.model", "vocab.json")
    if not any((folder / name).is_file() for name in tokenizers):
        missing.append("a tokenizer")
    state = f"missing {', '.join(missing)}" if missing else "complete"
    return Finding(f"{folder}: {kind} weights, {len(names)} files, {state}", not missing)
