"""A run's trained model as a folder for use: weights, processor and model card.

Stage 1 leaves other weights in the mask encoder; stage 2 leaves adapters, which are added into the
language model's own weights: W + (alpha / r) B A. The folder is an ordinary checkpoint, which loads
by itself and can be uploaded to a model hub as it is.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from ureca_lib.journal import write_text
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor
from ureca_lib.provenance import display_path, environment_record
from ureca_lib.train.run_folder import (
    SETTINGS,
    TRAINED,
    last_evaluation,
    load_trained,
    read_best,
    read_json,
)
from ureca_lib.train.settings import TrainSettings, checked, renamed
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start

CARDS = Path(__file__).parent / "cards"


def load_run(
    run: str | Path, which: str = "kept"
) -> tuple[UrecaForConditionalGeneration | PeftModel, UrecaProcessor]:
    """A run's model with its trained weights; the base is read again, from where it was.

    Args:
        run: folder of `train_stage`.
        which: "kept", the weights that the run ended with; "best" in evaluation so far; or the
            number of a checkpoint's step.

    Raises:
        ValueError: no run there, nothing that is best, or the base is gone. FileNotFoundError: the
            run has not ended, or has no such checkpoint.
    """
    folder = Path(run)
    if not (stored := read_json(folder / SETTINGS)):
        raise ValueError(f"{folder}: no {SETTINGS}, so no training run")
    # an earlier version had other settings, which weights do not depend on
    known = {each.name for each in fields(TrainSettings)}
    values = {name: value for name, value in renamed(stored).items() if name in known}
    settings = checked(values, str(folder / SETTINGS))
    best = read_best(folder) or {}
    if which == "best" and not best:
        raise ValueError(f"{folder}: nothing was evaluated, so nothing is best")
    named = {"kept": TRAINED, "best": best.get("file")}
    path = folder / named.get(which, f"checkpoint-{which}/{TRAINED}")
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
        ValueError: the folder holds something.
    """
    target = Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: not an empty folder; choose another to write to")
    whole = model.merge_and_unload() if isinstance(model, PeftModel) else model
    whole.requires_grad_(True)
    whole.model.mask_encoder.to(whole.lm_head.weight.dtype)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    whole.save_pretrained(partial)
    processor.save_pretrained(partial)
    return partial.replace(target)


def merge_run(run: str | Path, destination: str | Path, which: str = "kept") -> Path:
    """`load_run`, then `export_model`, and a model card: the same errors."""
    model, processor = load_run(run, which)
    with torch.no_grad():
        target = export_model(model, processor, destination)
    settings, final = read_json(Path(run) / SETTINGS), last_evaluation(Path(run))
    measured = ", ".join(f"{name} {value:.4g}" for name, value in final.items())
    code = environment_record()
    of_the_machine = ("model", "data", "masks", "eval_data", "cache")
    write_card(
        target,
        "model",
        preset=settings["preset"],
        stage=settings["stage"],
        base=display_path(settings["model"]),
        data=display_path(settings["data"]),
        weights=which,
        measured=measured or "nothing was evaluated in training",
        commit=code["commit"] or "unknown",
        versions=", ".join(f"{name} {number}" for name, number in code["versions"].items()),
        settings="\n".join(
            f"| {name} | `{value}` |"
            for name, value in settings.items()
            if name not in of_the_machine
        ),
    )
    return target


def write_card(folder: Path, kind: str, **values: Any) -> None:
    """Write a model card, `README.md`, from the template `cards/KIND.md`."""
    template = (CARDS / f"{kind}.md").read_text(encoding="utf-8")
    write_text(folder / "README.md", template.format(**values))
