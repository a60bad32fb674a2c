"""Headless runs: what is written, what is not run twice, what a failure leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.runs import RunFailedError, RunRecord, run_notebook, write_index
from ureca_lib.runs import runner as running

PARAMETERS = 'factor: int = 2  # times\noutput_dir: str = "."  # the run\'s folder'
BODY = """from pathlib import Path
from ureca_lib.runs import record_metrics
with (Path(output_dir) / "runs.txt").open("a") as file:
    file.write("x")
record_metrics(output_dir, product=21 * factor)
21 * factor"""


def make(folder, *sources):
    """A notebook with a parameters cell and further code cells."""
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "no-such-kernel", "display_name": "x"}}
    path = folder / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def times_run(folder) -> int:
    return len((folder / "runs.txt").read_text())


def test_a_run_is_recorded_and_done_only_once(tmp_path):
    notebook, out = make(tmp_path, BODY), tmp_path / "out"
    record = run_notebook(notebook, {"factor": 3}, out, progress=False)
    stored = json.loads((out / "run.json").read_text())
    assert record.status == stored["status"] == "done"
    assert stored["parameters"] == {"factor": 3, "output_dir": "."}
    assert stored["metrics"] == {"product": 63}
    assert stored["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert stored["seconds"] > 0 and stored["machine"]["cores"] == os.cpu_count()
    executed = nbformat.read(out / "lesson.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0]["data"]["text/plain"] == "63"

    run_notebook(notebook, {"factor": 3}, out, progress=False)
    assert times_run(out) == 1
    run_notebook(notebook, {"factor": 3}, out, progress=False, force=True)
    assert times_run(out) == 2
    run_notebook(notebook, {"factor": 4}, out, progress=False)
    assert times_run(out) == 3
    make(tmp_path, BODY + "  # changed")
    assert run_notebook(notebook, {"factor": 4}, out, progress=False).metrics == {"product": 84}
    assert times_run(out) == 4


def test_a_wrong_parameter_stops_before_anything_is_written(tmp_path):
    out = tmp_path / "out"
    for wrong in ({"fctor": 3}, {"factor": "three"}):
        with pytest.raises(ValueError):
            run_notebook(make(tmp_path, BODY), wrong, out)
    assert not out.exists()


def test_a_failing_cell_is_named_and_what_ran_before_is_kept(tmp_path):
    notebook = make(tmp_path, "1 + 1", "\nraise KeyError('lost key')", "never = 1")
    with pytest.raises(RunFailedError, match=r"cell 3 \(.raise KeyError.*lost key") as failure:
        run_notebook(notebook, {}, tmp_path / "out", progress=False)
    assert failure.value.record.error["name"] == "KeyError"
    stored = RunRecord.load(tmp_path / "out")
    assert (stored.status, stored.error["cell"]) == ("failed", 3)
    text = (tmp_path / "out" / "lesson.ipynb").read_text()
    assert "lost key" in text and '"2"' in text


def test_a_failed_run_is_run_again(tmp_path):
    flag = tmp_path / "flag"
    notebook = make(tmp_path, f"assert __import__('os').path.exists({str(flag)!r})")
    with pytest.raises(RunFailedError):
        run_notebook(notebook, {}, tmp_path / "out", progress=False)
    flag.touch()
    assert run_notebook(notebook, {}, tmp_path / "out", progress=False).status == "done"


def test_a_kernel_that_dies_is_a_failure_that_names_the_cell(tmp_path):
    notebook = make(tmp_path, "1", "import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(RunFailedError, match=r"cell 3 .*import os.*DeadKernelError"):
        run_notebook(notebook, {}, tmp_path / "out", progress=False)
    assert RunRecord.load(tmp_path / "out").error["name"] == "DeadKernelError"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Kernel didn't respond in 60 seconds"),
        OSError(28, "No space left on device"),
    ],
)
def test_what_fails_outside_the_cells_keeps_its_reason(tmp_path, monkeypatch, error):
    def execute(source, target, **others):
        Path(target).write_text('{"cells": [')
        raise error

    monkeypatch.setattr(running.papermill, "execute_notebook", execute)
    with pytest.raises(RunFailedError, match=re.escape(f"{type(error).__name__}: {error}")):
        run_notebook(make(tmp_path, "1"), {}, tmp_path / "out")
    stored = RunRecord.load(tmp_path / "out")
    assert (stored.status, stored.error["name"]) == ("failed", type(error).__name__)
    assert stored.error["message"] == str(error)


def test_only_a_stop_from_outside_is_no_failure(tmp_path, monkeypatch):
    def execute(*others, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(running.papermill, "execute_notebook", execute)
    with pytest.raises(KeyboardInterrupt):
        run_notebook(make(tmp_path, "1"), {}, tmp_path / "out")
    assert RunRecord.load(tmp_path / "out").error["name"] == "Interrupted"


def test_sigterm_stops_a_run_of_the_command_as_ctrl_c_does(tmp_path, monkeypatch):
    def execute(*others, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(running.papermill, "execute_notebook", execute)
    result = CliRunner().invoke(app, ["run", str(make(tmp_path, "1")), "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert RunRecord.load(tmp_path / "lesson").error["name"] == "Interrupted"


def test_a_killed_runner_leaves_a_run_that_is_run_again(tmp_path):
    slow = "import time, pathlib\nif not pathlib.Path('go').exists():\n    time.sleep(60)"
    notebook, out = make(tmp_path, slow), tmp_path / "out"
    call = f"run_notebook({str(notebook)!r}, output_dir={str(out)!r})"
    code = f"from ureca_lib.runs import run_notebook; {call}"
    child = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (out / "lesson.ipynb").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert RunRecord.load(out).status == "running"
    (tmp_path / "go").touch()
    assert run_notebook(notebook, output_dir=out, progress=False).status == "done"


def test_it_runs_in_the_notebooks_folder_with_this_python(tmp_path):
    body = "import sys, os\nfrom ureca_lib.runs import record_metrics\n"
    body += "record_metrics(output_dir, python=sys.executable, folder=os.getcwd())"
    metrics = run_notebook(make(tmp_path, body), {}, tmp_path / "out", progress=False).metrics
    assert metrics == {"python": sys.executable, "folder": str(tmp_path)}


def test_the_index_page_lists_runs_and_escapes_what_they_say(tmp_path):
    out = tmp_path / "runs" / "lesson"
    notebook = make(tmp_path, "raise ValueError('<script>alert(1)</script>')")
    with pytest.raises(RunFailedError):
        run_notebook(notebook, {}, out, progress=False)
    (out / "a figure.png").write_bytes(b"")
    page = write_index(tmp_path / "runs").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "lesson/a%20figure.png" in page
    assert (out / "lesson.html").is_file()


def test_a_record_cannot_name_a_file_outside_its_folder(tmp_path):
    victim, runs = tmp_path / "victim" / "page.ipynb", tmp_path / "runs"
    (runs / "lesson").mkdir(parents=True)
    victim.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), victim)
    record = RunRecord("lesson.ipynb", "key", {}, "done", "../../victim/page.ipynb")
    record.save(runs / "lesson")
    assert RunRecord.load(runs / "lesson").output == "page.ipynb"
    page = write_index(runs).read_text()
    assert "victim" not in page
    assert [path.name for path in victim.parent.iterdir()] == ["page.ipynb"]


@pytest.mark.parametrize(
    "fields",
    [{"status": "<b>"}, {"parameters": []}, {"metrics": 3}, {"seconds": "x"}, {"output": 3}],
)
def test_a_record_of_other_types_is_not_read(tmp_path, fields):
    RunRecord("lesson.ipynb", "key", {}, "done", "lesson.ipynb").save(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    assert RunRecord.load(tmp_path) is not None
    (tmp_path / "run.json").write_text(json.dumps(content | fields))
    assert RunRecord.load(tmp_path) is None


def test_a_cells_memory_error_is_named_with_its_cell(tmp_path):
    notebook = make(tmp_path, "1", "raise MemoryError")
    with pytest.raises(RunFailedError, match=r"cell 3 \(.raise MemoryError.\): MemoryError"):
        run_notebook(notebook, {}, tmp_path / "out", progress=False)


def test_what_is_no_notebook_is_one_clear_error(tmp_path):
    (tmp_path / "text.ipynb").write_text("# not a notebook")
    with pytest.raises(ValueError, match=r"text\.ipynb: the file is not a notebook"):
        run_notebook(tmp_path / "text.ipynb")
    with pytest.raises(FileNotFoundError, match=r"none\.ipynb: there is no such notebook"):
        run_notebook(tmp_path / "none.ipynb")


def test_a_run_that_is_not_repeated_says_so(tmp_path):
    notebook = make(tmp_path, "1")
    assert not run_notebook(notebook, {}, tmp_path / "out", progress=False).repeated
    assert run_notebook(notebook, {}, tmp_path / "out", progress=False).repeated
    assert "repeated" not in json.loads((tmp_path / "out" / "run.json").read_text())
