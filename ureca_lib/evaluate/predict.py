"""Caption a data set with a system and write a predictions file.

Regions with references are captioned, or all regions of images without any; every system sees the
whole photo with all its regions.
"""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.predictions import Prediction, PredictionWriter, prediction_id
from ureca_lib.evaluate.systems import Said, System
from ureca_lib.provenance import command_line, environment_record, training_data_of
from ureca_lib.regions import Region, RegionError


class StoppedEarlyError(Exception):
    """A system stopped within an image, for instance because a budget is spent.

    Args:
        said: its captions so far, None for the other regions.
        cause: the reason.
    """

    def __init__(self, said: Sequence[Said | None], cause: Exception):
        self.said, self.cause = list(said), cause
        super().__init__(str(cause))


@dataclass(frozen=True)
class PredictSummary:
    """Result of a run of `predict`.

    Attributes:
        path: the file.
        images: number in the data. predictions: number in the file.
        made: number of predictions of this run.
        failed: reasons of rows without a caption, by id.
        unread: reasons of images whose masks could not be read, by id.
        seconds: duration of this run.
    """

    path: Path
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
    start, made, unread = time.monotonic(), 0, {}
    meta = _meta(system, data, trained_on, seed) | {"images": len(data)}
    meta |= {"data_settings": dict(data_settings or {})}
    with PredictionWriter(out, meta, retry_failed) as writer:
        for index in tqdm(range(len(data)), "images", disable=not progress):
            image_id = data.ids[index]
            try:
                image = data[index]
                made += _predict_image(system, image, writer)
            except RegionError as error:
                unread[image_id] = str(error)
        seconds = round(time.monotonic() - start, 1)
        counts = {"predictions": len(writer.ids), "failed": len(writer.errors)}
        writer.note(**counts, unread=len(unread))
        if made:
            writer.note(seconds=seconds, made_in_last_run=made)
        found = (len(data), len(writer.ids), made, dict(writer.errors), unread, seconds)
        return PredictSummary(Path(out), *found)


def _predict_image(system: System, image: CaptionedImage, writer: PredictionWriter) -> int:
    """Add the missing rows of an image; returns their number."""
    missing = [
        region
        for region in image.targets
        if prediction_id(image.image_id, region.id) not in writer.ids
    ]
    if not missing:
        return 0
    stopped = None
    try:
        said: Sequence[Said | None] = system.describe(image, missing)
    except StoppedEarlyError as error:
        said, stopped = error.said, error.cause
    levels = image.levels
    rows = [
        _row(system, image, region, one, levels[region.id])
        for region, one in zip(missing, said, strict=True)
        if one is not None
    ]
    writer.add(rows)
    if stopped is not None:
        raise stopped
    return len(rows)


def _row(
    system: System, image: CaptionedImage, region: Region, said: Said, level: int
) -> Prediction:
    return Prediction(
        prediction_id(image.image_id, region.id),
        image.image_id,
        region.id,
        said.text,
        tuple(image.captions.get(region.id, ())),
        said.score,
        region.area,
        image.size,
        level,
        system.name,
        {name: value for name in ("error", "question") if (value := getattr(said, name))},
    )


def _meta(
    system: System, data: CaptionedImages, trained_on: str | None, seed: int | None
) -> dict[str, Any]:
    return {
        "system": system.name,
        "model": system.model,
        "trained_on": trained_on or training_data_of(system.model, _data_of_preset),
        "data": data.name,
        "settings": dict(system.settings),
        "seed": seed,
        **environment_record(),
        "command": command_line(sys.argv),
    }


def _data_of_preset(preset: str) -> str:
    """The data that a preset's settings file names, which a recipe uses if it names none."""
    file = resources.files("ureca_lib") / f"train/settings_files/{preset}_stage2.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))["data"]
