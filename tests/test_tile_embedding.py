"""Mask tokens that know their tile, by an embedding or by position: options of ours, off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_config, tiny_model, tiny_tokenizer

from ureca_lib.inspection import occlusion_effect, prompt_kinds
from ureca_lib.mask_encoder import MaskEncoder
from ureca_lib.model import UrecaForConditionalGeneration, prompt_positions
from ureca_lib.processor import UrecaProcessor
from ureca_lib.tiling import best_grid, tile_masks, tile_places

HEIGHT, WIDTH = 112, 168  # 3 x 2 tiles of 56


def processor_of(**settings) -> UrecaProcessor:
    config = tiny_config(mask_tile_embedding=True, max_tiles=6, **settings)
    return UrecaProcessor.from_config(config, tiny_tokenizer())


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(40, 40), (112, 168), (50, 300), (300, 50), (224, 168)])
def test_a_tiles_place_is_where_its_part_of_the_mask_lies(size):
    height, width = size
    columns, rows = best_grid(width, height, 12, tile_size=56)
    places = tile_places((columns, rows)).tolist()
    for row in range(rows):
        for column in range(columns):
            y, x = (2 * row + 1) * height // (2 * rows), (2 * column + 1) * width // (2 * columns)
            mask = np.zeros(size, bool)
            mask[y - 2 : y + 3, x - 2 : x + 3] = True  # no resize can miss it
            tiles = tile_masks([mask], 12, 56)[0]
            (hit,) = tiles.flatten(1).any(1).nonzero().flatten().tolist()
            assert places[hit] == ([row + 1, column + 1] if columns * rows > 1 else [0, 0])


def test_the_whole_mask_is_at_no_row_and_no_column():
    assert tile_places((1, 1)).tolist() == tile_places((1, 1), True).tolist() == [[0, 0]]
    assert tile_places((2, 1), True).tolist() == [[1, 1], [1, 2], [0, 0]]


@pytest.mark.parametrize("projector", ["mlp", "linear"])
def test_an_untrained_encoder_is_the_papers_and_a_trained_one_adds_row_and_column(projector):
    made = []
    for placed in (False, True):
        torch.manual_seed(0)
        made.append(MaskEncoder(4, 16, 24, projector, tile_embedding=placed))
    plain, placed = made
    tiles = (torch.rand(7, 1, 24, 24) > 0.5).float()
    tiles[3:5] = 0  # shared, and yet at places of their own
    places = tile_places((3, 2), True)
    assert torch.equal(placed(tiles, places), plain(tiles))
    torch.nn.init.normal_(placed.rows.weight)
    torch.nn.init.normal_(placed.columns.weight)
    added = placed.rows.weight[places[:, 0]] + placed.columns.weight[places[:, 1]]
    torch.testing.assert_close(placed(tiles, places), plain(tiles) + added[:, None])
    assert plain.rows is None and not [n for n, _ in plain.named_parameters() if "rows" in n]


@pytest.mark.parametrize("places", [None, torch.zeros(2, 2, dtype=torch.int64)])
def test_places_that_are_missing_or_too_few_are_an_error(places):
    encoder = MaskEncoder(4, 16, 24, tile_embedding=True)
    with pytest.raises(ValueError, match=r"places of its 3 tiles, \(3, 2\), got"):
        encoder(torch.zeros(3, 1, 24, 24), places)


def test_the_processor_gives_places_only_to_a_model_that_asks_for_them(image):
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, :60, :60], masks[1, 70:, 100:] = True, True
    batch = processor_of()(image, masks)
    assert batch["mask_places"].tolist() == 2 * tile_places((3, 2), True).tolist()
    assert processor_of(mask_dynamic=False)(image, masks)["mask_places"].tolist() == 2 * [[0, 0]]
    without = UrecaProcessor.from_config(tiny_config(max_tiles=6), tiny_tokenizer())
    assert "mask_places" not in without(image, masks)


def test_a_grid_that_the_embedding_does_not_know_is_an_error():
    processor = processor_of()
    assert len(processor.mask_places((56, 12 * 56), 12)) == 13
    with pytest.raises(ValueError, match=r"13 x 1 tiles.*lower max_tiles"):
        processor.mask_places((56, 13 * 56), 13)


def test_a_new_models_embedding_is_zero_and_is_saved_and_loaded(tmp_path):
    config = tiny_config(mask_tile_embedding=True)
    fresh = UrecaForConditionalGeneration(config)
    encoder = fresh.model.mask_encoder
    assert not encoder.rows.weight.any() and not encoder.columns.weight.any()
    model = tiny_model(config)
    model.save_pretrained(tmp_path)
    again = UrecaForConditionalGeneration.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize("order", ["before_image", "after_image"])
def test_mask_tokens_take_the_positions_of_their_image_tile(image, order):
    config = tiny_config(mask_tile_positions=True, max_tiles=6, mask_position=order)
    processor = UrecaProcessor.from_config(config, tiny_tokenizer())
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, :60, :60], masks[1, 70:, 100:] = True, True
    batch = processor(image, masks, question=["What?", "Which of them is it?"])  # padded
    ids, counted = batch["input_ids"], (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    places = prompt_positions(config, ids, batch["attention_mask"])
    for row, given, plain in zip(ids, places, counted, strict=True):
        mask, tile = row == config.mask_token_id, config.image_seq_length
        starts = plain[row == config.image_token_id].view(7, tile)[:, 0]  # 3 x 2 and a thumbnail
        spread = torch.arange(config.num_mask_tokens) * tile // config.num_mask_tokens
        assert given[mask].tolist() == (starts[:, None] + spread).flatten().tolist()
        assert torch.equal(given[~mask], plain[~mask])
    model = tiny_model(config)
    alone = processor(image, masks[0], question="What?")
    del alone["attention_mask"]  # all ones
    with torch.no_grad():
        together, single = model(**batch).logits[0], model(**alone).logits[0]
        model.config.mask_tile_positions = False
        moved = model(**alone).logits[0]
    torch.testing.assert_close(together[-len(single) :], single, rtol=0, atol=1e-4)
    assert (single - moved).abs().max() > 1e-3


@pytest.mark.parametrize(
    "other", [{"mask_dynamic": False}, {"mask_size": 28}, {"use_thumbnail": False}]
)
def test_positions_need_an_image_tile_for_each_mask_tile(other):
    with pytest.raises(ValueError, match="mask_tile_positions needs an image tile"):
        tiny_config(mask_tile_positions=True, **other)


@pytest.mark.parametrize("way", ["mask_tile_embedding", "mask_tile_positions"])
def test_beams_keep_the_places_of_a_samples_tiles_together(image, way):
    config = tiny_config(max_tiles=6, **{way: True})
    model, processor = tiny_model(config), UrecaProcessor.from_config(config, tiny_tokenizer())
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, :60, :60], masks[1, 70:, 100:] = True, True
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    beams = {"num_beams": 3, "output_scores": True, "return_dict_in_generate": True}
    together = model.generate(**processor(image, masks), **options)
    for row, mask in zip(together, masks, strict=True):
        alone = model.generate(**processor(image, mask), **options)
        assert row[-6:].tolist() == alone[0, -6:].tolist()
    first = model(**processor(image, masks[0])).logits[0, -1].log_softmax(-1)
    one = model.generate(**processor(image, masks[0]), max_new_tokens=1, **beams)
    assert one.sequences_scores.item() == pytest.approx(first.max().item(), abs=1e-5)


def test_occlusion_takes_the_places_with_it(image):
    config = tiny_config(mask_tile_embedding=True, max_tiles=6)
    processor, mask = processor_of(), np.ones((HEIGHT, WIDTH), bool)
    batch = processor(image, mask)
    kinds = prompt_kinds(config, len(batch["pixel_values"]), len(batch["mask_values"]))
    effect = occlusion_effect(
        tiny_model(config), kinds, batch["pixel_values"], batch["mask_values"], batch["mask_places"]
    )
    assert effect[0].any() and not effect[0, : kinds.index("mask")].any()
