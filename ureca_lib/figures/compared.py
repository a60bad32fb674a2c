"""Which regions a comparison shows, and what predictions files say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.exact_match import ExactReport
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import (
    Prediction,
    prediction_id,
    read_meta,
    read_predictions,
)
from ureca_lib.evaluate.systems import System
from ureca_lib.figures.comparison import ComparedRegion
from ureca_lib.scenes.parsing import GrammarError, parse
from ureca_lib.scenes.phrases import fits

REFERENCE = "reference"


@dataclass(frozen=True)
class SizeValue:
    """A measured share, 0 to 1, of the regions of one size, with its interval where known."""

    value: float | None
    low: float | None
    high: float | None
    count: int


def compared_regions(
    images: Iterable[CaptionedImage],
    systems: Mapping[str, Sequence[Prediction]],
    count: int = 6,
    seed: int = 0,
    references: bool = True,
) -> list[ComparedRegion]:
    """Regions that all systems have captioned, drawn at random but of every size.

    Regions are sorted by their share of the image and cut into `count` groups of one length; one
    of each is drawn, from the image that was least drawn from. Nothing looks at the captions, so
    that nothing is picked because it flatters a system.

    Args:
        images: that the predictions are of; others are passed over.
        systems: by name, the predictions of each.
        count: of regions, at most.
        seed: of the draw.
        references: add the data's own captions as a system, where every region drawn has one.

    Returns:
        The regions, largest first. On procedural scenes each caption is read against its scene,
        which tells how many regions it fits.

    Raises:
        ValueError: no region is in all files and among the images.
    """
    said = {name: {row.id: row for row in rows} for name, rows in systems.items()}
    shared = set.intersection(*(set(rows) for rows in said.values())) if said else set()
    found = []
    for image in images:
        pixels = image.size[0] * image.size[1]
        ids = [(region, prediction_id(image.image_id, region.id)) for region in image.regions]
        found += [(r.area / pixels, key, image, r) for r, key in ids if key in shared]
    if not found:
        names = ", ".join(systems) or "no system"
        raise ValueError(f"no region of these images has a caption of each of {names}")
    found.sort(key=lambda one: (-one[0], one[1]))
    drawn = _drawn(found, count, np.random.default_rng(seed))
    told = references and all(image.captions.get(region.id) for _, _, image, region in drawn)
    rows = []
    for share, key, image, region in drawn:
        captions = {name: predictions[key].caption for name, predictions in said.items()}
        if told:
            captions = {REFERENCE: image.captions[region.id][0]} | captions
        note = f"level {image.levels[region.id]} · {100 * share:.2g}%"
        counted = None if image.scene is None else _fits(image, region.id, captions)
        rows.append(ComparedRegion(image.pixels, region, captions, counted, note))
    return rows


def predictions_of(system: System, images: CaptionedImages) -> list[Prediction]:
    """A system's captions of some images, for a figure; nothing of them is kept in files.

    Args:
        system: who captions.
        images: all of whose regions it captions.

    Raises:
        UnusableSystemError: as the system does.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        predict(system, images, path, progress=False)
        return read_predictions(path)


def read_systems(paths: Iterable[str | Path]) -> dict[str, list[Prediction]]:
    """Predictions files by the name of their system, or of the file where two have one name.

    Args:
        paths: of predictions files.

    Raises:
        FileNotFoundError: a file that is not there. JournalError: a row at fault.
    """
    files = [Path(path) for path in paths]
    rows = [read_predictions(path) for path in files]
    names = [
        read_meta(path).get("system") or read[0].system or path.stem
        for path, read in zip(files, rows, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [path.stem for path in files]
    return dict(zip(names, rows, strict=True))


def size_curve(report: ExactReport | Mapping[str, Any], measure: str) -> dict[str, SizeValue]:
    """A measure by the regions' size, for `dynamic_mask_figure`.

    Args:
        report: of `measure_exact`, or what its `to_dict` wrote into a record.
        measure: "exact_match" or "unique".

    Returns:
        By the size's name, smallest first; sizes at which it was not measured are left out.
    """
    told = report if isinstance(report, Mapping) else report.to_dict()
    found = {size: scores[measure] for size, scores in told["by_size"].items() if measure in scores}
    wanted = ("value", "low", "high", "count")
    return {size: SizeValue(**{name: row[name] for name in wanted}) for size, row in found.items()}


def _drawn(found: list[tuple], count: int, generator: np.random.Generator) -> list[tuple]:
    """One of each group, of an image that has few so far."""
    times: dict[str, int] = {}
    drawn = []
    for group in np.array_split(np.arange(len(found)), min(count, len(found))):
        fewest = min(times.get(found[n][2].image_id, 0) for n in group)
        free = [n for n in group if times.get(found[n][2].image_id, 0) == fewest]
        one = found[int(generator.choice(free))]
        times[one[2].image_id] = times.get(one[2].image_id, 0) + 1
        drawn.append(one)
    return drawn


def _fits(
    image: CaptionedImage, region_id: int | str, captions: Mapping[str, str]
) -> dict[str, tuple[int, bool] | None]:
    found: dict[str, tuple[int, bool] | None] = {}
    for name, text in captions.items():
        try:
            ids = fits(parse(text), image.scene.description)
            found[name] = len(ids), region_id in ids
        except GrammarError:
            found[name] = None
    return found
