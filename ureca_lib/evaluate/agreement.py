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

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from ureca_lib.annotate.records import Step
from ureca_lib.annotate.reviews import DECISIONS
from ureca_lib.annotate.store import Store
from ureca_lib.datasets.references import prediction_id, split_id
from ureca_lib.evaluate.scores import (
    BootstrapSettings,
    Score,
    Tally,
    measured,
    score_records,
    with_intervals,
)
from ureca_lib.journal import read_journal

VERIFIER = "verifier"
_WORDS = {True: "accept", False: "reject"}
_SHOWN = 20  # disagreements in a text


_Judgment = tuple[str, str, str | None, bool]  # rater, id, caption, accepted


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

    def __str__(self) -> str:
        share, kappa = self.scores["share"], self.scores["kappa"]
        text = f"- ({kappa.reason})" if kappa.value is None else f"{kappa.value:.3f}"
        if kappa.low is not None:
            text += f" [{kappa.low:.3f}, {kappa.high:.3f}]"
        names = " and ".join(self.raters)
        lines = [
            f"{names}: {share.count:,} captions of {share.units:,} images",
            f"  {share}",
            f"  {kappa.label}: {text}",
        ]
        lines += [f"  left out, different captions: {self.left_out:,}"] if self.left_out else []
        lines.append(f"  disagreements: {len(self.disagreements):,}")
        for row in self.disagreements[:_SHOWN]:
            decisions = ", ".join(f"{rater} {row[rater]}" for rater in self.raters)
            lines.append(f"    {row['id']}: {row['caption']!r}: {decisions}")
        return "\n".join(lines)


def read_judgments(sources: Iterable[str | Path]) -> pandas.DataFrame:
    """Judgments of all raters in some stores and files: rater, id, caption or None, accepted.

    Raises:
        FileNotFoundError: no such file. JournalError, StoreError: a file at fault.
        ValueError: the same rater in two files.
    """
    found: dict[str, list[_Judgment]] = {}  # by rater
    for source in map(Path, sources):
        raters: dict[str, list[_Judgment]] = defaultdict(list)
        for judgment in _judgments(source):
            raters[judgment[0]].append(judgment)
        if twice := found.keys() & raters.keys():
            raise ValueError(f"{source}: {min(twice)} has judgments in another file too")
        found |= raters
    rows = pandas.DataFrame(chain(*found.values()), columns=["rater", "id", "caption", "accepted"])
    return rows.drop_duplicates(["rater", "id", "caption"], keep="last")


def _judgments(path: Path) -> Iterator[_Judgment]:
    """Judgments of a file or a store, the oldest first."""

    def parse(row: Mapping[str, Any]) -> _Judgment:
        row_id, decision, caption = row.get("id"), row.get("decision"), row.get("caption")
        if not isinstance(row_id, str) or not isinstance(caption, str | None):
            raise ValueError("'id' is a text IMAGE/REGION, and 'caption' a text")
        split_id(row_id)
        if decision not in DECISIONS:
            raise ValueError(f"'decision' is {', '.join(DECISIONS)}, not {decision!r}")
        return str(row.get("reviewer") or path.stem), row_id, caption, decision == "accept"

    if path.suffix == ".jsonl":
        yield from read_journal(path, parse)
        return
    with Store(path, create=False) as store:
        for image in (row.image for row in store.images()):
            for review in store.reviews(image):
                key, accepted = prediction_id(image, review.region_id), review.decision == "accept"
                yield review.reviewer, key, review.previous, accepted
            answers = store.answers(image)
            for caption in store.captions(image):
                verified = answers.get(Step("verify", 0, caption.region_id))
                if verified is not None and verified.status == "done":
                    key = prediction_id(image, caption.region_id)
                    yield VERIFIER, key, caption.text, caption.state != "dropped"


def measure_agreement(
    judgments: pandas.DataFrame, settings: BootstrapSettings | None = None
) -> list[Agreement]:
    """Agreement of each two raters who judged the same captions; empty if there are none."""
    raters = [rows for _, rows in judgments.groupby("rater", sort=False)]
    found = (_agreement(*pair, settings or BootstrapSettings()) for pair in combinations(raters, 2))
    return [agreement for agreement in found if agreement is not None]


def _agreement(
    first: pandas.DataFrame, second: pandas.DataFrame, settings: BootstrapSettings
) -> Agreement | None:
    both = first.merge(second, on="id", suffixes=("", "_2"))
    # a file without captions is about the latest one
    unnamed = both.caption.isna() | both.caption_2.isna()
    latest = both[unnamed].drop_duplicates("id", keep="last")
    pairs = pandas.concat([both[both.caption == both.caption_2], latest]).sort_values(
        "id", kind="stable"
    )
    if pairs.empty:
        return None
    pairs["caption"] = pairs.caption.combine_first(pairs.caption_2)
    votes, ids = pairs[["accepted", "accepted_2"]].to_numpy(int), pairs.id.tolist()  # (N, 2)
    cells = np.eye(4)[2 * votes[:, 0] + votes[:, 1]]  # neither, second only, first only, both
    equal = (votes[:, 0] == votes[:, 1]).astype(float)
    share = measured("share", "equal judgments", equal, "ureca-lib", "1")
    void = "both judged all captions alike, which chance would do as well"
    about = ("kappa", "Cohen's kappa", equal, "ureca-lib", "1", Tally(cells, kappa), void)
    images = {key: split_id(key)[0] for key in ids}
    scores = with_intervals([share, measured(*about)], ids, images, settings)
    names = (pairs.rater.iloc[0], pairs.rater_2.iloc[0])
    disagreements = [
        {"id": row.id, "caption": row.caption}
        | {names[0]: _WORDS[row.accepted], names[1]: _WORDS[row.accepted_2]}
        for row in pairs[equal == 0].itertuples()
    ]
    return Agreement(names, scores, disagreements, both.id.nunique() - pairs.id.nunique())


def kappa(cells: np.ndarray) -> np.ndarray:
    """(..., 4) counts (neither, second only, first only, both accept) -> (...,) Cohen's kappa.

    NaN if chance alone would agree fully.
    """
    shares = cells / cells.sum(axis=-1, keepdims=True)
    neither, second, first, both = np.moveaxis(shares, -1, 0)
    chance = (first + both) * (second + both) + (neither + second) * (neither + first)
    room = 1 - chance
    return np.where(room > 1e-12, (neither + both - chance) / np.maximum(room, 1e-12), np.nan)
