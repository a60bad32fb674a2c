"""What a run has learnt, put into its model, and the model written for use.

Stage 1 leaves other weights in the mask encoder; stage 2 leaves adapters, which are added into the
language model's own weights: W + (alpha / r) B A. The model written is an ordinary one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from peft import PeftModel

from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.run_folder import TRAINED, TrainingError, load_trained, read_best
from ureca_lib.train.settings import TrainSettings, checked
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start


def load_run(
    run: str | Path, which: str = "kept"
) -> tuple[UrecaForConditionalGeneration | PeftModel, UrecaProcessor]:
    """A run's model with what it has learnt: its base is read again, from where it was.

    Args:
        run: folder of `train_stage`.
        which: "kept", what the run ended with; "best" in evaluation so far; or the number of a
            checkpoint's step.

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
    """`load_run`, then `export_model`: the same errors."""
    model, processor = load_run(run, which)
    with torch.no_grad():
        return export_model(model, processor, destination)


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
