"""Exact match, and unique identification on scenes: an evaluation without model or judge.

- `exact_match`: the caption equals one of its references, apart from letter case, white space and
  punctuation at its end.
- `unique`: on procedural scenes, the grammar (`scenes.resolve`) resolves the caption to its own
  region and no other. The scene is generated again from its name.

Both also by the region's share of the image and by its level in the mask tree. Intervals resample
images. Everything is computed from the predictions file alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas

from ureca_lib.annotate.card import AREA_BOUNDS, area_names
from ureca_lib.evaluate.predictions import Prediction
from ureca_lib.evaluate.scores import (
    BootstrapSettings,
    Score,
    group_records,
    measured,
    score_records,
    with_intervals,
)
from ureca_lib.scenes import Scene, generate_scene, resolve

EXACT, UNIQUE = "exact_match", "unique"
UNKNOWN = "unknown"  # size or level
_SCENE = re.compile(r"scene_(\d{7,})", re.ASCII)
_LABELS = {EXACT: "exact match", UNIQUE: "unique identification"}
AREA_NAMES = area_names()  # of the groups by share of the image, the smallest first


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
        return {
            "overall": score_records(self.overall),
            "by_size": group_records(self.by_size),
            "by_level": group_records(self.by_level),
        }


def same_text(caption: str) -> str:
    """The form of a caption that two exactly matching captions share."""
    return " ".join(caption.casefold().split()).rstrip(" .!,;:")


def is_exact(prediction: Prediction) -> bool:
    """Whether the caption equals one of its references; see `same_text`."""
    caption = same_text(prediction.caption)
    return any(caption == same_text(text) for text in prediction.references)


def measure_exact(
    predictions: Iterable[Prediction], settings: BootstrapSettings | None = None
) -> ExactReport:
    """Compute the measures that apply to the predictions.

    Args:
        predictions: of one system.
        settings: of the intervals; None is the default, 1,000 resamples and 95%.

    Returns:
        The report; empty if there are neither references nor scenes.

    Raises:
        ValueError: an image is named after a scene that has other regions or another size.
    """
    lines = []
    for prediction in predictions:  # in one pass, as generating a scene takes longest
        scene, row = scene_of(prediction.image_id), completed(prediction)
        fits = None if scene is None else resolve(row.caption, scene) == {row.region_id}
        exact = is_exact(row) if row.references else None
        about = (row.id, row.image_id, area_name(row.area, row.image_size), level_name(row.level))
        lines.append((*about, exact, fits))
    names = ("id", "image", "size", "level", EXACT, UNIQUE)
    rows = pandas.DataFrame(lines, columns=names).astype({EXACT: float, UNIQUE: float})
    known = [name for name in (EXACT, UNIQUE) if rows[name].notna().any()]
    if not known:
        return ExactReport({}, {}, {})

    def measure(chosen: pandas.DataFrame) -> dict[str, Score]:
        """Means over the rows to which a measure applies."""
        found = {}
        for name in known:
            part = chosen[chosen[name].notna()]
            score = measured(name, _LABELS[name], part[name].to_numpy(), "ureca-lib", "1")
            images, draws = dict(zip(part.id, part.image, strict=True)), settings
            found |= with_intervals([score], part.id.tolist(), images, draws or BootstrapSettings())
        return found

    return ExactReport(*in_groups(rows, measure))


_Scores = dict[str, Score]


def in_groups(
    rows: pandas.DataFrame, measure: Callable[[pandas.DataFrame], _Scores]
) -> tuple[_Scores, dict[str, _Scores], dict[str, _Scores]]:
    """Scores of all rows, of those of each "size", and of those of each "level", unknown ones last.

    Args:
        rows: one per caption.
        measure: computes scores of some of the rows.
    """
    sizes, levels = dict(list(rows.groupby("size"))), dict(list(rows.groupby("level")))
    by_size = {name: measure(sizes[name]) for name in (*AREA_NAMES, UNKNOWN) if name in sizes}
    order = sorted(levels, key=lambda name: math.inf if name == UNKNOWN else int(name))
    return measure(rows), by_size, {name: measure(levels[name]) for name in order}


def completed(prediction: Prediction) -> Prediction:
    """Fill in area, level and image size of a prediction on a scene.

    Raises:
        ValueError: the scene has no such region, or the row has other numbers.
    """
    scene = scene_of(prediction.image_id)
    if scene is None:
        return prediction
    if prediction.region_id not in {facts.id for facts in scene.description.facts}:
        raise ValueError(f"{prediction.id}: the scene has no region of this id")
    area, level = scene.regions[prediction.region_id].area, scene.tree.depth(prediction.region_id)
    values = {"area": area, "level": level, "image_size": (scene.height, scene.width)}
    for name, value in values.items():
        stated = getattr(prediction, name)
        if stated is not None and stated != value:
            raise ValueError(
                f"{prediction.id}: its {name} is {stated}, in the scene it is {value}: the "
                "predictions are of scenes of another specification"
            )
    return replace(prediction, **values)


@lru_cache(maxsize=8)  # predictions come image by image
def scene_of(image_id: str) -> Scene | None:
    """Generate the scene that an image is named after; None if it is not the name of a scene."""
    match = _SCENE.fullmatch(image_id)
    return generate_scene(int(match[1])) if match else None


def area_name(area: int | None, size: tuple[int, int] | None) -> str:
    """The group, of `AREA_NAMES`, of a region with `area` pixels in an image of `size` (H, W)."""
    if area is None or size is None:
        return UNKNOWN
    return AREA_NAMES[sum(area / (size[0] * size[1]) >= bound for bound in AREA_BOUNDS)]


def level_name(level: int | None) -> str:
    """The group of regions of a level of the mask tree."""
    return UNKNOWN if level is None else str(level)
