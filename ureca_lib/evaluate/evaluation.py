"""All scores of a predictions file, and two files compared, each computed from the files alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ureca_lib.datasets.captioned import CaptionedError
from ureca_lib.datasets.references import References, split_id
from ureca_lib.evaluate.bootstrap import BootstrapSettings, Comparison, compare_scores
from ureca_lib.evaluate.exact_match import ExactReport, measure_exact
from ureca_lib.evaluate.metrics import METRICS, MetricSettings, score_captions
from ureca_lib.evaluate.predictions import Prediction, read_meta, read_predictions
from ureca_lib.evaluate.scores import Score
from ureca_lib.journal import write_json
from ureca_lib.provenance import file_sha256, package_versions

QUICK_METRICS = tuple(name for name in METRICS if name != "bertscore")  # need no model
MISSING = "missing"  # marks rows that stand for references without a prediction
_SHOWN = 5  # ids that a message names


@dataclass(frozen=True)
class Coverage:
    """How predictions and references meet.

    Attributes:
        scored: predictions with references.
        missing: ids of references without a prediction; they are scored as empty captions.
        surplus: ids of predictions without a reference; metrics with references leave them out.
    """

    scored: int
    missing: tuple[str, ...]
    surplus: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the first ids, as JSON can hold them."""
        told: dict[str, Any] = {"scored": self.scored}
        for name in ("missing", "surplus"):
            ids = getattr(self, name)
            told |= {name: len(ids), f"first_{name}": list(ids[:_SHOWN])}
        return told

    def messages(self) -> list[str]:
        """One sentence for each kind of trouble."""
        kinds = {
            "missing": "references have no prediction and score as empty captions",
            "surplus": "predictions have no reference and are left out",
        }
        found = []
        for name, what in kinds.items():
            if ids := getattr(self, name):
                more = ", ..." if len(ids) > _SHOWN else ""
                found.append(f"{len(ids):,} {what}: {', '.join(ids[:_SHOWN])}{more}")
        return found


@dataclass(frozen=True)
class Evaluation:
    """What a predictions file scores.

    Attributes:
        path: the file. meta: what lies beside it.
        system: its name.
        rows: what was scored, by id.
        coverage: how predictions and references meet.
        exact: exact match and unique identification, where they apply.
        metrics: of the captions with references, by key.
    """

    path: Path
    meta: Mapping[str, Any]
    system: str
    rows: tuple[Prediction, ...] = field(repr=False)
    coverage: Coverage
    exact: ExactReport
    metrics: dict[str, Score]

    @property
    def scores(self) -> dict[str, Score]:
        """All scores over all captions, by key."""
        return {**self.exact.overall, **self.metrics}

    @property
    def failed(self) -> int:
        """Captions that an error stands in place of; they score as empty ones."""
        return sum(bool(row.error) for row in self.rows)

    def messages(self) -> list[str]:
        """One sentence for each thing that makes the scores worse or better than they should be."""
        found = self.coverage.messages()
        seen = {row.image_id for row in self.rows if MISSING not in row.extra}
        asked = self.meta.get("images")
        if isinstance(asked, int) and len(seen) < asked:
            found.append(
                f"{asked - len(seen):,} of {asked:,} images have no captions and do not count: the "
                "run was stopped, or they could not be read; ureca predict goes on"
            )
        if self.failed:
            found.append(
                f"{self.failed:,} captions failed and score as empty ones: ureca predict "
                "--retry-failed asks again"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON can hold, with what the figures depend on."""
        return {
            "predictions": str(self.path),
            "sha256": file_sha256(self.path),
            "system": self.system,
            "meta": dict(self.meta),
            "captions": len(self.rows),
            "empty": sum(not row.caption.strip() for row in self.rows),
            "failed": self.failed,
            "coverage": self.coverage.to_dict(),
            "exact": self.exact.to_dict(),
            "metrics": {name: score.as_record() for name, score in self.metrics.items()},
            "versions": package_versions(),
        }


def with_references(
    predictions: Iterable[Prediction], references: Mapping[str, list[str]] | None = None
) -> tuple[list[Prediction], Coverage]:
    """Predictions with the references that they are scored against.

    Args:
        predictions: of one system.
        references: instead of those in the predictions' file; None keeps these.

    Returns:
        All predictions, those of missing ids, with an empty caption, last; and the coverage.

    Raises:
        CaptionedError: no prediction has the id of a reference: they are named otherwise.
    """
    rows = list(predictions)
    if references is None:
        surplus = tuple(row.id for row in rows if not row.references)
        return rows, Coverage(len(rows) - len(surplus), (), surplus)
    found = [replace(row, references=tuple(references.get(row.id, ()))) for row in rows]
    ids = {row.id for row in rows}
    if rows and references.keys().isdisjoint(ids):
        other = next(iter(references), None)
        raise CaptionedError(
            f"no prediction has the id of a reference: {rows[0].id!r} is one of the predictions, "
            f"{other!r} of the references"
        )
    missing = [one for one in references if one not in ids]
    found += [
        Prediction(one, *split_id(one), "", tuple(references[one]), extra={MISSING: True})
        for one in missing
    ]
    surplus = tuple(row.id for row in found if not row.references)
    return found, Coverage(len(rows) - len(surplus), tuple(missing), surplus)


def evaluate(
    path: str | Path,
    references: References | None = None,
    metrics: Sequence[str] = QUICK_METRICS,
    settings: MetricSettings | None = None,
    only: set[str] | None = None,
) -> Evaluation:
    """Score a predictions file.

    Args:
        path: the file.
        references: by id; None takes those in the file.
        metrics: of `METRICS`; none of them for captions without references.
        settings: of the metrics and of all intervals.
        only: ids to score; None is all.

    Raises:
        FileNotFoundError, JournalError: the file is not there or at fault.
        ValueError: no such metric, several systems in one file, or nothing to score.
    """
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise ValueError(f"metrics are {', '.join(METRICS)}, not {', '.join(unknown)}")
    settings = settings or MetricSettings()
    file, meta = Path(path), read_meta(path)
    rows, coverage = with_references(read_predictions(file), references)
    # by id, so that two files of the same regions are compared row by row
    rows = sorted((r for r in rows if only is None or r.id in only), key=lambda row: row.id)
    if not rows:
        raise ValueError(f"{file}: none of its captions is to be scored")
    system = _system(file, rows, meta)
    scored = [row for row in rows if row.references]
    found = _metrics(scored, metrics, settings) if scored and metrics else {}
    exact = measure_exact(rows, settings.bootstrap)
    return Evaluation(file, meta, system, tuple(rows), coverage, exact, found)


def compare(
    first: str | Path,
    second: str | Path,
    references: References | None = None,
    metrics: Sequence[str] = QUICK_METRICS,
    settings: MetricSettings | None = None,
) -> tuple[Evaluation, Evaluation, dict[str, Comparison]]:
    """Score two files on the captions that both have, and compare them pair by pair.

    Args:
        first, second: predictions files; differences are the first minus the second.
        The rest: see `evaluate`.

    Raises:
        ValueError: the files share no region, or have other references for one.
    """
    sides = [{row.id: row for row in read_predictions(path)} for path in (first, second)]
    common = sides[0].keys() & sides[1].keys()
    if not common:
        raise ValueError(f"{first} and {second} have no region in common")
    if references is None:
        for one in sorted(common):
            if sides[0][one].references != sides[1][one].references:
                raise ValueError(
                    f"{first} and {second} have other references for {one}: give --refs"
                )
    else:
        references = {key: texts for key, texts in references.items() if key in common}
    one, other = (evaluate(path, references, metrics, settings, common) for path in (first, second))
    bootstrap = (settings or MetricSettings()).bootstrap
    return one, other, compare_scores(one.scores, other.scores, bootstrap)


def evaluate_all(
    side: Evaluation,
    references: References | None = None,
    metrics: Sequence[str] = QUICK_METRICS,
    settings: MetricSettings | None = None,
) -> Evaluation:
    """One side of a comparison over all of its captions, whether the other has them or not.

    Args:
        side: of `compare`; returned as it is where nothing was left out.
        The rest: as `compare` had them.
    """
    ids = {row.id for row in read_predictions(side.path)}
    wanted = ids if references is None else ids | references.keys()
    if wanted == {row.id for row in side.rows}:
        return side
    return evaluate(side.path, references, metrics, settings)


def compare_sizes(
    first: ExactReport, second: ExactReport, settings: BootstrapSettings | None = None
) -> dict[str, dict[str, Comparison]]:
    """Exact match and unique identification of two systems compared by the size of regions.

    Args:
        first, second: of two systems on the same regions; see `compare`.
        settings: of the intervals.

    Returns:
        By size, smallest first; without those that the two do not have the same regions in, as
        where only one of them tells the regions' areas.
    """
    found = {}
    for size, one in first.by_size.items():
        other = second.by_size.get(size, {})
        if one.keys() == other.keys() and all(one[name].ids == other[name].ids for name in one):
            found[size] = compare_scores(one, other, settings)
    return found


def write_scores(
    path: str | Path, evaluation: Evaluation, compared: Mapping[str, Any] | None = None
) -> None:
    """Write an evaluation, and a comparison where there is one, as JSON."""
    more = {} if compared is None else {"comparison": dict(compared)}
    write_json(Path(path), evaluation.to_dict() | more)


def comparison_record(
    second: Evaluation,
    comparisons: Mapping[str, Comparison],
    by_size: Mapping[str, Mapping[str, Comparison]] | None = None,
) -> dict[str, Any]:
    """A comparison as JSON can hold it, on the captions that both have.

    Args:
        second: of `compare`. comparisons: differences over them. by_size: of `compare_sizes`.
    """

    def record(found: Mapping[str, Comparison]) -> dict[str, Any]:
        return {name: asdict(each) | {"apart": each.apart} for name, each in found.items()}

    sizes = {size: record(found) for size, found in (by_size or {}).items()}
    return {
        "with": second.to_dict(),
        "captions": len(second.rows),
        "differences": record(comparisons),
        "differences_by_size": sizes,
    }


def evaluation_text(evaluation: Evaluation) -> str:
    """The scores as a person reads them, in percent."""
    lines = [f"{evaluation.system}: {len(evaluation.rows):,} captions"]
    lines += [f"  {score}" for score in evaluation.scores.values()]
    for title, groups in (
        ("by share of the image", evaluation.exact.by_size),
        ("by level", evaluation.exact.by_level),
    ):
        if len(groups) > 1:
            lines.append(f"  {title}")
            lines += [f"    {name}: {_brief(scores)}" for name, scores in groups.items()]
    return "\n".join(lines)


def comparison_text(
    comparisons: Mapping[str, Comparison],
    by_size: Mapping[str, Mapping[str, Comparison]] | None = None,
    captions: int | None = None,
) -> str:
    """Differences as a person reads them, in points of percent; `captions` is of how many."""
    shared = "" if captions is None else f" on the {captions:,} captions that both have"
    lines = [f"difference{shared}", *(f"  {_difference(each)}" for each in comparisons.values())]
    if by_size and len(by_size) > 1:
        lines.append("  by share of the image")
        for size, found in by_size.items():
            lines.append(f"    {size}: {', '.join(map(_difference, found.values()))}")
    return "\n".join(lines)


def _difference(each: Comparison) -> str:
    interval = "" if each.low is None else f" [{100 * each.low:+.2f}, {100 * each.high:+.2f}]"
    return f"{each.label}: {100 * each.difference:+.2f}{interval}{' apart' if each.apart else ''}"


def _brief(scores: Mapping[str, Score]) -> str:
    count = max(score.count for score in scores.values())
    return f"{', '.join(map(str, scores.values()))} ({count:,})"


def _system(path: Path, rows: Sequence[Prediction], meta: Mapping[str, Any]) -> str:
    named = sorted({row.system for row in rows if row.system})
    if len(named) > 1:
        raise ValueError(f"{path}: captions of several systems: {', '.join(named)}")
    return named[0] if named else str(meta.get("system") or path.stem)


def _metrics(
    rows: Sequence[Prediction], metrics: Sequence[str], settings: MetricSettings
) -> dict[str, Score]:
    made = [row for row in rows if not row.extra.get(MISSING)]
    with warnings.catch_warnings():
        # the coverage tells of missing and surplus ids already
        warnings.simplefilter("ignore", UserWarning)
        return score_captions(
            {row.id: row.caption for row in made},
            {row.id: list(row.references) for row in rows},
            metrics=tuple(metrics),
            groups={row.id: row.image_id for row in rows},
            settings=settings,
        )
