"""Checkpoints to resume from: whole or not at all, small, and without pickles of ours.

A checkpoint holds what has learnt (safetensors), the random states (safetensors and JSON),
transformers' `trainer_state.json`, and the optimizer's and scheduler's states, which transformers
writes and reads by `torch.load(weights_only=True)`: numbers and tensors, no code. What
`whole.json` does not list with its size, written last, was cut off by a kill and is removed.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TRAINED = "trained.safetensors"
WHOLE = "whole.json"
_NAME = re.compile(r"checkpoint-(\d+)")


class TrainingError(RuntimeError):
    """A run that cannot go on; says why and what to do."""


def save_trained(parameters: dict[str, torch.Tensor], path: Path) -> None:
    """Write the parameters that learn, as they are, in one step."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    partial = path.with_name(f".{path.name}")
    save_file(tensors, partial)
    partial.replace(path)


def load_trained(parameters: dict[str, torch.Tensor], path: Path) -> None:
    """Read what `save_trained` wrote into parameters of the same names.

    Raises:
        TrainingError: other names or shapes, naming one, or no such file.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: there are no trained weights")
    stored = load_file(path)
    if differing := sorted(set(stored) ^ set(parameters)):
        raise TrainingError(f"{path}: {len(differing)} names differ, such as {differing[0]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if stored[name].shape != parameter.shape:
                shapes = f"{tuple(stored[name].shape)} instead of {tuple(parameter.shape)}"
                raise TrainingError(f"{path}: {name} is {shapes}")
            parameter.copy_(stored[name])


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a stop in between leaves the old file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as whole: its files and their sizes, written last."""
    sizes = {
        file.relative_to(checkpoint).as_posix(): file.stat().st_size
        for file in sorted(checkpoint.rglob("*"))
        if file.is_file() and file.name != WHOLE
    }
    write_json(checkpoint / WHOLE, sizes)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file that was sealed is there with its size."""
    try:
        sizes = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, whole or not, earliest first."""
    found = {int(m[1]): p for p in folder.glob("checkpoint-*") if (m := _NAME.fullmatch(p.name))}
    return [found[step] for step in sorted(found)]


def latest_whole(folder: Path) -> Path | None:
    """The last checkpoint that is whole; None where there is none. Nothing is removed."""
    return next((path for path in reversed(checkpoints(folder)) if is_whole(path)), None)


def drop_partial(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for path in checkpoints(folder):
        if not is_whole(path):
            shutil.rmtree(path)


def drop_old(folder: Path, keep: int) -> None:
    """Remove all but the last `keep` checkpoints."""
    for path in checkpoints(folder)[:-keep]:
        # unsealed first: a kill in between leaves what is known to be cut off
        (path / WHOLE).unlink(missing_ok=True)
        shutil.rmtree(path)


def step_of(checkpoint: Path) -> int:
    """The step after which it was written."""
    return int(_NAME.fullmatch(checkpoint.name)[1])


def save_random_states(path: Path) -> None:
    """The states of Python's, numpy's and torch's generators, each device's too."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    plain = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
    }
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    save_file(tensors, path, metadata={"plain": json.dumps(plain)})


def load_random_states(path: Path) -> None:
    """Set every generator as `save_random_states` found it.

    Raises:
        TrainingError: no such file: the run had another number of processes.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: not there; resume with as many processes as before")
    with safe_open(path, framework="pt") as file:
        plain = json.loads(file.metadata()["plain"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = plain["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
