"""What a model costs: parameters by part, tokens of a photo, memory to run and to train it.

Counted on the meta device, so that the largest model takes no memory and no download. Memory is an
estimate of the parts that matter, not a promise: what a framework keeps besides them varies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from ureca_lib.configuration import UrecaConfig
from ureca_lib.memory import activation_bytes, sequence_bytes
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.tiling import best_grid

# the language model's layers that stage 2 adapts, as published
LORA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

HALF = 2  # bytes of a bfloat16 number
LEARNT = 4 + 4 + 8  # bytes of a learnt parameter: float32 copy, gradient, two moments of AdamW
LOGIT = 2 + 4 + 4  # bytes of a logit in training: bfloat16, float32, gradient
TEXT_TOKENS = 64  # question and chat format
NEW_TOKENS = 128  # a long caption


@dataclass(frozen=True)
class Costs:
    """Parameters, tokens of one photo, and bytes of memory."""

    vision_tower: int
    projector: int
    mask_encoder: int
    language_model: int
    stage_1: int
    stage_2: int
    tiles: int
    image_tokens: int
    mask_tokens: int
    inference_bytes: int
    stage_1_bytes: int
    stage_2_bytes: int

    @property
    def parameters(self) -> int:
        """All parameters, the adapters of stage 2 not counted."""
        return self.vision_tower + self.projector + self.mask_encoder + self.language_model


def model_costs(config: UrecaConfig, lora_rank: int, photo: tuple[int, int]) -> Costs:
    """Costs of a model on one photo and one region of it.

    Memory, with P parameters of which p are learnt, L tokens, V words, D the hidden size:

    - to caption: 2 P + `sequence_bytes` (keys, values) + `activation_bytes` (one layer at work).
    - to train: 2 P + 16 p + L (2 D) for each layer's input, which gradient checkpointing keeps, +
      `activation_bytes` + 10 V L for the logits; the last three for each sample on the device.

    Args:
        config: the model's configuration.
        lora_rank: rank of stage 2's adapters.
        photo: (width, height) in pixels.
    """
    with torch.device("meta"):
        model = UrecaForConditionalGeneration(config)
    parts = {
        "vision_tower": count(model.model.vision_tower),
        "projector": count(model.model.multi_modal_projector),
        "mask_encoder": count(model.model.mask_encoder),
    }
    parts["language_model"] = count(model) - sum(parts.values())
    learnt = {
        "stage_1": parts["mask_encoder"],
        "stage_2": lora_parameters(model.model.language_model, lora_rank),
    }
    tokens = photo_tokens(config, photo)
    prompt = tokens["image_tokens"] + tokens["mask_tokens"] + TEXT_TOKENS
    weights = HALF * sum(parts.values())
    text = config.text_config
    cache = sequence_bytes(text, prompt + NEW_TOKENS, HALF)
    memory = {"inference_bytes": weights + cache + activation_bytes(text, prompt, HALF)}
    for stage, number in learnt.items():
        sample = training_bytes(text, prompt + NEW_TOKENS)
        memory[f"{stage}_bytes"] = weights + LEARNT * number + sample
    return Costs(**parts, **learnt, **tokens, **memory)


def count(module: nn.Module) -> int:
    """Parameters of a module; those that are tied count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def lora_parameters(language_model: nn.Module, rank: int) -> int:
    """Parameters of adapters on every layer of `LORA_LAYERS`: rank * (inputs + outputs) each."""
    adapted = (
        module
        for name, module in language_model.named_modules()
        if name.rsplit(".", 1)[-1] in LORA_LAYERS
    )
    return sum(rank * (layer.in_features + layer.out_features) for layer in adapted)


def photo_tokens(config: UrecaConfig, photo: tuple[int, int]) -> dict[str, Any]:
    """Tiles of a photo of (width, height) pixels, and the tokens of its image and of one mask."""
    bounds = (config.max_tiles, config.min_tiles)
    columns, rows = best_grid(*photo, *bounds, config.tile_size)
    image_tiles = columns * rows + (config.use_thumbnail and columns * rows > 1)
    mask_tiles = 1
    if config.mask_dynamic:
        columns, rows = best_grid(*photo, *bounds, config.mask_size)
        mask_tiles = columns * rows + (config.mask_thumbnail and columns * rows > 1)
    return {
        "tiles": image_tiles,
        "image_tokens": image_tiles * config.image_seq_length,
        "mask_tokens": mask_tiles * config.num_mask_tokens,
    }


def training_bytes(text: PreTrainedConfig, length: int) -> int:
    """Bytes that one sample of `length` tokens takes besides weights, with checkpointing."""
    kept = HALF * length * text.hidden_size * text.num_hidden_layers
    logits = LOGIT * length * text.vocab_size
    return kept + activation_bytes(text, length, HALF) + logits
