"""`ureca export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    store: Annotated[Path, typer.Argument(help="The store, an SQLite file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the data set.")],
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Captions of another state in JSONL and COCO too, marked with it: unresolved, "
            "dropped or failed. May be repeated."
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the data card.")] = "A URECA data set",
    image_license: Annotated[str | None, typer.Option(help="Terms of the photos.")] = None,
    mask_license: Annotated[str | None, typer.Option(help="Terms of the masks.")] = None,
    caption_license: Annotated[str | None, typer.Option(help="Terms of the captions.")] = None,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="Captions of several settings together; the card says so."),
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Write a store's captions as a data set: JSONL, Parquet, COCO and a data card."""
    from ureca_lib.annotate.store import StoreError
    from ureca_lib.datasets.card import CardTexts
    from ureca_lib.datasets.export import ExportSettings, export_dataset

    texts = CardTexts(title, image_license, mask_license, caption_license)
    states = tuple(dict.fromkeys(("unique", *(include or ()))))
    try:
        settings = ExportSettings(states, card=texts)
        exported = export_dataset(store, out, settings, progress=progress, mixed=mixed)
    except (ValueError, OSError, StoreError) as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(2) from None
    for split, count in sorted(exported.statistics.rows.items()):
        typer.echo(f"{split}: {count:,} captions")
    typer.echo(f"data set: {out}")
    if exported.unfinished:
        typer.echo(f"{exported.unfinished:,} images of the store are not in it", err=True)
