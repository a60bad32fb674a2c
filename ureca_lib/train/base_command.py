"""`ureca train-base`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_base_command(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the base.")],
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of scenes and checkpoints, 4 GB; default: beside it, .work."),
    ] = None,
    scenes: Annotated[int | None, typer.Option(help="Training scenes.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimizer.")] = None,
    width: Annotated[int | None, typer.Option(help="Hidden size.")] = None,
    depth: Annotated[int | None, typer.Option(help="Layers.")] = None,
    processes: Annotated[int | None, typer.Option(help="One thread each.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, regions and gaps.")] = None,
) -> None:
    """Train the tiny base from scratch on scenes; a run that was killed goes on."""
    from ureca_lib.train.base import train_base
    from ureca_lib.train.base_settings import BaseSettings

    given = {"scenes": scenes, "steps": steps, "processes": processes, "seed": seed}
    given |= {"width": width, "depth": depth}
    settings = BaseSettings(**{name: value for name, value in given.items() if value is not None})
    work = work or out.with_name(f"{out.name}.work")
    try:
        train_base(settings, out, work)
    except (ValueError, OSError) as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"base: {out}; {work} holds scenes and checkpoints, and may be deleted")
