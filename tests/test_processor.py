"""From image, masks and question to the model's inputs; bad input and odd images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import VISUAL_TOKENS, tiny_config, tiny_model, tiny_tokenizer
from tokenizers import processors
from transformers import AutoProcessor

from ureca_lib.conversation import IGNORED, Conversation, add_visual_tokens
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD, UrecaProcessor
from ureca_lib.regions import EmptyMaskError, ImageUnreadableError, Region, SizeMismatchError
from ureca_lib.tiling import tile_masks

HEIGHT, WIDTH = 120, 180


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor(model) -> UrecaProcessor:
    return UrecaProcessor.from_config(model.config, tiny_tokenizer())


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[30:90, 20:100] = True
    return inside


def text_of(processor, ids: torch.Tensor) -> str:
    return processor.tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    ("position", "visual"),
    [
        ("before_image", "<mask>{m}</mask>\n<img>{i}</img>\n"),
        ("after_image", "<img>{i}</img>\n<mask>{m}</mask>\n"),
    ],
)
def test_the_prompt_is_internvls_chat_with_mask_and_image_in_order(image, mask, position, visual):
    config = tiny_config(mask_position=position, system_message="Be brief.", max_tiles=6)
    processor = UrecaProcessor.from_config(config, tiny_tokenizer())
    inputs = processor(image, mask, "What is this?")
    # 180 x 120 is 3 x 2 tiles, and a thumbnail: 7 tiles of 4 image tokens and 8 mask tokens
    filled = visual.format(m="<MASK_CONTEXT>" * 56, i="<IMG_CONTEXT>" * 28)
    assert text_of(processor, inputs["input_ids"][0]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\n{filled}What is this?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert inputs["pixel_values"].shape == (7, 3, 56, 56)
    assert inputs["mask_values"].shape == (7, 1, 56, 56)
    assert "labels" not in inputs


def test_a_question_may_place_image_and_mask_itself(processor, image, mask):
    inputs = processor(image, mask, "In <image> describe <mask> please.", max_tiles=1)
    text = text_of(processor, inputs["input_ids"][0])
    image_part, mask_part = "<IMG_CONTEXT>" * 4, "<MASK_CONTEXT>" * 8
    assert f"user\nIn <img>{image_part}</img> describe <mask>{mask_part}</mask> please." in text


@torch.no_grad()
def test_the_model_takes_what_the_processor_gives(model, processor, image, mask):
    inputs = processor([image, image[:60, :50]], [mask, mask[30:90, 20:70]])
    assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape
    tiles = (inputs["input_ids"] == processor.image_token_id).sum(dim=1) // 4
    assert tiles[0] != tiles[1] and tiles.sum() == len(inputs["pixel_values"])


def test_several_masks_of_one_image_are_several_samples(processor, image, mask):
    together = processor(image, [mask, ~mask], ["One?", "And the other one?"])
    for row, (inside, question) in enumerate([(mask, "One?"), (~mask, "And the other one?")]):
        alone = processor(image, inside, question)
        real = together["attention_mask"][row] == 1
        assert torch.equal(together["input_ids"][row][real], alone["input_ids"][0])
        assert real.tolist() == sorted(real.tolist())  # padding on the left
        for name in ("pixel_values", "mask_values"):
            assert torch.equal(together[name].chunk(2)[row], alone[name])


def test_every_form_of_a_mask_gives_the_same_inputs(processor, image, mask):
    region = Region.from_mask("a", mask)
    plain = {"size": [HEIGHT, WIDTH], "counts": _run_lengths(mask)}
    forms = [mask, mask.astype(np.uint8) * 255, region, region.rle, plain]
    results = [processor(image, form)["mask_values"] for form in forms]
    assert all(torch.equal(result, results[0]) for result in results)
    assert results[0].unique().min() == 0 and results[0].max() == 1


def _run_lengths(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.T.reshape(-1), [0]])
    flips = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], flips, [mask.size]])).tolist()


def test_pixels_are_normalised_as_imagenets(processor):
    grey = np.full((56, 56, 3), (10, 100, 200), np.uint8)
    tiles = processor.image_tiles(grey)
    expected = (np.array([10, 100, 200]) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert tiles.shape == (1, 3, 56, 56) and tiles.dtype == torch.float32
    assert np.allclose(tiles.mean(dim=(0, 2, 3)), expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 255])
def test_masks_are_scaled_as_the_model_was_trained(image, mask, scale):
    config = tiny_config(mask_scale=scale, mask_thumbnail=False)
    processor = UrecaProcessor.from_config(config, tiny_tokenizer())
    assert processor(image, mask)["mask_values"].unique().tolist() == [0, scale]


def test_thumbnails_wrap_around_only_where_the_weights_have_learnt_it(image, mask):
    seen = {}
    for overshoot in ("clip", "wrap"):
        config = tiny_config(mask_overshoot=overshoot)
        processor = UrecaProcessor.from_config(config, tiny_tokenizer())
        values = processor(image, mask)["mask_values"]
        wanted = tile_masks(mask[None], 12, 56, thumbnail=True, overshoot=overshoot)[0]
        assert torch.equal(values[:, 0], wanted)
        seen[overshoot] = values
    assert torch.equal(seen["clip"][:-1], seen["wrap"][:-1])
    assert not torch.equal(seen["clip"][-1], seen["wrap"][-1])


def test_a_mask_that_is_not_tiled_is_one_tile(image, mask):
    config = tiny_config(mask_dynamic=False)
    processor = UrecaProcessor.from_config(config, tiny_tokenizer())
    inputs = processor(image, mask)
    assert inputs["mask_values"].shape == (1, 1, 56, 56) and len(inputs["pixel_values"]) == 7
    assert (inputs["input_ids"] == processor.mask_token_id).sum() == 8


def test_training_takes_fewer_tiles_than_inference(processor, mask):
    wide = np.zeros((40, 440, 3), np.uint8)
    inside = np.ones((40, 440), bool)
    assert len(processor(wide, inside)["pixel_values"]) == 11 + 1
    assert len(processor(wide, inside, train=True)["pixel_values"]) == 6 + 1
    assert len(processor(wide, inside, train=True, max_tiles=2)["pixel_values"]) == 2 + 1


def test_labels_are_the_answer_and_its_end(processor, image, mask):
    inputs = processor(image, [mask, mask], answer=["a boot", " a red boot\n"], train=True)
    ids, labels = inputs["input_ids"], inputs["labels"]
    for row, answer in enumerate(["a boot", "a red boot"]):
        learnt = labels[row][labels[row] != IGNORED]
        assert text_of(processor, learnt) == f"{answer}<|im_end|>"
        assert torch.equal(ids[row][-len(learnt) :], learnt)
    prompt = processor(image, mask, train=True)["input_ids"][0]
    assert torch.equal(ids[1][: len(prompt)], prompt)  # row 1 is the longest: no padding


def test_an_answer_that_merges_with_the_prompt_still_has_its_labels():
    # a tokenizer that joins the newline before the answer with its first letter
    tokenizer = tiny_tokenizer()
    vocab = tokenizer.get_vocab()
    merging = Conversation(_Merging(tokenizer, vocab["Ċ"], vocab["a"], 5000))
    learnt = merging.answer_ids("ab", "Q?")
    assert learnt == [5000, vocab["b"], vocab["<|im_end|>"]]


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt():
    tokenizer = tiny_tokenizer()
    plain = Conversation(tokenizer)
    expected = plain.tokenize("Q?"), plain.tokenize("Q?", "ab")
    end = ("<|im_end|>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[end]
    )
    assert tokenizer("x").input_ids[-1] == tokenizer.eos_token_id
    assert (plain.tokenize("Q?"), plain.tokenize("Q?", "ab")) == expected


class _Merging:
    def __init__(self, tokenizer, first, second, merged):
        self.tokenizer, self.pair, self.merged = tokenizer, [first, second], merged
        self.all_special_tokens = tokenizer.all_special_tokens
        self.convert_tokens_to_ids = tokenizer.convert_tokens_to_ids
        self.eos_token_id = tokenizer.eos_token_id

    def __call__(self, text):
        encoded = self.tokenizer(text)
        ids, out = encoded.input_ids, []
        while ids:
            joined = ids[:2] == self.pair
            out.append(self.merged if joined else ids[0])
            ids = ids[2:] if joined else ids[1:]
        encoded["input_ids"] = out
        return encoded


def test_saved_and_loaded_again(processor, model, image, mask, tmp_path):
    model.config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for loader in (UrecaProcessor, AutoProcessor):
        again = loader.from_pretrained(tmp_path)
        assert isinstance(again, UrecaProcessor)
        one, two = processor(image, mask), again(image, mask)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "kind", ["RGBA", "grey", "16-bit", "CMYK", "palette", "path", "EXIF", "bool array"]
)
def test_images_of_every_kind_are_read(processor, tmp_path, kind):
    tall = np.random.default_rng(1).integers(0, 256, (80, 60), dtype=np.uint8)
    rgb = Image.fromarray(np.repeat(tall[..., None], 3, axis=2))
    forms = {
        "RGBA": lambda: rgb.convert("RGBA"),
        "grey": lambda: rgb.convert("L"),
        "16-bit": lambda: Image.fromarray(tall.astype(np.uint16) * 257),
        "CMYK": lambda: rgb.convert("CMYK"),
        "palette": lambda: rgb.convert("P"),
        "path": lambda: _saved(rgb, tmp_path / "a.png"),
        "EXIF": lambda: _rotated(rgb, tmp_path / "a.png"),
        "bool array": lambda: tall > 128,
    }
    inputs = processor(forms[kind](), np.ones((80, 60), bool), max_tiles=2)
    pixels = inputs["pixel_values"]
    assert pixels.isfinite().all() and pixels.std() > 0.1
    if kind in ("RGBA", "grey", "16-bit", "path", "EXIF"):
        assert torch.allclose(pixels, processor(rgb, np.ones((80, 60)), max_tiles=2).pixel_values)


def _saved(image, path):
    image.save(path)
    return path


def _rotated(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    image.transpose(Image.ROTATE_90).save(path, exif=exif)
    return path


def test_masks_drawn_on_the_stored_pixels_of_a_rotated_photo_fit(processor, tmp_path):
    grey = np.random.default_rng(1).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    path = _rotated(Image.fromarray(grey), tmp_path / "a.png")
    stored = np.asarray(Image.open(path))
    assert stored.shape == (60, 80, 3)
    inputs = processor(path, np.ones((60, 80)))
    assert torch.equal(inputs.pixel_values, processor(stored, np.ones((60, 80))).pixel_values)


def test_a_mask_of_another_size_than_its_image_is_an_error(processor, image, mask):
    with pytest.raises(SizeMismatchError, match=r"region 7.*100 x 100 but the image is 180 x 120"):
        processor(image, Region.from_mask(7, np.ones((100, 100))))


def test_an_empty_mask_is_an_error_that_names_it(processor, image, mask):
    with pytest.raises(EmptyMaskError, match="region 1"):
        processor(image, [mask, np.zeros((HEIGHT, WIDTH))])


def test_a_mask_of_the_whole_image_is_all_ones(processor, image):
    config = tiny_config(mask_thumbnail=False)
    plain = UrecaProcessor.from_config(config, tiny_tokenizer())
    values = plain(image, np.ones((HEIGHT, WIDTH)))["mask_values"]
    assert values.unique().tolist() == [1]


def test_no_masks_is_an_error(processor, image):
    with pytest.raises(ValueError, match="no masks"):
        processor(image, [])


def test_numbers_that_do_not_fit_are_an_error(processor, image, mask):
    with pytest.raises(ValueError, match="3 questions for 2 masks"):
        processor(image, [mask, mask], ["a", "b", "c"])
    with pytest.raises(ValueError, match="1 images for 2 masks"):
        processor([image], [mask, mask])
    with pytest.raises(ValueError, match="1 answers for 2 masks"):
        processor(image, [mask, mask], answer=["a"])


def test_one_pixel_is_seen_or_its_loss_is_told(processor):
    small, large = np.zeros((56, 56), bool), np.zeros((2000, 2000), bool)
    small[3, 4] = large[1001, 1001] = True
    values = processor(np.zeros((56, 56, 3), np.uint8), small)["mask_values"]
    assert values.sum() == 1 and values[0, 0, 3, 4] == 1
    with pytest.warns(UserWarning, match=r"region 0, 1 pixels, vanishes"):
        lost = processor(np.zeros((2000, 2000, 3), np.uint8), large, max_tiles=1)
    assert not lost["mask_values"].any()


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (3, 1000), (1, 1)])
def test_extreme_shapes_are_tiled(processor, size):
    inputs = processor(np.zeros((*size, 3), np.uint8), np.ones(size, bool))
    assert 1 <= len(inputs["pixel_values"]) <= 13
    assert len(inputs["mask_values"]) == len(inputs["pixel_values"])
    assert inputs["mask_values"].max() == 1


def test_an_unreadable_image_is_an_error_that_names_it(processor, mask, tmp_path):
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(ImageUnreadableError, match=r"x\.png"):
        processor(tmp_path / "x.png", mask)


@pytest.mark.parametrize("what", ["question", "answer"])
@pytest.mark.parametrize("token", ["<|im_end|>", "<IMG_CONTEXT>", "</mask>"])
def test_special_tokens_in_text_are_an_error(processor, image, mask, what, token):
    with pytest.raises(ValueError, match=f"the {what} holds the special token"):
        processor(image, mask, **{what: f"a {token} b"})


def test_a_mark_that_stands_twice_is_an_error(processor, image, mask):
    with pytest.raises(ValueError, match="a question has one <mask>, got 2"):
        processor(image, mask, "<mask> or <mask>?")


def test_a_tokenizer_without_the_tokens_is_an_error_and_can_get_them():
    bare = tiny_tokenizer(VISUAL_TOKENS[:3])
    with pytest.raises(ValueError, match="lacks <MASK_CONTEXT>, <mask>, </mask>"):
        UrecaProcessor(bare)
    before = len(bare)
    assert UrecaProcessor(add_visual_tokens(bare)).mask_token_id == before
    assert len(add_visual_tokens(bare)) == before + 3


def test_a_tokenizer_that_numbers_otherwise_is_an_error(model):
    config = tiny_config(mask_token_id=3)
    with pytest.raises(ValueError, match=r"mask_token_id is 264, the model's is 3"):
        UrecaProcessor.from_config(config, tiny_tokenizer())


@pytest.mark.parametrize("overshoot", ["wrap", "clip"])
def test_without_masks_every_tile_is_blank_and_the_processor_is_as_it_was(
    model, processor, mask, overshoot
):
    processor = UrecaProcessor.from_config(model.config, tiny_tokenizer())
    processor.mask_overshoot = overshoot
    regions = [Region.from_mask(1, mask)]
    hidden = processor.without_masks().mask_tiles(regions, mask.shape)
    shown = processor.mask_tiles(regions, mask.shape)
    assert shown.any() and not hidden.any() and shown.shape == hidden.shape


def test_the_data_set_asks_what_the_model_is_asked() -> None:
    from ureca_lib import conversation
    from ureca_lib.annotate import export

    assert f"<image>\n{conversation.QUESTION}" == export.QUESTION
