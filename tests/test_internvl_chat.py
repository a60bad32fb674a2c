"""InternVL in its own layout: the base of a training, without the code that comes with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from official_writer import official_json, official_tensors, write_checkpoint
from safetensors.torch import load_file, save_file
from tiny_models import VISUAL_TOKENS, tiny_config, tiny_inputs, tiny_model, tiny_tokenizer
from tiny_runs import small

from ureca_lib.checkpoints import (
    CheckpointError,
    CheckpointKeysError,
    convert,
    from_internvl_chat,
    load_model_and_processor,
)
from ureca_lib.conversation import IMAGE_CONTEXT, MASK_CONTEXT
from ureca_lib.train.plan import Plan
from ureca_lib.train.stages import load_start

LANGUAGES = ["qwen2", "llama"]


def write_chat(folder: Path, language: str):
    """A checkpoint without a mask encoder, whose tokenizer knows images and no masks."""
    tokenizer = tiny_tokenizer(VISUAL_TOKENS[:3])
    text = {"vocab_size": len(tokenizer)}
    model = tiny_model(tiny_config(language=language, text=text, mask_projector="linear"))
    internlm2 = language == "llama"
    tensors = official_tensors(model, internlm2)
    plain = {name: value for name, value in tensors.items() if not name.startswith("mask_")}
    config = official_json(model, internlm2)
    for name in [name for name in config if "mask" in name]:
        del config[name]
    config |= {"max_dynamic_patch": 12, "min_dynamic_patch": 1, "dynamic_image_size": True}
    write_checkpoint(folder, config | {"template": "internvl2_5"}, plain)
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=LANGUAGES)
def chat(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    return folder, write_chat(folder, request.param)


@torch.no_grad()
def test_it_is_the_same_model_with_a_new_mask_encoder(chat):
    folder, theirs = chat
    model = from_internvl_chat(folder, num_mask_tokens=4, seed=3)
    config, old = model.config, theirs.config.text_config.vocab_size
    inputs = tiny_inputs(config, [2])
    del inputs["mask_values"]
    inputs["input_ids"] = inputs["input_ids"].where(inputs["input_ids"] < old, 7)
    theirs.config.image_token_id = config.image_token_id
    expected = theirs(**inputs).logits
    assert torch.allclose(model(**inputs).logits[..., :old], expected, atol=1e-4)
    # the paper's mask settings, not those that the published weights were trained with
    assert (config.mask_position, config.mask_scale, config.mask_overshoot) == (
        "before_image", 1, "clip",
    )  # fmt: skip
    assert (config.num_mask_tokens, config.max_tiles, config.max_tiles_train) == (4, 12, 6)
    assert "InternVL" in config.system_message
    assert model.model.mask_encoder.conv1.weight.isfinite().all()
    again, other = (from_internvl_chat(folder, num_mask_tokens=4, seed=seed) for seed in (3, 4))
    drawn = [each.model.mask_encoder.conv1.weight for each in (model, again, other)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_system_message_of_null_is_the_templates(chat, tmp_path):
    folder = tmp_path / "null"
    shutil.copytree(chat[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"system_message": None}))
    said = from_internvl_chat(folder).config.system_message
    assert said == from_internvl_chat(chat[0]).config.system_message and "InternVL" in said
    _, processor = load_model_and_processor(convert(folder, tmp_path / "ours"))
    for message in (None, ""):
        processor.system_message = message
        assert processor.conversation.prompt().startswith("<|im_start|>user")


def test_it_is_converted_with_its_tokenizer_and_then_loads(chat, tmp_path):
    written = convert(chat[0], tmp_path / "ours")
    model, processor = load_model_and_processor(written)
    vocabulary = processor.tokenizer.get_vocab()
    assert model.config.image_token_id == vocabulary[IMAGE_CONTEXT]
    assert model.config.mask_token_id == vocabulary[MASK_CONTEXT]
    assert len(vocabulary) <= model.get_input_embeddings().num_embeddings


def test_stage_1_starts_from_it_and_stage_2_does_not(chat):
    model, _ = load_start(small(chat[0], mask_tokens=4))
    assert model.config.num_mask_tokens == 4
    with pytest.raises(ValueError, match="no mask encoder: stage 2 starts from"):
        load_start(small(chat[0], stage=2))


def test_the_dry_run_knows_it(chat, tmp_path):
    plan = Plan(small(chat[0], mask_tokens=4), 1, progress=False)
    compared, wide = plan.notes
    assert "names and shapes" in compared and "wide, preset tiny 160" in wide
    with pytest.raises(ValueError, match="no mask encoder: stage 2 starts from"):
        Plan(small(chat[0], stage=2), 1, progress=False)
    short = tmp_path / "short"
    shutil.copytree(chat[0], short)
    tensors = load_file(short / "model.safetensors")
    del tensors["mlp1.1.weight"]
    save_file(tensors, short / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: mlp1\.1\.weight"):
        Plan(small(short), 1, progress=False)


def test_captions_are_not_made_by_weights_that_were_never_trained(chat):
    with pytest.raises(CheckpointError, match="without a mask encoder: stage 1 of training"):
        load_model_and_processor(chat[0])


def test_what_it_cannot_start_from_says_why(chat, tmp_path):
    folder, ours = chat
    whole = write_checkpoint(
        tmp_path / "whole", json.loads((folder / "config.json").read_text()),
        official_tensors(ours, (ours.config.text_config.model_type == "llama")),
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="it has a mask encoder"):
        from_internvl_chat(whole)
    bare = tmp_path / "bare"
    write_chat(bare, ours.config.text_config.model_type)
    for file in bare.glob("*token*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="no tokenizer to take a mask token from"):
        from_internvl_chat(bare)
    with pytest.raises(TypeError, match="no field num_masks"):
        from_internvl_chat(folder, num_masks=3)


def test_a_tensor_that_is_missing_is_named(chat, tmp_path):
    folder, ours = chat
    internlm2 = ours.config.text_config.model_type == "llama"
    tensors = official_tensors(ours, internlm2)
    short = {n: v for n, v in tensors.items() if not n.startswith(("mask_", "mlp1.1."))}
    config = json.loads((folder / "config.json").read_text())
    write_checkpoint(tmp_path / "short", config, short)
    tiny_tokenizer().save_pretrained(tmp_path / "short")
    with pytest.raises(CheckpointKeysError) as caught:
        from_internvl_chat(tmp_path / "short")
    assert caught.value.missing == ["mlp1.1.bias", "mlp1.1.weight"]
