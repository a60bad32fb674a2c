"""Captions of a system for some data, written to a predictions file.

Regions with references are captioned, or all regions of images without any; every system sees the
whole photo with all its regions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.prediction_writer import PredictionWriter
from ureca_lib.evaluate.predictions import Prediction, prediction_id
from ureca_lib.evaluate.provenance import command_line
from ureca_lib.evaluate.provenance import trained_on as told_by
from ureca_lib.evaluate.systems import Said, System
from ureca_lib.regions import Region, RegionError
from ureca_lib.runs.record import git_commit, machine, package_versions


class StoppedEarlyError(Exception):
    """A system that had to stop within an image, as when a budget is spent.

    Args:
        said: what it said before that, None for the other regions.
        cause: why it stopped.
    """

    def __init__(self, said: Sequence[Said | None], cause: Exception):
        self.said, self.cause = list(said), cause
        super().__init__(str(cause))


@dataclass(frozen=True)
class PredictSummary:
    """What a run of `predict` did.

    Attributes:
        path: the file.
        images: of the data. predictions: in the file.
        made: of them in this run.
        failed: those in the file that have no caption, and why, by id.
        unread: images whose masks could not be read, and why, by id.
        seconds: that this run took.
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
    """Caption every region of the data, image by image; goes on where an earlier run stopped.

    Args:
        system: who captions.
        data: the images.
        out: the predictions file; `PRED.meta.json` comes beside it.
        trained_on: what the system was trained on, for tables; None: what its files say of it.
        seed: that the system was made with, for the record.
        data_settings: what the data were opened with, besides their name, for the record.
        retry_failed: ask again for regions that have no caption because of an error.
        progress: show a bar.

    Returns:
        What was done. An image that cannot be read is not predicted, and does not stop the rest.

    Raises:
        PredictionError: the file is open elsewhere or holds another run. Whatever the system
            raises, after what it said before is in the file.
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
    """Add what is missing of an image; returns how many rows."""
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
        "trained_on": trained_on or told_by(system.model),
        "data": data.name,
        "settings": dict(system.settings),
        "seed": seed,
        "versions": package_versions(),
        "machine": machine(),
        "commit": git_commit(Path(__file__).parent),
        "command": command_line(sys.argv),
    }
