"""Caption a data set with a system and write a predictions file.

Regions with references are captioned, or all regions of images without any; every system sees the
whole photo with all its regions.
"""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.predictions import Caption, Prediction, PredictionWriter, prediction_id
from ureca_lib.evaluate.systems import System
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
    with PredictionWriter(out, meta, retry_failed) as writer:
        for index in tqdm(range(len(data)), "images", disable=not progress):
            try:
                _predict_image(system, data[index], writer)
            except RegionError as error:
                unread[data.ids[index]] = str(error)
        seconds = round(time.monotonic() - start, 1)
        count, made = len(writer.errors), len(writer.errors) - len(writer.rows)
        failed = {key: reason for key, reason in writer.errors.items() if reason}
        writer.note(predictions=count, failed=len(failed), unread=len(unread))
        if made:
            writer.note(seconds=seconds, made_in_last_run=made)
        return PredictSummary(len(data), count, made, failed, unread, seconds)


def _predict_image(system: System, image: CaptionedImage, writer: PredictionWriter) -> None:
    """Add the missing rows of an image."""
    ids = {region.id: prediction_id(image.image_id, region.id) for region in image.targets}
    missing = [region for region in image.targets if ids[region.id] not in writer.errors]
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
