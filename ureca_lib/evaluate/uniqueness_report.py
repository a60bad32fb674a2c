"""Uniqueness of a predictions file: listener scores, measures, and a record with provenance."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ureca_lib.datasets.captioned import CaptionedImages, open_captioned
from ureca_lib.evaluate.listener_scores import Captions, score_images
from ureca_lib.evaluate.listeners import listener_name, make_listener
from ureca_lib.evaluate.predictions import read_meta, read_predictions
from ureca_lib.evaluate.scores import Score
from ureca_lib.evaluate.uniqueness import (
    LABELS,
    Uniqueness,
    UniquenessSettings,
    measure_uniqueness,
)
from ureca_lib.markdown import table
from ureca_lib.provenance import file_sha256, package_versions


def score_uniqueness(
    predictions: str | Path,
    listener: str = "exact",
    data: str | None = None,
    masks: str | Path | None = None,
    heard: str | Path | None = None,
    settings: UniquenessSettings | None = None,
    device: str | None = "cpu",
    progress: bool = True,
) -> tuple[Uniqueness, dict[str, Any]]:
    """Score the captions of a predictions file by a listener and measure their uniqueness.

    Args:
        predictions: JSONL. listener: "exact" or the folder of a checkpoint.
        data: for `open_captioned`; None takes the data of the predictions.
        masks: folder of a JSONL's masks.
        heard: JSONL of listener scores to append to; None names it after predictions and
            listener. If it has every image, neither data nor model is opened.
        settings: None is the default. device: of the model, None for CUDA if
            there is one. progress: show a bar.

    Returns:
        The measures, and a record of them with provenance, which JSON can hold.

    Raises:
        ValueError: a file or listener at fault, naming it. FileNotFoundError: no such file.
    """
    path, name = Path(predictions), listener_name(listener)
    meta = read_meta(path)
    system, captions = _captions(path, meta)
    kept = Path(heard) if heard else path.with_suffix(f".heard.{name}.jsonl")
    asked = meta.get("images")
    if isinstance(asked, int) and len(captions) < asked:
        warnings.warn(
            f"{path}: {asked - len(captions):,} of {asked:,} images have no captions and do not "
            "count; rerun ureca predict to complete the file"
        )
    images = _opening(path, meta, data, masks)
    scores = score_images(
        images, captions, lambda: make_listener(listener, device), name, kept, system, progress
    )
    found = measure_uniqueness(scores, settings)
    record = found.as_record() | {
        "predictions": str(path),
        "sha256": file_sha256(path),
        "meta": meta,
        "heard": str(kept),
        "versions": package_versions(),
    }
    return found, record


def _captions(path: Path, meta: Mapping[str, Any]) -> tuple[str, Captions]:
    """The system of a predictions file, and its captions."""
    rows = read_predictions(path)
    systems = sorted({str(row.system or meta.get("system") or path.stem) for row in rows})
    if len(systems) > 1:
        raise ValueError(f"{path}: captions of several systems: {', '.join(systems)}")
    captions: dict[str, dict[str, str]] = {}
    for row in rows:
        captions.setdefault(row.image_id, {})[str(row.region_id)] = row.caption
    return systems[0], captions


def _opening(
    path: Path, meta: Mapping[str, Any], data: str | None, masks: str | Path | None
) -> Callable[[], CaptionedImages]:
    """Opens the images: those that were asked for, else those that were predicted."""
    source, opened = data or meta.get("data"), meta.get("data_settings") or {}
    where = masks or (None if data else opened.get("masks"))

    def images() -> CaptionedImages:
        if not isinstance(source, str):
            raise ValueError(f"{path}: its record does not say of which images; give --data")
        return open_captioned(source, masks=where, strict=opened.get("strict", True))

    return images


def uniqueness_text(found: Uniqueness) -> str:
    """The figures as Markdown: over all captions, by level and by area."""
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


def _figure(score: Score) -> str:
    if score.value is None:
        return "–"
    interval = "" if score.low is None else f" ({100 * score.low:.1f}–{100 * score.high:.1f})"
    return f"{100 * score.value:.1f}{interval}"
