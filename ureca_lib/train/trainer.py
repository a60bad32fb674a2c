"""transformers' Trainer, with our loss, order, checkpoints and evaluation.

Trainer runs the loop: accumulation, mixed precision, clipping, schedule, devices, DDP, FSDP and
DeepSpeed. Ours are: what a checkpoint holds (`ureca_lib.train.checkpointing`), that it counts only
when whole, evaluation by generation, the best weights, and a log in JSON lines.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import is_tensorboard_available

from ureca_lib.decoding import give_back_freed
from ureca_lib.train.checkpointing import (
    TRAINED,
    TrainingError,
    drop_old,
    load_random_states,
    load_trained,
    save_random_states,
    save_trained,
    seal,
    write_json,
)
from ureca_lib.train.evaluation import HeldOut, measured
from ureca_lib.train.precision import computes_in_bf16
from ureca_lib.train.settings import TrainSettings

LOG = "log.jsonl"
BEST = "best.json"
GIVE_BACK_EVERY = 20  # steps
_LOWER_IS_BETTER = ("loss",)


def training_arguments(
    settings: TrainSettings, out: Path, steps: int, device: str, processes: int, progress: bool
) -> TrainingArguments:
    """transformers' settings of a run; what is not named here is their default."""
    micro, accumulated = settings.accumulation(processes)
    evaluated = bool(settings.eval_every)
    return TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=warmup_steps(settings, steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch",
        bf16=computes_in_bf16(settings.precision, device),
        seed=settings.seed,
        use_cpu=device == "cpu",
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluated else "no",
        eval_steps=settings.eval_every or None,
        save_strategy="steps",
        save_steps=settings.save_every or steps,
        save_total_limit=None,  # ours are removed once the new one is whole
        report_to="tensorboard" if is_tensorboard_available() else "none",
        disable_tqdm=not progress,
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
    )


def warmup_steps(settings: TrainSettings, steps: int) -> int:
    """Steps in which the learning rate rises."""
    return -int(-steps * settings.warmup // 1)


class RegionTrainer(Trainer):
    """See the module.

    Args:
        settings: of the run.
        held_out: what is evaluated; None for nothing.
        groups_an_epoch: for the log's epochs.
        options: of `Trainer`; the model is a `StageModel`.
    """

    def __init__(
        self, settings: TrainSettings, held_out: HeldOut | None, groups_an_epoch: int, **options
    ):
        super().__init__(**options)
        self.settings, self.held_out = settings, held_out
        self.folder = Path(self.args.output_dir)
        self.json_log = JsonLog(self.folder / LOG, settings.batch_size / groups_an_epoch)
        self.remove_callback(PrinterCallback)
        self.add_callback(self.json_log)
        self.add_callback(EvaluateAtEnd())
        self.add_callback(GiveMemoryBack())
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded and held_out is not None:
            raise TrainingError(
                "captions cannot be generated while weights are sharded (FSDP, DeepSpeed): set "
                "eval_every = 0, and evaluate what the run ends with"
            )
        if self.is_fsdp_enabled and settings.precision == "bfloat16":
            raise TrainingError(
                "FSDP shards weights of one type, and what learns is float32 among bfloat16 "
                'ones: set precision = "mixed"'
            )
        self.sharded = sharded
        learnt = options["model"].trained()
        self._names = list(learnt)  # as they are before anything wraps them
        self.learnt_numbers = sum(parameter.numel() for parameter in learnt.values())

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        """The dataset is the run in its order."""
        return SequentialSampler(self.train_dataset)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the held-out images, log it, and keep the weights if they are the best."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        model = self.accelerator.unwrap_model(self.model)
        started = time.perf_counter()
        sums = self.held_out.evaluate(model, rank, world, not self.args.disable_tqdm)
        sums = self.accelerator.reduce(sums.to(self.args.device), "sum").cpu()
        metrics = {f"eval_{name}": value for name, value in measured(sums).items()}
        metrics["eval_seconds"] = round(time.perf_counter() - started, 3)
        self.log(metrics)
        if self.accelerator.is_main_process:
            self._keep_best(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _keep_best(self, metrics: dict[str, float]) -> None:
        name = self.settings.best_metric
        value = metrics.get(f"eval_{name}")
        if value is None:
            raise TrainingError(f"best_metric {name} is for scenes: the data has none")
        if not (math.isfinite(value) and math.isfinite(metrics["eval_loss"])):
            return  # a NaN is neither better nor worse than anything
        best = read_best(self.folder)
        sign = -1 if name in _LOWER_IS_BETTER else 1
        told = {"metric": name, "value": value, "loss": metrics["eval_loss"]}
        # of equal ones, such as the zeros of the first evaluations, the lower loss
        if best is not None and _rank(told, sign) <= _rank(best, sign):
            return
        step = self.state.global_step
        file = f"best-{step}.safetensors"
        save_trained(self.accelerator.unwrap_model(self.model).trained(), self.folder / file)
        write_json(self.folder / BEST, {"step": step, **told, "file": file})
        for old in self.folder.glob("best-*.safetensors"):
            if old.name != file:
                old.unlink()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write what learns; without transformers' training_args.bin, which is a pickle."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = self._learnt(state_dict) if state_dict is not None else self.trained()
        save_trained(trained, folder / TRAINED)

    def trained(self) -> dict[str, torch.Tensor]:
        """What learns, by its name in the model; every process calls this where it is sharded."""
        if self.sharded:
            return self._learnt(self.accelerator.get_state_dict(self.model_wrapped))
        return self.accelerator.unwrap_model(self.model).trained()

    def _learnt(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # a sharded model's whole weights are on the main process only
        whole = {name.removeprefix("model."): value for name, value in state_dict.items()}
        return {name: whole[name] for name in self._names if name in whole}

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(self.folder / f"checkpoint-{self.state.global_step}")
            drop_old(self.folder, self.settings.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.sharded:
            raise TrainingError(
                f"{resume_from_checkpoint}: a run of FSDP or DeepSpeed cannot be resumed; plain "
                "`accelerate launch --multi_gpu` can, and the trained parts are small"
            )
        inner = self.accelerator.unwrap_model(model or self.model)
        load_trained(inner.trained(), Path(resume_from_checkpoint) / TRAINED)

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_random_states(self._rng_file(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_states(self._rng_file(checkpoint))

    def _rng_file(self, folder: str) -> Path:
        return Path(folder) / f"random_{self.args.process_index}.safetensors"


class EvaluateAtEnd(TrainerCallback):
    """Evaluates after the last step too, where a run is evaluated at all."""

    def on_step_end(self, args, state, control, **_):
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True
        return control


class GiveMemoryBack(TrainerCallback):
    """Gives freed memory back now and then; see `give_back_freed`."""

    def on_step_end(self, args, state, control, **_):
        if state.global_step % GIVE_BACK_EVERY == 0:
            give_back_freed()


class JsonLog(TrainerCallback):
    """Losses, rates and evaluations as JSON lines, one a step that is logged.

    Args:
        path: the file; lines of steps that are to be run again are dropped.
        epochs_a_step: for each line's epoch.

    Attributes:
        earlier: seconds that the steps took which an earlier process has done.
    """

    def __init__(self, path: Path, epochs_a_step: float):
        self.path, self.epochs_a_step = path, epochs_a_step
        self.started, self.earlier = time.perf_counter(), 0.0

    def on_train_begin(self, args, state, control, **_):
        self.started = time.perf_counter()
        if state.is_world_process_zero and self.path.is_file():
            kept = [row for row in read_log(self.path.parent) if row["step"] <= state.global_step]
            partial = self.path.with_name(f".{self.path.name}")
            partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
            partial.replace(self.path)
            self.earlier = kept[-1]["seconds"] if kept else 0.0
            self.started -= self.earlier

    def on_log(self, args, state, control, logs=None, **_):
        told = {name: value for name, value in (logs or {}).items() if _is_kept(name)}
        if not told or not state.is_world_process_zero:
            return
        epoch = round(state.global_step * self.epochs_a_step, 4)
        seconds = round(time.perf_counter() - self.started, 2)
        row = {"step": state.global_step, "epoch": epoch, "seconds": seconds} | told
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _rank(told: dict[str, Any], sign: int) -> tuple[float, float]:
    return sign * told["value"], -told["loss"]


def _is_kept(name: str) -> bool:
    return name in ("loss", "grad_norm", "learning_rate") or name.startswith("eval_")


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's log so far; one that a kill cut off is left out."""
    path, rows = Path(folder) / LOG, []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def read_best(folder: str | Path) -> dict[str, Any] | None:
    """Step, metric, value, loss and file of a run's best weights, or None where none were kept."""
    path = Path(folder) / BEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
