"""Added tokens of a checkpoint folder, and its tokenizer, without running its code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    name, alone = settings.get("tokenizer_class", "unknown"), ""
    if "tokenizer.model" in files and "tokenizer.json" not in files:
        alone = " (of a tokenizer.model alone only InternLM2's is read)"
    fault = f"its tokenizer, {name}, cannot be built without running its code{alone}"
    with reading(folder, f"{fault}; read from {', '.join(files)}"):
        return add_visual_tokens(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


SPACE = "▁"  # how sentencepiece writes a space
_NORMAL, _UNKNOWN = 1, 2  # SentencePiece.Type
_PAIRS = 2  # TrainerSpec.ModelType: byte-pair encoding


@dataclass(frozen=True)
class PieceModel:
    """Content of a tokenizer.model."""

    pieces: list[tuple[str, float, int]]  # text, score, kind; their order gives the ids
    kind: int  # of the model: 2 is byte-pair encoding
    dummy_prefix: bool  # a space is put before each text
    squeeze: bool  # runs of spaces become one, those at the ends none
    charsmap: bytes  # compiled replacements, empty for none


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
    """
    path = folder / "tokenizer.model"
    model = read_piece_model(path)
    if model.kind != _PAIRS:
        raise CheckpointError(path, "not a byte-pair model, as InternLM2's is")
    names = {number: text for text, number in added.items()}
    pieces = [(names.get(i, p), score, kind) for i, (p, score, kind) in enumerate(model.pieces)]
    vocab = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    unknown = next(piece for piece, _, kind in pieces if kind == _UNKNOWN)
    encoding = models.BPE(
        vocab, _merges(pieces, vocab), unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(encoding)
    tokenizer.normalizer = _normalizer(model)
    strip = [decoders.Strip(" ", 1, 0)] if model.dummy_prefix else []
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
    limit = {} if max_length is None else {"model_max_length": max_length}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token=unknown,
        pad_token="</s>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **limit,
    )


def _merges(pieces: list[tuple[str, float, int]], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs in the order in which sentencepiece joins them: by the score of the result."""
    ranked = []
    for piece, score, kind in pieces:
        if kind != _NORMAL:
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                ranked.append((-score, vocab[left], vocab[right], left, right))
    ranked.sort()
    return [(left, right) for *_, left, right in ranked]


def _normalizer(model: PieceModel) -> normalizers.Normalizer:
    steps = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.squeeze:
        steps += [
            normalizers.Replace(Regex(r"\A +| +\z"), ""),
            normalizers.Replace(Regex(" +"), " "),
        ]
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def read_piece_model(path: Path) -> PieceModel:
    """Read a tokenizer.model.

    Raises:
        CheckpointError: no such file, or no sentencepiece model.
    """
    try:
        fields = list(_fields(path.read_bytes()))
        pieces = [_piece(value) for number, value in fields if number == 1]
        trainer = dict(_fields(next((v for n, v in fields if n == 2), b"")))
        rules = dict(_fields(next((v for n, v in fields if n == 3), b"")))
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise CheckpointError(path, f"not a sentencepiece model ({error})") from error
    if not pieces:
        raise CheckpointError(path, "not a sentencepiece model (no pieces)")
    return PieceModel(
        pieces=pieces,
        kind=trainer.get(3, 1),
        dummy_prefix=bool(rules.get(3, True)),
        squeeze=bool(rules.get(4, True)),
        charsmap=rules.get(2, b""),
    )


def _piece(message: bytes) -> tuple[str, float, int]:
    parts = dict(_fields(message))
    score = struct.unpack("<f", parts[2])[0] if 2 in parts else 0.0
    return parts[1].decode("utf-8"), score, parts.get(3, _NORMAL)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Read numbers and values of a protocol buffer's fields: varints as int, all else as bytes."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(message, place)
        else:
            length = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                length, place = _varint(message, place)
            if length is None or place + length > len(message):
                raise ValueError(f"field {number} at byte {place} is malformed")
            value, place = message[place : place + length], place + length
        yield number, value


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
