"""The tiny base's training, at a few steps of a few scenes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import InternVLForConditionalGeneration

from ureca_lib.checkpoints import CheckpointError, from_internvl_hf
from ureca_lib.checkpoints.loading import save_float16
from ureca_lib.configuration import MAX_TILES_TRAIN
from ureca_lib.processor import UrecaProcessor
from ureca_lib.scenes import generate_scene
from ureca_lib.scenes.lexicon import KINDS, SURFACES
from ureca_lib.tiling import tile_image, tile_masks
from ureca_lib.train.grouped import grouped_forward
from ureca_lib.train.settings import BaseSettings
from ureca_lib.train.tiny_base.data import (
    KINDS_PER_PATCH,
    NOTHING,
    PATCH,
    BaseBatches,
    as_pixel_values,
    make_scenes,
    read_scene,
    scene_arrays,
)
from ureca_lib.train.tiny_base.model import as_internvl, new_base, scene_tokenizer
from ureca_lib.train.tiny_base.train import BaseRun, train_base

SMALL = BaseSettings(
    scenes=6,
    validation_scenes=1,
    steps=6,
    patch_steps=2,
    scenes_a_step=2,
    regions_a_scene=3,
    warmup_steps=2,
    processes=1,
    save_every=2,
    bf16=False,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return make_scenes(range(SMALL.scenes), folder), make_scenes([1_000_000], folder)


def run(work, files, steps=SMALL.steps):
    work.mkdir(exist_ok=True)
    each = BaseRun(SMALL, work, *files)
    each.train(until=steps)
    return each


def weights(work):
    return load_file(work / "checkpoint-6" / "trained.safetensors")


def test_a_file_holds_what_the_scene_holds(files):
    assert len(files[0]) == SMALL.scenes
    for seed in (0, 5):
        scene, arrays = generate_scene(seed), read_scene(files[0][seed])
        tiles = tile_image(scene.image, max_tiles=6, tile_size=112, thumbnail=True)
        assert np.array_equal(arrays.tiles, tiles)
        assert arrays.captions == [scene.captions[region.id] for region in scene.regions]
        assert all("<box>" in question for question in arrays.questions)
        parents = [scene.description[region.id].parent for region in scene.regions]
        ids = [region.id for region in scene.regions]
        named = [ids[place] if place >= 0 else None for place in arrays.parents]
        assert named == parents
        assert arrays.kinds == [facts.kind for facts in scene.description.children(None)]


def test_shards_that_are_there_are_not_made_again(files, tmp_path):
    made = make_scenes(range(3), tmp_path)
    before = made[0].stat().st_mtime_ns
    assert make_scenes(range(3), tmp_path) == made
    assert made[0].stat().st_mtime_ns == before


def test_patch_labels_name_what_is_seen_there():
    scene = generate_scene(4)
    tiles, patches, *_ = scene_arrays(scene)
    told = {KINDS[k] for k in patches[:, :, :KINDS_PER_PATCH].ravel() if k != NOTHING}
    assert told <= {facts.kind for facts in scene.description.facts}
    masks = tile_masks(scene.regions.regions, max_tiles=6, tile_size=112, thumbnail=False)
    side = 112 // PATCH
    # a patch that one part fills, and none of its own parts, is of that part's kind and surface
    leaves = [r for r in scene.regions if not scene.description.children(r.id)]
    checked = 0
    for region in leaves:
        mask = masks[scene.regions.regions.index(region)]
        cells = mask.reshape(-1, side, PATCH, side, PATCH).mean(dim=(2, 4)).flatten(1)
        facts = scene.description[region.id]
        for tile, patch in (cells == 1).nonzero().tolist():
            labels = patches[tile, patch].tolist()
            assert KINDS[labels[0]] == facts.kind
            assert labels[KINDS_PER_PATCH + 1] == SURFACES.index(facts.surface)
            checked += 1
    assert checked > 5 and tiles.dtype == np.uint8


def test_pixels_are_normalized_as_the_processor_does_it():
    scene = generate_scene(1)
    model = new_base(0)
    processor = UrecaProcessor.from_config(model.config, scene_tokenizer())
    tiles = torch.from_numpy(scene_arrays(scene).tiles)
    expected = processor.image_tiles(scene.image, model.config.max_tiles_train)
    torch.testing.assert_close(as_pixel_values(tiles), expected, rtol=0, atol=1e-5)


def test_a_run_that_was_stopped_ends_with_the_same_weights(files, tmp_path):
    run(tmp_path / "whole", files)
    run(tmp_path / "parts", files, steps=3)  # after the checkpoint of step 2
    resumed = run(tmp_path / "parts", files)
    assert resumed.step == SMALL.steps
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("patch_steps", "restart", "parts"),
    [
        (300, 0, {0: "patch_learning_rate", 300: "learning_rate"}),
        (300, 600, {0: "patch_learning_rate", 300: "learning_rate", 600: "restart_learning_rate"}),
        (0, 400, {0: "learning_rate", 400: "restart_learning_rate"}),
        (0, 1000, {0: "learning_rate"}),  # a restart after the end is none
    ],
)
def test_the_learning_rate_rises_and_falls_in_each_part(
    files, tmp_path, patch_steps, restart, parts
):
    settings = BaseSettings(steps=1000, patch_steps=patch_steps, restart=restart, warmup_steps=50)
    each = BaseRun(settings, tmp_path, *files)
    rates = np.array([each.learning_rate(step) for step in range(1000)])
    for (start, name), end in zip(parts.items(), (*list(parts)[1:], 1000), strict=True):
        part, highest = rates[start:end], getattr(settings, name)
        floor = 0.3 if name == "patch_learning_rate" else 0.01
        # the cosine has begun to fall by the end of the warm-up
        fallen = (1 - floor) * (1 - math.cos(math.pi * 50 / (end - start))) / 2
        assert (1 - fallen) * highest <= part.max() <= highest
        assert (np.diff(part[:49]) > 0).all() and (np.diff(part[50:]) < 0).all()
        assert floor * highest < part[-1] < (floor + 0.01) * highest


def test_training_learns_and_validation_is_greedy_decoding(files, tmp_path):
    settings = BaseSettings(**{**vars(SMALL), "steps": 40, "patch_steps": 10, "warmup_steps": 5})
    each = BaseRun(settings, tmp_path, *files)
    each.train()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    each.model.eval()
    scene = read_scene(each.held_out[0])
    whole = each.batches.batch([scene])
    batch, pixels = whole.grouped, whole.pixel_values
    features = each.model.get_image_features(pixels, return_dict=True).pooler_output
    _, correct = grouped_forward(each.model, **batch, image_features=features)
    for i in range(3):  # a caption of exactly the labels' length decides the match
        learnt = batch["labels"][i] != -100
        wanted = batch["labels"][i][learnt]
        prompt = torch.cat([batch["image_ids"][0], batch["region_ids"][i]])
        prompt = prompt[: len(batch["image_ids"][0]) + int(learnt.nonzero()[0])]
        generated = each.model.generate(
            input_ids=prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            pixel_values=pixels,
            max_new_tokens=len(wanted),
            do_sample=False,
        )[0, len(prompt) :]
        same = len(generated) == len(wanted) and bool((generated == wanted).all())
        assert same == bool(correct[i])


def test_the_look_loss_moves_attention_onto_the_box(files, tmp_path):
    changes = {"steps": 40, "patch_steps": 0, "warmup_steps": 5, "aid_weight": 1.0}
    settings = BaseSettings(**{**vars(SMALL), **changes, "look_weight": 5.0})
    BaseRun(settings, tmp_path, *files).train()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    looks = [row["look_loss"] for row in rows]
    assert looks[-1] < 0.9 * looks[0]


def test_the_base_that_is_written_is_an_internvl_without_masks(files, tmp_path):
    work, out = tmp_path / "work", tmp_path / "base"
    train_base(SMALL, out, work)
    base = InternVLForConditionalGeneration.from_pretrained(out)
    assert base.dtype == torch.float32
    assert not any("mask_encoder" in name for name in base.state_dict())
    model = from_internvl_hf(out, mask_position="after_image")
    assert model.config.max_tiles == model.config.max_tiles_train == MAX_TILES_TRAIN
    batch = BaseBatches(scene_tokenizer(), 16).batch([read_scene(files[1][0])])
    ids = torch.cat([batch.grouped["image_ids"][0], batch.grouped["region_ids"][0]])[None]
    theirs = base(
        input_ids=ids,
        pixel_values=batch.pixel_values,
    ).logits[0, -1]
    ours = model(
        input_ids=ids,
        pixel_values=batch.pixel_values,
    ).logits[0, -1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert "exact captions" in (out / "README.md").read_text()
    with pytest.raises(ValueError, match="steps was 6, is 7"):
        train_base(BaseSettings(**{**vars(SMALL), "steps": 7}), out, work)


def test_half_precision_is_stored_and_single_is_computed(tmp_path):
    base = as_internvl(new_base(3))
    save_float16(base, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded = InternVLForConditionalGeneration.from_pretrained(tmp_path, dtype="auto")
    assert loaded.dtype == torch.float32
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, base.state_dict()[name])
    with torch.no_grad():
        *_, last = base.parameters()
        last.fill_(1e6)
        next(base.parameters()).fill_(1 / 3)  # which float16 rounds
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with pytest.raises(CheckpointError, match="too large for float16"):
        save_float16(base, tmp_path / "other")
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name])
