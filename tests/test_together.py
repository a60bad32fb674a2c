"""Captions of one photo chosen together: against enumeration, and what never happens."""

from __future__ import annotations

import random
from itertools import product

import pytest

from ureca_lib.together import assign, clashing, normalized

WORDS = ["the car", "a car", "The car.", "the red car", "left", "right", "a tree", "the door"]


def case(seed: int) -> tuple[list[str], dict[int, list[tuple[str, float]]]]:
    """Captions of a few regions, and choices of those that clash; the own caption among them."""
    rng = random.Random(seed)
    captions = [rng.choice(WORDS) for _ in range(rng.randint(1, 6))]
    choices = {}
    for place in clashing(captions):
        others = rng.sample(WORDS, rng.randint(0, 4))
        choices[place] = [(text, -rng.uniform(0, 9)) for text in [*others, captions[place]]]
    return captions, choices


def by_enumeration(captions, choices) -> tuple[int, float]:
    """Number of regions that get a caption, and the sum of log-likelihoods, at best."""
    others = {normalized(t) for place, t in enumerate(captions) if place not in choices}
    best = (0, 0.0)
    for numbers in product(*([None, *range(len(pairs))] for pairs in choices.values())):
        taken = zip(choices.values(), numbers, strict=True)
        chosen = [pairs[n] for pairs, n in taken if n is not None]
        said = [normalized(text) for text, _ in chosen]
        if len({*said}) == len(said) and not {*said} & others:
            best = max(best, (len(chosen), sum(value for _, value in chosen)))
    return best


@pytest.mark.parametrize("seed", range(150))
def test_the_assignment_is_the_best_of_all(seed):
    captions, choices = case(seed)
    found = assign(captions, choices)
    total = sum(choices[place][number][1] for place, number in found.items())
    count, best = by_enumeration(captions, choices)
    assert (len(found), total) == (count, pytest.approx(best))


@pytest.mark.parametrize("seed", range(150))
def test_nothing_gets_worse(seed):
    captions, choices = case(1000 + seed)
    before, after = clashing(captions), list(captions)
    for place, number in assign(captions, choices).items():
        after[place] = choices[place][number][0]
    changed = {place for place, text in enumerate(captions) if after[place] != text}
    assert changed <= set(before)  # what one region alone says stays
    assert set(clashing(after)) <= set(before)


def test_case_articles_and_punctuation_do_not_make_captions_differ():
    captions = ["The red car.", "a red  car", "the red cart"]
    assert clashing(captions) == [0, 1]
    choices = {
        0: [("The red car.", -0.1), ("the red car!", -0.05), ("red cart", -0.1), ("bus", -3.0)],
        1: [("a red  car", -0.5), ("the left red car", -0.6)],
    }
    assert assign(captions, choices) == {0: 1, 1: 1}


def test_a_caption_that_nobody_can_replace_stays():
    assert assign(["car", "car"], {0: [("car", -1.0)], 1: [("car", -0.5)]}) == {1: 0}
    assert assign(["car", "car", "bus"], {0: [("bus", -1.0)], 1: [("Bus", -0.5)]}) == {}
    assert assign(["car", "bus"], {}) == {}


def test_very_unlikely_captions_are_still_captions():
    choices = {0: [("a", -1.0), ("b", -5000.0)], 1: [("a", -1.0)]}
    assert assign(["a", "a"], choices) == {0: 1, 1: 0}
