"""Placeholder ids and tokenizers of a checkpoint folder, without running its code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ureca_lib.checkpoints.tensor_files import read_json

IMAGE_START, IMAGE_END, IMAGE_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
MASK_START, MASK_END, MASK_CONTEXT = "<mask>", "</mask>", "<MASK_CONTEXT>"
TURN_END = "<|im_end|>"


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
