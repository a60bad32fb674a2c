"""The plan of a stage before any weight is read: what is learnt, how long, in how much memory.

Reads settings, data, the tokenizer and the headers of the base's files where there are any; the
model itself is built on the meta device, so the plan for 8B takes a laptop. What is counted and
what is estimated is told apart in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, get_scheduler

from ureca_lib.checkpoints.tensor_files import read_json, tensor_index
from ureca_lib.checkpoints.tokens import load_tokenizer
from ureca_lib.configuration import UrecaConfig
from ureca_lib.conversation import add_visual_tokens
from ureca_lib.costs import LEARNT, LORA_LAYERS, count, training_bytes
from ureca_lib.memory import activation_bytes
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import get_preset, preset_config
from ureca_lib.processor import UrecaProcessor
from ureca_lib.tiling import best_grid
from ureca_lib.train.data import open_data
from ureca_lib.train.images import ImageRecord, TrainingImages
from ureca_lib.train.samples import GroupOrder, total_steps
from ureca_lib.train.settings import TrainSettings
from ureca_lib.train.trainer import warmup_steps

PEAKS = {"A100": 312e12, "H100": 989e12}  # dense bfloat16, from NVIDIA's data sheets
UTILISATION = 0.35  # share of the peak that such training reaches; assumed, not measured here
WORD_TOKENS = 1.35  # tokens a word where there is no tokenizer; assumed
PROMPT_TOKENS = 24  # chat format and question where there is no tokenizer; assumed
OVERHEAD = 2 * 2**30  # bytes that CUDA, NCCL and cuBLAS take; assumed
PHOTOS_READ = 8  # photos whose pixels are read, spread over the data
CAPTIONS_READ = 2000  # captions that are brought to tokens, spread likewise


@dataclass(frozen=True)
class Tokens:
    """Tokens of a sample, a mean over what was read and the longest."""

    image: float
    mask: float
    text: float
    longest: int
    tiles: float
    counted: bool  # by a tokenizer, else estimated from words


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
    for _ in images.read(progress):
        pass
    _check_photos(images, problems)
    tokens = _tokens(settings, config, processor, images.records)
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
        memory=_memory(settings, config, model, trained, tokens, micro * per_group),
        step_flops=settings.batch_size * group_flops(settings, config, model, tokens, per_group),
        rates=learning_rates(settings, steps),
        problems=problems,
        notes=notes,
    )


def learning_rates(settings: TrainSettings, steps: int) -> list[float]:
    """The learning rate of each step: transformers' own schedule, stepped through."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=settings.learning_rate)
    warmup = warmup_steps(settings, steps)
    schedule = get_scheduler(settings.scheduler, optimizer, warmup, steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def trained_by_module(
    settings: TrainSettings, model: UrecaForConditionalGeneration
) -> dict[str, int]:
    """Numbers that a stage learns, by module; LoRA by the kind of layer that it adapts."""
    if settings.stage == 1:
        encoder = model.model.mask_encoder
        return {f"mask_encoder.{name}": count(part) for name, part in encoder.named_children()}
    found = dict.fromkeys(LORA_LAYERS, 0)
    for name, module in model.model.language_model.named_modules():
        kind = name.rpartition(".")[2]
        if kind in found:
            found[kind] += settings.lora_rank * (module.in_features + module.out_features)
    return {f"LoRA on {kind}": number for kind, number in found.items() if number}


def group_flops(
    settings: TrainSettings,
    config: UrecaConfig,
    model: UrecaForConditionalGeneration,
    tokens: Tokens,
    regions: float,
) -> float:
    """Operations of an image with `regions` regions.

    Each matrix takes 2 operations a parameter and token; causal attention 2 L^2 D a layer. The
    language model runs forward, backward for the activations (its weights are frozen), and forward
    again where checkpointing recomputes; the vision tower forward only.
    """
    text, vision = config.text_config, config.vision_config
    layers = count(model.model.language_model.layers)
    length = tokens.image + tokens.mask + tokens.text
    shared = settings.regions_per_image > 1 and config.mask_position == "after_image"
    run = tokens.image + regions * (length - tokens.image) if shared else regions * length
    attention = 2 * text.num_hidden_layers * text.hidden_size * length * run
    passes = 3 if settings.gradient_checkpointing else 2
    patches = (config.tile_size // vision.patch_size[0]) ** 2 + 1
    tower = count(model.model.vision_tower) * 2 * patches
    tower += 4 * vision.num_hidden_layers * vision.hidden_size * patches**2
    return passes * (2 * layers * run + attention) + tower * tokens.tiles


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
    if tokenizer and words is None:
        problems.append(f"{tokenizer}: no tokenizer there")
    config = preset_config(settings.preset)
    if known:
        raw = read_json(folder / "config.json")
        named = {k: v for k, v in raw.items() if k in config.to_dict() and k != "model_type"}
        if raw.get("model_type") != UrecaConfig.model_type:
            # an InternVL, whose tokenizer gets the mask tokens when training starts
            named["mask_token_id"] = None
        config = UrecaConfig.from_dict(named)
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


def _check_photos(images: TrainingImages, problems: list[str]) -> None:
    step = max(1, len(images.records) // PHOTOS_READ)
    for number in range(0, len(images.records), step):
        try:
            pixels = images.pixels(number)
        except (ValueError, OSError) as error:
            problems.append(f"{images.records[number].image_id}: {error}")
            continue
        if pixels.shape[:2] != images.records[number].size:
            problems.append(f"{images.records[number].image_id}: photo and masks differ in size")


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
    fresh = settings.stage == 1 and settings.fresh_mask_encoder
    ours = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    # transformers stores some layouts under other names: sizes are compared where names agree
    agreeing = [name for name in ours if name in stored]
    for name in agreeing:
        if ours[name] != stored[name].shape and not (fresh and "mask_encoder" in name):
            if "embed_tokens" in name or "lm_head" in name:
                continue  # enlarged for the mask tokens
            problems.append(f"{folder}: {name} is {stored[name].shape}, not {ours[name]}")
    size = sum(tensor.bytes for tensor in stored.values())
    notes.append(
        f"{folder}: {len(stored)} tensors, {size / 2**30:.2f} GiB, headers only; "
        f"{len(agreeing)} of {len(ours)} by name"
    )


def _tokens(
    settings: TrainSettings,
    config: UrecaConfig,
    processor: UrecaProcessor | None,
    records: Sequence[ImageRecord],
) -> Tokens:
    most = config.max_tiles_train
    shown = [record for record in records if record.regions]
    tiles = [
        _tiles(record.size, most, config.tile_size, config, config.use_thumbnail)
        for record in shown
    ]
    masks = [
        _tiles(
            record.size,
            most if config.mask_dynamic else 1,
            config.mask_size,
            config,
            config.mask_thumbnail,
        )
        for record in shown
    ]
    weights = [len(record.regions) for record in shown]
    total = sum(weights)
    image = sum(w * t for w, t in zip(weights, tiles, strict=True)) / total
    mask = sum(w * t for w, t in zip(weights, masks, strict=True)) / total
    captions = [text for record in shown for texts in record.captions for text in texts]
    chosen = captions[:: max(1, len(captions) // CAPTIONS_READ)]
    lengths = [_text_tokens(settings, processor, text) for text in chosen]
    longest = max(
        t * config.image_seq_length + m * config.num_mask_tokens
        for t, m in zip(tiles, masks, strict=True)
    )
    return Tokens(
        image=image * config.image_seq_length,
        mask=mask * config.num_mask_tokens,
        text=sum(lengths) / len(lengths),
        longest=longest + max(lengths),
        tiles=image,
        counted=processor is not None,
    )


def _tiles(
    size: tuple[int, int], most: int, side: int, config: UrecaConfig, thumbnail: bool
) -> int:
    columns, rows = best_grid(size[1], size[0], most, min(config.min_tiles, most), side)
    return columns * rows + (thumbnail and columns * rows > 1)


def _text_tokens(settings: TrainSettings, processor: UrecaProcessor | None, text: str) -> int:
    if processor is None:
        return PROMPT_TOKENS + round(WORD_TOKENS * len(text.split())) + 1
    # without tiles only the text is left
    return len(processor.token_ids(settings.question, text, 0, 0)[0])


def _memory(
    settings: TrainSettings,
    config: UrecaConfig,
    model: UrecaForConditionalGeneration,
    trained: dict[str, int],
    tokens: Tokens,
    rows: float,
) -> dict[str, int]:
    """Bytes on each GPU; the weights stand on every one (DDP)."""
    item = 2 if settings.precision == "bfloat16" else 4
    sample = training_bytes(config.text_config, tokens.longest)
    if not settings.gradient_checkpointing:
        each = activation_bytes(config.text_config, tokens.longest, item)
        sample += (config.text_config.num_hidden_layers - 1) * each
    patches = (config.tile_size // config.vision_config.patch_size[0]) ** 2 + 1
    tower = activation_bytes(config.vision_config, round(tokens.tiles * patches), item)
    return {
        "weights": item * count(model),
        "learnt: copies, gradients, AdamW": LEARNT * sum(trained.values()),
        "samples at once": round(sample * rows),
        "vision tower, one image": tower,
        "CUDA and the like": OVERHEAD,
    }
