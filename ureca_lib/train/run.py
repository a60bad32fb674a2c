"""A training stage from its settings to a model that captions: what the command, the notebook and
the sweeps call.

    settings.json      all settings, as resolved
    start.json         which weights it started from, and what its data was
    log.jsonl          losses, rates, evaluations
    checkpoint-N/      what a killed run goes on from
    best.json          which step was best in evaluation, and its weights beside it
    trained.safetensors, adapter/   what was learnt; in stage 2 for peft too
    model/             the whole model with it, for `RegionCaptioner.from_pretrained`
    result.json        how it ended; written last
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from peft import PeftModel
from transformers import set_seed

from ureca_lib.processor import UrecaProcessor
from ureca_lib.provenance import model_record
from ureca_lib.train.checkpointing import (
    TRAINED,
    TrainingError,
    drop_partial,
    latest_whole,
    load_trained,
    save_trained,
    write_json,
)
from ureca_lib.train.collator import RegionCollator
from ureca_lib.train.data import open_data
from ureca_lib.train.evaluation import HeldOut
from ureca_lib.train.features import GIB, FeatureCache, vision_fingerprint
from ureca_lib.train.images import TrainingImages
from ureca_lib.train.merge import export_model, merge_run
from ureca_lib.train.samples import GroupDataset, total_steps
from ureca_lib.train.settings import TrainSettings
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start
from ureca_lib.train.trainer import RegionTrainer, read_best, read_log, training_arguments

PACKAGES = ("ureca-lib", "torch", "transformers", "accelerate", "peft", "numpy")
# settings that change how a run is done on a machine, and nothing of what it ends with
OF_THE_MACHINE = (
    "workers", "memory_gib", "cache", "cache_gib", "keep_checkpoints", "log_every",
)  # fmt: skip
SETTINGS, START, RESULT, MODEL = "settings.json", "start.json", "result.json", "model"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run ends with."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


@dataclass(frozen=True)
class TrainingResult:
    """How a stage ended.

    Attributes:
        folder: the run's.
        model: folder of the whole trained model; None where it was not exported.
        steps, epochs, samples: done in all; a sample is a region.
        seconds: reading the data included; of processes that were killed, only their steps.
        trained_parameters: numbers that learnt.
        final: the last evaluation, by name; empty where nothing was evaluated.
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
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def log(self) -> list[dict[str, Any]]:
        """Losses, rates and evaluations by step."""
        return read_log(self.folder)


def train_stage(
    settings: TrainSettings,
    out: str | Path,
    device: str = "cpu",
    resume: bool = True,
    progress: bool = True,
) -> TrainingResult:
    """Run a stage, or go on with one that was stopped; one that has ended is not run again.

    On a CPU, with as many threads, a run that was killed and resumed ends with the same weights,
    bit for bit, as one that was not.

    Args:
        settings: of the stage.
        out: the run's folder.
        device: "cpu", or "cuda": each process of `accelerate launch` takes its own.
        resume: false refuses a folder that holds a run.
        progress: show bars.

    Raises:
        TrainingError: the folder holds a run of other settings, is in use, or cannot be resumed.
        SettingsError, CheckpointError, CaptionedError, FileNotFoundError, RegionError: settings,
            model or data at fault, before anything is learnt.
    """
    started, folder = time.perf_counter(), Path(out)
    main, processes = _rank() == 0, int(os.environ.get("WORLD_SIZE", 1))
    settings.accumulation(processes)  # before anything is read
    with ExitStack() as stack:
        if main:
            stack.enter_context(_claimed(folder, settings, resume))
        if (done := read_result(folder)) is not None:
            return done
        set_seed(settings.seed)
        model, processor = load_start(settings)
        learner = StageModel(freeze_for_stage(model, settings))
        trainer, images = _trainer(settings, folder, learner, processor, device, progress)
        if main:
            _check_data(folder, settings, images.content())
        _learn(trainer, folder)
        result, trained = _result(settings, folder, trainer, images), trainer.trained()
        if not main:
            return result
        kept, exported = _finish(settings, folder, trainer, trained), None
        if settings.export:
            exported = str(_export(trainer, learner, processor, folder))
        seconds = round(time.perf_counter() - started + trainer.json_log.earlier, 2)
        result = replace(result, kept_step=kept, model=exported, seconds=seconds)
        write_json(folder / RESULT, asdict(result))
        return result


def _learn(trainer: RegionTrainer, folder: Path) -> None:
    """Run the loop, from the last checkpoint that is whole."""
    last = latest_whole(folder)
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        drop_partial(folder)
    with warnings.catch_warnings():
        # of a rate scheduler that accelerate steps itself
        warnings.filterwarnings("ignore", category=UserWarning, module="torch.optim")
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    trainer.accelerator.wait_for_everyone()


def _export(
    trainer: RegionTrainer, learner: StageModel, processor: UrecaProcessor, folder: Path
) -> Path:
    # what is there was written whole by a process that was killed before it could say so
    shutil.rmtree(folder / MODEL, ignore_errors=True)
    if trainer.sharded:  # its modules are of use to all processes together only
        return merge_run(folder, folder / MODEL)
    return export_model(learner.model, processor, folder / MODEL)


def _trainer(
    settings: TrainSettings,
    folder: Path,
    learner: StageModel,
    processor: UrecaProcessor,
    device: str,
    progress: bool,
) -> tuple[RegionTrainer, TrainingImages]:
    """Data, arguments and the loop of a run."""
    shown = progress and _rank() == 0
    learnt, held_out = open_data(settings)
    most = processor.max_tiles_train
    if (settings.cache or settings.memory_gib) and not settings.resize_share:
        learner.cache = _cache(settings)
    print_of = "" if learner.cache is None else vision_fingerprint(learner.base, processor, most)
    memory = int(settings.memory_gib * GIB)
    images = TrainingImages(learnt, processor, most, learner.cache, print_of, memory // 2)
    _read_images(images, learner, own_device(device), shown)
    grouped = settings.regions_per_image > 1 and processor.mask_position == "after_image"
    collator = RegionCollator(processor, grouped)
    dataset = GroupDataset(images, settings, 0)
    steps = total_steps(settings, len(dataset.order))
    dataset.length = steps * settings.batch_size
    watched = None
    if len(held_out):
        watched = HeldOut(held_out, processor, settings, collator, most, learner.cache, print_of)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    args = training_arguments(settings, folder, steps, device, processes, shown)
    args._n_gpu = min(args.n_gpu, 1)  # several GPUs are several processes, not torch's DataParallel
    options = {"model": learner, "args": args, "train_dataset": dataset, "data_collator": collator}
    if watched is not None:
        options["eval_dataset"] = watched.groups
    return RegionTrainer(settings, watched, len(dataset.order), **options), images


def _cache(settings: TrainSettings) -> FeatureCache:
    memory = int(settings.memory_gib * GIB)
    return FeatureCache(settings.cache, int(settings.cache_gib * GIB), memory - memory // 2)


def own_device(device: str) -> torch.device:
    """The device of this process, made the current one: of `accelerate launch` each has its own.

    accelerate chooses the same when Trainer is made; what is computed before must not go to the
    first GPU from all processes.
    """
    if device != "cuda":
        return torch.device(device)
    number = int(os.environ.get("LOCAL_RANK", 0))
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _read_images(
    images: TrainingImages, learner: StageModel, device: torch.device, progress: bool
) -> None:
    """Read every image; encode those whose features will be kept while their pixels are here."""
    learner.eval()
    if images.cache is not None:
        learner.to(device)
    size = None
    for record, image in images.read(progress):
        if record.key is None or not record.regions:
            continue
        if size is not None and not images.cache.has_room(size):
            continue
        if images.cache.get(record.key) is None:
            pixels = images.processor.image_tiles(image.pixels, images.max_tiles).to(device)
            features = learner.encode_image(pixels)
            images.cache.put(record.key, features)
            size = features.numel() * features.element_size()


def read_result(folder: str | Path) -> TrainingResult | None:
    """How a run ended, or None where it has not."""
    path = Path(folder) / RESULT
    if not path.is_file():
        return None
    try:
        return TrainingResult(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{path}: not the result of a run ({error})") from None


def _claimed(folder: Path, settings: TrainSettings, resume: bool) -> FileLock:
    """The folder's lock, held, once it is made sure that the folder is this run's."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(f"{folder}: another process is training here") from None
    try:
        _check_claim(folder, settings, resume)
    except Exception:
        lock.release()
        raise
    if not (folder / SETTINGS).is_file():
        write_json(folder / START, model_record(settings.model or ""))
    write_json(folder / SETTINGS, settings.to_dict())
    return lock


def _check_claim(folder: Path, settings: TrainSettings, resume: bool) -> None:
    """See that a folder holds this run, or nothing."""
    path = folder / SETTINGS
    if not path.is_file():
        if any(found.name not in (".lock", START) for found in folder.iterdir()):
            raise TrainingError(f"{folder} holds something else: name another folder")
        return
    usual, told = (json.loads(json.dumps(each.to_dict())) for each in (TrainSettings(), settings))
    # a setting that an earlier version did not have was at its default
    there = usual | json.loads(path.read_text(encoding="utf-8"))
    decide = {*there, *told} - set(OF_THE_MACHINE)
    differing = sorted(name for name in decide if there.get(name) != told.get(name))
    if differing or not resume:
        what = f"other settings ({', '.join(differing)})" if differing else "these settings"
        raise TrainingError(f"{folder} holds a run of {what}: name another folder")
    if not _same_start(folder, settings):
        raise TrainingError(
            f"{folder} holds a run that started from other weights than {settings.model} has "
            "now: name another folder"
        )


def _same_start(folder: Path, settings: TrainSettings) -> bool:
    """Whether the model's weights are those that the run began with, as far as both are there."""
    path = folder / START
    then = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = model_record(settings.model or "")
    return "weights" not in then or "weights" not in now or then["weights"] == now["weights"]


def _check_data(folder: Path, settings: TrainSettings, content: str) -> None:
    """See that the data is what the run began with: another order of it would go on elsewhere."""
    path = folder / START
    start = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if start.setdefault("data", content) != content:
        raise TrainingError(
            f"{folder} holds a run on other images, masks or captions than {settings.data} has "
            "now: name another folder"
        )
    write_json(path, start)


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _finish(
    settings: TrainSettings, folder: Path, trainer: RegionTrainer, trained: dict[str, torch.Tensor]
) -> int:
    """Write the weights that the run ends with, and have them in the model; says of which step."""
    best, kept = read_best(folder), trainer.state.global_step
    if best is not None and settings.keep == "best":
        load_trained(trained, folder / best["file"])
        kept = best["step"]
    save_trained(trained, folder / TRAINED)
    learner = trainer.accelerator.unwrap_model(trainer.model).model
    if isinstance(learner, PeftModel) and not trainer.sharded:
        learner.save_pretrained(folder / "adapter")
    return kept


def _result(
    settings: TrainSettings, folder: Path, trainer: RegionTrainer, images: TrainingImages
) -> TrainingResult:
    """How the learning ended, before anything is written."""
    steps = trainer.state.global_step
    evaluations = [row for row in read_log(folder) if "eval_loss" in row]
    last = evaluations[-1] if evaluations else {}
    order, groups = trainer.train_dataset.order, steps * settings.batch_size
    return TrainingResult(
        folder=str(folder),
        model=None,
        steps=steps,
        epochs=round(groups / len(order), 4),
        samples=round(groups * sum(images.counts()) / len(order)),
        seconds=0.0,
        trained_parameters=trainer.learnt_numbers,
        final={k.removeprefix("eval_"): v for k, v in last.items() if k.startswith("eval_")},
        best=read_best(folder),
        kept_step=steps,
    )
