"""Attention of a caption's words against one uncached pass that keeps all of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_config, tiny_model, tiny_tokenizer

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.inspection import KINDS, _words, caption_attention
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import EmptyMaskError, Region
from ureca_lib.tiling import best_grid

HEIGHT, WIDTH = 112, 168  # 3 x 2 tiles of 56
CAPTION = "a red box"
WORDS = {"a": [0, 1], "red": [2, 3, 4, 5], "box": [6, 7, 8]}  # bytes; blanks end a word


def make(position: str = "before_image", **settings) -> RegionCaptioner:
    config = tiny_config(mask_position=position, max_tiles=6, **settings)
    processor = UrecaProcessor.from_config(config, tiny_tokenizer())
    return RegionCaptioner(tiny_model(config), processor)


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def region():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:50, 60:100] = True
    return Region.from_mask(5, mask, "box")


@torch.no_grad()
def whole_pass(captioner, photo, region, layer=None):
    """For each word its mean row (L,) of attention, and what stands at each position."""
    inputs = captioner.processor(photo, region, answer=CAPTION)
    first = int((inputs["labels"][0] != -100).nonzero()[0])
    language = captioner.model.model.language_model
    before = language.config._attn_implementation
    language.set_attn_implementation("eager")
    layers = captioner.model(**inputs, output_attentions=True).attentions
    language.set_attn_implementation(before)
    chosen = layers if layer is None else [layers[layer]]
    whole = torch.stack([part[0].mean(0) for part in chosen]).mean(0).numpy()  # (L, L)
    rows = [whole[[first + n - 1 for n in places]].mean(0) for places in WORDS.values()]
    return np.stack(rows), inputs["input_ids"][0].numpy()


@pytest.mark.parametrize("position", ["before_image", "after_image"])
@pytest.mark.parametrize(("layer", "placed"), [(None, False), (0, False), (-1, True)])
def test_shares_are_those_of_one_whole_pass(photo, region, position, layer, placed):
    captioner = make(position, mask_tile_embedding=placed)
    found = caption_attention(captioner, photo, region, CAPTION, layer=layer)
    rows, ids = whole_pass(captioner, photo, region, layer)
    config = captioner.model.config
    at = {"mask": ids == config.mask_token_id, "image": ids == config.image_token_id}
    at["text"] = ~(at["mask"] | at["image"])
    expected = np.stack([rows[:, at[kind]].sum(1) for kind in KINDS], axis=1)
    assert found.words == tuple(WORDS)
    assert np.allclose(found.shares, expected, atol=1e-5)
    assert np.allclose(found.shares.sum(1), 1, atol=1e-5)
    tokens = config.num_mask_tokens
    by_tile = rows[:, at["mask"]].reshape(len(rows), -1, tokens).sum(2)
    assert np.allclose(found.mask, by_tile, atol=1e-5)


@pytest.mark.parametrize("shuffle", ["v1", "v2"])
def test_attention_to_the_image_is_where_its_tokens_look(photo, region, shuffle):
    captioner = make(pixel_shuffle=shuffle)
    found = caption_attention(captioner, photo, region, CAPTION)
    rows, ids = whole_pass(captioner, photo, region)
    columns, lines = best_grid(WIDTH, HEIGHT, 6, tile_size=56)
    assert found.tiles == (columns, lines) == (3, 2)
    side, image = 2, rows[:, ids == captioner.model.config.image_token_id]
    expected = np.zeros((len(rows), lines * side, columns * side))
    for token in range(image.shape[1]):
        tile, place = divmod(token, side * side)
        down, across = divmod(place, side)
        if shuffle == "v1":  # which leaves each tile's tokens transposed
            down, across = across, down
        if tile < columns * lines:
            expected[:, tile // columns * side + down, tile % columns * side + across] += image[
                :, token
            ]
        else:  # a token of the thumbnail sees a part of the whole photo
            part = np.s_[:, down * lines : (down + 1) * lines, across * columns :][:2]
            expected[(*part, slice(across * columns, (across + 1) * columns))] += image[
                :, token, None, None
            ] / (columns * lines)
    assert np.allclose(found.image, expected, atol=1e-6)
    assert np.allclose(found.image.sum((1, 2)), found.shares[:, 1], atol=1e-5)


def test_an_even_share_counts_the_tokens_that_a_word_can_see(photo, region):
    captioner = make()
    found = caption_attention(captioner, photo, region, CAPTION)
    inputs = captioner.processor(photo, region, answer=CAPTION)
    ids, labels = inputs["input_ids"][0].tolist(), inputs["labels"][0].tolist()
    first = next(n for n, label in enumerate(labels) if label != -100)
    masks = ids.count(captioner.model.config.mask_token_id)
    seen = np.mean([first + n for n in WORDS["a"]])
    assert found.even[0, 0] == pytest.approx(masks / seen)
    assert np.allclose(found.even.sum(1), 1)


def test_mask_tiles_are_the_regions(photo, region):
    captioner = make()
    found = caption_attention(captioner, photo, region, CAPTION)
    tiles = captioner.processor.mask_tiles([region], (HEIGHT, WIDTH))[0, :, 0]
    assert np.array_equal(found.mask_tiles, tiles.numpy())
    assert found.mask.shape == (3, len(tiles))


def test_without_a_caption_the_models_own_is_looked_at(photo, region):
    captioner = make()
    own = captioner.caption(photo, [region], max_new_tokens=256, progress=False)[0].text
    if not any(map(str.isalnum, own)):
        pytest.fail("this seed's caption has no words: choose another")
    assert caption_attention(captioner, photo, region).caption == own


def test_the_model_is_left_as_it_was(photo, region):
    captioner = make()
    before = captioner.model.model.language_model.config._attn_implementation
    expected = captioner.score(photo, [region], [CAPTION], progress=False)
    caption_attention(captioner, photo, region, CAPTION)
    assert captioner.model.model.language_model.config._attn_implementation == before
    assert torch.equal(captioner.score(photo, [region], [CAPTION], progress=False), expected)


@pytest.mark.parametrize("caption", ["", " ", "..."])
def test_a_caption_without_words_is_refused(photo, region, caption):
    with pytest.raises(ValueError, match="has no words"):
        caption_attention(make(), photo, region, caption)


@pytest.mark.parametrize("layer", [2, -3])
def test_a_layer_that_is_not_there_is_named(photo, region, layer):
    with pytest.raises(ValueError, match=f"2 layers; there is no layer {layer}"):
        caption_attention(make(), photo, region, CAPTION, layer=layer)


def test_an_empty_mask_is_refused(photo):
    with pytest.raises(EmptyMaskError):
        caption_attention(make(), photo, np.zeros((HEIGHT, WIDTH), bool), CAPTION)


def test_a_character_of_several_tokens_is_read_whole(photo, region):
    captioner = make()
    text = "a caf\u00e9\u2019s \U0001f6aa door"
    found = caption_attention(captioner, photo, region, text)
    assert found.words == ("a", "caf\u00e9\u2019s \U0001f6aa", "door")
    ids = captioner.processor.conversation.answer_ids(text)[:-1]
    assert len(ids) > len(text)  # the tiny tokenizer has the letters' bytes
    _, owners = _words(captioner.processor, ids)
    assert len(owners) == len(ids) and owners == sorted(owners)
    assert owners.count(2) == len("door")


def test_marks_belong_to_the_word_before_them(photo, region):
    found = caption_attention(make(), photo, region, "the box, not red - blue.")
    assert found.words == ("the", "box,", "not", "red -", "blue.")
