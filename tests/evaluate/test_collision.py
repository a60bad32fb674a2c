"""Collisions against the pairwise definition."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from ureca_lib.annotate.look_alikes import normalized, word_overlaps
from ureca_lib.evaluate.uniqueness import find_collisions

WORDS = ["the", "red", "left", "car", "Tree", "of", "a", "wheel", "café", "!"]


def word_overlap(one: str, other: str) -> float:
    """The definition: shared words and pairs of neighbouring words over all of them."""
    first, second = (Counter([*text.split(), *pairwise(text.split())]) for text in (one, other))
    union = (first | second).total()
    return (first & second).total() / union if union else 1.0


def random_captions(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 7))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_overlaps_are_those_of_each_pair(seed):
    texts = [normalized(text) for text in random_captions(25, seed)]
    by_pair = [[word_overlap(one, other) for other in texts] for one in texts]
    assert word_overlaps(texts) == pytest.approx(np.array(by_pair))


@pytest.mark.parametrize("near", [0.4, 0.8, 1.0])
def test_collisions_are_captions_with_another_of_enough_overlap(near):
    captions = random_captions(30, 7)
    texts = [normalized(text) for text in captions]
    equal, nearly = find_collisions(captions, near)
    for place, text in enumerate(texts):
        others = [*texts[:place], *texts[place + 1 :]]
        assert equal[place] == (text in others)
        close = any(word_overlap(text, other) >= near for other in others)
        assert nearly[place] == (close or text in others)


def test_case_articles_and_stops_do_not_tell_apart_but_words_and_order_do():
    captions = ["The red car.", "a Red car", "the red cars", "the car, red"]
    assert find_collisions(captions)[0].tolist() == [True, True, False, False]


def test_one_word_of_many_is_near_and_of_few_is_not():
    few = ["the left wheel of the car", "the right wheel of the car"]
    many = [
        f"{side} one of ten small grey wheels under a long old green train that stands there "
        "in front of a station"
        for side in ("left", "right")
    ]
    assert not find_collisions(few)[1].any()
    equal, near = find_collisions(many)
    assert near.all() and not equal.any()


def test_one_caption_cannot_collide_and_empty_ones_equal_each_other():
    assert find_collisions([""])[1].tolist() == [False]
    assert find_collisions([])[1].tolist() == []
    equal, _ = find_collisions(["", "the", "car"])
    assert equal.tolist() == [True, True, False]
