"""A sweep, or a worker of it, that is killed or stopped goes on where it was.

The lesson waits as long as a file `wait` lies beside the runs, so that each is caught in the act.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from lesson_notebook import times_run, write_lesson, write_sweep

from ureca_lib.runs import RunRecord, load_sweep, read_summary
from ureca_lib.runs.sweep import is_running

PATIENCE = 600.0  # seconds; only what hangs waits as long, also where others use the machine


@pytest.fixture
def sweep(tmp_path):
    write_lesson(tmp_path)
    return load_sweep(write_sweep(tmp_path, grid={"factor": [1, 2]}))


@pytest.fixture
def start(sweep, tmp_path):
    """Starts the sweep as a process; those that still run are killed when the test is over."""
    started = []

    def begin(*options: str) -> subprocess.Popen:
        words = ["sweep", str(sweep.path), "--out", str(tmp_path / "out"), "--keep", *options]
        # as from a terminal: a shell's background job starts with interrupts ignored
        code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        code += f"from ureca_lib.cli import app; app({words!r})"
        command = [sys.executable, "-c", code]
        path = {"PYTHONPATH": str(Path(__file__).parents[2])}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env={**os.environ, **path}, **pipes))
        return started[-1]

    yield begin
    for child in started:
        child.kill()
        child.wait()
        child.stderr.close()


def until(condition, child: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        assert child is None or child.poll() is None, child.stderr.read()
        time.sleep(0.02)


def hold(root: Path) -> Path:
    (root / "runs").mkdir(parents=True)
    (root / "runs" / "wait").touch()
    return root / "runs" / "wait"


def families(child: subprocess.Popen) -> tuple[psutil.Process, list[psutil.Process]]:
    """The worker of a sweep, and the kernel below it."""
    (worker,) = psutil.Process(child.pid).children()
    return worker, worker.children(recursive=True)


def assert_done(sweep, root: Path, begun: list[int]) -> None:
    summary = read_summary(root / sweep.name)
    assert [run.status for run in summary.runs] == ["done", "done"]
    assert [s.measures["product"].mean for s in summary.settings] == [10, 20]
    assert [times_run(root)[run.name] for run in sweep.runs] == begun


def test_a_killed_sweep_leaves_no_process_and_goes_on(sweep, start, tmp_path):
    root = tmp_path / "out"
    wait = hold(root)
    child = start()
    until(lambda: len(times_run(root)) == 1, child)
    worker, kernels = families(child)
    child.kill()
    child.communicate()
    gone, alive = psutil.wait_procs([worker, *kernels], timeout=30)
    assert len(gone) >= 2 and not alive
    record = RunRecord.load(root / "runs" / sweep.runs[0].name)
    assert (record.status, record.error["name"]) == ("failed", "Interrupted")
    wait.unlink()
    child = start()
    _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, errors
    assert_done(sweep, root, begun=[2, 1])


def test_a_killed_worker_fails_one_run_and_frees_its_lock(sweep, start, tmp_path):
    root = tmp_path / "out"
    wait = hold(root)
    child = start()
    until(lambda: len(times_run(root)) == 1, child)
    worker, kernels = families(child)
    assert is_running(root, sweep.runs[0].name)
    worker.kill()
    _, alive = psutil.wait_procs(kernels, timeout=30)
    assert kernels and not alive
    wait.unlink()
    _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1 and "WorkerDied: killed by signal 9" in errors
    assert [run.status for run in read_summary(root / "trial").runs] == ["failed", "done"]
    assert not is_running(root, sweep.runs[0].name)
    child = start()
    _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, errors
    assert_done(sweep, root, begun=[2, 1])


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_ends_cleanly_with_a_summary(start, tmp_path, way):
    root = tmp_path / "out"
    hold(root)
    child = start("--jobs", "2")
    until(lambda: len(times_run(root)) == 2, child)
    processes = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(way)
    _, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130 and "rerun the command to resume" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive
    content = json.loads((root / "trial" / "summary.json").read_text())
    assert [run["status"] for run in content["runs"]] == ["stopped", "stopped"]
    assert content["settings"][0]["measures"] == {}
