"""Tiny random models, tokenizers and inputs of the real classes, for tests."""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ureca_lib.model import UrecaConfig, UrecaForConditionalGeneration

CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VISUAL_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<mask>", "</mask>", "<MASK_CONTEXT>")


def tiny_tokenizer(visual_tokens: tuple[str, ...] = VISUAL_TOKENS) -> PreTrainedTokenizerFast:
    """A lossless tokenizer of single bytes with the chat and placeholder tokens at the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [*CHAT_TOKENS, *visual_tokens]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_max_length=8192,
    )


def tiny_config(language: str = "qwen2", **overrides) -> UrecaConfig:
    """A config of 56-pixel tiles, 4 image tokens and 8 mask tokens per tile, hidden size 64."""
    tokenizer = tiny_tokenizer()
    vision = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
        "attention_bias": True,
    }
    text = {
        "model_type": language,
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    settings = {
        "vision_config": vision | overrides.pop("vision", {}),
        "text_config": text | overrides.pop("text", {}),
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "mask_token_id": tokenizer.convert_tokens_to_ids("<MASK_CONTEXT>"),
    }
    return UrecaConfig(**(settings | overrides))


def tiny_model(
    config: UrecaConfig | None = None, seed: int = 0, **overrides
) -> UrecaForConditionalGeneration:
    """A model of random weights, spread widely enough that its outputs differ clearly."""
    torch.manual_seed(seed)
    model = UrecaForConditionalGeneration(config or tiny_config(**overrides)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.02 if "norm" in name and name.endswith("weight") else 0.15
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * scale)
    return model


def tiny_inputs(config: UrecaConfig, tiles: list[int], text: int = 5, seed: int = 0) -> dict:
    """A left-padded batch: sample b has `tiles[b]` image tiles and as many mask tiles.

    Returns `input_ids` and `attention_mask` (B, L), `pixel_values` (sum of tiles, 3, S, S) and
    `mask_values` (sum of tiles, 1, S, S).
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for count in tiles:
        words = torch.randint(0, 200, (text,), generator=generator).tolist()
        image = [config.image_token_id] * (config.image_seq_length * count)
        mask = [config.mask_token_id] * (config.num_mask_tokens * count)
        visual = [*image, *mask] if config.mask_position == "after_image" else [*mask, *image]
        rows.append([*words[:2], *visual, *words[2:]])
    length = max(len(row) for row in rows)
    pad = config.text_config.pad_token_id
    total, side = sum(tiles), config.tile_size
    masks = torch.randint(0, 2, (total, 1, config.mask_size, config.mask_size), generator=generator)
    return {
        "input_ids": torch.tensor([[pad] * (length - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (length - len(r)) + [1] * len(r) for r in rows]),
        "pixel_values": torch.randn(total, 3, side, side, generator=generator),
        "mask_values": masks.float(),
    }
