"""Agreement of reviewers with each other and with the verifier, about the captions of a data set.

The paper names the missing human check of its captions as a limitation (App. H). Judgments come
from the store of `ureca annotate`, where each reviewer's decisions and stage 5's verification are,
or from JSON Lines files, one judgment per line:

    {"id": "sa_1/7", "caption": "the left boot", "decision": "accept", "reviewer": "Ann"}

`decision` is accept, reject or edit; an edit rejects the caption that the reviewer saw. `caption`
and `reviewer` may be missing: the reviewer then is the file's name. The latest judgment of a
reviewer about a caption counts.

Cohen's kappa (1960) is the share of equal judgments beyond chance: 1 is full agreement, 0 that of
two who accept as often but at random. Intervals resample images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ureca_lib.annotate.records import Step
from ureca_lib.annotate.reviews import DECISIONS
from ureca_lib.annotate.store import Store
from ureca_lib.datasets.references import prediction_id, split_id
from ureca_lib.evaluate.exact_match import score_records
from ureca_lib.evaluate.scores import (
    BootstrapSettings,
    Score,
    Tally,
    grouped,
    measured,
    with_intervals,
)
from ureca_lib.journal import read_journal

VERIFIER = "verifier"
_WORDS = {True: "accept", False: "reject"}
_SHOWN = 20  # disagreements in a text


# by rater, id and caption (None if the file does not have it): whether it was accepted
Judgments = dict[str, dict[str, dict[str | None, bool]]]


@dataclass(frozen=True)
class Agreement:
    """Agreement of two raters.

    Attributes:
        raters: their names.
        scores: "share" of equal judgments and "kappa", with intervals over images.
        disagreements: id, caption, and the judgments of both.
        left_out: number of regions of which they judged different captions.
    """

    raters: tuple[str, str]
    scores: dict[str, Score]
    disagreements: list[dict[str, Any]]
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """The agreement as JSON can hold it."""
        return {
            "raters": list(self.raters),
            **score_records(self.scores),
            "left_out": self.left_out,
            "disagreements": self.disagreements,
        }


def read_judgments(sources: Iterable[str | Path]) -> Judgments:
    """Judgments of all raters in some stores and files.

    Raises:
        FileNotFoundError: no such file. JournalError, StoreError: a file at fault.
        ValueError: the same rater in two files.
    """
    found: Judgments = {}
    for source in map(Path, sources):
        if source.suffix == ".jsonl":
            raters = _of_file(source)
        else:
            with Store(source, create=False) as store:
                raters = _of_store(store)
        if twice := found.keys() & raters.keys():
            raise ValueError(f"{source}: {min(twice)} has judgments in another file too")
        found |= raters
    return found


def _of_file(path: Path) -> Judgments:
    found: Judgments = {}

    def read(row: Mapping[str, Any]) -> None:
        row_id, decision, caption = row.get("id"), row.get("decision"), row.get("caption")
        if not isinstance(row_id, str) or not isinstance(caption, str | None):
            raise ValueError("'id' is a text IMAGE/REGION, and 'caption' a text")
        split_id(row_id)
        if decision not in DECISIONS:
            raise ValueError(f"'decision' is {', '.join(DECISIONS)}, not {decision!r}")
        rater = str(row.get("reviewer") or path.stem)
        found.setdefault(rater, {}).setdefault(row_id, {})[caption] = decision == "accept"

    for _ in read_journal(path, read):
        pass
    return found


def _of_store(store: Store) -> Judgments:
    found: Judgments = {}

    def add(rater: str, key: str, caption: str, accepted: bool) -> None:
        found.setdefault(rater, {}).setdefault(key, {})[caption] = accepted

    for row in store.images():
        for review in store.reviews(row.image):  # the oldest first
            key = prediction_id(row.image, review.region_id)
            add(review.reviewer, key, review.previous, review.decision == "accept")
        answers = store.answers(row.image)
        for caption in store.captions(row.image):
            verified = answers.get(Step("verify", 0, caption.region_id))
            if verified is not None and verified.status == "done":
                key = prediction_id(row.image, caption.region_id)
                add(VERIFIER, key, caption.text, caption.state != "dropped")
    return found


def measure_agreement(
    judgments: Judgments, settings: BootstrapSettings | None = None
) -> list[Agreement]:
    """Agreement of each two raters who judged the same captions.

    Raises:
        ValueError: no caption was judged by two raters.
    """
    pairs = combinations(judgments.items(), 2)
    found = [_agreement(*pair, settings or BootstrapSettings()) for pair in pairs]
    known = [agreement for agreement in found if agreement is not None]
    if not known:
        names = ", ".join(judgments) or "nobody"
        raise ValueError(f"no caption was judged by two; there are judgments of {names}")
    return known


def _agreement(
    first: tuple[str, Mapping[str, Mapping[str | None, bool]]],
    second: tuple[str, Mapping[str, Mapping[str | None, bool]]],
    settings: BootstrapSettings,
) -> Agreement | None:
    (name, one), (other_name, other) = first, second
    items: list[tuple[str, str | None, bool, bool]] = []  # id, caption and both judgments
    common = sorted(one.keys() & other.keys())
    for key in common:
        items += ((key, *item) for item in _shared(one[key], other[key]))
    if not items:
        return None
    votes = np.array([item[2:] for item in items], int)  # (N, 2)
    cells = np.eye(4)[2 * votes[:, 0] + votes[:, 1]]  # neither, second only, first only, both
    equal = (votes[:, 0] == votes[:, 1]).astype(float)
    scores = {
        "share": measured("share", "equal judgments", equal, "ureca-lib", "1"),
        "kappa": measured("kappa", "Cohen's kappa", equal, "ureca-lib", "1", Tally(cells, kappa)),
    }
    judged = [item[0] for item in items]
    about = grouped(judged, {key: split_id(key)[0] for key in judged})
    if scores["kappa"].value is None:
        reason = "both judged all captions alike, which chance would do as well"
        scores["kappa"] = replace(scores["kappa"], reason=reason)
    scores = {key: replace(score, **about) for key, score in scores.items()}
    disagreements = [
        {"id": key, "caption": caption, name: _WORDS[vote], other_name: _WORDS[other_vote]}
        for key, caption, vote, other_vote in items
        if vote != other_vote
    ]
    scores, left_out = with_intervals(scores, settings), len(common) - len(set(judged))
    return Agreement((name, other_name), scores, disagreements, left_out)


def _shared(
    one: Mapping[str | None, bool], other: Mapping[str | None, bool]
) -> list[tuple[str | None, bool, bool]]:
    """Captions of a region that both judged, with both judgments."""
    if None in one or None in other:  # a file without captions is about the present caption
        (text, vote), (other_text, other_vote) = (list(each.items())[-1] for each in (one, other))
        return [(text or other_text, vote, other_vote)]
    return [(text, one[text], other[text]) for text in one if text in other]


def kappa(cells: np.ndarray) -> np.ndarray:
    """(..., 4) counts (neither, second only, first only, both accept) -> (...,) Cohen's kappa.

    NaN if chance alone would agree fully.
    """
    shares = cells / cells.sum(axis=-1, keepdims=True)
    neither, second, first, both = np.moveaxis(shares, -1, 0)
    chance = (first + both) * (second + both) + (neither + second) * (neither + first)
    room = 1 - chance
    return np.where(room > 1e-12, (neither + both - chance) / np.maximum(room, 1e-12), np.nan)


def agreement_text(found: Sequence[Agreement]) -> str:
    """Shares, kappas and the first disagreements, as lines for the screen."""
    lines = []
    for each in found:
        share, value = each.scores["share"], each.scores["kappa"]
        lines.append(
            f"{' and '.join(each.raters)}: {share.count:,} captions of {share.units:,} images"
        )
        lines.append(f"  {share}")
        text = f"- ({value.reason})" if value.value is None else f"{value.value:.3f}"
        if value.low is not None:
            text += f" [{value.low:.3f}, {value.high:.3f}]"
        lines.append(f"  {value.label}: {text}")
        if each.left_out:
            lines.append(f"  left out, different captions: {each.left_out:,}")
        lines.append(f"  disagreements: {len(each.disagreements):,}")
        for row in each.disagreements[:_SHOWN]:
            decisions = ", ".join(f"{rater} {row[rater]}" for rater in each.raters)
            lines.append(f"    {row['id']}: {row['caption']!r}: {decisions}")
    return "\n".join(lines)
