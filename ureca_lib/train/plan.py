"""A dry run: what a stage trains, for how long and in how much memory, before weights are read.

Settings, data, the tokenizer and the headers of the base's files are read; the model is built on
the meta device, so that the 8B preset can be planned on a laptop. The text says which numbers are
counted and which are estimated. What would stop the run stops its plan.
"""

from __future__ import annotations

import shlex
from collections import Counter
from copy import copy
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ureca_lib.configuration import UrecaConfig
from ureca_lib.decoding import activation_bytes
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import (
    LOGIT,
    TRAINABLE,
    count,
    get_preset,
    photo_tokens,
    preset_config,
    training_bytes,
)
from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.data import GroupOrder, check_data, open_data, total_steps
from ureca_lib.train.export import CARDS
from ureca_lib.train.index import RegionIndex
from ureca_lib.train.loop import learning_rates, warmup_steps
from ureca_lib.train.settings import TrainSettings, load_settings
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start

PEAKS = {"A100": 312e12, "H100": 989e12}  # dense bfloat16, from NVIDIA's data sheets
UTILIZATION = 0.35  # share of the peak that such training reaches; assumed, not measured here
WORD_TOKENS = 1.35  # tokens per word if there is no tokenizer; assumed
PROMPT_TOKENS = 24  # chat format and question if there is no tokenizer; assumed
OVERHEAD = 2 * 2**30  # bytes that CUDA, NCCL and cuBLAS take; assumed
TEMPLATE = CARDS / "plan.txt"
CAPTIONS_READ = 2000  # captions that are tokenized, spread over the data


class Plan:
    """What a stage will do, from its settings, without reading weights.

    Args:
        settings: of the stage; `model` may be missing.
        processes: number of GPUs.
        progress: show a bar while the data is read.

    Attributes:
        notes: what was checked, and what was not.
        images, held_out: numbers of images.
        samples, groups: regions and groups of an epoch.
        steps, rates: optimizer steps, and the learning rate of each.
        parameters: all parameters, adapters not counted.
        trained: trainable parameters by module; of LoRA by the kind of layer that it adapts.
        image_tokens, mask_tokens, text_tokens, tiles: means over the data, per sample.
        longest, longest_text: tokens of the longest sample, and of the longest text.
        memory: bytes per GPU by purpose.
        step_flops: floating-point operations per step, over all GPUs.

    Raises:
        ValueError, OSError: see `train_stage`.
    """

    def __init__(self, settings: TrainSettings, processes: int = 4, progress: bool = True):
        self.settings, self.processes = settings, processes
        self.micro, self.accumulated = settings.accumulation(processes)
        self.model, self.processor, self.notes = _start(settings)
        images, held_out = open_data(settings, progress=progress)
        for index in filter(None, (images, held_out)):
            check_data(index, settings, self.processor and self.processor.conversation)
        self.images, self.held_out = len(images), len(held_out or ())
        self.samples = int(images.counts.sum())
        self.groups = len(GroupOrder(images.counts, settings.regions_per_image, settings.seed))
        self.steps = total_steps(settings, self.groups)
        self.rates = learning_rates(settings, self.steps)
        self._count_tokens(images)
        self.step_flops = settings.batch_size * self._flops(self.samples / self.groups)
        self.parameters = count(self.model)  # before adapters are put in
        self.trained = trained_by_module(settings, self.model)
        self.memory = self._memory(self.micro * self.samples / self.groups)

    def hours(self, gpu: str) -> float:
        """Estimated hours: steps x operations per step / (GPUs x peak x utilization)."""
        return self.steps * self.step_flops / (self.processes * PEAKS[gpu] * UTILIZATION) / 3600

    def _count_tokens(self, index: RegionIndex) -> None:
        """Tokens of all images; of texts, those of captions spread over the data."""
        config, sizes = copy(self.model.config), index.table.select(["width", "height"]).to_pandas()
        config.max_tiles = config.max_tiles_train
        weights = sizes.assign(regions=index.counts).groupby(["width", "height"]).regions.sum()
        weights = weights[weights > 0]
        visual = pd.DataFrame([photo_tokens(config, size) for size in weights.index])
        means = np.average(visual, axis=0, weights=weights)
        self.tiles, self.image_tokens, self.mask_tokens = means.tolist()
        captions = index.texts("captions")
        chosen = captions.take(np.arange(0, len(captions), max(1, len(captions) // CAPTIONS_READ)))
        lengths = [self._text_tokens(text) for text in chosen.to_pylist()]
        self.text_tokens, self.longest_text = sum(lengths) / len(lengths), max(lengths)
        self.longest = int((visual.image_tokens + visual.mask_tokens).max()) + self.longest_text

    def _text_tokens(self, caption: str) -> int:
        if self.processor is None:
            return PROMPT_TOKENS + round(WORD_TOKENS * len(caption.split())) + 1
        # without tiles only the text is left
        return len(self.processor.token_ids(self.settings.question, caption, 0, 0)[0])

    def _flops(self, regions: float) -> float:
        """Operations for an image with `regions` regions.

        A matrix takes 2 operations per parameter and token; causal attention 2 L^2 D per layer. The
        language model runs forward, backward for the activations (its weights are frozen), and
        forward again if checkpointing recomputes; the vision tower forward only.
        """
        config, model = self.model.config, self.model.model
        text, vision, patches = config.text_config, config.vision_config, _patches(config)
        length = self.image_tokens + self.mask_tokens + self.text_tokens
        run = regions * length
        if self.settings.regions_per_image > 1 and config.mask_position == "after_image":
            run -= (regions - 1) * self.image_tokens  # shared
        attention = 2 * text.num_hidden_layers * text.hidden_size * length * run
        passes = 3 if self.settings.gradient_checkpointing else 2
        tower = count(model.vision_tower) * 2 * patches
        tower += 4 * vision.num_hidden_layers * vision.hidden_size * patches**2
        matrices = 2 * count(model.language_model.layers) * run
        return passes * (matrices + attention) + tower * self.tiles

    def _memory(self, rows: float) -> dict[str, int]:
        """Bytes on each GPU that runs `rows` samples at once, with all weights on every one."""
        config, item = self.model.config, 2 if self.settings.precision == "bfloat16" else 4
        text, patches = config.text_config, round(self.tiles * _patches(config))
        sample = training_bytes(text, self.longest)
        # the head runs on answers only, and at most the whole text is answer
        sample -= LOGIT * (self.longest - self.longest_text) * text.vocab_size
        if not self.settings.gradient_checkpointing:
            layer = activation_bytes(text, self.longest, item)
            sample += (text.num_hidden_layers - 1) * layer
        return {
            "weights": item * self.parameters,
            "trainable: copies, gradients, AdamW": TRAINABLE * sum(self.trained.values()),
            "samples at once": round(sample * rows),
            "vision tower, one image": activation_bytes(config.vision_config, patches, item),
            "CUDA and the like": OVERHEAD,
        }

    def text(self, out: str | Path = "runs/NAME") -> str:
        """The whole plan for a terminal; estimates are marked."""
        s, gib = self.settings, 2**30
        hours = (
            f"  {self.processes} x {gpu}: {self.hours(gpu):.2f} h, if {UTILIZATION:.0%} of "
            f"{peak / 1e12:.0f} TFLOP/s is reached (assumed)"
            for gpu, peak in PEAKS.items()
        )
        total = sum(self.trained.values())
        return TEMPLATE.read_text(encoding="utf-8").format(
            s=s,
            plan=self,
            epochs=self.steps * s.batch_size / self.groups,
            how="counted by the tokenizer" if self.processor else "text estimated from words",
            warmup=warmup_steps(s, self.steps),
            peak=max(self.rates),
            total=total,
            share=total / self.parameters,
            trained="\n".join(f"  {name:<26}{n:>13,}" for name, n in self.trained.items()),
            gib=sum(self.memory.values()) / gib,
            memory="\n".join(f"  {name:<36}{n / gib:>8.2f}" for name, n in self.memory.items()),
            trainable=TRAINABLE,
            kept="recomputed" if s.gradient_checkpointing else "all layers kept",
            hours="\n".join(hours),
            command=launch_command(s, self.processes, out),
            notes="\n".join(f"note: {note}" for note in self.notes),
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
