"""Where models run: CUDA where there is one, and torch only where a model is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ureca_lib.devices import chosen_device


def test_cuda_is_taken_where_it_is_there_and_refused_where_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [chosen_device(asked) for asked in (None, "cpu", "cuda:1")] == ["cuda", "cpu", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [chosen_device(asked) for asked in (None, "cpu", "mps")] == ["cpu", "cpu", "mps"]
    with pytest.raises(ValueError, match=r"cuda:1: torch finds no CUDA device here"):
        chosen_device("cuda:1")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["evaluate", "p.jsonl", "--metrics", "none", "--out", "s.json"], 0),
        # without a judge nothing is scored
        (["clair", "p.jsonl", "--judge", "none", "--log", "log.jsonl", "--out", "c.json"], 1),
    ],
)
def test_a_command_without_a_model_does_without_torch(tmp_path, words, status):
    line = '{"id": "a/1", "caption": "a door", "references": ["a door"]}'
    (tmp_path / "p.jsonl").write_text(line + "\n")
    (tmp_path / "log.jsonl").write_text("")
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom ureca_lib.cli import app\n"
        f"done = CliRunner().invoke(app, {words!r})\n"
        "print(done.output)\nassert 'torch' not in sys.modules\n"
        f"assert done.exit_code == {status}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
