"""Regions per second of a training step: the regions of an image as a group, and each by itself.

Random weights, float32, features of the image at hand, masks after the image; the two ways take
turns in one process, and the ratio is the median of the pairs. A group runs the image's part of
the prompt once for all of its regions; apart, each region is a row of its own.

    OMP_NUM_THREADS=1 python tests/benchmarks/train_grouped.py
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from record import record

from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import preset_config
from ureca_lib.processor import UrecaProcessor
from ureca_lib.scenes import generate_scene
from ureca_lib.train.data import GroupSample, RegionCollator
from ureca_lib.train.settings import load_settings
from ureca_lib.train.stages import StageModel, freeze_for_stage
from ureca_lib.train.tiny_base.model import scene_tokenizer

# layers of the language model, most tiles of the image, regions
SHAPES = {"tiny": (None, 6, 16), "1b, 1 of 24 layers, one tile": (1, 1, 16)}


def learner_of(preset: str, layers: int | None, stage: int) -> tuple[StageModel, UrecaProcessor]:
    """A model of random weights with the scenes' tokenizer, ready for a stage."""
    tokenizer = scene_tokenizer()
    config = preset_config(preset, len(tokenizer), mask_position="after_image")
    if layers is not None:
        config.text_config.num_hidden_layers = layers
        config.text_config.layer_types = config.text_config.layer_types[:layers]
        config.vision_config.num_hidden_layers = 1  # not run: features are at hand
    config._attn_implementation = "eager" if preset == "tiny" else "sdpa"
    changes = {"gradient_checkpointing": False, "precision": "float32", "data": "scenes:train:1"}
    model = freeze_for_stage(
        UrecaForConditionalGeneration(config), load_settings(preset, stage, changes)
    )
    return StageModel(model).train(), UrecaProcessor.from_config(config, tokenizer)


def sample_of(learner: StageModel, processor: UrecaProcessor, tiles: int, regions: int):
    """A group of regions of a scene; its image features are random, and at hand."""
    scene = generate_scene(3)
    chosen = [scene.regions.regions[i % len(scene.regions)] for i in range(regions)]
    masks = processor.mask_tiles(chosen, scene.image.shape[:2], tiles)
    count = len(processor.image_tiles(scene.image, tiles))
    width = learner.config.text_config.hidden_size
    features = torch.randn(count, learner.config.image_seq_length, width)
    rows = [
        processor.token_ids("Describe this region.", scene.captions[r.id], count, masks.shape[1])
        for r in chosen
    ]
    learner.encode_image = lambda _: features
    return GroupSample(rows, masks, None, features)


def step_seconds(learner: StageModel, batch: dict) -> float:
    """Time of the forward and the backward pass."""
    began = time.perf_counter()
    learner(**batch).backward()
    took = time.perf_counter() - began
    learner.zero_grad()
    return took


def main(pairs: int = 5) -> None:
    """Measure and record."""
    rows = [
        "| shape | stage | tokens | apart | grouped | times faster |",
        "|---|---|---|---|---|---|",
    ]
    for name, (layers, tiles, regions) in SHAPES.items():
        for stage in (1, 2):
            torch.manual_seed(0)
            learner, processor = learner_of(name.split(",")[0], layers, stage)
            sample = sample_of(learner, processor, tiles, regions)
            batches = [RegionCollator(processor, grouped)([sample]) for grouped in (False, True)]
            for batch in batches:
                step_seconds(learner, batch)  # warm
            took = [[step_seconds(learner, batch) for batch in batches] for _ in range(pairs)]
            apart, grouped = (statistics.median(column) for column in zip(*took, strict=True))
            ratio = statistics.median(one / other for one, other in took)
            print(name, stage, round(ratio, 2), flush=True)
            rows.append(
                f"| {name} | {stage} | {len(sample.rows[0][0])} | {regions / apart:.1f} | "
                f"{regions / grouped:.1f} | {ratio:.1f} |"
            )
    note = (
        "Regions per second, 16 regions of one image, forward and backward pass. Tokens: of the "
        "first region's sample, image included."
    )
    command = "OMP_NUM_THREADS=1 python tests/benchmarks/train_grouped.py"
    record("Training: regions of an image as a group", "\n".join([*rows, "", note]), command)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:]))
