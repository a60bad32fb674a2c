"""Runs that several sweeps share, that other processes hold, or whose worker dies."""

from __future__ import annotations

import threading
import time

import pytest
from lesson_notebook import times_run, write_lesson, write_sweep
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.runs import RunRecord, load_sweep, run_sweep, summarize_sweep
from ureca_lib.runs.sweep import is_running, run_lock


def test_a_changed_notebook_runs_again_unless_it_is_kept(tmp_path):
    write_lesson(tmp_path)
    path, root = write_sweep(tmp_path), tmp_path / "out"
    sweep = load_sweep(path)
    assert run_sweep(sweep, root, progress=False).done == [sweep.runs[0].name]
    plan = ["sweep", str(path), "--out", str(root), "--dry-run"]
    assert "trial: done: defaults" in CliRunner().invoke(app, plan).stdout
    write_lesson(tmp_path, "1  # nothing is measured any more")
    assert "trial: to run: defaults" in CliRunner().invoke(app, plan).stdout
    assert run_sweep(sweep, root, keep=True, progress=False).kept == [sweep.runs[0].name]


def test_a_record_alone_is_enough_where_it_is_kept(tmp_path):
    write_lesson(tmp_path)
    sweep, root = load_sweep(write_sweep(tmp_path)), tmp_path / "out"
    (name,) = run_sweep(sweep, root, progress=False).done
    (root / "runs" / name / "lesson.ipynb").unlink()
    assert run_sweep(sweep, root, keep=True, progress=False).kept == [name]
    assert run_sweep(sweep, root, progress=False).done == [name]


def test_two_sweeps_at_once_share_the_runs(tmp_path):
    write_lesson(tmp_path)
    sweep = load_sweep(write_sweep(tmp_path, grid={"factor": [1, 2]}))
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                run_sweep(sweep, tmp_path / "out", keep=True, progress=False)
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(run.name for run in sweep.runs)
    assert times_run(tmp_path / "out") == dict.fromkeys(names, 1)
    assert sorted(results[0].done + results[1].done) == names
    assert all(sorted(result.done + result.kept) == names for result in results)


def test_a_run_of_another_process_is_waited_for(tmp_path):
    write_lesson(tmp_path)
    sweep, root, results = load_sweep(write_sweep(tmp_path)), tmp_path / "out", []
    name = sweep.runs[0].name
    lock = run_lock(root, name)
    lock.acquire()
    assert is_running(root, name)
    thread = threading.Thread(target=lambda: results.append(run_sweep(sweep, root, progress=False)))
    thread.start()
    time.sleep(0.5)
    record = RunRecord("lesson.ipynb", "key", {}, "done", "lesson.ipynb", started="just now")
    (root / "runs" / name).mkdir(parents=True)
    record.save(root / "runs" / name)
    assert thread.is_alive()
    lock.release()
    thread.join()
    assert results[0].kept == [name] and not times_run(root)


def begin(sweep, root, results):
    thread = threading.Thread(
        target=lambda: results.append(run_sweep(sweep, root, keep=True, progress=False))
    )
    thread.start()
    return thread


def until_begun(root, name):
    deadline = time.monotonic() + 120
    while name not in times_run(root) and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_run_that_fails_in_another_sweep_is_not_run_again_by_one_that_saw_it_run(tmp_path):
    write_lesson(tmp_path)
    sweep = load_sweep(write_sweep(tmp_path, grid={"factor": [13]}, seeds=[4]))
    root, name, results = tmp_path / "out", sweep.runs[0].name, []
    (root / "runs").mkdir(parents=True)
    (root / "runs" / "wait").touch()
    first = begin(sweep, root, results)
    until_begun(root, name)
    second = begin(sweep, root, results)
    time.sleep(0.5)
    (root / "runs" / "wait").unlink()
    first.join()
    second.join()
    assert [result.failed for result in results] == [[name], [name]]
    assert times_run(root) == {name: 1}


def test_a_run_that_failed_meanwhile_is_not_run_again_but_by_a_later_sweep(tmp_path):
    write_lesson(tmp_path)
    sweep = load_sweep(write_sweep(tmp_path, grid={"factor": [1, 3]}))
    root, results = tmp_path / "out", []
    one, other = (run.name for run in sweep.runs)
    (root / "runs" / other).mkdir(parents=True)
    record = RunRecord("lesson.ipynb", "key", dict(sweep.runs[1].parameters), "failed", "x")
    record.started, record.error = "2026-01-01T00:00:00+00:00", {"name": "KeyError"}
    record.save(root / "runs" / other)
    (root / "runs" / "wait").touch()
    thread = begin(sweep, root, results)
    until_begun(root, one)
    record.started = "2026-01-01T00:01:00+00:00"
    record.save(root / "runs" / other)
    (root / "runs" / "wait").unlink()
    thread.join()
    assert (results[0].done, results[0].failed) == ([one], [other])
    assert times_run(root) == {one: 1}
    again = run_sweep(sweep, root, keep=True, progress=False)
    assert (again.kept, again.done) == ([one], [other])
    assert times_run(root) == {one: 1, other: 1}


@pytest.fixture
def namesakes(tmp_path):
    """Two sweeps of notebooks with the same name in two folders, which share run folders."""
    sweeps = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_lesson(tmp_path / name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"notebook: {name}/lesson.ipynb\n")
        sweeps.append(load_sweep(path))
    return sweeps


def test_a_run_of_another_notebook_of_that_name_is_neither_counted_nor_overwritten(
    namesakes, tmp_path
):
    one, other = namesakes
    root = tmp_path / "out"
    (name,) = run_sweep(one, root, progress=False).done
    assert RunRecord.load(root / "runs" / name).path == "one/lesson.ipynb"
    assert [run.status for run in summarize_sweep(one, root).runs] == ["done"]
    assert [run.status for run in summarize_sweep(other, root).runs] == ["not started"]
    for option in ("--keep", "--dry-run", "--summary-only"):
        words = ["sweep", str(other.path), "--out", str(root), option]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == (0 if option == "--dry-run" else 1)
        assert ("runs of one/lesson.ipynb" in result.stderr) == (option == "--keep")
    assert times_run(root) == {name: 1}
    assert RunRecord.load(root / "runs" / name).path == "one/lesson.ipynb"


def test_a_run_of_another_notebook_that_ended_meanwhile_is_not_taken_for_ours(namesakes, tmp_path):
    one, other = namesakes
    root, name, results = tmp_path / "out", other.runs[0].name, []
    with run_lock(root, name):
        thread = begin(other, root, results)
        time.sleep(0.5)
        (root / "runs" / name).mkdir(parents=True)
        record = RunRecord("lesson.ipynb", "key", dict(one.runs[0].parameters), "done", "x")
        record.path, record.started = "one/lesson.ipynb", "just now"
        record.save(root / "runs" / name)
    thread.join()
    assert results[0].failed == [name] and not times_run(root)
    assert RunRecord.load(root / "runs" / name) == record


def test_a_worker_that_dies_leaves_a_reason(tmp_path):
    write_lesson(
        tmp_path, "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nwhile True: 1"
    )
    sweep = load_sweep(write_sweep(tmp_path))
    result = run_sweep(sweep, tmp_path / "out", progress=False)
    assert result.failed == [sweep.runs[0].name]
    record = RunRecord.load(tmp_path / "out" / "runs" / sweep.runs[0].name)
    assert record.status == "failed"
    assert (record.error["name"], record.error["message"]) == ("WorkerDied", "killed by signal 9")
