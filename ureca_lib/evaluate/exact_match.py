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
from ureca_lib.evaluate.predictions import Prediction
from ureca_lib.evaluate.scores import (
    BootstrapSettings,
    Score,
    grouped,
    measured,
    with_intervals,
)
from ureca_lib.scenes import Scene, SceneSpecification, generate_scene, resolve

EXACT, UNIQUE = "exact_match", "unique"
UNKNOWN = "unknown"  # size or level
_SCENE = re.compile(r"scene_(\d{7,})", re.ASCII)
_LABELS = {EXACT: "exact match", UNIQUE: "unique identification"}
AREA_NAMES = area_names()  # of the groups by share of the image, the smallest first


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
        groups = {"by_size": self.by_size, "by_level": self.by_level}
        return {"overall": score_records(self.overall)} | {
            name: {key: score_records(scores) for key, scores in group.items()}
            for name, group in groups.items()
        }


def score_records(scores: dict[str, Score]) -> dict[str, Any]:
    """Scores by key as JSON can hold them."""
    return {name: score.as_record() for name, score in scores.items()}


def same_text(caption: str) -> str:
    """The form of a caption that two exactly matching captions share."""
    return " ".join(caption.casefold().split()).rstrip(" .!,;:")


def is_exact(prediction: Prediction) -> bool:
    """Whether the caption equals one of its references; see `same_text`."""
    caption = same_text(prediction.caption)
    return any(caption == same_text(text) for text in prediction.references)


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
    rows, values = [], {EXACT: [], UNIQUE: []}
    for prediction in predictions:  # in one pass, as generating a scene takes longest
        scene = scene_of(prediction.image_id, spec)
        row = completed(prediction, spec)
        fits = None if scene is None else resolve(row.caption, scene) == {row.region_id}
        rows.append(row)
        values[EXACT].append(is_exact(row) if row.references else None)
        values[UNIQUE].append(fits)
    columns = {name: np.array(column, np.float64) for name, column in values.items()}
    columns = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    if not columns:
        return ExactReport({}, {}, {})
    sizes = np.array([_size_of(row) for row in rows], object)
    levels = np.array([UNKNOWN if row.level is None else str(row.level) for row in rows], object)

    def measure(chosen: np.ndarray) -> dict[str, Score]:
        return {name: _score(name, rows, c, chosen, settings) for name, c in columns.items()}

    return ExactReport(
        measure(np.ones(len(rows), bool)),
        {name: measure(sizes == name) for name in (*AREA_NAMES, UNKNOWN) if name in sizes},
        {name: measure(levels == name) for name in sorted(set(levels), key=level_order)},
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


def area_name(area: int, size: tuple[int, int]) -> str:
    """The group, of `AREA_NAMES`, of a region with `area` pixels in an image of `size` (H, W)."""
    share = area / (size[0] * size[1])
    return AREA_NAMES[sum(share >= bound for bound in AREA_BOUNDS)]


def level_order(name: str) -> tuple[bool, int]:
    """Sort key of levels, with unknown ones last."""
    return (True, 0) if name == UNKNOWN else (False, int(name))


def _size_of(row: Prediction) -> str:
    known = row.area is not None and row.image_size is not None
    return area_name(row.area, row.image_size) if known else UNKNOWN


def _score(
    name: str,
    rows: Sequence[Prediction],
    values: np.ndarray,
    chosen: np.ndarray,
    settings: BootstrapSettings,
) -> Score:
    """The mean of `values` (N,) over rows that are `chosen` (N,) and not NaN."""
    chosen = chosen & ~np.isnan(values)
    images = {rows[place].id: rows[place].image_id for place in np.flatnonzero(chosen)}
    score = measured(name, _LABELS[name], values[chosen], "ureca-lib", "1")
    score = replace(score, **grouped(tuple(images), images))
    return with_intervals({name: score}, settings)[name]
