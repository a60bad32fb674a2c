"""Collision: captions of an image that equal, or nearly equal, another caption of that image.

Equal is equal to `normalized`: case, punctuation and articles do not tell regions apart. Nearly
equal is a `word_overlap` of at least `NEAR`: words and pairs of neighbouring words that two
captions share. It counts captions that differ in one word of many as well, which may be the word
that tells them apart, so it is an upper bound, and self-retrieval says how many of those are
understood. Short captions reach it only by being equal; of captions that differ in one word inside,
those of 15 words or more do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse

from ureca_lib.annotate.clashes import normalized

NEAR = 0.8  # share of words and pairs of words


@dataclass(frozen=True)
class Collisions:
    """Which of an image's C captions collide with another one.

    Attributes:
        equal: (C,) bool, the same once normalised.
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


def word_overlaps(texts: Sequence[str]) -> np.ndarray:
    """(C, C) `word_overlap` of each two of C normalised captions, all at once."""
    number: dict[object, int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        words = text.split()
        # the k-th time that a piece stands is a piece of its own, so that sets do for multisets
        seen: Counter[object] = Counter()
        for piece in (*words, *pairwise(words)):
            seen[piece] += 1
            rows.append(row)
            columns.append(number.setdefault((piece, seen[piece]), len(number)))
    shape = (len(texts), max(1, len(number)))
    pieces = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    shared = (pieces @ pieces.T).toarray()  # (C, P) @ (P, C) -> (C, C)
    sizes = pieces.sum(axis=1)
    union = sizes[:, None] + sizes[None, :] - shared
    return np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
