"""The `ureca` command, as one types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ureca_lib
from ureca_lib.cli import app

PHOTOS = Path(__file__).resolve().parents[1] / "data_samples" / "photos"


def ureca(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def coins(tmp_path) -> Path:
    """A sample photo with its masks, in a folder of its own."""
    for name in ("coins.png", "coins.json"):
        shutil.copy(PHOTOS / name, tmp_path)
    return tmp_path / "coins.png"


def test_the_version_is_the_packages():
    result = ureca("--version")
    assert result.exit_code == 0 and result.output.split() == ["ureca", ureca_lib.__version__]


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
