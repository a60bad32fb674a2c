"""Load a model with its processor from a folder or hub id; write checkpoints in our layout."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ureca_lib.checkpoints.internvl import internvl_reader
from ureca_lib.checkpoints.official import load_official
from ureca_lib.checkpoints.tensors import CheckpointError, load_strict, read_json, reading
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.configuration import UrecaConfig
from ureca_lib.journal import write_text
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")  # "org/name"; all else means a folder


def load_model_and_processor(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[UrecaForConditionalGeneration, UrecaProcessor]:
    """Load a model of ours or in the published layout, and its processor.

    Args:
        path: the folder; or a hub id "org/name" of ours, if there is no folder of that name.
        device: where the model goes.
        dtype: of the parameters; by default as stored.

    Raises:
        CheckpointError: no such folder, one of another model, or one without a tokenizer, all
            before any weights are read; files that are damaged or lack tensors.
    """
    folder = Path(os.path.expanduser(path))
    if not folder.exists() and isinstance(path, str) and _HUB_ID.fullmatch(path):
        processor = UrecaProcessor.from_pretrained(path)
        return _ours(path, dtype).to(device), processor
    if not folder.is_dir():
        raise CheckpointError(folder, "not a folder" if folder.exists() else "no such folder")
    raw = read_json(folder / "config.json")
    published, kind = "llm_config" in raw, raw.get("model_type")
    if (tokenizer := load_tokenizer(folder)) is None:
        raise CheckpointError(
            folder,
            "no tokenizer, and captions are made of its tokens: copy the tokenizer files of the "
            "model that this one was made from into the folder",
        )
    if internvl_reader(folder) or not (published or kind == UrecaConfig.model_type):
        raise CheckpointError(
            folder,
            f"model type {kind!r}, without a mask encoder: stage 1 of training gives InternVL one",
        )
    if published:
        model = load_official(folder, dtype=dtype, device=device)
    else:
        model = _ours(folder, dtype).to(device)
    with reading(folder, "tokenizer and model do not fit"):
        if published or not (folder / "processor_config.json").is_file():
            return model, UrecaProcessor.from_config(model.config, tokenizer)
        return model, UrecaProcessor.from_pretrained(folder)


def _ours(path: str | Path, dtype: torch.dtype | None) -> UrecaForConditionalGeneration:
    return load_strict(UrecaForConditionalGeneration, path, dtype=dtype or "auto")


def convert(
    source: str | Path,
    destination: str | Path,
    progress: bool = False,
    max_shard_size: str = "5GB",
    **settings,
) -> Path:
    """Read a published URECA or an InternVL checkpoint and write it in our layout.

    An InternVL checkpoint gets a mask encoder with newly initialized weights, for stage 1 to train.

    `UrecaForConditionalGeneration.from_pretrained` loads the result. If the source has a tokenizer,
    the processor is written too, for `UrecaProcessor.from_pretrained`; if not, it is a warning.

    Args:
        source: folder to read; see `load_official`, `from_internvl_hf` and `from_internvl_chat`.
        destination: folder to write; made if need be, must be empty.
        progress: show a bar.
        max_shard_size: of each safetensors file, such as "5GB".
        settings: for an InternVL source, fields of `UrecaConfig`.

    Returns:
        The folder written.

    Raises:
        CheckpointError: the source cannot be read, or the destination holds files.
    """
    source, destination = Path(source), Path(destination)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(destination, "not an empty folder; choose another to write to")
    reader = internvl_reader(source)
    # before the weights: a tokenizer that cannot be built should not cost their reading
    tokenizer = load_tokenizer(source)
    if reader is not None:
        model = reader(source, **settings)
    else:
        model = load_official(source, progress=progress, **settings)
    destination.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(destination, max_shard_size=max_shard_size)
    if tokenizer is not None:
        UrecaProcessor.from_config(model.config, tokenizer).save_pretrained(destination)
    else:
        warnings.warn(
            f"{source} has no tokenizer: copy its tokenizer files beside the weights and convert "
            "again, or RegionCaptioner cannot caption; the model alone was written",
            stacklevel=2,
        )
    return destination


def save_float16(model: PreTrainedModel, folder: str | Path) -> Path:
    """Save a model in float16, half the size, to be computed with in float32.

    The configuration states float32, so that `dtype="auto"` widens the weights again: CPUs are slow
    in float16. The given model is rounded to the stored values.

    Raises:
        CheckpointError: a weight is too large for float16; the model is as it was.
    """
    folder = Path(folder)
    values = [(n, value) for n, value in model.state_dict().items() if value.is_floating_point()]
    for name, value in values:  # all before the first is rounded
        if not value.half().isfinite().all():
            raise CheckpointError(folder, f"{name} holds values too large for float16")
    for _, value in values:
        value.copy_(value.half())
    dtype = model.dtype
    model.half().save_pretrained(folder)
    model.to(dtype)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        if "dtype" in part:
            part["dtype"] = str(torch.float32).removeprefix("torch.")
    write_text(file, json.dumps(config, indent=2) + "\n")
    return folder
