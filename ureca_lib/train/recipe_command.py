"""`ureca train-recipe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def train_recipe_command(
    base: Annotated[Path, typer.Option(help="Folder of the frozen MLLM to start from.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the checkpoint.")],
    preset: Annotated[str, typer.Option(help="Whose settings files are followed.")] = "tiny",
    mask: Annotated[str, typer.Option(help="none, single or dynamic.")] = "dynamic",
    mask_tokens: Annotated[int, typer.Option(help="Mask tokens a tile.")] = 8,
    thumbnail: Annotated[bool, typer.Option(help="Add the whole mask as a tile.")] = True,
    tile_embedding: Annotated[
        bool, typer.Option(help="Ours: tell mask tokens the place of their tile.")
    ] = False,
    max_tiles: Annotated[int | None, typer.Option(help="Most tiles of image and mask.")] = None,
    steps_1: Annotated[int | None, typer.Option(help="Steps of stage 1.")] = None,
    steps_2: Annotated[int | None, typer.Option(help="Steps of stage 2.")] = None,
    data: Annotated[str | None, typer.Option(help="What is learnt.")] = None,
    evaluate: Annotated[
        str | None, typer.Option(help="What is captioned at the end; default: 500 test scenes.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of the two runs; default: beside it, .work.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of new weights and of the order.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; the tiny model's is the CPU.")] = "cpu",
) -> None:
    """Train both stages from a base, keep the model small, and measure it; a killed run goes on."""
    from ureca_lib.train.recipe import Recipe, train_recipe
    from ureca_lib.train.recipe_card import MEASURED_ON, publish

    given: dict[str, Any] = {"mask_tokens": mask_tokens, "thumbnail": thumbnail, "data": data}
    given |= {"tile_embedding": tile_embedding, "max_tiles": max_tiles}
    given |= {"steps_1": steps_1, "steps_2": steps_2, "seed": seed}
    work = work or out.with_name(f"{out.name}.work")
    try:
        recipe = Recipe(str(base), preset, mask, **given)
        trained = train_recipe(recipe, work, device)
        report = publish(trained, out, evaluate or MEASURED_ON, work)
    except (ValueError, OSError, RuntimeError) as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(2) from None
    for name, score in report.overall.items():
        typer.echo(f"{name}: {score}")
    typer.echo(f"checkpoint: {out}; {work} holds the runs, and may be deleted")
