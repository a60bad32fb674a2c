"""Training that is killed and resumed ends, bit for bit, as training that was left alone.

    URECA_KILLS=10 python -m pytest tests/faults/test_train_kill.py

kills each run at ten random moments instead of two.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import asdict
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from forked import CONTEXT
from safetensors.torch import load_file
from tiny_runs import small, train_as_told, write_base

from ureca_lib.train.run_folder import read_log

CHANCE = random.Random(8)
KILLS = int(os.environ.get("URECA_KILLS", "2"))
STEPS = max(12, 3 * KILLS)


def start(settings: Path, out: Path) -> BaseProcess:
    child = CONTEXT.Process(target=train_as_told, args=(str(settings), str(out), {}))
    child.start()
    return child


def finish(child: BaseProcess) -> None:
    child.join(300)
    assert child.exitcode == 0


def kill_after(child: BaseProcess, out: Path, steps: int, delay: float) -> bool:
    """Kill once the log has a step, and a little later, so in the midst of something."""
    while child.is_alive() and not any(row["step"] >= steps for row in read_log(out)):
        time.sleep(0.002)
    time.sleep(delay)
    killed = child.is_alive()
    child.kill()
    child.join(60)
    return killed


def losses(out: Path) -> list[tuple]:
    return [(row["step"], row.get("loss"), row.get("eval_loss")) for row in read_log(out)]


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (1, {"steps": STEPS, "save_every": 2}),
        # dropout, resizing and accumulation draw and count on the way; bfloat16 where there is any
        (
            2,
            {"steps": STEPS, "regions_per_image": 1, "micro_batch": 1, "lora_dropout": 0.3}
            | {"resize_share": 0.5, "save_every": 3, "keep": "last", "precision": "mixed"},
        ),
    ],
)
def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path, stage, changes):
    settings = small(write_base(tmp_path / "base"), stage, **changes)
    told = tmp_path / "settings.json"
    told.write_text(json.dumps(asdict(settings)))
    whole, out = tmp_path / "whole", tmp_path / "killed"
    finish(start(told, whole))
    moments = sorted(CHANCE.sample(range(1, STEPS - 2), KILLS))  # steps
    killed = [kill_after(start(told, out), out, at, CHANCE.random() * 0.02) for at in moments]
    assert sum(killed) == KILLS
    assert not (out / "result.json").exists()
    finish(start(told, out))
    one, other = (load_file(folder / "trained.safetensors") for folder in (whole, out))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert losses(out) == losses(whole)
    last = f"checkpoint-{settings.steps}"
    moments = [load_file(folder / last / "optimizer.safetensors") for folder in (whole, out)]
    assert all(torch.equal(moments[0][name], moments[1][name]) for name in moments[0])
    assert any(value.any() for name, value in moments[0].items() if name.endswith("exp_avg_sq"))
