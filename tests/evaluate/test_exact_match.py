"""Exact match and unique identification, against brute force on generated scenes."""

from __future__ import annotations

import numpy as np
import pytest

from ureca_lib.annotate.card import AREA_BOUNDS
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.exact_match import (
    completed,
    is_exact,
    measure_exact,
    scene_of,
)
from ureca_lib.evaluate.predictions import Prediction, prediction_id
from ureca_lib.evaluate.scores import BootstrapSettings
from ureca_lib.scenes import generate_scene, resolve

QUICK = BootstrapSettings(samples=50)


def rows_of(images, say):
    return [
        Prediction(
            prediction_id(image.image_id, region.id),
            image.image_id,
            region.id,
            say(image, region),
            tuple(image.captions[region.id]),
        )
        for image in images
        for region in image.regions
    ]


@pytest.fixture(scope="module")
def images():
    return list(open_captioned("scenes:test:6"))


def test_references_are_exact_and_unique(images):
    report = measure_exact(rows_of(images, lambda i, r: i.captions[r.id][0]), QUICK)
    assert {name: score.value for name, score in report.overall.items()} == {
        "exact_match": 1.0,
        "unique": 1.0,
    }
    assert report.overall["unique"].count == sum(len(i.regions) for i in images)
    assert report.overall["unique"].units == 6 and report.overall["unique"].low == 1.0


def test_every_share_is_that_of_brute_force(images):
    rows = rows_of(images, lambda i, r: i.captions[r.id][0] if r.id % 2 else f"the {r.name}")
    report = measure_exact(rows, QUICK)
    scenes = {f"scene_{seed}": generate_scene(seed) for seed in range(2_000_000, 2_000_006)}
    expected: dict[str, list[tuple[bool, bool, int, int]]] = {}
    for row in rows:
        scene = scenes[row.image_id]
        area = scene.regions[row.region_id].mask.sum() / scene.image[..., 0].size
        size = sum(area >= bound for bound in AREA_BOUNDS)
        fits = resolve(row.caption, scene) == {row.region_id}
        depth = 1 + len(scene.tree.ancestors(row.region_id))
        expected.setdefault(row.id, (row.caption in row.references, fits, size, depth))
    told = list(expected.values())
    assert 0 < np.mean([t[1] for t in told]) < 1
    assert report.overall["exact_match"].value == pytest.approx(np.mean([t[0] for t in told]))
    assert report.overall["unique"].value == pytest.approx(np.mean([t[1] for t in told]))
    sizes = sorted({t[2] for t in told})
    assert len(report.by_size) == len(sizes) and "unknown" not in report.by_size
    for size, scores in zip(sizes, report.by_size.values(), strict=True):
        chosen = [t for t in told if t[2] == size]
        assert scores["unique"].count == len(chosen)
        assert scores["unique"].value == pytest.approx(np.mean([t[1] for t in chosen]))
    assert list(report.by_level) == [str(n) for n in sorted({t[3] for t in told})]
    for level, scores in report.by_level.items():
        chosen = [t for t in told if t[3] == int(level)]
        assert scores["exact_match"].value == pytest.approx(np.mean([t[0] for t in chosen]))


def test_a_caption_that_fits_two_regions_is_not_unique(images):
    image = images[0]
    twins = [r for r in image.regions if sum(o.name == r.name for o in image.regions) > 1]
    rows = [row for row in rows_of([image], lambda i, r: f"the {r.name}")]
    rows = [row for row in rows if row.region_id in {t.id for t in twins}]
    assert rows and measure_exact(rows, QUICK).overall["unique"].value == 0.0


@pytest.mark.parametrize(
    ("caption", "same"),
    [
        ("The red door.", True),
        ("  the  RED\ndoor ", True),
        ("the red door!", True),
        ("a red door", False),
        ("the red, door", False),
        ("", False),
    ],
)
def test_what_an_exact_match_forgives(caption, same):
    row = Prediction("a/1", "a", 1, caption, ("a blue door", "The red door"))
    assert is_exact(row) is same


def test_an_empty_caption_counts_as_wrong_and_no_reference_does_not_count():
    rows = [
        Prediction("a/1", "a", 1, "", ("x",)),
        Prediction("b/1", "b", 1, "x", ("x",)),
        Prediction("c/1", "c", 1, "x"),
    ]
    report = measure_exact(rows, QUICK)
    assert report.overall["exact_match"].value == 0.5 and set(report.overall) == {"exact_match"}
    assert report.overall["exact_match"].count == 2
    assert list(report.by_size) == ["unknown"] and list(report.by_level) == ["unknown"]


def test_with_neither_references_nor_scenes_there_is_nothing_to_measure():
    assert measure_exact([Prediction("c/1", "c", 1, "x")], QUICK).to_dict() == {
        "overall": {},
        "by_size": {},
        "by_level": {},
    }


def test_what_a_file_leaves_out_is_taken_from_the_scene():
    scene = generate_scene(2_000_003)
    region = scene.regions.regions[-1]
    row = completed(Prediction(f"scene_2000003/{region.id}", "scene_2000003", region.id, "x"))
    assert (row.area, row.image_size) == (region.area, (scene.height, scene.width))
    assert row.level == scene.tree.depth(region.id)
    assert scene_of("photo_12") is None and scene_of("scene_12") is None


def test_predictions_of_another_scene_are_refused():
    image = "scene_2000003"
    good = Prediction(f"{image}/1", image, 1, "x", area=scene_of(image).regions[1].area)
    assert measure_exact([good], QUICK).overall["unique"].value == 0.0
    for bad, reason in (
        (Prediction(f"{image}/999", image, 999, "x"), "no region of this id"),
        (Prediction(f"{image}/1", image, 1, "x", area=3), "its area is 3"),
        (Prediction(f"{image}/1", image, 1, "x", level=9), "its level is 9"),
        (Prediction(f"{image}/1", image, 1, "x", image_size=(2, 2)), "its image_size is"),
    ):
        with pytest.raises(ValueError, match=f"{bad.id}: .*{reason}"):
            measure_exact([bad], QUICK)


def test_the_interval_covers_what_resampling_images_gives(images):
    rows = rows_of(images, lambda i, r: i.captions[r.id][0] if i is images[0] else "the cat")
    score = measure_exact(rows, BootstrapSettings(samples=2000)).overall["exact_match"]
    counts = [len(image.regions) for image in images]
    drawn = np.random.default_rng(5).integers(0, 6, (20000, 6))
    right = (drawn == 0).sum(1) * counts[0]
    shares = right / np.array(counts)[drawn].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    assert score.low == pytest.approx(low, abs=0.03) and score.high == pytest.approx(high, abs=0.06)
