"""Summaries of sweeps: means and spreads against their definitions, and what cannot be counted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from lesson_notebook import write_lesson, write_sweep

from ureca_lib.runs import (
    RunRecord,
    load_sweep,
    read_summaries,
    read_summary,
    summarize_sweep,
    summary_markdown,
    write_summary,
)
from ureca_lib.runs.record import path_in_project
from ureca_lib.runs.summary import flat_numbers, measure
from ureca_lib.runs.sweep import run_lock

SEEDS = [0, 1, 2]


@pytest.fixture
def sweep(tmp_path):
    write_lesson(tmp_path)
    return load_sweep(write_sweep(tmp_path, grid={"factor": [1, 2]}, seeds=SEEDS))


def record(root, run, status="done", error=None, commit="abc", **metrics):
    found = RunRecord("lesson.ipynb", "key", dict(run.parameters), status, "lesson.ipynb", 2.5)
    found.metrics, found.error, found.commit = metrics, error, commit
    found.machine = {"device": "cpu", "cores": 2, "platform": "somewhere"}
    (root / "runs" / run.name).mkdir(parents=True)
    found.save(root / "runs" / run.name)


def test_mean_and_spread_are_those_of_numpy():
    values = dict(enumerate(np.random.default_rng(3).normal(5, 2, 7)))
    found = measure(values)
    numbers = np.array(list(values.values()))
    assert found.mean == pytest.approx(numbers.mean())
    assert found.spread == pytest.approx(numbers.std(ddof=1))
    assert found.n == 7 and list(found.values) == [str(seed) for seed in range(7)]
    assert measure({4: 2.0}).spread is None


def test_only_numbers_are_measured_and_dictionaries_get_dots():
    metrics = {"exact": 1, "name": "x", "is_good": True, "list": [1], "none": None}
    metrics["by_size"] = {"small": {"unique": 0.5, "n": 3}, "note": "text"}
    assert flat_numbers(metrics) == {
        "exact": 1.0,
        "by_size.small.unique": 0.5,
        "by_size.small.n": 3.0,
    }


def test_every_state_is_told_and_only_done_runs_count(sweep, tmp_path):
    runs = sweep.runs
    record(tmp_path, runs[0], exact=0.5)
    record(tmp_path, runs[1], "failed", {"name": "Interrupted", "message": "stopped"}, exact=9.0)
    record(tmp_path, runs[2], "running", exact=9.0)
    record(tmp_path, runs[3], "failed", {"cell": 3, "name": "KeyError", "message": "x"}, exact=9.0)
    record(tmp_path, runs[4], "running", exact=9.0)
    with run_lock(tmp_path, runs[4].name):
        summary = summarize_sweep(sweep, tmp_path)
    states = [run.status for run in summary.runs]
    assert states == ["done", "stopped", "killed", "failed", "running", "not started"]
    assert [run.error["name"] for run in summary.failures] == ["KeyError"]
    one, two = summary.settings
    assert one.measures["exact"].values == {"0": 0.5} and two.measures == {}
    assert (one.planned, one.measures["exact"].n) == (3, 1)
    assert summary.seconds == 2.5 and [run.seed for run in summary.done] == [0]


def test_a_record_of_other_parameters_is_not_counted(sweep, tmp_path):
    first, second = sweep.runs[:2]
    record(tmp_path, first, product=3)
    record(tmp_path, second, product=4)
    for run, name, value in ((first, "rate", 0.3), (second, "new", 1)):
        found = RunRecord.load(tmp_path / "runs" / run.name)
        found.parameters = {**found.parameters, "output_dir": "elsewhere", name: value}
        found.save(tmp_path / "runs" / run.name)
    assert {run.status for run in summarize_sweep(sweep, tmp_path).runs} == {"not started"}
    found = RunRecord.load(tmp_path / "runs" / first.name)
    del found.parameters["rate"]  # of before the notebook had it
    found.save(tmp_path / "runs" / first.name)
    summary = summarize_sweep(sweep, tmp_path)
    assert [run.status for run in summary.runs].count("done") == 1
    assert summary.settings[0].measures["product"].values == {"0": 3.0}


def test_a_record_that_names_no_place_or_one_that_is_left_counts_by_the_notebooks_name(
    sweep, tmp_path
):
    run = sweep.runs[0]
    record(tmp_path, run, product=3)  # as of earlier versions
    place = tmp_path / "runs" / run.name
    there = f"{tmp_path.name}/lesson.ipynb"
    for path, is_ours in ((None, True), (there, True), ("left/lesson.ipynb", True), ("x/y", False)):
        found = RunRecord.load(place)
        found.path, found.notebook = path, "lesson.ipynb" if is_ours else "y"
        found.save(place)
        assert summarize_sweep(sweep, tmp_path).settings[0].measures.keys() == (
            {"product"} if is_ours else set()
        )


@pytest.mark.parametrize("mark", [".git", "pyproject.toml"])
def test_a_notebooks_place_is_that_in_its_project(tmp_path, mark):
    deep = tmp_path / "project" / "some" / "notebooks"
    deep.mkdir(parents=True)
    assert path_in_project(deep / "n.ipynb") == "notebooks/n.ipynb"
    (tmp_path / "project" / mark).mkdir()
    assert path_in_project(deep / "n.ipynb") == "some/notebooks/n.ipynb"


def test_what_is_not_finite_is_left_out_and_named(sweep, tmp_path):
    for run, loss in zip(sweep.runs[:3], (1.0, math.nan, 3.0), strict=True):
        record(tmp_path, run, loss=loss, exact=0.0)
    summary = summarize_sweep(sweep, tmp_path)
    found = summary.settings[0].measures["loss"]
    assert (found.mean, found.n) == (2.0, 2)
    folder = write_summary(summary, tmp_path)
    text = (folder / "summary.md").read_text()
    assert "Infinite or not a number in some run, and left out: loss." in text


def test_a_summary_is_read_as_it_was_written(sweep, tmp_path):
    for number, run in enumerate(sweep.runs):
        record(tmp_path, run, exact=0.1 * number, by_size={"small": number}, commit=f"c{number}")
    summary = summarize_sweep(sweep, tmp_path)
    folder = write_summary(summary, tmp_path)
    assert read_summary(folder) == read_summary(folder / "summary.json") == summary
    assert read_summaries(tmp_path) == {"trial": summary}
    assert read_summaries(tmp_path / "none") == {}
    text = (folder / "summary.md").read_text()
    assert "made at 6 different commits" in text and "15 s, on cpu, 2 cores" in text
    assert summary.report == ["exact"]


def test_runs_of_uncommitted_code_are_marked(sweep, tmp_path):
    for run, commit in zip(sweep.runs, ("abc", "abc+", "abc+"), strict=False):
        record(tmp_path, run, exact=0.5, commit=commit)
    text = summary_markdown(summarize_sweep(sweep, tmp_path))
    assert "2 of 3 runs were made with uncommitted changes" in text


def test_a_plot_goes_with_the_last_of_its_values(sweep, tmp_path):
    record(tmp_path, sweep.runs[0], exact=0.5)
    folder = write_summary(summarize_sweep(sweep, tmp_path), tmp_path)
    plots = [folder / "summary.png", folder / "summary.pdf"]
    assert all(path.is_file() for path in plots)
    place = tmp_path / "runs" / sweep.runs[0].name
    found = RunRecord.load(place)
    found.status = "failed"
    found.save(place)
    write_summary(summarize_sweep(sweep, tmp_path), tmp_path)
    assert not any(path.exists() for path in plots)
    assert (folder / "summary.md").is_file()


def test_wanted_values_that_no_run_recorded_are_named(tmp_path):
    write_lesson(tmp_path)
    sweep = load_sweep(write_sweep(tmp_path, report=["by_size.small", "lost"]))
    record(tmp_path, sweep.runs[0], by_size={"small": 3})
    folder = write_summary(summarize_sweep(sweep, tmp_path), tmp_path)
    text = (folder / "summary.md").read_text()
    assert "| defaults | 3 (1) | – |" in text and "Not recorded by any run: lost." in text


def test_what_is_no_summary_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"summary\.json: there is no such summary"):
        read_summary(tmp_path / "summary.json")
    for content in ("{", "[]", json.dumps({"name": "x"})):
        (tmp_path / "summary.json").write_text(content)
        with pytest.raises(ValueError, match=r"summary\.json: not a sweep's summary"):
            read_summary(tmp_path)
