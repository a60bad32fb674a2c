"""Where each tensor of the published layout goes in `UrecaForConditionalGeneration`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import torch

from ureca_lib.configuration import UrecaConfig

Pick = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Target:
    """A parameter of ours and how to take it from the published tensor."""

    name: str
    pick: Pick


Layout = dict[str, list[Target]]


def official_layout(
    config: UrecaConfig, parameters: Iterable[str], sources: Iterable[str]
) -> Layout:
    """Published name -> our parameters, for every tensor that `config` asks for.

    Args:
        config: from `official_config`.
        parameters: names of our model's parameters.
        sources: published names in the files, adapters left out; tells the InternLM2 naming from
            transformers' own, and the numbering of a two-layer mask projector.
    """
    sources = list(sources)
    internlm2 = any(
        ".attention.w" in s or s == "language_model.model.tok_embeddings.weight" for s in sources
    )
    layout: Layout = {}
    for name in parameters:
        source, pick = _source(name, config, internlm2, _projector_numbers(sources))
        layout.setdefault(source, []).append(Target(name, pick))
    return layout


def _source(
    name: str, config: UrecaConfig, internlm2: bool, projector: tuple[int, int]
) -> tuple[str, Pick]:
    if name == "lm_head.weight":
        return f"language_model.{'output' if internlm2 else 'lm_head'}.weight", _whole
    part, rest = name.removeprefix("model.").split(".", 1)
    if part == "language_model":
        source, pick = _internlm2(rest, config) if internlm2 else (rest, _whole)
        return f"language_model.model.{source}", pick
    if part == "vision_tower":
        source, pick = _vision(rest)
        return f"vision_model.{source}", pick
    if part == "multi_modal_projector":
        layer = {"layer_norm": 0, "linear_1": 1, "linear_2": 3}
        head, tail = rest.split(".", 1)
        return f"mlp1.{layer[head]}.{tail}", _whole
    return _mask_encoder(rest, projector), _whole


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _third(tensor: torch.Tensor, index: int) -> torch.Tensor:
    """(3 * D, ...) -> (D, ...): the query, key or value rows of a joint projection."""
    return tensor.chunk(3)[index]


_VISION = {
    "embeddings.cls_token": "embeddings.class_embedding",
    "embeddings.position_embeddings": "embeddings.position_embedding",
    "embeddings.patch_embeddings.projection": "embeddings.patch_embedding",
    "attention.projection_layer": "attn.proj",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
}


def _vision(name: str) -> tuple[str, Pick]:
    name = name.replace("encoder.layer.", "encoder.layers.")
    if joint := re.fullmatch(r"(.*)attention\.([qkv])_proj\.(weight|bias)", name):
        layer, which, kind = joint.groups()
        return f"{layer}attn.qkv.{kind}", partial(_third, index="qkv".index(which))
    for ours, theirs in _VISION.items():
        name = name.replace(ours, theirs)
    return name, _whole


_INTERNLM2 = {
    "embed_tokens": "tok_embeddings",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}


def _internlm2(name: str, config: UrecaConfig) -> tuple[str, Pick]:
    if joint := re.fullmatch(r"(.*)self_attn\.([qkv])_proj\.(weight|bias)", name):
        layer, which, kind = joint.groups()
        text = config.text_config
        pick = partial(
            _grouped,
            which=which,
            groups=text.num_key_value_heads,
            queries=text.num_attention_heads // text.num_key_value_heads,
        )
        return f"{layer}attention.wqkv.{kind}", pick
    for ours, theirs in _INTERNLM2.items():
        name = name.replace(ours, theirs)
    return name, _whole


def _grouped(tensor: torch.Tensor, which: str, groups: int, queries: int) -> torch.Tensor:
    """Rows of InternLM2's joint projection: each key-value head follows its own query heads."""
    # (groups * (queries + 2) * head, ...) -> (groups, queries + 2, head, ...)
    heads = tensor.unflatten(0, (groups, queries + 2, -1))
    part = {"q": heads[:, :queries], "k": heads[:, -2:-1], "v": heads[:, -1:]}[which]
    return part.flatten(0, 2)


def _mask_encoder(name: str, projector: tuple[int, int]) -> str:
    conv = {"conv1": "mask_encoder.0", "conv2": "mask_encoder.2", "projector": "mask_linear"}
    head, tail = name.split(".", 1)
    if numbered := re.fullmatch(r"(\d+)\.(weight|bias)", tail):
        first = numbered.group(1) == "0"
        tail = f"{projector[0 if first else 1]}.{numbered.group(2)}"
    return f"{conv[head]}.{tail}"


def _projector_numbers(sources: list[str]) -> tuple[int, int]:
    """The two linear layers' numbers; an activation in between takes one of its own or none."""
    found = (re.fullmatch(r"mask_linear\.(\d+)\.weight", source) for source in sources)
    numbers = sorted({int(match.group(1)) for match in found if match})
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 2)


@dataclass
class OfficialNames:
    """The raw keys of a published checkpoint, sorted out.

    Attributes:
        plain: published name -> raw key, the wrapping of adapters taken off.
        adapters: published name -> raw keys of its low-rank factors, "A" and "B".
    """

    plain: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, dict[str, str]] = field(default_factory=dict)


_ADAPTER = re.compile(r"(.*)\.lora_([AB])(?:\.[^.]+)?\.weight")
_IGNORED = ("rotary_emb.inv_freq",)  # a buffer that old checkpoints carry; computed by us


def sort_names(raw_keys: Iterable[str]) -> OfficialNames:
    """Take PEFT's wrapping off the keys, as stage 2 leaves it on them unmerged."""
    names = OfficialNames()
    for raw in raw_keys:
        if raw.endswith(_IGNORED):
            continue
        name = raw.replace(".base_model.model.", ".", 1)
        if match := _ADAPTER.fullmatch(name):
            names.adapters.setdefault(f"{match.group(1)}.weight", {})[match.group(2)] = raw
        else:
            names.plain[name.replace(".base_layer.", ".")] = raw
    return names
