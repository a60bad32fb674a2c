"""Collision: captions of an image that equal, or nearly equal, another caption of that image.

Captions are equal if their `normalized` texts are: case, punctuation and articles do not
distinguish regions. They are nearly equal if the share of words and pairs of neighboring words
that they have in common (`word_overlaps`) is at least `NEAR`. That includes captions that differ
in one word of many, which may be the word that distinguishes them: the number is an upper bound,
and self-retrieval shows how many of these are understood. Short captions reach it only by being
equal; of captions that differ in one inner word, those of 15 words or more do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ureca_lib.annotate.look_alikes import normalized, word_overlaps

NEAR = 0.8  # share of words and pairs of words


@dataclass(frozen=True)
class Collisions:
    """Which of an image's C captions collide with another one.

    Attributes:
        equal: (C,) bool, the same once normalized.
        near: (C,) bool, equal or nearly so.
    """

    equal: np.ndarray
    near: np.ndarray


def find_collisions(captions: Sequence[str], near: float = NEAR) -> Collisions:
    """Compare each caption of an image with all others.

    Two captions without a word equal each other.

    Args:
        captions: one a region.
        near: share from which captions are nearly equal, above 0 and at most 1.

    Raises:
        ValueError: `near` out of range.
    """
    if not 0 < near <= 1:
        raise ValueError(f"near must be above 0 and at most 1, not {near}")
    texts = [normalized(caption) for caption in captions]
    counts = Counter(texts)
    equal = np.array([counts[text] > 1 for text in texts], bool)
    overlap = word_overlaps(texts)
    np.fill_diagonal(overlap, 0)
    return Collisions(equal, equal | (overlap >= near).any(axis=1))
