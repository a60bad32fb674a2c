"""Baselines: what a model is shown of a region, and tiny models of every class that is asked."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluate.small_mllms import save_internvl, save_kosmos, save_llava
from fake_annotators import small_image
from faults.server import FaultyServer, error, say
from PIL import Image

from ureca_lib.annotate.views import MIN_MARGIN, ImageViews, ViewSettings
from ureca_lib.boxes import box_text
from ureca_lib.chat import AnnotatorUnavailableError, OpenAIChat, TransformersChat
from ureca_lib.checkpoints.internvl import from_internvl_hf
from ureca_lib.conversation import QUESTION
from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages, open_captioned
from ureca_lib.evaluate.native_systems import marked, relative_box
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import read_predictions
from ureca_lib.evaluate.settings import SYSTEMS, SystemOptions
from ureca_lib.evaluate.systems import (
    QUESTIONS,
    Caption,
    ChatReader,
    OwnReader,
    PromptedSystem,
    Question,
    build_system,
    crop,
)
from ureca_lib.regions import Region


@pytest.fixture(scope="module")
def image() -> CaptionedImage:
    return CaptionedImage("small", small_image(0))


@pytest.fixture(scope="module")
def internvl(tmp_path_factory):
    return save_internvl(tmp_path_factory.mktemp("internvl"))


class Echo:
    """A reader that says what it was asked, and how large the picture was."""

    name, model, settings = "echo", {"path": "none"}, {"loud": True}

    def __init__(self):
        self.asked = []

    def read(self, questions):
        self.asked += questions
        return [Caption(f"{picture.shape[0]} {text}") for picture, text in questions]


def test_none_asks_once_and_says_the_same_of_every_region(image):
    reader = Echo()
    said = PromptedSystem(reader, "none").describe(image, image.regions)
    assert len(reader.asked) == 1 and np.array_equal(reader.asked[0].picture, image.pixels)
    assert reader.asked[0].text == QUESTION
    assert len(said) == len(image.regions) and len(set(said)) == 1


def test_contour_shows_the_whole_image_with_the_regions_contour(image):
    asks = PromptedSystem(Echo(), "contour").questions(image, image.regions)
    views = ImageViews(image.image)
    for ask, region in zip(asks, image.regions, strict=True):
        assert np.array_equal(ask.picture, views.contoured_image(region.id))
        assert "yellow contour" in ask.text
    assert len({ask.picture.tobytes() for ask in asks}) == len(asks)


def test_crop_shows_the_regions_box_and_nothing_drawn_on_it(image):
    view, space = ViewSettings(margin=0.0, min_side=0), MIN_MARGIN
    for region in image.regions:
        x, y, columns, rows = region.pixel_box
        top, left = max(0, y - space), max(0, x - space)
        expected = image.pixels[top : y + rows + space, left : x + columns + space]
        assert np.array_equal(crop(image.pixels, region, view), expected)
    (ask,) = PromptedSystem(Echo(), "crop").questions(image, image.regions[:1])
    assert np.array_equal(ask.picture, crop(image.pixels, image.regions[0]))


def test_box_says_the_regions_box_in_words(image):
    asks = PromptedSystem(Echo(), "box", "What?").questions(image, image.regions)
    for ask, region in zip(asks, image.regions, strict=True):
        assert ask.text == f"<image>\n{box_text(region.pixel_box, region.size)}\nWhat?"
        assert ask.picture is image.pixels


def test_the_record_of_a_prompted_system_holds_all_that_its_captions_depend_on():
    system = PromptedSystem(Echo(), "crop")
    assert system.name == "crop" and system.model == {"path": "none"}
    assert system.settings["prompting"] == "crop" and system.settings["loud"] is True
    assert system.settings["question"] == QUESTIONS["crop"]
    assert system.settings["view"]["margin"] == ViewSettings().margin
    # two runs into one file must agree on these, also with files of earlier versions
    keys = ["prompting", "question", "background", "view", "reader", "loud"]
    assert list(system.settings) == keys and system.settings["background"] == "photo"


def test_own_reader_says_what_transformers_generates(internvl, image):
    options = {"max_new_tokens": 6, "max_tiles": 4, "batch_size": 2}
    reader = OwnReader(SystemOptions("none", str(internvl), **options))
    asks = [
        Question(image.pixels, "Describe it."),
        Question(np.tile(image.pixels, (1, 2, 1)), "Describe it."),  # another number of tiles
        Question(image.pixels, "What is this?"),
        Question(np.ascontiguousarray(image.pixels[::-1]), "Describe it."),
    ]
    said = reader.read(asks)
    network, processor = from_internvl_hf(internvl), reader.processor
    conversation = replace(processor.conversation, with_mask=False)
    for ask, one in zip(asks, said, strict=True):
        tiles = processor.image_tiles(ask.picture, 4)
        prompt = conversation.prompt(ask.text).replace(
            "<IMG_CONTEXT>", "<IMG_CONTEXT>" * processor.image_seq_length * len(tiles)
        )
        ids = torch.tensor([processor.tokenizer(prompt).input_ids])
        out = network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=tiles,
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=processor.tokenizer.eos_token_id,
            output_scores=True,
            return_dict_in_generate=True,
        )
        new = out.sequences[0, -len(out.scores) :]
        assert processor.tokenizer.decode(new, skip_special_tokens=True).strip() == one.text
        logs = [torch.log_softmax(s[0], -1)[i] for s, i in zip(out.scores, new, strict=True)]
        assert one.score == pytest.approx(float(torch.stack(logs).mean()), abs=1e-4)
    assert len({one.text for one in said}) > 1


def test_chat_reader_is_the_same_in_batches_and_alone(tmp_path, image):
    folder = save_llava(tmp_path)
    asks = [
        Question(image.pixels, "Describe it."),
        Question(255 - image.pixels, "And this, what is it?"),
    ]
    together, alone = (
        ChatReader(
            TransformersChat(str(folder), batch_size=size, max_new_tokens=5, with_scores=True)
        ).read(asks)
        for size in (2, 1)
    )
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.score for one in together] == pytest.approx([o.score for o in alone], abs=1e-4)
    assert all(one.score < 0 and one.error is None for one in together)


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(AnnotatorUnavailableError, match="no chat template"):
        build_system("none", save_llava(tmp_path, vip=True))
    with pytest.raises(AnnotatorUnavailableError, match="gone cannot be loaded on cpu"):
        build_system("none", tmp_path / "gone")


def test_vip_llava_sees_red_around_the_region_and_nowhere_else(image):
    photo = image.pixels // 4 + 100  # nothing in it is red
    for region in image.regions:
        shown = marked(photo, region)
        assert max(shown.shape[:2]) == 672
        red = (shown == (255, 0, 0)).all(-1)
        x, y, columns, rows = (side * 672 / 48 for side in region.pixel_box)
        found = np.argwhere(red)
        assert len(found) and red.sum() < red.size / 2
        top, left = found.min(0)
        bottom, right = found.max(0)
        for value, edge in ((top, y), (left, x), (bottom, y + rows), (right, x + columns)):
            assert abs(value - edge) <= 24


def test_vip_llava_captions_each_region_by_its_mark(tmp_path, image):
    folder = save_llava(tmp_path, vip=True)
    regions = image.regions[:3]
    system = build_system("vip-llava", folder, max_new_tokens=4, batch_size=3)
    together = system.describe(image, regions)
    alone = [system.describe(image, [region])[0] for region in regions]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.score for one in together] == pytest.approx([o.score for o in alone], abs=1e-4)
    assert len({one.score for one in together}) == 3
    assert "within the red mask contour" in system.settings["question"]


@pytest.mark.parametrize("tall", [False, True])
def test_vip_llava_sees_the_edges_of_a_long_photo(tmp_path, tall):
    """CLIP's processor keeps the middle square of what it is given."""
    system = build_system("vip-llava", save_llava(tmp_path, vip=True))
    photo, masks = np.full((20, 60, 3), 100, np.uint8), np.zeros((3, 20, 60), bool)
    for number, column in enumerate((0, 25, 50)):
        masks[number, 4:16, column : column + 10] = True
    if tall:
        photo, masks = photo.transpose(1, 0, 2), masks.transpose(0, 2, 1)
    regions = [Region.from_mask(number, mask) for number, mask in enumerate(masks)]
    values = system.inputs(SimpleNamespace(pixels=photo), regions)["pixel_values"]
    # a thin red contour takes green away from a grey photo; three regions alike, alike much
    lost = [float((values[:, 1].amax(0) - picture[1]).sum()) for picture in values]
    assert min(lost) > 1 and max(lost) < 1.5 * min(lost)
    assert system.settings["padding"] == "square"


def test_kosmos_gets_the_regions_box_as_location_tokens(tmp_path, image):
    system = build_system("kosmos-2", save_kosmos(tmp_path), max_new_tokens=4, batch_size=2)
    inputs = system.inputs(image, image.regions)
    vocabulary = system.processor.tokenizer
    for row, region in zip(inputs["input_ids"], image.regions, strict=True):
        text = " ".join(vocabulary.convert_ids_to_tokens(row))
        left, top, right, bottom = relative_box(region)
        # 32 x 32 patches, counted row by row (Peng et al. 2023): the first and the last touched
        first = int(top * 32) * 32 + int(left * 32)
        last = (int(np.ceil(bottom * 32)) - 1) * 32 + int(np.ceil(right * 32)) - 1
        marks = f"<object> <patch_index_{first:04d}> <patch_index_{last:04d}> </object>"
        assert f"<grounding> <phrase> It </phrase> {marks} is" in text
    said = system.describe(image, image.regions[:3])
    alone = [system.describe(image, [region])[0] for region in image.regions[:3]]
    assert [one.text for one in said] == [one.text for one in alone]
    assert all("<" not in one.text and one.score < 0 for one in said)
    with pytest.raises(ValueError, match="one <phrase>"):
        build_system("kosmos-2", tmp_path, question="Describe it.").describe(image, image.regions)


def test_a_server_is_sent_the_view_and_the_question(monkeypatch, image, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "a-very-secret-key")
    with FaultyServer() as server:
        server.play([say('"The contour holds a cat."'), say("1. a dog"), say("")])
        key = "OPENAI_API_KEY"
        chat = OpenAIChat("m", server.url, key, max_in_flight=1, image_format="png")
        system = PromptedSystem(ChatReader(chat), "contour")
        said = system.describe(image, image.regions[:3])
        # what the annotation's rules forbid is an answer all the same; nothing is not
        assert said[0] == Caption("The contour holds a cat.") and "dog" in said[1].text
        assert said[2].text == "" and said[2].error
        assert len(server.seen) == 3
        for seen, region in zip(server.seen, image.regions, strict=False):
            assert seen.texts == [QUESTIONS["contour"]]
            url = seen.body["messages"][0]["content"][0]["image_url"]["url"]
            picture = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
            expected = ImageViews(image.image).contoured_image(region.id)
            assert np.array_equal(np.asarray(picture), expected)
    assert "secret" not in repr(system.settings) + repr(system.model)
    assert system.settings["reader"] == "server"
    assert system.model == {"path": "m", "server": server.url}


def test_what_a_server_said_before_it_was_gone_is_kept(monkeypatch, image, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "a-very-secret-key")
    data = CaptionedImages(["small"], lambda _: image, "one image")
    with FaultyServer() as server:

        def system():
            reader = ChatReader(OpenAIChat("m", server.url, max_in_flight=1))
            return PromptedSystem(reader, "crop")

        server.play([say("a cat"), say("a dog"), *[error(401)] * 20])
        with pytest.raises(AnnotatorUnavailableError, match="status 401"):
            predict(system(), data, tmp_path / "p.jsonl", progress=False)
        assert len(server.seen) == 3  # those still to come are not sent
        kept = read_predictions(tmp_path / "p.jsonl")
        assert [row.caption for row in kept] == ["a cat", "a dog"]
        server.script[:] = [say("a bird")] * 20
        summary = predict(system(), data, tmp_path / "p.jsonl", progress=False)
    assert summary.made == len(image.regions) - 2 and summary.complete
    rows = {row.region_id: row.caption for row in read_predictions(tmp_path / "p.jsonl")}
    assert list(rows) == [region.id for region in image.regions]
    assert set(rows.values()) == {"a cat", "a dog", "a bird"}
    assert b"secret" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_systems_are_made_by_name(internvl, tmp_path):
    scene = open_captioned("scenes:test:1")[0]
    for name in ("none", "contour", "crop", "box"):
        system = build_system(name, internvl, max_new_tokens=3, max_tiles=1, name=f"my {name}")
        assert system.name == f"my {name}" and system.settings["reader"] == "ureca-lib"
        assert len(system.describe(scene, scene.regions[:2])) == 2
    for name in ("oracle", "shuffled", "class-name", "attributes"):
        assert build_system(name).name == name
    assert set(SYSTEMS) >= {"ureca", "no_mask", "vip-llava", "kosmos-2"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"system": "magic"}, "a system is ureca, no_mask, none"),
        ({"system": "none"}, "the system none needs a --model"),
        ({"system": "oracle", "model": "m"}, "the system oracle takes no question, has no model"),
        ({"system": "ureca", "model": "m", "base_url": "u"}, "--base-url is for none, contour"),
        ({"system": "oracle", "question": "q"}, "oracle takes no question"),
        ({"system": "none", "model": "m", "batch_size": 0}, "batch_size is at least 1"),
        ({"system": "none", "model": "m", "max_new_tokens": 0}, "max_new_tokens is at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_named(options, reason):
    with pytest.raises(ValueError, match=reason):
        build_system(**options)


def test_boxes_in_words_need_a_model_that_knows_them(tmp_path):
    with pytest.raises(ValueError, match="boxes in text"):
        build_system("box", save_llava(tmp_path))
