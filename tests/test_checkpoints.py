"""Published and InternVL checkpoints: the same figures, and errors that name what is wrong."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from official_writer import official_json, official_tensors, with_adapters, write_checkpoint
from safetensors.torch import load_file, save_file
from tiny_models import VISUAL_TOKENS, tiny_config, tiny_inputs, tiny_model, tiny_tokenizer
from transformers import (
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
)

from ureca_lib.checkpoints import (
    CheckpointError,
    CheckpointKeysError,
    convert,
    from_internvl_hf,
    load_model_and_processor,
    load_official,
)
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.configuration import MAX_TILES
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD, UrecaProcessor

PEERS = ["qwen2", "internlm2", "qwen2_lora", "internlm2_lora"]


@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def test_the_published_models_figures_come_out(peer, name):
    folder = peer / "official_checkpoints" / name
    model, io = load_official(folder), load_file(folder / "io.safetensors")
    image = model.get_image_features(io["pixel_values"]).pooler_output
    masks = model.get_mask_features(io["mask_values"])
    inputs = {key: io[key] for key in ("input_ids", "pixel_values", "mask_values")}
    assert torch.allclose(image, io["image_features"], rtol=0, atol=1e-4)
    assert torch.allclose(masks, io["mask_features"], rtol=0, atol=1e-4)
    assert torch.allclose(model(**inputs).logits, io["logits"], rtol=0, atol=1e-4)
    assert (model.config.image_token_id, model.config.mask_token_id) == (151, 155)
    assert model.config.mask_position == "after_image" and model.config.mask_scale == 255


@pytest.mark.parametrize("name", ["qwen2", "internlm2_lora"])
@torch.no_grad()
def test_a_converted_checkpoint_gives_the_same_logits(peer, tmp_path, name):
    folder = peer / "official_checkpoints" / name
    model = load_official(folder, image_token_id=151, mask_token_id=155)
    io = load_file(folder / "io.safetensors")
    inputs = {key: io[key] for key in ("input_ids", "pixel_values", "mask_values")}
    ids = {"image_token_id": 151, "mask_token_id": 155}
    with pytest.warns(UserWarning, match="has no tokenizer"):
        written = convert(folder, tmp_path / "ours", max_shard_size="200KB", **ids)
    again = UrecaForConditionalGeneration.from_pretrained(written)
    assert len(list(written.glob("model-*.safetensors"))) > 1
    assert torch.allclose(again(**inputs).logits, model(**inputs).logits, atol=2e-5)


CASES = {
    "other sizes": dict(
        language="qwen2",
        text={"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 1},
        vision={"hidden_size": 64, "num_attention_heads": 8, "image_size": 112},
        num_mask_tokens=16,
    ),
    "tied": dict(language="qwen2", tie_word_embeddings=True, text={"num_hidden_layers": 3}),
    "groups of two": dict(
        language="llama",
        text={"num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 80},
        num_mask_tokens=4,
    ),
    "groups of one, biases": dict(
        language="llama",
        text={"num_key_value_heads": 4, "attention_bias": True},
        vision={"attention_bias": False},
        mask_projector="mlp",
    ),
    "6B tower": dict(
        language="llama",
        vision={"norm_type": "rms_norm", "use_qk_norm": True, "layer_norm_eps": 1e-3},
        num_mask_tokens=32,
    ),
    "rope": dict(
        language="llama",
        text={"rope_theta": 5e4, "rms_norm_eps": 1e-5, "num_hidden_layers": 1},
    ),
}


@pytest.mark.parametrize("adapters", [0, 3])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_other_sizes_and_forms_come_back(tmp_path, case, adapters):
    settings = {"mask_projector": "linear"} | CASES[case]
    model = tiny_model(tiny_config(mask_scale=255, mask_position="after_image", **settings))
    internlm2 = settings["language"] == "llama"
    tensors = official_tensors(model, internlm2, projector_step=1)
    if adapters:
        tensors = with_adapters(tensors, adapters, internlm2)
    config = official_json(model, internlm2, use_llm_lora=adapters)
    folder = write_checkpoint(tmp_path, config, tensors, shards=1 + adapters)
    loaded = load_official(folder)
    assert loaded.config.image_token_id is None
    inputs = tiny_inputs(model.config, [2])
    expected = model(**inputs).logits
    assert torch.allclose(loaded(**inputs).logits, expected, rtol=0, atol=1e-4)
    assert loaded.config.mask_projector == settings["mask_projector"]
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) is bool(
        settings.get("tie_word_embeddings")
    )


@pytest.fixture(scope="module")
def qwen2() -> UrecaForConditionalGeneration:
    return tiny_model(tiny_config(mask_projector="linear"))


@pytest.fixture
def official(qwen2, tmp_path) -> Path:
    """A sound checkpoint to spoil."""
    config = official_json(qwen2, internlm2=False)
    return write_checkpoint(tmp_path / "official", config, official_tensors(qwen2, False))


def edit(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@torch.no_grad()
def test_what_the_config_leaves_out_is_read_off_the_tensors(qwen2, official):
    def forget(config):
        for name in ("force_image_size", "num_mask_token"):
            del config[name]
        for name in ("vocab_size", "hidden_size", "num_key_value_heads", "num_hidden_layers"):
            del config["llm_config"][name]
        for name in ("hidden_size", "image_size", "patch_size", "norm_type", "qkv_bias"):
            del config["vision_config"][name]

    edit(official, forget)
    loaded, inputs = load_official(official), tiny_inputs(qwen2.config, [2])
    assert torch.allclose(loaded(**inputs).logits, qwen2(**inputs).logits, atol=1e-5)


def test_numbers_written_as_lists_of_one_are_read(official):
    edit(official, lambda c: c.update(max_dynamic_patch=[4], mask_max_dynamic_patch=[4]))
    config = load_official(official).config
    assert (config.max_tiles_train, config.max_tiles) == (4, 12)


@pytest.mark.parametrize(("dynamic", "scale"), [(True, 255), (False, 1)])
def test_dynamic_masks_come_with_values_up_to_255(official, dynamic, scale):
    edit(official, lambda c: c.update(dynamic_mask_size=dynamic))
    config = load_official(official).config
    assert (config.mask_scale, config.mask_dynamic) == (scale, dynamic)
    assert config.mask_thumbnail is dynamic
    assert config.mask_overshoot == "wrap"


def test_a_dtype_is_kept_or_chosen(qwen2, official):
    edit_tensors(official, lambda t: t.update({k: v.bfloat16() for k, v in t.items()}))
    assert {p.dtype for p in load_official(official).parameters()} == {torch.bfloat16}
    loaded = load_official(official, dtype=torch.float32)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


def test_missing_unexpected_and_misshapen_tensors_are_all_named(official):
    def spoil(tensors):
        del tensors["mlp1.1.weight"], tensors["language_model.model.layers.1.mlp.up_proj.weight"]
        tensors["language_model.model.layers.2.mlp.up_proj.weight"] = torch.zeros(1)
        tensors["vision_model.encoder.layers.0.attn.qkv.weight"] = torch.zeros(143, 48)

    edit_tensors(official, spoil)
    with pytest.raises(CheckpointKeysError) as caught:
        load_official(official)
    error = caught.value
    assert error.missing == ["language_model.model.layers.1.mlp.up_proj.weight", "mlp1.1.weight"]
    assert error.unexpected == ["language_model.model.layers.2.mlp.up_proj.weight"]
    assert len(error.mismatched) == 1 and "(143, 48)" in error.mismatched[0]
    for name in (*error.missing, *error.unexpected, "attn.qkv.weight", str(official)):
        assert name in str(error)


def test_a_lone_adapter_factor_is_missing_its_other_half(qwen2, official):
    tensors = with_adapters(official_tensors(qwen2, False), 2, internlm2=False)
    factor = next(name for name in tensors if "lora_B" in name)
    del tensors[factor]
    save_file(tensors, official / "model.safetensors")
    with pytest.raises(CheckpointKeysError, match=r"missing: .*\.lora_B"):
        load_official(official)


def test_fewer_layers_than_the_config_says_is_incomplete(official):
    edit(official, lambda c: c["llm_config"].update(num_hidden_layers=3))
    with pytest.raises(CheckpointKeysError, match=r"language_model.model.layers.2.mlp"):
        load_official(official)


def test_an_untied_head_must_be_there(official):
    edit_tensors(official, lambda t: t.pop("language_model.lm_head.weight"))
    with pytest.raises(CheckpointKeysError, match=r"language_model\.lm_head\.weight"):
        load_official(official)


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def _pointer(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _lost_shard(folder: Path) -> None:
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _other_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def _unknown_language(folder: Path) -> None:
    edit(folder, lambda c: c["llm_config"].update(model_type="", architectures=["XForCausalLM"]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not readable as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: not a JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
        (_pickle, r"only pickle files \(pytorch_model.bin\).* refused"),
        (_truncate, "model.safetensors: not a readable safetensors file"),
        (_pointer, "Git LFS pointer"),
        (_lost_shard, "names files that are not here: model-00001-of-00002.safetensors"),
        (_other_model, "model type 'llama', not the published layout"),
        (_unknown_language, "language model 'XForCausalLM' is not supported"),
    ],
)
def test_a_folder_that_cannot_be_read_says_why(official, spoil, message):
    spoil(official)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_official(official)
    assert str(official) in str(caught.value)


def test_a_folder_that_is_not_there_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere/config\.json: no such file"):
        load_official(tmp_path / "nowhere")


def test_loading_holds_one_copy_of_the_model(tmp_path):
    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        pytest.skip("needs Linux's /proc to reset the peak of resident memory")
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8}
    torch.manual_seed(0)
    model = UrecaForConditionalGeneration(tiny_config(text=text, mask_projector="linear"))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    config = official_json(model, internlm2=False)
    folder = write_checkpoint(tmp_path, config, official_tensors(model, False))
    del model
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed before must not count as ours
    peak.write_text("5")
    before = _status("VmRSS")
    loaded = load_official(folder)
    grown = _status("VmHWM") - before
    assert sum(p.numel() * p.element_size() for p in loaded.parameters()) == size
    assert grown < 1.75 * size


def _status(field: str) -> int:
    """A field of the process's status, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024


def test_weights_do_not_hang_on_their_file(official):
    model = load_official(official)
    before = model.lm_head.weight.clone()
    with (official / "model.safetensors").open("r+b") as stream:
        stream.seek(-200_000, 2)
        stream.write(b"\x7f" * 200_000)
    assert torch.equal(model.lm_head.weight, before)
    assert all(p.isfinite().all() for p in model.parameters())


def test_placeholder_ids_come_from_the_tokenizers_files(qwen2, official, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(official)
    config = load_official(official).config
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    assert config.mask_token_id == tokenizer.convert_tokens_to_ids("<MASK_CONTEXT>")
    written = convert(official, tmp_path / "ours")
    processor = UrecaProcessor.from_pretrained(written)
    assert processor.image_token_id == config.image_token_id
    assert processor.mask_scale == 255 and processor.mask_position == "after_image"
    assert "InternVL" in processor.system_message
    assert UrecaForConditionalGeneration.from_pretrained(
        written
    ).generation_config.eos_token_id == [tokenizer.eos_token_id]


def test_added_tokens_json_alone_gives_the_ids(official):
    (official / "added_tokens.json").write_text('{"<IMG_CONTEXT>": 21, "<MASK_CONTEXT>": 22}')
    config = load_official(official).config
    assert (config.image_token_id, config.mask_token_id) == (21, 22)
    assert load_official(official, mask_token_id=30).config.mask_token_id == 30


def test_transformers_own_way_to_load_points_to_ours(official):
    with pytest.raises(ValueError, match=r"published layout: read it with .*load_official"):
        UrecaForConditionalGeneration.from_pretrained(official)


def test_a_source_without_a_tokenizer_is_converted_with_a_warning(official, tmp_path):
    with pytest.warns(UserWarning, match="has no tokenizer: copy its tokenizer files") as caught:
        written = convert(official, tmp_path / "ours")
    assert str(official) in str(caught[0].message)
    assert (written / "model.safetensors").is_file()
    assert not (written / "processor_config.json").exists()
    tiny_tokenizer().save_pretrained(official)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = convert(official, tmp_path / "again")
    assert (again / "processor_config.json").is_file()


def test_nothing_is_overwritten(official):
    with pytest.raises(CheckpointError, match="not an empty folder"):
        convert(official, official)


@pytest.fixture(scope="module")
def internvl(tmp_path_factory) -> Path:
    """A tiny InternVL checkpoint whose tokenizer knows images and no masks."""
    folder = tmp_path_factory.mktemp("internvl")
    tokenizer = tiny_tokenizer(VISUAL_TOKENS[:3])
    fields = set(InternVLConfig().to_dict()) - {"model_type", "architectures"}
    ours = tiny_config(text={"vocab_size": len(tokenizer)})
    torch.manual_seed(3)
    config = InternVLConfig(**{k: v for k, v in ours.to_dict().items() if k in fields})
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_a_fresh_model_is_internvl_with_a_mask_encoder(internvl, tmp_path):
    theirs = InternVLForConditionalGeneration.from_pretrained(internvl).eval()
    model = from_internvl_hf(internvl, num_mask_tokens=4, mask_position="after_image")
    old = theirs.config.text_config.vocab_size
    inputs = tiny_inputs(model.config, [2])
    plain = {k: v for k, v in inputs.items() if k != "mask_values"}
    plain["input_ids"] = inputs["input_ids"].where(inputs["input_ids"] < old, 7)
    assert torch.allclose(model(**plain).logits[..., :old], theirs(**plain).logits, atol=1e-5)
    assert model(**inputs).logits.shape[-1] == old + 3
    assert model.config.mask_token_id == old and model.config.num_mask_tokens == 4
    for layer in (model.get_input_embeddings(), model.lm_head):
        mean = layer.weight[:old].mean(dim=0)
        assert torch.allclose(layer.weight[old:], mean.expand(3, -1), atol=1e-6)
    model.save_pretrained(tmp_path)
    again = UrecaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.allclose(again(**inputs).logits, model(**inputs).logits, atol=2e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_is_tied_where_the_file_has_none_whatever_config_json_leaves_out(
    internvl, tmp_path, tied
):
    folder = tmp_path / "silent"
    shutil.copytree(internvl, folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["text_config"]):
        part.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    head = tensors["language_model.lm_head.weight"]
    if tied:
        del tensors["language_model.lm_head.weight"]
        head = tensors["language_model.model.embed_tokens.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    convert(folder, tmp_path / "ours")
    for model in (from_internvl_hf(folder), load_model_and_processor(tmp_path / "ours")[0]):
        assert torch.equal(model.lm_head.weight[: len(head)], head)
        assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
        assert model.config.tie_word_embeddings is tied


def test_the_seed_decides_the_new_mask_encoder(internvl):
    one, same, other = (
        from_internvl_hf(internvl, seed=seed).model.mask_encoder.conv1.weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_an_internvl_checkpoint_converts_with_its_tokenizer(internvl, tmp_path):
    written = convert(internvl, tmp_path / "ours", num_mask_tokens=4)
    model = UrecaForConditionalGeneration.from_pretrained(written)
    processor = UrecaProcessor.from_pretrained(written)
    assert processor.mask_token_id == model.config.mask_token_id
    assert processor.num_mask_tokens == 4


def test_what_is_no_internvl_checkpoint_says_so(internvl, official, tmp_path):
    with pytest.raises(CheckpointError, match="model type 'internvl_chat', not an InternVL -hf"):
        from_internvl_hf(official)
    with pytest.raises(TypeError, match="no field num_masks"):
        from_internvl_hf(internvl, num_masks=3)
    bare = tmp_path / "bare"
    shutil.copytree(internvl, bare)
    for file in bare.glob("*token*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="no tokenizer to take a mask token from"):
        from_internvl_hf(bare)
    assert from_internvl_hf(bare, mask_token_id=5).config.mask_token_id == 5


def test_the_grid_is_what_the_checkpoints_image_processor_says(internvl, tmp_path):
    folder = tmp_path / "grid"
    shutil.copytree(internvl, folder)
    assert from_internvl_hf(folder).config.max_tiles == MAX_TILES  # there is no such file
    size = from_internvl_hf(folder).config.tile_size
    theirs = GotOcr2ImageProcessorPil(
        size={"height": size, "width": size}, crop_to_patches=True, max_patches=4,
        image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD,
    )  # fmt: skip
    (path,) = theirs.save_pretrained(folder)
    config = from_internvl_hf(folder).config
    assert (config.min_tiles, config.max_tiles, config.max_tiles_train) == (1, 4, 4)
    assert from_internvl_hf(folder, max_tiles=12).config.max_tiles == 12
    photo = np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8)
    ours = UrecaProcessor.from_config(config, load_tokenizer(folder)).image_tiles(photo)
    seen = theirs(photo, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, seen, rtol=0, atol=1e-5)
    Path(path).write_text(json.dumps({"min_patches": 5, "max_patches": 2}))
    with pytest.raises(CheckpointError, match=r"need 1 <= min_tiles <= max_tiles .* got 5, 2"):
        from_internvl_hf(folder)
