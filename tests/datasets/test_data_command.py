"""`ureca data`: lists of data sets, and folders that are checked."""

from __future__ import annotations

import json
import shutil

import pytest
from fake_annotators import write_images
from typer.testing import CliRunner

from ureca_lib.annotate.export import conversation, write_jsonl
from ureca_lib.cli import app


def check(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_the_list_names_every_source_and_layout():
    result = check()
    assert result.exit_code == 0
    for text in (
        "https://ai.meta.com/datasets/segment-anything",
        "https://github.com/cvlab-kaist/URECA",
        "https://github.com/lichengunc/refer",
        "https://homes.cs.washington.edu/~ranjay/visualgenome",
        "https://huggingface.co/OpenGVLab",
        "https://huggingface.co/datasets/nvidia/DLC-Bench",
        "https://huggingface.co/datasets/JierunChen/Ref-L4",
        "https://github.com/Haochen-Wang409/Grasp-Any-Region",
        "refs(unc).p",
        "refs(umd).p",
        "region_descriptions.json",
    ):
        assert text in result.output


def test_sample_folders_are_counted(samples):
    found = check(samples / "refcocog")
    assert found.exit_code == 0, found.output
    assert "refcocog:umd:val:" in found.output and "refcocog:google:train:" in found.output
    assert "images, 17 regions" in found.output and "0 photos missing" in found.output
    assert "refcocog:umd:val:" in found.output and "CaptionedImage(1, 6 regions" in found.output
    found = check(samples / "visual_genome")
    assert found.exit_code == 0 and "visual_genome:test:" in found.output
    assert "3 images, 22 regions, 22 captions, 0 photos missing; the first:" in found.output
    assert "2 entries left out, such as" in found.output
    found = check(samples / "visual_genome" / "annotations")
    assert found.exit_code == 0 and "visual_genome:test:" in found.output
    found = check(samples / "photos")
    assert "masks of 5 images, 0 photos missing; the first: Captioned" in found.output
    found = check(samples / "scenes")
    assert found.exit_code == 0 and "masks of" in found.output
    assert check("scenes:test:5").output.startswith("scenes:test:5: 5 images; the first: Captioned")
    assert check(samples / "tiny_ureca").exit_code == 0


def test_published_files_say_whether_their_masks_are_there(tmp_path):
    write_images(tmp_path / "sa1b", 1)
    turns = conversation("an eye")
    rows = [
        {"id": n, "image": f"image_{n}.png", "mask_id": 3, "conversations": turns} for n in (0, 1)
    ]
    write_jsonl(tmp_path / "captions" / "train.jsonl", rows)
    found = check(tmp_path / "captions")
    assert found.exit_code == 1 and "no images; 2 entries left out, such as" in found.output
    assert "train.jsonl@FOLDER" in found.output and "nothing that can be read" in found.output
    found = check(f"{tmp_path}/captions/train.jsonl@{tmp_path}/sa1b")
    assert found.exit_code == 0
    assert "published layout, 1 images, 1 captions; the first:" in found.output
    assert "1 entries left out" in found.output
    assert "there is no image_1.json" in found.output


@pytest.mark.parametrize(
    ("lost", "message", "code"),
    [
        (["instances.json"], "instances.json: the annotation file does not exist", 1),
        (["refs(google).p", "refs(umd).p"], "refs(umd).p: the file does not exist", 1),
        (["refs(google).p"], "refcocog:umd:val", 0),
    ],
)
def test_files_that_are_missing_are_named(samples, tmp_path, lost, message, code):
    shutil.copytree(samples / "refcocog", tmp_path / "refcocog")
    for name in lost:
        (tmp_path / "refcocog" / name).unlink()
    found = check(tmp_path / "refcocog")
    assert found.exit_code == code and message in found.output
    assert code or ("photos missing" in found.output and "0 photos missing" not in found.output)


def test_weights_are_complete_or_say_what_is_missing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl_chat"}))
    found = check(tmp_path)
    assert found.exit_code == 1
    assert "weights: " in found.output and "no model.safetensors and no" in found.output
    (tmp_path / "model.safetensors").write_text("")
    assert "internvl_chat weights, 1 files, missing a tokenizer" in check(tmp_path).output
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("model-1.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("")
    assert "names files that are not here: model-2.safetensors" in check(tmp_path).output
    (tmp_path / "model-2.safetensors").write_text("")
    found = check(tmp_path)
    assert found.exit_code == 0 and "complete" in found.output
    (tmp_path / "config.json").write_text("[")
    assert check(tmp_path).exit_code == 1


def test_folders_with_nothing_and_no_folder(tmp_path):
    found = check(tmp_path)
    assert found.exit_code == 1 and "nothing that can be read" in found.output
    assert check(tmp_path / "none").exit_code == 2
    (tmp_path / "a.json").write_text("{")
    found = check(tmp_path)
    assert found.exit_code == 1 and "a.json: the file is truncated" in found.output
