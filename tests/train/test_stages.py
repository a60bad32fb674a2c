"""What a stage starts from, what learns in it, and its loss by every way of running it."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_config, tiny_model, tiny_tokenizer
from tiny_runs import SCENES, small, write_base
from transformers import InternVLConfig, InternVLForConditionalGeneration

from ureca_lib.checkpoints import CheckpointError
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.data import RegionCaptionDataset, RegionCollator
from ureca_lib.train.index import open_index
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start


def batch_of(model, settings, grouped, places=(0, 1)):
    """A batch of groups of three regions of the sample scenes."""
    processor = UrecaProcessor.from_config(model.config, tiny_tokenizer())
    index = open_index(str(SCENES), 3, progress=False)
    groups = RegionCaptionDataset(index, processor, settings)
    return RegionCollator(processor, grouped)([groups[place] for place in places])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def settings(base):
    return small(base)


def test_stage_1_learns_the_mask_encoder_and_nothing_else(settings):
    model, _ = load_start(settings)
    learner = StageModel(freeze_for_stage(model, settings))
    encoder = {f"model.mask_encoder.{n}" for n, _ in model.model.mask_encoder.named_parameters()}
    assert set(learner.trained()) == encoder
    learner(**batch_of(model, settings, True)).backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum()}
    assert moved == encoder


def test_stage_2_learns_adapters_on_every_layer_of_the_language_model(base):
    settings = small(base, 2)
    model, _ = load_start(settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learner = StageModel(freeze_for_stage(model, settings))
    names = set(learner.trained())
    assert all("language_model" in name and "lora_" in name for name in names)
    assert len(names) == 2 * 7 * model.config.text_config.num_hidden_layers
    learner(**batch_of(model, settings, True)).backward()
    # the second half begins at zero, so the first has no gradient yet
    assert all(p.grad.abs().sum() for n, p in learner.trained().items() if "lora_B" in n)
    optimizer = torch.optim.AdamW(learner.trained().values(), lr=1e-2)
    optimizer.step()
    after = dict(learner.base.named_parameters())
    for name, tensor in before.items():
        kept = (
            after[name]
            if name in after
            else after[
                name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")
            ]
        )
        assert torch.equal(kept, tensor), name


@pytest.mark.parametrize(
    ("stage", "placed"),
    [(1, {}), (1, {"mask_tile_embedding": True}), (1, {"mask_tile_positions": True}), (2, {})],
)
def test_a_group_on_a_shared_prefix_costs_what_its_rows_cost(base, stage, placed):
    settings = small(base, stage, lora_dropout=0.0, **placed)
    model, _ = load_start(settings)
    learner = StageModel(freeze_for_stage(model, settings))
    found = []
    for grouped in (True, False):
        learner.zero_grad()
        loss = learner(**batch_of(model, settings, grouped))
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in learner.trained().values()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("position", ["after_image", "before_image"])
def test_rows_cost_what_transformers_loss_says(base, position):
    settings = small(base, mask_position=position)
    model, _ = load_start(settings)
    learner = StageModel(freeze_for_stage(model, settings)).eval()
    batch = batch_of(model, settings, grouped=False)
    tiles = batch["images"]
    with torch.no_grad():
        theirs = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
            pixel_values=torch.cat([tiles[i] for i in batch["image_of"].tolist()]),
            mask_values=batch["mask_values"],
        ).loss
        ours = learner(**batch)
        halves = learner(**batch, tokens=2 * (batch["labels"] != -100).sum())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(halves * 2, theirs, rtol=1e-5, atol=1e-6)


def test_a_run_without_masks_is_shown_none(settings, base):
    model, _ = load_start(settings)
    seen = batch_of(model, settings, True)["mask_values"]
    hidden = batch_of(model, small(base, no_mask=True), True)["mask_values"]
    assert seen.any() and not hidden.any() and seen.shape == hidden.shape


def test_new_mask_encoders_are_the_seeds(base):
    weights = [
        load_start(small(base, seed=seed))[0].model.mask_encoder.conv1.weight for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    kept, _ = load_start(small(base, fresh_mask_encoder=False))
    stored = UrecaForConditionalGeneration.from_pretrained(base)
    assert torch.equal(kept.model.mask_encoder.conv1.weight, stored.model.mask_encoder.conv1.weight)


def test_settings_change_the_model_that_is_started_from(base):
    model, processor = load_start(small(base, mask_tokens=4, mask_projector="linear"))
    assert model.model.mask_encoder.num_tokens == processor.num_mask_tokens == 4
    assert isinstance(model.model.mask_encoder.projector, torch.nn.Linear)
    assert (model.config.max_tiles, model.config.max_tiles_train) == (2, 2)
    single, processor = load_start(small(base, mask_dynamic=False))
    assert not single.config.mask_dynamic and not processor.mask_dynamic


def test_stage_1_starts_from_an_internvl_checkpoint(tmp_path):
    config = tiny_config()
    shared = ("vision_config", "text_config", "image_token_id", "tie_word_embeddings")
    torch.manual_seed(0)
    plain = InternVLForConditionalGeneration(
        InternVLConfig(**{name: getattr(config, name) for name in shared})
    )
    plain.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model, processor = load_start(small(tmp_path, mask_tokens=4))
    assert model.config.mask_position == processor.mask_position == "after_image"
    assert model.model.mask_encoder.num_tokens == 4
    ours = model.model.language_model.layers[0].self_attn.q_proj.weight
    assert torch.equal(ours, plain.model.language_model.layers[0].self_attn.q_proj.weight)
    with pytest.raises(ValueError, match="no mask encoder: stage 2 starts from"):
        load_start(small(tmp_path, 2))


def test_starts_at_fault_are_refused(base, tmp_path):
    with pytest.raises(ValueError, match="model: name the folder"):
        load_start(small(base, model=None))
    with pytest.raises(CheckpointError, match=r"none.config\.json: no such file"):
        load_start(small(tmp_path / "none"))
    with pytest.raises(ValueError, match="another num_mask_tokens"):
        load_start(small(base, 2, mask_tokens=4))
    with pytest.raises(ValueError, match="another mask_tile_embedding"):
        load_start(small(base, 2, mask_tile_embedding=True))
    tiny_model().save_pretrained(tmp_path / "bare")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_start(small(tmp_path / "bare"))


def test_what_learns_is_float32_in_a_bfloat16_model(base):
    for stage in (1, 2):
        settings = small(base, stage, precision="bfloat16")
        model, _ = load_start(settings)
        learner = StageModel(freeze_for_stage(model, settings))
        assert model.lm_head.weight.dtype == torch.bfloat16
        assert {p.dtype for p in learner.trained().values()} == {torch.float32}


def test_autocast_does_not_change_the_features_of_an_image(settings):
    model, _ = load_start(settings)
    learner = StageModel(freeze_for_stage(model, settings)).eval()
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    plain = learner.encode_image(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        inside = learner.encode_image(pixels)
    assert inside.dtype == torch.float32 and torch.equal(inside, plain)
