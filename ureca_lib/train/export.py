"""A run's trained model as a folder for use: weights, processor and model card.

Stage 1 leaves other weights in the mask encoder; stage 2 leaves adapters, which are added into the
language model's own weights: W + (alpha / r) B A. The folder is an ordinary checkpoint, which loads
by itself and can be uploaded to a model hub as it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from ureca_lib.journal import write_text
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor
from ureca_lib.provenance import display_path, environment_record
from ureca_lib.train.run_folder import (
    RESULT,
    SETTINGS,
    TRAINED,
    TrainingError,
    load_trained,
    read_best,
    read_json,
)
from ureca_lib.train.settings import TrainSettings, checked
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start

_CARD = """---
library_name: ureca-lib
pipeline_tag: image-text-to-text
license: other
tags:
- region-captioning
- ureca
---

# URECA, preset {preset}, after stage {stage}

Captions any region of an image, given as a mask, so that the caption fits no other region (URECA:
Unique Region Caption Anything). `license` above is to be replaced: the licenses of the base and of
the training data apply.

| | |
|---|---|
| base | `{base}` |
| training data | `{data}` |
| weights | {weights} |
| last evaluation of the run, on held-out images | {measured} |
| code | commit {commit}; {versions} |

## Use

    from ureca_lib.captioner import RegionCaptioner

    captioner = RegionCaptioner.from_pretrained("FOLDER OR HUB ID", device="cuda")

## Upload

    hf upload NAME/MODEL FOLDER

or `huggingface_hub.HfApi().upload_folder(...)`. `push_to_hub` of model and processor uploads the
same files without this card.

## Settings

| setting | value |
|---|---|
{settings}
"""


def load_run(
    run: str | Path, which: str = "kept"
) -> tuple[UrecaForConditionalGeneration | PeftModel, UrecaProcessor]:
    """A run's model with its trained weights; the base is read again, from where it was.

    Args:
        run: folder of `train_stage`.
        which: "kept", the weights that the run ended with; "best" in evaluation so far; or the
            number of a checkpoint's step.

    Raises:
        TrainingError: no run there, or no such weights. CheckpointError: the base is gone.
    """
    folder = Path(run)
    if not (folder / "settings.json").is_file():
        raise TrainingError(f"{folder}: no settings.json, so no training run")
    stored = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    known = TrainSettings.help()  # an earlier version had others, which weights do not depend on
    values = {name: value for name, value in stored.items() if name in known}
    settings = checked(values, str(folder / "settings.json"))
    path = _weights(folder, which)
    model, processor = load_start(settings)
    learner = StageModel(freeze_for_stage(model, settings))
    load_trained(learner.trained(), path)
    return learner.model.eval(), processor


def export_model(
    model: UrecaForConditionalGeneration | PeftModel,
    processor: UrecaProcessor,
    destination: str | Path,
) -> Path:
    """Write a trained model and its processor, adapters merged; whole or not at all.

    Args:
        model: of `load_run`, or as training leaves it. It is changed: adapters are merged, and the
            mask encoder takes the type of the other weights.
        destination: a folder, new, empty, or one that an earlier export was writing.

    Returns:
        The folder.

    Raises:
        TrainingError: the folder holds something.
    """
    target = Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TrainingError(f"{target}: not an empty folder; choose another to write to")
    whole = model.merge_and_unload() if isinstance(model, PeftModel) else model
    whole.requires_grad_(True)
    whole.model.mask_encoder.to(whole.lm_head.weight.dtype)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    whole.save_pretrained(partial)
    processor.save_pretrained(partial)
    if target.exists():
        target.rmdir()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(target)
    return target


def merge_run(run: str | Path, destination: str | Path, which: str = "kept") -> Path:
    """`load_run`, then `export_model` and `write_card`: the same errors."""
    model, processor = load_run(run, which)
    with torch.no_grad():
        target = export_model(model, processor, destination)
    folder = Path(run)
    settings = read_json(folder / SETTINGS)
    write_card(target, settings, read_json(folder / RESULT).get("final", {}), which)
    return target


def write_card(
    folder: Path, settings: Mapping[str, Any], final: Mapping[str, float], which: str = "kept"
) -> None:
    """Write a model card, `README.md`: base, data, settings, code and last evaluation.

    Args:
        folder: of the model.
        settings: of the run.
        final: its last evaluation, by name; empty if there is none.
        which: the run's weights that the folder holds, see `load_run`.
    """
    own = display_path(settings["model"] or "unknown")
    measured = ", ".join(f"{name} {value:.4g}" for name, value in final.items())
    code = environment_record()
    text = _CARD.format(
        base=own,
        preset=settings["preset"],
        stage=settings["stage"],
        data=display_path(settings["data"]),
        weights=which,
        measured=measured or "nothing was evaluated in training",
        versions=", ".join(f"{name} {number}" for name, number in code["versions"].items()),
        commit=code["commit"] or "unknown",
        settings="\n".join(
            f"| {name} | `{value}` |"
            for name, value in settings.items()
            if name not in ("model", "data", "masks", "eval_data", "cache")  # of the machine
        ),
    )
    write_text(folder / "README.md", text)


def _weights(folder: Path, which: str) -> Path:
    if which == "kept":
        return folder / TRAINED
    if which == "best":
        if (best := read_best(folder)) is None:
            raise TrainingError(f"{folder}: nothing was evaluated, so nothing is best")
        return folder / best["file"]
    if not which.isdecimal():
        raise TrainingError(f"weights are kept, best or a step's number, not {which!r}")
    return folder / f"checkpoint-{which}" / TRAINED
