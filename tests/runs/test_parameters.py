"""Parameters of notebooks: read from the cell, checked before anything runs."""

from __future__ import annotations

import json
import math

import pytest
from lesson_notebook import write_notebook

from ureca_lib.runs import check_parameters, notebook_parameters
from ureca_lib.runs.parameters import paths_from_here, same_parameters

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
title: str | None = None
long: list[int] = [
    1,
    2,
]  # over several lines"""


@pytest.fixture
def known(tmp_path):
    return notebook_parameters(write_notebook(tmp_path / "n.ipynb", CELL))


def test_names_types_defaults_and_help_come_from_the_cell(known):
    assert list(known) == [line.split(":")[0] for line in CELL.splitlines()[:11]] + ["long"]
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
        ("deep", '{"a": 2.5}', {"a": 2.5}),
        ("preset", "8b", "8b"),
        ("limit", "null", None),
        ("limit", "3", 3),
        ("fast", "true", True),
        ("fast", "yes", True),
        ("title", "12", "12"),
        ("title", "null", None),
        ("lr", ".5", 0.5),
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
        ("steps", "012"),  # 10 in YAML 1.1
        ("steps", "1:30"),  # 90 in YAML 1.1
        ("lr", "1:30"),
        ("deep", "[" * 100_000),
    ],
)
def test_a_text_of_another_type_is_refused_by_name(known, name, text):
    with pytest.raises(ValueError, match=f"parameter {name}"):
        check_parameters(known, {name: text}, texts=True)


@pytest.mark.parametrize(
    ("name", "value"), [("steps", "20"), ("steps", 2.0), ("lr", "3e-4"), ("fast", 1)]
)
def test_values_from_python_are_not_converted(known, name, value):
    with pytest.raises(ValueError, match=f"parameter {name}"):
        check_parameters(known, {name: value})


def test_a_dictionary_with_numbers_for_keys_is_refused(tmp_path):
    known = notebook_parameters(write_notebook(tmp_path / "n.ipynb", "w: dict[int, float] = {}"))
    with pytest.raises(ValueError, match=r"parameter w: \{1: 0.5\} would be \{'1': 0.5\}"):
        check_parameters(known, {"w": {1: 0.5}})
    for text in ("{1: 0.5}", '{"1": 0.5}'):
        with pytest.raises(ValueError, match=r"parameter w: .* is not of type dict"):
            check_parameters(known, {"w": text}, texts=True)


def test_not_a_number_is_a_value_like_others(tmp_path):
    known = notebook_parameters(write_notebook(tmp_path / "n.ipynb", "clip: Any = 1.0"))
    now = check_parameters(known, {"clip": [math.nan, {"a": math.inf}]})
    then = json.loads(json.dumps(now))
    assert same_parameters(known, then, now)
    assert not same_parameters(known, {"clip": [math.nan, {"a": 1.0}]}, now)


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(known):
    with pytest.raises(ValueError, match=r"no parameter 'step'.*steps, lr, tiles"):
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
    with pytest.raises(ValueError, match=r"broken\.ipynb"):
        notebook_parameters(path)


def test_a_notebook_without_the_tag_has_no_parameters(tmp_path):
    assert notebook_parameters(write_notebook(tmp_path / "n.ipynb", CELL, tags=())) == {}


@pytest.mark.parametrize(
    "annotation",
    [
        "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0]"
        "(['touch', FILE]) and int",
        "__import__('os').system('touch ' + FILE)",
        "(lambda: open(FILE, 'w'))() and int",
        "int if open(FILE, 'w') else int",
        "Literal[open(FILE, 'w')]",
        "list[open(FILE, 'w')]",
        "int.__class__",
        "int[str]",
        "'int'",
        "Foo",
        "list[int, str]",
        "dict[int]",
        "Literal[[1]]",
    ],
)
def test_annotations_are_never_evaluated(tmp_path, annotation):
    file = tmp_path / "made"
    source = f"x: {annotation.replace('FILE', repr(str(file)))} = 1"
    with pytest.raises(ValueError, match=r"n\.ipynb: parameter x: "):
        notebook_parameters(write_notebook(tmp_path / "n.ipynb", source))
    assert not file.exists()


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        ("Optional[int]", None),
        ("int | str | None", "a"),
        ("Union[int, list[str]]", ["a"]),
        ("Literal['a', 2, -1, None]", -1),
        ("dict[str, list[float | None]]", {"a": [None, 1.0]}),
        ("Any", {"a": [1]}),
        ("list", [1, "a"]),
    ],
)
def test_annotations_of_builtin_types_are_understood(tmp_path, annotation, default):
    source = f"x: {annotation} = {default!r}"
    known = notebook_parameters(write_notebook(tmp_path / "n.ipynb", source))
    assert known["x"].default == known["x"].check(default) == default


def test_a_path_that_the_shell_completed_holds_in_the_notebooks_folder(tmp_path, monkeypatch):
    for name in ("notebooks", "photos", "tiny"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "a.png").touch()
    (tmp_path / "b.png").touch()
    (tmp_path / "notebooks" / "there.png").touch()
    (tmp_path / "there.png").touch()
    lines = [f"{name}: str = ''" for name in ("photo", "file", "both", "preset", "new")]
    cell = "\n".join([*lines, "folder: str | None = None", "sizes: list = []"])
    notebook = write_notebook(tmp_path / "notebooks" / "n.ipynb", cell)
    monkeypatch.chdir(tmp_path)
    given = {
        "photo": "photos/a.png",
        "file": "b.png",
        "both": "there.png",  # the notebook's own
        "preset": "tiny",  # a word, not a path
        "new": "photos/out.png",
        "folder": "photos/",
    }
    expected = {**given, "photo": "../photos/a.png", "file": "../b.png", "folder": "../photos"}
    assert paths_from_here(notebook_parameters(notebook), given, notebook) == expected


@pytest.mark.parametrize("line", ["%matplotlib inline", "!pip install x", "steps: int = (1"])
def test_a_cell_that_is_not_python_is_named_with_its_line(tmp_path, line):
    path = write_notebook(tmp_path / "n.ipynb", f"{line}\nrate: float = 0.1")
    with pytest.raises(ValueError, match=r"n\.ipynb: the parameters cell is not Python") as told:
        notebook_parameters(path)
    assert line in str(told.value)
