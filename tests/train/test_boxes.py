"""Boxes in text, and the tokenizer that reads them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ureca_lib.boxes import BOX_BINS, NUMBERS, box_question, box_text, told_box
from ureca_lib.conversation import VISUAL_TOKENS, Conversation
from ureca_lib.presets import get_preset, preset_config
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region
from ureca_lib.scenes import generate_scene, resolve
from ureca_lib.train.tiny_base.model import scene_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return scene_tokenizer()


@given(st.integers(1, 700), st.integers(1, 700), st.data())
def test_a_box_is_in_the_bins_of_its_outermost_pixels(width, height, data):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    mark, *numbers, end = box_text((x, y, w, h), (height, width)).split()
    edges = [np.linspace(0, side, BOX_BINS + 1) for side in (width, height, width, height)]
    centres = (x + 0.5, y + 0.5, x + w - 0.5, y + h - 0.5)
    for number, edge, centre in zip(map(int, numbers), edges, centres, strict=True):
        assert edge[number] - 1e-9 <= centre <= edge[number + 1] + 1e-9
    assert (mark, end) == ("<box>", "</box>") and set(numbers) <= set(NUMBERS)

    left, top, right, bottom = told_box(box_text((x, y, w, h), (height, width)))
    assert left * width <= x + 0.5 and x + w - 0.5 <= right * width + 1e-9
    assert top * height <= y + 0.5 and y + h - 0.5 <= bottom * height + 1e-9
    assert (right - left) * BOX_BINS == int(numbers[2]) - int(numbers[0]) + 1


def test_a_text_without_a_box_tells_none():
    assert told_box("Describe the image.") is None and told_box("<box> 1 2 3 </box>") is None


def test_a_region_is_told_by_its_pixels_and_not_by_a_stated_box():
    mask = np.zeros((128, 128), bool)
    mask[10:20, 30:60] = True
    region = Region(1, Region.from_mask(1, mask).rle, bbox=(0, 0, 128, 128))
    assert "<box> 30 10 59 19 </box>" in box_question(region)


@pytest.mark.parametrize("style", ["phrase", "minimal", "sentence"])
def test_every_caption_comes_back_from_its_tokens(tokenizer, style):
    for seed in (3, 2_000_001):
        scene = generate_scene(seed)
        for region_id, caption in scene.captions_in(style).items():
            ids = tokenizer(caption).input_ids
            assert tokenizer.unk_token_id not in ids
            assert resolve(tokenizer.decode(ids), scene) == {region_id}


def test_a_box_is_six_tokens_in_its_question(tokenizer):
    conversation = Conversation(tokenizer, "after_image", with_mask=False)
    ids = conversation.tokenize("<image>\n<box> 0 7 127 99 </box>\nDescribe this region.")[0]
    words = tokenizer.convert_ids_to_tokens(ids)
    at = words.index("<box>")
    assert words[at : at + 6] == ["<box>", "0", "7", "127", "99", "</box>"]
    assert "<MASK_CONTEXT>" not in words and "<unk>" not in words


def test_a_question_without_a_mask_may_not_place_one(tokenizer):
    with pytest.raises(ValueError, match="no <mask>"):
        Conversation(tokenizer, with_mask=False).prompt("<mask> what is this?")


def test_preset_and_tokenizer_number_the_placeholders_alike(tokenizer):
    assert get_preset("tiny").vocab_size == len(tokenizer)
    assert UrecaProcessor.from_config(preset_config("tiny"), tokenizer)
    last = tokenizer.convert_ids_to_tokens(range(len(tokenizer) - 6, len(tokenizer)))
    assert tuple(last) == VISUAL_TOKENS


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    text = "The left ear of the cat, in front. <box> 3 4 5 6 </box> zebra"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.get_vocab() == tokenizer.get_vocab()
