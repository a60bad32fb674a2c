"""Weights kept in half precision, for checkpoints that are part of a repository."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ureca_lib.checkpoints.errors import CheckpointError
from ureca_lib.journal import write_text


def save_half(model: PreTrainedModel, folder: str | Path) -> Path:
    """Save a model in float16, half the size, to be computed with in float32.

    The configuration says float32, so that what loads it by `dtype="auto"` widens the weights: CPUs
    are slow in float16. The model that was given is rounded to what is stored.

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
