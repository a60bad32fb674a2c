"""`ureca presets` and `ureca convert`."""

from __future__ import annotations

from pathlib import Path

import typer


def presets() -> None:
    """Print each preset's parameters, tokens and memory; nothing is downloaded."""
    from ureca_lib.presets import presets_text

    typer.echo(presets_text())


def convert(
    source: Path = typer.Argument(help="A published URECA or an InternVL checkpoint."),
    destination: Path = typer.Argument(help="Folder to write; new or empty."),
) -> None:
    """Write a published checkpoint in this package's layout, without remote code.

    InternVL checkpoints get a new mask encoder, for stage 1 of training.
    """
    from ureca_lib.checkpoints import convert as convert_checkpoint

    convert_checkpoint(source, destination, progress=True)
    typer.echo(f"written: {destination}")
