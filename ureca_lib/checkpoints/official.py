"""The published URECA / InternVL2.5 checkpoint layout, read without its remote code.

The values of config.json come first. Missing ones are inferred from the tensors' shapes, or are the
defaults of the published classes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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
    StoredTensor,
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
    if image_token_id is None:
        image_token_id = tokens.get(IMAGE_CONTEXT)
    if mask_token_id is None:
        mask_token_id = tokens.get(MASK_CONTEXT)
    config.image_token_id, config.mask_token_id = image_token_id, mask_token_id
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
        self._names = sort_names(self._stored)
        shapes = {name: self._stored[key].shape for name, key in self._names.plain.items()}
        with reading(self._file):
            self.config = official_config(raw, shapes, self._file)
        self.has_mask_encoder = any(name.startswith("mask_") for name in shapes)

    def check(self, left_empty: str = "") -> None:
        """Compare names and shapes of the tensors with the configuration, without reading weights.

        Args:
            left_empty: see `build`.

        Raises:
            CheckpointKeysError: see `load_official`.
        """
        self._empty(self.config, left_empty)

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
            device: where they go.
            progress: show a bar.
            left_empty: parameters whose names start so are not in the files, and stay on the meta
                device; empty for none.

        Raises:
            CheckpointKeysError: see `load_official`.
        """
        model, layout = self._empty(config, left_empty)
        dtype = dtype or _stored_dtype(layout, self._names, self._stored)
        _fill(model, layout, self._names, self._stored, dtype, device, progress)
        _renew_rotary(model, device)
        model.tie_weights()
        if (stop := added_tokens(self.folder).get(TURN_END)) is not None:
            model.generation_config.eos_token_id = [stop]
        return model.eval()

    def _empty(
        self, config: UrecaConfig, left_empty: str
    ) -> tuple[UrecaForConditionalGeneration, Layout]:
        """Build the model without data and compare it with the headers of the files."""
        with reading(self._file, "no model can be built"), torch.device("meta"):
            model = UrecaForConditionalGeneration(config)
            layout = _checked_layout(model, self._names, self._stored, self.folder, left_empty)
        return model, layout


def _checked_layout(
    model: nn.Module,
    names: OfficialNames,
    stored: dict[str, StoredTensor],
    folder: Path,
    left_empty: str,
) -> Layout:
    # tied weights appear once
    parameters = {
        name: value
        for name, value in model.named_parameters()
        if not (left_empty and name.startswith(left_empty))
    }
    layout = official_layout(model.config, parameters, names.plain)
    missing = [name for name in layout if name not in names.plain]
    unexpected = [raw for name, raw in names.plain.items() if name not in layout]
    mismatched = []
    for name in layout.keys() & names.plain.keys():
        shape = stored[names.plain[name]].shape
        for target, pick in layout[name]:
            wanted = tuple(parameters[target].shape)
            if (got := _picked_shape(pick, shape)) != wanted:
                mismatched.append(f"{name}: {shape} gives {got} where {wanted} is needed")
    for name, pair in names.adapters.items():
        if name not in layout:
            unexpected += pair.values()
        elif lacking := {"A", "B"} - pair.keys():
            missing += [f"{name.removesuffix('.weight')}.lora_{which}" for which in lacking]
        elif name in names.plain:
            a, b = (stored[pair[which]].shape for which in "AB")
            if (b[0], a[1]) != (shape := stored[names.plain[name]].shape) or a[0] != b[1]:
                mismatched.append(f"{name}: adapters {b} @ {a} do not fit {shape}")
    if missing or unexpected or mismatched:
        raise CheckpointKeysError(folder, sorted(missing), sorted(unexpected), sorted(mismatched))
    return layout


def _picked_shape(pick, shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return tuple(pick(torch.empty(shape, device="meta")).shape)
    except RuntimeError:
        return ()


def _stored_dtype(
    layout: Layout, names: OfficialNames, stored: dict[str, StoredTensor]
) -> torch.dtype:
    embedding = "model.language_model.embed_tokens.weight"
    source = next(s for s, targets in layout.items() if any(t == embedding for t, _ in targets))
    return _DTYPES.get(stored[names.plain[source]].dtype, torch.float32)


def _fill(
    model: nn.Module,
    layout: Layout,
    names: OfficialNames,
    stored: dict[str, StoredTensor],
    dtype: torch.dtype,
    device: torch.device,
    progress: bool,
) -> None:
    for name, raw in tqdm(names.plain.items(), desc="tensors", disable=not progress):
        tensor = read_tensor(raw, stored[raw])
        if pair := names.adapters.get(name):
            factors = {which: read_tensor(key, stored[key]) for which, key in pair.items()}
            tensor = _merged(tensor, factors["A"], factors["B"])
        for target, pick in layout[name]:
            value = pick(tensor).to(device=device, dtype=dtype, copy=True)
            _assign(model, target, value.contiguous())


def _merged(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """W + scale * B A, at least in float32."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return weight.to(wide) + LORA_SCALE * (b.to(wide) @ a.to(wide))


def _assign(model: nn.Module, name: str, value: torch.Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner).register_parameter(leaf, nn.Parameter(value))


def _renew_rotary(model: UrecaForConditionalGeneration, device: torch.device) -> None:
    """Compute the rotary tables: no checkpoint has them, and on the meta device they are empty."""
    language = model.model.language_model
    language.rotary_emb = type(language.rotary_emb)(config=model.config.text_config).to(device)


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
        system_message=_system_message(raw),
    )


def _system_message(raw: dict[str, Any]) -> str:
    """The message of config.json; if it has none, or null as InternVL3's do, the template's."""
    stated = raw.get("system_message")
    return SYSTEM_MESSAGES.get(raw.get("template"), "") if stated is None else stated


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


def official_layout(
    config: UrecaConfig, parameters: Iterable[str], sources: Iterable[str]
) -> Layout:
    """Map published names to our parameters, for every tensor that `config` needs.

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
        layout.setdefault(source, []).append((name, pick))
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
    """Numbers of the two linear layers; an activation between them has its own number or none."""
    found = (re.fullmatch(r"mask_linear\.(\d+)\.weight", source) for source in sources)
    numbers = sorted({int(match.group(1)) for match in found if match})
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 2)


@dataclass
class OfficialNames:
    """Raw keys of a published checkpoint: weights and adapters.

    Attributes:
        plain: published name -> raw key, the wrapping of adapters taken off.
        adapters: published name -> raw keys of its low-rank factors, "A" and "B".
    """

    plain: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, dict[str, str]] = field(default_factory=dict)


_ADAPTER = re.compile(r"(.*)\.lora_([AB])(?:\.[^.]+)?\.weight")
_IGNORED = ("rotary_emb.inv_freq",)  # a buffer that old checkpoints carry; computed by us


def sort_names(raw_keys: Iterable[str]) -> OfficialNames:
    """Remove PEFT's wrapping, which stage 2 leaves on keys of unmerged adapters."""
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
