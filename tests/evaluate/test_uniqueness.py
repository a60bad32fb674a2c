"""Uniqueness on scenes, where it is known: oracle, class names and shuffled captions."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from ureca_lib.datasets.captioned import CaptionedImage, open_captioned
from ureca_lib.evaluate.exact_match import AREA_NAMES
from ureca_lib.evaluate.scores import BootstrapSettings, compare_scores
from ureca_lib.evaluate.uniqueness import (
    COLLISION,
    LABELS,
    LOOK_ALIKE,
    RETRIEVAL,
    UniquenessSettings,
    measure_uniqueness,
)
from ureca_lib.listeners import (
    STYLE_NOTE,
    ExactListener,
    ListenerScores,
    ScoredRegion,
    score_image,
)
from ureca_lib.scenes import resolve

QUICK = UniquenessSettings(samples=200)


def oracle(image: CaptionedImage) -> dict:
    return {region_id: texts[0] for region_id, texts in image.captions.items()}


def class_names(image: CaptionedImage) -> dict:
    return {region.id: f"the {region.name}" for region in image.regions}


def shuffled(image: CaptionedImage) -> dict:
    captions = oracle(image)
    texts = list(captions.values())
    Random(image.image_id).shuffle(texts)
    return dict(zip(captions, texts, strict=True))


@pytest.fixture(scope="module")
def images():
    return list(open_captioned("scenes:test:24"))


@pytest.fixture(scope="module")
def found(images):
    return {
        speaker.__name__: measure_uniqueness(
            [
                score_image(image, speaker(image), ExactListener(), speaker.__name__)
                for image in images
            ],
            QUICK,
        )
        for speaker in (oracle, class_names, shuffled)
    }


def test_oracle_captions_reach_one_at_every_level_and_size(found):
    groups = [found["oracle"].overall, *found["oracle"].by_level.values()]
    for scores in [*groups, *found["oracle"].by_area.values()]:
        for name in (*RETRIEVAL, *LOOK_ALIKE):
            assert scores[name].value in (1, None)
        assert scores["collision_equal"].value == 0
    assert found["oracle"].overall["look_alike_mrr"].value == 1


def test_shuffled_captions_fall_to_chance(found):
    recall, chance = found["shuffled"].overall["recall_at_1"], found["shuffled"].chance
    assert recall.low <= chance["recall_at_1"] <= recall.high
    assert recall.high < 0.1
    assert found["shuffled"].overall["collision_equal"].value == 0


def test_class_names_are_in_between_and_at_chance_among_look_alikes(found):
    low, middle, high = (found[name].overall for name in ("shuffled", "class_names", "oracle"))
    for name in RETRIEVAL:
        assert low[name].high < middle[name].low
        assert middle[name].high < high[name].low
    assert middle["look_alike_recall_at_1"].value == pytest.approx(
        found["class_names"].chance["look_alike_recall_at_1"]
    )
    assert middle["collision_equal"].value > 0.5


def test_recall_is_the_chance_to_guess_right_among_the_regions_that_fit(images, found):
    guesses = []
    for image in images:
        for region_id, caption in class_names(image).items():
            fitting = resolve(caption, image.scene)
            guesses.append((region_id in fitting) / len(fitting))
    recall = found["class_names"].overall["recall_at_1"]
    assert recall.value == pytest.approx(np.mean(guesses))
    assert recall.count == len(guesses) and recall.units == len(images)


def test_groups_are_parts_of_the_whole(images, found):
    whole = found["class_names"]
    for groups in (whole.by_level, whole.by_area):
        for name in ("recall_at_1", "collision_near"):
            scores = [scores[name] for scores in groups.values()]
            total = sum(score.count for score in scores)
            assert total == whole.overall[name].count
            mean = sum(score.value * score.count for score in scores) / total
            assert mean == pytest.approx(whole.overall[name].value)
    depths = [level for image in images for level in image.levels.values()]
    for level, scores in whole.by_level.items():
        assert scores["mrr"].count == depths.count(int(level))
    assert list(whole.by_level) == sorted(whole.by_level, key=int)
    assert [name for name in AREA_NAMES if name in whole.by_area] == list(whole.by_area)


def test_systems_are_compared_on_the_same_images(found):
    settings = BootstrapSettings(samples=200)
    pair = compare_scores(found["oracle"].overall, found["class_names"].overall, settings)
    assert pair["recall_at_1"].apart and pair["recall_at_1"].difference > 0
    assert pair["collision_equal"].apart and pair["collision_equal"].difference < 0


def test_the_record_is_plain_and_says_how_it_came_about(found):
    record = json.loads(json.dumps(found["oracle"].as_record(), allow_nan=False))
    recall = record["overall"]["recall_at_1"]
    assert (recall["model"], record["listener"]) == ("listener exact", "exact")
    assert recall["settings"]["calibrate"] == "none" and recall["unit"] == "image"
    assert recall["settings"]["chance"] == record["chance"]["recall_at_1"]
    assert record["overall"]["collision_near"]["settings"] == {"near": 0.8}
    assert set(record["overall"]) == set(LABELS)
    assert record["settings"]["samples"] == 200


def one_image(scores, said, captions=None, image_id="a", alike=(), level=1):
    count = len(scores)
    regions = tuple(ScoredRegion(row, 20, level, alike if row == 0 else ()) for row in range(count))
    texts = tuple(captions or (f"caption {place}" for place in range(len(scores[0]))))
    return ListenerScores(image_id, "toy", "ours", (10, 10), regions, texts, said, np.array(scores))


def test_regions_without_captions_are_candidates_and_not_counted():
    heard = one_image([[-1.0], [-2.0], [-0.5]], {0: 0})
    found = measure_uniqueness([heard], QUICK)
    assert found.overall["mrr"].value == 0.5 and found.overall["mrr"].count == 1
    assert found.chance["recall_at_1"] == pytest.approx(1 / 3)
    assert found.candidates["recall_at_1"] == pytest.approx(3)
    assert list(found.by_area) == ["20% to 70%"]


def test_chance_and_candidates_stand_behind_each_recall_and_a_model_listener_is_warned_of():
    small = one_image([[-1.0], [-2.0]], {0: 0})
    large = one_image([[-1.0]] * 6, {5: 0}, image_id="b", level=2)
    found = measure_uniqueness([small, large], QUICK)
    assert found.candidates["recall_at_1"] == 4
    text = str(found)
    assert "guess 33.3 of 4.0" in text and "guess 16.7 of 6.0" in text  # all, and level 2
    assert STYLE_NOTE in text
    exact = [replace(scores, listener="exact") for scores in (small, large)]
    assert STYLE_NOTE not in str(measure_uniqueness(exact, QUICK))


def test_look_alikes_leave_out_the_other_regions():
    heard = one_image([[-1.0], [-2.0], [-0.5]], {0: 0}, alike=(1,))
    found = measure_uniqueness([heard], QUICK).overall
    assert (found["recall_at_1"].value, found["look_alike_recall_at_1"].value) == (0, 1)


def test_without_look_alikes_there_is_no_figure_but_a_reason():
    heard = one_image([[-1.0], [-2.0]], {0: 0})
    score = measure_uniqueness([heard], QUICK).overall["look_alike_mrr"]
    assert score.value is None and "look-alikes" in score.reason


def test_a_caption_said_twice_counts_twice_and_collides():
    heard = one_image([[-1.0], [-2.0]], {0: 0, 1: 0})
    found = measure_uniqueness([heard], QUICK).overall
    assert found["recall_at_1"].value == 0.5
    assert [found[name].value for name in COLLISION] == [1, 1]


def test_one_image_has_no_interval_and_an_unknown_level_is_named():
    heard = one_image([[-1.0], [-2.0]], {0: 0}, level=None)
    found = measure_uniqueness([heard], QUICK)
    assert found.overall["mrr"].low is None
    assert list(found.by_level) == ["unknown"]


def test_intervals_are_of_images_not_of_captions():
    # each image is all right or all wrong: the captions of one are one observation
    good = [one_image([[-1.0], [-2.0]], {0: 0}, image_id=f"g{n}") for n in range(5)]
    bad = [one_image([[-3.0], [-2.0]], {0: 0}, image_id=f"b{n}") for n in range(5)]
    score = measure_uniqueness([*good, *bad]).overall["recall_at_1"]
    assert score.value == 0.5
    assert score.low == pytest.approx(0.2, abs=0.11) and score.high == pytest.approx(0.8, abs=0.11)


def test_nothing_and_mixtures_are_refused():
    heard = one_image([[-1.0], [-2.0]], {0: 0})
    with pytest.raises(ValueError, match="no caption"):
        measure_uniqueness([one_image([[-1.0]], {})])
    for change in ({"system": "theirs"}, {"listener": "theirs"}):
        other = ListenerScores(**{**heard.__dict__, **change})
        with pytest.raises(ValueError, match=f"several {next(iter(change))}s: .*theirs"):
            measure_uniqueness([heard, other])
    with pytest.raises(ValueError, match="calibrate"):
        UniquenessSettings(calibrate="no")
    with pytest.raises(ValueError, match="near"):
        UniquenessSettings(near=0)
