"""The model card of the tiny base, from its own log and settings."""

from __future__ import annotations

import json
import platform
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ureca_lib.train.base_settings import BaseSettings

_CARD = """# Tiny base

A small InternVL (transformers' own classes, {parameters:,} parameters) that describes the scenes of
specification {scenes_version} and regions of them that are given as boxes in text. It sees no
masks: it is the frozen MLLM that a URECA model is built on. It has seen nothing but generated
scenes, so it knows nothing of photographs.

| | |
|---|---|
| scenes | the first {scenes:,} of the training split |
| steps | {steps:,}, of {scenes_a_step} scenes with {regions_a_scene} regions each |
| recipe | {patch_steps} steps of patch labels alone, then captions and {aid_weight} of it |
| optimizer | AdamW, weight decay {weight_decay}, {rates} |
| size | hidden size {width}, {depth} layers, of both transformers |
| seed | {seed} |
| time | {minutes:.0f} minutes, {processes} processes of one thread on {machine} |
| torch | {torch} |
| exact captions, held out | {exact:.1%} of all regions of {validation_scenes} validation scenes |

Weights are stored in float16 and computed with in float32. `training_log.jsonl` is the loss curve,
`training_settings.json` all settings. Made by `{command}`.
"""


def write_card(folder: str | Path) -> Path:
    """Write `README.md` from `training_log.jsonl` and `training_settings.json` beside it."""
    folder = Path(folder)
    settings = json.loads((folder / "training_settings.json").read_text())
    rows = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    known = {each.name for each in fields(BaseSettings)}
    validated = [row for row in rows if "validation_exact" in row]
    last = rows[-1]
    card = _CARD.format(
        **settings,
        rates=_rates(BaseSettings(**{k: v for k, v in settings.items() if k in known})),
        command=_command(settings),
        parameters=_parameters(folder / "model.safetensors"),
        minutes=last["seconds"] / 60,
        machine=f"{platform.machine()} {platform.system()}",
        torch=torch.__version__,
        exact=validated[-1]["validation_exact"] if validated else float("nan"),
    )
    (folder / "README.md").write_text(card)
    return folder / "README.md"


def _command(settings: dict[str, Any]) -> str:
    """The command line that makes such a base; what is at its default is left out."""
    words = ["ureca train-base --out FOLDER"]
    for name in ("scenes", "steps", "width", "depth", "processes", "seed"):
        if settings[name] != getattr(BaseSettings(), name):
            words.append(f"--{name} {settings[name]}")
    return " ".join(words)


def _rates(settings: BaseSettings) -> str:
    """Of the captions' cosines; the patches' is in the settings."""
    captions = [part for part in settings.cosines if part[0] >= settings.patch_steps]
    return ", ".join(f"{rate} and a cosine from step {start:,} on" for start, _, rate in captions)


def _parameters(file: Path) -> int:
    with safe_open(file, "pt") as opened:
        return sum(prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
