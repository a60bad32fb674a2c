"""Writes a model in the published checkpoint layout, the other way round from the loader."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ureca_lib.model import UrecaForConditionalGeneration

_QWEN2 = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_INTERNLM2 = ("attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2")


def official_tensors(
    model: UrecaForConditionalGeneration, internlm2: bool, projector_step: int = 2
) -> dict[str, torch.Tensor]:
    """The model's weights under their published names.

    `projector_step` is the number of the second layer of a two-layer mask projector.
    """
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    config, out = model.config, {}

    def take(name: str) -> torch.Tensor:
        return weights.pop(f"model.{name}")

    for ours, theirs in (
        ("cls_token", "class_embedding"),
        ("position_embeddings", "position_embedding"),
        ("patch_embeddings.projection.weight", "patch_embedding.weight"),
        ("patch_embeddings.projection.bias", "patch_embedding.bias"),
    ):
        out[f"vision_model.embeddings.{theirs}"] = take(f"vision_tower.embeddings.{ours}")
    for i in range(config.vision_config.num_hidden_layers):
        ours, theirs = f"vision_tower.encoder.layer.{i}", f"vision_model.encoder.layers.{i}"
        kinds = ["weight", "bias"] if config.vision_config.attention_bias else ["weight"]
        for kind in kinds:
            parts = [take(f"{ours}.attention.{p}_proj.{kind}") for p in "qkv"]
            out[f"{theirs}.attn.qkv.{kind}"] = torch.cat(parts)
        out[f"{theirs}.ls1"] = take(f"{ours}.lambda_1")
        out[f"{theirs}.ls2"] = take(f"{ours}.lambda_2")
        for one, two in (
            ("attention.projection_layer", "attn.proj"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
        ):
            for kind in ("weight", "bias"):
                if f"model.{ours}.{one}.{kind}" in weights:
                    out[f"{theirs}.{two}.{kind}"] = take(f"{ours}.{one}.{kind}")
        if config.vision_config.use_qk_norm:
            for which in "qk":
                norm = f"{which}_norm.weight"
                out[f"{theirs}.attn.{norm}"] = take(f"{ours}.attention.{norm}")
    for number, layer in ((0, "layer_norm"), (1, "linear_1"), (3, "linear_2")):
        for kind in ("weight", "bias"):
            out[f"mlp1.{number}.{kind}"] = take(f"multi_modal_projector.{layer}.{kind}")
    for kind in ("weight", "bias"):
        out[f"mask_encoder.0.{kind}"] = take(f"mask_encoder.conv1.{kind}")
        out[f"mask_encoder.2.{kind}"] = take(f"mask_encoder.conv2.{kind}")
        if config.mask_projector == "linear":
            out[f"mask_linear.{kind}"] = take(f"mask_encoder.projector.{kind}")
        else:
            out[f"mask_linear.0.{kind}"] = take(f"mask_encoder.projector.0.{kind}")
            out[f"mask_linear.{projector_step}.{kind}"] = take(f"mask_encoder.projector.2.{kind}")
    head = weights.pop("lm_head.weight")
    language = {
        name.removeprefix("model.language_model."): tensor for name, tensor in weights.items()
    }
    if internlm2:
        language = _internlm2(language, config.text_config)
    out |= {f"language_model.model.{name}": tensor for name, tensor in language.items()}
    if not config.tie_word_embeddings:
        out[f"language_model.{'output' if internlm2 else 'lm_head'}.weight"] = head
    return out


def _internlm2(language: dict[str, torch.Tensor], text) -> dict[str, torch.Tensor]:
    out = {"tok_embeddings.weight": language["embed_tokens.weight"]}
    out["norm.weight"] = language["norm.weight"]
    size = text.hidden_size // text.num_attention_heads
    share = text.num_attention_heads // text.num_key_value_heads
    for i in range(text.num_hidden_layers):
        layer = f"layers.{i}"
        for kind in ("weight", "bias"):
            if f"{layer}.self_attn.q_proj.{kind}" not in language:
                continue
            q, k, v = (language[f"{layer}.self_attn.{p}_proj.{kind}"].split(size) for p in "qkv")
            rows = []
            for group in range(text.num_key_value_heads):
                rows += [*q[group * share : (group + 1) * share], k[group], v[group]]
            out[f"{layer}.attention.wqkv.{kind}"] = torch.cat(rows)
            out[f"{layer}.attention.wo.{kind}"] = language[f"{layer}.self_attn.o_proj.{kind}"]
        for ours, theirs in (("gate", "w1"), ("down", "w2"), ("up", "w3")):
            weight = language[f"{layer}.mlp.{ours}_proj.weight"]
            out[f"{layer}.feed_forward.{theirs}.weight"] = weight
        out[f"{layer}.attention_norm.weight"] = language[f"{layer}.input_layernorm.weight"]
        out[f"{layer}.ffn_norm.weight"] = language[f"{layer}.post_attention_layernorm.weight"]
    return out


def with_adapters(
    tensors: dict[str, torch.Tensor], rank: int, internlm2: bool, scale: float = 2.0
) -> dict[str, torch.Tensor]:
    """The same model as stage 2 leaves it: base weights and low-rank factors apart, PEFT's names.

    The base is what is left of each weight when `scale` times the factors' product is taken off.
    """
    generator = torch.Generator().manual_seed(1)
    adapted = _INTERNLM2 if internlm2 else _QWEN2
    out = {}
    for name, tensor in tensors.items():
        wrapped = name.replace("language_model.", "language_model.base_model.model.", 1)
        module, _, kind = wrapped.rpartition(".")
        if not name.startswith("language_model.") or not module.endswith(adapted):
            out[wrapped] = tensor
            continue
        out[f"{module}.base_layer.{kind}"] = tensor
        if kind == "weight":
            a = torch.randn(rank, tensor.shape[1], generator=generator) * 0.1
            b = torch.randn(tensor.shape[0], rank, generator=generator) * 0.1
            out[f"{module}.lora_A.default.weight"] = a
            out[f"{module}.lora_B.default.weight"] = b
            out[f"{module}.base_layer.{kind}"] = tensor - scale * (b @ a)
    return out


def official_json(model: UrecaForConditionalGeneration, internlm2: bool, **top) -> dict:
    """The published config.json of a model; `top` has what its own config cannot say."""
    config, vision, text = model.config, model.config.vision_config, model.config.text_config
    llm = {
        "architectures": ["InternLM2ForCausalLM" if internlm2 else "Qwen2ForCausalLM"],
        "model_type": "internlm2" if internlm2 else "qwen2",
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "max_position_embeddings": text.max_position_embeddings,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_parameters["rope_theta"],
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": "float32",
        "a_field_nobody_knows": {"x": 1},
    }
    if internlm2:
        llm["bias"] = text.attention_bias
    return {
        "model_type": "internvl_chat",
        "vision_config": {
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "patch_size": vision.patch_size[0],
            "image_size": vision.image_size[0],
            "norm_type": vision.norm_type,
            "qkv_bias": vision.attention_bias,
            "qk_normalization": vision.use_qk_norm,
            "layer_norm_eps": vision.layer_norm_eps,
        },
        "llm_config": llm,
        "force_image_size": config.tile_size,
        "ps_version": "v2",
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "dynamic_mask_size": True,
        "num_mask_token": config.num_mask_tokens,
        "template": "internvl2_5",
    } | top


def write_checkpoint(
    folder: Path, config: dict, tensors: dict[str, torch.Tensor], shards: int = 1
) -> Path:
    """Write config.json and the tensors, in one file or in shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i::shards]  # adapters and their base end up in different files
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
