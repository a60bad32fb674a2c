"""`ureca uniqueness`: how unique the captions of a predictions file are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ureca_lib.evaluate.heard import Heard
    from ureca_lib.evaluate.uniqueness import Uniqueness, UniquenessSettings


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
            help="JSONL of what was heard, appended to; default: NAME.heard.LISTENER.jsonl."
        ),
    ] = None,
    calibrate: Annotated[str, typer.Option(help="none, or pmi to look at a listener.")] = "none",
    near: Annotated[
        float | None, typer.Option(help="Share of words that makes captions nearly equal.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    device: Annotated[str, typer.Option(help="Where the model listens: cpu, cuda, ...")] = "cpu",
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Measure self-retrieval and collision; goes on where an earlier run stopped."""
    from ureca_lib.evaluate.bootstrap import BootstrapSettings
    from ureca_lib.evaluate.collision import NEAR
    from ureca_lib.evaluate.uniqueness import UniquenessSettings

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
        write_uniqueness(target, record)
    except (ValueError, OSError) as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(uniqueness_text(found))
    typer.echo(f"all figures -> {target}", err=True)


def score_uniqueness(
    predictions: str | Path,
    listener: str = "exact",
    data: str | None = None,
    masks: str | Path | None = None,
    heard: str | Path | None = None,
    settings: UniquenessSettings | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[Uniqueness, dict[str, Any]]:
    """Hear the captions of a predictions file and measure their uniqueness.

    Args:
        predictions: JSONL. listener: "exact" or the folder of a checkpoint.
        data: for `open_captioned`; None takes what the predictions were made of.
        masks: folder of a JSONL's masks.
        heard: JSONL to append to; None names it after predictions and listener.
        settings: None is the default. device: of the model. progress: show a bar.

    Returns:
        What was measured, and the record of it with its provenance, which JSON can hold.

    Raises:
        ValueError: a file or listener at fault, naming it. FileNotFoundError: no such file.
    """
    from ureca_lib.evaluate.listeners import listener_name
    from ureca_lib.evaluate.predictions import read_meta, read_predictions
    from ureca_lib.evaluate.uniqueness import measure_uniqueness

    path = Path(predictions)
    rows, meta = read_predictions(path), read_meta(path)
    systems = sorted({row.system or meta.get("system") or path.stem for row in rows})
    if len(systems) > 1:
        raise ValueError(f"{path}: holds several systems: {', '.join(systems)}")
    spoken: dict[str, dict[str, str]] = {}
    for row in rows:
        spoken.setdefault(row.image_id, {})[str(row.region_id)] = row.caption
    name = listener_name(listener)
    kept = Path(heard) if heard else path.with_suffix(f".heard.{name}.jsonl")
    source = data or meta.get("data")
    images = _hear(source, masks, spoken, listener, name, kept, systems[0], device, progress)
    found = measure_uniqueness(images, settings)
    record = found.as_record() | {
        "predictions": path.name,
        "heard": kept.name,
        "data": source,
        "trained_on": meta.get("trained_on"),
        "model": meta.get("model"),
    }
    return found, record


def _hear(
    data: str | None,
    masks: str | Path | None,
    spoken: dict[str, dict[str, str]],
    listener: str,
    name: str,
    kept: Path,
    system: str,
    device: str,
    progress: bool,
) -> list[Heard]:
    from ureca_lib.datasets.captioned import CaptionedImages, open_captioned
    from ureca_lib.evaluate.listeners import make_listener
    from ureca_lib.evaluate.listening import hear_all

    def images() -> CaptionedImages:
        if not isinstance(data, str):
            raise ValueError("the predictions' record does not say of which images; give --data")
        return open_captioned(data, masks=masks)

    return hear_all(
        images, spoken, lambda: make_listener(listener, device), name, kept, system, progress
    )


def write_uniqueness(path: str | Path, record: dict[str, Any]) -> None:
    """The record as JSON, the whole file or nothing."""
    from ureca_lib.regions.writing import replacing

    with replacing(path) as file:
        file.write(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def uniqueness_text(found: Uniqueness) -> str:
    """The figures as Markdown: over all captions, by level and by area."""
    from ureca_lib.datasets.markdown import table
    from ureca_lib.evaluate.uniqueness import LABELS

    rows = [["all", *found.overall.values()]]
    rows += [[f"level {name}", *scores.values()] for name, scores in found.by_level.items()]
    rows += [[f"{name} of the image", *scores.values()] for name, scores in found.by_area.items()]
    shown = [[name, str(scores[0].count), *map(_figure, scores)] for name, *scores in rows]
    chance = [found.chance["recall_at_1"], found.chance["look_alike_recall_at_1"]]
    shares = ["–" if share is None else f"{100 * share:.1f}" for share in chance]
    head = ["captions", "number", *LABELS.values()]
    lines = [
        f"{found.system}, heard by {found.listener}; percent, with 95% intervals over images",
        "",
        table(head, shown, right=range(1, len(head))),
        f"a guess has a recall of {shares[0]}, among look-alikes {shares[1]}",
    ]
    if found.unscorable:
        lines.append(f"{found.unscorable} captions were refused by the listener")
    return "\n".join(lines)


def _figure(score: Any) -> str:
    if score.value is None:
        return "–"
    interval = "" if score.low is None else f" ({100 * score.low:.1f}–{100 * score.high:.1f})"
    return f"{100 * score.value:.1f}{interval}"
