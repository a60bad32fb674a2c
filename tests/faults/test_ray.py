"""Sweeps, predictions and listeners on a Ray cluster of two workers on this machine.

Workers and drivers are killed in the middle; the files equal those of a single process.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from faults.test_shards import until, workers
from lesson_notebook import times_run, write_lesson, write_sweep
from small_ray import small_ray
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.engine import EngineOptions
from ureca_lib.evaluate.predictions import read_meta
from ureca_lib.runs import load_sweep, run_sweep, summarize_sweep

SCENES = "scenes:test:24"


def ureca(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    """Predictions of a single process, and beside them what a listener makes of them."""
    path = tmp_path_factory.mktemp("single") / "P.jsonl"
    done = ureca(*predicting(path), "--no-progress")
    assert done.exit_code == 0, done.output
    heard = ureca(*listening(path), "--no-progress")
    assert heard.exit_code == 0, heard.output
    return path


@pytest.fixture(scope="module")
def ray_address():
    with small_ray() as address:
        yield address


def predicting(out: Path) -> tuple[object, ...]:
    return ("predict", "--data", SCENES, "--system", "shuffled", "--seed", 3, "--out", out)


def listening(predictions: Path) -> tuple[object, ...]:
    return ("uniqueness", predictions, "--samples", 10)


def on_ray(address: str) -> tuple[object, ...]:
    return ("--shards", 2, "--engine", "ray", "--ray-address", address)


def parts(path: Path) -> list[int]:
    """Sizes of the files of parts that have rows."""
    sizes = [part.stat().st_size for part in path.with_suffix(".parts").glob("*.jsonl")]
    return [size for size in sizes if size]


def until_all(path: Path) -> None:
    until(lambda: len(parts(path)) == 2)


def kill_one_in_the_middle(words: tuple[object, ...], path: Path):
    """Run a command, kill a worker as soon as all have begun; gives the result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(ureca(*words)))
    thread.start()
    until_all(path)
    workers()[0].kill()
    thread.join()
    return results[0]


def test_predictions_and_listener_scores_equal_those_of_a_single_process(
    single, ray_address, tmp_path
):
    path = tmp_path / "P.jsonl"
    done = kill_one_in_the_middle((*predicting(path), *on_ray(ray_address)), path)
    assert done.exit_code == 0, done.output
    assert path.read_bytes() == single.read_bytes()
    meta, expected = read_meta(path), read_meta(single)
    same = ("system", "settings", "data", "images", "predictions", "failed", "unread")
    assert {n: meta[n] for n in same} == {n: expected[n] for n in same}
    heard = path.with_name("P.heard.exact.jsonl")
    scored = kill_one_in_the_middle((*listening(path), *on_ray(ray_address)), heard)
    assert scored.exit_code == 0, scored.output
    assert heard.read_bytes() == single.with_name(heard.name).read_bytes()
    names = {file.name for file in tmp_path.iterdir() if not file.name.startswith(".")}
    assert names == {file.name for file in single.parent.iterdir() if file.name[0] != "."}


def test_a_driver_that_is_killed_is_started_again_with_another_number_of_shards(single, tmp_path):
    path = tmp_path / "P.jsonl"
    words = [str(word) for word in predicting(path)]
    driver = subprocess.Popen(
        [sys.executable, "-m", "ureca_lib.cli", *words, "--shards", "2", "--jobs", "2"],
        stderr=subprocess.DEVNULL,
    )
    until_all(path)
    tasks = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(tasks, timeout=60)
    assert not path.exists()
    done = ureca(*words, "--shards", 3, "--jobs", 2)
    assert done.exit_code == 0, done.output
    assert path.read_bytes() == single.read_bytes()
    assert read_meta(path)["made_in_last_run"] < read_meta(path)["predictions"]
    again = ureca(*words, "--shards", 2, "--jobs", 2)
    assert again.exit_code == 0 and again.stderr.count("(0 new)") == 2


def test_shards_of_another_run_are_not_mixed_into_a_file(single, tmp_path):
    path = tmp_path / "P.jsonl"
    path.write_bytes(single.read_bytes())
    path.with_name("P.meta.json").write_bytes(single.with_name("P.meta.json").read_bytes())
    words = [*predicting(path), "--shards", 2, "--jobs", 2]
    words[words.index("shuffled")] = "oracle"
    refused = ureca(*words)
    assert refused.exit_code == 1 and refused.stderr.count("the file is of another run") == 2
    words[words.index(path)] = tmp_path / "P.json"
    assert ureca(*words).exit_code == 2
    assert path.read_bytes() == single.read_bytes()


def test_a_sweep_equals_one_of_a_single_process(ray_address, tmp_path):
    write_lesson(tmp_path)
    sweep = load_sweep(write_sweep(tmp_path, grid={"factor": [1, 2]}, seeds=[0, 1]))
    run_sweep(sweep, tmp_path / "single", progress=False)
    root, results = tmp_path / "out", []
    (root / "runs").mkdir(parents=True)
    (root / "runs" / "wait").touch()
    engine = EngineOptions(engine="ray", ray_address=ray_address)
    thread = threading.Thread(
        target=lambda: results.append(run_sweep(sweep, root, None, engine=engine, progress=False))
    )
    thread.start()
    until(lambda: len(times_run(root)) == 2)
    worker = workers()[0]
    kernels = worker.children(recursive=True)
    worker.kill()
    gone, alive = psutil.wait_procs(kernels, timeout=60)
    assert gone and not alive
    (root / "runs" / "wait").unlink()
    thread.join()
    assert sorted(results[0].done) == sorted(run.name for run in sweep.runs)
    assert sorted(times_run(root).values()) == [1, 1, 1, 2]
    made, expected = (summarize_sweep(sweep, at) for at in (root, tmp_path / "single"))
    assert made.settings == expected.settings


def test_an_address_where_nothing_answers_is_refused_at_once(tmp_path):
    begun = time.monotonic()
    result = ureca(*predicting(tmp_path / "P.jsonl"), *on_ray("127.0.0.1:9"))
    assert result.exit_code == 2 and "127.0.0.1:9: no Ray cluster answers" in result.stderr
    assert time.monotonic() - begun < 60  # Ray itself tries for more than two minutes
