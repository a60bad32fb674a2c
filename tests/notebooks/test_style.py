"""The notebooks keep to the rules: thin, taught in prose, without outputs, with parameters."""

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


def test_no_functions_classes_or_training_loops(cells):
    banned = (ast.FunctionDef, ast.ClassDef, ast.While)
    for cell in code_of(cells):
        found = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, banned)]
        assert not found, cell.source


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
