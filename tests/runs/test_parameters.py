"""Parameters of notebooks: read from the cell, checked before anything runs."""

from __future__ import annotations

import json
import math

import pytest
from lesson_notebook import write_notebook

from ureca_lib.runs import ParameterError, check_parameters, notebook_parameters
from ureca_lib.runs.parameters import same_parameters

CELL = """steps: int = 10  # optimizer steps
lr: float = 2e-4  # learning rate
tiles: list[int] = [1, 6]  # tile counts # and a second hash
name: str = "a # b"
deep: dict[str, float] = {"a": 1.0}
preset: Literal["tiny", "8b"] = "tiny"  # model
limit: int | None = None
fast: bool = False
rates: list[float] = [0.1]
decay: float | None = None
long: list[int] = [
    1,
    2,
]  # over several lines"""


@pytest.fixture
def known(tmp_path):
    return notebook_parameters(write_notebook(tmp_path / "n.ipynb", CELL))


def test_names_types_defaults_and_help_come_from_the_cell(known):
    assert list(known) == [line.split(":")[0] for line in CELL.splitlines()[:10]] + ["long"]
    assert (known["lr"].type_name, known["lr"].default) == ("float", 2e-4)
    assert known["steps"].help == "optimizer steps"
    assert known["tiles"].help == "tile counts # and a second hash"
    assert (known["name"].default, known["name"].help) == ("a # b", "")
    assert (known["long"].default, known["long"].help) == ([1, 2], "over several lines")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "20", 20),
        ("lr", "3e-4", 3e-4),
        ("lr", "1", 1.0),
        ("lr", "inf", math.inf),
        ("rates", "[1e-4, 2]", [1e-4, 2.0]),
        ("decay", "3e-4", 3e-4),
        ("tiles", "[1, 4]", [1, 4]),
        ("name", "12", "12"),
        ("name", "yes", "yes"),
        ("deep", "{a: 2.5}", {"a": 2.5}),
        ("preset", "8b", "8b"),
        ("limit", "null", None),
        ("limit", "3", 3),
        ("fast", "true", True),
    ],
)
def test_texts_of_a_command_line_become_values_of_the_type(known, name, text, value):
    result = check_parameters(known, {name: text}, texts=True)[name]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps", "2.5"),
        ("steps", "many"),
        ("steps", "true"),
        ("lr", "fast"),
        ("tiles", "[1, x]"),
        ("tiles", "3"),
        ("deep", "[1]"),
        ("preset", "9b"),
        ("limit", "1.5"),
        ("fast", "2"),
        ("tiles", "[1, 2"),
    ],
)
def test_a_text_of_another_type_is_refused_by_name(known, name, text):
    with pytest.raises(ParameterError, match=f"parameter {name}"):
        check_parameters(known, {name: text}, texts=True)


@pytest.mark.parametrize(
    ("name", "value"), [("steps", "20"), ("steps", 2.0), ("lr", "3e-4"), ("fast", 1)]
)
def test_values_from_python_are_not_converted(known, name, value):
    with pytest.raises(ParameterError, match=f"parameter {name}"):
        check_parameters(known, {name: value})


@pytest.mark.parametrize("texts", [False, True])
def test_a_dictionary_with_numbers_for_keys_is_refused(tmp_path, texts):
    known = notebook_parameters(write_notebook(tmp_path / "n.ipynb", "w: dict[int, float] = {}"))
    value = "{1: 0.5}" if texts else {1: 0.5}
    with pytest.raises(ParameterError, match=r"parameter w: \{1: 0.5\} would be \{'1': 0.5\}"):
        check_parameters(known, {"w": value}, texts)


def test_not_a_number_is_a_value_like_others(tmp_path):
    known = notebook_parameters(write_notebook(tmp_path / "n.ipynb", "clip: Any = 1.0"))
    now = check_parameters(known, {"clip": [math.nan, {"a": math.inf}]})
    then = json.loads(json.dumps(now))
    assert same_parameters(known, then, now)
    assert not same_parameters(known, {"clip": [math.nan, {"a": 1.0}]}, now)


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(known):
    with pytest.raises(ParameterError, match=r"no parameter 'step'.*steps, lr, tiles"):
        check_parameters(known, {"step": 1})


def test_what_is_not_set_keeps_its_default(known):
    values = check_parameters(known, {"steps": 3})
    assert values == {name: p.default for name, p in known.items()} | {"steps": 3}


@pytest.mark.parametrize(
    "source",
    [
        "steps = 10",
        "steps: int = 1 + n",
        "print(1)",
        "steps: int = 'x'",
        "steps: Foo = 1",
        "steps: int",
    ],
)
def test_a_cell_that_is_no_list_of_parameters_is_an_error_naming_the_notebook(tmp_path, source):
    path = write_notebook(tmp_path / "broken.ipynb", source)
    with pytest.raises(ParameterError, match=r"broken\.ipynb"):
        notebook_parameters(path)


def test_a_notebook_without_the_tag_has_no_parameters(tmp_path):
    assert notebook_parameters(write_notebook(tmp_path / "n.ipynb", CELL, tags=())) == {}


@pytest.mark.parametrize("line", ["%matplotlib inline", "!pip install x", "steps: int = (1"])
def test_a_cell_that_is_not_python_is_named_with_its_line(tmp_path, line):
    path = write_notebook(tmp_path / "n.ipynb", f"{line}\nrate: float = 0.1")
    with pytest.raises(
        ParameterError, match=r"n\.ipynb: the parameters cell is not Python"
    ) as told:
        notebook_parameters(path)
    assert line in str(told.value)
