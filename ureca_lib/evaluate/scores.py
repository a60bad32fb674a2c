"""What a metric gives: a value with its interval, and how it came about."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Tally:
    """What each caption adds to a metric, so that any subset of captions can be scored again.

    Args:
        rows: (N, K) float64, one row a caption.
        finish: makes values (...,) of sums of rows (..., K).
    """

    rows: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """Of all captions together."""
        return float(self.finish(self.rows.sum(axis=0)))


def mean_tally(values: Sequence[float] | np.ndarray) -> Tally:
    """A metric that is the mean of its captions' scores (N,); NaN is a caption without one."""
    scores = np.asarray(values, np.float64)
    known = ~np.isnan(scores)
    return Tally(np.stack([np.where(known, scores, 0.0), known], axis=1), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """(..., 2) sums and counts -> (...,) means, NaN where nothing was counted."""
    counts = sums[..., 1]
    return np.where(counts > 0, sums[..., 0] / np.where(counts > 0, counts, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of N captions, as its backend gives it."""

    name: str  # key of the result, such as "bleu_4"
    label: str  # as a table heads it
    tally: Tally
    captions: np.ndarray  # (N,) score of each caption alone
    backend: str
    version: str
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Score:
    """A metric's value on a set of captions, on pycocoevalcap's scale (tables multiply by 100).

    Args:
        name: key of the result, such as "bleu_4".
        label: as a table heads it; says what the name does not, as that synonyms are off.
        value: None where it could not be measured; `reason` then says why.
        low, high: interval by the bootstrap over `unit`s; None where there are fewer than two.
        backend, version: what computed it.
        tokenizer: by name; None where the model has its own.
        model: of the backend, if any.
        settings: everything else that the value depends on.
        count: captions that were scored.
        units, unit: what the bootstrap draws, and how many of them there are.
        missing: references without a prediction, scored as empty captions.
        surplus: predictions without a reference, left out.
        reason: why there is no value.
        ids, captions: for each caption its id and its score alone, (N,) float64, NaN for none.
        tally: what the intervals and comparisons are computed from.
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
        left_out = ("ids", "captions", "tally", "groups")
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in vars(self).items()
            if name not in left_out
        }

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.label}: - ({self.reason})"
        interval = "" if self.low is None else f" [{100 * self.low:.2f}, {100 * self.high:.2f}]"
        return f"{self.label}: {100 * self.value:.2f}{interval}"


def without_value(name: str, label: str, reason: str, **known: Any) -> Score:
    """A score that could not be measured: a table shows a dash and says why."""
    return Score(name, label, None, reason=reason, **known)


def scored(measured: Measured, **known: Any) -> Score:
    """The score of what a backend measured; a value that is no number becomes none."""
    value = measured.tally.value
    score = Score(
        measured.name,
        measured.label,
        value,
        backend=measured.backend,
        version=measured.version,
        model=measured.model,
        settings=dict(measured.settings),
        count=len(measured.captions),
        captions=measured.captions,
        tally=measured.tally,
        **known,
    )
    if math.isfinite(value):
        return score
    return replace(score, value=None, low=None, high=None, reason="no caption has a score")
