"""Sweep files: what they expand to, and what is refused before anything runs."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from lesson_notebook import write_lesson, write_notebook, write_sweep

from ureca_lib.runs.sweep import load_sweep


@pytest.fixture
def folder(tmp_path):
    write_lesson(tmp_path)
    return tmp_path


def settings_of(sweep):
    return [{**run.varied, "seed": run.seed} for run in sweep.runs]


def test_a_grid_is_the_product_of_its_values_and_the_seeds(folder):
    grid = {"factor": [1, 2, 3], "sizes": [[1], [1, 2]], "options": [{}, {"a": 1}]}
    sweep = load_sweep(write_sweep(folder, grid=grid, seeds=[7, 8]))
    expected = [
        {"factor": factor, "sizes": sizes, "options": options, "seed": seed}
        for factor, sizes, options, seed in itertools.product(*grid.values(), [7, 8])
    ]
    assert settings_of(sweep) == expected
    assert len({run.name for run in sweep.runs}) == len(expected) == 24
    assert sweep.runs[2].label == 'factor 1, sizes [1], options {"a": 1}'


def test_a_list_keeps_its_labels_and_fixed_values_and_defaults_join(folder):
    entries = [{"label": "plain"}, {"label": "fast", "parameters": {"rate": 1}}]
    sweep = load_sweep(write_sweep(folder, parameters={"factor": 5}, list=entries, seeds=[1]))
    plain, fast = sweep.runs
    assert (plain.label, fast.label) == ("plain", "fast")
    assert plain.parameters == {"factor": 5, "rate": 0.1, "sizes": [1], "options": {}, "seed": 1}
    assert fast.parameters["rate"] == 1.0 and isinstance(fast.parameters["rate"], float)
    assert fast.varied == {"rate": 1}


def test_yaml_numbers_without_a_dot_are_floats(folder):
    path = folder / "trial.yaml"
    path.write_text("notebook: lesson.ipynb\ngrid:\n  rate: [3e-4, 1e-2]\n")
    assert [run.parameters["rate"] for run in load_sweep(path).runs] == [3e-4, 1e-2]


def test_such_numbers_are_floats_in_lists_and_dictionaries_too(tmp_path):
    lines = ["seed: int = 0", "rates: list = []", "weights: dict = {}", "lr: float | None = None"]
    write_notebook(tmp_path / "n.ipynb", "\n".join([*lines, "steps: list[float] = []"]))
    path = tmp_path / "trial.yaml"
    values = "rates: [3e-4, 1.5e3, -0.5, 7], weights: {a: 1E5}, lr: 3e-4, steps: [1e-4, 20]"
    path.write_text(f"notebook: n.ipynb\nparameters: {{{values}}}\n")
    found = load_sweep(path).runs[0].parameters
    assert found["rates"] == [3e-4, 1500.0, -0.5, 7] and isinstance(found["rates"][3], int)
    assert found["weights"] == {"a": 1e5}
    assert found["lr"] == 3e-4 and found["steps"] == [1e-4, 20.0]
    path.write_text("notebook: n.ipynb\nparameters: {steps: [+2.e1]}\n")  # JSON has no such number
    with pytest.raises(ValueError, match=r"parameter steps: \['\+2.e1'\] is not of type list"):
        load_sweep(path)


def test_texts_are_read_by_the_declared_type(tmp_path):
    lines = [
        "seed: int = 0",
        "name: str | None = None",
        "names: list[str] = []",
        "on: bool = False",
    ]
    write_notebook(tmp_path / "n.ipynb", "\n".join([*lines, "day: str = ''", "free: Any = None"]))
    path = tmp_path / "trial.yaml"
    values = "{name: 12, names: [1, a], on: yes, day: 2020-01-01, free: {0: [true, null]}}"
    path.write_text(f"notebook: n.ipynb\nparameters: {values}\n")
    found = dict(load_sweep(path).runs[0].parameters)
    expected = {"name": "12", "names": ["1", "a"], "on": True, "day": "2020-01-01"}
    assert found == expected | {"seed": 0, "free": {"0": [True, None]}}


def test_a_number_that_is_quoted_and_inf_are_floats_where_one_is_wanted(folder):
    path = folder / "trial.yaml"
    path.write_text("notebook: lesson.ipynb\ngrid:\n  rate: ['3e-4', inf]\n")
    assert [run.parameters["rate"] for run in load_sweep(path).runs] == [3e-4, math.inf]


def test_without_grid_and_list_only_seeds_differ(folder):
    sweep = load_sweep(write_sweep(folder, seeds=[3, 1]))
    assert [(run.label, run.seed) for run in sweep.runs] == [("defaults", 3), ("defaults", 1)]


def test_the_same_run_has_the_same_folder_in_every_sweep(folder):
    by_grid = load_sweep(write_sweep(folder, grid={"factor": [4]}, seeds=[0, 1]))
    other = folder / "other.yaml"
    other.write_text("notebook: lesson.ipynb\nparameters: {factor: 4, rate: 0.1}\nseeds: [1]\n")
    assert load_sweep(other).runs[0].name == by_grid.runs[1].name != by_grid.runs[0].name


def test_a_new_parameter_leaves_the_folders_where_they_are(folder):
    path = write_sweep(folder, grid={"factor": [2, 4]}, seeds=[0, 1])
    before = [run.name for run in load_sweep(path).runs]
    lesson = folder / "lesson.ipynb"
    lesson.write_text(lesson.read_text().replace("seed: int", "fresh: bool = False\\nseed: int"))
    sweep = load_sweep(path)
    assert sweep.runs[0].parameters["fresh"] is False
    assert [run.name for run in sweep.runs] == before
    other = load_sweep(write_sweep(folder, parameters={"fresh": True}, seeds=[0, 1]))
    assert not {run.name for run in other.runs} & set(before)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"grid": {"fctor": [1]}}, r"setting 'fctor 1': .*no parameter 'fctor'; it has: factor"),
        ({"grid": {"factor": ["two"]}}, r"setting 'factor two': parameter factor: 'two' is not"),
        ({"grid": {"factor": [1.5]}}, r"parameter factor: '1.5' is not of type int"),
        ({"grid": {"sizes": [3]}}, r"parameter sizes: '3' is not of type list\[int\]"),
        ({"grid": {"options": [{"a": "b"}]}}, r"parameter options: .* is not of type dict"),
        ({"grid": {"rate": ["fast"]}}, r"parameter rate: 'fast' is not of type float"),
        ({"grid": {"factor": []}}, r"grid.factor: .*at least 1 item"),
        ({"grid": {"factor": 3}}, r"grid.factor: .*list"),
        ({"grid": {"factor": [1, 1]}}, r"'factor 1, seed 0' is the same run as 'factor 1, seed 0'"),
        ({"seeds": []}, r"seeds: .*at least 1"),
        ({"seeds": [0, 0]}, r"seed 0' is the same run"),
        ({"seeds": 3}, r"seeds: .*list"),
        ({"parameters": {"seed": 1}}, r"seeds are listed under 'seeds'"),
        ({"grid": {"output_dir": ["x"]}}, r"output_dir is each run's own folder"),
        ({"parameters": {"factor": 1}, "grid": {"factor": [2]}}, r"'factor' is fixed under"),
        ({"grid": {"factor": [1]}, "list": [{"label": "a"}]}, r"a grid or a list, not both"),
        ({"list": [{"parameters": {}}]}, r"list.0.label: Field required"),
        (
            {"list": [{"label": "a"}, {"label": "a", "parameters": {"factor": 3}}]},
            r"two settings are called 'a'",
        ),
        ({"list": [{"label": "a"}, {"label": "b"}]}, r"'b, seed 0' is the same run as 'a, seed 0'"),
        ({"gird": {}}, r"gird: Extra inputs"),
        ({"notebook": "none.ipynb"}, r"none\.ipynb: there is no such notebook"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(folder, fields, reason):
    with pytest.raises(ValueError, match=rf"trial\.yaml: .*{reason}"):
        load_sweep(write_sweep(folder, **fields))


def test_keys_that_are_there_twice_and_broken_files_are_refused(folder):
    path = folder / "trial.yaml"
    path.write_text("notebook: lesson.ipynb\ngrid:\n  factor: [1]\n  factor: [2]\n")
    with pytest.raises(ValueError, match=r"trial\.yaml: 'factor' is there twice .* line 3"):
        load_sweep(path)
    path.write_text("notebook: [")
    with pytest.raises(ValueError, match=r"trial\.yaml: .*line 1"):
        load_sweep(path)
    path.write_text("- a list")
    with pytest.raises(ValueError, match=r"trial\.yaml: the file: .* dictionary"):
        load_sweep(path)
    with pytest.raises(ValueError, match=r"none\.yaml: .*No such file"):
        load_sweep(folder / "none.yaml")


SWEEPS = sorted((Path(__file__).parents[2] / "papermill_runs").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_sweeps_here_go_with_their_notebooks(path):
    if path.stem == "reference":
        pytest.skip("the reference run's file, which is not a sweep")
    assert load_sweep(path).runs
