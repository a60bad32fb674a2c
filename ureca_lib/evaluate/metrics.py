"""Captions scored against references: BLEU, ROUGE-L, METEOR, CIDEr and BERTScore, with intervals.

BLEU, ROUGE-L and CIDEr equal pycocoevalcap's figures; METEOR is nltk's or, by the extra "java",
version 1.5; BERTScore is bert-score's. Each `Score` says what computed it, and how.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ureca_lib.devices import chosen_device
from ureca_lib.evaluate.bootstrap import (
    BootstrapSettings,
    Comparison,
    compare_scores,
    group_codes,
    intervals,
)
from ureca_lib.evaluate.ngrams import Pair, bleu, cider, rouge_l
from ureca_lib.evaluate.scores import Measured, Score, scored, without_value
from ureca_lib.evaluate.tokenizers import tokenizer

METRICS = ("bleu", "rouge_l", "meteor", "cider", "bertscore")
_SHOWN = 3  # ids in a warning

Predictions = Mapping[Hashable, str]
References = Mapping[Hashable, Sequence[str] | str]


@dataclass(frozen=True)
class MetricSettings:
    """What the scores depend on besides the captions."""

    tokenizer: str = field(
        default="whitespace", metadata={"help": "whitespace, or ptb as COCO's evaluation has it"}
    )
    meteor: Literal["nltk", "java"] = field(
        default="nltk", metadata={"help": "nltk, or java: METEOR 1.5 by the extra of that name"}
    )
    wordnet: str | None = field(
        default=None, metadata={"help": "folder of WordNet's files; None looks for them"}
    )
    download: bool = field(
        default=True, metadata={"help": "fetch nltk's WordNet where there is none"}
    )
    bertscore_model: str = field(
        default="auto",
        metadata={"help": "auto (roberta-large, else minilm), minilm, hub id or folder"},
    )
    bertscore_layers: int | None = field(
        default=None, metadata={"help": "None takes bert-score's choice, else all"}
    )
    bertscore_rescale: bool = field(
        default=False, metadata={"help": "stretch by bert-score's baseline"}
    )
    device: str | None = field(
        default="cpu", metadata={"help": "where BERTScore's model runs; None is CUDA if any"}
    )
    bootstrap: BootstrapSettings = field(
        default_factory=BootstrapSettings, metadata={"help": "how intervals are drawn"}
    )
    progress: bool = field(default=True, metadata={"help": "show a bar for BERTScore"})

    def __post_init__(self) -> None:
        tokenizer(self.tokenizer)
        if self.meteor not in ("nltk", "java"):
            raise ValueError(f"meteor is nltk or java, not {self.meteor!r}")


@dataclass(frozen=True)
class Matched:
    """Captions beside their references, in the order of the references.

    Args:
        ids: of the captions.
        pairs: each caption, as it is, and its references.
        missing: ids without a prediction; their caption is empty.
        surplus: ids without a reference, left out.
    """

    ids: tuple[Hashable, ...]
    pairs: tuple[Pair, ...]
    missing: tuple[Hashable, ...]
    surplus: tuple[Hashable, ...]


def score_captions(
    predictions: Predictions,
    references: References,
    metrics: Sequence[str] = METRICS,
    groups: Mapping[Hashable, Hashable] | None = None,
    settings: MetricSettings | None = None,
) -> dict[str, Score]:
    """Score captions against one or many references each.

    An empty caption scores 0. A reference without a prediction counts as an empty caption, for a
    system that does not answer must not gain by it; a prediction without a reference is left out.
    Both are counted in each score, with a warning.

    Args:
        predictions: for each id its caption.
        references: for each id its references, one or many.
        metrics: of "bleu", "rouge_l", "meteor", "cider" and "bertscore".
        groups: for each id its image, drawn by the bootstrap; None draws captions.
        settings: tokenizer, backends, bootstrap.

    Returns:
        Scores under the keys bleu_1 to bleu_4, rouge_l, meteor, cider and bertscore, on
        pycocoevalcap's scale. BERTScore without a model has no value and says why.

    Raises:
        ValueError: an unknown metric, no caption to score, a caption that is not text, or an id
            without a group; names the id.
        JavaMeteorError: METEOR 1.5 was asked for and cannot run.
    """
    settings = settings or MetricSettings()
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"a metric is one of {', '.join(METRICS)}, not {unknown[0]!r}")
    matched = match_captions(predictions, references)
    codes, units = group_codes(matched.ids, groups)
    known = {
        "ids": matched.ids,
        "groups": codes,
        "units": units,
        "unit": "caption" if groups is None else "image",
        "missing": len(matched.missing),
        "surplus": len(matched.surplus),
    }
    scores = _measure(matched.pairs, metrics, settings, known)
    return with_intervals(scores, settings.bootstrap)


def compare_systems(
    first: Predictions,
    second: Predictions,
    references: References,
    metrics: Sequence[str] = METRICS,
    groups: Mapping[Hashable, Hashable] | None = None,
    settings: MetricSettings | None = None,
) -> dict[str, Comparison]:
    """Compare two systems on the same references by a paired bootstrap over images.

    Both are scored as by `score_captions`; each resample scores both on the same images. Where
    scores are at hand already, `compare_scores` compares them.
    """
    settings = settings or MetricSettings()
    scores = [score_captions(one, references, metrics, groups, settings) for one in (first, second)]
    return compare_scores(*scores, settings.bootstrap)


def with_intervals(scores: Mapping[str, Score], settings: BootstrapSettings) -> dict[str, Score]:
    """The same scores with their intervals; those of the same captions share the draws."""
    known = [score for score in scores.values() if score.value is not None]
    if not known:
        return dict(scores)
    found = intervals([score.tally for score in known], known[0].groups, settings)
    ends = {one.name: pair for one, pair in zip(known, found, strict=True) if pair is not None}
    return {
        name: replace(score, low=ends[name][0], high=ends[name][1]) if name in ends else score
        for name, score in scores.items()
    }


def match_captions(predictions: Predictions, references: References) -> Matched:
    """Put captions beside their references.

    Raises:
        ValueError: nothing to score, or what is not text; names the id.
    """
    listed = {one: [text] if isinstance(text, str) else text for one, text in references.items()}
    listed = {one: list(texts or ()) for one, texts in listed.items()}
    ids = tuple(one for one, texts in listed.items() if texts)
    surplus = tuple(one for one in predictions if not listed.get(one))
    missing = tuple(one for one in ids if one not in predictions)
    if not ids:
        raise ValueError("there is no reference to score against")
    if len(missing) == len(ids):
        raise ValueError(
            f"no prediction has the id of a reference: {next(iter(predictions), None)!r} is one of "
            f"the predictions, {ids[0]!r} of the references"
        )
    for one in ids:
        _check_texts(one, predictions.get(one, ""), listed[one])
    _warn(missing, "references have no prediction and count as empty captions")
    _warn(surplus, "predictions have no reference and are left out")
    pairs = tuple((predictions.get(one, ""), listed[one]) for one in ids)
    return Matched(ids, pairs, missing, surplus)


def _check_texts(one: Hashable, caption: object, references: Sequence[object]) -> None:
    if not isinstance(caption, str):
        raise ValueError(f"{one!r}: a caption is text, not {type(caption).__name__}")
    for text in references:
        if not isinstance(text, str):
            raise ValueError(f"{one!r}: a reference is text, not {type(text).__name__}")


def _warn(ids: Sequence[Hashable], what: str) -> None:
    if ids:
        first = ", ".join(map(repr, ids[:_SHOWN]))
        warnings.warn(
            f"{len(ids)} {what}: {first}{', ...' if len(ids) > _SHOWN else ''}", stacklevel=4
        )


def _measure(
    pairs: Sequence[Pair], metrics: Sequence[str], settings: MetricSettings, known: dict
) -> dict[str, Score]:
    """All scores but their intervals."""
    split = tokenizer(settings.tokenizer)
    tokens = [(split(caption), [split(text) for text in texts]) for caption, texts in pairs]
    by_words: dict[str, Callable[[Sequence[Pair]], list[Measured]]] = {
        "bleu": bleu,
        "rouge_l": rouge_l,
        "cider": cider,
        "meteor": lambda of: _meteor(of, settings),
    }
    found: dict[str, Score] = {}
    for name in METRICS:
        if name in metrics and name in by_words:
            for measured in by_words[name](tokens):
                score = scored(measured, tokenizer=settings.tokenizer, **known)
                found[score.name] = score
        elif name in metrics:
            found[name] = _bertscore(pairs, settings, known)
    return found


def _meteor(pairs: Sequence[Pair], settings: MetricSettings) -> list[Measured]:
    if settings.meteor == "java":
        from ureca_lib.evaluate.meteor_java import meteor_java

        return meteor_java(pairs)
    from ureca_lib.evaluate.meteor import meteor
    from ureca_lib.evaluate.wordnet import find_wordnet

    return meteor(pairs, find_wordnet(settings.wordnet, settings.download))


def _bertscore(pairs: Sequence[Pair], settings: MetricSettings, known: dict) -> Score:
    from ureca_lib.evaluate.bertscore import BertModelError, bertscore, load_encoder

    try:
        device = chosen_device(settings.device)
        encoder = load_encoder(settings.bertscore_model, settings.bertscore_layers, device)
        (measured,) = bertscore(pairs, encoder, settings.bertscore_rescale, settings.progress)
    except BertModelError as error:
        return without_value("bertscore", "BERTScore", str(error), count=len(pairs), **known)
    return scored(measured, **known)
