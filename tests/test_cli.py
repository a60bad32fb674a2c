"""The `ureca` command, as one types it."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import ureca_lib
from ureca_lib.cli import app
from ureca_lib.runs import RunFailedError, RunRecord

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


def test_every_command_is_found_and_has_help():
    shown = ureca("--help").output
    group = typer.main.get_command(app)
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        assert command.name == name and re.search(rf"^  {name} +\w", shown, re.M)
        assert ureca(name, "--help").exit_code == 0
        # an output is written to --out everywhere, and --output is read as well
        assert not any("--output" in parameter.opts for parameter in command.params)


def test_help_is_grouped_and_quick():
    """Nothing heavy is imported for it; half a second of processor time is plenty."""
    code = "import sys; from ureca_lib.cli import app\ntry: app(['--help'])\nfinally: "
    code += "sys.stderr.write(str('numpy' in sys.modules))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.5
    assert ended.returncode == 0 and ended.stderr == "False"
    heads = re.findall(r"^(\w[\w ]*):$", ended.stdout, re.M)
    assert heads[1:] == ["Caption", "Data set", "Train", "Evaluate", "Notebooks"]


@pytest.fixture
def broken(monkeypatch):
    """A command that fails with an error given to it."""

    def fail_with(error):
        def status(store: str) -> None:
            raise error

        monkeypatch.setattr("ureca_lib.cli.annotate.status", status)
        return ureca("status", "x"), ureca("--debug", "status", "x")

    return fail_with


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("x.json: region 3:\nno mask"), "ureca: x.json: region 3: no mask"),
        (OSError(28, "No space left"), "ureca: [Errno 28] No space left"),
        (ValueError("a\x1b[31mb\u202ec"), "ureca: a\ufffd[31mb\ufffdc"),
        (RunFailedError(RunRecord("n", "", {}, "failed", "n"), Path()), "ureca: n failed"),
        (KeyError("a"), "ureca: KeyError: 'a' (ureca --debug shows the traceback)"),
        (AssertionError(), "ureca: AssertionError:  (ureca --debug shows the traceback)"),
    ],
)
def test_an_error_is_one_line_and_status_2(broken, error, line):
    plain, debug = broken(error)
    assert plain.exit_code == 2
    assert plain.stderr.startswith(line) and plain.stderr.count("\n") == 1
    assert debug.exception is error


def test_control_characters_are_not_echoed(monkeypatch):
    def status(store: str) -> None:
        typer.echo(f"{store}\tred\x1b[31m\rgone\u202e\nnext")

    monkeypatch.setattr("ureca_lib.cli.annotate.status", status)
    assert ureca("status", "x").output == "x\tred\ufffd[31m\ufffdgone\ufffd\nnext\n"


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
        for option in ("-o", "--out", "--output"):
            result = ureca("run", notebook, *pair, option, tmp_path)
        assert result.exit_code == 2
        assert "threshold" in result.output and "float" in result.output
    missing = ureca("run", notebook, "-p", "threshold")
    assert missing.exit_code == 2 and "no value" in missing.output
    assert not list(tmp_path.iterdir())
