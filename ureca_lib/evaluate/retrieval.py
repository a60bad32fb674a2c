"""Self-retrieval: which region of an image does a listener pick for a caption?

A listener gives log p(caption | region) for the R regions of an image and C captions. Read down a
column, one caption against all regions, these are comparable as they are: the caption's length
and how common its words are change the whole column alike. With every region equally likely
beforehand, Bayes' rule makes a column the listener's belief about which region was meant,

    p(region | caption) = p(caption | region) / sum over regions of p(caption | region),

and the region it picks is the column's largest. That is `calibrate="none"`, and the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Calibration = Literal["none", "pmi"]
TIE = 1e-3  # nats; regions with one mask differ by rounding, and by batch, in a model's scores


@dataclass(frozen=True)
class Retrieved:
    """How C captions were understood.

    Attributes:
        first: (C,) chance that the listener picks the caption's own region: 1, 0, or a share of
            1 where several regions come first together.
        reciprocal: (C,) 1 / rank of its own region, averaged over the orders of a tie; 0 where
            the listener rules the region out.
        chance: (C,) `first` of a guess, 1 / number of candidates.
        candidates: (C,) how many regions were to choose from, its own included.
    """

    first: np.ndarray
    reciprocal: np.ndarray
    chance: np.ndarray
    candidates: np.ndarray


def check_scores(scores: np.ndarray, what: str = "scores") -> np.ndarray:
    """(R, C) float64 log-likelihoods; -inf means that the region is ruled out.

    Raises:
        ValueError: another shape, NaN or +inf.
    """
    array = np.asarray(scores, np.float64)
    if array.ndim != 2:
        raise ValueError(f"{what} are (regions, captions), not of shape {array.shape}")
    if np.isnan(array).any() or np.isposinf(array).any():
        raise ValueError(f"{what} hold NaN or +inf; a log-likelihood is a number or -inf")
    return array


def calibrated(scores: np.ndarray, calibrate: Calibration = "none") -> np.ndarray:
    """Scores whose largest in each column is what the listener picks.

    "none" keeps them: a caption is judged by itself, against the regions.

    "pmi" divides out how likely each region finds the image's captions in general:
    log p(c | r) - log sum over the captions c' of p(c' | r). It is the pointwise mutual
    information of region and caption under the listener, when one of these captions is said of a
    region: its other term, log p(c), is the same down a column. A listener that takes every
    caption for its favourite region is mended by it. But it also reads a caption in the light of
    the others: "the mushroom", said next to "the yellow mushroom", comes to mean the other
    mushroom, and a region that no caption fits takes the one that fits least badly. So it
    flatters captions that are not unique, and is meant for looking at a listener, not for a
    figure that is reported alone.

    Args:
        scores: (R, C) log-likelihoods.
        calibrate: one of the two.

    Raises:
        ValueError: no such calibration, or no such scores.
    """
    if calibrate not in get_args(Calibration):
        raise ValueError(f"calibrate must be one of {get_args(Calibration)}, not {calibrate!r}")
    array = check_scores(scores)
    if calibrate == "none" or not array.size:
        return array
    most = array.max(axis=1, keepdims=True)  # (R, 1)
    most = np.where(np.isneginf(most), 0, most)
    total = np.exp(array - most).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        own = np.log(total)
    return array - np.where(total > 0, most + own, 0)  # a row that is ruled out stays so


def retrieve(
    scores: np.ndarray,
    targets: np.ndarray,
    candidates: np.ndarray | None = None,
    calibrate: Calibration = "none",
) -> Retrieved:
    """Rank each caption's own region among the candidates.

    Args:
        scores: (R, C) log-likelihoods; a column of -inf is a caption that names nothing.
        targets: (C,) row of each caption's own region.
        candidates: (R, C) bool, the rows to choose from; None is all. The own region always is
            one.
        calibrate: see `calibrated`.

    Returns:
        Chance of the first place, reciprocal rank and chance level, a caption each.

    Raises:
        ValueError: shapes that do not go together, a row that is not there.
    """
    array = calibrated(scores, calibrate)
    rows = np.asarray(targets, np.intp)
    if rows.shape != (array.shape[1],):
        raise ValueError(f"{array.shape[1]} captions need as many targets, not {rows.shape}")
    if rows.size and not (rows.min() >= 0 and rows.max() < array.shape[0]):
        raise ValueError(f"a target is a row below {array.shape[0]}")
    allowed = np.ones(array.shape, bool) if candidates is None else np.array(candidates, bool)
    if allowed.shape != array.shape:
        raise ValueError(f"candidates are of shape {array.shape}, not {allowed.shape}")
    columns = np.arange(len(rows))
    allowed[rows, columns] = True
    own = array[rows, columns]  # (R, C) -> (C,)
    named = ~np.isneginf(own)
    ahead = array - np.where(named, own, 0)
    better = (allowed & (ahead > TIE)).sum(axis=0)
    tied = (allowed & (np.abs(ahead) <= TIE)).sum(axis=0)
    harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, array.shape[0] + 1))])
    tied = np.where(named, tied, 1)
    better = np.where(named, better, 0)
    mean = (harmonic[better + tied] - harmonic[better]) / tied
    counts = allowed.sum(axis=0)
    first = np.where(named & (better == 0), 1 / tied, 0.0)
    return Retrieved(first, np.where(named, mean, 0.0), 1 / np.maximum(counts, 1), counts)
