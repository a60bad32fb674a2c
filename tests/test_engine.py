"""Tasks on processes and on Ray: results as they come, deaths that stay alone, nothing left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest
from small_ray import small_ray

from ureca_lib import engine
from ureca_lib.engine import map_tasks

TASKS = """import os, signal, sys, time, pathlib

def work(item):
    pathlib.Path(item["folder"], f"began_{item['n']}").write_text(str(os.getpid()))
    if item.get("way") == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.get("way") == "die once" and not pathlib.Path(item["folder"], "died").exists():
        pathlib.Path(item["folder"], "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item.get("way") == "raise":
        print("a line before", file=sys.stderr)
        raise ValueError("no good")
    if item.get("way") == "print":
        print("noise" * 100_000)
        print("noise" * 100_000, file=sys.stderr)
    while pathlib.Path(item["folder"], f"wait_{item['n']}").exists():
        time.sleep(0.02)
    return [item["n"], os.environ["OMP_NUM_THREADS"]]
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A module of tasks that new processes find, too, and its function."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "engine_tasks.py").write_text(TASKS)
    paths = [str(folder), os.environ.get("PYTHONPATH", ""), os.getcwd()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.syspath_prepend(folder)
        import engine_tasks

        yield engine_tasks.work


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_task_that_dies_fails_alone_with_its_reason(work, tmp_path):
    ways = ["", "die", "raise", "print"]
    items = [{"n": n, "way": way, "folder": str(tmp_path)} for n, way in enumerate(ways)]
    found = {outcome.item["n"]: outcome for outcome in map_tasks(work, items, jobs=2)}
    assert found[0].value[0] == 0 and found[0].error is None
    assert (found[1].value, found[1].error) == (None, "killed by signal 9")
    assert (found[2].value, found[2].error) == (None, "exit status 1: ValueError: no good")
    assert found[3].value[0] == 3 and int(found[3].value[1]) >= 1


def test_items_are_taken_when_a_process_is_free_and_results_come_as_they_end(work, tmp_path):
    taken = []

    def items():
        for n in range(3):
            taken.append(n)
            yield {"n": n, "folder": str(tmp_path)}

    (tmp_path / "wait_0").touch()
    outcomes = map_tasks(work, items(), jobs=2)
    assert next(outcomes).value[0] == 1 and taken == [0, 1]
    assert next(outcomes).value[0] == 2 and taken == [0, 1, 2]
    (tmp_path / "wait_0").unlink()
    assert [outcome.value[0] for outcome in outcomes] == [0]


def test_closing_stops_what_runs(work, tmp_path):
    for n in (0, 1):
        (tmp_path / f"wait_{n}").touch()
    items = [{"n": n, "folder": str(tmp_path)} for n in (0, 1, 2)]
    outcomes = map_tasks(work, [items[2], *items[:2]], jobs=3)
    assert next(outcomes).value[0] == 2
    until(lambda: all((tmp_path / f"began_{n}").is_file() for n in (0, 1)))
    pids = [int((tmp_path / f"began_{n}").read_text()) for n in (0, 1)]
    outcomes.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_killed_caller_leaves_no_task(work, tmp_path):
    (tmp_path / "wait_0").touch()
    item = {"n": 0, "folder": str(tmp_path)}
    code = "from ureca_lib.engine import map_tasks; import engine_tasks;"
    code += f"list(map_tasks(engine_tasks.work, [{item!r}]))"
    caller = subprocess.Popen([sys.executable, "-c", code])
    began = tmp_path / "began_0"
    until(lambda: began.is_file() and began.read_text())
    task = psutil.Process(int(began.read_text()))
    caller.kill()
    caller.wait()
    assert psutil.wait_procs([task], timeout=60)[0] == [task]


@pytest.fixture(scope="module")
def cluster(work):
    """Ray on two CPUs of this machine."""
    with small_ray():
        yield


def test_ray_starts_a_lost_task_again_and_reports_one_that_fails(
    work, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(engine, "RETRIES", 1)
    ways = ["", "raise", "die once", "die"]
    items = [{"n": n, "way": way, "folder": str(tmp_path)} for n, way in enumerate(ways)]
    found = {outcome.item["n"]: outcome for outcome in map_tasks(work, items, 3, "ray")}
    assert found[0].value[0] == 0 and found[0].error is None
    pid = (tmp_path / "began_0").read_text()
    assert found[0].where == f"process {pid} of {socket.gethostname()}"
    assert (found[1].value, found[1].error) == (None, "ValueError: no good")
    assert (found[2].value[0], found[2].error) == (2, None)
    assert found[3].value is None and found[3].error.startswith("WorkerCrashedError: ")


def test_ray_takes_items_as_they_end_and_stops_them(work, cluster, tmp_path):
    for n in (0, 1):
        (tmp_path / f"wait_{n}").touch()
    items = iter({"n": n, "folder": str(tmp_path)} for n in (2, 0, 1))
    outcomes = map_tasks(work, items, 2, "ray", cpus=0.5)
    assert next(outcomes).value[0] == 2
    until(lambda: (tmp_path / "began_0").is_file() and (tmp_path / "began_0").read_text())
    assert next(items)["n"] == 1  # not taken while two of them run
    process = psutil.Process(int((tmp_path / "began_0").read_text()))
    outcomes.close()
    assert psutil.wait_procs([process], timeout=30)[0] == [process]


def test_an_engine_that_is_not_there_is_refused(work):
    with pytest.raises(ValueError, match="engine 'slurm': there are processes and ray"):
        map_tasks(work, [], engine="slurm")
