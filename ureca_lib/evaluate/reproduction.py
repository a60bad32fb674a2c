"""Table 2 from a folder of models: predict with every system that is there, score, and compare.

The folder of models has, under any names,

| entry | rows |
|---|---|
| a URECA checkpoint, of this package or in the published layout | its captions |
| an InternVL, or another image-text-to-text model with a chat template | none, contour, crop |
| a ViP-LLaVA or KOSMOS-2 checkpoint | its captions |
| `NAME.jsonl`, predictions of a system that runs elsewhere (see `systems`) | NAME |

Predictions and records go to a working folder, where an interrupted run resumes. A record of
`ureca clair` beside the predictions, `NAME.clair.json`, fills the column CLAIR.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ureca_lib.datasets.captioned import CaptionedImages, open_captioned
from ureca_lib.datasets.references import References, prediction_id
from ureca_lib.evaluate.evaluation import evaluate, write_scores
from ureca_lib.evaluate.metrics import METRICS, MetricSettings
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.systems import PROMPTED, build_system, is_ours
from ureca_lib.evaluate.tables import Table, read_record, table_with
from ureca_lib.evaluate.uniqueness import score_uniqueness
from ureca_lib.journal import write_json
from ureca_lib.listeners import EXACT

_NATIVE = {"vipllava": "vip-llava", "kosmos-2": "kosmos-2"}  # system by model type


def find_systems(models: str | Path) -> dict[str, tuple[str, Path]]:
    """System and checkpoint of each row, by the row's name.

    Raises:
        FileNotFoundError: no such folder.
    """
    found: dict[str, tuple[str, Path]] = {}
    for folder in sorted(Path(models).iterdir()):
        if not (folder / "config.json").is_file():
            continue
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = str(config.get("model_type"))
        if kind in _NATIVE:
            found[folder.name] = (_NATIVE[kind], folder)
        elif is_ours(folder) and _has_mask_encoder(folder):
            found[folder.name] = ("ureca", folder)
        else:
            found |= {f"{folder.name} {name}": (name, folder) for name in PROMPTED[:3]}
    return found


def _has_mask_encoder(folder: Path) -> bool:
    from ureca_lib.checkpoints.internvl import internvl_reader

    return internvl_reader(folder) is None


def reproduce_table_2(
    models: str | Path,
    data: str,
    work: str | Path,
    limit: int | None = None,
    listener: str = EXACT,
    device: str | None = "cpu",
    settings: MetricSettings | None = None,
    tell: Callable[[str], None] = print,
    **options: Any,
) -> tuple[Table, dict[str, str]]:
    """Predict, score, and put the measured rows below the paper's; resumes an interrupted run.

    Args:
        models: folder of models and predictions; see the module.
        data: the test set, for `open_captioned`.
        work: folder of predictions and records.
        limit: number of images; None is all.
        listener: of uniqueness; "exact" is for scenes, and leaves uniqueness out for photos.
        device: of the models.
        settings: of the metrics.
        tell: is called with one line per system.
        options: of all systems; see `SystemOptions`.

    Returns:
        The table, and the reason of each system that failed; its row is missing.

    Raises:
        FileNotFoundError, ValueError: the folder has neither checkpoints nor predictions, or the
            data cannot be read.
    """
    images = open_captioned(data, limit)
    files, failures = {}, {}
    for name, (system, folder) in find_systems(models).items():
        file = Path(work) / f"{name}.jsonl"
        try:
            # not kept in a variable: two large models do not fit into memory
            done = predict(
                build_system(system, folder, device=device, name=name, **options), images, file
            )
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            failures[name] = str(error)
        else:
            files[name] = file
            tell(f"{name}: {done.predictions:,} captions, {done.seconds:g} s -> {file}")
    elsewhere = {file.stem: file for file in sorted(Path(models).glob("*.jsonl"))}
    references = _references(images) if elsewhere else None
    records: list[dict[str, Any]] = []
    for name, file in (files | elsewhere).items():
        try:
            records += _records(
                file, Path(work) / name, data, images, references, listener, device, settings
            )
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            failures[name] = str(error)
    if not records and not failures:
        raise ValueError(f"{models}: there are neither checkpoints nor predictions (NAME.jsonl)")
    return table_with(2, records), failures


def _references(images: CaptionedImages) -> References:
    return {
        prediction_id(image.image_id, region_id): texts
        for image in images
        for region_id, texts in image.captions.items()
    }


def _records(
    file: Path,
    target: Path,
    data: str,
    images: CaptionedImages,
    references: References | None,
    listener: str,
    device: str | None,
    settings: MetricSettings | None,
) -> list[dict[str, Any]]:
    """The records of one predictions file, written as TARGET.scores.json and so on."""
    scores = target.with_name(f"{target.name}.scores.json")
    write_scores(scores, evaluate(file, references, METRICS, settings))
    found = [read_record(scores)]
    if listener != EXACT or images[0].scene is not None:
        cache = target.with_name(f"{target.name}.heard.jsonl")
        record = score_uniqueness(file, listener, data, heard=cache, device=device)[1]
        write_json(target.with_name(f"{target.name}.uniqueness.json"), record)
        found.append(record)
    judged = target.with_name(f"{target.name}.clair.json")
    return found + ([read_record(judged)] if judged.is_file() else [])
