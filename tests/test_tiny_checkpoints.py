"""The committed checkpoints: what their cards say, they do."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.checkpoints import load_model_and_processor
from ureca_lib.evaluate.predictions import read_predictions
from ureca_lib.presets import describe_preset
from ureca_lib.scenes import SceneSpecification, generate_scene, resolve
from ureca_lib.train.recipe import measure_model
from ureca_lib.train.settings import BaseSettings, Recipe
from ureca_lib.train.tiny_base.model import scene_tokenizer

MOST = 15 * 10**6  # bytes of both


@pytest.fixture
def tiny(samples):
    return samples / "tiny_ureca"


def test_both_are_small_and_half_precision(samples):
    folders = [samples / "tiny_base", samples / "tiny_ureca"]
    files = [file for folder in folders for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < MOST
    assert {file.suffix for file in files} <= {".json", ".jsonl", ".md", ".safetensors"}
    for folder in folders:
        with safe_open(folder / "model.safetensors", "pt") as opened:
            assert {opened.get_slice(name).get_dtype() for name in opened.keys()} == {"F16"}  # noqa: SIM118


def test_the_base_was_made_with_the_settings_that_the_command_has(samples):
    told = json.loads((samples / "tiny_base" / "training_settings.json").read_text())
    assert told == asdict(BaseSettings()) | {"scenes_version": SceneSpecification().version}


def test_their_tokenizer_is_the_one_that_is_made(samples, tiny):
    for folder in (samples / "tiny_base", tiny):
        loaded = type(scene_tokenizer()).from_pretrained(folder)
        assert loaded.get_vocab() == scene_tokenizer().get_vocab()


def test_the_model_is_the_preset_and_the_recipe_is_the_default(tiny):
    model, _ = load_model_and_processor(tiny)
    assert model.dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) == describe_preset("tiny").parameters
    told = json.loads((tiny / "results.json").read_text())["recipe"]
    assert Recipe(**told) == Recipe("data_samples/tiny_base")  # options added since: off


def test_the_model_does_on_other_scenes_what_its_card_says(tiny, tmp_path):
    """Ten test scenes behind those of the card: within what ten scenes leave open."""
    told = json.loads((tiny / "results.json").read_text())["values"]
    found = measure_model(tiny, "scenes:test:500-510", tmp_path / "p.jsonl", progress=False)
    for name, score in found.overall.items():
        assert abs(score.value - told[name]) < 0.15, name
    assert len(read_predictions(tmp_path / "p.jsonl")) > 300


def test_the_mask_decides_what_is_said(tiny):
    """Captions follow their region when regions change places, and no other."""
    scene = generate_scene(2_000_700)
    captioner = RegionCaptioner.from_pretrained(tiny)
    regions = scene.regions.regions
    forwards = captioner.caption(scene.image, regions, progress=False)
    backwards = captioner.caption(scene.image, regions[::-1], progress=False)
    one = {caption.region_id: caption.text for caption in forwards}
    assert one == {caption.region_id: caption.text for caption in backwards}
    assert len(set(one.values())) > 0.7 * len(one)
    right = sum(resolve(text, scene) == {region_id} for region_id, text in one.items())
    assert right > 0.5 * len(one)
