"""Score captions against references: BLEU, ROUGE-L, METEOR, CIDEr and BERTScore, with intervals.

BLEU, ROUGE-L and CIDEr equal pycocoevalcap's; METEOR is nltk's or, by the extra "java", version
1.5; BERTScore is bert-score's. Each `Score` names its software and settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from ureca_lib.evaluate.ngrams import Pair, bleu, cider, rouge_l
from ureca_lib.evaluate.scores import Score, with_intervals
from ureca_lib.evaluate.settings import MetricSettings
from ureca_lib.evaluate.tokenizers import TOKENIZERS

METRICS = ("bleu", "rouge_l", "meteor", "cider", "bertscore")
QUICK_METRICS = METRICS[:4]  # need no model
_SHOWN = 5  # ids in a message

Predictions = Mapping[Hashable, str]
References = Mapping[Hashable, Sequence[str] | str]


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
        OSError: METEOR 1.5 cannot run.
    """
    settings = settings or MetricSettings()
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    check_metrics(metrics)
    matched, counts = match_captions(predictions, references)
    split, pairs = TOKENIZERS[settings.tokenizer], list(matched.values())
    tokens = [(split(caption), [split(text) for text in texts]) for caption, texts in pairs]
    scorers: dict[str, Callable[[], list[Score]]] = {
        "bleu": lambda: bleu(tokens),
        "rouge_l": lambda: rouge_l(tokens),
        "meteor": lambda: _meteor(tokens, settings),
        "cider": lambda: cider(tokens),
        "bertscore": lambda: _bertscore(pairs, settings),
    }
    scores = [score for name in METRICS if name in metrics for score in scorers[name]()]
    used = {"tokenizer": settings.tokenizer}
    scores = [s if s.name == "bertscore" else replace(s, **used) for s in scores]
    return with_intervals(scores, tuple(matched), groups, settings, **counts)


def check_metrics(names: Iterable[str]) -> None:
    """Check names of metrics.

    Raises:
        ValueError: one that is not in `METRICS`.
    """
    if unknown := sorted({*names} - {*METRICS}):
        raise ValueError(f"metrics are {', '.join(METRICS)}, not {', '.join(unknown)}")


def match_captions(
    predictions: Predictions, references: References
) -> tuple[dict[Hashable, Pair], dict[str, int]]:
    """Put captions beside their references.

    Returns:
        Each caption, as it is, and its references, by id in the order of the references; and the
        numbers of "missing" predictions, whose captions are empty, and of "surplus" ones, without
        references.

    Raises:
        ValueError: nothing to score, or a value that is not text; names the id.
    """
    listed = {key: [text] if isinstance(text, str) else text for key, text in references.items()}
    listed = {key: list(texts) for key, texts in listed.items() if texts}
    if not listed:
        raise ValueError("there is no reference to score against")
    check_ids(predictions, listed)
    pairs = {key: (predictions.get(key, ""), texts) for key, texts in listed.items()}
    for key, (caption, texts) in pairs.items():
        if strange := [text for text in (caption, *texts) if not isinstance(text, str)]:
            raise ValueError(f"{key!r}: a caption or reference is text, not {strange[0]!r}")
    missing = [key for key in listed if key not in predictions]
    surplus = [key for key in predictions if key not in listed]
    for message in unmatched(missing, surplus):
        warnings.warn(message, stacklevel=3)
    return pairs, {"missing": len(missing), "surplus": len(surplus)}


def unmatched(missing: Sequence[Hashable], surplus: Sequence[Hashable]) -> list[str]:
    """A sentence on references without a prediction, and one on predictions without a reference."""
    problems = {
        "references have no prediction and score as empty captions": missing,
        "predictions have no reference and are left out": surplus,
    }
    found = []
    for problem, ids in problems.items():
        if ids:
            shown = ", ".join(map(str, ids[:_SHOWN])) + ", ..." * (len(ids) > _SHOWN)
            found.append(f"{len(ids):,} {problem}: {shown}")
    return found


def check_ids(
    predictions: Mapping[Hashable, object], references: Mapping[Hashable, object]
) -> None:
    """Check that predictions and references name regions in the same way.

    Raises:
        ValueError: no prediction has the id of a reference.
    """
    if predictions.keys().isdisjoint(references):
        raise ValueError(
            f"no prediction has the id of a reference: {next(iter(predictions), None)!r} is one of "
            f"the predictions, {next(iter(references), None)!r} of the references"
        )


def _meteor(pairs: Sequence[Pair], settings: MetricSettings) -> list[Score]:
    from ureca_lib.evaluate.meteor import find_wordnet, meteor, meteor_java

    if settings.meteor == "java":
        return meteor_java(pairs)
    return meteor(pairs, find_wordnet(settings.wordnet))


def _bertscore(pairs: Sequence[Pair], settings: MetricSettings) -> list[Score]:
    from ureca_lib.evaluate.bertscore import bertscore, load_encoder

    try:
        encoder = load_encoder(settings.bertscore_model, settings.device)
    except OSError as error:
        return [Score("bertscore", "BERTScore", None, reason=str(error), count=len(pairs))]
    return bertscore(pairs, encoder, settings.progress)
