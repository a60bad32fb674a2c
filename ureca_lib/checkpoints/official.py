"""The published URECA / InternVL2.5 checkpoint layout, read without its remote code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from ureca_lib.checkpoints.errors import CheckpointKeysError
from ureca_lib.checkpoints.official_config import official_config
from ureca_lib.checkpoints.official_layout import (
    Layout,
    OfficialNames,
    official_layout,
    sort_names,
)
from ureca_lib.checkpoints.tensor_files import (
    StoredTensor,
    read_json,
    read_tensors,
    tensor_index,
)
from ureca_lib.checkpoints.tokens import stop_ids, token_ids
from ureca_lib.configuration import UrecaConfig
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
    found = token_ids(files.folder)
    config = files.config
    config.image_token_id = image_token_id if image_token_id is not None else found.image
    config.mask_token_id = mask_token_id if mask_token_id is not None else found.mask
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
        raw = read_json(self.folder / "config.json")
        self._stored = tensor_index(self.folder)
        self._names = sort_names(self._stored)
        shapes = {name: self._stored[key].shape for name, key in self._names.plain.items()}
        self.config = official_config(raw, shapes, self.folder / "config.json")
        self.has_mask_encoder = any(name.startswith("mask_") for name in shapes)

    def check(self, left_empty: str = "") -> None:
        """Compare names and shapes with what the configuration asks for; reads no weights.

        Args:
            left_empty: see `build`.

        Raises:
            CheckpointKeysError: see `load_official`.
        """
        with torch.device("meta"):
            model = UrecaForConditionalGeneration(self.config)
        _checked_layout(model, self._names, self._stored, self.folder, left_empty)

    def build(
        self,
        config: UrecaConfig,
        dtype: torch.dtype | None,
        device: torch.device,
        progress: bool = False,
        left_empty: str = "",
    ) -> UrecaForConditionalGeneration:
        """The model of a configuration, filled from the files.

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
        with torch.device("meta"):
            model = UrecaForConditionalGeneration(config)
        layout = _checked_layout(model, self._names, self._stored, self.folder, left_empty)
        dtype = dtype or _stored_dtype(layout, self._names, self._stored)
        _fill(model, layout, self._names, self._stored, dtype, device, progress)
        _renew_rotary(model, device)
        model.tie_weights()
        if stops := stop_ids(self.folder):
            model.generation_config.eos_token_id = stops
        return model.eval()


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
        for target in layout[name]:
            wanted = tuple(parameters[target.name].shape)
            if (got := _picked_shape(target.pick, shape)) != wanted:
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
    source = next(s for s, targets in layout.items() if any(t.name == embedding for t in targets))
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
    by_raw = {raw: name for name, raw in names.plain.items()}
    wanted = {raw: stored[raw] for raw in sorted(by_raw, key=lambda r: (stored[r].file, r))}
    bar = tqdm(read_tensors(wanted), total=len(wanted), desc="tensors", disable=not progress)
    for raw, tensor in bar:
        name = by_raw[raw]
        if pair := names.adapters.get(name):
            tensor = _merged(tensor, {which: stored[key] for which, key in pair.items()}, pair)
        for target in layout[name]:
            value = target.pick(tensor).to(device=device, dtype=dtype, copy=True)
            _assign(model, target.name, value.contiguous())


def _merged(
    weight: torch.Tensor, factors: dict[str, StoredTensor], keys: dict[str, str]
) -> torch.Tensor:
    """W + scale * B A, at least in float32."""
    read = {}
    for which, stored in factors.items():
        for _, tensor in read_tensors({keys[which]: stored}):
            read[which] = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    return weight.to(read["A"].dtype) + LORA_SCALE * (read["B"] @ read["A"])


def _assign(model: nn.Module, name: str, value: torch.Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner).register_parameter(leaf, nn.Parameter(value))


def _renew_rotary(model: UrecaForConditionalGeneration, device: torch.device) -> None:
    """Rotary tables are no part of a checkpoint, and those built on the meta device are empty."""
    language = model.model.language_model
    language.rotary_emb = type(language.rotary_emb)(config=model.config.text_config).to(device)
