"""Exact match, and unique identification on scenes: an evaluation without model or judge.

- `exact_match`: the caption equals one of its references, apart from letter case, white space and
  punctuation at its end.
- `unique`: on procedural scenes, the grammar (`scenes.resolve`) resolves the caption to its own
  region and no other. The scene is generated again from its name.

Both also by the region's share of the image and by its level in the mask tree. Intervals resample
images. Everything is computed from the predictions file alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ureca_lib.annotate.card import AREA_BOUNDS, area_names
from ureca_lib.evaluate.bootstrap import BootstrapSettings, group_codes, intervals
from ureca_lib.evaluate.predictions import Prediction
from ureca_lib.evaluate.scores import Measured, Score, mean_tally, scored
from ureca_lib.scenes import Scene, SceneSpecification, generate_scene, resolve

EXACT, UNIQUE = "exact_match", "unique"
UNKNOWN = "unknown"
_SCENE = re.compile(r"scene_(\d{7,})", re.ASCII)
_LABELS = {EXACT: "exact match", UNIQUE: "unique identification"}


class SceneMismatchError(ValueError):
    """Predictions that do not fit the scene that their image is named after."""


@dataclass(frozen=True)
class ExactReport:
    """Scores by measure: "exact_match" if there are references, "unique" on scenes.

    Attributes:
        overall: of all regions.
        by_size: by the region's share of the image, smallest first.
        by_level: by the level of the mask tree, 1 for the top.
    """

    overall: dict[str, Score]
    by_size: dict[str, dict[str, Score]]
    by_level: dict[str, dict[str, Score]]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""

        def record(scores: dict[str, Score]) -> dict[str, Any]:
            return {name: score.as_record() for name, score in scores.items()}

        groups = {"by_size": self.by_size, "by_level": self.by_level}
        records = {
            name: {key: record(s) for key, s in group.items()} for name, group in groups.items()
        }
        return {"overall": record(self.overall)} | records


def same_text(caption: str) -> str:
    """The form of a caption that two exactly matching captions share."""
    return " ".join(caption.casefold().split()).rstrip(" .!,;:")


def is_exact(prediction: Prediction) -> bool:
    """Whether the caption equals one of its references; see `same_text`."""
    caption = same_text(prediction.caption)
    return any(caption == same_text(text) for text in prediction.references)


def is_unique(prediction: Prediction, scene: Scene) -> bool:
    """Whether the caption fits its region of the scene, and no other."""
    return resolve(prediction.caption, scene) == {prediction.region_id}


def measure_exact(
    predictions: Iterable[Prediction],
    settings: BootstrapSettings | None = None,
    spec: SceneSpecification | None = None,
) -> ExactReport:
    """Compute the measures that apply to the predictions.

    Args:
        predictions: of one system.
        settings: of the intervals; None is the default, 1,000 resamples and 95%.
        spec: of the scenes; None is the frozen specification.

    Returns:
        The report; empty if there are neither references nor scenes.

    Raises:
        SceneMismatchError: an image is named after a scene that has other regions or another size.
    """
    settings = settings or BootstrapSettings()
    rows, unique = [], []
    for prediction in predictions:  # in one pass, as generating a scene takes longest
        rows.append(completed(prediction, spec))
        unique.append(_uniqueness(prediction, spec))
    exact = [float(is_exact(row)) if row.references else np.nan for row in rows]
    values = {EXACT: np.array(exact), UNIQUE: np.array(unique)}
    values = {name: column for name, column in values.items() if not np.isnan(column).all()}

    def measure(chosen: Sequence[bool]) -> dict[str, Score]:
        kept = np.array(chosen, bool)
        return {name: _score(name, rows, column, kept, settings) for name, column in values.items()}

    sizes, levels = [_size_of(row) for row in rows], [_level_of(row) for row in rows]
    order = [*area_names(), UNKNOWN]
    depths = sorted(set(levels), key=lambda level: (level == UNKNOWN, level.zfill(9)))
    if not values:
        return ExactReport({}, {}, {})
    return ExactReport(
        measure([True] * len(rows)),
        {name: measure([s == name for s in sizes]) for name in order if name in sizes},
        {name: measure([level == name for level in levels]) for name in depths},
    )


def scene_of(image_id: str, spec: SceneSpecification | None = None) -> Scene | None:
    """Generate the scene that an image is named after; None if it is not the name of a scene."""
    match = _SCENE.fullmatch(image_id)
    return _scene(int(match[1]), spec or SceneSpecification()) if match else None


def completed(prediction: Prediction, spec: SceneSpecification | None = None) -> Prediction:
    """Fill in area, level and image size of a prediction on a scene.

    Raises:
        SceneMismatchError: the scene has no such region, or the row has other numbers.
    """
    scene = scene_of(prediction.image_id, spec)
    if scene is None:
        return prediction
    if prediction.region_id not in {facts.id for facts in scene.description.facts}:
        raise SceneMismatchError(f"{prediction.id}: the scene has no region of this id")
    values = {
        "area": scene.regions[prediction.region_id].area,
        "level": scene.tree.depth(prediction.region_id),
        "image_size": (scene.height, scene.width),
    }
    for name, value in values.items():
        stated = getattr(prediction, name)
        if stated is not None and stated != value:
            raise SceneMismatchError(
                f"{prediction.id}: its {name} is {stated}, in the scene it is {value}: the "
                "predictions are of scenes of another specification"
            )
    return replace(prediction, **values)


@lru_cache(maxsize=8)  # predictions come image by image
def _scene(seed: int, spec: SceneSpecification) -> Scene:
    return generate_scene(seed, spec)


def _uniqueness(row: Prediction, spec: SceneSpecification | None) -> float:
    scene = scene_of(row.image_id, spec)
    return np.nan if scene is None else float(is_unique(row, scene))


def _size_of(row: Prediction) -> str:
    if row.area is None or row.image_size is None:
        return UNKNOWN
    share = row.area / (row.image_size[0] * row.image_size[1])
    return area_names()[sum(share >= bound for bound in AREA_BOUNDS)]


def _level_of(row: Prediction) -> str:
    return UNKNOWN if row.level is None else str(row.level)


def _score(
    name: str,
    rows: Sequence[Prediction],
    values: np.ndarray,
    kept: np.ndarray,
    settings: BootstrapSettings,
) -> Score:
    """The mean of `values` (N,) over rows that are `kept` (N,) and not NaN."""
    kept = kept & ~np.isnan(values)
    chosen = [row for row, keep in zip(rows, kept, strict=True) if keep]
    ids = tuple(row.id for row in chosen)
    codes, units = group_codes(ids, {row.id: row.image_id for row in chosen})
    tally = mean_tally(values[kept])
    (interval,) = intervals([tally], codes, settings)
    low, high = interval or (None, None)
    measured = Measured(name, _LABELS[name], tally, values[kept], "ureca-lib", "1")
    return scored(measured, low=low, high=high, units=units, unit="image", ids=ids, groups=codes)
