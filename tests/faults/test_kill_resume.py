"""A run that is killed again and again ends as one that was left alone.

The child is killed with SIGKILL at points drawn at random over its work: after a number of calls
and some milliseconds, so that it dies while it opens the store, asks, commits or finishes an image.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from fake_annotators import write_images
from faults.annotate_child import main
from forked import CONTEXT

from ureca_lib.annotate.store import Store

IN_FLIGHT = 4
KILLS = 20
IMAGES = 6
LATENCY = 0.004


def start(folder: Path, store: Path, log: Path) -> BaseProcess:
    child = CONTEXT.Process(target=main, args=(folder, store, log, LATENCY))
    child.start()
    return child


def calls(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def contents(path: Path) -> dict:
    """All that the data set is made of."""
    with Store(path, create=False) as store:
        assert store.rows("PRAGMA integrity_check") == [("ok",)]
        return {
            row.image: (
                row,
                {step: replace(a, seconds=0.0) for step, a in store.answers(row.image).items()},
                store.captions(row.image),
            )
            for row in store.images()
        }


def finish(child: BaseProcess) -> None:
    child.join(60)
    assert child.exitcode == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", IMAGES, side=24)
    return tmp_path / "photos"


@pytest.fixture
def expected(folder: Path, tmp_path: Path) -> tuple[dict, int]:
    """What a run that nobody disturbs ends with, and the calls it takes."""
    finish(start(folder, tmp_path / "expected.db", tmp_path / "expected.log"))
    return contents(tmp_path / "expected.db"), calls(tmp_path / "expected.log")


def test_killed_at_twenty_points_it_ends_the_same(folder, tmp_path, expected):
    whole, needed = expected
    states = {caption.state for _, _, captions in whole.values() for caption in captions}
    rounds = {step.round for _, answers, _ in whole.values() for step in answers}
    assert states == {"unique", "unresolved"} and rounds == {0, 1, 2, 3}
    assert {row.split for row, *_ in whole.values()} == {"train", "test"}
    chance, store, log = random.Random(20), tmp_path / "s.db", tmp_path / "calls.log"
    points = sorted(chance.randrange(needed) for _ in range(KILLS))
    kills = 0
    for point in points:
        child = start(folder, store, log)
        while calls(log) < point and child.is_alive():
            time.sleep(0.0005)
        time.sleep(chance.random() * 0.02)
        if child.is_alive():
            child.kill()
            kills += 1
        child.join(60)
    assert kills >= KILLS - 2
    finish(start(folder, store, log))
    assert contents(store) == whole
    assert needed <= calls(log) <= needed + kills * IN_FLIGHT


def test_two_processes_and_a_kill_share_one_store(folder, tmp_path, expected):
    whole, needed = expected
    store, logs = tmp_path / "s.db", [tmp_path / f"{name}.log" for name in "abc"]
    first, second = start(folder, store, logs[0]), start(folder, store, logs[1])
    while calls(logs[0]) < needed // 4 and first.is_alive():
        time.sleep(0.001)
    first.kill()
    first.join(60)
    finish(second)
    finish(start(folder, store, logs[2]))
    assert contents(store) == whole
    assert needed <= sum(map(calls, logs)) <= needed + IN_FLIGHT
