"""Systems and the runs that write what they say."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from fake_annotators import small_image, write_images
from safetensors.torch import save_file
from tiny_models import tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from ureca_lib.annotate.export import QUESTION, conversation, write_jsonl
from ureca_lib.captioner import RegionCaptioner
from ureca_lib.cli import app
from ureca_lib.datasets.captioned import CaptionedImage, open_captioned
from ureca_lib.evaluate.evaluation import evaluate
from ureca_lib.evaluate.exact_match import measure_exact
from ureca_lib.evaluate.metrics import score_captions
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import read_meta, read_predictions
from ureca_lib.evaluate.systems import (
    Caption,
    ModelFreeSystem,
    build_system,
)
from ureca_lib.journal import JournalError
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.processor import UrecaProcessor
from ureca_lib.provenance import model_record


@pytest.fixture(scope="module")
def scenes():
    return open_captioned("scenes:test:5")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_model()
    model.save_pretrained(folder)
    UrecaProcessor.from_config(model.config, tiny_tokenizer()).save_pretrained(folder)
    return folder


class Counting:
    """Says how often it was asked; stops or fails where it is told to."""

    name, model, settings = "counting", None, {"a": 1}

    def __init__(self, fail=(), stop_after=None):
        self.asked, self.fail, self.stop_after = [], set(fail), stop_after

    def describe(self, image, regions):
        self.asked += [(image.image_id, region.id) for region in regions]
        said = [
            Caption("", error="refused") if r.id in self.fail else Caption(f"thing {r.id}", -1.0)
            for r in regions
        ]
        if self.stop_after is not None:
            left = len(said) - self.stop_after
            return [*said[: self.stop_after], *[RuntimeError("the budget is spent")] * left]
        return said


def test_each_row_says_what_is_known_of_its_region(tmp_path, scenes):
    summary = predict(Counting(), scenes, tmp_path / "p.jsonl", "nothing", 7, progress=False)
    rows = read_predictions(tmp_path / "p.jsonl")
    assert summary.complete and summary.predictions == summary.made == len(rows)
    expected = [(image, region) for image in scenes for region in image.regions]
    assert len(rows) == len(expected)
    for row, (image, region) in zip(rows, expected, strict=True):
        assert (row.image_id, row.region_id) == (image.image_id, region.id)
        assert (row.area, row.image_size) == (region.area, image.size)
        assert row.level == image.levels[region.id]
        assert list(row.references) == image.captions[region.id]
        assert (row.caption, row.score, row.system) == (f"thing {region.id}", -1.0, "counting")
    meta = read_meta(tmp_path / "p.jsonl")
    assert (meta["system"], meta["trained_on"], meta["seed"]) == ("counting", "nothing", 7)
    assert meta["data"] == "scenes:test:5" and meta["settings"] == {"a": 1}
    assert meta["images"] == 5 and "torch" in meta["versions"]


def test_a_finished_run_asks_nothing_and_a_stopped_one_only_what_is_missing(tmp_path, scenes):
    path = tmp_path / "p.jsonl"
    with pytest.raises(RuntimeError, match="budget"):
        predict(Counting(stop_after=3), scenes, path, progress=False)
    assert [row.region_id for row in read_predictions(path)] == [1, 2, 3]
    second = Counting()
    summary = predict(second, scenes, path, progress=False)
    assert summary.made == len(second.asked) == summary.predictions - 3
    assert Counter(row.id for row in read_predictions(path)).most_common(1)[0][1] == 1
    third = Counting()
    assert predict(third, scenes, path, progress=False).made == 0 and third.asked == []


def test_what_failed_is_told_and_asked_again_only_on_request(tmp_path, scenes):
    path = tmp_path / "p.jsonl"
    summary = predict(Counting(fail=[2]), scenes, path, progress=False)
    assert set(summary.failed) == {f"{image_id}/2" for image_id in scenes.ids}
    assert not summary.complete
    assert predict(Counting(), scenes, path, progress=False).made == 0
    again = predict(Counting(), scenes, path, retry_failed=True, progress=False)
    assert again.made == 5 and again.complete
    assert {row.caption for row in read_predictions(path) if row.region_id == 2} == {"thing 2"}


def test_an_image_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    paths = write_images(tmp_path, 3)
    document = json.loads(paths[1].read_text())
    document["annotations"][0]["segmentation"]["counts"] = "!!"
    paths[1].write_text(json.dumps(document))
    out = tmp_path / "out" / "p.jsonl"
    summary = predict(Counting(), open_captioned(tmp_path), out, progress=False)
    assert list(summary.unread) == ["image_1"] and "region 1" in summary.unread["image_1"]
    assert {row.image_id for row in read_predictions(out)} == {"image_0", "image_2"}


def test_another_system_does_not_go_into_the_file(tmp_path, scenes):
    predict(build_system("oracle"), scenes, tmp_path / "p.jsonl", progress=False)
    with pytest.raises(JournalError, match="another run: system was 'oracle'"):
        predict(build_system("class-name"), scenes, tmp_path / "p.jsonl", progress=False)


def test_yardsticks_are_in_the_order_that_they_must_be(tmp_path, scenes):
    shares = {}
    for system in map(partial(build_system, seed=1), ("oracle", "class-name", "shuffled")):
        path = tmp_path / f"{system.name}.jsonl"
        predict(system, scenes, path, progress=False)
        shares[system.name] = measure_exact(read_predictions(path)).overall["unique"].value
    chance = np.mean([1 / len(image.regions) for image in scenes for _ in image.regions])
    assert shares["oracle"] == 1.0 > shares["class-name"] > 0.15
    assert shares["shuffled"] == pytest.approx(chance, abs=0.04)


def test_shuffled_captions_are_the_images_own_and_the_seeds(scenes):
    image = scenes[0]

    def say(seed):
        shuffled = build_system("shuffled", seed=seed)
        return [said.text for said in shuffled.describe(image, image.regions)]

    own = [image.captions[region.id][0] for region in image.regions]
    assert sorted(say(1)) == sorted(own) and say(1) != own
    assert say(1) == say(1) != say(2)
    part = build_system("shuffled", seed=1).describe(image, image.regions[3:5])
    assert [said.text for said in part] == say(1)[3:5]


def test_systems_made_of_references_or_names_say_what_is_missing():
    image = CaptionedImage("small", small_image(0))
    for system in map(build_system, ("oracle", "shuffled")):
        with pytest.raises(ValueError, match=f"small: .*'{system.name}' is made of"):
            system.describe(image, image.regions)
    with pytest.raises(ValueError, match="have no name"):
        build_system("class-name").describe(image, [r for r in image.regions if not r.name])


def test_regions_with_references_are_captioned_and_the_others_are_seen(tmp_path):
    class Looks(ModelFreeSystem):
        def describe(self, image, regions):
            assert image.regions == small_image(0).regions
            return super().describe(image, regions)

    write_images(tmp_path, 1)
    turns = conversation("an eye")
    row = {"id": 1, "image": "image_0.png", "mask_id": 3, "conversations": turns}
    write_jsonl(tmp_path / "data.jsonl", [row])
    data = open_captioned(tmp_path / "data.jsonl")
    summary = predict(Looks("oracle"), data, tmp_path / "P.jsonl", progress=False)
    assert summary.complete and summary.predictions == 1
    (found,) = read_predictions(tmp_path / "P.jsonl")
    assert (found.region_id, found.caption) == (3, "an eye")
    assert found.level == build_mask_tree(small_image(0)).depth(3)


def test_the_embedded_annotator_is_a_system(samples):
    image = open_captioned(samples / "photos" / "coins.json")[0]
    said = build_system("attributes").describe(image, image.regions[:4])
    assert len({one.text for one in said}) == 4 and all(one.score is None for one in said)


def test_the_model_says_what_the_captioner_says(checkpoint, scenes):
    image = scenes[0]
    regions = image.regions[:3]
    captioner = RegionCaptioner.from_pretrained(checkpoint)
    options = {"max_new_tokens": 5, "max_tiles": 1}
    expected = captioner.caption(image.pixels, regions, progress=False, **options)
    said = build_system("ureca", checkpoint, **options).describe(image, regions)
    assert [(one.text, one.score) for one in said] == [(c.text, c.score) for c in expected]
    assert len({one.score for one in said}) == 3


def test_captions_chosen_together_take_all_regions_and_survive_a_resume(samples, tmp_path):
    data = open_captioned(samples / "scenes", limit=1)
    image, model = data[0], samples / "tiny_ureca"
    captioner = RegionCaptioner.from_pretrained(model)
    expected = captioner.caption(image.pixels, image.regions, progress=False, together=True)
    system = build_system("ureca", model, together=True, beams=2)
    assert system.settings["together"] and system.settings["beams"] == 2
    assert not {"together", "beams"} & build_system("ureca", model).settings.keys()
    system = build_system("ureca", model, together=True)
    changed = [c for c in expected if c.instead_of is not None]
    (part,) = system.describe(image, [image.image[changed[0].region_id]])
    assert (part.text, part.instead_of) == (changed[0].text, changed[0].instead_of)
    predict(system, data, tmp_path / "P.jsonl", progress=False)
    rows = read_predictions(tmp_path / "P.jsonl")
    assert [row.caption for row in rows] == [caption.text for caption in expected]
    found = {row.region_id: row.extra for row in rows if row.extra}
    wanted = {c.region_id: {"instead_of": c.instead_of, "cost": c.cost} for c in changed}
    assert found == wanted


@pytest.mark.parametrize("extra", [{"together": True}, {"beams": 2}])
def test_other_systems_are_not_captioned_together(extra):
    with pytest.raises(ValueError, match="for the system ureca, not no_mask"):
        build_system("no_mask", "model", **extra)


def test_a_model_is_asked_the_questions_of_the_data_set(checkpoint, tmp_path):
    write_images(tmp_path, 1)
    questions = {3: "<image>\nWhat is it?", 4: "<image>\n<mask>Describe it.", 5: QUESTION}
    rows = [
        {"id": key, "image": "image_0.png", "mask_id": key, "conversations": turns}
        for key, question in questions.items()
        for turns in [conversation("an eye", question)]
    ]
    write_jsonl(tmp_path / "data.jsonl", rows)
    (image,) = open_captioned(tmp_path / "data.jsonl")
    plain = ["What is it?", "Describe it.", "Describe this region in the image."]
    assert image.questions == {key: [text] for key, text in zip(questions, plain, strict=True)}
    system = build_system("ureca", checkpoint, max_new_tokens=4)
    captioner = RegionCaptioner.from_pretrained(checkpoint)
    wanted = captioner.caption(image.pixels, image.targets, plain, 4, progress=False)
    predict(system, open_captioned(tmp_path / "data.jsonl"), tmp_path / "P.jsonl", progress=False)
    found = read_predictions(tmp_path / "P.jsonl")
    assert [row.caption for row in found] == [one.text for one in wanted]
    # the default is in the record; a row has its question if it is another
    assert [row.extra.get("question") for row in found] == [*plain[:2], None]
    fixed = build_system("ureca", checkpoint, question="Which?", max_new_tokens=4)
    wanted = captioner.caption(image.pixels, image.targets, "Which?", 4, progress=False)
    said = fixed.describe(image, image.targets)
    assert [one.text for one in said] == [one.text for one in wanted]
    assert {one.question for one in said} == {None}


@pytest.mark.parametrize("name", ["no_mask", "blind"])  # an earlier name
def test_captions_without_masks_do_not_depend_on_the_region(name, checkpoint, scenes):
    system = build_system(name, checkpoint, max_new_tokens=5, max_tiles=1)
    regions = scenes[0].regions[:3]
    said = system.describe(scenes[0], regions)
    assert len(said) == 3 and len(set(said)) == 1 and system.name == "no_mask"
    assert system.describe(scenes[0], regions[2:])[0] == said[0]


def test_other_weights_are_another_model(checkpoint, tmp_path):
    record = model_record(checkpoint)
    tiny_model(seed=1).save_pretrained(tmp_path)
    assert record["weights"] != model_record(tmp_path)["weights"]
    assert model_record("org/name") == {"path": "org/name"}


def test_weights_that_learnt_in_the_middle_of_a_file_are_another_model(tmp_path):
    """What training changes lies between frozen tensors, far from both ends of the file."""
    tensors = {name: torch.zeros(300_000) for name in ("a", "lora", "z")}
    save_file(tensors, tmp_path / "model.safetensors")
    before = model_record(tmp_path)["weights"]
    assert model_record(tmp_path)["weights"] == before
    save_file(tensors | {"lora": torch.ones(300_000)}, tmp_path / "model.safetensors")
    after = model_record(tmp_path)["weights"]
    (tmp_path / "config.json").write_text('{"mask_scale": 255}')
    assert len({before, after, model_record(tmp_path)["weights"]}) == 3


@pytest.mark.parametrize("kept", [4, 40, -1])
def test_weights_that_were_cut_off_are_named(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(300)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors: (not a readable|ends before)"):
        model_record(tmp_path)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_predict_and_evaluate_on_the_command_line(tmp_path, checkpoint):
    data = ("--data", "scenes:test:3", "--no-progress")
    for system in ("oracle", "class-name"):
        done = run("predict", *data, "--system", system, "--out", tmp_path / f"{system}.jsonl")
        assert done.exit_code == 0, done.output
    model = ("--model", checkpoint, "--max-new-tokens", 3, "--max-tiles", 1, "--limit", 1)
    done = run("predict", *data, *model, "--name", "Ours", "--out", tmp_path / "ours.jsonl")
    assert done.exit_code == 0 and "1 images" in done.output, done.output
    assert read_meta(tmp_path / "ours.jsonl")["system"] == "Ours"
    metrics = ("--metrics", "bleu,rouge_l", "--samples", 50)
    compared = ("--compare", tmp_path / "class-name.jsonl")
    done = run("evaluate", tmp_path / "oracle.jsonl", *metrics, *compared)
    assert done.exit_code == 0 and "unique identification: 100.00" in done.output, done.output
    scores = json.loads((tmp_path / "oracle.scores.json").read_text())
    assert scores["exact"]["overall"]["unique"]["value"] == 1.0
    assert scores["metrics"]["bleu_4"]["value"] == pytest.approx(1.0)
    difference = scores["comparison"]["differences"]["unique"]
    assert difference["apart"] and 0 < difference["difference"] < 1
    assert scores["meta"]["data"] == "scenes:test:3"


def test_python_and_the_command_score_a_file_alike(tmp_path):
    captions = {"a/1": "The man, in blue.", "a/2": "A man; running!", "b/1": "The DOG's tail"}
    rows = [{"id": i, "caption": c, "references": ["the man in blue"]} for i, c in captions.items()]
    write_jsonl(tmp_path / "p.jsonl", rows)
    done = run("evaluate", tmp_path / "p.jsonl")
    assert done.exit_code == 0, done.output
    scores = json.loads((tmp_path / "p.scores.json").read_text())
    assert scores["metrics"] == evaluate(tmp_path / "p.jsonl").to_dict()["metrics"]
    direct = score_captions(captions, dict.fromkeys(captions, "the man in blue"), ("bleu", "cider"))
    for name, score in direct.items():
        assert scores["metrics"][name]["value"] == score.value


def test_the_command_scores_tokens_as_cocos_evaluation_has_them(tmp_path):
    row = {"id": "a/1", "caption": "The man, in blue.", "references": ["the man in blue"]}
    write_jsonl(tmp_path / "p.jsonl", [row])
    for words, expected in ((), 1.0), (("--tokenizer", "whitespace"), 0.25):
        done = run("evaluate", tmp_path / "p.jsonl", "--metrics", "bleu", *words)
        assert done.exit_code == 0, done.output
        scores = json.loads((tmp_path / "p.scores.json").read_text())
        assert scores["metrics"]["bleu_1"]["value"] == pytest.approx(expected)
    refused = run("evaluate", tmp_path / "p.jsonl", "--meteor", "rust")
    assert refused.exit_code == 2 and "'nltk', 'java'" in refused.output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("predict", "--data", "nowhere", "--out", "p.jsonl", "--system", "oracle"), "nowhere"),
        (("predict", "--data", "scenes:test:1", "--out", "p.json", "--system", "oracle"), "NAME"),
        (("predict", "--data", "scenes:test:1", "--out", "p.jsonl"), "needs a --model"),
        (("predict", "--data", "scenes:test:1", "--out", "p.jsonl", "--model", "x"), "no such"),
        (("evaluate", "gone.jsonl"), "gone.jsonl"),
    ],
)
def test_what_is_wrong_is_said_on_the_command_line(tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2 and reason in done.output
    assert not list(tmp_path.glob("*.jsonl"))
