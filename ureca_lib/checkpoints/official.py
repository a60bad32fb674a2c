"""The published URECA / InternVL2.5 checkpoint layout, read without its remote code.

The values of config.json come first. Missing ones are inferred from the tensors' shapes, or are the
defaults of the published classes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import CONFIG_MAPPING, InternVLVisionConfig, PreTrainedConfig

from ureca_lib.checkpoints.tensors import (
    CheckpointError,
    CheckpointKeysError,
    check_counts,
    read_json,
    read_tensor,
    reading,
    tensor_index,
)
from ureca_lib.checkpoints.tokenizer import added_tokens
from ureca_lib.configuration import MAX_TILES, UrecaConfig
from ureca_lib.conversation import IMAGE_CONTEXT, MASK_CONTEXT, TURN_END
from ureca_lib.model import UrecaForConditionalGeneration

LORA_SCALE = 2.0  # published training sets alpha to twice the rank

_EMBEDDING = "model.language_model.embed_tokens.weight"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_official(
    path: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    image_token_id: int | None = None,
    mask_token_id: int | None = None,
    progress: bool = False,
) -> UrecaForConditionalGeneration:
    """Load a checkpoint in the layout that the authors published.

    InternLM2, Qwen2 and Llama language models; adapters that stage 2 left unmerged are merged.
    The model is built empty and filled tensor by tensor, so that no second copy of it exists.

    Args:
        path: folder with config.json and safetensors, in one file or sharded.
        dtype: of the parameters; by default the language model's as stored.
        device: where the parameters go.
        image_token_id, mask_token_id: placeholder ids; by default from the tokenizer's files. With
            neither, the first forward pass infers them from the counts of features.
        progress: show a bar.

    Raises:
        CheckpointKeysError: tensors are missing, unexpected or of the wrong shape; lists them all.
        CheckpointError: another layout, unreadable files, or pickles.
    """
    files = OfficialFiles(path)
    tokens, config = added_tokens(files.folder), files.config
    config.image_token_id = tokens.get(IMAGE_CONTEXT) if image_token_id is None else image_token_id
    config.mask_token_id = tokens.get(MASK_CONTEXT) if mask_token_id is None else mask_token_id
    return files.build(config, dtype, torch.device(device), progress)


class OfficialFiles:
    """A folder in the published layout, its weights not read yet.

    Args:
        path: the folder.

    Attributes:
        folder: the same.
        config: as config.json and the tensors' shapes tell it; without placeholder ids.
        has_mask_encoder: false for InternVL's own checkpoints, whose layout this is.

    Raises:
        CheckpointError: another layout, unreadable files, or pickles.
    """

    def __init__(self, path: str | Path):
        self.folder = Path(path)
        self._file = self.folder / "config.json"
        raw = read_json(self._file)
        self._stored = tensor_index(self.folder)
        check_counts(raw, len(self._stored), self._file)
        self._parts = weight_parts(self._stored)
        weights = {name: parts["W"] for name, parts in self._parts.items() if "W" in parts}
        shapes = {name: self._stored[key].shape for name, key in weights.items()}
        with reading(self._file):
            self.config = official_config(raw, shapes, self._file)
        self.has_mask_encoder = any(name.startswith("mask_") for name in shapes)

    def build(
        self,
        config: UrecaConfig,
        dtype: torch.dtype | None,
        device: torch.device,
        progress: bool = False,
        left_empty: str = "",
    ) -> UrecaForConditionalGeneration:
        """Build the model of a configuration and fill it from the files.

        Args:
            config: such as `.config`.
            dtype: of the parameters; None for the language model's as stored.
            device: where they go; on the meta device, names and shapes are compared with the
                headers of the files, and no weight is read.
            progress: show a bar.
            left_empty: parameters whose names start so are not in the files, and stay on the meta
                device; empty for none.

        Raises:
            CheckpointKeysError: see `load_official`.
        """
        with reading(self._file, "no model can be built"), torch.device("meta"):
            model = UrecaForConditionalGeneration(config)
            shapes = {
                name: tuple(parameter.shape)
                for name, parameter in model.named_parameters()  # tied weights appear once
                if not (left_empty and name.startswith(left_empty))
            }
            layout = official_layout(config, shapes, self._parts)
            self._check(layout, shapes)
        if device.type == "meta":
            return model
        if dtype is None:
            (source,) = (s for s, targets in layout.items() if _EMBEDDING in dict(targets))
            dtype = _DTYPES.get(self._stored[self._parts[source]["W"]].dtype, torch.float32)
        for source, targets in tqdm(layout.items(), desc="tensors", disable=not progress):
            weight = self._weight(source, self._read)
            for target, pick in targets:
                value = pick(weight).to(device=device, dtype=dtype, copy=True).contiguous()
                owner, _, leaf = target.rpartition(".")
                model.get_submodule(owner).register_parameter(leaf, nn.Parameter(value))
        # no checkpoint has the rotary tables, and on the meta device they are empty
        language = model.model.language_model
        language.rotary_emb = type(language.rotary_emb)(config=config.text_config).to(device)
        model.tie_weights()
        if (stop := added_tokens(self.folder).get(TURN_END)) is not None:
            model.generation_config.eos_token_id = [stop]
        return model.eval()

    def _check(self, layout: Layout, shapes: Shapes) -> None:
        """Compare names and shapes of the tensors with the parameters, from headers alone."""
        missing, mismatched = [], []
        for source, targets in layout.items():
            parts = self._parts.get(source, {})
            needed = {"W", "A", "B"} if parts.keys() & {"A", "B"} else {"W"}
            if lacking := needed - parts.keys():
                stem = source.removesuffix(".weight")
                missing += [source if part == "W" else f"{stem}.lora_{part}" for part in lacking]
                continue
            stored = self._stored[parts["W"]].shape
            try:
                weight = self._weight(source, self._header)
                found = {target: tuple(pick(weight).shape) for target, pick in targets}
                other = [f"gives {f} for {shapes[t]}" for t, f in found.items() if f != shapes[t]]
            except RuntimeError as error:  # it cannot be cut up, or adapters do not fit
                other = [str(error)]
            mismatched += [f"{source}: {stored}: {reason}" for reason in other]
        surplus = (parts.values() for name, parts in self._parts.items() if name not in layout)
        unexpected = [key for keys in surplus for key in keys]
        if missing or unexpected or mismatched:
            faults = (missing, unexpected, mismatched)
            raise CheckpointKeysError(self.folder, *map(sorted, faults))

    def _weight(self, name: str, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """A weight with its adapters merged, at least in float32: W + scale * B A."""
        tensors = {part: read(key) for part, key in self._parts[name].items()}
        if "A" not in tensors:
            return tensors["W"]
        wide = torch.promote_types(tensors["A"].dtype, torch.float32)
        weight, a, b = (tensors[part].to(wide) for part in "WAB")
        return weight + LORA_SCALE * (b @ a).view_as(weight)

    def _read(self, key: str) -> torch.Tensor:
        return read_tensor(key, self._stored[key])

    def _header(self, key: str) -> torch.Tensor:
        return torch.empty(self._stored[key].shape, device="meta")


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
    dynamic_mask, stated = bool(raw.get("dynamic_mask_size", False)), raw.get("system_message")
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
        num_mask_tokens=raw.get("num_mask_token") or shapes.get("mask_encoder.0.weight", (8,))[0],
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
        # null, as InternVL3's have it, is the template's, too
        system_message=SYSTEM_MESSAGES.get(raw.get("template"), "") if stated is None else stated,
    )


def _number(value: Any, default: int) -> int:
    """Read an integer; the published training script wrote some as lists of one."""
    if isinstance(value, list):
        value = value[0] if value else None
    return default if value is None else int(value)


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
    }
    stated = ("hidden_act", "layer_norm_eps", *found)
    return InternVLVisionConfig(
        **found | {name: given[name] for name in stated if given.get(name) is not None},
        attention_bias=given.get("qkv_bias", f"{layer}.attn.qkv.bias" in shapes),
        use_qk_norm=given.get("qk_normalization", f"{layer}.attn.q_norm.weight" in shapes),
    )


def _text_config(given: dict[str, Any], shapes: Shapes, path: Path) -> PreTrainedConfig:
    architecture = (given.get("architectures") or [""])[0]
    internlm2 = "internlm2" in (architecture + given.get("model_type", "")).lower()
    stated = given.get("model_type") or architecture.removesuffix("ForCausalLM").lower()
    kind = "llama" if internlm2 else stated
    if kind not in CONFIG_MAPPING:
        raise CheckpointError(path, f"language model {architecture or kind!r} is not supported")
    config_class = CONFIG_MAPPING[kind]
    own = {f.name for f in dataclasses.fields(config_class)}
    base = {f.name for f in dataclasses.fields(PreTrainedConfig)}
    wanted = own - base - {"tie_word_embeddings", "pad_token_id"} | {"rope_theta", "rope_scaling"}
    fields = _language_sizes(given, shapes, internlm2)
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


def _language_sizes(given: dict[str, Any], shapes: Shapes, internlm2: bool) -> dict[str, Any]:
    """Sizes of the language model from the shapes of its tensors."""
    model, layer = "language_model.model", "language_model.model.layers.0"
    if internlm2:  # keys and values share a tensor with the queries
        vocab, hidden = shapes.get(f"{model}.tok_embeddings.weight", (103168, 4096))
        inner = shapes.get(f"{layer}.feed_forward.w1.weight", (11008,))[0]
        key_rows = max(0, shapes.get(f"{layer}.attention.wqkv.weight", (0,))[0] - hidden) // 2
    else:
        vocab, hidden = shapes.get(f"{model}.embed_tokens.weight", (32000, 4096))
        inner = shapes.get(f"{layer}.mlp.gate_proj.weight", (11008,))[0]
        key_rows = shapes.get(f"{layer}.self_attn.k_proj.weight", (0,))[0]
    heads = given.get("num_attention_heads") or 32
    head_dim = given.get("head_dim") or hidden // heads
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": count_layers(shapes, f"{model}.layers."),
        "num_attention_heads": heads,
        "num_key_value_heads": key_rows // head_dim or heads,
        "rope_theta": 10000.0,
    } | ({"max_position_embeddings": 2048} if internlm2 else {})


def count_layers(shapes: Shapes, prefix: str) -> int:
    """Count the layers whose tensors' names start so."""
    return len({k[len(prefix) :].split(".", 1)[0] for k in shapes if k.startswith(prefix)})


Pick = Callable[[torch.Tensor], torch.Tensor]
# published name -> our parameters, each with the function that takes it from the published tensor
Layout = dict[str, list[tuple[str, Pick]]]

# parts of our parameters' names, and the published ones
_NAMES = {
    "lm_head.": "language_model.lm_head.",
    "model.language_model.": "language_model.model.",
    "model.multi_modal_projector.layer_norm.": "mlp1.0.",
    "model.multi_modal_projector.linear_1.": "mlp1.1.",
    "model.multi_modal_projector.linear_2.": "mlp1.3.",
    "model.mask_encoder.conv1.": "mask_encoder.0.",
    "model.mask_encoder.conv2.": "mask_encoder.2.",
    "model.mask_encoder.projector.": "mask_linear.",
    "model.vision_tower.": "vision_model.",
    "encoder.layer.": "encoder.layers.",
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
_INTERNLM2 = {
    "lm_head.": "language_model.output.",
    "embed_tokens": "tok_embeddings",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}
_JOINT = re.compile(r"(.*)\b(self_attn|attention)\.([qkv])_proj(\..*)")
_MASK_LAYER = re.compile(r"mask_linear\.(\d+)\.weight")


def official_layout(
    config: UrecaConfig, parameters: Iterable[str], sources: Iterable[str]
) -> Layout:
    """Map published names to our parameters, for every tensor that `config` needs.

    Args:
        config: from `official_config`.
        parameters: names of our model's parameters.
        sources: published names in the files; tells the InternLM2 naming from transformers' own,
            and the numbers of the two layers of a mask projector: an activation between them has
            its own number or none.
    """
    sources, layout = list(sources), {}
    internlm2 = any(".attention.w" in s or ".tok_embeddings." in s for s in sources)
    numbers = sorted(int(match[1]) for match in map(_MASK_LAYER.fullmatch, sources) if match)
    last = numbers[1] if len(numbers) == 2 else 2
    names = _NAMES | (_INTERNLM2 if internlm2 else {}) | {"mask_linear.2.": f"mask_linear.{last}."}
    for name in parameters:
        source, pick = name, _whole
        if (joint := _JOINT.fullmatch(name)) and (internlm2 or joint[2] == "attention"):
            layer, block, which, kind = joint.groups()
            vision = block == "attention"
            source = f"{layer}{'attn.qkv' if vision else 'attention.wqkv'}{kind}"
            pick = partial(_third if vision else _grouped, which=which, text=config.text_config)
        for ours, theirs in names.items():
            source = source.replace(ours, theirs)
        layout.setdefault(source, []).append((name, pick))
    return layout


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _third(tensor: torch.Tensor, which: str, text: PreTrainedConfig) -> torch.Tensor:
    """(3 * D, ...) -> (D, ...): the query, key or value rows of a joint projection."""
    return tensor.chunk(3)["qkv".index(which)]


def _grouped(tensor: torch.Tensor, which: str, text: PreTrainedConfig) -> torch.Tensor:
    """Rows of InternLM2's joint projection: each key-value head follows its own query heads."""
    groups = text.num_key_value_heads
    # (groups * (queries + 2) * head, ...) -> (groups, queries + 2, head, ...)
    heads = tensor.unflatten(0, (groups, text.num_attention_heads // groups + 2, -1))
    part = {"q": heads[:, :-2], "k": heads[:, -2:-1], "v": heads[:, -1:]}[which]
    return part.flatten(0, 2)


_ADAPTER = re.compile(r"(.*)\.lora_([AB])(?:\.[^.]+)?\.weight")
_IGNORED = "rotary_emb.inv_freq"  # a buffer that old checkpoints carry; computed by us


def weight_parts(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Published names of weights, and the keys of each: "W", and of unmerged adapters "A" and "B".

    PEFT's wrapping, which stage 2 leaves on the keys, is removed.
    """
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        name, part = key.replace(".base_model.model.", ".", 1), "W"
        if match := _ADAPTER.fullmatch(name):
            name, part = f"{match[1]}.weight", match[2]
        if not name.endswith(_IGNORED):
            found.setdefault(name.replace(".base_layer.", "."), {})[part] = key
    return found
