"""Listeners score predictions: any listener, resumable, with nothing mixed up."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from fake_annotators import write_images
from faults.server import FaultyServer, error, say
from PIL import Image
from tiny_models import tiny_model, tiny_tokenizer

from ureca_lib.annotate.export import conversation, write_jsonl
from ureca_lib.captioner import RegionCaptioner
from ureca_lib.chat import AnnotatorUnavailableError
from ureca_lib.datasets.captioned import CaptionedImage, open_captioned
from ureca_lib.evaluate.uniqueness import measure_uniqueness
from ureca_lib.journal import JournalError, read_journal
from ureca_lib.listeners import (
    ExactListener,
    ListenerScores,
    ModelListener,
    listener_name,
    look_alikes,
    make_listener,
    score_image,
    score_images,
)
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region, RegionImage

DATA = "scenes:test:4"


@pytest.fixture(scope="module")
def images():
    return list(open_captioned(DATA))


@pytest.fixture(scope="module")
def spoken(images):
    return {
        image.image_id: {str(key): texts[0] for key, texts in image.captions.items()}
        for image in images
    }


class Counting(ExactListener):
    """Counts the images that it hears, and stops at one if told to."""

    def __init__(self, stop=None):
        self.heard, self.stop = 0, stop

    def score(self, image, captions):
        if self.heard == self.stop:
            raise KeyboardInterrupt
        self.heard += 1
        return super().score(image, captions)


def hearing(path, spoken, listener, name="exact"):
    return score_images(
        lambda: open_captioned(DATA), spoken, lambda: listener, name, path, "ours", False
    )


def test_a_run_that_was_stopped_goes_on_and_gives_the_same(tmp_path, spoken):
    whole = hearing(tmp_path / "whole.jsonl", spoken, Counting())
    path = tmp_path / "heard.jsonl"
    with pytest.raises(KeyboardInterrupt):
        hearing(path, spoken, Counting(stop=2))
    with path.open("ab") as file:
        file.write(b'{"image_id": "scene_2')
    listener = Counting()
    found = hearing(path, spoken, listener)
    assert listener.heard == 2
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [one.image_id for one in found] == [one.image_id for one in whole] == list(spoken)
    assert all(
        np.array_equal(a.scores, b.scores)
        for a, b in zip(found, read_journal(path, ListenerScores.from_row), strict=True)
    )


def test_what_was_heard_needs_neither_images_nor_listener(tmp_path, spoken):
    path = tmp_path / "heard.jsonl"
    first = hearing(path, spoken, Counting())

    def gone():
        raise AssertionError("not needed")

    again = score_images(gone, spoken, gone, "exact", path, "ours", False)
    assert [one.row() for one in again] == [one.row() for one in first]


def test_other_captions_and_other_listeners_are_not_mixed_in(tmp_path, spoken):
    path = tmp_path / "heard.jsonl"
    hearing(path, spoken, Counting())
    other = {name: dict(captions) for name, captions in spoken.items()}
    other["scene_2000001"]["1"] = "something else"
    with pytest.raises(JournalError, match="scene_2000001 has other captions"):
        hearing(path, other, Counting())
    with pytest.raises(JournalError, match="was scored by exact, not tiny"):
        hearing(path, spoken, Counting(), "tiny")


def test_captions_of_what_is_not_there_are_named(tmp_path, spoken):
    with pytest.raises(ValueError, match="lacks 1 of the images with captions: elsewhere"):
        hearing(tmp_path / "a.jsonl", {"elsewhere": {"1": "a car"}}, Counting())
    with pytest.raises(ValueError, match="scene_2000000 has no region '999'"):
        hearing(tmp_path / "b.jsonl", {"scene_2000000": {"999": "a car"}}, Counting())


def test_what_does_not_parse_or_has_no_word_names_nothing(images):
    image = images[0]
    captions = dict(
        zip([region.id for region in image.regions], ["", "…", "colorless ideas"], strict=False)
    )
    heard = score_image(image, captions, ExactListener())
    assert np.isneginf(heard.scores).all()
    assert heard.unscorable == {}


def test_the_exact_listener_knows_scenes_only(images):
    image = CaptionedImage("photo", images[0].image)
    with pytest.raises(ValueError, match="photo is not a procedural scene"):
        ExactListener().score(image, ["a car"])


@pytest.fixture(scope="module")
def captioner():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    return RegionCaptioner(model, UrecaProcessor.from_config(model.config, tokenizer))


def small(count=3):
    rng = np.random.default_rng(0)
    masks = np.zeros((count, 60, 80), bool)
    for place in range(count):
        masks[place, 10 : 20 + 9 * place, 20 * place : 20 * place + 18] = True
    regions = [Region.from_mask(place + 1, mask) for place, mask in enumerate(masks)]
    photo = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return CaptionedImage("small", RegionImage(regions, 80, 60, photo))


def test_a_model_listens_and_a_caption_with_a_special_token_is_kept_with_its_reason(captioner):
    image = small()
    texts = ["a red car", "<mask>", ""]
    heard = score_image(
        image, dict(zip([1, 2, 3], texts, strict=True)), ModelListener(captioner, "tiny"), "s"
    )
    expected = captioner.score(image.pixels, image.regions, texts[:1], progress=False)
    assert heard.scores[:, 0] == pytest.approx(expected[:, 0].numpy(), abs=1e-4)
    assert np.isneginf(heard.scores[:, 1:]).all()
    assert list(heard.unscorable) == [1] and "<mask>" in heard.unscorable[1]


def test_a_checkpoint_on_disk_listens_under_a_name_that_changes_with_its_weights(
    captioner, tmp_path
):
    folder = tmp_path / "tiny"
    captioner.model.save_pretrained(folder)
    captioner.processor.save_pretrained(folder)
    listener, image = make_listener(str(folder)), small()
    heard = score_image(image, {1: "a red car", 3: "a car"}, listener)
    direct = score_image(image, {1: "a red car", 3: "a car"}, ModelListener(captioner, "x"))
    assert heard.scores == pytest.approx(direct.scores, abs=1e-3)
    assert heard.listener == listener_name(str(folder)) and heard.listener.startswith("tiny-")
    tiny_model(seed=1).save_pretrained(folder)
    assert listener_name(str(folder)) != heard.listener


class Fixed:
    """A listener of given scores."""

    name = "fixed"

    def __init__(self, scores):
        self.scores = scores

    def score(self, image, captions):
        return self.scores, {}


@pytest.mark.parametrize(
    ("scores", "message"),
    [(np.zeros((2, 1)), "shape"), (np.full((3, 1), np.nan), "small: scores of fixed hold NaN")],
)
def test_scores_that_are_none_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        score_image(small(), {1: "a car"}, Fixed(scores))


def test_look_alikes_of_a_scene_are_of_its_kind_and_of_a_photo_by_features(images):
    scene = images[0]
    names = {region.id: region.name for region in scene.regions}
    found = look_alikes(scene)
    assert sum(map(len, found.values())) > 0
    for one, others in found.items():
        assert set(others) == {key for key in names if names[key] == names[one] and key != one}
    mask = np.zeros((40, 80), bool)
    mask[10:20, 10:20] = True
    masks = [mask, np.roll(mask, 40, axis=1), np.roll(mask, 20, axis=0)]
    photo = np.zeros((40, 80, 3), np.uint8)
    photo[masks[0] | masks[1]] = (200, 30, 30)
    photo[masks[2]] = (20, 40, 220)
    regions = [Region.from_mask(place, each) for place, each in enumerate(masks)]
    alike = look_alikes(CaptionedImage("photo", RegionImage(regions, 80, 40, photo)))
    assert alike == {0: [1], 1: [0], 2: []}


def test_a_listener_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="'exact', the folder"):
        make_listener(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="no weights"):
        make_listener(str(tmp_path))


def test_a_chat_model_points_at_a_region_of_the_numbered_photo(monkeypatch):
    image = small()
    texts = ["the left one", "the middle one", "an elephant", "something", "too many"]
    replies = {
        "left": "0",
        "middle": "Region 1.",
        "elephant": "none",
        "some": "7",
        "many": "0 or 1",
    }

    def answer(handler):
        question = handler.body["messages"][0]["content"][-1]["text"]
        assert "numbered from 0 to 2" in question
        say(next(reply for word, reply in replies.items() if word in question))(handler)

    with FaultyServer(then=answer) as server:
        listener = make_listener("openai:m", base_url=server.url, image_format="png")
        assert listener.name == listener_name("openai:m") == "openai:m"
        scores, refused = listener.score(image, texts)
    assert refused == {} and len(server.seen) == len(texts)
    pointed = np.argwhere(scores == 0).tolist()
    assert pointed == [[0, 0], [1, 1]] and np.isneginf(scores).sum() == scores.size - 2
    _, photo, _, marked, _ = server.seen[0].body["messages"][0]["content"]
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",")[1]))))
        for part in (photo, marked)
    ]
    assert np.array_equal(shown[0], image.pixels) and not np.array_equal(*shown)


def test_a_chat_model_that_refuses_a_caption_or_ends_is_resumed(tmp_path, published):
    images = open_captioned(published)
    spoken = {i.image_id: {str(k): t[0] for k, t in i.captions.items()} for i in images}

    def heard():
        return score_images(
            lambda: images,
            spoken,
            lambda: make_listener("openai:m", base_url=server.url, max_in_flight=1),
            "openai:m",
            tmp_path / "heard.jsonl",
            "ours",
            False,
        )

    with FaultyServer(then=error(401)) as server:
        server.play([say("3"), error(400, "filtered")])
        with pytest.raises(AnnotatorUnavailableError, match="status 401"):
            heard()
        asked = len(server.seen)
        assert asked in (3, 4)  # those still to come are not sent
        server.then = say("3")
        found = heard()
    assert len(server.seen) == asked + 2  # the first image is done
    assert [list(one.unscorable) for one in found] == [[1], []]
    measures = measure_uniqueness(found)
    assert measures.unscorable == 1 and measures.candidates["recall_at_1"] == 7
    assert measures.chance["recall_at_1"] == pytest.approx(1 / 7)


def test_options_of_a_server_go_with_a_chat_model():
    with pytest.raises(ValueError, match="base_url goes with a listener openai:NAME"):
        make_listener("exact", base_url="http://localhost/v1")


class Uniform:
    """A listener to which every region is as likely."""

    name = "uniform"

    def score(self, image, captions):
        return np.zeros((len(image.regions), len(captions))), {}


@pytest.fixture
def published(tmp_path):
    """A JSONL with captions of two of the seven masks of each of two photos."""
    write_images(tmp_path, 2)
    rows = [
        {"id": f"{n}/{key}", "image": f"image_{n}.png", "mask_id": key, "conversations": turns}
        for n in (0, 1)
        for key in (3, "six")
        for turns in [conversation(f"caption {key}")]
    ]
    write_jsonl(tmp_path / "data.jsonl", rows)
    return tmp_path / "data.jsonl"


def test_captions_of_published_data_are_heard_against_all_masks_of_the_photo(published):
    images = open_captioned(published)
    spoken = {i.image_id: {str(k): t[0] for k, t in i.captions.items()} for i in images}
    path = published.with_suffix(".heard.jsonl")
    heard = score_images(lambda: images, spoken, Uniform, "uniform", path, "ours", False)
    found = measure_uniqueness(heard)
    assert found.overall["recall_at_1"].count == 4
    assert found.chance["recall_at_1"] == pytest.approx(1 / 7)
    assert found.overall["recall_at_1"].value == pytest.approx(1 / 7)


def test_regions_that_the_predictions_leave_out_count_as_not_found(published):
    class Exact(Uniform):
        def score(self, image, captions):
            ids = [f"caption {region.id}" for region in image.regions]
            return np.where(np.array(ids)[:, None] == np.array(captions), 0, -np.inf), {}

    images, path = open_captioned(published), published.with_suffix(".heard.jsonl")
    spoken = {"image_0": {"3": "caption 3", "six": "caption six"}, "image_1": {"3": "caption 3"}}
    heard = score_images(lambda: images, spoken, Exact, "uniform", path, "ours", False)
    score = measure_uniqueness(heard).overall["recall_at_1"]
    assert (score.count, score.value) == (4, 0.75)
    # the masks without a reference are not asked for
    assert [list(one.said) for one in heard] == [[3, "six"], [3, "six"]]
    again = score_images(None, spoken, None, "uniform", path, "ours", False)
    assert [one.row() for one in again] == [one.row() for one in heard]
    whole = {name: {"3": "caption 3", "six": "caption six"} for name in spoken}
    with pytest.raises(JournalError, match="image_1 has other captions"):
        score_images(lambda: images, whole, Exact, "uniform", path, "ours", False)
