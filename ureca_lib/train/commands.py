"""`ureca train`, `merge`, `train-base` and `train-recipe`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ureca_lib.devices import chosen_device
from ureca_lib.train.options import BaseSettings, Recipe, options_of


def train(
    preset: Annotated[str, typer.Option(help="tiny, 1b, 2b, 4b or 8b.")] = "tiny",
    stage: Annotated[int, typer.Option(help="1: mask encoder; 2: LoRA.")] = 1,
    data: Annotated[
        str | None,
        typer.Option(help="scenes:train:2000, a folder of scenes or of an export, a JSONL."),
    ] = None,
    masks: Annotated[str | None, typer.Option(help="Folder of a JSONL's masks and photos.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder of the model to start from.")] = None,
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
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of a tokenizer, for a dry run without a model.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was stopped.")] = True,
    help_settings: Annotated[bool, typer.Option(help="List every setting, and end.")] = False,
    progress: Annotated[bool, typer.Option(help="Show bars.")] = True,
) -> None:
    """Train a stage, by `accelerate launch` on many GPUs; stopped, it goes on when run again."""
    from ureca_lib.train.settings import TrainSettings, load_settings, parse_override

    if help_settings:
        typer.echo(settings_text(TrainSettings))
        return
    named = {"data": data, "masks": masks, "model": model}
    overrides: dict[str, Any] = {name: text for name, text in named.items() if text is not None}
    with _faults_named():
        overrides |= dict(parse_override(text) for text in set_ or [])
        settings = load_settings(preset, stage, overrides, settings_file)
        if dry_run:
            _plan(settings, gpus, tokenizer, out, progress)
            return
        _train(settings, out, device, resume, progress)


def merge(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    destination: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    which: Annotated[
        str, typer.Option(help="kept (what the run ended with), best, or a checkpoint's step.")
    ] = "kept",
) -> None:
    """Write a run's model with what it has learnt, adapters merged, ready to load."""
    from ureca_lib.train.export import merge_run

    with _faults_named():
        merge_run(run, destination, which)
    typer.echo(f"written: {destination}")


@options_of(BaseSettings)
def train_base(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the base.")],
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of scenes and checkpoints, 4 GB; default: beside it, .work."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu (two processes by default), or cuda with --processes 1.")
    ] = "cpu",
    **given: Any,
) -> None:
    """Train the tiny base from scratch on scenes; an interrupted run resumes."""
    from ureca_lib.train.tiny_base.train import train_base

    work = work or out.with_name(f"{out.name}.work")
    with _faults_named():
        train_base(BaseSettings(**given), out, work, chosen_device(device))
    typer.echo(f"base: {out}; {work} holds scenes and checkpoints, and may be deleted")


@options_of(Recipe)
def train_recipe(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the checkpoint.")],
    evaluate: Annotated[
        str | None,
        typer.Option(help="Data captioned at the end; default: 500 test scenes."),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of the two runs; default: beside it, .work.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; for tiny, the CPU will do.")] = "cpu",
    **given: Any,
) -> None:
    """Train both stages from a base, keep the model small, and measure it; resumes."""
    from ureca_lib.train.recipe import train_recipe
    from ureca_lib.train.recipe_card import MEASURED_ON, publish

    work = work or out.with_name(f"{out.name}.work")
    with _faults_named():
        trained = train_recipe(Recipe(**given), work, chosen_device(device))
        report = publish(trained, out, evaluate or MEASURED_ON, work)
    for name, score in report.overall.items():
        typer.echo(f"{name}: {score}")
    typer.echo(f"checkpoint: {out}; {work} holds the runs, and may be deleted")


def settings_text(settings: Any) -> str:
    """Every setting with its default and what it means, a line each."""
    defaults, told = settings(), settings.help()
    width = max(map(len, told))
    return "\n".join(
        f"{name:<{width}}  {text} [{getattr(defaults, name)}]" for name, text in told.items()
    )


def _plan(
    settings: Any, gpus: int, tokenizer: Path | None, out: Path | None, progress: bool
) -> None:
    from ureca_lib.train.plan import make_plan, plan_text

    plan = make_plan(settings, gpus, tokenizer, progress)
    typer.echo(plan_text(plan, out or "runs/NAME"))
    if plan.problems:
        raise typer.Exit(2)


def _train(
    settings: Any, out: Path | None, device: str | None, resume: bool, progress: bool
) -> None:
    from ureca_lib.train.loop import train_stage

    if out is None:
        raise ValueError("name the run's folder with --out, or plan with --dry-run")
    result = train_stage(settings, out, chosen_device(device), resume, progress)
    for name, value in result.final.items():
        typer.echo(f"{name}: {value:.4g}")
    typer.echo(f"{result.steps:,} steps, weights of step {result.kept_step:,}: {result.folder}")
    if result.model:
        typer.echo(f"model: {result.model}")


@contextmanager
def _faults_named() -> Iterator[None]:
    """End with a message at faults that the user can mend; other errors keep their traceback."""
    from ureca_lib.train.run_folder import TrainingError

    try:
        yield
    except (ValueError, OSError, TrainingError) as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(2) from None
