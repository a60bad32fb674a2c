"""A small random base on disk, settings that train on it in a second, and a process that does."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import torch
from tiny_models import tiny_model, tiny_tokenizer

from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.loop import train_stage
from ureca_lib.train.settings import TrainSettings, checked, load_settings

SCENES = Path(__file__).resolve().parents[1] / "data_samples" / "scenes"
SMALL = {
    "data": str(SCENES),
    "limit": 3,
    "steps": 6,
    "batch_size": 2,
    "regions_per_image": 3,
    "max_tiles": 2,
    "inference_tiles": 2,
    "eval_data": None,
    "eval_every": 3,
    "eval_images": 1,
    "eval_regions": 2,
    "eval_tokens": 4,
    "save_every": 2,
    "log_every": 1,
    "lora_rank": 4,
    "precision": "float32",
}


def write_base(folder: Path, **config) -> Path:
    """A random model of 56-pixel tiles with its processor."""
    model = tiny_model(**({"mask_position": "after_image"} | config))
    model.save_pretrained(folder)
    UrecaProcessor.from_config(model.config, tiny_tokenizer()).save_pretrained(folder)
    return folder


def small(base: Path, stage: int = 1, **changes) -> TrainSettings:
    """Settings of a run of six steps on two scenes, one more held out."""
    return load_settings("tiny", stage, SMALL | {"model": str(base)} | changes)


def train_as_told(settings: str, out: str, environment: dict[str, str]) -> None:
    """What a child process does: train by a file of settings, on one thread."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    told = json.loads(Path(settings).read_text(encoding="utf-8"))
    train_stage(checked(told, settings), out, progress=False)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
