"""Presets: the sizes that a URECA model comes in, and what each costs.

The paper builds on InternVL2.5 (App. A), so the sizes are those of its published configurations.
InternLM2 is a Llama to transformers, its fused query, key and value weights taken apart. A preset
is a configuration and nothing else: the code path is one for all of them. Costs are counted on the
meta device, so that the largest model takes no memory and no download; memory is an estimate.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedConfig

from ureca_lib.configuration import UrecaConfig
from ureca_lib.decoding import activation_bytes, sequence_bytes
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.tiling import best_grid

# the language model's layers that stage 2 adapts, as published
LORA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

HALF = 2  # bytes of a bfloat16 number
TRAINABLE = 4 + 4 + 8  # bytes of a trainable parameter: float32 copy, gradient, AdamW's moments
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
    parameters: int  # of these four; the adapters of stage 2 not counted
    stage_1: int
    stage_2: int
    tiles: int
    image_tokens: int
    mask_tokens: int
    inference_bytes: int
    stage_1_bytes: int
    stage_2_bytes: int


def model_costs(config: UrecaConfig, lora_rank: int, photo: tuple[int, int]) -> Costs:
    """Costs of a model on one photo and one region of it.

    Memory, with P parameters of which p are trained, L tokens, V words, D the hidden size:

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
    total = count(model)
    parts["language_model"] = total - sum(parts.values())
    parts["parameters"] = total
    trained = {
        "stage_1": parts["mask_encoder"],
        "stage_2": lora_parameters(model.model.language_model, lora_rank),
    }
    tokens = photo_tokens(config, photo)
    prompt = tokens["image_tokens"] + tokens["mask_tokens"] + TEXT_TOKENS
    weights = HALF * total
    text = config.text_config
    cache = sequence_bytes(text, prompt + NEW_TOKENS, HALF)
    memory = {"inference_bytes": weights + cache + activation_bytes(text, prompt, HALF)}
    for stage, number in trained.items():
        sample = training_bytes(text, prompt + NEW_TOKENS)
        memory[f"{stage}_bytes"] = weights + TRAINABLE * number + sample
    return Costs(**parts, **trained, **tokens, **memory)


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


SA1B_PHOTO = (2250, 1500)  # width and height of a typical SA-1B photo in pixels
PATCH_SIZE = 14  # InternViT's, in pixels


class Layers(NamedTuple):
    """Size of a transformer: width, layers, attention heads, width of the feed-forward layers."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


INTERNVIT_300M = Layers(1024, 24, 16, 4096)  # InternViT-300M-448px-V2_5


@dataclass(frozen=True)
class Preset:
    """Size of a URECA model, and how it is adapted.

    Attributes:
        name: as `--preset` takes it.
        backbone: the checkpoint that training starts from.
        language: the language model, with its class in transformers ("qwen2" or "llama"), its key
            and value heads, the epsilon of its norms, the base of its rotary positions and its
            longest input in tokens.
        vocab_size: its embeddings, with the three mask tokens after the backbone's own.
        image_token_id: id of <IMG_CONTEXT>.
        lora_rank: rank of stage 2's adapters.
        vision: the vision tower.
        tile_size: side of a tile in pixels.
        tie_word_embeddings: whether input and output embeddings are one.
    """

    name: str
    backbone: str
    language: Layers
    model_type: Literal["qwen2", "llama"]
    num_key_value_heads: int
    vocab_size: int
    image_token_id: int
    lora_rank: int
    vision: Layers = INTERNVIT_300M
    tile_size: int = 448
    tie_word_embeddings: bool = False
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    max_position_embeddings: int = 32768

    @property
    def lora_alpha(self) -> int:
        """Scale of the adapters: twice their rank, as published."""
        return 2 * self.lora_rank

    @property
    def mask_token_id(self) -> int:
        """Id of <MASK_CONTEXT>: published training adds it first, then <mask> and </mask>."""
        return self.vocab_size - 3


# ranks are the published ones: 16 for 1B and 4B, 128 for 8B (at 4 to 16 mask tokens); nobody has
# published a 2B, which takes its siblings' 16
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="tiny",
            backbone="none: trained from scratch on procedural scenes",
            language=Layers(160, 4, 4, 480),
            model_type="qwen2",
            num_key_value_heads=4,
            vocab_size=452,  # see ureca_lib.train.tiny_base.model
            image_token_id=448,
            lora_rank=16,
            vision=Layers(160, 4, 4, 480),
            tile_size=112,
            tie_word_embeddings=True,
            rope_theta=1e4,
            max_position_embeddings=2048,
        ),
        Preset(
            name="1b",
            backbone="InternVL2.5-1B (Qwen2.5-0.5B)",
            language=Layers(896, 24, 14, 4864),
            model_type="qwen2",
            num_key_value_heads=2,
            vocab_size=151674 + 3,
            image_token_id=151667,
            lora_rank=16,
        ),
        Preset(
            name="2b",
            backbone="InternVL2.5-2B (InternLM2.5-1.8B)",
            language=Layers(2048, 24, 16, 8192),
            model_type="llama",
            num_key_value_heads=8,
            vocab_size=92553 + 3,
            image_token_id=92546,
            lora_rank=16,
            rms_norm_eps=1e-5,
        ),
        Preset(
            name="4b",
            backbone="InternVL2.5-4B (Qwen2.5-3B)",
            language=Layers(2048, 36, 16, 11008),
            model_type="qwen2",
            num_key_value_heads=2,
            vocab_size=151674 + 3,
            image_token_id=151667,
            lora_rank=16,
        ),
        Preset(
            name="8b",
            backbone="InternVL2.5-8B (InternLM2.5-7B)",
            language=Layers(4096, 32, 32, 14336),
            model_type="llama",
            num_key_value_heads=8,
            vocab_size=92553 + 3,
            image_token_id=92546,
            lora_rank=128,
            rms_norm_eps=1e-5,
        ),
    )
}


def get_preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ValueError: there is none of that name; lists those there are.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def preset_config(name: str, vocab_size: int | None = None, **settings: Any) -> UrecaConfig:
    """The model configuration of a preset: the paper's settings on the preset's sizes.

    Args:
        name: "tiny", "1b", "2b", "4b" or "8b".
        vocab_size: of a tokenizer of one's own, which ends in the six placeholder tokens in the
            order of `ureca_lib.conversation.VISUAL_TOKENS`; by default the preset's.
        settings: fields of `UrecaConfig`, such as `num_mask_tokens` or `mask_position`.

    Raises:
        ValueError: no such preset, or settings that do not fit; TypeError: an unknown setting.
    """
    preset = get_preset(name)
    if unknown := sorted(set(settings) - set(UrecaConfig().to_dict())):
        raise TypeError(f"UrecaConfig has no field {', '.join(unknown)}")
    shared = ("model_type", "num_key_value_heads", "max_position_embeddings")
    text = {name: getattr(preset, name) for name in (*shared, "rms_norm_eps", "rope_theta")}
    text |= preset.language._asdict() | {"vocab_size": vocab_size or preset.vocab_size}
    size = {"image_size": preset.tile_size, "patch_size": PATCH_SIZE, "attention_bias": True}
    own = {
        "vision_config": preset.vision._asdict() | size,
        "text_config": text,
        "image_token_id": preset.image_token_id if vocab_size is None else vocab_size - 4,
        "mask_token_id": text["vocab_size"] - 3,
        "tie_word_embeddings": preset.tie_word_embeddings,
    }
    return UrecaConfig(**(own | settings))


@cache
def describe_preset(name: str) -> Costs:
    """What a preset costs: parameters, tokens of an SA-1B photo, estimates of memory.

    The photo is one of 2250 x 1500 pixels, for a preset of smaller tiles reduced as they are.

    Raises:
        ValueError: no such preset.
    """
    preset = get_preset(name)
    config = preset_config(name)
    photo = tuple(round(side * preset.tile_size / 448) for side in SA1B_PHOTO)
    return model_costs(config, preset.lora_rank, photo)


def presets_text() -> str:
    """The presets side by side with their costs, for a terminal."""
    columns = [asdict(preset) | vars(describe_preset(preset.name)) for preset in PRESETS.values()]
    lines = [("", [column["name"] for column in columns]), ("-" * 73, [])]
    lines += [(title, [show(column[key]) for column in columns]) for title, key, show in _ROWS]
    table = [f"{title:33}" + "".join(f"{cell:>8}" for cell in cells) for title, cells in lines]
    backbones = [f"{preset.name:>4}: {preset.backbone}" for preset in PRESETS.values()]
    return "\n".join([*table, "", *backbones, "", *_NOTES])


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _gib(number: int) -> str:
    return f"{number / 2**30:.2g}" if number < 10 * 2**30 else f"{number / 2**30:.0f}"


_ROWS = (
    ("parameters", "parameters", _count),
    ("  vision tower", "vision_tower", _count),
    ("  projector", "projector", _count),
    ("  mask encoder", "mask_encoder", _count),
    ("  language model", "language_model", _count),
    ("trained in stage 1 (mask encoder)", "stage_1", _count),
    ("trained in stage 2 (LoRA)", "stage_2", _count),
    ("  of rank", "lora_rank", str),
    ("tiles of a photo, with thumbnail", "tiles", str),
    ("  image tokens", "image_tokens", str),
    ("  mask tokens of a region", "mask_tokens", str),
    ("memory, GiB: to caption", "inference_bytes", _gib),
    ("  to train, stage 1", "stage_1_bytes", _gib),
    ("  to train, stage 2", "stage_2_bytes", _gib),
)

_NOTES = (
    "A photo is 2250 x 1500 pixels, as SA-1B's are; for tiny, reduced with its tiles.",
    "Memory is an estimate, in bfloat16. To caption: weights, keys and values, working memory of",
    "one region. To train: weights, 16 bytes per trainable parameter, and one sample with gradient",
    "checkpointing.",
)
