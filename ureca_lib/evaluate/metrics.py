"""Score captions against references: BLEU, ROUGE-L, METEOR, CIDEr and BERTScore, with intervals.

BLEU, ROUGE-L and CIDEr equal pycocoevalcap's; METEOR is nltk's or, by the extra "java", version
1.5; BERTScore is bert-score's. Each `Score` names its software and settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from ureca_lib.devices import chosen_device
from ureca_lib.evaluate.ngrams import Pair, bleu, cider, rouge_l
from ureca_lib.evaluate.scores import BootstrapSettings, Score, grouped, with_intervals
from ureca_lib.evaluate.tokenizers import tokenizer

METRICS = ("bleu", "rouge_l", "meteor", "cider", "bertscore")
_SHOWN = 3  # ids in a warning

Predictions = Mapping[Hashable, str]
References = Mapping[Hashable, Sequence[str] | str]


@dataclass(frozen=True)
class MetricSettings:
    """Settings that scores depend on."""

    tokenizer: str = field(
        default="ptb",
        metadata={"help": "ptb, as COCO's evaluation has it, or whitespace"},
    )
    meteor: Literal["nltk", "java"] = field(
        default="nltk", metadata={"help": "nltk, or java: METEOR 1.5 by the extra of that name"}
    )
    wordnet: str | None = field(
        default=None, metadata={"help": "folder of WordNet's files; None looks for them"}
    )
    download: bool = field(default=True, metadata={"help": "fetch nltk's WordNet if there is none"})
    bertscore_model: str = field(
        default="auto",
        metadata={"help": "auto (roberta-large, else minilm), minilm, hub id or folder"},
    )
    device: str | None = field(
        default="cpu", metadata={"help": "where BERTScore's model runs; None is CUDA if any"}
    )
    bootstrap: BootstrapSettings = field(
        default_factory=BootstrapSettings, metadata={"help": "settings of the intervals"}
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
        pairs: each caption, as it is, and its references; by id.
        missing: ids without a prediction; their caption is empty.
        surplus: ids without a reference, left out.
    """

    pairs: dict[Hashable, Pair]
    missing: tuple[Hashable, ...]
    surplus: tuple[Hashable, ...]

    def fields(self, groups: Mapping[Hashable, Hashable] | None) -> dict[str, Any]:
        """The fields of `Score` about the captions; see `grouped`."""
        counts = {"missing": len(self.missing), "surplus": len(self.surplus)}
        return grouped(tuple(self.pairs), groups) | counts


def score_captions(
    predictions: Predictions,
    references: References,
    metrics: Sequence[str] = METRICS,
    groups: Mapping[Hashable, Hashable] | None = None,
    settings: MetricSettings | None = None,
) -> dict[str, Score]:
    """Score captions against one or many references each.

    An empty caption scores 0. A reference without a prediction counts as an empty caption, so that
    a system cannot gain by not answering; a prediction without a reference is left out. Each score
    has the numbers of both, and there is a warning.

    Args:
        predictions: caption of each id.
        references: references of each id, one or many.
        metrics: of "bleu", "rouge_l", "meteor", "cider" and "bertscore".
        groups: image of each id, drawn by the bootstrap; None draws captions.
        settings: tokenizer, backends, bootstrap.

    Returns:
        Scores under the keys bleu_1 to bleu_4, rouge_l, meteor, cider and bertscore, on
        pycocoevalcap's scale. BERTScore without a model has no value and says why.

    Raises:
        ValueError: an unknown metric, no caption to score, a caption that is not text, or an id
            without a group; names the id.
        JavaMeteorError: METEOR 1.5 cannot run.
    """
    settings = settings or MetricSettings()
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"a metric is one of {', '.join(METRICS)}, not {unknown[0]!r}")
    matched = match_captions(predictions, references)
    about, pairs = matched.fields(groups), list(matched.pairs.values())
    split = tokenizer(settings.tokenizer)
    tokens = [(split(caption), [split(text) for text in texts]) for caption, texts in pairs]
    by_tokens = {"bleu": bleu, "rouge_l": rouge_l, "cider": cider}
    by_tokens["meteor"] = partial(_meteor, settings=settings)
    scores: dict[str, Score] = {}
    for name in METRICS:
        if name not in metrics:
            continue
        if name == "bertscore":
            scores[name] = replace(_bertscore(pairs, settings), **about)
            continue
        for score in by_tokens[name](tokens):
            scores[score.name] = replace(score, tokenizer=settings.tokenizer, **about)
    return with_intervals(scores, settings.bootstrap)


def match_captions(predictions: Predictions, references: References) -> Matched:
    """Put captions beside their references.

    Raises:
        ValueError: nothing to score, or a value that is not text; names the id.
    """
    listed = {key: [text] if isinstance(text, str) else text for key, text in references.items()}
    listed = {key: list(texts) for key, texts in listed.items() if texts}
    missing = tuple(key for key in listed if key not in predictions)
    surplus = tuple(key for key in predictions if key not in listed)
    if not listed:
        raise ValueError("there is no reference to score against")
    if len(missing) == len(listed):
        raise ValueError(
            f"no prediction has the id of a reference: {next(iter(predictions), None)!r} is one of "
            f"the predictions, {next(iter(listed))!r} of the references"
        )
    pairs = {key: (predictions.get(key, ""), texts) for key, texts in listed.items()}
    for key, (caption, texts) in pairs.items():
        for kind, text in (("caption", caption), *(("reference", text) for text in texts)):
            if not isinstance(text, str):
                raise ValueError(f"{key!r}: a {kind} is text, not {type(text).__name__}")
    _warn(missing, "references have no prediction and count as empty captions")
    _warn(surplus, "predictions have no reference and are left out")
    return Matched(pairs, missing, surplus)


def _warn(ids: Sequence[Hashable], problem: str) -> None:
    if ids:
        more = ", ..." if len(ids) > _SHOWN else ""
        text = f"{len(ids)} {problem}: {', '.join(map(repr, ids[:_SHOWN]))}{more}"
        warnings.warn(text, stacklevel=4)


def _meteor(pairs: Sequence[Pair], settings: MetricSettings) -> list[Score]:
    from ureca_lib.evaluate.meteor import find_wordnet, meteor, meteor_java

    if settings.meteor == "java":
        return meteor_java(pairs)
    return meteor(pairs, find_wordnet(settings.wordnet, settings.download))


def _bertscore(pairs: Sequence[Pair], settings: MetricSettings) -> Score:
    from ureca_lib.evaluate.bertscore import BertModelError, bertscore, load_encoder

    try:
        device = chosen_device(settings.device)
        encoder = load_encoder(settings.bertscore_model, device=device)
    except BertModelError as error:
        return Score("bertscore", "BERTScore", None, reason=str(error), count=len(pairs))
    return bertscore(pairs, encoder, settings.progress)[0]
