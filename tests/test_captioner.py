"""Captions and scores of all regions together against one region at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_config, tiny_model, tiny_tokenizer

from ureca_lib import captioner as captioner_module
from ureca_lib.captioner import Caption, RegionCaptioner
from ureca_lib.checkpoints import CheckpointError, convert, loading
from ureca_lib.conversation import QUESTION
from ureca_lib.decoding import TokenTree, in_groups
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import EmptyMaskError, Region, SizeMismatchError

HEIGHT, WIDTH = 112, 168
NEW = 12
POSITIONS = ["before_image", "after_image"]


def make(position: str = "after_image", seed: int = 0, **settings) -> RegionCaptioner:
    config = tiny_config(mask_position=position, max_tiles=6, **settings)
    processor = UrecaProcessor.from_config(config, tiny_tokenizer())
    return RegionCaptioner(tiny_model(config, seed=seed), processor)


@pytest.fixture(scope="module", params=POSITIONS)
def captioner(request) -> RegionCaptioner:
    return make(request.param)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def regions() -> list[Region]:
    rng, found = np.random.default_rng(1), []
    for number in range(9):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        top, left = rng.integers(0, HEIGHT - 20), rng.integers(0, WIDTH - 20)
        mask[top : top + rng.integers(4, 60), left : left + rng.integers(4, 90)] = True
        found.append(Region.from_mask(100 + number, mask))
    return found


def generated(captioner, image, region) -> tuple[list[int], torch.Tensor]:
    """transformers' own generation for one region, everything computed for it alone."""
    out = captioner.model.generate(
        **captioner.processor(image, region),
        max_new_tokens=NEW,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        eos_token_id=captioner.processor.tokenizer.eos_token_id,
    )
    logits = torch.cat(out.logits)
    return out.sequences[0, -len(logits) :].tolist(), logits


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("position", "placed"),
    [
        ("before_image", {}),
        ("after_image", {}),
        ("after_image", {"mask_tile_embedding": True}),
        ("before_image", {"mask_tile_positions": True}),
        ("after_image", {"mask_tile_positions": True}),
    ],
)
def test_together_is_what_generation_gives_one_at_a_time(image, regions, position, placed, seed):
    captioner = make(position, seed, **placed)
    together = captioner.caption(image, regions, max_new_tokens=NEW, progress=False)
    compared = 0
    for caption, region in zip(together, regions, strict=True):
        ids, logits = generated(captioner, image, region)
        top = logits.topk(2, dim=-1).values
        if (top[:, 0] - top[:, 1]).min() <= 1e-3:
            continue  # a tie: rounding decides
        compared += 1
        text = captioner.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert caption.text == text
        gains = logits.log_softmax(dim=-1).gather(1, torch.tensor(ids)[:, None])
        assert caption.score == pytest.approx(gains.mean().item(), abs=1e-4)
        assert caption.log_likelihood == pytest.approx(gains.sum().item(), abs=1e-3)
    assert compared >= 7
    assert len({round(caption.log_likelihood, 3) for caption in together}) > 1
    if not placed:
        assert len({caption.text for caption in together}) > 1


def test_captions_come_in_order_with_their_ids(captioner, image, regions):
    forward = captioner.caption(image, regions, max_new_tokens=4, progress=False)
    backward = captioner.caption(image, regions[::-1], max_new_tokens=4, progress=False)
    assert [caption.region_id for caption in forward] == [region.id for region in regions]
    assert [c.text for c in backward[::-1]] == [c.text for c in forward]
    masks = captioner.caption(image, [r.mask for r in regions], max_new_tokens=4, progress=False)
    assert [caption.region_id for caption in masks] == list(range(9))
    assert [caption.text for caption in masks] == [caption.text for caption in forward]


@pytest.mark.parametrize("position", ["before_image", "after_image"])
def test_each_region_may_have_its_own_question(image, regions, position):
    captioner = make(position, 0)
    asked = ["What is it?", "Describe this region in detail."]
    options = {"max_new_tokens": 6, "progress": False}
    alone = [captioner.caption(image, regions, question, **options) for question in asked]
    assert [c.text for c in alone[0]] != [c.text for c in alone[1]]
    questions = [asked[place % 2] for place in range(len(regions))]
    mixed = captioner.caption(image, regions, questions, **options)
    for place, caption in enumerate(mixed):
        wanted = alone[place % 2][place]
        assert (caption.region_id, caption.text) == (wanted.region_id, wanted.text)
        assert caption.score == pytest.approx(wanted.score, abs=1e-4)
    with pytest.raises(ValueError, match="1 questions for 9 regions"):
        captioner.caption(image, regions, asked[:1], **options)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_size_of_a_group_changes_nothing(captioner, image, regions, size, monkeypatch):
    whole = captioner.caption(image, regions, max_new_tokens=6, progress=False)
    monkeypatch.setattr(captioner_module, "REGIONS_PER_GROUP", size)
    parts = captioner.caption(image, regions, max_new_tokens=6, progress=False)
    assert [caption.text for caption in parts] == [caption.text for caption in whole]
    assert [c.score for c in parts] == pytest.approx([c.score for c in whole], abs=1e-4)


def test_little_memory_makes_small_groups(captioner, image, regions, monkeypatch):
    sizes = []
    decode = RegionCaptioner._decode

    def watched(self, encoded, group, *rest):
        sizes.append(len(group))
        return decode(self, encoded, group, *rest)

    monkeypatch.setattr(RegionCaptioner, "_decode", watched)
    captioner.caption(image, regions, max_new_tokens=2, progress=False)
    monkeypatch.setattr(captioner_module, "free_bytes", lambda device: 1)
    captioner.caption(image, regions, max_new_tokens=2, progress=False)
    assert sizes == [9] + [1] * 9


@pytest.mark.parametrize("position", POSITIONS)
def test_running_out_of_memory_halves_the_group_and_goes_on(image, regions, position, monkeypatch):
    captioner = make(position)
    expected = captioner.caption(image, regions, max_new_tokens=6, progress=False)
    # the second layer fails, when the first has put its keys into the cache already
    layer = captioner.model.model.language_model.layers[1].self_attn
    attention, tried, limit = layer.forward, [], float("inf")

    def watched(hidden_states, *args, **kwargs):
        tried.append(hidden_states.shape[:2].numel())
        if tried[-1] > limit:
            raise torch.OutOfMemoryError("too much")
        return attention(hidden_states, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", watched)
    captioner.caption(image, regions[:1], max_new_tokens=6, progress=False)
    limit = 3 * max(tried)
    found = captioner.caption(image, regions, max_new_tokens=6, progress=False)
    assert max(tried) > limit
    assert [caption.text for caption in found] == [caption.text for caption in expected]
    assert [c.score for c in found] == pytest.approx([c.score for c in expected], abs=1e-4)


def test_one_region_that_does_not_fit_is_an_error(image, regions, monkeypatch):
    captioner = make()

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(captioner_module, "search", full)
    with pytest.raises(torch.OutOfMemoryError):
        captioner.caption(image, regions, progress=False)


def test_groups_are_halved_only_for_want_of_memory():
    tried = []

    def run(group):
        tried.append(list(group))
        if len(group) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried too much")
        return [2 * item for item in group]

    assert in_groups(range(7), 7, run) == [0, 2, 4, 6, 8, 10, 12]
    assert [len(group) for group in tried] == [7, 3, 1, 1, 1, 1, 1, 1, 1]

    def broken(group):
        raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        in_groups(range(4), 4, broken)


@torch.no_grad()
@pytest.mark.parametrize("question", [QUESTION, "What?"])
def test_scores_are_the_log_likelihoods_of_teacher_forcing(captioner, image, regions, question):
    captions = ["a", "a much longer caption of it", ""]
    scores = captioner.score(image, regions[:4], captions, question, progress=False)
    assert scores.shape == (4, 3) and scores.dtype == torch.float32
    for row, region in enumerate(regions[:4]):
        for column, text in enumerate(captions):
            inputs = captioner.processor(image, region, question, answer=text)
            labels = inputs.pop("labels")[:, 1:]
            logits = captioner.model(**inputs).logits[:, :-1].log_softmax(dim=-1)
            gains = logits.gather(2, labels.clamp(min=0)[..., None])[..., 0]
            expected = gains[labels != -100].sum().item()
            assert scores[row, column].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("tokens", [1, 40])
def test_the_size_of_a_chunk_of_captions_changes_nothing(
    captioner, image, regions, tokens, monkeypatch
):
    captions = [f"caption {number}" for number in range(5)]
    whole = captioner.score(image, regions, captions, progress=False)
    monkeypatch.setattr(captioner_module, "TOKENS_PER_PASS", tokens)
    assert torch.allclose(
        captioner.score(image, regions, captions, progress=False), whole, atol=1e-4
    )


def test_no_regions_and_no_captions_give_nothing(captioner, image, regions):
    assert captioner.caption(image, []) == []
    assert captioner.score(image, [], ["a", "b"]).shape == (0, 2)
    assert captioner.score(image, regions[:3], []).shape == (3, 0)


def test_bad_regions_are_errors_that_name_them(captioner, image, regions):
    with pytest.raises(SizeMismatchError, match="region 8"):
        captioner.caption(image, [*regions, Region.from_mask(8, np.ones((5, 5)))], progress=False)
    with pytest.raises(EmptyMaskError, match="region 1"):
        captioner.caption(image, [regions[0], np.zeros((HEIGHT, WIDTH))], progress=False)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        captioner.caption(image, regions, max_new_tokens=0)


@pytest.mark.parametrize("dynamic", [True, False])
def test_small_images_and_single_masks_are_captioned(regions, dynamic):
    captioner = make(mask_dynamic=dynamic)
    small = np.zeros((20, 20, 3), np.uint8)
    masks = [np.eye(20, dtype=bool), np.ones((20, 20), bool)]
    found = captioner.caption(small, masks, max_new_tokens=3, progress=False)
    assert len(found) == 2 and all(caption.score < 0 for caption in found)


def test_a_question_decides_what_is_shared(image, regions):
    first = make("before_image")
    other = make("after_image")
    other.model.load_state_dict(first.model.state_dict())
    asked = [
        c.caption(image, regions[:3], "<image> and <mask> go here.", NEW, progress=False)
        for c in (first, other)
    ]
    assert [c.text for c in asked[0]] == [c.text for c in asked[1]]


def test_loaded_from_a_folder(captioner, image, regions, tmp_path):
    captioner.model.save_pretrained(tmp_path)
    captioner.processor.save_pretrained(tmp_path)
    again = RegionCaptioner.from_pretrained(tmp_path, device="cpu")
    one, two = (c.caption(image, regions[:2], max_new_tokens=4) for c in (captioner, again))
    assert one == two and isinstance(one[0], Caption)


def test_loaded_from_a_published_folder_and_its_conversion(peer, image, regions, tmp_path):
    source = peer / "official_checkpoints" / "internlm2"
    folder = tmp_path / "published"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((source / name).read_bytes())
    _renumbered(folder, rows=160).save_pretrained(folder)
    published = RegionCaptioner.from_pretrained(folder)
    ours = RegionCaptioner.from_pretrained(convert(folder, tmp_path / "ours"))
    one, two = (
        c.caption(image, regions[:2], max_new_tokens=4, progress=False) for c in (published, ours)
    )
    assert one == two


def _renumbered(folder, rows: int):
    """A tokenizer of the needed special tokens and few letters, for a small vocabulary."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from ureca_lib.conversation import TURN_END, TURN_START, VISUAL_TOKENS

    letters = [chr(code) for code in range(33, 33 + rows - 10)]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = [TURN_START, TURN_END, *VISUAL_TOKENS]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="!", eos_token=TURN_END)


def test_a_processor_of_another_model_is_an_error():
    captioner = make()
    other = tiny_model(tiny_config(mask_token_id=7))
    with pytest.raises(ValueError, match=r"mask_token_id is .* do not belong together"):
        RegionCaptioner(other, captioner.processor)


@torch.no_grad()
def test_a_tree_gives_what_each_sequence_alone_gives():
    language = tiny_model().model.language_model
    generator = torch.Generator().manual_seed(0)
    stem, *twigs = (torch.randn(n, 64, generator=generator) for n in (7, 3, 5, 1, 4))

    def alone(*parts):
        return language(inputs_embeds=torch.cat(parts)[None]).last_hidden_state[
            0, -len(parts[-1]) :
        ]

    tree = TokenTree(language)
    assert torch.allclose(tree.grow([stem])[0], alone(stem), atol=1e-5)
    for _ in range(2):  # removed branches leave no trace
        with tree.restored():
            tree.fork([0, 0])
            first, second = tree.grow(twigs[:2])
            assert torch.allclose(first, alone(stem, twigs[0]), atol=1e-5)
            assert torch.allclose(second, alone(stem, twigs[1]), atol=1e-5)
            tree.fork([1, 0, 1])
            third, fourth, none = tree.grow([*twigs[2:], stem[:0]])
            assert torch.allclose(third, alone(stem, twigs[1], twigs[2]), atol=1e-5)
            assert torch.allclose(fourth, alone(stem, twigs[0], twigs[3]), atol=1e-5)
            assert len(tree) == 20 and len(none) == 0
            tree.fork([1])  # the others are in the cache and unseen
            assert torch.allclose(
                tree.grow(twigs[:1])[0], alone(stem, twigs[0], twigs[3], twigs[0]), atol=1e-5
            )
        assert len(tree) == 7 and tree.cache.get_seq_length() == 7


@torch.no_grad()
def test_beams_are_those_of_transformers(captioner, image, regions):
    """Without a length penalty, and with all answers ended by their length alone."""
    processor, model = captioner.processor, captioner.model
    found = captioner.caption(image, regions[:3], max_new_tokens=4, beams=3, progress=False)
    for region, caption in zip(regions[:3], found, strict=True):
        inputs = processor(image, region)
        options = {"num_beams": 3, "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
        out = model.generate(**inputs, **options, length_penalty=0.0)
        new = out[0, inputs["input_ids"].shape[1] :]
        assert caption.text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("size", [1, 4])
def test_beams_do_not_depend_on_the_group(captioner, image, regions, size, monkeypatch):
    options = {"max_new_tokens": 5, "beams": 4, "progress": False}
    whole = captioner.caption(image, regions, **options)
    greedy = captioner.caption(image, regions, max_new_tokens=5, progress=False)
    monkeypatch.setattr(captioner_module, "REGIONS_PER_GROUP", size)
    parts = captioner.caption(image, regions, **options)
    assert [caption.text for caption in parts] == [caption.text for caption in whole]
    scores = captioner.score(image, regions, [caption.text for caption in greedy], progress=False)
    assert scores.shape == (9, 9)  # the image's own state is as it was
    assert sum(c.log_likelihood for c in whole) > sum(c.log_likelihood for c in greedy)


@pytest.mark.parametrize("size", [1, 32])
def test_regions_that_say_the_same_choose_again(captioner, image, regions, size, monkeypatch):
    monkeypatch.setattr(captioner_module, "REGIONS_PER_GROUP", size)
    twins = [regions[0], Region("twin", regions[0].rle), *regions[1:]]
    options = {"max_new_tokens": 3, "progress": False}
    alone = captioner.caption(image, twins, **options)
    found = captioner.caption(image, twins, **options, together=True)
    assert alone[0].text == alone[1].text and found[0].text != found[1].text
    for before, after in zip(alone, found, strict=True):
        assert after.region_id == before.region_id
        if after.instead_of is None:
            assert after == before
        else:
            assert after.instead_of == before.text != after.text
            cost = before.log_likelihood - after.log_likelihood
            assert after.cost == pytest.approx(cost, abs=1e-4)
    assert sum(caption.instead_of is not None for caption in found) >= 1


def test_a_published_folder_without_a_tokenizer_is_an_error(peer):
    with pytest.raises(CheckpointError, match="internlm2: no tokenizer"):
        RegionCaptioner.from_pretrained(peer / "official_checkpoints" / "internlm2")


@pytest.fixture
def asked(monkeypatch) -> list:
    """Record the paths that loaders are given; nothing is loaded or fetched."""
    found = []

    def note(path, *args, **kwargs):
        found.append(path)
        raise ConnectionError("no network here")

    for kind in (UrecaForConditionalGeneration, UrecaProcessor):
        monkeypatch.setattr(kind, "from_pretrained", note)
    monkeypatch.setattr(loading, "load_official", note)
    return found


@pytest.mark.parametrize("kind", ["ours", "published"])
def test_a_folder_without_a_tokenizer_is_an_error_before_weights_are_read(tmp_path, asked, kind):
    config = {"llm_config": {}} if kind == "published" else {"model_type": "ureca"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"{tmp_path.name}: no tokenizer.* copy the token"):
        RegionCaptioner.from_pretrained(tmp_path)
    assert asked == []


@pytest.mark.parametrize(
    "path",
    ["ureca-8b", "./org/name", "/org", "../name", "~/name", "org/name/", "a/b/c", Path("org/name")],
)
def test_a_folder_that_is_not_there_is_an_error_at_once(path, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"(org|name|ureca-8b|c): no such folder$"):
        RegionCaptioner.from_pretrained(path)
    assert asked == []


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path):
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a folder"):
        RegionCaptioner.from_pretrained(file)


def test_an_organization_and_a_name_are_asked_of_the_hub(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnectionError):
        RegionCaptioner.from_pretrained("cvlab/URECA-8B_v1.0")
    assert asked == ["cvlab/URECA-8B_v1.0"]


def test_a_folder_named_like_a_hub_id_comes_first(captioner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    captioner.model.save_pretrained("org/name")
    captioner.processor.save_pretrained("org/name")
    again = RegionCaptioner.from_pretrained("org/name")
    assert again.processor.mask_position == captioner.processor.mask_position


def test_tokenizer_files_beside_the_weights_are_enough(captioner, image, regions, tmp_path):
    captioner.model.save_pretrained(tmp_path)
    captioner.processor.tokenizer.save_pretrained(tmp_path)
    again = RegionCaptioner.from_pretrained(tmp_path)
    one, two = (
        c.caption(image, regions[:2], max_new_tokens=4, progress=False) for c in (captioner, again)
    )
    assert one == two


def test_attention_that_takes_causal_masks_only_is_replaced(image, regions):
    captioner = make()
    model = captioner.model
    model.model.language_model.config._attn_implementation = "flash_attention_2"
    again = RegionCaptioner(model, captioner.processor)
    assert model.model.language_model.config._attn_implementation == "sdpa"
    assert len(again.caption(image, regions[:2], max_new_tokens=2, progress=False)) == 2


def test_eager_attention_gives_the_same_captions(image, regions):
    captioner = make()
    expected = captioner.caption(image, regions, max_new_tokens=6, progress=False)
    captioner.model.set_attn_implementation("eager")
    found = captioner.caption(image, regions, max_new_tokens=6, progress=False)
    assert captioner.model.model.language_model.config._attn_implementation == "eager"
    assert [caption.text for caption in found] == [caption.text for caption in expected]
