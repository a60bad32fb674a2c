"""The notebooks keep to the rules: prose, short cells, no outputs, and typed parameters."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import nbformat
import pytest

from ureca_lib.runs import notebook_parameters

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
MOST_LINES, MEDIAN_LINES = 20, 7


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


@pytest.fixture
def cells(notebook):
    return nbformat.read(notebook, as_version=4).cells


def code_of(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


def is_derivation(cell):
    """Whether a cell writes out what the library does, as the tag says."""
    return "derivation" in cell.metadata.get("tags", [])


def test_cells_are_short(cells):
    sizes = [sum(bool(line.strip()) for line in c.source.splitlines()) for c in code_of(cells)]
    assert max(sizes) <= MOST_LINES
    assert statistics.median(sizes) <= MEDIAN_LINES


def test_there_is_as_much_prose_as_code(cells):
    assert 2 * len(code_of(cells)) <= len(cells) + 1


def test_nothing_executed_is_committed(cells):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_of(cells))


def test_parameters_are_typed_and_explained(notebook):
    parameters = notebook_parameters(notebook)
    assert {"seed", "output_dir"} <= set(parameters)
    assert all(parameter.help for parameter in parameters.values())


def test_functions_and_classes_stand_in_derivations_only(cells):
    banned = (ast.FunctionDef, ast.ClassDef, ast.While)
    for cell in code_of(cells):
        if is_derivation(cell):
            continue
        found = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, banned)]
        assert not found, cell.source


@pytest.mark.parametrize("number", ["01", "06", "07", "08"])
def test_the_lessons_of_the_ideas_derive_and_compare(number):
    (path,) = (path for path in NOTEBOOKS if path.name.startswith(number))
    derived = [c.source for c in code_of(nbformat.read(path, 4).cells) if is_derivation(c)]
    assert derived and any("same" in source for source in derived)


def test_links_between_lessons_and_to_the_code_lead_somewhere(notebook, cells):
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", prose)
    assert links
    missing = [link for link in links if ":" not in link and not (notebook.parent / link).exists()]
    assert not missing


def test_the_order_of_the_parts(notebook, cells):
    assert cells[0].cell_type == "markdown"
    assert re.match(rf"# {notebook.stem[:2]} · ", cells[0].source)
    assert "What you will learn" in cells[0].source
    assert "show_versions()" in code_of(cells)[0].source
    assert "parameters" in code_of(cells)[1].metadata.get("tags", [])
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    places = [prose.find(f"## {part}") for part in ("What was recorded", "Exercises", "Where next")]
    assert -1 not in places and places == sorted(places)


def test_notebooks_that_are_named_exist(cells):
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    known = {path.stem for path in NOTEBOOKS}
    assert set(re.findall(r"`(\d\d_\w+)`", prose)) <= known


def test_lessons_with_exercises_have_solutions(notebook, cells):
    exercises = cells[-1].source
    coded = re.findall(r"^\d+\. \*(?:Predict, then run|Code|Try|Look)\.\*", exercises, re.M)
    solutions = notebook.parent / "solutions" / notebook.name
    assert solutions.is_file() or len(coded) < 2 or notebook.stem[:2] in {"11", "12"}
    if solutions.is_file():
        solved = nbformat.read(solutions, as_version=4).cells
        assert all(not c.outputs and c.execution_count is None for c in code_of(solved))
        assert f"[`{notebook.stem}`](../{notebook.name})" in solved[0].source
