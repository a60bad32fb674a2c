"""Files of a training run, each written whole or not at all, so that a kill leaves a good state.

    settings.json      all settings, as resolved
    start.json         weights that the run started from, and a hash of its data
    log.jsonl          losses, learning rates, evaluations
    checkpoint-N/      state after step N, from which an interrupted run resumes
    best.json          step of the best evaluation; its weights are beside it
    trained.safetensors, adapter/   trainable weights at the end; in stage 2 for peft too
    model/             the whole trained model, for `RegionCaptioner.from_pretrained`
    result.json        how the run ended; written last

A checkpoint holds only the trainable weights, the optimizer's moments and the random states
(safetensors), and the position in the run (JSON). It is written into a hidden folder and sealed by
a rename: a folder named `checkpoint-N` is complete.
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ureca_lib.journal import write_json, write_text
from ureca_lib.provenance import model_record
from ureca_lib.train.settings import TrainSettings, renamed

SETTINGS, START, RESULT = "settings.json", "start.json", "result.json"
LOG, BEST = "log.jsonl", "best.json"
TRAINED, OPTIMIZER, POSITION = "trained.safetensors", "optimizer.safetensors", "position.json"
MODEL = "model"
# settings that change how a run is done on a machine, but not its result
OF_THE_MACHINE = (
    "workers", "memory_gib", "cache", "cache_gib", "keep_checkpoints", "log_every",
)  # fmt: skip
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_LOWER_IS_BETTER = ("loss",)


class TrainingError(RuntimeError):
    """A run that cannot start or resume; says why and what to do."""


@dataclass
class Position:
    """Where a run is.

    Attributes:
        step: steps done.
        loss: sum over the steps since the last line of the log; `count` is their number.
    """

    step: int = 0
    loss: float = 0.0
    count: int = 0


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def claim(folder: Path, settings: TrainSettings, resume: bool) -> FileLock:
    """Lock a run's folder after checking that it is empty or holds this run.

    Nothing is written but the lock, so that settings that turn out to be wrong, such as a mistyped
    `model`, can be corrected in the same folder; see `record_start`.

    Raises:
        TrainingError: the folder holds another run or other files, or is in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(f"{folder}: another process is training here") from None
    try:
        _check_claim(folder, settings, resume)
    except BaseException:
        lock.release()
        raise
    return lock


def _check_claim(folder: Path, settings: TrainSettings, resume: bool) -> None:
    path = folder / SETTINGS
    if not path.is_file():
        # a run that was killed at its very start may have left its second file alone
        if any(not (file.name.startswith(".") or file.name == START) for file in folder.iterdir()):
            raise TrainingError(f"{folder} holds something else: name another folder")
        return
    default, asked = (
        json.loads(json.dumps(each.to_dict())) for each in (TrainSettings(), settings)
    )
    # a setting that an earlier version did not have was at its default
    there = default | renamed(read_json(path))
    relevant = set(asked) - set(OF_THE_MACHINE)
    differing = sorted(name for name in relevant if there.get(name) != asked.get(name))
    if differing or not resume:
        what = f"other settings ({', '.join(differing)})" if differing else "these settings"
        raise TrainingError(f"{folder} holds a run of {what}: name another folder")
    then, now = read_json(folder / START), model_record(settings.model or "")
    # as far as both are known: the base may have been moved since
    if "weights" in then and "weights" in now and then["weights"] != now["weights"]:
        raise TrainingError(
            f"{folder} holds a run that started from other weights than {settings.model} has "
            "now: name another folder"
        )


def record_start(folder: Path, settings: TrainSettings, content: str) -> None:
    """Write a run's settings, its starting weights and the hash of its data.

    Raises:
        TrainingError: the run began with other data; a resumed run would visit different samples.
    """
    known = (folder / SETTINGS).is_file()
    start = read_json(folder / START) if known else dict(model_record(settings.model or ""))
    if start.setdefault("data", content) != content:
        raise TrainingError(
            f"{folder} holds a run on other images, masks or captions than {settings.data} has "
            "now: name another folder"
        )
    write_json(folder / START, start)
    write_json(folder / SETTINGS, settings.to_dict())


def save_trained(parameters: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the trainable parameters, as they are, in one step."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    partial = path.with_name(f".{path.name}")
    save_file(tensors, partial)
    partial.replace(path)


def load_trained(parameters: Mapping[str, torch.Tensor], path: Path) -> None:
    """Read the file of `save_trained` into parameters of the same names.

    Raises:
        TrainingError: other names or shapes, naming one of them, or no such file.
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


def moments(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """An optimizer's state as tensors, named after its parameters."""
    return {
        f"{name}:{key}": value.detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def set_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Set an optimizer's state as `moments` gave it."""
    for key, value in tensors.items():
        name, _, kind = key.rpartition(":")
        # AdamW counts its steps on the CPU
        device = "cpu" if kind == "step" else parameters[name].device
        optimizer.state[parameters[name]][kind] = value.to(device)


def save_checkpoint(
    folder: Path,
    accelerator: Accelerator,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer | None,
    position: Position,
    keep: int,
) -> None:
    """Write `checkpoint-N`, then remove all but the last `keep` checkpoints.

    Every process calls this; each writes its own random states.

    Args:
        parameters: the trainable ones, by name.
        optimizer: None where its state is sharded over the processes: weights alone are written,
            which can be merged, but the run cannot be resumed.
    """
    path = folder / f"checkpoint-{position.step}"
    partial = folder / f".{path.name}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    accelerator.wait_for_everyone()
    _save_random_states(_random_file(partial, accelerator))
    if accelerator.is_main_process:
        save_trained(parameters, partial / TRAINED)
        if optimizer is not None:
            save_file(moments(optimizer, parameters), partial / OPTIMIZER)
        write_json(partial / POSITION, asdict(position))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(path, ignore_errors=True)  # a damaged one of the same step
        partial.replace(path)
        for old in checkpoints(folder)[:-keep]:
            # renamed first: a kill during the removal leaves no folder that looks complete
            shutil.rmtree(old.replace(old.with_name(f".{old.name}")))
    accelerator.wait_for_everyone()


def load_checkpoint(
    path: Path,
    accelerator: Accelerator,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Set weights, moments and random states as `save_checkpoint` found them.

    Raises:
        TrainingError: a checkpoint of a sharded run or of another number of processes.
    """
    if not (path / OPTIMIZER).is_file():
        raise TrainingError(
            f"{path}: an FSDP run cannot be resumed; `accelerate launch --multi_gpu` without FSDP "
            "can, and the trained parts are small"
        )
    load_trained(parameters, path / TRAINED)
    set_moments(optimizer, parameters, load_file(path / OPTIMIZER))
    _load_random_states(_random_file(path, accelerator))


def checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, earliest first."""
    found = {
        int(m[1]): p for p in folder.glob("checkpoint-*") if (m := _CHECKPOINT.fullmatch(p.name))
    }
    return [found[step] for step in sorted(found)]


def latest_checkpoint(folder: Path) -> tuple[Path | None, Position]:
    """The last checkpoint whose files can be read, and its position; None if there is none.

    Raises:
        TrainingError: the run was begun by an earlier version of this package.
    """
    for path in reversed(checkpoints(folder)):
        if (path / "trainer_state.json").is_file():
            raise TrainingError(
                f"{path}: written by an earlier version, which cannot be resumed: name another "
                "folder"
            )
        try:
            for file in path.glob("*.safetensors"):
                with safe_open(file, "pt"):  # checks the header against the file's length
                    pass
            return path, Position(**json.loads((path / POSITION).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, SafetensorError):
            continue  # damaged after it was written: the one before it is used
    return None, Position()


def drop_partial(folder: Path) -> None:
    """Remove checkpoints that a kill interrupted while they were written or removed."""
    for path in folder.glob(".checkpoint-*"):
        shutil.rmtree(path)


def _random_file(folder: Path, accelerator: Accelerator) -> Path:
    return folder / f"random_{accelerator.process_index}.safetensors"


def _save_random_states(path: Path) -> None:
    """Write the states of Python's, numpy's and torch's generators, the device's too."""
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()
    plain = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), place, has_gauss, cached],
    }
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    save_file(tensors, path, metadata={"plain": json.dumps(plain)})


def _load_random_states(path: Path) -> None:
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


class Log:
    """A run's log as JSON lines, with the time that its steps took.

    Args:
        folder: of the run.
        step: of the checkpoint; lines of later steps, which will be repeated, are dropped.
        epochs_per_step: for each line's epoch.
        write: false on all processes but the main one.

    Attributes:
        earlier: seconds of the steps of earlier processes.
    """

    def __init__(self, folder: Path, step: int, epochs_per_step: float, write: bool):
        self.path, self.epochs_per_step, self.write = folder / LOG, epochs_per_step, write
        rows = [row for row in read_log(folder) if row["step"] <= step]
        if write and self.path.is_file():
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.earlier = rows[-1]["seconds"] if rows else 0.0
        self._started = time.perf_counter() - self.earlier

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        if self.write:
            epoch = round(step * self.epochs_per_step, 4)
            seconds = round(time.perf_counter() - self._started, 2)
            row = {"step": step, "epoch": epoch, "seconds": seconds, **values}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's log so far; a line that a kill cut off is left out."""
    path, rows = Path(folder) / LOG, []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def read_best(folder: str | Path) -> dict[str, Any] | None:
    """Step, metric, value, loss and file of a run's best weights; None if there are none."""
    return read_json(Path(folder) / BEST) or None


def keep_best(
    folder: Path,
    metric: str,
    step: int,
    values: Mapping[str, float],
    parameters: Mapping[str, torch.Tensor],
) -> None:
    """Write the weights of an evaluation if it is the best so far.

    Args:
        metric: the measure that decides; of equal values, such as the zeros of the first
            evaluations, the lower loss.
        values: of the evaluation; a NaN is neither better nor worse than anything.
        parameters: the trainable ones, by name.
    """
    value, loss = values[metric], values["loss"]
    if not (math.isfinite(value) and math.isfinite(loss)):
        return
    sign = -1 if metric in _LOWER_IS_BETTER else 1
    best = read_best(folder)
    if best is not None and (sign * value, -loss) <= (sign * best["value"], -best["loss"]):
        return
    file = f"best-{step}.safetensors"
    save_trained(parameters, folder / file)
    row = {"step": step, "metric": metric, "value": value, "loss": loss, "file": file}
    write_json(folder / BEST, row)
    for old in folder.glob("best-*.safetensors"):
        if old.name != file:
            old.unlink()
