"""A model together with the processor that it needs, from one folder or hub id."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from ureca_lib.checkpoints.errors import CheckpointError
from ureca_lib.checkpoints.official import load_official
from ureca_lib.checkpoints.tensor_files import read_json
from ureca_lib.checkpoints.tokens import load_tokenizer
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")  # "org/name"; all else means a folder


def load_pair(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[UrecaForConditionalGeneration, UrecaProcessor]:
    """A model of ours or in the published layout, and its processor.

    Args:
        path: the folder, or for ours a hub id "org/name", which a folder of that name precedes.
        device: where the model goes.
        dtype: of the parameters; by default as stored.

    Raises:
        CheckpointError: no such folder, or one without a tokenizer, both before any weights are
            read; a published checkpoint that cannot be read.
    """
    folder = Path(os.path.expanduser(path))
    if not folder.exists() and isinstance(path, str) and _HUB_ID.fullmatch(path):
        processor = UrecaProcessor.from_pretrained(path)
        return _ours(path, dtype).to(device), processor
    if not folder.is_dir():
        raise CheckpointError(folder, "not a folder" if folder.exists() else "no such folder")
    published = "llm_config" in read_json(folder / "config.json")
    if (tokenizer := load_tokenizer(folder)) is None:
        raise CheckpointError(
            folder,
            "no tokenizer, and captions are made of its tokens: copy the tokenizer files of the "
            "model that this one was made from into the folder",
        )
    if not published and (folder / "processor_config.json").is_file():
        processor = UrecaProcessor.from_pretrained(folder)
        return _ours(folder, dtype).to(device), processor
    if published:
        model = load_official(folder, dtype=dtype, device=device)
    else:
        model = _ours(folder, dtype).to(device)
    return model, UrecaProcessor.from_config(model.config, tokenizer)


def _ours(path: str | Path, dtype: torch.dtype | None) -> UrecaForConditionalGeneration:
    return UrecaForConditionalGeneration.from_pretrained(
        path, dtype=dtype or "auto", use_safetensors=True
    )
