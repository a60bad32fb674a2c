"""Uniqueness, measured: does a caption lead back to its own region, and to no other?

The paper's metrics compare words with a reference and "are not designed to measure descriptive
uniqueness" (App. A; Sec. 5.1 says why). Two measures do:

- self-retrieval: a listener picks the region of the image that a caption fits best. `recall_at_1`
  is the share of captions that lead to their own region, `mrr` the mean of 1 / rank. Over all
  regions of the image, and again over the region and its look-alikes only (`look_alike_...`), for
  regions that have some. Ties are broken at random, and the mean over that is what is given.
- collision: the share of captions that equal (`collision_equal`) or nearly equal
  (`collision_near`) another caption of the same image.

Each over all captions, by level of the mask tree and by area; intervals resample images. A region
that has references and is missing in the predictions of its image counts as an empty caption, which
leads to no region: leaving hard regions out does not help.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from ureca_lib.annotate.card import AREA_BOUNDS, area_names
from ureca_lib.evaluate.bootstrap import BootstrapSettings, group_codes, intervals
from ureca_lib.evaluate.collision import NEAR, find_collisions
from ureca_lib.evaluate.listener_scores import ListenerScores
from ureca_lib.evaluate.retrieval import Calibration, calibrated, retrieve
from ureca_lib.evaluate.scores import Measured, Score, mean_tally, scored, without_value

RETRIEVAL = ("recall_at_1", "mrr")
LOOK_ALIKE = ("look_alike_recall_at_1", "look_alike_mrr")
COLLISION = ("collision_equal", "collision_near")
LABELS = {
    "recall_at_1": "Recall at 1",
    "mrr": "MRR",
    "look_alike_recall_at_1": "Recall at 1 among look-alikes",
    "look_alike_mrr": "MRR among look-alikes",
    "collision_equal": "Equal captions",
    "collision_near": "Nearly equal captions",
}
_VERSION = f"ureca-lib {version('ureca-lib')}"
UNKNOWN = "unknown"  # level of a region whose place in the tree is not known


@dataclass(frozen=True)
class UniquenessSettings:
    """How uniqueness is measured."""

    calibrate: Calibration = field(
        default="none", metadata={"help": "'none', or 'pmi' to look at a listener (see retrieval)"}
    )
    near: float = field(
        default=NEAR, metadata={"help": "share of words and word pairs that is nearly equal"}
    )
    bootstrap: BootstrapSettings = field(
        default_factory=BootstrapSettings, metadata={"help": "of the intervals over images"}
    )

    def __post_init__(self) -> None:
        calibrated(np.zeros((0, 0)), self.calibrate)
        find_collisions([], self.near)


@dataclass(frozen=True)
class Uniqueness:
    """How unique a system's captions are.

    Attributes:
        system, listener: who spoke, and who listened.
        settings: how it was measured.
        overall: for each of `LABELS` its score, from 0 to 1; those of two systems on the same
            images go into `compare_scores`.
        by_level: the same for each level of the mask tree, "1" the top.
        by_area: the same by the region's share of the image, see `area_names`.
        chance: recall of a guess, over all regions and among look-alikes.
        unscorable: captions that the listener refused; they count as not understood.
    """

    system: str
    listener: str
    settings: UniquenessSettings
    overall: dict[str, Score]
    by_level: dict[str, dict[str, Score]]
    by_area: dict[str, dict[str, Score]]
    chance: dict[str, float | None]
    unscorable: int = 0

    def as_record(self) -> dict[str, Any]:
        """All but the captions' own scores, as JSON can hold it."""
        return {
            "system": self.system,
            "listener": self.listener,
            "settings": asdict(self.settings),
            "overall": _records(self.overall),
            "by_level": {name: _records(scores) for name, scores in self.by_level.items()},
            "by_area": {name: _records(scores) for name, scores in self.by_area.items()},
            "chance": self.chance,
            "unscorable": self.unscorable,
        }


@dataclass(frozen=True)
class _Captions:
    """All N captions of all images."""

    ids: list[Hashable]
    image: list[str]
    level: list[str]
    area: list[str]
    values: dict[str, np.ndarray]  # (N,) each, NaN where it does not apply
    backends: dict[str, Mapping[str, Any]]


def measure_uniqueness(
    scores: Iterable[ListenerScores], settings: UniquenessSettings | None = None
) -> Uniqueness:
    """Measure uniqueness from listener scores; needs no model and no image.

    Args:
        scores: of each image, by one listener, for captions of one system.
        settings: None is the default.

    Raises:
        ValueError: there are no captions, or several systems or listeners.
    """
    settings = settings or UniquenessSettings()
    images = [image for image in scores if image.caption_index]
    if not images:
        raise ValueError("no caption has scores")
    for name in ("system", "listener"):
        if len(found := sorted({getattr(image, name) for image in images})) > 1:
            raise ValueError(f"captions of several {name}s: {', '.join(found)}")
    rows, chance = _rows(images, settings)
    refused = sum(
        index in image.unscorable for image in images for index in image.caption_index.values()
    )
    everything = np.ones(len(rows.ids), bool)
    return Uniqueness(
        system=images[0].system,
        listener=images[0].listener,
        settings=settings,
        overall=_scores(rows, everything, settings),
        by_level=_grouped(rows, rows.level, settings, _level_order),
        by_area=_grouped(rows, rows.area, settings, area_names().index),
        chance={name: _mean(values) for name, values in chance.items()},
        unscorable=refused,
    )


def _rows(
    images: Sequence[ListenerScores], settings: UniquenessSettings
) -> tuple[_Captions, dict[str, np.ndarray]]:
    ids, owners, levels, areas = [], [], [], []
    for image in images:
        by_id = {region.id: region for region in image.regions}
        pixels = image.size[0] * image.size[1]
        for region_id in image.caption_index:
            region = by_id[region_id]
            place = sum(region.area / pixels >= bound for bound in AREA_BOUNDS)
            ids.append(f"{image.image_id}/{region_id}")
            owners.append(image.image_id)
            levels.append(UNKNOWN if region.level is None else str(region.level))
            areas.append(area_names()[place])
    parts = [_of_image(image, settings) for image in images]
    values = {name: np.concatenate([part[0][name] for part in parts]) for name in LABELS}
    chance = {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
    listening = {
        "backend": "self-retrieval",
        "model": f"listener {images[0].listener}",
        "settings": {"calibrate": settings.calibrate},
    }
    words = {"backend": "collision", "settings": {"near": settings.near}}
    backends = {name: words if name in COLLISION else listening for name in LABELS}
    return _Captions(ids, owners, levels, areas, values, backends), chance


def _of_image(
    image: ListenerScores, settings: UniquenessSettings
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(C,) values of each measure for the captions of an image, and the recall of a guess."""
    rows = {region.id: row for row, region in enumerate(image.regions)}
    targets = np.array([rows[region_id] for region_id in image.caption_index], np.intp)
    places = list(image.caption_index.values())
    # calibrated on the captions as they were said, one that was said twice counts twice
    scores = calibrated(image.scores[:, places], settings.calibrate)  # (R, texts) -> (R, C)
    alike = np.zeros(scores.shape, bool)
    for column, region_id in enumerate(image.caption_index):
        others = image.regions[rows[region_id]].look_alikes
        alike[[rows[other] for other in others], column] = True
    everywhere, among = retrieve(scores, targets), retrieve(scores, targets, alike)
    some = among.candidates > 1
    collisions = find_collisions([image.captions[place] for place in places], settings.near)
    values = {
        "recall_at_1": everywhere.first,
        "mrr": everywhere.reciprocal,
        "look_alike_recall_at_1": np.where(some, among.first, np.nan),
        "look_alike_mrr": np.where(some, among.reciprocal, np.nan),
        "collision_equal": collisions.equal.astype(float),
        "collision_near": collisions.near.astype(float),
    }
    chance = {
        "recall_at_1": everywhere.chance,
        "look_alike_recall_at_1": np.where(some, among.chance, np.nan),
    }
    return values, chance


def _grouped(
    rows: _Captions,
    groups: Sequence[str],
    settings: UniquenessSettings,
    order: Callable[[str], Any],
) -> dict[str, dict[str, Score]]:
    labels = np.array(groups, dtype=object)
    names = sorted(set(groups), key=order)
    return {name: _scores(rows, labels == name, settings) for name in names}


def _level_order(name: str) -> tuple[bool, int]:
    return (True, 0) if name == UNKNOWN else (False, int(name))


def _scores(rows: _Captions, chosen: np.ndarray, settings: UniquenessSettings) -> dict[str, Score]:
    """Each measure over some of the captions, with intervals over their images."""
    ids = [rows.ids[place] for place in np.flatnonzero(chosen)]
    image_of = {rows.ids[place]: rows.image[place] for place in np.flatnonzero(chosen)}
    codes, units = group_codes(ids, image_of)
    tallies = [mean_tally(values[chosen]) for values in rows.values.values()]
    found = {}
    bounds = intervals(tallies, codes, settings.bootstrap)
    for (name, values), tally, interval in zip(rows.values.items(), tallies, bounds, strict=True):
        known = {"units": units, "unit": "image", "ids": tuple(ids), "groups": codes}
        if np.isnan(values[chosen]).all():
            found[name] = without_value(name, LABELS[name], "no region has look-alikes", **known)
            continue
        low, high = interval or (None, None)
        measured = Measured(
            name, LABELS[name], tally, values[chosen], version=_VERSION, **rows.backends[name]
        )
        found[name] = scored(measured, low=low, high=high, **known)
    return found


def _mean(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _records(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: score.as_record() for name, score in scores.items()}
