"""The small evaluation that needs no judgement: exact match, and unique identification on scenes.

- `exact_match`: the caption equals one of its references, but for letter case, white space and
  marks at its end.
- `unique`: on procedural scenes, the grammar read backwards (`scenes.resolve`) finds just the
  region that the caption is of: no other, and not none. The scene is made again from its name.

Both by the region's share of the image and by its level in the mask tree. Intervals resample
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
    """Predictions named after a scene that are of another one."""


@dataclass(frozen=True)
class ExactReport:
    """What the small evaluation found.

    Attributes:
        overall: by measure: "exact_match" where there are references, "unique" on scenes.
        by_size: for each share of the image that regions have, smallest first, the same.
        by_level: for each level of the mask tree, 1 the top, the same.
    """

    overall: dict[str, Score]
    by_size: dict[str, dict[str, Score]]
    by_level: dict[str, dict[str, Score]]

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON can hold."""

        def record(scores: dict[str, Score]) -> dict[str, Any]:
            return {name: score.as_record() for name, score in scores.items()}

        groups = {"by_size": self.by_size, "by_level": self.by_level}
        told = {
            name: {key: record(s) for key, s in group.items()} for name, group in groups.items()
        }
        return {"overall": record(self.overall)} | told


def same_text(caption: str) -> str:
    """What two captions must share to match exactly."""
    return " ".join(caption.casefold().split()).rstrip(" .!,;:")


def is_exact(prediction: Prediction) -> bool:
    """Whether the caption equals one of its references; see `same_text`."""
    said = same_text(prediction.caption)
    return any(said == same_text(text) for text in prediction.references)


def is_unique(prediction: Prediction, scene: Scene) -> bool:
    """Whether the caption fits its region of the scene, and no other."""
    return resolve(prediction.caption, scene) == {prediction.region_id}


def measure_exact(
    predictions: Iterable[Prediction],
    settings: BootstrapSettings | None = None,
    spec: SceneSpecification | None = None,
) -> ExactReport:
    """Measure what applies to the predictions.

    Args:
        predictions: of one system.
        settings: of the intervals; None is the default, 1,000 resamples and 95%.
        spec: what scenes were made of; None is the frozen specification.

    Returns:
        The report, with nothing in it where there are neither references nor scenes.

    Raises:
        SceneMismatchError: an image is named as a scene, and its regions or size are another's.
    """
    settings = settings or BootstrapSettings()
    rows, found = [], []
    for prediction in predictions:  # both at once: making a scene takes longest
        rows.append(completed(prediction, spec))
        found.append(_uniqueness(prediction, spec))
    exact = [float(is_exact(row)) if row.references else np.nan for row in rows]
    values = {EXACT: np.array(exact), UNIQUE: np.array(found)}
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
    """The scene that an image is named after, made again; None where it is no scene's name."""
    match = _SCENE.fullmatch(image_id)
    return _scene(int(match[1]), spec or SceneSpecification()) if match else None


def completed(prediction: Prediction, spec: SceneSpecification | None = None) -> Prediction:
    """A prediction on a scene with the area, level and size that its file leaves out.

    Raises:
        SceneMismatchError: the scene has no such region, or the row's numbers are not its.
    """
    scene = scene_of(prediction.image_id, spec)
    if scene is None:
        return prediction
    known = {facts.id for facts in scene.description.facts}
    if prediction.region_id not in known:
        raise SceneMismatchError(f"{prediction.id}: the scene has no region of this id")
    found = {
        "area": scene.regions[prediction.region_id].area,
        "level": scene.tree.depth(prediction.region_id),
        "image_size": (scene.height, scene.width),
    }
    for name, value in found.items():
        told = getattr(prediction, name)
        if told is not None and told != value:
            raise SceneMismatchError(
                f"{prediction.id}: its {name} is {told}, in the scene it is {value}: the "
                "predictions are of scenes of another specification"
            )
    return replace(prediction, **found)


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
    """The mean of `values` (N,) where `kept` (N,) and not NaN."""
    kept = kept & ~np.isnan(values)
    chosen = [row for row, keep in zip(rows, kept, strict=True) if keep]
    ids = tuple(row.id for row in chosen)
    codes, units = group_codes(ids, {row.id: row.image_id for row in chosen})
    tally = mean_tally(values[kept])
    (interval,) = intervals([tally], codes, settings)
    low, high = interval or (None, None)
    measured = Measured(name, _LABELS[name], tally, values[kept], "ureca-lib", "1")
    return scored(measured, low=low, high=high, units=units, unit="image", ids=ids, groups=codes)
