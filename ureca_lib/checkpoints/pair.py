"""A model together with the processor that it needs, from one folder or hub id."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from ureca_lib.checkpoints.errors import CheckpointError
from ureca_lib.checkpoints.internvl import internvl_reader
from ureca_lib.checkpoints.official import load_official
from ureca_lib.checkpoints.tensor_files import read_json
from ureca_lib.checkpoints.tokens import load_tokenizer
from ureca_lib.checkpoints.whole import load_whole
from ureca_lib.configuration import UrecaConfig
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
    if not published and (folder / "processor_config.json").is_file():
        processor = UrecaProcessor.from_pretrained(folder)
        return _ours(folder, dtype).to(device), processor
    if published:
        model = load_official(folder, dtype=dtype, device=device)
    else:
        model = _ours(folder, dtype).to(device)
    return model, UrecaProcessor.from_config(model.config, tokenizer)


def _ours(path: str | Path, dtype: torch.dtype | None) -> UrecaForConditionalGeneration:
    return load_whole(UrecaForConditionalGeneration, path, dtype=dtype or "auto")
