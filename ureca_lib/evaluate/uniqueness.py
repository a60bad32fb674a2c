"""Uniqueness: does a caption lead to its own region, and to no other?

The paper's metrics compare words with a reference and "are not designed to measure descriptive
uniqueness" (App. A; Sec. 5.1 says why). Two measures do:

- self-retrieval: a listener picks the region of the image that a caption fits best. `recall_at_1`
  is the share of captions that lead to their own region, `mrr` the mean of 1 / rank. Over all
  regions of the image, and again over the region and its look-alikes only (`look_alike_...`), for
  regions that have some. Ties are broken at random; the value is the mean over that.
- collision: the share of captions that equal (`collision_equal`) or nearly equal
  (`collision_near`) another caption of the same image. Case, punctuation and articles do not
  count. Nearly equal captions share `NEAR` of their words and pairs of neighboring words; one word
  of many may be the word that distinguishes them, so that this is an upper bound.

Each over all captions, by level of the mask tree and by area; intervals resample images. A region
that has references and is missing in the predictions of its image counts as an empty caption, which
leads to no region: leaving hard regions out does not help.

A listener gives log p(caption | region) for the R regions of an image and C captions. Within a
column, one caption against all regions, these are comparable as they are: the caption's length
and the frequency of its words change the whole column alike. With every region equally likely
beforehand, Bayes' rule makes a column the listener's belief about the region that is meant,

    p(region | caption) = p(caption | region) / sum over regions of p(caption | region),

and the region it picks is the column's largest. That is `calibrate="none"`, and the default.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ureca_lib.annotate.look_alikes import normalized, word_overlaps
from ureca_lib.datasets.captioned import CaptionedImages, open_captioned
from ureca_lib.evaluate.exact_match import (
    AREA_NAMES,
    UNKNOWN,
    area_name,
    level_order,
    score_records,
)
from ureca_lib.evaluate.predictions import read_meta, read_predictions, system_of
from ureca_lib.evaluate.scores import (
    BootstrapSettings,
    Score,
    grouped,
    measured,
    with_intervals,
)
from ureca_lib.listeners import (
    EXACT,
    STYLE_NOTE,
    ListenerScores,
    check_scores,
    listener_name,
    make_listener,
    score_images,
)
from ureca_lib.markdown import table
from ureca_lib.provenance import file_sha256, package_versions

Calibration = Literal["none", "pmi"]
TIE = 1e-3  # nats; regions with one mask differ by rounding, and by batch, in a model's scores
NEAR = 0.8  # share of words and pairs of words
RETRIEVAL = ("recall_at_1", "mrr")
LOOK_ALIKE = ("look_alike_recall_at_1", "look_alike_mrr")
COLLISION = ("collision_equal", "collision_near")
LABELS = {
    "recall_at_1": "Recall at 1",
    "mrr": "MRR",
    "look_alike_recall_at_1": "Recall at 1 among look-alikes",
    "look_alike_mrr": "MRR among look-alikes",
    "collision_equal": "Equal captions",
    "collision_near": "Nearly equal captions",
}
_VERSION = f"ureca-lib {version('ureca-lib')}"


@dataclass(frozen=True)
class UniquenessSettings:
    """Settings of the measures."""

    calibrate: Calibration = field(
        default="none", metadata={"help": "'none', or 'pmi' to examine a listener (`calibrated`)"}
    )
    near: float = field(
        default=NEAR, metadata={"help": "share of words and word pairs that is nearly equal"}
    )
    bootstrap: BootstrapSettings = field(
        default_factory=BootstrapSettings, metadata={"help": "of the intervals over images"}
    )

    def __post_init__(self) -> None:
        calibrated(np.zeros((0, 0)), self.calibrate)
        find_collisions([], self.near)


@dataclass(frozen=True)
class Uniqueness:
    """Uniqueness of a system's captions.

    Attributes:
        system, listener: their names.
        settings: of the measures.
        overall: score of each of `LABELS`, from 0 to 1; those of two systems on the same images
            go into `compare_scores`.
        by_level: the same for each level of the mask tree, "1" the top.
        by_area: the same by the region's share of the image, see `AREA_NAMES`.
        chance, candidates: recall of a guess, and mean number of regions to choose from, over all
            regions and among look-alikes.
        unscorable: number of captions that the listener refused; they count as not understood.
    """

    system: str
    listener: str
    settings: UniquenessSettings
    overall: dict[str, Score]
    by_level: dict[str, dict[str, Score]]
    by_area: dict[str, dict[str, Score]]
    chance: dict[str, float | None]
    candidates: dict[str, float | None]
    unscorable: int = 0

    def as_record(self) -> dict[str, Any]:
        """All but the captions' own scores, as JSON can hold it."""
        return {
            "system": self.system,
            "listener": self.listener,
            "settings": asdict(self.settings),
            "overall": score_records(self.overall),
            "by_level": {name: score_records(scores) for name, scores in self.by_level.items()},
            "by_area": {name: score_records(scores) for name, scores in self.by_area.items()},
            "chance": self.chance,
            "candidates": self.candidates,
            "unscorable": self.unscorable,
        }


def measure_uniqueness(
    scores: Iterable[ListenerScores], settings: UniquenessSettings | None = None
) -> Uniqueness:
    """Measure uniqueness from listener scores; needs no model and no image.

    Args:
        scores: of each image, by one listener, for captions of one system.
        settings: None is the default.

    Raises:
        ValueError: there are no captions, or several systems or listeners.
    """
    settings = settings or UniquenessSettings()
    images = [image for image in scores if image.caption_index]
    if not images:
        raise ValueError("no caption has scores")
    for name in ("system", "listener"):
        if len(found := sorted({getattr(image, name) for image in images})) > 1:
            raise ValueError(f"captions of several {name}s: {', '.join(found)}")
    parts = [_of_image(image, settings) for image in images]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    chance = {name: values.pop(f"chance {name}") for name in (RETRIEVAL[0], LOOK_ALIKE[0])}
    candidates = {name: 1 / column for name, column in chance.items()}
    ids, owners, levels, areas = [], {}, [], []
    for image in images:
        regions = {region.id: region for region in image.regions}
        for region in map(regions.get, image.caption_index):
            ids.append(f"{image.image_id}/{region.id}")
            owners[ids[-1]] = image.image_id
            levels.append(UNKNOWN if region.level is None else str(region.level))
            areas.append(area_name(region.area, image.size))

    def measure(chosen: np.ndarray) -> dict[str, Score]:
        """Each measure over some of the captions, with intervals over their images."""
        about = grouped([ids[place] for place in np.flatnonzero(chosen)], owners)
        found = {}
        for name, column in values.items():
            score = _score(name, column[chosen], images[0].listener, settings)
            guess = {}
            if name in chance:
                guess["chance"] = _mean(chance[name][chosen])
                guess["candidates"] = _mean(candidates[name][chosen])
            found[name] = replace(score, settings={**score.settings, **guess}, **about)
        return with_intervals(found, settings.bootstrap)

    def by(groups: Sequence[str], order: Callable[[str], Any]) -> dict[str, dict[str, Score]]:
        labels = np.array(groups, object)
        return {name: measure(labels == name) for name in sorted(set(groups), key=order)}

    return Uniqueness(
        system=images[0].system,
        listener=images[0].listener,
        settings=settings,
        overall=measure(np.ones(len(ids), bool)),
        by_level=by(levels, level_order),
        by_area=by(areas, AREA_NAMES.index),
        chance={name: _mean(column) for name, column in chance.items()},
        candidates={name: _mean(column) for name, column in candidates.items()},
        unscorable=sum(
            index in image.unscorable for image in images for index in image.caption_index.values()
        ),
    )


def _mean(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _score(name: str, values: np.ndarray, listener: str, settings: UniquenessSettings) -> Score:
    """The mean of `values` (N,), NaN where a measure does not apply."""
    if np.isnan(values).all():
        return Score(name, LABELS[name], None, reason="no region has look-alikes")
    if name in COLLISION:
        about: dict[str, Any] = {"settings": {"near": settings.near}}
        return measured(name, LABELS[name], values, "collision", _VERSION, **about)
    about = {"model": f"listener {listener}", "settings": {"calibrate": settings.calibrate}}
    return measured(name, LABELS[name], values, "self-retrieval", _VERSION, **about)


def _of_image(image: ListenerScores, settings: UniquenessSettings) -> dict[str, np.ndarray]:
    """(C,) values of each measure for the captions of an image, and the recall of a guess."""
    rows = {region.id: row for row, region in enumerate(image.regions)}
    targets = np.array([rows[region_id] for region_id in image.caption_index], np.intp)
    places = list(image.caption_index.values())
    # calibrated on the captions of all regions: a text of two regions counts twice
    scores = calibrated(image.scores[:, places], settings.calibrate)  # (R, texts) -> (R, C)
    alike = np.zeros(scores.shape, bool)
    for column, region_id in enumerate(image.caption_index):
        others = image.regions[rows[region_id]].look_alikes
        alike[[rows[other] for other in others], column] = True
    everywhere, among = retrieve(scores, targets), retrieve(scores, targets, alike)
    some = among.candidates > 1
    collisions = find_collisions([image.captions[place] for place in places], settings.near)
    return {
        "recall_at_1": everywhere.first,
        "mrr": everywhere.reciprocal,
        "look_alike_recall_at_1": np.where(some, among.first, np.nan),
        "look_alike_mrr": np.where(some, among.reciprocal, np.nan),
        "collision_equal": collisions.equal.astype(float),
        "collision_near": collisions.near.astype(float),
        "chance recall_at_1": everywhere.chance,
        "chance look_alike_recall_at_1": np.where(some, among.chance, np.nan),
    }


class Retrieved(NamedTuple):
    """A listener's choice among R regions for C captions.

    Attributes:
        first: (C,) chance that the listener picks the caption's own region: 1, 0, or a share of
            1 if several regions come first together.
        reciprocal: (C,) 1 / rank of its own region, averaged over the orders of a tie; 0 if the
            listener rules the region out.
        chance: (C,) `first` of a guess, 1 / number of candidates.
        candidates: (C,) number of regions to choose from, its own included.
    """

    first: np.ndarray
    reciprocal: np.ndarray
    chance: np.ndarray
    candidates: np.ndarray


def calibrated(scores: np.ndarray, calibrate: Calibration = "none") -> np.ndarray:
    """Scores of which the largest in each column is the listener's choice.

    "none" keeps them: a caption is judged by itself, against the regions.

    "pmi" divides out how likely each region finds the image's captions in general:
    log p(c | r) - log sum over the captions c' of p(c' | r). It is the pointwise mutual
    information of region and caption under the listener, when one of these captions is given to a
    region: its other term, log p(c), is the same down a column. It corrects a listener that takes
    every caption for its favorite region. But it also reads a caption in the light of the others:
    "the mushroom", next to "the yellow mushroom", comes to mean the other mushroom, and a region
    that no caption fits takes the one that fits least badly. So it flatters captions that are not
    unique, and is meant for examining a listener, not for a number that is reported alone.

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
    scores: np.ndarray, targets: np.ndarray, candidates: np.ndarray | None = None
) -> Retrieved:
    """Rank each caption's own region among the candidates.

    Args:
        scores: (R, C) log-likelihoods; a column of -inf is a caption that names nothing.
        targets: (C,) row of each caption's own region.
        candidates: (R, C) bool, the rows to choose from; None is all. The own region always is
            one.

    Raises:
        ValueError: shapes that do not go together, a row that is not there.
    """
    array = check_scores(scores)
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


class Collisions(NamedTuple):
    """Captions of an image that collide with another one.

    Attributes:
        equal: (C,) bool, equal once normalized; two captions without a word are.
        near: (C,) bool, equal or nearly so.
    """

    equal: np.ndarray
    near: np.ndarray


def find_collisions(captions: Sequence[str], near: float = NEAR) -> Collisions:
    """Compare each of an image's C captions with all others.

    Args:
        captions: one per region.
        near: share from which captions are nearly equal, above 0 and at most 1.

    Raises:
        ValueError: `near` out of range.
    """
    if not 0 < near <= 1:
        raise ValueError(f"near must be above 0 and at most 1, not {near}")
    texts = [normalized(caption) for caption in captions]
    counts = Counter(texts)
    equal = np.array([counts[text] > 1 for text in texts], bool)
    overlap = word_overlaps(texts)
    np.fill_diagonal(overlap, 0)
    return Collisions(equal, equal | (overlap >= near).any(axis=1))


def score_uniqueness(
    predictions: str | Path,
    listener: str = "exact",
    data: str | None = None,
    masks: str | Path | None = None,
    heard: str | Path | None = None,
    settings: UniquenessSettings | None = None,
    device: str | None = "cpu",
    progress: bool = True,
) -> tuple[Uniqueness, dict[str, Any]]:
    """Score the captions of a predictions file by a listener and measure their uniqueness.

    Args:
        predictions: JSONL. listener: "exact" or the folder of a checkpoint.
        data: for `open_captioned`; None takes the data of the predictions.
        masks: folder of a JSONL's masks.
        heard: JSONL of listener scores to append to; None names it after predictions and
            listener. If it has every image, neither data nor model is opened.
        settings: None is the default. device: of the model, None for CUDA if there is one.
        progress: show a bar.

    Returns:
        The measures, and a record of them with provenance, which JSON can hold.

    Raises:
        ValueError: a file or listener at fault, naming it. FileNotFoundError: no such file.
    """
    path, name = Path(predictions), listener_name(listener)
    meta, rows = read_meta(path), read_predictions(path)
    system, captions = system_of(path, rows, meta), {}
    for row in rows:
        captions.setdefault(row.image_id, {})[str(row.region_id)] = row.caption
    asked = meta.get("images")
    if isinstance(asked, int) and len(captions) < asked:
        warnings.warn(
            f"{path}: {asked - len(captions):,} of {asked:,} images have no captions and do not "
            "count; rerun ureca predict to complete the file"
        )
    cache = Path(heard) if heard else path.with_suffix(f".heard.{name}.jsonl")
    source, opened = data or meta.get("data"), meta.get("data_settings") or {}
    where = masks or (None if data else opened.get("masks"))

    def images() -> CaptionedImages:
        if not isinstance(source, str):
            raise ValueError(f"{path}: its record does not name the images; give --data")
        return open_captioned(source, masks=where, strict=opened.get("strict", True))

    scores = score_images(
        images, captions, lambda: make_listener(listener, device), name, cache, system, progress
    )
    found = measure_uniqueness(scores, settings)
    record = found.as_record() | {
        "predictions": str(path),
        "sha256": file_sha256(path),
        "meta": meta,
        "heard": str(cache),
        "versions": package_versions(),
    }
    return found, record


def uniqueness_text(found: Uniqueness) -> str:
    """The scores as Markdown: over all captions, by level and by area."""
    rows = [["all", *found.overall.values()]]
    rows += [[f"level {name}", *scores.values()] for name, scores in found.by_level.items()]
    rows += [[f"{name} of the image", *scores.values()] for name, scores in found.by_area.items()]
    shown = [[name, str(scores[0].count), *map(_percent, scores)] for name, *scores in rows]
    head = ["captions", "number", *LABELS.values()]
    lines = [
        f"{found.system}, heard by {found.listener}; percent, with 95% intervals over images",
        "",
        table(head, shown, right=range(1, len(head))),
        "Behind a recall: that of a guess, and the mean number of regions to choose from.",
    ]
    if found.listener != EXACT:
        lines.append(STYLE_NOTE)
    if found.unscorable:
        lines.append(f"{found.unscorable} captions were refused by the listener")
    return "\n".join(lines)


def _percent(score: Score) -> str:
    if score.value is None:
        return "–"
    interval = "" if score.low is None else f" ({100 * score.low:.1f}–{100 * score.high:.1f})"
    return f"{100 * score.value:.1f}{interval}{guess_text(score.settings)}"


def guess_text(settings: Mapping[str, Any]) -> str:
    """The recall of a guess and the number of candidates, for text behind a recall."""
    if settings.get("chance") is None:
        return ""
    return f"; guess {100 * settings['chance']:.1f} of {settings['candidates']:.1f}"
