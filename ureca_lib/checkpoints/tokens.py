"""Placeholder tokens of a checkpoint folder, and its tokenizer, without running its code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ureca_lib.checkpoints.errors import CheckpointError
from ureca_lib.checkpoints.sentencepiece_model import internlm2_tokenizer
from ureca_lib.checkpoints.tensor_files import read_json
from ureca_lib.conversation import IMAGE_CONTEXT, MASK_CONTEXT, TURN_END, add_visual_tokens

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


@dataclass(frozen=True)
class PlaceholderIds:
    """Ids of the image and mask placeholders; `None` where no tokenizer file names them."""

    image: int | None
    mask: int | None


def token_ids(folder: Path) -> PlaceholderIds:
    """Placeholder ids from whichever tokenizer files a folder has."""
    tokens = added_tokens(folder)
    return PlaceholderIds(tokens.get(IMAGE_CONTEXT), tokens.get(MASK_CONTEXT))


def stop_ids(folder: Path) -> list[int]:
    """Ids that end an answer."""
    tokens = added_tokens(folder)
    return [tokens[TURN_END]] if TURN_END in tokens else []


def added_tokens(folder: Path) -> dict[str, int]:
    """Special and added tokens by their text, from the JSON files of a tokenizer."""
    tokens: dict[str, int] = {}
    if (file := folder / "tokenizer_config.json").is_file():
        decoder = read_json(file).get("added_tokens_decoder", {})
        tokens |= {entry["content"]: int(number) for number, entry in decoder.items()}
    if (file := folder / "tokenizer.json").is_file():
        tokens |= {e["content"]: e["id"] for e in read_json(file).get("added_tokens", [])}
    if (file := folder / "added_tokens.json").is_file():
        tokens |= read_json(file)
    return tokens


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The folder's tokenizer with every placeholder token, or `None` where it has no tokenizer.

    Placeholder tokens that are lacking are added at the end, in the published order, so that the
    same folder always gives the same ids.

    Raises:
        CheckpointError: files of a tokenizer that transformers cannot build on its own.
    """
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    own = str(settings.get("tokenizer_class", "")).startswith("InternLM2")
    if own and not (folder / "tokenizer.json").is_file():
        tokenizer = internlm2_tokenizer(
            folder,
            added_tokens(folder),
            settings.get("add_bos_token", True),
            settings.get("model_max_length"),
        )
        return add_visual_tokens(tokenizer)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        name, reason = settings.get("tokenizer_class", "unknown"), str(error)
        if not (folder / "tokenizer.json").is_file() and (folder / "tokenizer.model").is_file():
            reason = "of a tokenizer.model alone only InternLM2's is read"
        raise CheckpointError(
            folder,
            f"its tokenizer, {name}, cannot be built without running its code: {reason}",
        ) from error
    return add_visual_tokens(tokenizer)
