"""Intervals and paired comparisons by resampling images with all their captions.

Captions of one image are alike, so images are drawn, not captions. The statistics that each
caption adds are summed over the images drawn and finished as on the whole set, which holds for
means and for corpus metrics such as BLEU. Efron and Tibshirani, An Introduction to the Bootstrap
(1993), chapters 13 and 16; for paired systems Koehn, EMNLP 2004.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ureca_lib.evaluate.scores import Score, Tally

_AT_A_TIME = 4_000_000  # draws that are held in memory


@dataclass(frozen=True)
class BootstrapSettings:
    """How intervals are drawn."""

    samples: int = field(default=1000, metadata={"help": "resamples; 0 gives no intervals"})
    confidence: float = field(default=0.95, metadata={"help": "share that an interval covers"})
    seed: int = field(default=0, metadata={"help": "of the draws"})

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ValueError(f"samples is at least 0, not {self.samples}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence lies between 0 and 1, not {self.confidence}")


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same captions; `difference` is the first minus the second.

    Args:
        name, label: of the metric.
        first, second: their values.
        difference, low, high: with its interval.
        p_value: two-sided, the share of resamples in which the sign turns, doubled.
        units, unit: what was drawn, and how many of them there are.
    """

    name: str
    label: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    units: int
    unit: str

    @property
    def apart(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def group_codes(
    ids: Sequence[Hashable], groups: Mapping[Hashable, Hashable] | None
) -> tuple[np.ndarray, int]:
    """For each caption the number of its image, (N,) int64, and how many images there are.

    Args:
        ids: of the captions.
        groups: for each id its image; None makes each caption a group of its own.

    Raises:
        ValueError: naming ids that have no group.
    """
    if groups is None:
        return np.arange(len(ids)), len(ids)
    if lost := [one for one in ids if one not in groups]:
        raise ValueError(f"groups has no image for {len(lost)} ids, such as {lost[0]!r}")
    numbers: dict[Hashable, int] = {}
    codes = [numbers.setdefault(groups[one], len(numbers)) for one in ids]
    return np.asarray(codes, np.int64), len(numbers)


def resampled_sums(rows: np.ndarray, groups: np.ndarray, settings: BootstrapSettings) -> np.ndarray:
    """Sums of rows over resampled groups; the same seed draws the same groups.

    Args:
        rows: (N, K) float64.
        groups: (N,) int64, from 0 on without gaps.

    Returns:
        (B, K) float64, B the number of resamples.
    """
    number = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, column, number) for column in rows.T], axis=1)  # (G, K)
    generator = np.random.default_rng(settings.seed)
    chunk = max(1, _AT_A_TIME // number)
    parts = []
    for start in range(0, settings.samples, chunk):
        count = min(chunk, settings.samples - start)
        drawn = generator.integers(0, number, (count, number))
        drawn += number * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * number)  # (B * G,) -> (B, G)
        parts.append(times.reshape(count, number).astype(np.float64) @ sums)
    return np.concatenate(parts)


def intervals(
    tallies: Sequence[Tally], groups: np.ndarray, settings: BootstrapSettings
) -> list[tuple[float, float] | None]:
    """For each metric its percentile interval, or None where fewer than two groups are drawn."""
    if settings.samples == 0 or not len(groups) or groups.max() < 1:
        return [None] * len(tallies)
    sums = resampled_sums(np.concatenate([t.rows for t in tallies], axis=1), groups, settings)
    widths = np.cumsum([tally.rows.shape[1] for tally in tallies])[:-1]
    values = [t.finish(s) for t, s in zip(tallies, np.split(sums, widths, axis=1), strict=True)]
    return [_percentiles(one, settings.confidence) for one in values]


def compare_scores(
    first: Mapping[str, Score],
    second: Mapping[str, Score],
    settings: BootstrapSettings | None = None,
) -> dict[str, Comparison]:
    """Compare two systems by the metrics that both have, on resamples of the same images.

    Args:
        first, second: what `score_captions` gave for the same references and groups.

    Raises:
        ValueError: the systems were scored on other captions, groups, backends or settings.
    """
    settings = settings or BootstrapSettings()
    found = {}
    for name, one in first.items():
        other = second.get(name)
        if other is None or one.value is None or other.value is None:
            continue
        _check_comparable(one, other)
        found[name] = _compare(one, other, settings)
    return found


def _compare(one: Score, other: Score, settings: BootstrapSettings) -> Comparison:
    low = high = p_value = None
    if settings.samples and one.units > 1:
        both = np.concatenate([one.tally.rows, other.tally.rows], axis=1)
        sums = np.split(resampled_sums(both, one.groups, settings), 2, axis=1)
        differences = one.tally.finish(sums[0]) - other.tally.finish(sums[1])
        differences = differences[np.isfinite(differences)]
        if differences.size:
            low, high = _percentiles(differences, settings.confidence)
            tail = min((differences <= 0).sum(), (differences >= 0).sum())
            p_value = min(1.0, 2 * (int(tail) + 1) / (len(differences) + 1))
    return Comparison(
        one.name,
        one.label,
        one.value,
        other.value,
        one.value - other.value,
        low,
        high,
        p_value,
        one.units,
        one.unit,
    )


def _check_comparable(one: Score, other: Score) -> None:
    if one.ids != other.ids or not np.array_equal(one.groups, other.groups):
        raise ValueError(f"{one.name}: the systems were not scored on the same captions")
    for what in ("backend", "version", "tokenizer", "model", "label"):
        if getattr(one, what) != getattr(other, what):
            pair = f"{getattr(one, what)!r} and {getattr(other, what)!r}"
            raise ValueError(f"{one.name}: the {what}s differ, {pair}")


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float] | None:
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    outside = 50 * (1 - confidence)
    low, high = np.percentile(values, [outside, 100 - outside])
    return float(low), float(high)
