"""Sweeps: every run once, failures kept apart, threads shared out, one table at the end."""

from __future__ import annotations

import csv
import os

import pytest
from lesson_notebook import times_run, write_lesson, write_sweep
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.engine import usable_cores, worker_environment
from ureca_lib.runs import load_sweep, read_summary


def call(*words):
    return CliRunner().invoke(app, ["sweep", *map(str, words)])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """By the command line, two settings and two seeds; one setting fails. Folder, file, result."""
    folder = tmp_path_factory.mktemp("swept")
    write_lesson(folder)
    path = write_sweep(folder, grid={"factor": [13, 3]}, seeds=[0, 4], title="A <trial>")
    return folder / "out", path, call(path, "--jobs", 2, "--out", folder / "out")


def test_failures_are_kept_apart_and_told(swept):
    root, _, result = swept
    assert result.exit_code == 1
    summary = read_summary(root / "trial")
    states = {(run.label, run.seed): run.status for run in summary.runs}
    assert states == {
        ("factor 13", 0): "done",
        ("factor 13", 4): "failed",
        ("factor 3", 0): "done",
        ("factor 3", 4): "done",
    }
    (run,) = summary.failures
    assert run.error["cell"] == 2 and "unlucky" in run.error["message"]
    notebook = root / run.folder / "lesson.ipynb"
    assert "unlucky" in notebook.read_text()
    assert str(notebook) in result.stderr


def test_the_table_is_of_the_runs_own_records(swept):
    root = swept[0]
    rows = list(csv.DictReader((root / "trial" / "summary.csv").open()))
    found = {(row["setting"], row["value"]): row for row in rows}
    assert {value for _, value in found} == {"product", "threads", "size.small", "size.large"}
    row = found["factor 3", "product"]  # 3 * 10 and 3 * 14
    assert (float(row["mean"]), row["n"], row["planned"]) == (36.0, "2", "2")
    assert float(row["spread"]) == pytest.approx(72**0.5)
    assert float(found["factor 3", "size.small"]["spread"]) == 0.0
    row = found["factor 13", "product"]
    assert (float(row["mean"]), row["spread"], row["n"], row["planned"]) == (130.0, "", "1", "2")
    text = (root / "trial" / "summary.md").read_text()
    assert "36 ± 8.5 (2)" in text and "130 (1)" in text
    assert "A \\<trial\\>" in text and "unlucky \\<factor\\>" in text
    assert (root / "trial" / "summary.pdf").read_bytes().startswith(b"%PDF")
    assert (root / "trial" / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_threads_are_shared_out(swept):
    root = swept[0]
    summary = read_summary(root / "trial")
    measured = [setting.measures["threads"] for setting in summary.settings if setting.measures]
    used = {value for found in measured for value in found.values.values()}
    assert used == {float(worker_environment(2)["OMP_NUM_THREADS"])}
    assert used <= {float(number) for number in range(1, max(1, usable_cores() // 2) + 1)}


def test_again_only_what_failed_runs(swept):
    root, path, _ = swept
    listed = call(path, "--out", root, "--dry-run").stdout
    assert listed.count("done: ") == 3 and listed.count("to run: factor 13, seed 4") == 1
    before = times_run(root)
    again = call(path, "--out", root)
    after = times_run(root)
    assert again.exit_code == 1
    failed = load_sweep(path).runs[1].name
    assert {name: after[name] - before[name] for name in after} == {
        name: int(name == failed) for name in after
    }


def test_the_table_is_told_even_if_nothing_can_be_written(swept, monkeypatch):
    root, path, _ = swept

    def write(*others):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ureca_lib.runs.summary.write_summary", write)
    result = call(path, "--out", root, "--summary-only")
    assert result.exit_code == 2 and "No space left on device" in result.stderr
    assert "36 ± 8.5 (2)" in result.stdout


def test_bad_files_stop_before_any_sweep_runs(tmp_path):
    write_lesson(tmp_path)
    good = write_sweep(tmp_path)
    bad = tmp_path / "bad.yaml"
    bad.write_text("notebook: lesson.ipynb\ngrid: {fctor: [1]}\n")
    result = call(good, bad, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "bad.yaml: setting 'fctor 1'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_cap_never_raises_what_is_set(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert worker_environment(jobs=3, cores=8)["OMP_NUM_THREADS"] == "2"
    assert worker_environment(jobs=16, cores=8)["MKL_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert worker_environment(jobs=1, cores=8)["OMP_NUM_THREADS"] == "3"
    assert worker_environment(jobs=4, cores=8)["OMP_NUM_THREADS"] == "2"
    assert worker_environment(jobs=1, cores=8)["MKL_NUM_THREADS"] == "3"  # torch heeds it, too
    assert os.environ["OMP_NUM_THREADS"] == "3"
