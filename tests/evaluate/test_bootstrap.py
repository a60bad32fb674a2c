"""Intervals and paired comparisons by resampling images."""

from __future__ import annotations

import numpy as np
import pytest

from ureca_lib.evaluate.ngrams import bleu
from ureca_lib.evaluate.scores import (
    BootstrapSettings,
    Score,
    Tally,
    compare_scores,
    intervals,
    mean_tally,
    measured,
    resampled,
    with_intervals,
)

SETTINGS = BootstrapSettings(samples=400, seed=3)


def score_of(values, groups, label: str = "accuracy") -> Score:
    images = dict(enumerate(np.asarray(groups).tolist()))
    score = measured("accuracy", label, np.asarray(values), "test", "1")
    return with_intervals([score], list(images), images, SETTINGS)["accuracy"]


def test_sums_are_those_of_the_images_drawn():
    rows = np.array([[1.0, 10], [2, 20], [4, 40], [8, 80]])
    groups = np.array([0, 0, 1, 2])
    tallies = [Tally(rows, lambda sums, column=column: sums[..., column]) for column in (0, 1)]
    ones, tens = resampled(tallies, groups, BootstrapSettings(samples=300))
    assert ones.shape == tens.shape == (300,)
    # three images are drawn, of sums 3, 4 and 8: captions of an image come together
    possible = {a + b + c for a in (3, 4, 8) for b in (3, 4, 8) for c in (3, 4, 8)}
    assert set(ones) <= possible and len(set(ones)) == len(possible)
    assert np.array_equal(tens, 10 * ones)
    assert np.array_equal(ones, resampled(tallies, groups, BootstrapSettings(samples=300))[0])
    other, _ = resampled(tallies, groups, BootstrapSettings(samples=300, seed=1))
    assert not np.array_equal(ones, other)


def test_an_interval_is_as_wide_as_theory_has_it():
    generator = np.random.default_rng(0)
    values = generator.normal(5, 2, 4000)
    settings = BootstrapSettings(samples=2000)
    ((low, high),) = intervals([mean_tally(values)], np.arange(4000), settings)
    error = values.std() / np.sqrt(4000)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_captions_of_one_image_do_not_count_as_many():
    generator = np.random.default_rng(1)
    values = np.repeat(generator.normal(size=100), 25)
    images = np.repeat(np.arange(100), 25)
    alone, together = (
        intervals([mean_tally(values)], groups, SETTINGS)[0] for groups in (np.arange(2500), images)
    )
    assert together[1] - together[0] > 4 * (alone[1] - alone[0])  # 5 in theory


def test_a_corpus_metric_is_finished_after_the_sum():
    pairs = [("a red cup on it", ["a red cup on it"]), ("dog", ["the cat sat on a mat"])] * 30
    score = bleu(pairs)[3]
    ((low, high),) = intervals([score.tally], np.arange(60), SETTINGS)
    assert low < score.value < high
    assert abs(score.captions.mean() - score.value) > 0.05  # it is not the mean


def test_a_single_image_or_no_samples_give_no_interval():
    tally = mean_tally([1.0, 0.0])
    assert intervals([tally], np.zeros(2, int), SETTINGS) == [(None, None)]
    assert intervals([tally], np.arange(2), BootstrapSettings(samples=0)) == [(None, None)]


def test_metrics_of_the_same_captions_share_the_draws():
    generator = np.random.default_rng(0)
    values = generator.random(50)
    one = intervals([mean_tally(values)], np.arange(50), SETTINGS)
    two = intervals([mean_tally(values), mean_tally(1 + values)], np.arange(50), SETTINGS)
    assert two[0] == pytest.approx(one[0])
    assert two[1] == pytest.approx(np.add(one[0], 1))


def test_a_comparison_is_paired():
    generator = np.random.default_rng(0)
    images = np.repeat(np.arange(60), 3)
    base = generator.normal(size=60)[images]
    first, second = score_of(base + 0.1, images), score_of(base, images)
    found = compare_scores({"accuracy": first}, {"accuracy": second}, SETTINGS)["accuracy"]
    # the systems vary much more than their difference
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.apart and found.p_value < 0.01
    assert first.high - first.low > 0.3


def test_equal_systems_do_not_differ_and_swapping_turns_the_sign():
    generator = np.random.default_rng(0)
    first = score_of(generator.random(80), np.arange(80))
    second = score_of(generator.random(80), np.arange(80))
    same = compare_scores({"accuracy": first}, {"accuracy": first}, SETTINGS)["accuracy"]
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert not same.apart
    one, other = (
        compare_scores({"accuracy": a}, {"accuracy": b}, SETTINGS)["accuracy"]
        for a, b in ((first, second), (second, first))
    )
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == other.p_value


def test_p_values_of_equal_systems_are_spread_evenly():
    generator = np.random.default_rng(5)
    small = []
    for _ in range(120):
        first, second = (score_of(generator.random(60), np.arange(60)) for _ in range(2))
        found = compare_scores({"accuracy": first}, {"accuracy": second}, SETTINGS)
        small.append(found["accuracy"].p_value < 0.2)
    assert 0.1 < np.mean(small) < 0.32


def test_what_cannot_be_compared_is_refused():
    first = score_of([1.0, 0], [0, 1])
    with pytest.raises(ValueError, match="not scored on the same captions"):
        compare_scores({"accuracy": first}, {"accuracy": score_of([1.0, 0, 1], [0, 1, 2])})
    with pytest.raises(ValueError, match="labels differ"):
        compare_scores({"accuracy": first}, {"accuracy": score_of([1.0, 0], [0, 1], "other")})
    assert compare_scores({"accuracy": first}, {}) == {}


def test_groups_are_numbered_and_a_missing_one_is_named():
    score = measured("accuracy", "accuracy", np.ones(3), "test", "1")
    ids, images = ["x", "y", "z"], {"x": "b", "y": "a", "z": "b"}
    found = with_intervals([score], ids, images, SETTINGS)["accuracy"]
    assert found.groups.tolist() == [0, 1, 0] and found.units == 2
    assert found.unit == "image" and found.ids == ("x", "y", "z")
    alone = with_intervals([score], ids, None, SETTINGS)["accuracy"]
    assert alone.units == 3 and alone.unit == "caption"
    with pytest.raises(ValueError, match="2 ids, such as 'y'"):
        with_intervals([score], ids, {"x": 1}, SETTINGS)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="samples"):
        BootstrapSettings(samples=-1)
