"""Scores of captions: value, interval by the bootstrap over images, and paired comparison.

Captions of one image are alike, so images are drawn, not captions. The statistics that each
caption adds are summed over the images drawn and finished as on the whole set, which holds for
means and for corpus metrics such as BLEU. Efron and Tibshirani, An Introduction to the Bootstrap
(1993), chapters 13 and 16; for paired systems Koehn, EMNLP 2004.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

_AT_A_TIME = 4_000_000  # draws that are held in memory
_SAME = ("backend", "version", "tokenizer", "model", "label")  # of scores that are compared


@dataclass(frozen=True)
class BootstrapSettings:
    """Settings of the intervals."""

    samples: int = field(default=1000, metadata={"help": "resamples; 0 gives no intervals"})
    confidence: float = field(default=0.95, metadata={"help": "share that an interval covers"})
    seed: int = field(default=0, metadata={"help": "of the draws"})

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ValueError(f"samples is at least 0, not {self.samples}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, not {self.confidence}")


@dataclass(frozen=True, eq=False)
class Tally:
    """Statistics that each caption adds to a metric, so that any subset can be scored again.

    Args:
        rows: (N, K) float64, one row per caption.
        finish: computes values (...,) from sums of rows (..., K).
    """

    rows: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The metric of all captions together."""
        return float(self.finish(self.rows.sum(axis=0)))


def mean_tally(values: Sequence[float] | np.ndarray) -> Tally:
    """A metric that is the mean of the captions' scores (N,); NaN is a caption without a score."""
    scores = np.asarray(values, np.float64)
    known = ~np.isnan(scores)
    return Tally(np.stack([np.where(known, scores, 0.0), known], axis=1), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """(..., 2) sums and counts -> (...,) means, NaN where the count is 0."""
    counts = sums[..., 1]
    return np.where(counts > 0, sums[..., 0] / np.where(counts > 0, counts, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Score:
    """A metric's value on a set of captions, on pycocoevalcap's scale (tables multiply by 100).

    Args:
        name: key of the result, such as "bleu_4".
        label: heading in a table; it says if, for instance, synonyms are off.
        value: None if it could not be measured; `reason` then says why.
        low, high: interval by the bootstrap over `unit`s; None with fewer than two of them.
        backend, version: of the software that computed it.
        tokenizer: its name; None if the model has its own.
        model: of the backend, if any.
        settings: everything else that the value depends on.
        count: number of captions that were scored.
        units, unit: number and kind of the things that the bootstrap draws.
        missing: number of references without a prediction, scored as empty captions.
        surplus: number of predictions without a reference, left out.
        reason: why there is no value.
        ids, captions: id and score of each caption alone, (N,) float64, NaN for none.
        tally: statistics that intervals and comparisons are computed from.
        groups: (N,) int64, the unit of each caption.
    """

    name: str
    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    backend: str = ""
    version: str = ""
    tokenizer: str | None = None
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    count: int = 0
    units: int = 0
    unit: str = "caption"
    missing: int = 0
    surplus: int = 0
    reason: str | None = None
    ids: tuple[Hashable, ...] = field(default=(), repr=False)
    captions: np.ndarray | None = field(default=None, repr=False)
    tally: Tally | None = field(default=None, repr=False)
    groups: np.ndarray | None = field(default=None, repr=False)

    @property
    def by_id(self) -> dict[Hashable, float]:
        """The score of each caption alone."""
        if self.captions is None:
            return {}
        return dict(zip(self.ids, self.captions.tolist(), strict=True))

    def as_record(self) -> dict[str, Any]:
        """All but the captions' own scores, as JSON can hold it."""
        record = vars(self) | {"settings": dict(self.settings)}
        return {n: v for n, v in record.items() if n not in ("ids", "captions", "tally", "groups")}

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.label}: - ({self.reason})"
        interval = "" if self.low is None else f" [{100 * self.low:.2f}, {100 * self.high:.2f}]"
        return f"{self.label}: {100 * self.value:.2f}{interval}"


def measured(
    name: str,
    label: str,
    captions: np.ndarray,
    backend: str,
    version: str,
    tally: Tally | None = None,
    **more: Any,
) -> Score:
    """A score as its backend gives it, without ids and interval.

    Args:
        captions: (N,) score of each caption alone.
        tally: None if the metric is the mean of `captions`.
        more: other fields of `Score`.

    Returns:
        The score; a value that is not a number becomes None with a reason.
    """
    tally = tally or mean_tally(captions)
    value = tally.value
    more |= {"captions": captions, "tally": tally, "count": len(captions)}
    more |= {"backend": backend, "version": version}
    if not math.isfinite(value):
        return Score(name, label, None, reason="no caption has a score", **more)
    return Score(name, label, value, **more)


def grouped(
    ids: Sequence[Hashable], groups: Mapping[Hashable, Hashable] | None = None
) -> dict[str, Any]:
    """The fields of `Score` about captions and their images: ids, groups, units and unit.

    Args:
        ids: of the N captions.
        groups: image of each id; None makes each caption a group of its own.

    Raises:
        ValueError: naming ids that have no group.
    """
    if groups is None:
        codes, units = np.arange(len(ids)), len(ids)
    else:
        if lost := [key for key in ids if key not in groups]:
            raise ValueError(f"groups has no image for {len(lost)} ids, such as {lost[0]!r}")
        numbers: dict[Hashable, int] = {}
        numbered = [numbers.setdefault(groups[key], len(numbers)) for key in ids]
        codes, units = np.asarray(numbered, np.int64), len(numbers)
    unit = "caption" if groups is None else "image"
    return {"ids": tuple(ids), "groups": codes, "units": units, "unit": unit}


def with_intervals(scores: Mapping[str, Score], settings: BootstrapSettings) -> dict[str, Score]:
    """The same scores of the same captions with their intervals, all from the same draws."""
    known = [score for score in scores.values() if score.value is not None]
    if not known:
        return dict(scores)
    found = intervals([score.tally for score in known], known[0].groups, settings)
    ends = {score.name: pair for score, pair in zip(known, found, strict=True) if pair}
    return {
        name: replace(score, low=ends[name][0], high=ends[name][1]) if name in ends else score
        for name, score in scores.items()
    }


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
    """The percentile interval of each metric, or None with fewer than two groups."""
    if settings.samples == 0 or not len(groups) or groups.max() < 1:
        return [None] * len(tallies)
    sums = resampled_sums(np.concatenate([t.rows for t in tallies], axis=1), groups, settings)
    widths = np.cumsum([tally.rows.shape[1] for tally in tallies])[:-1]
    values = [t.finish(s) for t, s in zip(tallies, np.split(sums, widths, axis=1), strict=True)]
    return [_percentiles(column, settings.confidence) for column in values]


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float] | None:
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    outside = 50 * (1 - confidence)
    low, high = np.percentile(values, [outside, 100 - outside])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same captions; `difference` is the first minus the second.

    Args:
        name, label: of the metric.
        first, second: their values.
        difference, low, high: the difference with its interval.
        p_value: two-sided: twice the share of resamples in which the sign turns.
        units, unit: number and kind of the things that were drawn.
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

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{100 * self.low:+.2f}, {100 * self.high:+.2f}]"
        apart = " apart" if self.apart else ""
        return f"{self.label}: {100 * self.difference:+.2f}{interval}{apart}"


def compare_scores(
    first: Mapping[str, Score],
    second: Mapping[str, Score],
    settings: BootstrapSettings | None = None,
) -> dict[str, Comparison]:
    """Compare two systems by the metrics that both have, on resamples of the same images.

    Args:
        first, second: of `score_captions` for the same references and groups.

    Raises:
        ValueError: the systems were scored on other captions, groups, backends or settings.
    """
    settings, found = settings or BootstrapSettings(), {}
    for name, score in first.items():
        other = second.get(name)
        if other is None or score.value is None or other.value is None:
            continue
        if score.ids != other.ids or not np.array_equal(score.groups, other.groups):
            raise ValueError(f"{name}: the systems were not scored on the same captions")
        for part in _SAME:
            if getattr(score, part) != getattr(other, part):
                pair = f"{getattr(score, part)!r} and {getattr(other, part)!r}"
                raise ValueError(f"{name}: the {part}s differ, {pair}")
        values = (score.value, other.value, score.value - other.value)
        tested = _test_difference(score, other, settings)
        found[name] = Comparison(name, score.label, *values, *tested, score.units, score.unit)
    return found


def _test_difference(
    score: Score, other: Score, settings: BootstrapSettings
) -> tuple[float | None, float | None, float | None]:
    """Interval and p-value of a difference; None with fewer than two units."""
    if not settings.samples or score.units < 2:
        return None, None, None
    both = np.concatenate([score.tally.rows, other.tally.rows], axis=1)
    sums = np.split(resampled_sums(both, score.groups, settings), 2, axis=1)
    differences = score.tally.finish(sums[0]) - other.tally.finish(sums[1])
    differences = differences[np.isfinite(differences)]
    if not differences.size:
        return None, None, None
    tail = int(min((differences <= 0).sum(), (differences >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (len(differences) + 1))
    return *_percentiles(differences, settings.confidence), p_value
