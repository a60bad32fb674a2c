"""`ureca uniqueness`: measure how unique the captions of a predictions file are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ureca_lib.devices import DEVICE_HELP


def uniqueness(
    predictions: Annotated[Path, typer.Argument(help="Predictions, JSONL.")],
    listener: Annotated[
        str, typer.Option(help="exact (scenes only) or the folder of a checkpoint.")
    ] = "exact",
    data: Annotated[
        str | None,
        typer.Option(help="The images, as `ureca predict` takes them; default: those predicted."),
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of a JSONL's masks.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="JSON; default: NAME.uniqueness.json.")
    ] = None,
    heard: Annotated[
        Path | None,
        typer.Option(
            help="JSONL of listener scores, appended to; default: NAME.heard.LISTENER.jsonl."
        ),
    ] = None,
    calibrate: Annotated[str, typer.Option(help="none, or pmi to look at a listener.")] = "none",
    near: Annotated[
        float | None, typer.Option(help="Share of words that makes captions nearly equal.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Measure self-retrieval and collision; resumes an interrupted run."""
    from ureca_lib.evaluate.bootstrap import BootstrapSettings
    from ureca_lib.evaluate.collision import NEAR
    from ureca_lib.evaluate.uniqueness import UniquenessSettings
    from ureca_lib.evaluate.uniqueness_report import score_uniqueness, uniqueness_text
    from ureca_lib.journal import write_json

    try:
        settings = UniquenessSettings(
            calibrate=calibrate,  # type: ignore[arg-type]
            near=NEAR if near is None else near,
            bootstrap=BootstrapSettings(seed=seed),
        )
        found, record = score_uniqueness(
            predictions, listener, data, masks, heard, settings, device, progress
        )
        target = out or predictions.with_suffix(".uniqueness.json")
        write_json(target, record)
    except (ValueError, OSError) as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(uniqueness_text(found))
    typer.echo(f"all figures -> {target}", err=True)
