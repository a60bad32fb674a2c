"""The plan of a stage before any weight is read: what is learnt, how long, in how much memory.

Reads settings, data, the tokenizer and the headers of the base's files where there are any; the
model itself is built on the meta device, so the plan for 8B takes a laptop. What is counted and
what is estimated is told apart in the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ureca_lib.checkpoints import CheckpointError, from_internvl_chat
from ureca_lib.checkpoints.internvl import (
    MASK_ENCODER,
    chat_config,
    check_internvl,
    internvl_reader,
)
from ureca_lib.checkpoints.official import OfficialFiles
from ureca_lib.checkpoints.tensor_files import read_json, tensor_index
from ureca_lib.checkpoints.tokens import load_tokenizer
from ureca_lib.configuration import UrecaConfig
from ureca_lib.conversation import add_visual_tokens
from ureca_lib.costs import count
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import get_preset, preset_config
from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.data import open_data
from ureca_lib.train.estimates import (
    Tokens,
    group_flops,
    memory_of_a_gpu,
    sample_tokens,
    trained_by_module,
)
from ureca_lib.train.images import TrainingImages
from ureca_lib.train.loop import learning_rates, warmup_steps
from ureca_lib.train.samples import GroupOrder, total_steps
from ureca_lib.train.settings import TrainSettings

PEAKS = {"A100": 312e12, "H100": 989e12}  # dense bfloat16, from NVIDIA's data sheets
UTILISATION = 0.35  # share of the peak that such training reaches; assumed, not measured here
FAULTS_TOLD = 10
PHOTOS_READ = 8  # photos whose pixels are read, spread over the data


@dataclass(frozen=True)
class Plan:
    """What a stage will do; see the module.

    Attributes:
        images, held_out: how many.
        samples, groups: regions and groups of an epoch.
        steps, warmup: of the run.
        micro_batch, accumulation, processes: how a step's images are shared out.
        tokens: of a sample.
        trained: learnt numbers by module.
        parameters: all.
        memory: bytes on a GPU by what they are for.
        step_flops: floating-point operations of a step, over all GPUs.
        rates: the learning rate by step.
        problems: what stands in the way; empty if nothing does.
        notes: what was not checked, and why.
    """

    settings: TrainSettings
    images: int
    held_out: int
    samples: int
    groups: int
    steps: int
    warmup: int
    micro_batch: int
    accumulation: int
    processes: int
    tokens: Tokens
    trained: dict[str, int]
    parameters: int
    memory: dict[str, int]
    step_flops: float
    rates: list[float]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def hours(self, gpu: str, utilisation: float = UTILISATION) -> float:
        """Estimated hours: steps x operations a step / (GPUs x peak x utilisation)."""
        return self.steps * self.step_flops / (self.processes * PEAKS[gpu] * utilisation) / 3600


def make_plan(
    settings: TrainSettings,
    processes: int = 4,
    tokenizer: str | Path | None = None,
    progress: bool = True,
) -> Plan:
    """Check a stage and work its plan out, without reading weights.

    Args:
        settings: of the stage; `model` may be missing.
        processes: GPUs.
        tokenizer: folder of one, where the model's own folder is not at hand.
        progress: show a bar while the data is read.

    Raises:
        SettingsError: the batch cannot be shared out. CaptionedError, FileNotFoundError,
            RegionError, PublishedError: the data cannot be read. ValueError: the tokenizer lacks
            a token or numbers it otherwise. CheckpointError: a folder at fault.
    """
    micro, accumulation = settings.accumulation(processes)
    problems: list[str] = []
    notes: list[str] = []
    config, words = _config(settings, tokenizer, problems, notes)
    processor = None if words is None else UrecaProcessor.from_config(config, words)
    learnt, held_out = open_data(settings)
    images = TrainingImages(learnt, processor, config.max_tiles_train, mask_bytes=0)
    watched = TrainingImages(held_out, processor, config.max_tiles, mask_bytes=0)
    for each in (images, watched) if len(held_out) else (images,):
        faults: list[str] = []
        for _ in each.read(progress, faults):
            pass
        problems += _first(faults) if faults else _unreadable(each)
    tokens = sample_tokens(settings, config, processor, images.records)
    groups = len(GroupOrder(images.counts(), settings.regions_per_image, settings.seed))
    steps = total_steps(settings, groups)
    with torch.device("meta"):
        model = UrecaForConditionalGeneration(config)
    _check_files(settings, model, problems, notes)
    trained = trained_by_module(settings, model)
    per_group = sum(images.counts()) / groups
    return Plan(
        settings=settings,
        images=len(learnt),
        held_out=len(held_out),
        samples=sum(images.counts()),
        groups=groups,
        steps=steps,
        warmup=warmup_steps(settings, steps),
        micro_batch=micro,
        accumulation=accumulation,
        processes=processes,
        tokens=tokens,
        trained=trained,
        parameters=count(model),
        memory=memory_of_a_gpu(settings, config, model, trained, tokens, micro * per_group),
        step_flops=settings.batch_size * group_flops(settings, config, model, tokens, per_group),
        rates=learning_rates(settings, steps),
        problems=problems,
        notes=notes,
    )


def _config(
    settings: TrainSettings,
    tokenizer: str | Path | None,
    problems: list[str],
    notes: list[str],
) -> tuple[UrecaConfig, PreTrainedTokenizerBase | None]:
    """The model's configuration, from its folder or else the preset, and its tokenizer."""
    folder = None if settings.model is None else Path(settings.model).expanduser()
    known = folder is not None and (folder / "config.json").is_file()
    if folder is not None and not known:
        problems.append(f"{folder}: no config.json, so no model to start from")
    words = load_tokenizer(Path(tokenizer)) if tokenizer else None
    if words is None and known:
        words = load_tokenizer(folder)
        if words is None:
            problems.append(f"{folder}: no tokenizer: copy the base's tokenizer files into it")
    if tokenizer and words is None:
        problems.append(f"{tokenizer}: no tokenizer there")
    config = preset_config(settings.preset)
    if known:
        config = _stored_config(folder, settings, problems)
        wide, ours = config.text_config.hidden_size, get_preset(settings.preset).language
        if wide != ours.hidden_size:
            problems.append(f"{folder} is {wide} wide, preset {settings.preset} {ours.hidden_size}")
    else:
        notes.append("no model folder: sizes are the preset's, its files were not looked at")
    if words is None:
        notes.append("no tokenizer: text tokens are estimated, ids were not checked")
    elif not known:
        add_visual_tokens(words)
        config.image_token_id = config.mask_token_id = None
    return settings.configure(config), words


def _stored_config(folder: Path, settings: TrainSettings, problems: list[str]) -> UrecaConfig:
    """A folder's configuration; an InternVL's gets the mask encoder that stage 1 would give it."""
    raw = read_json(folder / "config.json")
    reader = internvl_reader(folder)
    if reader is not None and settings.stage == 2:
        problems.append(f"{folder} has no mask encoder: stage 2 starts from what stage 1 left")
    if reader is from_internvl_chat:
        return chat_config(OfficialFiles(folder))
    if reader is None and raw.get("model_type") != UrecaConfig.model_type:
        raise CheckpointError(folder, "not a checkpoint of ours: run ureca convert on it first")
    fields = UrecaConfig().to_dict()
    named = {k: v for k, v in raw.items() if k in fields and k != "model_type"}
    if reader is not None:  # its tokenizer gets the mask tokens when training starts
        named["mask_token_id"] = None
    return UrecaConfig.from_dict(named)


def _first(faults: list[str]) -> list[str]:
    more = len(faults) - FAULTS_TOLD
    return faults[:FAULTS_TOLD] + ([f"and {more} images more"] if more > 0 else [])


def _unreadable(images: TrainingImages) -> list[str]:
    """What is wrong with the pixels of a few photos; headers were looked at of all."""
    problems = []
    step = max(1, len(images.records) // PHOTOS_READ)
    for number in range(0, len(images.records), step):
        try:
            pixels = images.pixels(number)
        except (ValueError, OSError) as error:
            problems.append(f"{images.records[number].image_id}: {error}")
            continue
        if pixels.shape[:2] != images.records[number].size:
            problems.append(f"{images.records[number].image_id}: photo and masks differ in size")
    return problems


def _check_files(
    settings: TrainSettings,
    model: UrecaForConditionalGeneration,
    problems: list[str],
    notes: list[str],
) -> None:
    """Names and shapes of the base's tensors, from the headers of its files."""
    folder = None if settings.model is None else Path(settings.model).expanduser()
    if folder is None or not (folder / "config.json").is_file():
        return
    stored = tensor_index(folder)
    size = sum(tensor.bytes for tensor in stored.values())
    told = f"{folder}: {len(stored)} tensors, {size / 2**30:.2f} GiB, headers only"
    notes.append(f"{told}; names and shapes compared")
    if internvl_reader(folder) is not None:
        try:
            check_internvl(folder)
        except CheckpointError as error:
            problems.append(str(error))
        return
    fresh = settings.stage == 1 and settings.fresh_mask_encoder
    ours = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    for name, shape in ours.items():
        if fresh and name.startswith(MASK_ENCODER):
            continue
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue  # stored once, as the embedding
        if name not in stored:
            problems.append(f"{folder}: {name} is missing")
        elif shape != stored[name].shape:
            problems.append(f"{folder}: {name} is {stored[name].shape}, not {shape}")
