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

from pathlib import Path
from typing import Any

import typer

from ureca_lib.checkpoints.internvl import internvl_reader
from ureca_lib.checkpoints.tensors import read_json
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.datasets.references import prediction_id
from ureca_lib.evaluate.evaluation import evaluate, write_scores
from ureca_lib.evaluate.metrics import METRICS, MetricSettings
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.settings import PROMPTED, ReproductionSettings
from ureca_lib.evaluate.systems import build_system, is_ours
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
        kind = str(read_json(folder / "config.json").get("model_type"))
        if kind in _NATIVE:
            found[folder.name] = (_NATIVE[kind], folder)
        elif is_ours(folder) and internvl_reader(folder) is None:  # it has a mask encoder
            found[folder.name] = ("ureca", folder)
        else:
            found |= {f"{folder.name} {name}": (name, folder) for name in PROMPTED[:3]}
    return found


def reproduce_table_2(
    models: str | Path, data: str, work: str | Path, settings: ReproductionSettings
) -> tuple[Table, dict[str, str]]:
    """Predict, score, and put the measured rows below the paper's; resumes an interrupted run.

    Each system's seconds are printed on standard error.

    Args:
        models: folder of models and predictions; see the module.
        data: the test set, for `open_captioned`.
        work: folder of predictions and records.
        settings: of predictions and scores. The listener "exact" is for scenes, and leaves
            uniqueness out for photos.

    Returns:
        The table, and the reason of each system that failed; its row is missing.

    Raises:
        FileNotFoundError, ValueError: the folder has neither checkpoints nor predictions, or the
            data cannot be read.
    """
    images, device = open_captioned(data, settings.limit), settings.device
    heard = settings.listener != EXACT or images[0].scene is not None
    scoring = MetricSettings(bertscore_model=settings.bertscore_model, device=device)
    failures: dict[str, str] = {}
    records: list[dict[str, Any]] = []

    def score(name: str, file: Path, references: dict[str, list[str]] | None = None) -> None:
        """Add the records of a predictions file, written as NAME.scores.json and so on."""
        scores, cache, unique, judged = (
            Path(work) / f"{name}.{kind}"
            for kind in ("scores.json", "heard.jsonl", "uniqueness.json", "clair.json")
        )
        write_scores(scores, evaluate(file, references, METRICS, scoring))
        found = [read_record(scores)]
        if heard:
            record = score_uniqueness(file, settings.listener, data, heard=cache, device=device)[1]
            write_json(unique, record)
            found.append(record)
        records.extend(found + ([read_record(judged)] if judged.is_file() else []))

    for name, (system, folder) in find_systems(models).items():
        file = Path(work) / f"{name}.jsonl"
        options = {"device": device, "name": name, "max_new_tokens": settings.max_new_tokens}
        try:
            # not kept in a variable: two large models do not fit into memory
            done = predict(build_system(system, folder, **options), images, file)
            seconds = f"{done.predictions:,} captions, {done.seconds:g} s"
            typer.echo(f"{name}: {seconds} -> {file}", err=True)
            score(name, file)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            failures[name] = str(error)
    for file in sorted(Path(models).glob("*.jsonl")):
        references = {
            prediction_id(image.image_id, region_id): texts
            for image in images
            for region_id, texts in image.captions.items()
        }
        try:
            score(file.stem, file, references)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            failures[file.stem] = str(error)
    if not records and not failures:
        raise ValueError(f"{models}: there are neither checkpoints nor predictions (NAME.jsonl)")
    return table_with(2, records), failures
