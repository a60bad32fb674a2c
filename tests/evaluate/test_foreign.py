"""Captions of other programs become a predictions file, and no id is dropped in silence."""

from __future__ import annotations

import json

import pytest
from fake_annotators import small_image, write_images
from typer.testing import CliRunner

from ureca_lib.annotate.export import conversation, write_jsonl
from ureca_lib.cli import app
from ureca_lib.datasets import open_captioned
from ureca_lib.evaluate.evaluation import evaluate
from ureca_lib.evaluate.predictions import read_meta, read_predictions


@pytest.fixture
def data(tmp_path):
    """Two photos: two captioned regions of the first, one of the second."""
    write_images(tmp_path / "sa1b", 2)
    rows = [
        {"id": number, "image": f"image_{image}.png", "mask_id": region}
        | {"conversations": conversation(text)}
        for number, (image, region, text) in enumerate(
            [(0, 1, "a face"), (0, "six", "an ear"), (1, 3, "an eye")]
        )
    ]
    write_jsonl(tmp_path / "test.jsonl", rows)
    return f"{tmp_path / 'test.jsonl'}@{tmp_path / 'sa1b'}"


def convert(folder, content, data, *options):
    (folder / "dam.json").write_text(json.dumps(content))
    out = folder / "P.jsonl"
    out.unlink(missing_ok=True)
    arguments = [str(folder / "dam.json"), "--data", data, "-o", str(out), *options]
    return CliRunner().invoke(app, ["convert-predictions", *arguments]), out


def said(out):
    return {row.id: row.caption for row in read_predictions(out)}


WHOLE = {"image_0/1": "a face", "image_0/six": "a mouth", "image_1/3": "an eye"}
FORMS = [
    {"1": "a face", "six": "a mouth", "3": "an eye", "query": "<image>\nDescribe it."},
    {"image_0/1": "a face", "image_0_six": "a mouth", "image_1": "an eye"},
    [
        {"annotation_id": 1, "image_id": "image_0", "caption": "a face"},
        {"ann_id": "six", "caption": "a mouth"},
        {"image_id": "image_1", "caption": "an eye", "id": 7},
    ],
    [
        {"id": "image_0/1", "caption": "a face"},
        {"id": "image_0/six", "caption": "a mouth"},
        {"image": "images/image_1.png", "mask_rles": [], "model_output": "an eye"},
    ],
]


@pytest.mark.parametrize("content", FORMS)
def test_every_form_becomes_the_same_predictions(tmp_path, data, content):
    result, out = convert(tmp_path, content, data, "--trained-on", "their own")
    assert result.exit_code == 0 and "3 captions of 2 images" in result.output, result.output
    assert said(out) == WHOLE
    rows = {row.id: row for row in read_predictions(out)}
    assert rows["image_0/six"].references == ("an ear",) and rows["image_0/1"].system == "dam"
    assert rows["image_0/1"].area == small_image(0).regions[0].area
    meta = read_meta(out)
    assert (meta["system"], meta["trained_on"], meta["data"]) == ("dam", "their own", data)
    assert ("prompt" in meta["settings"]) == ("query" in content)
    score = evaluate(out, None, ("rouge_l",)).metrics["rouge_l"]
    assert 0.6 < score.value < 100 and score.count == 3


def test_ids_that_match_nothing_and_regions_without_a_caption_are_named(tmp_path, data):
    content = {"1": "a face", "99": "a hat", "image_7/1": "a dog"}
    result, out = convert(tmp_path, content, data, "--name", "DAM")
    assert result.exit_code == 1
    assert "no region of" in result.output and "2: 99, image_7/1" in result.output
    assert "no caption in the file: 2: image_0/six, image_1/3" in result.output
    found = {row.id: row for row in read_predictions(out)}
    assert found["image_0/1"].caption == "a face" and found["image_1/3"].caption == ""
    assert "dam.json has no caption of it" in found["image_1/3"].error
    # regions without a caption count
    assert evaluate(out, None, ("rouge_l",)).metrics["rouge_l"].count == 3


def test_what_is_ambiguous_or_of_another_form_is_refused(tmp_path, data):
    for content, reason in (
        ({"1": "a face", "image_0/1": "a face"}, "image_0/1 has two captions"),
        ({"1": 5}, "id 1: a caption is a text, not 5"),
        ([{"caption": "a face"}], "row 0 has no annotation_id"),
        (["a face"], "a list of objects"),
        ({"9": "a hat"}, "none of its ids is a region of"),
        ([{"annotation_id": 9, "image_id": "image_1", "caption": "x"}], "none of its ids"),
        ([{"image_id": "image_0", "caption": "x"}], "none of its ids"),  # two regions
    ):
        result, out = convert(tmp_path, content, data)
        assert result.exit_code == 2 and reason in result.output, result.output
        assert not out.exists()
    write_images(tmp_path / "both", 2)  # the same ids in two images
    result, _ = convert(tmp_path, {"1": "a face"}, str(tmp_path / "both"))
    assert result.exit_code == 2 and "may mean image_0/1, image_1/1" in result.output
    assert len(open_captioned(tmp_path / "both")) == 2


def test_reading_another_tool_s_file_names_the_command_that_converts_it(tmp_path):
    file = tmp_path / "dam.json"
    file.write_text(json.dumps({"1": "a dog", "2": "a cat"}))
    with pytest.raises(ValueError, match="convert-predictions"):
        read_predictions(file)
