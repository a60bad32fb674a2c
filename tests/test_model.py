"""The URECA model: features in place of placeholders, batches, generation, saving."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import tiny_config, tiny_inputs, tiny_model
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    InternVLConfig,
    InternVLForConditionalGeneration,
)

from ureca_lib.model import UrecaConfig, UrecaForConditionalGeneration
from ureca_lib.train.stages import checkpoint_activations

TILES = [1, 3, 2]
LANGUAGE_LAYERS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


@pytest.fixture(scope="module")
def model() -> UrecaForConditionalGeneration:
    return tiny_model()


@pytest.fixture(scope="module")
def batch(model) -> dict:
    return tiny_inputs(model.config, TILES)


def samples(batch: dict, tiles: list[int]) -> list[dict]:
    """The batch's samples one by one, without padding."""
    singles, start = [], 0
    for row, count in enumerate(tiles):
        ids = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        singles.append(
            {
                "input_ids": ids.unsqueeze(0),
                "attention_mask": torch.ones_like(ids).unsqueeze(0),
                "pixel_values": batch["pixel_values"][start : start + count],
                "mask_values": batch["mask_values"][start : start + count],
            }
        )
        start += count
    return singles


@torch.no_grad()
def test_features_stand_where_placeholders_stood_and_nothing_else_changes(model, batch):
    inner, ids = model.model, batch["input_ids"]
    image = inner.get_image_features(batch["pixel_values"]).pooler_output
    masks = model.get_mask_features(batch["mask_values"])
    embeds = inner.embed_inputs(ids, image_features=image, mask_features=masks)
    plain = inner.get_input_embeddings()(ids)
    at_image, at_mask = ids == model.config.image_token_id, ids == model.config.mask_token_id
    assert torch.equal(embeds[at_image], image.flatten(0, 1))
    assert torch.equal(embeds[at_mask], masks.flatten(0, 1))
    assert torch.equal(embeds[~(at_image | at_mask)], plain[~(at_image | at_mask)])


@torch.no_grad()
def test_without_a_mask_it_is_transformers_internvl(model, batch):
    config = model.config
    fields = set(InternVLConfig().to_dict()) - {"model_type", "architectures"}
    theirs = InternVLForConditionalGeneration(
        InternVLConfig(**{k: v for k, v in config.to_dict().items() if k in fields})
    ).eval()
    weights = {k: v for k, v in model.state_dict().items() if "mask_encoder" not in k}
    theirs.load_state_dict(weights)
    ids = batch["input_ids"].clone()
    ids[ids == config.mask_token_id] = 7
    inputs = {"input_ids": ids, "pixel_values": batch["pixel_values"]}
    # InternVL counts padding as positions; without padding there is nothing to count
    expected = theirs(**inputs).logits
    assert torch.allclose(model(**inputs).logits, expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_gives_what_one_at_a_time_gives(model, batch, side):
    inputs = dict(batch)
    if side == "right":
        for name in ("input_ids", "attention_mask"):
            shifts = (batch["attention_mask"] == 0).sum(dim=1).tolist()
            rows = [row.roll(-shift) for row, shift in zip(batch[name], shifts, strict=True)]
            inputs[name] = torch.stack(rows)
    logits = model(**inputs).logits
    for row, single in enumerate(samples(batch, TILES)):
        alone = model(**single).logits[0]
        assert torch.allclose(logits[row][inputs["attention_mask"][row] == 1], alone, atol=2e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_in_a_batch_is_generation_one_at_a_time(model, batch, beams, use_cache):
    options = {
        "max_new_tokens": 6,
        "do_sample": False,
        "num_beams": beams,
        "use_cache": use_cache,
        "suppress_tokens": [model.config.image_token_id, model.config.mask_token_id],
    }
    together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    pad = model.config.text_config.pad_token_id
    for row, single in enumerate(samples(batch, TILES)):
        alone = model.generate(**single, **options)[0, single["input_ids"].shape[1] :]
        expected = functional.pad(alone, (0, together.shape[1] - len(alone)), value=pad)
        assert together[row].tolist() == expected.tolist()


BEAMS = {"max_new_tokens": 5, "do_sample": False, "num_beams": 3}


def test_beams_infer_unknown_placeholder_ids(model, batch):
    expected = model.generate(**batch, **BEAMS)
    config = model.config
    known = config.image_token_id, config.mask_token_id
    try:
        config.image_token_id = config.mask_token_id = None
        assert torch.equal(model.generate(**batch, **BEAMS), expected)
        assert (config.image_token_id, config.mask_token_id) == known
    finally:
        config.image_token_id, config.mask_token_id = known


@torch.no_grad()
def test_the_cache_gives_the_logits_of_the_whole_sequence(model, batch):
    whole = model(**batch, use_cache=False).logits
    split = batch["input_ids"].shape[1] - 2  # after every placeholder
    start = model(
        input_ids=batch["input_ids"][:, :split],
        attention_mask=batch["attention_mask"][:, :split],
        pixel_values=batch["pixel_values"],
        mask_values=batch["mask_values"],
        use_cache=True,
    )
    rest = model(
        input_ids=batch["input_ids"][:, split:],
        attention_mask=batch["attention_mask"],
        past_key_values=start.past_key_values,
    )
    assert torch.allclose(rest.logits, whole[:, split:], atol=2e-5)


@torch.no_grad()
def test_features_computed_before_are_as_good_as_pixels(model, batch):
    features = {
        "image_features": model.get_image_features(batch["pixel_values"]).pooler_output,
        "mask_features": model.get_mask_features(batch["mask_values"]),
    }
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert torch.allclose(model(**text, **features).logits, model(**batch).logits, atol=2e-5)


@torch.no_grad()
def test_embeddings_are_as_good_as_ids(model, batch):
    embeds = model.model.embed_inputs(**{k: v for k, v in batch.items() if k != "attention_mask"})
    inputs = {"inputs_embeds": embeds, "attention_mask": batch["attention_mask"]}
    assert torch.allclose(model(**inputs).logits, model(**batch).logits, atol=2e-5)
    with pytest.raises(ValueError, match="take input_ids"):
        model(**inputs, mask_values=batch["mask_values"])


@pytest.mark.parametrize(
    ("name", "kept", "message"),
    [
        ("pixel_values", 5, "20 image features for 24 image placeholder tokens"),
        ("pixel_values", 0, "0 image features for 24 image placeholder tokens"),
        ("mask_values", 5, "40 mask features for 48 mask placeholder tokens"),
        ("mask_values", 0, "0 mask features for 48 mask placeholder tokens"),
    ],
)
def test_too_few_features_are_an_error_with_both_counts(model, batch, name, kept, message):
    fewer = batch[name][:kept] if kept else None
    with pytest.raises(ValueError, match=message):
        model(**(batch | {name: fewer}))


def test_too_many_features_are_an_error_with_both_counts(model, batch):
    more = batch["mask_values"].repeat(2, 1, 1, 1)
    with pytest.raises(ValueError, match="96 mask features for 48 mask placeholder tokens"):
        model(**(batch | {"mask_values": more}))
    with pytest.raises(ValueError, match="24 image features for 0 image placeholder tokens"):
        model(input_ids=torch.tensor([[1, 2]]), pixel_values=batch["pixel_values"])


def test_ids_and_embeddings_together_are_an_error(model, batch):
    with pytest.raises(ValueError, match="exactly one"):
        model(input_ids=batch["input_ids"], inputs_embeds=torch.zeros(1, 2, 64))


@torch.no_grad()
def test_placeholder_ids_are_read_from_the_config_at_each_call(batch):
    model = tiny_model()
    expected = model(**batch).logits
    ids = batch["input_ids"].clone()
    ids[batch["input_ids"] == model.config.image_token_id] = 211
    ids[batch["input_ids"] == model.config.mask_token_id] = 212
    model.config.image_token_id, model.config.mask_token_id = 211, 212
    assert torch.allclose(model(**(batch | {"input_ids": ids})).logits, expected, atol=2e-5)


@torch.no_grad()
def test_unknown_placeholder_ids_are_inferred_from_the_counts(batch):
    model = tiny_model()
    expected, config = model(**batch).logits, model.config
    known = config.image_token_id, config.mask_token_id
    config.image_token_id = config.mask_token_id = None
    assert torch.allclose(model(**batch).logits, expected, atol=2e-5)
    assert (config.image_token_id, config.mask_token_id) == known
    config.image_token_id = None
    with pytest.raises(ValueError, match=r"image_token_id is not set, and 0 token ids occur 20"):
        model(**(batch | {"pixel_values": batch["pixel_values"][:5]}))


@torch.no_grad()
def test_the_mask_does_not_touch_the_image_and_changes_the_caption(model, batch):
    other = 1 - batch["mask_values"]
    one = model(**batch, output_hidden_states=True)
    two = model(**(batch | {"mask_values": other}), output_hidden_states=True)
    image = batch["input_ids"] == model.config.image_token_id
    assert torch.equal(one.hidden_states[0][image], two.hidden_states[0][image])
    assert (one.logits[:, -1] - two.logits[:, -1]).abs().max() > 1e-3


@torch.no_grad()
def test_mask_values_are_used_as_given(model, batch):
    one = model.get_mask_features(batch["mask_values"])
    scaled = model.get_mask_features(batch["mask_values"] * 255)
    assert not torch.allclose(one, scaled, rtol=1e-2)


@torch.no_grad()
def test_pixel_shuffle_v1_leaves_each_tile_transposed(model, batch):
    expected = model.get_image_features(batch["pixel_values"]).pooler_output
    first = tiny_model(tiny_config(pixel_shuffle="v1"))
    first.load_state_dict(model.state_dict())
    got = first.get_image_features(batch["pixel_values"]).pooler_output
    square = expected.unflatten(1, (2, 2))  # (T, 4, D) -> (T, 2, 2, D)
    assert torch.allclose(got, square.transpose(1, 2).flatten(1, 2), atol=1e-6)
    assert not torch.allclose(got, expected, atol=1e-3)


@torch.no_grad()
def test_sdpa_and_eager_attention_agree(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    eager = UrecaForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    sdpa = UrecaForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert eager.model.language_model.config._attn_implementation == "eager"
    assert sdpa.model.vision_tower.config._attn_implementation == "sdpa"
    real = batch["attention_mask"] == 1
    assert torch.allclose(eager(**batch).logits[real], sdpa(**batch).logits[real], atol=2e-5)


def test_the_loss_is_the_cross_entropy_of_the_next_labelled_token(model, batch):
    labels = batch["input_ids"].clone()
    labels[:, :-3] = -100
    out = model(**batch, labels=labels)
    expected = functional.cross_entropy(
        out.logits[:, -4:-1].flatten(0, 1), labels[:, -3:].flatten()
    )
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients(batch):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            checkpoint_activations(model)
        model(**batch, labels=batch["input_ids"]).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert "model.mask_encoder.conv1.weight" in plain and plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert torch.allclose(gradient, checkpointed[name], rtol=1e-4, atol=1e-6), name


@torch.no_grad()
@pytest.mark.parametrize("language", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_saved_in_shards_and_loaded_again(batch, tmp_path, language, tied):
    model = tiny_model(tiny_config(language, tie_word_embeddings=tied))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    shards = list(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert ("lm_head.weight" in index) is not tied
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(again, UrecaForConditionalGeneration)
    assert (again.lm_head.weight is again.get_input_embeddings().weight) is tied
    weights = again.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert torch.allclose(again(**batch).logits, model(**batch).logits, atol=2e-5)


def test_the_config_round_trips(tmp_path):
    config = tiny_config(mask_position="after_image", mask_scale=255, mask_projector="linear")
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, UrecaConfig)
    assert again.to_dict() | {"_name_or_path": ""} == config.to_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_position": "beside"}, "mask_position must be one of before_image, after_image"),
        ({"mask_projector": "conv"}, "mask_projector must be one of"),
        ({"tile_size": 50}, "no whole number of image tokens"),
        ({"num_mask_tokens": 0}, "num_mask_tokens must be at least 1"),
        ({"min_tiles": 9}, "min_tiles"),
    ],
)
def test_a_setting_that_cannot_be_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**settings)


def test_a_tile_larger_than_the_vision_towers_interpolates_positions(batch):
    model = tiny_model(tiny_config(tile_size=84))
    assert model.config.image_seq_length == 9 and model.config.mask_size == 84
    inputs = tiny_inputs(model.config, [1, 2])
    assert model(**inputs).logits.isfinite().all()


def test_the_model_is_built_on_the_meta_device():
    with torch.device("meta"):
        model = UrecaForConditionalGeneration(tiny_config())
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("projector", ["mlp", "linear"])
def test_a_new_mask_encoder_is_xavier_normal_also_beside_loaded_weights(tmp_path, projector):
    config = tiny_config(mask_projector=projector, mask_size=112)
    torch.manual_seed(0)
    model = UrecaForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if "mask_encoder" not in k}
    save_file(kept, file, {"format": "pt"})
    loaded = UrecaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    for encoder in (model.model.mask_encoder, loaded.model.mask_encoder):
        for layer in encoder.modules():
            if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                continue
            outputs, fan_in = layer.weight.shape[0], layer.weight[0].numel()
            fan_out = outputs * layer.weight[0, 0].numel()
            expected = (2 / (fan_in + fan_out)) ** 0.5
            spread = 4 / layer.weight.numel() ** 0.5  # four standard errors, generously
            assert layer.weight.std().item() == pytest.approx(expected, rel=spread)
            assert not layer.bias.any()


def test_lora_on_the_language_model_comes_back_with_the_mask_encoder(batch, tmp_path):
    base = tiny_model()
    settings = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=LANGUAGE_LAYERS,
        modules_to_save=["mask_encoder"],
        init_lora_weights=False,
    )
    before = base(**batch).logits.detach()
    model = get_peft_model(base, settings)
    adapted = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted and not any("vision_tower" in name for name in adapted)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    optimizer.step()
    model.eval()
    expected = model(**batch).logits.detach()
    assert (expected - before).abs().max() > 1e-2
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
    weights = dict(again.named_parameters())
    assert weights.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(weights[name], value) for name, value in model.named_parameters())
    assert torch.allclose(again(**batch).logits, expected, atol=2e-5)
    merged = again.merge_and_unload()
    assert torch.allclose(merged(**batch).logits, expected, atol=1e-4)


@torch.no_grad()
def test_bfloat16_runs_and_stays_near_float32(batch):
    model = tiny_model()
    expected = model(**batch).logits[:, -1]
    got = model.to(torch.bfloat16)(**batch).logits[:, -1]
    assert got.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(got.float(), expected).min() > 0.99
