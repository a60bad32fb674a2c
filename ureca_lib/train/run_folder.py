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
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ureca_lib.journal import read_journal, write_json, write_text
from ureca_lib.provenance import model_record
from ureca_lib.train.settings import TrainSettings, renamed

SETTINGS, START, RESULT = "settings.json", "start.json", "result.json"
LOG, BEST = "log.jsonl", "best.json"
TRAINED, OPTIMIZER, POSITION = "trained.safetensors", "optimizer.safetensors", "position.json"
MODEL = "model"
# settings that change how a run is done on a machine, but not its result
OF_THE_MACHINE = {"workers", "keep_checkpoints", "log_every"}


class Position(NamedTuple):
    """Steps done, and the sum and number of the losses since the last line of the log."""

    step: int = 0
    loss: float = 0.0
    count: int = 0


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def check_claim(folder: Path, settings: TrainSettings) -> None:
    """Check that a folder is empty or holds this run; nothing is written.

    So settings that turn out to be wrong, such as a mistyped `model`, can be corrected in the same
    folder; see `record_start`.

    Raises:
        ValueError: the folder holds another run or other files.
    """
    if not (folder / SETTINGS).is_file():
        # a run that was killed at its very start may have left its second file alone
        if any(not (file.name.startswith(".") or file.name == START) for file in folder.iterdir()):
            raise ValueError(f"{folder} holds something else: name another folder")
        return
    # a setting that an earlier version did not have was at its default
    there, asked = asdict(TrainSettings()) | renamed(read_json(folder / SETTINGS)), asdict(settings)
    relevant = asked.keys() - OF_THE_MACHINE
    if differing := sorted(name for name in relevant if there[name] != asked[name]):
        names = ", ".join(differing)
        raise ValueError(f"{folder} holds a run of other settings ({names}): name another folder")
    starts = read_json(folder / START), model_record(settings.model or "")
    then, now = (each.get("weights") for each in starts)
    # as far as both are known: the base may have been moved since
    if then and now and then != now:
        raise ValueError(
            f"{folder} holds a run that started from other weights than {settings.model} has "
            "now: name another folder"
        )


def record_start(folder: Path, settings: TrainSettings, content: str) -> None:
    """Write a run's settings, its starting weights and the hash of its data.

    Raises:
        ValueError: the run began with other data; a resumed run would visit different samples.
    """
    start = dict(model_record(settings.model or ""))
    if (folder / SETTINGS).is_file():
        start = read_json(folder / START)
    if start.setdefault("data", content) != content:
        raise ValueError(
            f"{folder} holds a run on other images, masks or captions than {settings.data} has "
            "now: name another folder"
        )
    write_json(folder / START, start)
    write_json(folder / SETTINGS, asdict(settings))


def save_trained(parameters: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the trainable parameters, as they are, in one step."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    partial = path.with_name(f".{path.name}")
    save_file(tensors, partial)
    partial.replace(path)


def load_trained(parameters: Mapping[str, torch.Tensor], path: Path) -> None:
    """Read the file of `save_trained` into parameters of the same names.

    Raises:
        FileNotFoundError: no such file. ValueError: other names or shapes, with one of them.
    """
    stored = load_file(path)
    shapes = ({(name, tuple(t.shape)) for name, t in each.items()} for each in (stored, parameters))
    if differing := sorted(set.symmetric_difference(*shapes)):
        raise ValueError(f"{path}: other weights than the model's, such as {differing[0]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
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
    # all other draws are functions of the seed and the step
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    save_file(states, _random_file(partial, accelerator))
    if accelerator.is_main_process:
        save_trained(parameters, partial / TRAINED)
        if optimizer is not None:
            save_file(moments(optimizer, parameters), partial / OPTIMIZER)
        write_json(partial / POSITION, position._asdict())
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
        FileNotFoundError: a checkpoint of an FSDP run, which has no optimizer state, or of a run
            on fewer processes.
    """
    load_trained(parameters, path / TRAINED)
    set_moments(optimizer, parameters, load_file(path / OPTIMIZER))
    states = load_file(_random_file(path, accelerator))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _random_file(folder: Path, accelerator: Accelerator) -> Path:
    return folder / f"random_{accelerator.process_index}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, earliest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def latest_checkpoint(folder: Path) -> tuple[Path | None, Position]:
    """The last checkpoint whose files can be read, and its position; None if there is none."""
    for path in reversed(checkpoints(folder)):
        try:
            for file in path.glob("*.safetensors"):
                with safe_open(file, "pt"):  # checks the header against the file's length
                    pass
            return path, Position(**json.loads((path / POSITION).read_text(encoding="utf-8")))
        except (OSError, ValueError, SafetensorError):
            continue  # damaged after it was written: the one before it is used
    return None, Position()


class Log:
    """A run's log as JSON lines, with the time that its steps took.

    Args:
        folder: of the run.
        step: of the checkpoint; lines of later steps, which will be repeated, are dropped.
        write: false on all processes but the main one.

    Attributes:
        earlier: seconds of the steps of earlier processes.
    """

    def __init__(self, folder: Path, step: int, write: bool):
        self.path, self.write = folder / LOG, write
        rows = [row for row in read_log(folder) if row["step"] <= step]
        if write:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.earlier = rows[-1]["seconds"] if rows else 0.0
        self._began = time.perf_counter() - self.earlier

    def add(self, step: int, **values: float) -> None:
        """Append a line."""
        if self.write:
            row = {"step": step, "seconds": round(time.perf_counter() - self._began, 2), **values}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's log so far; a line that a kill cut off is left out."""
    path = Path(folder) / LOG
    return list(read_journal(path)) if path.is_file() else []


def last_evaluation(folder: Path) -> dict[str, float]:
    """Measures of a run's last evaluation so far, by name; empty if there is none."""
    evaluated = [row for row in read_log(folder) if "eval_loss" in row]
    row = evaluated[-1] if evaluated else {}
    return {name.removeprefix("eval_"): row[name] for name in row if name.startswith("eval_")}


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
    sign = -1 if metric == "loss" else 1  # what is best
    best = read_best(folder) or {"value": -sign * math.inf, "loss": math.inf}
    if not (sign * value, -loss) > (sign * best["value"], -best["loss"]) or not math.isfinite(loss):
        return
    file = f"best-{step}.safetensors"
    save_trained(parameters, folder / file)
    row = {"step": step, "metric": metric, "value": value, "loss": loss, "file": file}
    write_json(folder / BEST, row)
    for old in folder.glob("best-*.safetensors"):
        if old.name != file:
            old.unlink()
