"""The published config.json (InternVL2.5 remote code with URECA's fields) as a `UrecaConfig`.

What the file says comes first; what it leaves out is read off the tensors' shapes; what shapes
cannot tell is the published classes' default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, InternVLVisionConfig, PreTrainedConfig

from ureca_lib.checkpoints.errors import CheckpointError
from ureca_lib.configuration import MAX_TILES, UrecaConfig

Shapes = Mapping[str, tuple[int, ...]]

# the system message that the released weights were trained with, by the template's name
SYSTEM_MESSAGES = dict.fromkeys(
    ("internvl2_5", "mug-cap"),
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、"
    "清华大学及多家合作单位联合开发的多模态大语言模型。",
)


def official_config(raw: dict[str, Any], shapes: Shapes, path: Path) -> UrecaConfig:
    """Translate a published configuration.

    Args:
        raw: the content of config.json.
        shapes: shape of each tensor by its published name, adapters left out.
        path: the file, for messages.

    Raises:
        CheckpointError: another layout, or a language model that transformers does not have.
    """
    if "llm_config" not in raw or "vision_config" not in raw:
        kind = raw.get("model_type", "unknown")
        raise CheckpointError(
            path, f"no llm_config and vision_config: model type {kind!r}, not the published layout"
        )
    vision = _vision_config(raw, shapes)
    text = _text_config(raw["llm_config"], shapes, path)
    dynamic_mask = bool(raw.get("dynamic_mask_size", False))
    thumbnail = bool(raw.get("use_thumbnail", False))
    trained = _number(raw.get("max_dynamic_patch"), 6) if raw.get("dynamic_image_size") else 1
    return UrecaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=None,
        mask_token_id=None,
        downsample_ratio=float(raw.get("downsample_ratio", 0.5)),
        vision_feature_layer=raw.get("select_layer", -1),
        pixel_shuffle=raw.get("ps_version", "v1"),
        tie_word_embeddings=text.tie_word_embeddings,
        num_mask_tokens=raw.get("num_mask_token") or _mask_tokens(shapes),
        mask_projector="linear" if "mask_linear.weight" in shapes else "mlp",
        mask_position="after_image",
        mask_scale=255 if dynamic_mask else 1,
        mask_dynamic=dynamic_mask,
        mask_thumbnail=thumbnail and dynamic_mask,
        mask_overshoot="wrap",
        tile_size=raw.get("force_image_size") or vision.image_size[0],
        use_thumbnail=thumbnail,
        min_tiles=min(_number(raw.get("min_dynamic_patch"), 1), trained),
        # the published demo takes up to 12 tiles of an image, whatever training took
        max_tiles=max(MAX_TILES, trained) if trained > 1 else 1,
        max_tiles_train=trained,
        system_message=_system_message(raw),
    )


def _system_message(raw: dict[str, Any]) -> str:
    """What config.json says; the template's where it says nothing, or null as InternVL3's do."""
    stated = raw.get("system_message")
    return SYSTEM_MESSAGES.get(raw.get("template"), "") if stated is None else stated


def _number(value: Any, default: int) -> int:
    """An integer; the published training script wrote some as lists of one."""
    if isinstance(value, list):
        value = value[0] if value else None
    return default if value is None else int(value)


def _mask_tokens(shapes: Shapes) -> int:
    return shapes.get("mask_encoder.0.weight", (8,))[0]


def _vision_config(raw: dict[str, Any], shapes: Shapes) -> InternVLVisionConfig:
    given, layer = raw["vision_config"], "vision_model.encoder.layers.0"
    patch = shapes.get("vision_model.embeddings.patch_embedding.weight", (0, 3, 14, 14))
    positions = shapes.get("vision_model.embeddings.position_embedding", (1, 257, 0))[1]
    found = {
        "hidden_size": shapes.get("vision_model.embeddings.class_embedding", (1, 1, 3200))[-1],
        "intermediate_size": shapes.get(f"{layer}.mlp.fc1.weight", (12800,))[0],
        "num_hidden_layers": count_layers(shapes, "vision_model.encoder.layers."),
        "num_attention_heads": 25,
        "num_channels": patch[1],
        "patch_size": patch[-1],
        "image_size": int((positions - 1) ** 0.5) * patch[-1],
        "norm_type": "layer_norm" if f"{layer}.norm1.bias" in shapes else "rms_norm",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
    }
    fields = {name: given[name] if given.get(name) is not None else found[name] for name in found}
    return InternVLVisionConfig(
        **fields,
        attention_bias=given.get("qkv_bias", f"{layer}.attn.qkv.bias" in shapes),
        use_qk_norm=given.get("qk_normalization", f"{layer}.attn.q_norm.weight" in shapes),
        hidden_dropout_prob=given.get("dropout", 0.0),
        projection_dropout=given.get("dropout", 0.0),
        layer_scale_init_value=given.get("initializer_factor", 0.1),
    )


def _text_config(given: dict[str, Any], shapes: Shapes, path: Path) -> PreTrainedConfig:
    architecture = (given.get("architectures") or [""])[0]
    internlm2 = "internlm2" in (architecture + given.get("model_type", "")).lower()
    kind = "llama" if internlm2 else given.get("model_type") or _model_type(architecture)
    if kind not in CONFIG_MAPPING:
        raise CheckpointError(path, f"language model {architecture or kind!r} is not supported")
    config_class = CONFIG_MAPPING[kind]
    own = {f.name for f in dataclasses.fields(config_class)}
    base = {f.name for f in dataclasses.fields(PreTrainedConfig)}
    wanted = own - base - {"tie_word_embeddings", "pad_token_id"} | {"rope_theta", "rope_scaling"}
    fields = (_internlm2_shapes if internlm2 else _native_shapes)(given, shapes)
    fields |= {k: v for k, v in given.items() if k in wanted and v is not None}
    if internlm2:
        fields["attention_bias"] = bool(
            given.get("bias", "language_model.model.layers.0.attention.wqkv.bias" in shapes)
        )
    pad = given.get("pad_token_id")
    if pad is not None and 0 <= pad < fields["vocab_size"]:  # an embedding takes no other
        fields["pad_token_id"] = pad
    head = "language_model.output.weight" if internlm2 else "language_model.lm_head.weight"
    tied = head not in shapes and bool(given.get("tie_word_embeddings", False))
    return config_class(**fields, tie_word_embeddings=tied)


def _model_type(architecture: str) -> str:
    return architecture.removesuffix("ForCausalLM").lower()


def _native_shapes(given: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    layer = "language_model.model.layers.0"
    vocab, hidden = shapes.get("language_model.model.embed_tokens.weight", (32000, 4096))
    return _language_sizes(
        given,
        shapes,
        vocab=vocab,
        hidden=hidden,
        inner=shapes.get(f"{layer}.mlp.gate_proj.weight", (11008,))[0],
        key_rows=shapes.get(f"{layer}.self_attn.k_proj.weight", (0,))[0],
    )


def _internlm2_shapes(given: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    layer = "language_model.model.layers.0"
    vocab, hidden = shapes.get("language_model.model.tok_embeddings.weight", (103168, 4096))
    rows = shapes.get(f"{layer}.attention.wqkv.weight", (0,))[0]
    sizes = _language_sizes(
        given,
        shapes,
        vocab=vocab,
        hidden=hidden,
        inner=shapes.get(f"{layer}.feed_forward.w1.weight", (11008,))[0],
        key_rows=max(0, rows - hidden) // 2,
    )
    return {"max_position_embeddings": 2048} | sizes


def _language_sizes(
    given: dict[str, Any], shapes: Shapes, vocab: int, hidden: int, inner: int, key_rows: int
) -> dict[str, Any]:
    heads = given.get("num_attention_heads") or 32
    head_dim = given.get("head_dim") or hidden // heads
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": count_layers(shapes, "language_model.model.layers."),
        "num_attention_heads": heads,
        "num_key_value_heads": key_rows // head_dim or heads,
        "rope_theta": 10000.0,
    }


def count_layers(shapes: Shapes, prefix: str) -> int:
    """Layers under a prefix: one more than the highest number that follows it."""
    numbers = [int(k[len(prefix) :].split(".", 1)[0]) for k in shapes if k.startswith(prefix)]
    return max(numbers, default=-1) + 1
