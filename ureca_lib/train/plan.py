"""A dry run: what a stage trains, for how long and in how much memory, before weights are read.

Settings, data, the tokenizer and the headers of the base's files are read; the model is built on
the meta device, so that the 8B preset can be planned on a laptop. The text says which numbers are
counted and which are estimated. What would stop the run stops its plan.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ureca_lib.configuration import UrecaConfig
from ureca_lib.decoding import activation_bytes
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import LOGIT, TRAINABLE, count, get_preset, preset_config, training_bytes
from ureca_lib.processor import UrecaProcessor
from ureca_lib.tiling import best_grid
from ureca_lib.train.data import GroupOrder, check_data, open_data, total_steps
from ureca_lib.train.features import GIB
from ureca_lib.train.index import RegionIndex
from ureca_lib.train.loop import learning_rates, warmup_steps
from ureca_lib.train.settings import TrainSettings, load_settings
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start

PEAKS = {"A100": 312e12, "H100": 989e12}  # dense bfloat16, from NVIDIA's data sheets
UTILIZATION = 0.35  # share of the peak that such training reaches; assumed, not measured here
WORD_TOKENS = 1.35  # tokens per word if there is no tokenizer; assumed
PROMPT_TOKENS = 24  # chat format and question if there is no tokenizer; assumed
OVERHEAD = 2 * 2**30  # bytes that CUDA, NCCL and cuBLAS take; assumed
CAPTIONS_READ = 2000  # captions that are tokenized, spread over the data


class Tokens(NamedTuple):
    """Tokens per sample, and tiles per image: means over the data, and the longest sample."""

    image: float
    mask: float
    text: float
    longest: int
    longest_text: int
    tiles: float
    counted: bool  # by a tokenizer, else estimated from words


@dataclass(frozen=True)
class Plan:
    """What a stage will do; see the module.

    Attributes:
        settings, processes: of the run.
        images, held_out: numbers of images.
        samples, groups: regions and groups of an epoch.
        tokens: per sample.
        trained: trainable parameters by module; of LoRA by the kind of layer that it adapts.
        parameters: all parameters, adapters not counted.
        memory: bytes per GPU by purpose.
        step_flops: floating-point operations per step, over all GPUs.
        rates: the learning rate by step.
        notes: what was checked, and what was not.
    """

    settings: TrainSettings
    processes: int
    images: int
    held_out: int
    samples: int
    groups: int
    tokens: Tokens
    trained: dict[str, int]
    parameters: int
    memory: dict[str, int]
    step_flops: float
    rates: list[float]
    notes: list[str]

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.rates)

    def hours(self, gpu: str) -> float:
        """Estimated hours: steps x operations per step / (GPUs x peak x utilization)."""
        return self.steps * self.step_flops / (self.processes * PEAKS[gpu] * UTILIZATION) / 3600


def make_plan(settings: TrainSettings, processes: int = 4, progress: bool = True) -> Plan:
    """Check a stage and plan it, without reading weights.

    Args:
        settings: of the stage; `model` may be missing.
        processes: number of GPUs.
        progress: show a bar while the data is read.

    Raises:
        ValueError, OSError: see `train_stage`.
    """
    micro, _ = settings.accumulation(processes)
    model, processor, notes = _start(settings)
    images, held_out = open_data(settings, progress=progress)
    for index in filter(None, (images, held_out)):
        check_data(index, settings, processor and processor.conversation)
    samples = int(images.counts.sum())
    groups = len(GroupOrder(images.counts, settings.regions_per_image, settings.seed))
    tokens = _tokens(settings, model.config, processor, images)
    per_group = samples / groups
    flops = settings.batch_size * _flops(settings, model, tokens, per_group)
    # counted before the adapters are put in
    parameters, trained = count(model), trained_by_module(settings, model)
    learnt, rows = sum(trained.values()), micro * per_group
    return Plan(
        settings=settings,
        processes=processes,
        images=len(images),
        held_out=0 if held_out is None else len(held_out),
        samples=samples,
        groups=groups,
        tokens=tokens,
        trained=trained,
        parameters=parameters,
        memory=_memory(settings, model.config, parameters, learnt, tokens, rows),
        step_flops=flops,
        rates=learning_rates(settings, total_steps(settings, groups)),
        notes=notes,
    )


def _start(
    settings: TrainSettings,
) -> tuple[UrecaForConditionalGeneration, UrecaProcessor | None, list[str]]:
    """The model on the meta device, from its folder or else the preset; its processor; notes."""
    if settings.model is None:
        with torch.device("meta"):
            config = settings.configure(preset_config(settings.preset))
            model = UrecaForConditionalGeneration(config)
        missing = "no model folder: sizes are the preset's, text tokens are estimated"
        return model, None, [missing]
    model, processor = load_start(settings, meta=True)
    notes = [f"{settings.model}: names and shapes of tensors compared, from headers only"]
    wide = model.config.text_config.hidden_size
    usual = get_preset(settings.preset).language.hidden_size
    if wide != usual:
        notes.append(f"{settings.model} is {wide} wide, preset {settings.preset} {usual}")
    return model, processor, notes


def trained_by_module(
    settings: TrainSettings, model: UrecaForConditionalGeneration
) -> dict[str, int]:
    """Trainable parameters by module; of LoRA by the kind of layer that it adapts."""
    with torch.device("meta"):
        trained = StageModel(freeze_for_stage(model, settings)).trained()
    numbers: Counter[str] = Counter()
    for name, parameter in trained.items():
        # model.mask_encoder.conv1.weight; ...self_attn.q_proj.lora_A.default.weight
        parts = name.split(".")
        kind = ".".join(parts[1:3]) if settings.stage == 1 else f"LoRA on {parts[-4]}"
        numbers[kind] += parameter.numel()
    return dict(numbers)


def _tokens(
    settings: TrainSettings,
    config: UrecaConfig,
    processor: UrecaProcessor | None,
    index: RegionIndex,
) -> Tokens:
    weights = index.counts
    sizes = np.stack([index.table[side].to_numpy() for side in ("width", "height")], axis=1)
    sizes, weights = sizes[weights > 0], weights[weights > 0]
    most = config.max_tiles_train
    tiles = _tiles(sizes, most, config.tile_size, config, config.use_thumbnail)
    mask_most = most if config.mask_dynamic else 1
    masks = _tiles(sizes, mask_most, config.mask_size, config, config.mask_thumbnail)
    captions = index.texts("captions")
    chosen = captions.take(np.arange(0, len(captions), max(1, len(captions) // CAPTIONS_READ)))
    lengths = [_text_tokens(settings, processor, text) for text in chosen.to_pylist()]
    visual = tiles * config.image_seq_length + masks * config.num_mask_tokens
    mean_tiles = float(np.average(tiles, weights=weights))
    return Tokens(
        image=mean_tiles * config.image_seq_length,
        mask=float(np.average(masks, weights=weights)) * config.num_mask_tokens,
        text=sum(lengths) / len(lengths),
        longest=int(visual.max()) + max(lengths),
        longest_text=max(lengths),
        tiles=mean_tiles,
        counted=processor is not None,
    )


def _tiles(
    sizes: np.ndarray, most: int, side: int, config: UrecaConfig, thumbnail: bool
) -> np.ndarray:
    """(images, 2) widths and heights -> (images,) numbers of tiles."""
    different, where = np.unique(sizes, axis=0, return_inverse=True)
    least = min(config.min_tiles, most)
    grids = [best_grid(*size, most, least, side) for size in different.tolist()]
    tiles = [columns * rows + (thumbnail and columns * rows > 1) for columns, rows in grids]
    return np.array(tiles)[where.reshape(-1)]


def _text_tokens(settings: TrainSettings, processor: UrecaProcessor | None, text: str) -> int:
    if processor is None:
        return PROMPT_TOKENS + round(WORD_TOKENS * len(text.split())) + 1
    # without tiles only the text is left
    return len(processor.token_ids(settings.question, text, 0, 0)[0])


def _flops(
    settings: TrainSettings,
    model: UrecaForConditionalGeneration,
    tokens: Tokens,
    regions: float,
) -> float:
    """Operations for an image with `regions` regions.

    A matrix takes 2 operations per parameter and token; causal attention 2 L^2 D per layer. The
    language model runs forward, backward for the activations (its weights are frozen), and forward
    again if checkpointing recomputes; the vision tower forward only.
    """
    config = model.config
    text, vision = config.text_config, config.vision_config
    length = tokens.image + tokens.mask + tokens.text
    shared = settings.regions_per_image > 1 and config.mask_position == "after_image"
    run = tokens.image + regions * (length - tokens.image) if shared else regions * length
    attention = 2 * text.num_hidden_layers * text.hidden_size * length * run
    passes = 3 if settings.gradient_checkpointing else 2
    patches = _patches(config)
    tower = count(model.model.vision_tower) * 2 * patches
    tower += 4 * vision.num_hidden_layers * vision.hidden_size * patches**2
    matrices = 2 * count(model.model.language_model.layers) * run
    return passes * (matrices + attention) + tower * tokens.tiles


def _memory(
    settings: TrainSettings,
    config: UrecaConfig,
    parameters: int,
    trained: int,
    tokens: Tokens,
    rows: float,
) -> dict[str, int]:
    """Bytes on each GPU, with all weights on every one (DDP)."""
    text, item = config.text_config, 2 if settings.precision == "bfloat16" else 4
    sample = training_bytes(text, tokens.longest)
    # the head runs on answers only, and at most the whole text is answer
    sample -= LOGIT * (tokens.longest - tokens.longest_text) * text.vocab_size
    if not settings.gradient_checkpointing:
        layer = activation_bytes(text, tokens.longest, item)
        sample += (text.num_hidden_layers - 1) * layer
    tower = activation_bytes(config.vision_config, round(tokens.tiles * _patches(config)), item)
    return {
        "weights": item * parameters,
        "trainable: copies, gradients, AdamW": TRAINABLE * trained,
        "samples at once": round(sample * rows),
        "vision tower, one image": tower,
        "CUDA and the like": OVERHEAD,
    }


def _patches(config: UrecaConfig) -> int:
    """Positions of a tile in the vision tower."""
    return (config.tile_size // config.vision_config.patch_size[0]) ** 2 + 1


def launch_command(settings: TrainSettings, processes: int, out: str | Path = "runs/NAME") -> str:
    """The command that starts the run on this many GPUs of one machine."""
    mixed = "bf16" if settings.precision != "float32" else "no"
    many = " --multi_gpu" if processes > 1 else ""
    start = f"accelerate launch{many} --num_processes {processes} --mixed_precision {mixed}"
    words = ["--preset", settings.preset, "--stage", str(settings.stage), "--out", str(out)]
    words += ["--model", settings.model or "BASE", "--data", settings.data]
    usual = load_settings(settings.preset, settings.stage, {"data": settings.data})
    for name in (each.name for each in fields(settings)):
        value = getattr(settings, name)
        if value != getattr(usual, name) and name != "model":
            words += ["--set", f"{name}={value}"]
    return f"{start} -m ureca_lib.cli train {shlex.join(words)}"


def plan_text(plan: Plan, out: str | Path = "runs/NAME") -> str:
    """The whole plan as text for a terminal; estimates are marked."""
    s, t = plan.settings, plan.tokens
    how = "counted by the tokenizer" if t.counted else "text estimated from words"
    micro, accumulated = s.accumulation(plan.processes)
    total, memory = sum(plan.trained.values()), sum(plan.memory.values())
    kept = "recomputed" if s.gradient_checkpointing else "all layers kept"
    lines = [
        f"stage {s.stage} of preset {s.preset}",
        "",
        f"data: {s.data}",
        f"  {plan.images:,} images, {plan.samples:,} captioned regions: an epoch",
        f"  in groups of up to {s.regions_per_image}: {plan.groups:,} groups",
        f"  {plan.held_out:,} images held out, evaluated every {s.eval_every} steps",
        f"steps: {plan.steps:,}, of {s.batch_size} images each "
        f"({plan.steps * s.batch_size / plan.groups:.2f} epochs)",
        f"  at once x accumulated x GPUs: {micro} x {accumulated} x {plan.processes}",
        f"tokens per sample, mean: {t.image:.0f} image ({t.tiles:.1f} tiles) + {t.mask:.0f} mask + "
        f"{t.text:.0f} text; longest {t.longest:,} ({how})",
        f"learning rate: {s.scheduler}, {warmup_steps(s, plan.steps):,} warm-up steps, peak "
        f"{max(plan.rates):.2e}",
        "",
        f"trainable: {total:,} parameters, {total / plan.parameters:.2%} of {plan.parameters:,}",
        *(f"  {name:<26}{number:>13,}" for name, number in plan.trained.items()),
        "",
        f"memory per GPU, estimated: {memory / GIB:.1f} GiB",
        *(f"  {name:<36}{size / GIB:>8.2f}" for name, size in plan.memory.items()),
        f"  all weights on every GPU; {TRAINABLE} bytes per trainable parameter; "
        f"activations {kept}",
        "",
        f"work: {plan.step_flops:.3g} operations per step",
        *(
            f"  {plan.processes} x {gpu}: {plan.hours(gpu):.2f} h, if {UTILIZATION:.0%} of "
            f"{peak / 1e12:.0f} TFLOP/s is reached (assumed)"
            for gpu, peak in PEAKS.items()
        ),
        "  evaluations and reading of photos come on top; log.jsonl shows the real pace",
        "",
        "start it with",
        f"  {launch_command(s, plan.processes, out)}",
        "give the same command again to resume a run that was interrupted",
        "",
        *(f"note: {note}" for note in plan.notes),
        "no problem was found",
    ]
    return "\n".join(lines)
