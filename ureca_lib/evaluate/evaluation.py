"""Score a predictions file, or compare two, from the files alone."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ureca_lib.datasets.references import References
from ureca_lib.evaluate.exact_match import ExactReport, measure_exact, score_records
from ureca_lib.evaluate.metrics import METRICS, MetricSettings, score_captions
from ureca_lib.evaluate.predictions import (
    Prediction,
    read_meta,
    read_predictions,
    split_id,
    system_of,
)
from ureca_lib.evaluate.scores import BootstrapSettings, Comparison, Score, compare_scores
from ureca_lib.journal import write_json
from ureca_lib.provenance import file_sha256, package_versions

QUICK_METRICS = tuple(name for name in METRICS if name != "bertscore")  # need no model
MISSING = "missing"  # key of rows that are added for references without a prediction
_SHOWN = 5  # ids in a message


@dataclass(frozen=True)
class Coverage:
    """How predictions and references meet.

    Attributes:
        scored: number of predictions with references.
        missing: ids of references without a prediction; they are scored as empty captions.
        surplus: ids of predictions without a reference; metrics with references leave them out.
    """

    scored: int
    missing: tuple[str, ...]
    surplus: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the first ids, as JSON can hold them."""
        record: dict[str, Any] = {"scored": self.scored}
        for name in ("missing", "surplus"):
            ids = getattr(self, name)
            record |= {name: len(ids), f"first_{name}": list(ids[:_SHOWN])}
        return record

    def messages(self) -> list[str]:
        """One sentence for each kind of mismatch."""
        kinds = (
            (self.missing, "references have no prediction and score as empty captions"),
            (self.surplus, "predictions have no reference and are left out"),
        )
        return [
            f"{len(ids):,} {problem}: {', '.join(ids[:_SHOWN])}{', ...' * (len(ids) > _SHOWN)}"
            for ids, problem in kinds
            if ids
        ]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a predictions file.

    Attributes:
        path: the file. meta: content of the record beside it.
        system: its name.
        rows: the predictions that were scored, by id.
        coverage: how predictions and references meet.
        exact: exact match and unique identification, if they apply.
        metrics: scores of the captions with references, by key.
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
        """Number of captions that an error took the place of; they score as empty captions."""
        return sum(bool(row.error) for row in self.rows)

    def messages(self) -> list[str]:
        """One sentence for each fault of the data that the scores suffer or gain from."""
        found = self.coverage.messages()
        seen = {row.image_id for row in self.rows if MISSING not in row.extra}
        asked = self.meta.get("images")
        if isinstance(asked, int) and len(seen) < asked:
            found.append(
                f"{asked - len(seen):,} of {asked:,} images have no captions and do not count: the "
                "run was stopped, or they could not be read; ureca predict resumes"
            )
        if self.failed:
            found.append(
                f"{self.failed:,} captions failed and score as empty ones: ureca predict "
                "--retry-failed asks again"
            )
        return found

    @property
    def _references_sha256(self) -> str:
        texts = {row.id: row.references for row in self.rows if row.references}
        return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The scores and their provenance, as JSON can hold them."""
        return {
            "predictions": str(self.path),
            "sha256": file_sha256(self.path),
            "system": self.system,
            "meta": dict(self.meta),
            "captions": len(self.rows),
            "empty": sum(not row.caption.strip() for row in self.rows),
            "failed": self.failed,
            "coverage": self.coverage.to_dict(),
            "references_sha256": self._references_sha256,
            "exact": self.exact.to_dict(),
            "metrics": score_records(self.metrics),
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
        All predictions, with missing ids last and an empty caption; and the coverage.

    Raises:
        ValueError: no prediction has the id of a reference; they are named differently.
    """
    rows, missing = list(predictions), []
    if references is not None:
        ids = {row.id for row in rows}
        if rows and references.keys().isdisjoint(ids):
            raise ValueError(
                f"no prediction has the id of a reference: {rows[0].id!r} is one of the "
                f"predictions, {next(iter(references), None)!r} of the references"
            )
        missing = [key for key in references if key not in ids]
        rows = [replace(row, references=tuple(references.get(row.id, ()))) for row in rows]
    surplus = tuple(row.id for row in rows if not row.references)
    coverage = Coverage(len(rows) - len(surplus), tuple(missing), surplus)
    empty = [
        Prediction(key, *split_id(key), "", tuple(references[key]), extra={MISSING: True})
        for key in missing
    ]
    return rows + empty, coverage


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
    system, scores = system_of(file, rows, meta), {}
    if metrics and any(row.references for row in rows):
        captions, texts, images = pairs_of(rows)
        with quiet_about_ids():
            scores = score_captions(captions, texts, tuple(metrics), images, settings)
    exact = measure_exact(rows, settings.bootstrap)
    return Evaluation(file, meta, system, tuple(rows), coverage, exact, scores)


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
        for key in sorted(common):
            if sides[0][key].references != sides[1][key].references:
                raise ValueError(
                    f"{first} and {second} have other references for {key}: give --refs"
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
        side: of `compare`; returned as it is if nothing was left out.
        The rest: as given to `compare`.
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
        By size, smallest first; without sizes of which the two have different regions, for
        instance because only one file has the regions' areas.
    """
    found = {}
    for size, scores in first.by_size.items():
        other = second.by_size.get(size, {})
        ids = [{name: score.ids for name, score in side.items()} for side in (scores, other)]
        if ids[0] == ids[1]:
            found[size] = compare_scores(scores, other, settings)
    return found


def write_scores(
    path: str | Path, evaluation: Evaluation, compared: Mapping[str, Any] | None = None
) -> list[str]:
    """Write an evaluation, and a comparison if there is one, as JSON.

    Metrics and comparison of an earlier record of the same predictions and references stay, unless
    they were computed again with a value.

    Returns:
        The metrics of the earlier record that stay.
    """
    record = evaluation.to_dict()
    earlier = _earlier(Path(path), record)
    kept = {
        name: score
        for name, score in earlier.get("metrics", {}).items()
        if record["metrics"].get(name, {}).get("value") is None
    }
    record["metrics"] |= kept
    if compared is None:
        compared = earlier.get("comparison")
    write_json(Path(path), record | ({} if compared is None else {"comparison": dict(compared)}))
    return list(kept)


def _earlier(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the same predictions and references; empty if there is none."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        same = [earlier[name] == record[name] for name in ("sha256", "references_sha256")]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return earlier if all(same) else {}


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
    """The scores in percent, as lines for the screen."""
    lines = [f"{evaluation.system}: {len(evaluation.rows):,} captions"]
    lines += [f"  {score}" for score in evaluation.scores.values()]
    exact = evaluation.exact
    for title, groups in (("share of the image", exact.by_size), ("level", exact.by_level)):
        if len(groups) > 1:
            lines.append(f"  by {title}")
            for name, scores in groups.items():
                count = max(score.count for score in scores.values())
                lines.append(f"    {name}: {', '.join(map(str, scores.values()))} ({count:,})")
    return "\n".join(lines)


def comparison_text(
    comparisons: Mapping[str, Comparison],
    by_size: Mapping[str, Mapping[str, Comparison]] | None = None,
    captions: int | None = None,
) -> str:
    """Differences in percentage points, as lines for the screen; `captions` is their number."""
    shared = "" if captions is None else f" on the {captions:,} captions that both have"
    lines = [f"difference{shared}", *(f"  {each}" for each in comparisons.values())]
    if by_size and len(by_size) > 1:
        lines.append("  by share of the image")
        lines += [f"    {size}: {', '.join(map(str, c.values()))}" for size, c in by_size.items()]
    return "\n".join(lines)


@contextmanager
def quiet_about_ids() -> Iterator[None]:
    """Without warnings about missing and surplus ids, which a coverage has already."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ (references|predictions) have no ")
        yield


def pairs_of(
    rows: Sequence[Prediction],
) -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """Captions, references and images by id, of the rows with references."""
    rows = [row for row in rows if row.references]
    captions = {row.id: row.caption for row in rows if not row.extra.get(MISSING)}
    references = {row.id: list(row.references) for row in rows}
    return captions, references, {row.id: row.image_id for row in rows}
