"""BLEU, ROUGE-L and CIDEr, equal to pycocoevalcap 1.2 but without Java.

The formulas are those of the COCO caption evaluation (Chen et al. 2015), including its constants
and its ways of splitting, arranged so that each caption's share is available to the bootstrap.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from ureca_lib.evaluate.scores import Score, Tally, measured

ORDER = 4  # longest n-gram of BLEU and CIDEr
BACKEND = "ureca_lib, formulas of pycocoevalcap"
FORMULAS = "1.2"  # of pycocoevalcap
_TINY, _SMALL = 1e-15, 1e-9  # keep BLEU from dividing by zero, as in bleu_scorer.py
_ROUGE_BETA = 1.2  # weight of recall, as in rouge.py
_CIDER_SIGMA = 6.0  # of the penalty on length, as in cider_scorer.py

Counts = list[Counter[tuple[str, ...]]]
Weights = list[dict[tuple[str, ...], float]]  # of n-grams, for n from 1 to `ORDER`
Pair = tuple[str, Sequence[str]]  # a caption and its references, tokens between white space


def ngram_counts(text: str, order: int = ORDER) -> Counts:
    """Counts of the n-grams of white-space tokens, for n from 1 to `order`."""
    words = text.split()
    return [
        Counter(zip(*(words[start:] for start in range(n)), strict=False))
        for n in range(1, order + 1)
    ]


def bleu(pairs: Sequence[Pair]) -> list[Score]:
    """Corpus BLEU-1 to BLEU-4 against the closest reference length (Papineni et al. 2002)."""
    rows = np.array([_bleu_row(*pair) for pair in pairs], np.float64)  # (N, 10)
    settings = {"reference_length": "closest", "level": "corpus"}
    scores = []
    for n in range(1, ORDER + 1):
        finish = partial(_finish_bleu, n=n)
        tally, captions = Tally(rows, finish), finish(rows)
        about = (f"bleu_{n}", f"BLEU-{n}", captions, BACKEND, FORMULAS, tally)
        scores.append(measured(*about, settings=settings))
    return scores


def _bleu_row(caption: str, references: Sequence[str]) -> list[int]:
    """Numbers of correct n-grams and of n-grams, lengths of caption and closest reference."""
    counts = ngram_counts(caption)
    most: Counts = [Counter() for _ in range(ORDER)]
    for reference in references:
        for union, one in zip(most, ngram_counts(reference), strict=True):
            union |= one
    length = len(caption.split())
    lengths = [len(reference.split()) for reference in references]
    correct = [(one & limit).total() for one, limit in zip(counts, most, strict=True)]
    closest = min(lengths, key=lambda other: (abs(other - length), other))
    return [*correct, *(one.total() for one in counts), length, closest]


def _finish_bleu(sums: np.ndarray, n: int) -> np.ndarray:
    """(..., 10) -> (...,)."""
    correct, guessed = sums[..., :n], sums[..., ORDER : ORDER + n]
    precision = np.prod((correct + _TINY) / (guessed + _SMALL), axis=-1) ** (1 / n)
    ratio = (sums[..., -2] + _TINY) / (sums[..., -1] + _SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def rouge_l(pairs: Sequence[Pair]) -> list[Score]:
    """Mean ROUGE-L: the best precision and the best recall of all references (Lin 2004).

    An empty caption scores 0, also against an empty reference, where pycocoevalcap gives 1.
    """
    scores = np.array([_rouge(*pair) for pair in pairs])
    settings = {"beta": _ROUGE_BETA}
    return [measured("rouge_l", "ROUGE-L", scores, BACKEND, FORMULAS, settings=settings)]


def _rouge(caption: str, references: Sequence[str]) -> float:
    if not caption.strip():
        return 0.0
    words = caption.split(" ")  # not split(): two blanks make an empty token there too
    precision = recall = 0.0
    for reference in references:
        others = reference.split(" ")
        common = lcs_length(words, others)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(others))
    if not precision or not recall:
        return 0.0
    weight = _ROUGE_BETA**2
    return (1 + weight) * precision * recall / (recall + weight * precision)


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, with `first` as the bits of a number.

    Hyyro, Bit-parallel LCS-length computation revisited, AWOCA 2004.
    """
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    full = row = (1 << len(first)) - 1
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(first) - row.bit_count()


def cider(pairs: Sequence[Pair]) -> list[Score]:
    """Mean CIDEr-D on its scale of 0 to 10; rarity is counted in these references.

    Vedantam, Zitnick and Parikh, CVPR 2015. A single caption scores 0, because nothing is rare.
    """
    references = [[ngram_counts(text) for text in texts] for _, texts in pairs]
    # captions whose references hold an n-gram: the fewer, the rarer it is
    seen: Counter[tuple[str, ...]] = Counter()
    for counted in references:
        seen.update({ngram for counts in counted for order in counts for ngram in order})
    unseen = math.log(len(pairs))
    weights = {ngram: unseen - math.log(count) for ngram, count in seen.items()}

    def weighted(counts: Counts) -> Weights:
        """A text's n-grams, weighted by their count in it and by their rarity."""
        return [{g: times * weights.get(g, unseen) for g, times in one.items()} for one in counts]

    scores = []
    for (caption, _), counted in zip(pairs, references, strict=True):
        counts, total = ngram_counts(caption), 0.0
        vector = weighted(counts)
        for other in counted:
            delta = counts[1].total() - other[1].total()  # pycocoevalcap counts pairs of words
            penalty = math.exp(-(delta**2) / (2 * _CIDER_SIGMA**2))
            total += _clipped_cosines(vector, weighted(other)) * penalty
        scores.append(10 * total / (ORDER * len(counted)))
    settings = {"sigma": _CIDER_SIGMA, "variant": "CIDEr-D", "rarity": "of these references"}
    return [measured("cider", "CIDEr", np.array(scores), BACKEND, FORMULAS, settings=settings)]


def _clipped_cosines(vector: Weights, reference: Weights) -> float:
    """Sum over n of the cosines, the caption's weights clipped to the reference's."""
    total = 0.0
    for part, other in zip(vector, reference, strict=True):
        norm = _norm(part) * _norm(other)
        if norm:
            dot = sum(min(v, other[g]) * other[g] for g, v in part.items() if g in other)
            total += dot / norm
    return total


def _norm(weights: Mapping[tuple[str, ...], float]) -> float:
    return math.sqrt(sum(value * value for value in weights.values()))
