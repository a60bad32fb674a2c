"""The `ureca` command, as one types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.datasets import read_jsonl
from ureca_lib.regions import load_sa1b

PHOTOS = Path(__file__).resolve().parents[1] / "data_samples" / "photos"


def ureca(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def coins(tmp_path) -> Path:
    """A sample photo with its masks, in a folder of its own."""
    for name in ("coins.png", "coins.json"):
        shutil.copy(PHOTOS / name, tmp_path)
    return tmp_path / "coins.png"


def test_caption_uses_the_masks_beside_the_photo(coins, tmp_path):
    result = ureca("caption", coins, "--figure", tmp_path / "figure.png")
    assert result.exit_code == 0, result.output
    rows = list(read_jsonl(tmp_path / "coins.captions.jsonl"))
    regions = load_sa1b(tmp_path / "coins.json")
    assert [row["mask_id"] for row in rows] == [region.id for region in regions]
    texts = [row["conversations"][1]["value"] for row in rows]
    assert len(set(texts)) == len(texts) and all(row["unique"] for row in rows)
    assert Image.open(tmp_path / "figure.png").width > 500
    assert all(text in result.output for text in texts)


def test_a_photo_of_ones_own_is_segmented_and_captioned(tmp_path):
    photo = tmp_path / "own.png"
    shutil.copy(PHOTOS / "coffee.png", photo)
    result = ureca("caption", photo)
    assert result.exit_code == 0, result.output
    rows = list(read_jsonl(tmp_path / "own.captions.jsonl"))
    assert len(rows) >= 12
    assert len({row["conversations"][1]["value"] for row in rows}) == len(rows)


def test_segment_writes_what_caption_reads(tmp_path):
    photo = tmp_path / "own.png"
    shutil.copy(PHOTOS / "chelsea.png", photo)
    assert ureca("segment", photo).exit_code == 0
    regions = load_sa1b(tmp_path / "own.json")
    assert regions.image is not None and len(regions) >= 12
    again = ureca("segment", photo)
    assert again.exit_code == 2 and "exists" in again.output
    assert ureca("caption", photo, "-o", tmp_path / "rows.jsonl").exit_code == 0
    assert len(list(read_jsonl(tmp_path / "rows.jsonl"))) == len(regions)


def test_masks_may_be_a_folder_of_png_files(tmp_path):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "masks").mkdir()
    for number, part in enumerate((slice(0, 10), slice(20, 30))):
        mask = np.zeros((30, 40), np.uint8)
        mask[part, 5:15] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    result = ureca("caption", tmp_path / "photo.png", "--masks", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    assert len(list(read_jsonl(tmp_path / "photo.captions.jsonl"))) == 2


def test_a_bad_mask_is_named_and_can_be_left_out(coins):
    path = coins.with_suffix(".json")
    document = json.loads(path.read_text())
    document["annotations"][3]["segmentation"]["counts"] = "zz"
    bad = document["annotations"][3]["id"]
    path.write_text(json.dumps(document))
    result = ureca("caption", coins)
    assert result.exit_code == 2
    assert f"region {bad}" in result.output and "coins.json" in result.output
    assert "Traceback" not in result.output
    result = ureca("caption", coins, "--no-strict")
    assert result.exit_code == 0 and f"region {bad}" in result.output


@pytest.mark.parametrize("command", ["caption", "segment"])
def test_a_missing_photo_is_one_line_and_status_2(command, tmp_path):
    result = ureca(command, tmp_path / "nothing.jpg")
    assert result.exit_code == 2
    assert "nothing.jpg" in result.output and "Traceback" not in result.output


def test_annotate_resumes_and_status_counts(coins, tmp_path):
    store = tmp_path / "captions.sqlite"
    first = ureca("annotate", coins, "--out", store, "--no-progress")
    assert first.exit_code == 0, first.output
    assert "46 unique" in first.output
    again = ureca("annotate", coins, "--out", store, "--no-progress")
    assert "1 were done before" in again.output and "0 calls" in again.output
    assert "1 train done" in ureca("status", store).output


@pytest.mark.parametrize("words", [("status", "nowhere.sqlite"), ("run", "nowhere.ipynb")])
def test_what_is_not_there_is_an_error_with_its_name(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ureca(*words)
    assert result.exit_code == 2 and "nowhere" in result.output


def test_annotate_goes_on_past_what_cannot_be_read_and_says_why(coins, tmp_path):
    store, text = tmp_path / "captions.sqlite", tmp_path / "notes.txt"
    text.write_text("no JSON")
    result = ureca("annotate", text, coins, "--out", store, "--no-progress")
    assert result.exit_code == 1
    assert "2 images: 1 done, 1 unreadable" in result.output
    assert "failed: " in result.stderr and "notes.txt" in result.stderr
    assert "notes.txt" in ureca("status", store).output


def test_annotate_refuses_what_is_not_there_before_it_writes(coins, tmp_path):
    store = tmp_path / "captions.sqlite"
    result = ureca("annotate", tmp_path / "nowhere.json", coins, "--out", store, "--no-progress")
    assert result.exit_code == 2
    assert "nowhere.json" in result.output and "Traceback" not in result.output
    assert not store.exists()


def test_a_warning_is_one_line_without_the_place_in_the_code(coins, tmp_path):
    splits, store = tmp_path / "splits.json", tmp_path / "captions.sqlite"
    splits.write_text(json.dumps({"coins.png": "test", "other.png": "train"}))
    words = ("annotate", coins, "--out", store, "--split", splits, "--no-progress")
    command = [sys.executable, "-m", "ureca_lib.cli", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    said = "ureca: 1 of 2 entries of the list of splits are no image of this run: other.png"
    assert ended.stderr.splitlines() == [said]


def test_parameters_of_a_run_take_two_words_or_one(root, tmp_path):
    notebook = root / "notebooks" / "01_mask_tree.ipynb"
    for pair in (("-p", "threshold", "much"), ("-p", "threshold=much")):
        result = ureca("run", notebook, *pair, "-o", tmp_path)
        assert result.exit_code == 2
        assert "threshold" in result.output and "float" in result.output
    missing = ureca("run", notebook, "-p", "threshold")
    assert missing.exit_code == 2 and "no value" in missing.output
    assert not list(tmp_path.iterdir())
