"""Weights that a folder lacks are never drawn at random in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import small, write_base

from ureca_lib.checkpoints import CheckpointError, CheckpointKeysError, load_model_and_processor
from ureca_lib.train.plan import Plan
from ureca_lib.train.stages import load_start

LAYER = "model.language_model.layers.0.mlp.down_proj.weight"
MASKS = "model.mask_encoder.conv1.weight"
TINY_BASE = Path(__file__).resolve().parents[1] / "data_samples" / "tiny_base"


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_base(tmp_path / "base")


def spoil(folder: Path, name: str, value: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors[name]
    if value is not None:
        tensors[name] = value
    save_file(tensors, file, metadata={"format": "pt"})


def readers(folder: Path):
    return [
        lambda: load_model_and_processor(folder),
        lambda: load_start(small(folder)),
        lambda: load_start(small(folder, stage=2)),
    ]


@pytest.mark.parametrize("value", [None, torch.zeros(3, 5)])
def test_a_layer_that_is_missing_or_misshapen_is_refused_by_name(folder, value):
    spoil(folder, LAYER, value)
    for read in readers(folder):
        with pytest.raises(CheckpointKeysError, match=LAYER) as caught:
            read()
        assert bool(caught.value.missing) == (value is None)
        assert bool(caught.value.mismatched) == (value is not None)
        assert str(folder) in str(caught.value)


def test_only_the_mask_encoder_that_is_drawn_anew_may_be_missing(folder):
    spoil(folder, MASKS, None)
    caption, first, second = readers(folder)
    for read in (caption, second):
        with pytest.raises(CheckpointKeysError, match=MASKS):
            read()
    model, _ = first()
    assert model.model.mask_encoder.conv1.weight.isfinite().all()


def test_a_file_cut_off_is_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    for read in readers(folder):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable"):
            read()


def test_a_base_without_a_mask_encoder_does_not_caption():
    with pytest.raises(CheckpointError, match="model type 'internvl', without a mask encoder"):
        load_model_and_processor(TINY_BASE)


def test_a_head_that_is_stored_as_the_embedding_is_not_missing(tmp_path):
    folder = write_base(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model, _ = load_model_and_processor(folder)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    for read in readers(folder):
        read()
    assert Plan(small(folder), 1, progress=False).steps == 6
