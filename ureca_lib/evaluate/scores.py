"""Scores of captions: value, interval by the bootstrap over images, and paired comparison.

Captions of one image are alike, so images are drawn, not captions. The statistics that each
caption adds are summed over the images drawn and finished as on the whole set, which holds for
means and for corpus metrics such as BLEU. Efron and Tibshirani, An Introduction to the Bootstrap
(1993), chapters 13 and 16; for paired systems Koehn, EMNLP 2004.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ureca_lib.evaluate.settings import BootstrapSettings

_PERCENTILES = 50 * (1 - 0.95), 100 - 50 * (1 - 0.95)
_AT_A_TIME = 4_000_000  # draws that are held in memory
_SAME = ("backend", "version", "tokenizer", "model", "label")  # of scores that are compared

Ends = tuple[float, float] | tuple[None, None]  # of an interval


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


def score_records(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Scores by key as JSON can hold them."""
    return {name: score.as_record() for name, score in scores.items()}


def group_records(groups: Mapping[str, Mapping[str, Score]]) -> dict[str, Any]:
    """Scores by group and key as JSON can hold them."""
    return {name: score_records(scores) for name, scores in groups.items()}


def measured(
    name: str,
    label: str,
    captions: np.ndarray,
    backend: str,
    version: str,
    tally: Tally | None = None,
    void: str = "no caption has a score",
    **more: Any,
) -> Score:
    """A score as its backend gives it, without ids and interval.

    Args:
        captions: (N,) score of each caption alone.
        tally: None if the metric is the mean of `captions`.
        void: reason of a value that is not a number, which becomes None.
        more: other fields of `Score`.
    """
    tally = tally or mean_tally(captions)
    about = {"backend": backend, "version": version, "captions": captions, "tally": tally}
    about |= {"count": len(captions)} | more
    if not math.isfinite(tally.value):
        return Score(name, label, None, reason=void, **about)
    return Score(name, label, tally.value, **about)


def with_intervals(
    scores: Iterable[Score],
    ids: Sequence[Hashable],
    groups: Mapping[Hashable, Hashable] | None,
    settings: BootstrapSettings,
    **more: Any,
) -> dict[str, Score]:
    """Scores of the same N captions by name, with their intervals, all from the same draws.

    Args:
        scores: without ids and intervals.
        ids: of the captions, all different.
        groups: image of each id; None draws captions.
        settings: of the draws.
        more: other fields of `Score` that all of them have.

    Raises:
        ValueError: naming ids that have no group.
    """
    unit, groups = ("caption", {key: key for key in ids}) if groups is None else ("image", groups)
    if lost := [key for key in ids if key not in groups]:
        raise ValueError(f"groups has no image for {len(lost)} ids, such as {lost[0]!r}")
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(groups[key], len(numbers)) for key in ids], np.int64)
    more |= {"ids": tuple(ids), "groups": codes, "units": len(numbers), "unit": unit}
    found = {score.name: replace(score, **more) for score in scores}
    known = [score for score in found.values() if score.value is not None]
    ends = intervals([score.tally for score in known], codes, settings)
    for score, (low, high) in zip(known, ends, strict=True):
        found[score.name] = replace(score, low=low, high=high)
    return found


def resampled(
    tallies: Sequence[Tally], groups: np.ndarray, settings: BootstrapSettings
) -> list[np.ndarray]:
    """Values of metrics on resampled groups; the same seed draws the same groups.

    Args:
        tallies: of the same N captions.
        groups: (N,) int64, from 0 on without gaps.

    Returns:
        For each metric at most `samples` values, without those that are no number; none at all
        with fewer than two groups.
    """
    if not tallies or not len(groups) or groups.max() < 1:
        return [np.empty(0)] * len(tallies)
    number, rows = int(groups.max()) + 1, np.concatenate([t.rows for t in tallies], axis=1)
    sums = np.stack([np.bincount(groups, column, number) for column in rows.T], axis=1)  # (G, K)
    rng, chunk = np.random.default_rng(settings.seed), max(1, _AT_A_TIME // number)
    parts = [np.empty((0, sums.shape[1]))]
    for start in range(0, settings.samples, chunk):
        drawn = rng.integers(0, number, (min(chunk, settings.samples - start), number))
        times = np.stack([np.bincount(each, minlength=number) for each in drawn])
        parts.append(times.astype(np.float64) @ sums)  # (B, G) @ (G, K)
    widths = np.cumsum([tally.rows.shape[1] for tally in tallies])[:-1]
    split = np.split(np.concatenate(parts), widths, axis=1)
    values = [tally.finish(sums) for tally, sums in zip(tallies, split, strict=True)]
    return [column[np.isfinite(column)] for column in values]


def intervals(
    tallies: Sequence[Tally], groups: np.ndarray, settings: BootstrapSettings
) -> list[Ends]:
    """The 95% interval of each metric, by percentiles; see `_ends`."""
    return [_ends(values) for values in resampled(tallies, groups, settings)]


def _ends(values: np.ndarray) -> Ends:
    """Both ends of an interval; None with fewer than two groups, which give no values."""
    if not values.size:
        return None, None
    low, high = np.percentile(values, _PERCENTILES).tolist()
    return low, high


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
        (draws,) = resampled([_difference(score.tally, other.tally)], score.groups, settings)
        ends = _ends(draws)
        turned = int(min((draws <= 0).sum(), (draws >= 0).sum()))
        p_value = min(1.0, 2 * (turned + 1) / (len(draws) + 1)) if draws.size else None
        about = (*values, *ends, p_value, score.units, score.unit)
        found[name] = Comparison(name, score.label, *about)
    return found


def _difference(first: Tally, second: Tally) -> Tally:
    """The difference of two metrics of the same captions, as one metric."""
    width = first.rows.shape[1]
    return Tally(
        np.concatenate([first.rows, second.rows], axis=1),
        lambda sums: first.finish(sums[..., :width]) - second.finish(sums[..., width:]),
    )
