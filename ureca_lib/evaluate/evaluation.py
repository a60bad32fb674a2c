"""Score a predictions file, or compare two, from the files alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ureca_lib.datasets.references import References
from ureca_lib.evaluate.exact_match import ExactReport, measure_exact
from ureca_lib.evaluate.metrics import (
    QUICK_METRICS,
    MetricSettings,
    check_ids,
    check_metrics,
    score_captions,
    unmatched,
)
from ureca_lib.evaluate.predictions import (
    Prediction,
    left_out,
    read_meta,
    read_predictions,
    split_id,
    system_of,
)
from ureca_lib.evaluate.scores import Comparison, Score, compare_scores, score_records
from ureca_lib.journal import write_json
from ureca_lib.provenance import file_sha256, package_versions

MISSING = "missing"  # key of rows that are added for references without a prediction
_SHOWN = 5  # ids in a record
_Groups = Mapping[str, Mapping[str, Score]]  # by group, scores by name


@dataclass(frozen=True)
class Evaluation:
    """Scores of a predictions file.

    Attributes:
        path: the file. meta: content of the record beside it.
        system: its name.
        rows: the predictions that were scored, by id, with an empty one for each reference that
            has no prediction.
        exact: exact match and unique identification, if they apply.
        metrics: scores of the captions with references, by key.
    """

    path: Path
    meta: Mapping[str, Any]
    system: str
    rows: tuple[Prediction, ...] = field(repr=False)
    exact: ExactReport
    metrics: dict[str, Score]

    @property
    def scores(self) -> dict[str, Score]:
        """All scores over all captions, by key."""
        return {**self.exact.overall, **self.metrics}

    @property
    def missing(self) -> list[str]:
        """Ids of references without a prediction; they are scored as empty captions."""
        return [row.id for row in self.rows if MISSING in row.extra]

    @property
    def surplus(self) -> list[str]:
        """Ids of predictions without a reference; metrics with references leave them out."""
        return [row.id for row in self.rows if not row.references]

    @property
    def failed(self) -> int:
        """Number of captions that an error took the place of; they score as empty captions."""
        return sum(bool(row.error) for row in self.rows)

    def messages(self) -> list[str]:
        """One sentence for each fault of the data that the scores suffer or gain from."""
        found = unmatched(self.missing, self.surplus)
        found += left_out([row for row in self.rows if MISSING not in row.extra], self.meta)
        if self.failed:
            reason = "captions failed and score as empty ones"
            found.append(f"{self.failed:,} {reason}: ureca predict --retry-failed asks again")
        return found

    def to_dict(self) -> dict[str, Any]:
        """The scores and their provenance, as JSON can hold them."""
        texts = json.dumps({r.id: r.references for r in self.rows if r.references}, sort_keys=True)
        missing, surplus = self.missing, self.surplus
        return {
            "predictions": str(self.path),
            "sha256": file_sha256(self.path),
            "system": self.system,
            "meta": dict(self.meta),
            "captions": len(self.rows),
            "empty": sum(not row.caption.strip() for row in self.rows),
            "failed": self.failed,
            "coverage": {
                "scored": len(self.rows) - len(surplus) - len(missing),
                "missing": len(missing),
                "first_missing": missing[:_SHOWN],
                "surplus": len(surplus),
                "first_surplus": surplus[:_SHOWN],
            },
            "references_sha256": hashlib.sha256(texts.encode()).hexdigest(),
            "exact": self.exact.to_dict(),
            "metrics": score_records(self.metrics),
            "versions": package_versions(),
        }

    def __str__(self) -> str:
        lines = [f"{self.system}: {len(self.rows):,} captions"]
        lines += [f"  {score}" for score in self.scores.values()]
        lines += _by_group("share of the image", self.exact.by_size)
        return "\n".join(lines + _by_group("level", self.exact.by_level))


def evaluate(
    path: str | Path,
    references: References | None = None,
    metrics: Sequence[str] = QUICK_METRICS,
    settings: MetricSettings | None = None,
    only: Iterable[str] | None = None,
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
    check_metrics(metrics)
    settings, file, meta = settings or MetricSettings(), Path(path), read_meta(path)
    found = {row.id: row for row in read_predictions(file)}
    system, scores = system_of(file, list(found.values()), meta), {}
    if references is not None:
        check_ids(found, references)
        found = {i: replace(r, references=tuple(references.get(i, ()))) for i, r in found.items()}
        for key in references.keys() - found.keys():
            texts = tuple(references[key])
            found[key] = Prediction(key, *split_id(key), "", texts, extra={MISSING: True})
    # by id, so that two files of the same regions are compared row by row
    rows = tuple(found[key] for key in sorted(found if only is None else found.keys() & only))
    exact = measure_exact(rows, settings)
    result = Evaluation(file, meta, system, rows, exact, {})
    if metrics and any(row.references for row in rows):
        captions, texts, images = captions_of(rows)
        scores = score_captions(captions, texts, metrics, images, settings)
        scores = {key: replace(s, missing=len(result.missing)) for key, s in scores.items()}
    return replace(result, metrics=scores)


def captions_of(
    rows: Iterable[Prediction],
) -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """Captions, references and images by id, of the rows with references."""
    rows = [row for row in rows if row.references]
    captions = {row.id: row.caption for row in rows}
    return captions, {r.id: list(r.references) for r in rows}, {r.id: r.image_id for r in rows}


def _by_group(title: str, groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of a text: the scores, or differences, of each group if there are several."""
    if len(groups) < 2:
        return []
    rows = [f"    {name}: {', '.join(map(str, each.values()))}" for name, each in groups.items()]
    return [f"  by {title}", *rows]


@dataclass(frozen=True)
class ComparedFiles:
    """Two systems on the captions that both have.

    Attributes:
        second: the other system.
        differences: by metric, the first system minus the second.
        by_size: differences of exact match and unique identification by the size of regions,
            smallest first; without sizes of which the two have different regions, for instance
            because only one file has the regions' areas.
        by_level: the same by the level of the mask tree.
    """

    second: Evaluation
    differences: dict[str, Comparison]
    by_size: dict[str, dict[str, Comparison]]
    by_level: dict[str, dict[str, Comparison]]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON can hold it."""

        def record(found: Mapping[str, Comparison]) -> dict[str, Any]:
            return {name: asdict(each) | {"apart": each.apart} for name, each in found.items()}

        return {
            "with": self.second.to_dict(),
            "captions": len(self.second.rows),
            "differences": record(self.differences),
            "differences_by_size": {size: record(each) for size, each in self.by_size.items()},
            "differences_by_level": {name: record(each) for name, each in self.by_level.items()},
        }

    def __str__(self) -> str:
        count = f"{len(self.second.rows):,}"
        lines = [str(self.second), f"difference on the {count} captions that both have"]
        lines += [f"  {each}" for each in self.differences.values()]
        lines += _by_group("share of the image", self.by_size)
        return "\n".join(lines + _by_group("level", self.by_level))


def compare(
    first: Evaluation,
    second: str | Path,
    references: References | None = None,
    metrics: Sequence[str] = QUICK_METRICS,
    settings: MetricSettings | None = None,
) -> ComparedFiles:
    """Compare a system with another one, pair by pair, on the captions that both have.

    Args:
        first: of `evaluate` with the same references, metrics and settings.
        second: predictions file of the other system.
        The rest: see `evaluate`.

    Raises:
        ValueError: the files share no region, or have other references for one.
    """
    settings = settings or MetricSettings()
    mine = {row.id: row for row in first.rows if MISSING not in row.extra}
    theirs = {row.id: row for row in read_predictions(second)}
    common = mine.keys() & theirs.keys()
    if not common:
        raise ValueError(f"{first.path} and {second} have no region in common")
    for key in sorted(common) if references is None else ():
        if mine[key].references != theirs[key].references:
            raise ValueError(
                f"{first.path} and {second} have other references for {key}: give --refs"
            )
    if len(common) < len(first.rows):
        first = evaluate(first.path, references, metrics, settings, common)
    other = evaluate(second, references, metrics, settings, common)

    def paired(mine: _Groups, theirs: _Groups) -> dict[str, dict[str, Comparison]]:
        found = {}
        for group, scores in mine.items():
            same = theirs.get(group, {})
            if {n: s.ids for n, s in scores.items()} == {n: s.ids for n, s in same.items()}:
                found[group] = compare_scores(scores, same, settings)
        return found

    differences = compare_scores(first.scores, other.scores, settings)
    by_level = paired(first.exact.by_level, other.exact.by_level)
    return ComparedFiles(
        other, differences, paired(first.exact.by_size, other.exact.by_size), by_level
    )


def write_scores(
    path: str | Path, evaluation: Evaluation, compared: ComparedFiles | None = None
) -> list[str]:
    """Write an evaluation, and a comparison if there is one, as JSON.

    Metrics and comparison of an earlier record of the same predictions and references stay, unless
    they were computed again with a value.

    Returns:
        The metrics of the earlier record that stay.
    """
    record = evaluation.to_dict()
    try:
        earlier = json.loads(Path(path).read_text(encoding="utf-8"))
        same = all(earlier[name] == record[name] for name in ("sha256", "references_sha256"))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    earlier = earlier if same else {}
    values = {name: score["value"] for name, score in record["metrics"].items()}
    metrics = earlier.get("metrics", {})
    kept = {name: score for name, score in metrics.items() if values.get(name) is None}
    record["metrics"] |= kept
    found = earlier.get("comparison") if compared is None else compared.to_dict()
    write_json(Path(path), record | ({"comparison": found} if found else {}))
    return list(kept)
