"""A training stage, from its settings to a model that captions (App. A).

The loop is plain: `accelerate` provides devices, mixed precision, DDP and FSDP; everything else is
below, in the order in which it happens. `ureca_lib.train.run_folder` lists the files of a run.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, send_to_device, set_seed
from filelock import FileLock
from peft import PeftModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_scheduler

from ureca_lib.conversation import IGNORED
from ureca_lib.decoding import give_back_freed
from ureca_lib.journal import write_json
from ureca_lib.provenance import package_versions
from ureca_lib.train.data import RegionCaptionDataset, RegionCollator, check_data, open_data
from ureca_lib.train.export import merge_run
from ureca_lib.train.held_out import evaluate
from ureca_lib.train.run_folder import (
    MODEL,
    RESULT,
    TRAINED,
    Log,
    Position,
    check_claim,
    keep_best,
    last_evaluation,
    latest_checkpoint,
    load_checkpoint,
    load_trained,
    read_best,
    read_json,
    read_log,
    record_start,
    save_checkpoint,
    save_trained,
)
from ureca_lib.train.settings import TrainSettings
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start

GIVE_BACK_EVERY = 20  # steps


@dataclass(frozen=True)
class TrainingResult:
    """How a stage ended.

    Attributes:
        folder: of the run.
        model: folder of the whole trained model; None if it was not exported.
        steps, epochs, samples: done in all; a sample is a region.
        seconds: of this process, and of the steps of processes that were killed.
        trained_parameters: number of trainable parameters.
        final: the last evaluation, by name; empty if nothing was evaluated.
        best: step, metric and value of the best evaluation, or None.
        kept_step: the step whose weights the run ends with.
        versions: of Python and packages.
    """

    folder: str
    model: str | None
    steps: int
    epochs: float
    samples: int
    seconds: float
    trained_parameters: int
    final: dict[str, float]
    best: dict[str, Any] | None
    kept_step: int
    versions: dict[str, str] = field(default_factory=package_versions)

    @property
    def log(self) -> list[dict[str, Any]]:
        """Losses, learning rates and evaluations by step."""
        return read_log(self.folder)


def read_result(folder: str | Path) -> TrainingResult | None:
    """How a run ended, or None if it has not."""
    row = read_json(Path(folder) / RESULT)
    return TrainingResult(**row) if row else None


def train_stage(
    settings: TrainSettings, out: str | Path, device: str = "cpu", progress: bool = True
) -> TrainingResult:
    """Run a stage, or resume one that was interrupted; a stage that has ended is not run again.

    On a CPU, with the same number of threads, a run that was killed and resumed ends with the same
    weights, bit for bit, as a run that was not.

    Args:
        settings: of the stage.
        out: the run's folder.
        device: such as "cpu", "cuda", "cuda:1" or "mps"; with `accelerate launch` each process
            takes a GPU of its own.
        progress: show bars.

    Raises:
        ValueError: settings, model or data at fault, before the first step; or the folder holds a
            run of other settings, or one that cannot be resumed.
        OSError: a file is missing, or another process is training in the folder.
    """
    started, folder = time.perf_counter(), Path(out)
    accelerator = open_accelerator(settings, device)
    settings.accumulation(accelerator.num_processes)  # checked before anything is read
    main = accelerator.is_main_process
    with ExitStack() as stack:
        if main:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / ".lock", timeout=0))
            check_claim(folder, settings)
        if (done := read_result(folder)) is not None:
            return done
        run = Run(settings, folder, accelerator, progress and main)
        if main:
            record_start(folder, settings, run.dataset.index.content)
        accelerator.wait_for_everyone()
        run.train()
        return run.finish(started)


def open_accelerator(settings: TrainSettings, device: str) -> Accelerator:
    """accelerate's view of this process, its device and precision.

    Raises:
        ValueError: a device that accelerate does not choose.
    """
    # an earlier run of this process may have had another device or precision
    AcceleratorState._reset_state(reset_partial_state=True)
    asked = own_device(device)
    bf16 = computes_in_bf16(settings.precision, asked.type)
    accelerator = Accelerator(cpu=asked.type == "cpu", mixed_precision="bf16" if bf16 else "no")
    if accelerator.device.type != asked.type:
        raise ValueError(f"{device} was asked for, and accelerate chose {accelerator.device}")
    return accelerator


def own_device(device: str) -> torch.device:
    """The device of this process, made the current one: `accelerate launch` gives each its own.

    accelerate would choose the same one, but only at the first step.
    """
    asked = torch.device(device)
    if asked.type != "cuda":
        return asked
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", asked.index or 0)))
    torch.cuda.set_device(own)
    return own


def computes_in_bf16(precision: str, device: str) -> bool:
    """Whether a run autocasts to bfloat16.

    Args:
        precision: of `TrainSettings`: "bfloat16" always, "float32" never, "mixed" where the device
            multiplies bfloat16 itself.
        device: type of the device, such as "cpu" or "cuda".
    """
    if precision != "mixed":
        return precision == "bfloat16"
    if device == "cpu":  # without these instructions, autocast would make it slower
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device == "cuda" and torch.cuda.is_bf16_supported()


def learning_rates(settings: TrainSettings, steps: int) -> list[float]:
    """The learning rate of each step: transformers' own schedule."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    schedule = get_scheduler(settings.scheduler, optimizer, warmup_steps(settings, steps), steps)
    factor = schedule.lr_lambdas[0]
    return [settings.learning_rate * factor(step) for step in range(steps)]


def warmup_steps(settings: TrainSettings, steps: int) -> int:
    """Steps in which the learning rate rises."""
    return math.ceil(steps * settings.warmup)


def new_optimizer(model: torch.nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW on a model's trainable parameters; biases do not decay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if not name.endswith("bias")]
    biases = [p for name, p in named if name.endswith("bias")]
    groups = [{"params": decayed}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, settings.learning_rate, weight_decay=settings.weight_decay)


class Run:
    """A stage on one of its processes: model, data, and the steps.

    Args:
        settings, folder, accelerator: of the run.
        progress: show bars.

    Raises:
        ValueError, OSError: model or data at fault; FSDP with an evaluation, or with a precision
            that it cannot shard.
    """

    def __init__(
        self, settings: TrainSettings, folder: Path, accelerator: Accelerator, progress: bool
    ):
        self.settings, self.folder, self.accelerator = settings, folder, accelerator
        self.progress = progress
        self.sharded = accelerator.distributed_type == DistributedType.FSDP
        if self.sharded and settings.eval_every:
            raise ValueError(
                "captions cannot be generated while weights are sharded (FSDP): set eval_every = "
                "0, and evaluate the model after the run"
            )
        if self.sharded and settings.precision == "bfloat16":
            raise ValueError(
                "FSDP shards weights of one type, and trainable weights are float32 among bfloat16 "
                'ones: set precision = "mixed"'
            )
        set_seed(settings.seed)
        model, self.processor = load_start(settings)
        self.learner = StageModel(freeze_for_stage(model, settings))
        images, self.held_out = open_data(settings, folder, progress)
        if latest_checkpoint(folder)[0] is None:  # else it was checked before
            for index in filter(None, (images, self.held_out)):
                check_data(index, settings, self.processor.conversation)
        after = self.processor.mask_position == "after_image"
        self.collator = RegionCollator(self.processor, settings.regions_per_image > 1 and after)
        self.dataset = RegionCaptionDataset(images, self.processor, settings)
        # names and number before anything wraps them
        parameters = self.learner.trained()
        self.names = list(parameters)
        self.trained_parameters = sum(parameter.numel() for parameter in parameters.values())
        self.model = accelerator.prepare(self.learner)
        self.optimizer = new_optimizer(self.model, settings)

    def train(self) -> None:
        """Run the steps, from the last checkpoint on."""
        s, accelerator, steps = self.settings, self.accelerator, self.dataset.steps
        last, position = latest_checkpoint(self.folder)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            for path in self.folder.glob(".checkpoint-*"):  # interrupted by a kill
                shutil.rmtree(path)
        self.log = Log(self.folder, position.step, accelerator.is_main_process)
        set_seed(s.seed)
        batches = self._batches(position.step)
        if last is not None:
            # after the loader has drawn its own seed from the generators
            load_checkpoint(last, accelerator, self.learner.trained(), self.optimizer)
        rates = learning_rates(s, steps)
        total, count = torch.tensor(position.loss, device=accelerator.device), position.count
        numbers = range(position.step + 1, steps + 1)
        for step in tqdm(
            numbers, "training", steps, initial=position.step, disable=not self.progress
        ):
            for group in self.optimizer.param_groups:
                group["lr"] = rates[step - 1]
            loss, norm = self._step(batches)
            total, count = total + loss, count + 1
            ends = step == steps
            if step % s.log_every == 0:
                mean = accelerator.reduce(total, "mean").item() / count
                row = {"loss": mean, "grad_norm": float(norm), "learning_rate": rates[step - 1]}
                self.log.add(step, epoch=self._epochs(step), **row)
                total, count = torch.zeros_like(total), 0
            if self.held_out is not None and (ends or step % s.eval_every == 0):
                self._evaluate(step)
            if ends or (s.save_every and step % s.save_every == 0):
                now = Position(step, accelerator.reduce(total, "mean").item(), count)
                optimizer = None if self.sharded else self.optimizer
                save_checkpoint(
                    self.folder, accelerator, self.trained(), optimizer, now, s.keep_checkpoints
                )
            if step % GIVE_BACK_EVERY == 0:
                give_back_freed()

    def _batches(self, start: int) -> Iterator[dict[str, Any]]:
        """This process's batches from a step on: the order is a function of the step alone."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        micro, accumulated = self.settings.accumulation(processes)
        firsts = [
            step * self.settings.batch_size + (part * processes + rank) * micro
            for step in range(start, self.dataset.steps)
            for part in range(accumulated)
        ]
        loader = DataLoader(
            self.dataset,
            batch_sampler=[range(first, first + micro) for first in firsts],
            collate_fn=self.collator,
            num_workers=self.settings.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return iter(loader)

    def _step(self, batches: Iterator[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of the optimizer: this process's loss, and the norm of the gradients."""
        accelerator, processes = self.accelerator, self.accelerator.num_processes
        _, accumulated = self.settings.accumulation(processes)
        parts = [send_to_device(next(batches), accelerator.device) for _ in range(accumulated)]
        # answer tokens of the whole step, so that every token weighs the same, however a step is
        # shared out over processes and accumulated batches
        counts = torch.stack([(part["labels"][:, 1:] != IGNORED).sum() for part in parts])
        tokens = accelerator.reduce(counts.sum(), "sum")
        self.model.train()
        total = torch.zeros((), device=accelerator.device)
        for number, part in enumerate(parts, 1):
            with nullcontext() if number == accumulated else accelerator.no_sync(self.model):
                # DDP and FSDP average gradients over processes, and this loss is to be summed
                loss = self.model(**part, tokens=tokens) * processes
                accelerator.backward(loss)
            total += loss.detach()
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, norm

    def _epochs(self, step: int) -> float:
        """Passes over the data that are done after a step."""
        return round(step * self.settings.batch_size / len(self.dataset.order), 4)

    def _evaluate(self, step: int) -> None:
        """Measure the held-out images, log it, and keep the weights if they are the best."""
        if self.accelerator.is_main_process:
            started = time.perf_counter()
            data = self.held_out, self.dataset, self.collator
            values = evaluate(self.learner, *data, self.progress)
            timed = values | {"seconds": round(time.perf_counter() - started, 3)}
            row = {f"eval_{name}": value for name, value in timed.items()}
            self.log.add(step, epoch=self._epochs(step), **row)
            keep_best(self.folder, self.settings.best_metric, step, values, self.learner.trained())
        self.accelerator.wait_for_everyone()

    def trained(self) -> dict[str, torch.Tensor]:
        """Trainable parameters by name. With sharding, every process must call this.

        Returns:
            With sharding whole weights on the main process, and nothing on the others.
        """
        if not self.sharded:
            return self.learner.trained()
        state = self.accelerator.get_state_dict(self.model)
        whole = {name.removeprefix("model."): value for name, value in state.items()}
        return {name: whole[name] for name in self.names if name in whole}

    def finish(self, started: float) -> TrainingResult:
        """Write the weights that the run ends with, the whole model and the result.

        Args:
            started: time of the performance counter when the process began.
        """
        s, folder, learner, trained = self.settings, self.folder, self.learner, self.trained()
        steps, order = self.dataset.steps, self.dataset.order
        groups, best = steps * s.batch_size, read_best(folder)
        kept, model = steps, None
        if self.accelerator.is_main_process:
            if best is not None and s.keep == "best":
                load_trained(trained, folder / best["file"])
                kept = best["step"]
            save_trained(trained, folder / TRAINED)
            if isinstance(learner.model, PeftModel) and not self.sharded:
                learner.model.save_pretrained(folder / "adapter")
            if s.export:
                # a folder that is there is of a process that was killed before it wrote the result
                shutil.rmtree(folder / MODEL, ignore_errors=True)
                model = merge_run(folder, folder / MODEL)
        result = TrainingResult(
            folder=str(folder),
            model=None if model is None else str(model),
            steps=steps,
            epochs=self._epochs(steps),
            samples=round(groups * int(order.counts.sum()) / len(order)),
            seconds=round(time.perf_counter() - started + self.log.earlier, 2),
            trained_parameters=self.trained_parameters,
            final=last_evaluation(folder),
            best=best,
            kept_step=kept,
        )
        if self.accelerator.is_main_process:
            write_json(folder / RESULT, asdict(result))
        return result
