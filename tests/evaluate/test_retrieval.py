"""Retrieval against its definition: every order of a tie tried, ranks counted by hand."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from ureca_lib.evaluate.uniqueness import TIE, calibrated, retrieve


def ranks_by_hand(column, target, candidates):
    """Ranks of the target in every order of the candidates that respects the scores."""
    found = []
    for order in permutations(candidates):
        scores = [column[row] for row in order]
        if all(one >= other for one, other in pairwise(scores)):
            found.append(order.index(target) + 1)
    return found


def test_equals_the_mean_over_all_orders_of_ties():
    rng = np.random.default_rng(0)
    for _ in range(60):
        scores = rng.integers(-3, 0, (5, 4)).astype(float)
        targets = rng.integers(0, 5, 4)
        allowed = rng.random((5, 4)) < 0.6
        found = retrieve(scores, targets, allowed)
        for column, target in enumerate(targets):
            rows = sorted({int(target), *np.flatnonzero(allowed[:, column]).tolist()})
            ranks = np.array(ranks_by_hand(scores[:, column], target, rows))
            assert found.first[column] == pytest.approx((ranks == 1).mean())
            assert found.reciprocal[column] == pytest.approx((1 / ranks).mean())
            assert found.chance[column] == pytest.approx(1 / len(rows))


def test_a_region_that_is_ruled_out_is_not_found():
    scores = np.array([[-np.inf, -np.inf, 0.0], [-np.inf, -1.0, -np.inf]])
    found = retrieve(scores, np.array([0, 0, 0]))
    assert found.first.tolist() == found.reciprocal.tolist() == [0, 0, 1]


def test_all_regions_alike_give_chance():
    found = retrieve(np.zeros((8, 3)), np.array([0, 3, 7]))
    assert found.first == pytest.approx([1 / 8] * 3)
    assert found.reciprocal == pytest.approx([sum(1 / k for k in range(1, 9)) / 8] * 3)
    assert found.chance == pytest.approx([1 / 8] * 3)


def test_rounding_does_not_break_a_tie():
    scores = np.array([[-3.0], [-3.0 + TIE / 2], [-3.0 + 2 * TIE]])
    assert retrieve(scores, np.array([0])).first == pytest.approx([0])
    assert retrieve(scores[:2], np.array([0])).first == pytest.approx([0.5])
    assert retrieve(scores[:2], np.array([1])).first == pytest.approx([0.5])


def test_what_is_common_to_a_caption_changes_nothing():
    rng = np.random.default_rng(1)
    scores, targets = rng.normal(size=(6, 9)), rng.integers(0, 6, 9)
    longer = scores + rng.normal(-50, 30, (1, 9))
    one, other = retrieve(scores, targets), retrieve(longer, targets)
    assert one.reciprocal.tolist() == other.reciprocal.tolist()
    assert 0 < one.first.mean() < 1


def test_pmi_mends_a_listener_that_favors_a_region():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(6, 6)) + 5 * np.eye(6)
    biased = scores + np.array([0, 40, 0, 0, 0, 0])[:, None]
    targets = np.arange(6)
    assert retrieve(scores, targets).first.mean() == 1
    assert retrieve(biased, targets).first.mean() == pytest.approx(1 / 6)
    assert retrieve(calibrated(biased), targets).first.mean() == 1
    assert calibrated(biased) == pytest.approx(calibrated(scores))


def test_pmi_reads_a_caption_by_the_others_and_so_flatters_one_that_is_not_unique():
    # "the yellow mushroom" fits region 0, "the mushroom" fits both and was said of 1
    scores = np.log(np.array([[1.0, 0.5], [1e-300, 0.5]]))
    assert retrieve(scores, np.array([0, 1])).first.tolist() == [1, 0.5]
    assert retrieve(calibrated(scores), np.array([0, 1])).first.tolist() == [1, 1]


def test_pmi_keeps_what_is_ruled_out():
    scores = np.array([[-np.inf, -np.inf], [-1.0, -np.inf]])
    assert calibrated(scores).tolist() == [[-np.inf, -np.inf], [0, -np.inf]]


def test_very_unlikely_captions_do_not_underflow():
    scores = np.array([[-5000.0, -9000.0], [-5001.0, -8999.0]])
    assert retrieve(scores, np.array([0, 1])).first.tolist() == [1, 1]
    assert calibrated(scores).tolist() == [[0, -4000], [0, -3998]]


def test_no_captions_give_nothing():
    found = retrieve(np.zeros((4, 0)), np.zeros(0, int))
    assert found.first.shape == found.chance.shape == (0,)
    assert calibrated(np.zeros((4, 0))).shape == (4, 0)
