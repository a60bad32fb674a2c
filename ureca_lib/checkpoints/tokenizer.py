"""Added tokens of a checkpoint folder, and its tokenizer, without running its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
)
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ureca_lib.checkpoints.tensors import CheckpointError, read_json, reading
from ureca_lib.conversation import add_visual_tokens

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def added_tokens(folder: Path) -> dict[str, int]:
    """Read special and added tokens by their text from the JSON files of a tokenizer.

    Raises:
        CheckpointError: a file that is malformed.
    """
    pairs: list[tuple[Any, Any]] = []
    if (file := folder / "tokenizer_config.json").is_file():
        with reading(file):
            decoder = read_json(file).get("added_tokens_decoder", {})
            pairs += [(entry["content"], int(number)) for number, entry in decoder.items()]
    if (file := folder / "tokenizer.json").is_file():
        with reading(file):
            pairs += [(e["content"], e["id"]) for e in read_json(file).get("added_tokens", [])]
    if (file := folder / "added_tokens.json").is_file():
        pairs += read_json(file).items()
    for text, number in pairs:
        if not isinstance(text, str) or type(number) is not int or number < 0:
            raise CheckpointError(folder, f"added token {text!r:.50} with id {number!r:.50}")
    return dict(pairs)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """Load a folder's tokenizer with every placeholder token, or None if there is no tokenizer.

    Placeholder tokens that are lacking are added at the end, in the published order, so that the
    same folder always gives the same ids.

    Raises:
        CheckpointError: files that are damaged, or of a tokenizer that needs its own code.
    """
    files = [name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        return None
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    own = str(settings.get("tokenizer_class", "")).startswith("InternLM2")
    if own and "tokenizer.json" not in files:
        with reading(folder / "tokenizer.model"):
            tokenizer = internlm2_tokenizer(
                folder,
                added_tokens(folder),
                settings.get("add_bos_token", True),
                settings.get("model_max_length"),
            )
            return add_visual_tokens(tokenizer)
    name = str(settings.get("tokenizer_class", "unknown"))
    fault = f"its tokenizer, {name}, cannot be built without running its code"
    # transformers would make some other tokenizer of the pieces, and captions of its wrong words
    alone = not {"tokenizer.json", "vocab.json"} & set(files)
    if alone and not hasattr(transformers, name):
        reason = "of a tokenizer.model alone only InternLM2's is read"
        raise CheckpointError(folder, f"{fault}: {reason}")
    with reading(folder, f"{fault}; read from {', '.join(files)}"):
        return add_visual_tokens(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


SPACE = "▁"  # how sentencepiece writes a space


def internlm2_tokenizer(
    folder: Path, added: dict[str, int], add_bos: bool = True, max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a published InternLM2 checkpoint.

    Args:
        folder: has tokenizer.model.
        added: special and added tokens with their ids. An id of the model's own renames its piece.
        add_bos: put `<s>` before every text.
        max_length: tokens that the model was made for.

    Raises:
        CheckpointError: not a sentencepiece model of byte pairs, or added ids leave a gap.
        ImportError: the `sentencepiece` package is missing.
    """
    model = _piece_model(folder / "tokenizer.model")
    names = {number: text for text, number in added.items()}
    texts = [names.get(i, piece.piece) for i, piece in enumerate(model.pieces)]
    vocab = {text: i for i, text in enumerate(texts)}
    scores = {t: p.score for t, p in zip(texts, model.pieces, strict=True) if p.type == p.NORMAL}
    unknown = next(t for t, p in zip(texts, model.pieces, strict=True) if p.type == p.UNKNOWN)
    encoding = models.BPE(
        vocab, _merges(scores, vocab), unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    tokenizer, rules = Tokenizer(encoding), model.normalizer_spec
    tokenizer.normalizer = _normalizer(rules)
    strip = [decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    special = {"<s>", "</s>", unknown} & vocab.keys() | added.keys()
    ordered = sorted(special, key=lambda text: added.get(text, vocab.get(text, 0)))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ordered])
    wrong = [text for text, number in added.items() if tokenizer.token_to_id(text) != number]
    if wrong:
        raise CheckpointError(folder, f"ids of added tokens leave a gap at {', '.join(wrong)}")
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token=unknown,
        pad_token="</s>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **({} if max_length is None else {"model_max_length": max_length}),
    )


def _piece_model(path: Path) -> Any:
    """The message of a tokenizer.model, a byte-pair model of sentencepiece."""
    try:
        from sentencepiece import sentencepiece_model_pb2 as messages
    except ImportError:
        raise ImportError(
            f"{path} is read by the sentencepiece package: pip install 'ureca-lib[convert]'"
        ) from None
    model = messages.ModelProto()
    with reading(path, "not a sentencepiece model"):
        model.ParseFromString(path.read_bytes())
    if not model.pieces:
        raise CheckpointError(path, "not a sentencepiece model (no pieces)")
    if model.trainer_spec.model_type != model.trainer_spec.BPE:
        raise CheckpointError(path, "not a byte-pair model, as InternLM2's is")
    return model


def _merges(scores: dict[str, float], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs in the order in which sentencepiece joins them: by the score of the result."""
    pairs = [
        (-score, vocab[piece[:cut]], vocab[piece[cut:]], piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    return [(left, right) for *_, left, right in sorted(pairs)]


def _normalizer(rules: Any) -> normalizers.Normalizer:
    """The normalizer of a sentencepiece model's `NormalizerSpec`."""
    charsmap = rules.precompiled_charsmap
    steps = [normalizers.Precompiled(charsmap)] if charsmap else []
    if rules.remove_extra_whitespaces:
        steps += [
            normalizers.Replace(Regex(r"\A +| +\z"), ""),
            normalizers.Replace(Regex(" +"), " "),
        ]
    if rules.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
