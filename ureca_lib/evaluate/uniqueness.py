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

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas

from ureca_lib import __version__
from ureca_lib.annotate.look_alikes import normalized, word_overlaps
from ureca_lib.datasets.captioned import CaptionedImages, open_captioned
from ureca_lib.evaluate.exact_match import area_name, in_groups, level_name
from ureca_lib.evaluate.predictions import (
    left_out,
    read_meta,
    read_predictions,
    system_of,
)
from ureca_lib.evaluate.scores import (
    Score,
    group_records,
    measured,
    score_records,
    with_intervals,
)
from ureca_lib.evaluate.settings import NEAR, UniquenessSettings
from ureca_lib.journal import Part, join_parts, part_path, read_journal, share_of
from ureca_lib.listeners import (
    EXACT,
    STYLE_NOTE,
    Listener,
    ListenerScores,
    listener_name,
    make_listener,
    score_images,
)
from ureca_lib.markdown import table
from ureca_lib.provenance import file_sha256, package_versions

TIE = 1e-3  # nats; regions with one mask differ by rounding, and by batch, in a model's scores
RETRIEVAL = ("recall_at_1", "mrr")
LOOK_ALIKE = ("look_alike_recall_at_1", "look_alike_mrr")
COLLISION = ("collision_equal", "collision_near")
_RECALLS = (RETRIEVAL[0], LOOK_ALIKE[0])  # stand beside the recall of a guess
LABELS = {
    "recall_at_1": "Recall at 1",
    "mrr": "MRR",
    "look_alike_recall_at_1": "Recall at 1 among look-alikes",
    "look_alike_mrr": "MRR among look-alikes",
    "collision_equal": "Equal captions",
    "collision_near": "Nearly equal captions",
}
_VERSION = f"ureca-lib {__version__}"


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
        unscorable: number of captions that the listener refused; they count as not understood.
    """

    system: str
    listener: str
    settings: UniquenessSettings
    overall: dict[str, Score]
    by_level: dict[str, dict[str, Score]]
    by_area: dict[str, dict[str, Score]]
    unscorable: int = 0

    @property
    def chance(self) -> dict[str, float | None]:
        """Recall of a guess, over all regions and among look-alikes."""
        return {name: self.overall[name].settings["chance"] for name in _RECALLS}

    @property
    def candidates(self) -> dict[str, float | None]:
        """Mean number of regions to choose from, over all regions and among look-alikes."""
        return {name: self.overall[name].settings["candidates"] for name in _RECALLS}

    def as_record(self) -> dict[str, Any]:
        """All but the captions' own scores, as JSON can hold it."""
        return vars(self) | {
            "settings": asdict(self.settings),
            "overall": score_records(self.overall),
            "by_level": group_records(self.by_level),
            "by_area": group_records(self.by_area),
            "chance": self.chance,
            "candidates": self.candidates,
            "unscorable": self.unscorable,
        }

    def __str__(self) -> str:
        """The scores as Markdown: over all captions, by level and by area."""
        rows = {"all": self.overall}
        rows |= {f"level {name}": scores for name, scores in self.by_level.items()}
        rows |= {f"{name} of the image": scores for name, scores in self.by_area.items()}
        shown = [
            [name, str(scores[RETRIEVAL[0]].count), *map(_percent, scores.values())]
            for name, scores in rows.items()
        ]
        head = ["captions", "number", *LABELS.values()]
        lines = [
            f"{self.system}, heard by {self.listener}; percent, with 95% intervals over images",
            "",
            table(head, shown, right=range(1, len(head))),
            "Behind a recall: that of a guess, and the mean number of regions to choose from.",
        ]
        lines += [STYLE_NOTE] if self.listener != EXACT else []
        if self.unscorable:
            lines.append(f"{self.unscorable} captions were refused by the listener")
        return "\n".join(lines)


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
    images = [image for image in scores if image.said]
    if not images:
        raise ValueError("no caption has scores")
    for name in ("system", "listener"):
        if len(found := sorted({getattr(image, name) for image in images})) > 1:
            raise ValueError(f"captions of several {name}s: {', '.join(found)}")
    rows = pandas.concat([_of_image(image, settings) for image in images], ignore_index=True)
    listener = images[0].listener

    def measure(chosen: pandas.DataFrame) -> dict[str, Score]:
        """Each measure over some captions, with intervals over their images."""
        found = [_score(name, chosen, listener, settings) for name in LABELS]
        owners = dict(zip(chosen.id, chosen.image, strict=True))
        return with_intervals(found, chosen.id.tolist(), owners, settings)

    overall, by_area, by_level = in_groups(rows, measure)
    unscorable = sum(i in image.unscorable for image in images for i in image.said.values())
    about = (images[0].system, listener, settings)
    return Uniqueness(*about, overall, by_level, by_area, unscorable)


def _score(name: str, rows: pandas.DataFrame, listener: str, settings: UniquenessSettings) -> Score:
    """The mean of a column, NaN where a measure does not apply."""
    about: dict[str, Any] = {"void": "no region has look-alikes"}
    if name in COLLISION:
        backend, about["settings"] = "collision", {"near": settings.near}
    else:
        backend, about["model"] = "self-retrieval", f"listener {listener}"
        about["settings"] = {"calibrate": settings.calibrate}
    if name in _RECALLS:  # beside that of a guess, and the mean number of candidates
        chance = rows[f"chance {name}"].to_numpy()
        guess = {"chance": chance, "candidates": 1 / chance}
        void = np.isnan(chance).all()
        means = {key: None if void else float(np.nanmean(each)) for key, each in guess.items()}
        about["settings"] |= means
    return measured(name, LABELS[name], rows[name].to_numpy(), backend, _VERSION, **about)


def _of_image(image: ListenerScores, settings: UniquenessSettings) -> pandas.DataFrame:
    """A row for each of the C captions of an image: its region, and the value of each measure."""
    rows = {region.id: row for row, region in enumerate(image.regions)}
    targets = np.array([rows[region_id] for region_id in image.said], np.intp)
    places = list(image.said.values())
    scores = image.scores[:, places]  # (R, texts) -> (R, C)
    if settings.calibrate == "pmi":
        scores = calibrated(scores)  # on all captions: a text of two regions counts twice
    alike = np.zeros(scores.shape, bool)
    regions = [image.regions[row] for row in targets]
    for column, region in enumerate(regions):
        alike[[rows[other] for other in region.look_alikes], column] = True
    equal, near = find_collisions([image.captions[place] for place in places], settings.near)
    found: dict[str, Any] = {
        "id": [f"{image.image_id}/{region.id}" for region in regions],
        "image": image.image_id,
        "size": [area_name(region.area, image.size) for region in regions],
        "level": [level_name(region.level) for region in regions],
        COLLISION[0]: equal.astype(float),
        COLLISION[1]: near.astype(float),
    }
    for names, candidates in ((RETRIEVAL, None), (LOOK_ALIKE, alike)):
        columns = retrieve(scores, targets, candidates)
        # among look-alikes the measure is for regions that have some
        applies = (columns[2] < 1) | (candidates is None)
        for name, column in zip((*names, f"chance {names[0]}"), columns, strict=True):
            found[name] = np.where(applies, column, np.nan)
    return pandas.DataFrame(found)


class Retrieved(NamedTuple):
    """A listener's choice among R regions for C captions.

    Attributes:
        first: (C,) chance that the listener picks the caption's own region: 1, 0, or a share of
            1 if several regions come first together.
        reciprocal: (C,) 1 / rank of its own region, averaged over the orders of a tie; 0 if the
            listener rules the region out.
        chance: (C,) `first` of a guess, 1 / number of candidates.
    """

    first: np.ndarray
    reciprocal: np.ndarray
    chance: np.ndarray


def calibrated(scores: np.ndarray) -> np.ndarray:
    """Divide out how likely each region finds the image's captions in general ("pmi").

    log p(c | r) - log sum over the captions c' of p(c' | r). It is the pointwise mutual
    information of region and caption under the listener, when one of these captions is given to a
    region: its other term, log p(c), is the same down a column. It corrects a listener that takes
    every caption for its favorite region. But it also reads a caption in the light of the others:
    "the mushroom", next to "the yellow mushroom", comes to mean the other mushroom, and a region
    that no caption fits takes the one that fits least badly. So it flatters captions that are not
    unique, and is meant for examining a listener, not for a number that is reported alone.

    Args:
        scores: (R, C) log-likelihoods.

    Returns:
        (R, C) scores of which the largest in each column is the listener's choice.
    """
    total = np.logaddexp.reduce(scores, axis=1, keepdims=True)  # (R, 1)
    return scores - np.where(np.isneginf(total), 0, total)  # a row that is ruled out stays so


def retrieve(
    scores: np.ndarray, targets: np.ndarray, candidates: np.ndarray | None = None
) -> Retrieved:
    """Rank each caption's own region among the candidates.

    Args:
        scores: (R, C) log-likelihoods; a column of -inf is a caption that names nothing.
        targets: (C,) row of each caption's own region.
        candidates: (R, C) bool, the rows to choose from; None is all. The own region always is
            one.
    """
    allowed = np.ones(scores.shape, bool) if candidates is None else candidates.copy()
    columns = np.arange(len(targets))
    allowed[targets, columns] = True
    own = scores[targets, columns]  # (R, C) -> (C,)
    named = ~np.isneginf(own)
    ahead = scores - np.where(named, own, 0)
    better = np.where(named, (allowed & (ahead > TIE)).sum(axis=0), 0)
    tied = np.where(named, (allowed & (np.abs(ahead) <= TIE)).sum(axis=0), 1)
    harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, len(scores) + 1))])
    mean = (harmonic[better + tied] - harmonic[better]) / tied
    first = np.where(named & (better == 0), 1 / tied, 0.0)
    return Retrieved(first, np.where(named, mean, 0.0), 1 / allowed.sum(axis=0))


def find_collisions(captions: Sequence[str], near: float = NEAR) -> tuple[np.ndarray, np.ndarray]:
    """Compare each of an image's C captions with all others.

    Args:
        captions: one per region.
        near: share from which captions are nearly equal, above 0 and at most 1.

    Returns:
        (C,) bool, whether a caption equals another one once normalized (two captions without a
        word do), and (C,) bool, whether it is equal or nearly so.
    """
    texts = [normalized(caption) for caption in captions]
    counts = Counter(texts)
    equal = np.array([counts[text] > 1 for text in texts], bool)
    overlap = word_overlaps(texts)
    np.fill_diagonal(overlap, 0)
    return equal, equal | (overlap >= near).any(axis=1)


def score_uniqueness(
    predictions: str | Path,
    listener: str = "exact",
    data: str | None = None,
    masks: str | Path | None = None,
    heard: str | Path | None = None,
    settings: UniquenessSettings | None = None,
    device: str | None = "cpu",
    progress: bool = True,
    chat: Mapping[str, Any] | None = None,
    boxes: bool = False,
) -> tuple[Uniqueness, dict[str, Any]]:
    """Score the captions of a predictions file by a listener and measure their uniqueness.

    Args:
        predictions: JSONL.
        listener: see `ureca_lib.listeners`.
        data: for `open_captioned`; None takes the data of the predictions.
        masks: folder of a JSONL's masks.
        heard: JSONL of listener scores to append to; None names it after predictions and
            listener. If it has every image, neither data nor model is opened.
        settings: None is the default. device: of the model, None for CUDA if there is one.
        progress: show a bar.
        chat: options of `make_chat`, for a listener that is a chat model.
        boxes: read boxes as regions where a file has no masks; also if the prediction did.

    Returns:
        The measures, and a record of them with provenance, which JSON can hold.

    Raises:
        ValueError: a file or listener at fault, naming it. FileNotFoundError: no such file.
    """
    path = Path(predictions)
    scores, cache = hear_predictions(
        path, listener, data, masks, heard, device, progress, chat, boxes
    )
    found = measure_uniqueness(scores, settings)
    record = found.as_record() | {
        "predictions": str(path),
        "sha256": file_sha256(path),
        "meta": read_meta(path),
        "heard": str(cache),
        "versions": package_versions(),
    }
    return found, record


def hear_predictions(
    predictions: str | Path,
    listener: str = "exact",
    data: str | None = None,
    masks: str | Path | None = None,
    heard: str | Path | None = None,
    device: str | None = "cpu",
    progress: bool = True,
    chat: Mapping[str, Any] | None = None,
    boxes: bool = False,
    part: Part | None = None,
) -> tuple[list[ListenerScores], Path]:
    """Score the captions of a predictions file by a listener; see `score_uniqueness`.

    Args:
        part: score the images of this part only, into a file of its own; see `join_heard`.

    Returns:
        Scores of each image, and their file.
    """
    path, name = Path(predictions), listener_name(listener)
    meta, rows = read_meta(path), read_predictions(path)
    system, captions = system_of(path, rows, meta), {}
    for row in rows:
        captions.setdefault(row.image_id, {})[str(row.region_id)] = row.caption
    for message in left_out(rows, meta):
        warnings.warn(f"{path}: {message}")
    cache = _heard_path(path, name, heard)
    if part:
        known = {row["image_id"] for row in read_journal(cache)} if cache.is_file() else set()
        own = share_of(list(captions), part)
        captions = {image_id: captions[image_id] for image_id in own if image_id not in known}
        cache = part_path(cache, part)
    source, opened = data or meta.get("data"), meta.get("data_settings") or {}
    where = masks or (None if data else opened.get("masks"))

    def images() -> CaptionedImages:
        if not isinstance(source, str):
            raise ValueError(f"{path}: its record does not name the images; give --data")
        strict, as_regions = opened.get("strict", True), boxes or opened.get("use_boxes", False)
        return open_captioned(source, masks=where, strict=strict, boxes=as_regions)

    def opened_listener() -> Listener:
        return make_listener(listener, device, **(chat or {}))

    scores = score_images(images, captions, opened_listener, name, cache, system, progress)
    return scores, cache


def join_heard(predictions: str | Path, listener: str, heard: str | Path | None = None) -> None:
    """Move the scores of all parts to their file, in the order of the predictions.

    Args:
        predictions, listener, heard: as `score_uniqueness` takes them.
    """
    path, places = Path(predictions), {}
    for row in read_predictions(path):
        places.setdefault(row.image_id, len(places))
    cache = _heard_path(path, listener_name(listener), heard)
    join_parts(cache, "image_id", lambda row: places.get(row["image_id"], len(places)))


def _heard_path(predictions: Path, name: str, heard: str | Path | None) -> Path:
    file_name = re.sub(r"[^\w.-]+", "-", name)  # hub ids and folders have slashes
    return Path(heard) if heard else predictions.with_suffix(f".heard.{file_name}.jsonl")


def _percent(score: Score) -> str:
    if score.value is None:
        return "–"
    text = f"{100 * score.value:.1f}"
    if score.low is not None:
        text += f" ({100 * score.low:.1f}–{100 * score.high:.1f})"
    if score.settings.get("chance") is not None:
        text += (
            f"; guess {100 * score.settings['chance']:.1f} of {score.settings['candidates']:.1f}"
        )
    return text
