"""What a stage takes, estimated from sizes alone: tokens, operations, memory, learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ureca_lib.configuration import UrecaConfig
from ureca_lib.costs import LEARNT, LOGIT, LORA_LAYERS, count, training_bytes
from ureca_lib.memory import activation_bytes
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor
from ureca_lib.tiling import best_grid
from ureca_lib.train.images import ImageRecord
from ureca_lib.train.settings import TrainSettings

WORD_TOKENS = 1.35  # tokens a word where there is no tokenizer; assumed
PROMPT_TOKENS = 24  # chat format and question where there is no tokenizer; assumed
OVERHEAD = 2 * 2**30  # bytes that CUDA, NCCL and cuBLAS take; assumed
CAPTIONS_READ = 2000  # captions that are brought to tokens, spread over the data


@dataclass(frozen=True)
class Tokens:
    """Tokens of a sample, a mean over what was read and the longest."""

    image: float
    mask: float
    text: float
    longest: int
    longest_text: int
    tiles: float
    counted: bool  # by a tokenizer, else estimated from words


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


def sample_tokens(
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
        longest_text=max(lengths),
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


def memory_of_a_gpu(
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
    # the head runs on answers only, and of a text at most all is answer
    unneeded = tokens.longest - tokens.longest_text
    sample -= LOGIT * unneeded * config.text_config.vocab_size
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
