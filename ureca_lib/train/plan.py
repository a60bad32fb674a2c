"""A dry run: what a stage trains, for how long and in how much memory, before weights are read.

Settings, data, the tokenizer and the headers of the base's files are read; the model is built on
the meta device, so that the 8B preset can be planned on a laptop. The text says which numbers are
counted and which are estimated.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
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
from ureca_lib.checkpoints.tensors import read_json, tensor_index
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.configuration import UrecaConfig
from ureca_lib.conversation import add_visual_tokens
from ureca_lib.decoding import activation_bytes
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import (
    LOGIT,
    LORA_LAYERS,
    TRAINABLE,
    count,
    get_preset,
    preset_config,
    training_bytes,
)
from ureca_lib.processor import UrecaProcessor
from ureca_lib.tiling import best_grid
from ureca_lib.train.data import GroupOrder, faults_of, open_data, total_steps
from ureca_lib.train.features import GIB
from ureca_lib.train.index import RegionIndex
from ureca_lib.train.loop import learning_rates, warmup_steps
from ureca_lib.train.settings import TrainSettings, load_settings

PEAKS = {"A100": 312e12, "H100": 989e12}  # dense bfloat16, from NVIDIA's data sheets
UTILIZATION = 0.35  # share of the peak that such training reaches; assumed, not measured here
WORD_TOKENS = 1.35  # tokens per word if there is no tokenizer; assumed
PROMPT_TOKENS = 24  # chat format and question if there is no tokenizer; assumed
OVERHEAD = 2 * 2**30  # bytes that CUDA, NCCL and cuBLAS take; assumed
CAPTIONS_READ = 2000  # captions that are tokenized, spread over the data
PHOTOS_READ = 8  # photos whose pixels are read, spread over the data
FAULTS_SHOWN = 10


@dataclass(frozen=True)
class Tokens:
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
        images, held_out: numbers of images.
        samples, groups: regions and groups of an epoch.
        steps, warmup: of the run.
        micro_batch, accumulation, processes: how a step's images are shared out.
        tokens: per sample.
        trained: trainable parameters by module.
        parameters: all parameters.
        memory: bytes per GPU by purpose.
        step_flops: floating-point operations per step, over all GPUs.
        rates: the learning rate by step.
        problems: what prevents the run; empty if nothing does.
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

    def hours(self, gpu: str) -> float:
        """Estimated hours: steps x operations per step / (GPUs x peak x utilization)."""
        return self.steps * self.step_flops / (self.processes * PEAKS[gpu] * UTILIZATION) / 3600


def make_plan(
    settings: TrainSettings,
    processes: int = 4,
    tokenizer: str | Path | None = None,
    progress: bool = True,
) -> Plan:
    """Check a stage and plan it, without reading weights.

    Args:
        settings: of the stage; `model` may be missing.
        processes: number of GPUs.
        tokenizer: folder of a tokenizer, if the model's own folder is not at hand.
        progress: show a bar while the data is read.

    Raises:
        SettingsError: the batch cannot be shared out. CaptionedError, FileNotFoundError,
            RegionError, CaptionedError: the data cannot be read. ValueError: the tokenizer lacks
            a token or numbers it otherwise. CheckpointError: a folder at fault.
    """
    micro, accumulation = settings.accumulation(processes)
    problems: list[str] = []
    notes: list[str] = []
    config, words = _config(settings, tokenizer, problems, notes)
    processor = None if words is None else UrecaProcessor.from_config(config, words)
    images, held_out = open_data(settings, progress=progress)
    readable = processor  # a caption at fault cannot be tokenized
    for index in (images, held_out) if held_out is not None else (images,):
        faults = faults_of(index, settings, processor and processor.conversation)
        readable = None if faults else readable
        more = len(faults) - FAULTS_SHOWN
        problems += faults[:FAULTS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        problems += [] if faults else _unreadable(index)
    tokens = _tokens(settings, config, readable, images)
    samples = int(images.counts.sum())
    groups = len(GroupOrder(images.counts, settings.regions_per_image, settings.seed))
    steps = total_steps(settings, groups)
    with torch.device("meta"):
        model = UrecaForConditionalGeneration(config)
    _check_files(settings, model, problems, notes)
    trained = trained_by_module(settings, model)
    per_group = samples / groups
    return Plan(
        settings=settings,
        images=len(images),
        held_out=0 if held_out is None else len(held_out),
        samples=samples,
        groups=groups,
        steps=steps,
        warmup=warmup_steps(settings, steps),
        micro_batch=micro,
        accumulation=accumulation,
        processes=processes,
        tokens=tokens,
        trained=trained,
        parameters=count(model),
        memory=_memory(settings, model, trained, tokens, micro * per_group),
        step_flops=settings.batch_size * _flops(settings, model, tokens, per_group),
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
        notes.append("no model folder: sizes are the preset's, its files were not checked")
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
    names = UrecaConfig().to_dict()
    named = {k: v for k, v in raw.items() if k in names and k != "model_type"}
    if reader is not None:  # its tokenizer gets the mask tokens when training starts
        named["mask_token_id"] = None
    return UrecaConfig.from_dict(named)


def _unreadable(index: RegionIndex) -> list[str]:
    """Faults in the pixels of a few photos; the headers of all were read for the index."""
    problems = []
    for number in range(0, len(index), max(1, len(index) // PHOTOS_READ)):
        try:
            index.pixels(number)
        except (ValueError, OSError) as error:
            problems.append(f"{index.row(number)['image_id']}: {error}")
    return problems


def _check_files(
    settings: TrainSettings,
    model: UrecaForConditionalGeneration,
    problems: list[str],
    notes: list[str],
) -> None:
    """Compare names and shapes of the base's tensors, from the headers of its files."""
    folder = None if settings.model is None else Path(settings.model).expanduser()
    if folder is None or not (folder / "config.json").is_file():
        return
    stored = tensor_index(folder)
    size = sum(file.stat().st_size for file in {tensor.file for tensor in stored.values()})
    read = f"{folder}: {len(stored)} tensors, {size / GIB:.2f} GiB, headers only"
    notes.append(f"{read}; names and shapes compared")
    if internvl_reader(folder) is not None:
        try:
            check_internvl(folder)
        except CheckpointError as error:
            problems.append(str(error))
        return
    fresh = settings.stage == 1 and settings.fresh_mask_encoder
    for name, value in model.state_dict().items():
        if fresh and name.startswith(MASK_ENCODER):
            continue
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue  # stored once, as the embedding
        if name not in stored:
            problems.append(f"{folder}: {name} is missing")
        elif tuple(value.shape) != stored[name].shape:
            problems.append(f"{folder}: {name} is {stored[name].shape}, not {tuple(value.shape)}")


def trained_by_module(
    settings: TrainSettings, model: UrecaForConditionalGeneration
) -> dict[str, int]:
    """Trainable parameters by module; of LoRA by the kind of layer that it adapts."""
    if settings.stage == 1:
        encoder = model.model.mask_encoder
        return {f"mask_encoder.{name}": count(part) for name, part in encoder.named_children()}
    numbers = dict.fromkeys(LORA_LAYERS, 0)
    for name, module in model.model.language_model.named_modules():
        kind = name.rpartition(".")[2]
        if kind in numbers:
            numbers[kind] += settings.lora_rank * (module.in_features + module.out_features)
    return {f"LoRA on {kind}": number for kind, number in numbers.items() if number}


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
    return Tokens(
        image=float(np.average(tiles, weights=weights)) * config.image_seq_length,
        mask=float(np.average(masks, weights=weights)) * config.num_mask_tokens,
        text=sum(lengths) / len(lengths),
        longest=int(visual.max()) + max(lengths),
        longest_text=max(lengths),
        tiles=float(np.average(tiles, weights=weights)),
        counted=processor is not None,
    )


def _tiles(
    sizes: np.ndarray, most: int, side: int, config: UrecaConfig, thumbnail: bool
) -> np.ndarray:
    """(images, 2) widths and heights -> (images,) numbers of tiles."""
    different, where = np.unique(sizes, axis=0, return_inverse=True)
    grids = [
        best_grid(*size, most, min(config.min_tiles, most), side) for size in different.tolist()
    ]
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
    patches = (config.tile_size // vision.patch_size[0]) ** 2 + 1
    tower = count(model.model.vision_tower) * 2 * patches
    tower += 4 * vision.num_hidden_layers * vision.hidden_size * patches**2
    matrices = 2 * count(model.model.language_model.layers) * run
    return passes * (matrices + attention) + tower * tokens.tiles


def _memory(
    settings: TrainSettings,
    model: UrecaForConditionalGeneration,
    trained: dict[str, int],
    tokens: Tokens,
    rows: float,
) -> dict[str, int]:
    """Bytes on each GPU, with all weights on every one (DDP)."""
    config, item = model.config, 2 if settings.precision == "bfloat16" else 4
    sample = training_bytes(config.text_config, tokens.longest)
    # the head runs on answers only, and at most the whole text is answer
    unneeded = tokens.longest - tokens.longest_text
    sample -= LOGIT * unneeded * config.text_config.vocab_size
    if not settings.gradient_checkpointing:
        layer = activation_bytes(config.text_config, tokens.longest, item)
        sample += (config.text_config.num_hidden_layers - 1) * layer
    patches = (config.tile_size // config.vision_config.patch_size[0]) ** 2 + 1
    return {
        "weights": item * count(model),
        "trainable: copies, gradients, AdamW": TRAINABLE * sum(trained.values()),
        "samples at once": round(sample * rows),
        "vision tower, one image": activation_bytes(
            config.vision_config, round(tokens.tiles * patches), item
        ),
        "CUDA and the like": OVERHEAD,
    }


def launch_command(settings: TrainSettings, processes: int, out: str | Path = "runs/NAME") -> str:
    """The command that starts the run on this many GPUs of one machine."""
    mixed = "bf16" if settings.precision != "float32" else "no"
    many = " --multi_gpu" if processes > 1 else ""
    start = f"accelerate launch{many} --num_processes {processes} --mixed_precision {mixed}"
    words = ["--preset", settings.preset, "--stage", str(settings.stage), "--out", str(out)]
    words += ["--model", settings.model or "BASE"]
    preset = (settings.preset, settings.stage)
    other_data = settings.data != load_settings(*preset).data
    usual = load_settings(*preset, {"data": settings.data} if other_data else {})
    for each in fields(settings):
        value = getattr(settings, each.name)
        named = value != getattr(usual, each.name) or (other_data and each.name == "data")
        if named and each.name not in ("model", "preset", "stage"):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words += ["--set", f"{each.name}={'none' if value is None else text}"]
    return f"{start} -m ureca_lib.cli train {shlex.join(words)}"


def plan_text(plan: Plan, out: str | Path = "runs/NAME") -> str:
    """The whole plan as text for a terminal; estimates are marked."""
    s, t = plan.settings, plan.tokens
    how = "counted by the tokenizer" if t.counted else "text estimated from words"
    share = f"{plan.micro_batch} x {plan.accumulation} x {plan.processes} = {s.batch_size}"
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
        f"  at once x accumulated x GPUs: {share}",
        f"tokens per sample, mean: {t.image:.0f} image ({t.tiles:.1f} tiles) + {t.mask:.0f} mask + "
        f"{t.text:.0f} text; longest {t.longest:,} ({how})",
        f"learning rate: {s.scheduler}, {plan.warmup:,} warm-up steps, peak {max(plan.rates):.2e}",
        "",
        f"trainable: {total:,} parameters, {total / plan.parameters:.2%} of {plan.parameters:,}",
        *(f"  {name:<26}{number:>13,}" for name, number in plan.trained.items()),
        "",
        f"memory per GPU, estimated: {memory / GIB:.1f} GiB",
        *(f"  {name:<36}{size / GIB:>8.2f}" for name, size in plan.memory.items()),
        f"  weights on every GPU; {TRAINABLE} bytes per trainable parameter; activations {kept}",
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
        *(f"PROBLEM: {problem}" for problem in plan.problems),
    ]
    return "\n".join(lines if plan.problems else [*lines, "no problem was found"])
