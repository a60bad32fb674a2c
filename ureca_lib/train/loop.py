"""A training stage, from its settings to a model that captions (App. A).

The loop is plain: `accelerate` provides devices, mixed precision, DDP and FSDP; everything else is
below, in the order in which it happens. `ureca_lib.train.run_folder` lists the files of a run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, send_to_device, set_seed
from peft import PeftModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_scheduler

from ureca_lib.conversation import IGNORED
from ureca_lib.decoding import give_back_freed
from ureca_lib.journal import write_json
from ureca_lib.processor import UrecaProcessor
from ureca_lib.provenance import package_versions
from ureca_lib.train.data import (
    RegionCaptionDataset,
    RegionCollator,
    faults_of,
    open_data,
)
from ureca_lib.train.export import export_model, merge_run, write_card
from ureca_lib.train.features import GIB, FeatureCache, vision_fingerprint
from ureca_lib.train.held_out import HeldOut, measured
from ureca_lib.train.run_folder import (
    MODEL,
    RESULT,
    TRAINED,
    Log,
    Position,
    TrainingError,
    claim,
    drop_partial,
    keep_best,
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
from ureca_lib.train.settings import SettingsError, TrainSettings, computes_in_bf16
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
    path = Path(folder) / RESULT
    try:
        return TrainingResult(**read_json(path)) if path.is_file() else None
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{path}: not the result of a run ({error})") from None


def train_stage(
    settings: TrainSettings,
    out: str | Path,
    device: str = "cpu",
    resume: bool = True,
    progress: bool = True,
) -> TrainingResult:
    """Run a stage, or resume one that was interrupted; a stage that has ended is not run again.

    On a CPU, with the same number of threads, a run that was killed and resumed ends with the same
    weights, bit for bit, as a run that was not.

    Args:
        settings: of the stage.
        out: the run's folder.
        device: such as "cpu", "cuda", "cuda:1" or "mps"; with `accelerate launch` each process
            takes a GPU of its own.
        resume: false refuses a folder that holds a run.
        progress: show bars.

    Raises:
        TrainingError: the folder holds a run of other settings, is in use, or cannot be resumed.
        SettingsError, CheckpointError, CaptionedError, FileNotFoundError, RegionError: settings,
            model or data at fault, before the first step.
    """
    started, folder = time.perf_counter(), Path(out)
    accelerator = open_accelerator(settings, device)
    settings.accumulation(accelerator.num_processes)  # checked before anything is read
    main = accelerator.is_main_process
    with ExitStack() as stack:
        if main:
            stack.enter_context(claim(folder, settings, resume))
        if (done := read_result(folder)) is not None:
            return done
        set_seed(settings.seed)
        model, processor = load_start(settings)
        learner = StageModel(freeze_for_stage(model, settings))
        run = _prepare(settings, folder, learner, processor, accelerator, progress and main)
        if main:
            record_start(folder, settings, run.dataset.index.content)
        accelerator.wait_for_everyone()
        run.train()
        trained = run.trained()
        result = run.result()
        if main:
            kept, exported = _finish(run, trained), None
            if settings.export:
                exported = str(_export(run, processor, result))
            seconds = round(time.perf_counter() - started + run.earlier, 2)
            result = replace(result, kept_step=kept, model=exported, seconds=seconds)
            write_json(folder / RESULT, asdict(result))
        return result


def open_accelerator(settings: TrainSettings, device: str) -> Accelerator:
    """accelerate's view of this process, its device and precision.

    Raises:
        TrainingError: launched with DeepSpeed, or for a device that accelerate does not choose.
    """
    # an earlier run of this process may have had another device or precision
    AcceleratorState._reset_state(reset_partial_state=True)
    asked = own_device(device)
    bf16 = computes_in_bf16(settings.precision, asked.type)
    accelerator = Accelerator(
        cpu=asked.type == "cpu",
        mixed_precision="bf16" if bf16 else "no",
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise TrainingError("training runs on one device, with DDP or with FSDP, not DeepSpeed")
    if accelerator.device.type != asked.type:
        raise TrainingError(f"{device} was asked for, and accelerate chose {accelerator.device}")
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


def learning_rates(settings: TrainSettings, steps: int) -> list[float]:
    """The learning rate of each step: transformers' own schedule, stepped through."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    schedule = get_scheduler(settings.scheduler, optimizer, warmup_steps(settings, steps), steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def warmup_steps(settings: TrainSettings, steps: int) -> int:
    """Steps in which the learning rate rises."""
    return -int(-steps * settings.warmup // 1)


def _prepare(
    settings: TrainSettings,
    folder: Path,
    learner: StageModel,
    processor: UrecaProcessor,
    accelerator: Accelerator,
    progress: bool,
) -> Run:
    """Open the data, and make everything that the steps need.

    Raises:
        SettingsError: a fault of the data, naming its file, or its image and region.
    """
    images, held_out = open_data(settings, folder, progress)
    resumed = latest_checkpoint(folder)[0] is not None  # then files and texts were checked before
    words = None if resumed else processor.conversation
    for index in (images, held_out) if held_out is not None else (images,):
        if not resumed:
            index.check_files()
        if faults := faults_of(index, settings, words):
            raise SettingsError(faults[0])
    most, weights = processor.max_tiles_train, ""
    if (settings.cache or settings.memory_gib) and not settings.resize_share:
        sizes = int(settings.cache_gib * GIB), int(settings.memory_gib * GIB)
        learner.cache = FeatureCache(settings.cache, *sizes)
        weights = vision_fingerprint(learner.base, processor, most)
    grouped = settings.regions_per_image > 1 and processor.mask_position == "after_image"
    collator, watched = RegionCollator(processor, grouped), None
    if held_out is not None:
        watched = HeldOut(held_out, processor, settings, collator, most, learner.cache, weights)
    dataset = RegionCaptionDataset(images, processor, settings, most, learner.cache, weights)
    return Run(settings, folder, accelerator, learner, dataset, collator, watched, progress)


class Run:
    """The steps of a stage, on one of its processes.

    Args:
        settings, folder, accelerator: of the run.
        learner: the model with its loss; wrapped here for DDP or FSDP.
        dataset: the groups of the run, in order.
        collator: from groups to a batch.
        held_out: evaluated images, or None.
        progress: show bars.

    Raises:
        TrainingError: FSDP with an evaluation, or with a precision that it cannot shard.
    """

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        accelerator: Accelerator,
        learner: StageModel,
        dataset: RegionCaptionDataset,
        collator: RegionCollator,
        held_out: HeldOut | None,
        progress: bool,
    ):
        self.settings, self.folder, self.accelerator = settings, folder, accelerator
        self.learner, self.dataset, self.collator = learner, dataset, collator
        self.held_out, self.progress = held_out, progress
        self.steps = dataset.steps
        self.earlier = 0.0  # seconds of the steps of earlier processes
        self.sharded = accelerator.distributed_type == DistributedType.FSDP
        if self.sharded and held_out is not None:
            raise TrainingError(
                "captions cannot be generated while weights are sharded (FSDP): set eval_every = "
                "0, and evaluate the model after the run"
            )
        if self.sharded and settings.precision == "bfloat16":
            raise TrainingError(
                "FSDP shards weights of one type, and trainable weights are float32 among bfloat16 "
                'ones: set precision = "mixed"'
            )
        parameters = learner.trained()
        self.names = list(parameters)  # before anything wraps them
        self.trained_parameters = sum(parameter.numel() for parameter in parameters.values())
        self.model = accelerator.prepare(learner)
        self.optimizer = new_optimizer(self.model, settings)

    def train(self) -> None:
        """Run the steps, from the last checkpoint on."""
        s, accelerator = self.settings, self.accelerator
        micro, accumulated = s.accumulation(accelerator.num_processes)
        last, position = latest_checkpoint(self.folder)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            drop_partial(self.folder)
        epochs_per_step = s.batch_size / len(self.dataset.order)
        log = Log(self.folder, position.step, epochs_per_step, accelerator.is_main_process)
        self.earlier = log.earlier
        set_seed(s.seed)
        batches = self._batches(position.step, micro, accumulated)
        if last is not None:
            # after the loader has drawn its own seed from the generators
            load_checkpoint(last, accelerator, self.learner.trained(), self.optimizer)
        rates = learning_rates(s, self.steps)
        total, count = torch.tensor(position.loss, device=accelerator.device), position.count
        for step in tqdm(
            range(position.step + 1, self.steps + 1),
            "training",
            self.steps,
            initial=position.step,
            disable=not self.progress,
        ):
            for group in self.optimizer.param_groups:
                group["lr"] = rates[step - 1]
            loss, norm = self._step([next(batches) for _ in range(accumulated)])
            total, count = total + loss, count + 1
            ends = step == self.steps
            if step % s.log_every == 0:
                mean = accelerator.reduce(total, "mean").item() / count
                row = {"loss": mean, "grad_norm": float(norm), "learning_rate": rates[step - 1]}
                log.add(step, row)
                total, count = torch.zeros_like(total), 0
            if self.held_out is not None and (ends or step % s.eval_every == 0):
                self._evaluate(step, log)
            if ends or (s.save_every and step % s.save_every == 0):
                mean = accelerator.reduce(total, "mean").item()
                now = Position(step, mean, count)
                optimizer = None if self.sharded else self.optimizer
                save_checkpoint(
                    self.folder, accelerator, self.trained(), optimizer, now, s.keep_checkpoints
                )
            if step % GIVE_BACK_EVERY == 0:
                give_back_freed()

    def _batches(self, start: int, micro: int, accumulated: int) -> Iterator[dict[str, Any]]:
        """This process's batches from a step on: the order is a function of the step alone."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        firsts = [
            step * self.settings.batch_size + (part * processes + rank) * micro
            for step in range(start, self.steps)
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

    def _step(self, parts: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of the optimizer: this process's loss, and the norm of the gradients."""
        accelerator = self.accelerator
        parts = send_to_device(parts, accelerator.device)
        # answer tokens of the whole step, so that every token weighs the same, however a step is
        # shared out over processes and accumulated batches
        counts = torch.stack([(part["labels"][:, 1:] != IGNORED).sum() for part in parts])
        tokens = accelerator.reduce(counts.sum(), "sum")
        self.model.train()
        total = torch.zeros((), device=accelerator.device)
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            with nullcontext() if last else accelerator.no_sync(self.model):
                # DDP and FSDP average gradients over processes, and this loss is to be summed
                loss = self.model(**part, tokens=tokens) * accelerator.num_processes
                accelerator.backward(loss)
            total += loss.detach()
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, norm

    def _evaluate(self, step: int, log: Log) -> None:
        """Measure the held-out images, log it, and keep the weights if they are the best."""
        accelerator, started = self.accelerator, time.perf_counter()
        rank, processes = accelerator.process_index, accelerator.num_processes
        sums = self.held_out.evaluate(self.learner, rank, processes, self.progress)
        values = measured(accelerator.reduce(sums.to(accelerator.device), "sum").cpu())
        seconds = round(time.perf_counter() - started, 3)
        log.add(step, {f"eval_{name}": v for name, v in (values | {"seconds": seconds}).items()})
        if accelerator.is_main_process:
            metric = self.settings.best_metric
            keep_best(self.folder, metric, step, values, self.learner.trained())

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

    def result(self) -> TrainingResult:
        """How the run ended, before anything is exported."""
        evaluations = [row for row in read_log(self.folder) if "eval_loss" in row]
        last = evaluations[-1] if evaluations else {}
        order, groups = self.dataset.order, self.steps * self.settings.batch_size
        return TrainingResult(
            folder=str(self.folder),
            model=None,
            steps=self.steps,
            epochs=round(groups / len(order), 4),
            samples=round(groups * int(order.counts.sum()) / len(order)),
            seconds=0.0,
            trained_parameters=self.trained_parameters,
            final={k.removeprefix("eval_"): v for k, v in last.items() if k.startswith("eval_")},
            best=read_best(self.folder),
            kept_step=self.steps,
        )


def new_optimizer(model: torch.nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW on a model's trainable parameters; biases do not decay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for name, p in named if name.endswith("bias") == is_bias],
            "weight_decay": 0.0 if is_bias else settings.weight_decay,
        }
        for is_bias in (False, True)
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate)


def _finish(run: Run, trained: dict[str, torch.Tensor]) -> int:
    """Write the weights that the run ends with, and put them into the model; returns their step."""
    best, kept = read_best(run.folder), run.steps
    if best is not None and run.settings.keep == "best":
        load_trained(trained, run.folder / best["file"])
        kept = best["step"]
    save_trained(trained, run.folder / TRAINED)
    if isinstance(run.learner.model, PeftModel) and not run.sharded:
        run.learner.model.save_pretrained(run.folder / "adapter")
    return kept


def _export(run: Run, processor: UrecaProcessor, result: TrainingResult) -> Path:
    # a folder that is there was written by a process that was killed before it wrote the result
    shutil.rmtree(run.folder / MODEL, ignore_errors=True)
    if run.sharded:  # its modules are of use to all processes together only
        return merge_run(run.folder, run.folder / MODEL)
    export_model(run.learner.model, processor, run.folder / MODEL)
    write_card(run.folder / MODEL, run.settings.to_dict(), result.final)
    return run.folder / MODEL
