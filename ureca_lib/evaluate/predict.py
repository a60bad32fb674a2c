"""Caption a data set with a system and write a predictions file.

Regions with references are captioned, or all regions of images without any; every system sees the
whole photo with all its regions.
"""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.predictions import (
    SAME,
    Caption,
    Prediction,
    PredictionWriter,
    known_predictions,
    meta_path,
    prediction_id,
    read_meta,
)
from ureca_lib.evaluate.systems import System
from ureca_lib.journal import (
    JournalError,
    Part,
    check_same_run,
    join_parts,
    part_path,
    part_paths,
    read_journal,
    share_of,
    write_json,
)
from ureca_lib.provenance import command_line, environment_record, training_data_of
from ureca_lib.regions import RegionError


@dataclass(frozen=True)
class PredictSummary:
    """Result of a run of `predict`.

    Attributes:
        images: number in the data. predictions: number in the file.
        made: number of predictions of this run.
        failed: reasons of rows without a caption, by id.
        unread: reasons of images whose masks could not be read, by id.
        seconds: duration of this run.
    """

    images: int
    predictions: int
    made: int
    failed: Mapping[str, str]
    unread: Mapping[str, str]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every region of the data has a caption."""
        return not self.failed and not self.unread


def predict(
    system: System,
    data: CaptionedImages,
    out: str | Path,
    trained_on: str | None = None,
    seed: int | None = None,
    data_settings: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    part: Part | None = None,
) -> PredictSummary:
    """Caption every region of the data, image by image; resumes an interrupted run.

    Args:
        system: writes the captions.
        data: the images.
        out: the predictions file; `PRED.meta.json` is written beside it.
        trained_on: training data of the system, for tables; None reads it from its files.
        seed: of the system, for the record.
        data_settings: settings that the data were opened with, for the record.
        retry_failed: predict again the regions that have no caption because of an error.
        progress: show a bar.
        part: caption the images of this part only, into a file of its own; see `join_predictions`.

    Returns:
        Counts and failures. An image that cannot be read is left out and does not stop the rest.

    Raises:
        JournalError: the file is open elsewhere or is of another run. Any error of the system
            passes through once its captions so far are in the file.
    """
    start, unread = time.monotonic(), {}
    meta = {
        "system": system.name,
        "model": system.model,
        "trained_on": trained_on or training_data_of(system.model, _data_of_preset),
        "data": data.name,
        "settings": dict(system.settings),
        "seed": seed,
        **environment_record(),
        "command": command_line(sys.argv),
        "images": len(data),
        "data_settings": dict(data_settings or {}),
    }
    images, known = range(len(data)), set()
    if part:
        images = share_of(images, part)
        known = known_predictions(out, meta, retry_failed)
        out = part_path(out, part)
    with PredictionWriter(out, meta, retry_failed) as writer:
        for index in tqdm(images, "images", disable=not progress):
            try:
                _predict_image(system, data[index], writer, known)
            except RegionError as error:
                unread[data.ids[index]] = str(error)
        seconds = round(time.monotonic() - start, 1)
        count, made = len(writer.errors), len(writer.errors) - len(writer.rows)
        failed = {key: reason for key, reason in writer.errors.items() if reason}
        writer.note(predictions=count, failed=len(failed), unread=len(unread))
        if made:
            writer.note(seconds=seconds, made_in_last_run=made)
        return PredictSummary(len(data), count, made, failed, unread, seconds)


def join_predictions(out: str | Path, data: CaptionedImages) -> int:
    """Move the predictions of all parts to their file, in the order of the images.

    Args:
        out: the predictions file; its record is that of the parts.
        data: all images.

    Returns:
        The number of predictions in the file.

    Raises:
        JournalError: the file has another suffix, the parts are of different runs, or a process
            is writing one.
    """
    if Path(out).suffix != ".jsonl":
        raise JournalError(out, "a predictions file is called NAME.jsonl")
    metas = [(part, read_meta(part)) for part in part_paths(out)]
    # a part that was killed before its first word has no record, and no rows
    metas = [(part, meta) for part, meta in metas if meta]
    for part, meta in metas:
        check_same_run(part, meta, read_meta(out) or metas[0][1], SAME)
    places = {image_id: place for place, image_id in enumerate(data.ids)}
    join_parts(out, "id", lambda row: places.get(row["image_id"], len(places)))
    rows = list(read_journal(out)) if Path(out).is_file() else []
    if metas:
        counts: dict[str, Any] = {"predictions": len(rows)}
        counts["failed"] = sum("error" in row for row in rows)
        for name in ("unread", "seconds", "made_in_last_run"):
            counts[name] = sum(meta.get(name, 0) for _, meta in metas)
        counts["command"] = command_line(sys.argv)
        write_json(meta_path(out), metas[0][1] | counts)
    return len(rows)


def _predict_image(
    system: System, image: CaptionedImage, writer: PredictionWriter, known: Container[str]
) -> None:
    """Add the missing rows of an image."""
    ids = {region.id: prediction_id(image.image_id, region.id) for region in image.targets}
    missing = [
        region
        for region in image.targets
        if ids[region.id] not in writer.errors and ids[region.id] not in known
    ]
    if not missing:
        return
    captions, levels, rows = system.describe(image, missing), image.levels, []
    for region, caption in zip(missing, captions, strict=True):
        if isinstance(caption, Caption):
            texts = tuple(image.captions.get(region.id, ()))
            said = (caption.text, texts, caption.score)
            about = (region.area, image.size, levels[region.id], system.name)
            names = ("error", "question", "instead_of", "cost")
            more = {name: value for name in names if (value := getattr(caption, name))}
            own = (ids[region.id], image.image_id, region.id)
            rows.append(Prediction(*own, *said, *about, more))
    writer.add(rows)
    for caption in captions:
        if isinstance(caption, Exception):
            raise caption


def _data_of_preset(preset: str) -> str:
    """The data that a preset's settings file names, which a recipe uses if it names none."""
    file = resources.files("ureca_lib") / f"train/settings_files/{preset}_stage2.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))["data"]
