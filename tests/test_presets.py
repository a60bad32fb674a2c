"""Presets against the published sizes, real models, adapters and tiles, and their own formulas."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model

from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import (
    LORA_LAYERS,
    PRESETS,
    describe_preset,
    model_costs,
    photo_tokens,
    preset_config,
    presets_text,
)
from ureca_lib.tiling import tile_image, tile_masks

PUBLISHED_MILLIONS = {"1b": 938, "2b": 2206, "4b": 3713, "8b": 8075}  # InternVL2.5's checkpoints


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_backbones_have_the_published_number_of_parameters(name):
    costs = describe_preset(name)
    added_rows = 3 * PRESETS[name].language.hidden_size * 2  # mask tokens, in and out
    backbone = costs.parameters - costs.mask_encoder - added_rows
    assert round(backbone / 1e6) == PUBLISHED_MILLIONS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_configs_are_the_papers_on_the_presets_sizes(name):
    preset, config = PRESETS[name], preset_config(name)
    assert (config.mask_position, config.mask_projector, config.mask_scale) == (
        "before_image",
        "mlp",
        1,
    )
    assert (config.num_mask_tokens, config.mask_dynamic) == (8, True)
    assert (config.max_tiles, config.max_tiles_train) == (12, 6)
    assert config.tile_size == config.mask_size == preset.tile_size
    assert config.text_config.vocab_size == preset.vocab_size
    assert config.text_config.model_type == preset.model_type
    assert config.text_config.rope_parameters["rope_theta"] == preset.rope_theta
    assert preset.lora_alpha == 2 * preset.lora_rank
    assert config.mask_token_id == preset.mask_token_id
    ids = {config.image_token_id, config.mask_token_id}
    assert len(ids) == 2 and max(ids) < preset.vocab_size


def test_parameters_are_those_of_a_real_model():
    config = preset_config("tiny")
    model = UrecaForConditionalGeneration(config)
    costs = describe_preset("tiny")
    assert costs.parameters == sum(p.numel() for p in model.parameters())
    assert costs.stage_1 == sum(p.numel() for p in model.model.mask_encoder.parameters())
    tower = model.model.vision_tower
    assert costs.vision_tower == sum(p.numel() for p in tower.parameters())


@pytest.mark.parametrize("rank", [4, 16])
def test_trainable_parameters_are_those_of_real_adapters(rank):
    config = preset_config("tiny")
    model = UrecaForConditionalGeneration(config)
    target = rf".*language_model.*\.({'|'.join(LORA_LAYERS)})"
    adapted = get_peft_model(model, LoraConfig(r=rank, target_modules=target))
    learnt = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert model_costs(config, rank, (560, 373)).stage_2 == learnt


@pytest.mark.parametrize("photo", [(562, 375), (375, 562), (112, 112), (90, 800)])
@pytest.mark.parametrize("settings", [{}, {"mask_dynamic": False}, {"mask_thumbnail": False}])
def test_tokens_are_those_of_real_tiles(photo, settings):
    config = preset_config("tiny", **settings)
    pixels = np.zeros((photo[1], photo[0], 3), np.uint8)
    image = tile_image(pixels, config.max_tiles, config.tile_size)
    most = config.max_tiles if config.mask_dynamic else 1
    masks = tile_masks(pixels[None, ..., 0], most, config.mask_size, config.mask_thumbnail)
    assert photo_tokens(config, photo) == {
        "tiles": len(image),
        "image_tokens": len(image) * config.image_seq_length,
        "mask_tokens": masks.shape[1] * config.num_mask_tokens,
    }


def test_a_typical_photo_has_seven_tiles_in_every_preset():
    assert {describe_preset(name).tiles for name in PRESETS} == {7}
    assert describe_preset("8b").image_tokens == 7 * 256
    assert describe_preset("tiny").image_tokens == 7 * 16
    assert describe_preset("8b").mask_tokens == 7 * 8


def test_memory_follows_the_stated_formulas():
    costs = describe_preset("1b")
    weights, length = 2 * costs.parameters, 1792 + 56 + 64
    caches = 2 * (length + 128) * 24 * 2 * 64 * 2  # keys and values of two heads of 64
    assert costs.inference_bytes > weights + caches
    kept = (length + 128) * (2 * 896 * 24 + 10 * 151677)
    for stage in ("stage_1", "stage_2"):
        memory = getattr(costs, f"{stage}_bytes")
        floor = weights + 16 * getattr(costs, stage) + kept
        assert floor < memory < 1.1 * floor
    # the stages differ in what is trained only
    trained = costs.stage_1 - costs.stage_2
    assert costs.stage_1_bytes - costs.stage_2_bytes == 16 * trained


def test_larger_presets_cost_more():
    costs = [describe_preset(name) for name in PRESETS]
    for key in ("parameters", "language_model", "stage_1", "stage_2", "inference_bytes"):
        values = [getattr(one, key) for one in costs]
        assert values == sorted(values), key


def test_costs_are_worked_out_without_weights():
    # the 8B model takes 16 GB
    before = psutil.Process().memory_info().rss
    model_costs(preset_config("8b"), 128, (2250, 1500))
    assert psutil.Process().memory_info().rss - before < 2**30


def test_a_tiny_model_of_ones_own_vocabulary_runs():
    config = preset_config("tiny", vocab_size=100, num_mask_tokens=4)
    assert (config.image_token_id, config.mask_token_id) == (96, 97)
    model = UrecaForConditionalGeneration(config).eval()
    ids = torch.tensor([[1, *[97] * 4, *[96] * 16, 2]])
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            pixel_values=torch.zeros(1, 3, 112, 112),
            mask_values=torch.ones(1, 1, 112, 112),
        ).logits
    assert logits.shape == (1, 22, 100)
    assert logits.isfinite().all()


def test_the_text_shows_every_preset_in_lines_that_fit():
    text = presets_text()
    lines = text.splitlines()
    assert lines[0].split() == list(PRESETS)
    assert max(map(len, lines)) <= 100
    assert "8.14 B" in next(line for line in lines if line.startswith("parameters"))
    assert all(preset.backbone in text for preset in PRESETS.values())


@pytest.mark.parametrize("function", [preset_config, describe_preset])
def test_an_unknown_preset_is_refused(function):
    with pytest.raises(ValueError, match="'3b': choose from tiny, 1b, 2b, 4b, 8b"):
        function("3b")


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="mask_tokens"):
        preset_config("tiny", mask_tokens=4)
