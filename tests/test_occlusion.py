"""Occlusion against the order of tokens and against pixels that are really hidden."""

from __future__ import annotations

import pytest
import torch

from ureca_lib.inspection import occlusion_effect, prompt_ids, prompt_kinds
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import preset_config

TILES = 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UrecaForConditionalGeneration(preset_config("tiny", num_mask_tokens=4)).eval()


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(TILES, 3, 112, 112, generator=generator)
    return pixels, torch.randint(0, 2, (TILES, 1, 112, 112), generator=generator).float()


@pytest.mark.parametrize("place", ["before_image", "after_image"])
def test_a_prompt_holds_every_token_in_its_order(model, place):
    kinds = prompt_kinds(model.config, 2, 3, place, lead=1, question=2)
    mask, image = ["mask"] * 3 * 4, ["image"] * 2 * 16
    visual = [*mask, *image] if place == "before_image" else [*image, *mask]
    assert kinds == ["text", *visual, "text", "text"]
    ids = prompt_ids(model.config, kinds)
    assert ids.shape == (1, len(kinds))
    for kind in ("mask", "image"):
        token = getattr(model.config, f"{kind}_token_id")
        assert [number == token for number in ids[0].tolist()] == [k == kind for k in kinds]


def test_the_order_is_the_configurations_unless_it_is_given(model):
    assert prompt_kinds(model.config, 1, 1) == prompt_kinds(model.config, 1, 1, "before_image")


@pytest.mark.parametrize("place", ["before_image", "after_image"])
def test_only_what_stands_behind_can_change(model, inputs, place):
    kinds = prompt_kinds(model.config, TILES, TILES, place)
    effect = occlusion_effect(model, kinds, *inputs)
    assert effect.shape == (1 + TILES, len(kinds))
    image = kinds.index("image")
    starts = [kinds.index("mask"), *(image + 16 * tile for tile in range(TILES))]
    for row, start in zip(effect, starts, strict=True):
        assert (row[:start] == 0).all()
        assert (row[start:] > 0).all()


def test_image_tokens_know_the_region_only_where_the_mask_comes_first(model, inputs):
    changes = {}
    for place in ("before_image", "after_image"):
        kinds = prompt_kinds(model.config, TILES, TILES, place)
        image = torch.tensor([kind == "image" for kind in kinds])
        changes[place] = occlusion_effect(model, kinds, *inputs)[0, image]
    assert (changes["before_image"] > 0).all()
    assert (changes["after_image"] == 0).all()


def test_a_hidden_tile_is_one_of_zeros(model, inputs):
    pixels, masks = inputs
    kinds = prompt_kinds(model.config, TILES, TILES)
    ids = prompt_ids(model.config, kinds)
    hidden = pixels.clone()
    hidden[1] = 0
    with torch.no_grad():
        seen, changed = (
            model.model(ids, pixel_values=values, mask_values=masks).last_hidden_state[0]
            for values in (pixels, hidden)
        )
    expected = (changed - seen).norm(dim=-1) / seen.norm(dim=-1)
    effect = occlusion_effect(model, kinds, pixels, masks)
    assert torch.allclose(effect[2], expected, atol=1e-5)
