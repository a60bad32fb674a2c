"""`ureca train`, `merge`, `train-base` and `train-recipe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ureca_lib.devices import chosen_device
from ureca_lib.options import help_of, options_of
from ureca_lib.train.settings import (
    BaseSettings,
    Recipe,
    TrainSettings,
    load_settings,
    parse_override,
)

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")]
Work = Annotated[
    Path | None,
    typer.Option(help="Folder of data and checkpoints on the way; default: beside it, .work."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...; for tiny, the CPU will do.")]


@options_of(TrainSettings, "preset", "stage", "data", "model", data=None)
def train(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The run's folder; not for a dry run.")
    ] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="TOML of settings over the preset's.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="NAME=VALUE", help="A setting; may be repeated."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...; default: cuda if there is one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Check and plan; no weights are read.")] = False,
    gpus: Annotated[int, typer.Option(help="GPUs that a dry run plans for.")] = 4,
    help_settings: Annotated[bool, typer.Option(help="List every setting, and end.")] = False,
    progress: Annotated[bool, typer.Option(help="Show bars.")] = True,
    **given: Any,
) -> None:
    """Train a stage, by `accelerate launch` on many GPUs; stopped, it resumes when run again."""
    if help_settings:
        for name, text in help_of(TrainSettings).items():
            typer.echo(f"{name:<22} {text} [{getattr(TrainSettings, name)}]")
        return
    preset, stage = given.pop("preset"), given.pop("stage")
    overrides = {name: value for name, value in given.items() if value is not None}
    overrides |= dict(map(parse_override, set_ or []))
    settings = load_settings(preset, stage, overrides, settings_file)
    if dry_run:
        from ureca_lib.train.plan import Plan

        typer.echo(Plan(settings, gpus, progress).text(out or "runs/NAME"))
        return
    if out is None:
        raise ValueError("name the run's folder with --out, or plan with --dry-run")
    from ureca_lib.train.loop import train_stage

    result = train_stage(settings, out, chosen_device(device), progress)
    for name, value in result.final.items():
        typer.echo(f"{name}: {value:.4g}")
    typer.echo(f"{result.steps:,} steps, weights of step {result.kept_step:,}: {result.folder}")
    if result.model:
        typer.echo(f"model: {result.model}")


def merge(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    destination: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    which: Annotated[
        str, typer.Option(help="kept (what the run ended with), best, or a checkpoint's step.")
    ] = "kept",
) -> None:
    """Write a run's model with what it has learnt, adapters merged, ready to load."""
    from ureca_lib.train.export import merge_run

    typer.echo(f"written: {merge_run(run, destination, which)}")


@options_of(BaseSettings)
def train_base(out: Out, work: Work = None, device: Device = "cpu", **given: Any) -> None:
    """Train the tiny base from scratch on scenes; an interrupted run resumes.

    On the CPU by two processes; on another device with --processes 1.
    """
    from ureca_lib.train.tiny_base.train import train_base

    work = work or out.with_name(f"{out.name}.work")
    train_base(BaseSettings(**given), out, work, chosen_device(device))
    typer.echo(f"base: {out}; {work} holds scenes and checkpoints, and may be deleted")


@options_of(Recipe)
def train_recipe(
    out: Out,
    evaluate: Annotated[str, typer.Option(help="Data captioned at the end.")] = "scenes:test:500",
    work: Work = None,
    device: Device = "cpu",
    **given: Any,
) -> None:
    """Train both stages from a base, keep the model small, and measure it; resumes."""
    from ureca_lib.train.recipe import publish, train_recipe

    work = work or out.with_name(f"{out.name}.work")
    trained = train_recipe(Recipe(**given), work, chosen_device(device))
    for name, score in publish(trained, out, evaluate, work).overall.items():
        typer.echo(f"{name}: {score}")
    typer.echo(f"checkpoint: {out}; {work} holds the runs, and may be deleted")
