"""Two processes on the CPU (gloo) learn what one does, by `accelerate launch` and resumed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import CONTEXT
from safetensors.torch import load_file
from tiny_runs import SMALL, free_port, small, train_as_told, write_base

from ureca_lib.train.loop import train_stage


def launch(words: list[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", "2", "--mixed_precision", "no"]
    command += ["--main_process_port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "ureca_lib.cli", "train", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def run_two(settings: Path, out: Path) -> None:
    """As the launcher does it, without its start-up time."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"OMP_NUM_THREADS": "1"}  # unset, accelerate takes two, which round otherwise
    children = []
    for rank in range(2):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        children.append(
            CONTEXT.Process(target=train_as_told, args=(str(settings), str(out), environment))
        )
        children[-1].start()
    for child in children:
        child.join(600)
    assert [child.exitcode for child in children] == [0, 0]


@pytest.fixture(scope="module")
def changes():
    return {"eval_images": 2, "limit": 4, "regions_per_image": 2}


@pytest.fixture(scope="module")
def launched(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("two")
    base = write_base(folder / "base")
    words = ["--model", str(base), "--out", str(folder / "run"), "--device", "cpu"]
    for name, value in (SMALL | changes).items():
        plain = str(value).lower() if isinstance(value, bool) else str(value)
        words += ["--set", f"{name}={plain}"]
    done = launch([*words, "--no-progress"])
    assert done.returncode == 0, done.stderr
    return base, folder / "run"


def test_two_processes_learn_what_one_does(launched, changes, tmp_path):
    base, out = launched
    alone = train_stage(small(base, **changes), tmp_path / "alone", progress=False)
    one = load_file(f"{alone.folder}/trained.safetensors")
    two = load_file(out / "trained.safetensors")
    start = load_file(base / "model.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(two[name], start[name], atol=1e-4)
    result = json.loads((out / "result.json").read_text())
    assert result["final"]["regions"] == alone.final["regions"] == 4
    assert abs(result["final"]["loss"] - alone.final["loss"]) < 1e-3


def test_two_processes_resume_to_the_bit(launched, tmp_path):
    _, whole = launched
    assert {p.name for p in (whole / "checkpoint-6").glob("random_*")} == {
        "random_0.safetensors",
        "random_1.safetensors",
    }
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoint-6")
    shutil.rmtree(out / "model")
    for name in ("result.json", "trained.safetensors"):
        (out / name).unlink()
    run_two(out / "settings.json", out)
    one, other = (load_file(folder / "trained.safetensors") for folder in (whole, out))
    assert all(torch.equal(one[name], other[name]) for name in one)
