"""Every figure that a notebook saves is shown in it: a pyplot figure, made in its cell and open.

IPython shows pyplot figures at the end of their cell. A bare `Figure` prints as text.
"""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DRAWING = sorted((ROOT / "ureca_lib" / "figures").glob("*.py"))
DRAWING += [ROOT / "ureca_lib" / "explorer" / "static.py"]


def calls(source: str) -> list[tuple[str, ast.Call]]:
    """Calls in a source, each with the last part of its function's name."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [(getattr(node.func, "attr", getattr(node.func, "id", "")), node) for node in nodes]


def assigned(source: str) -> set[str]:
    return {
        target.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


@pytest.mark.parametrize("path", DRAWING, ids=lambda path: path.stem)
def test_figures_are_made_by_pyplot(path):
    assert "Figure" not in [name for name, _ in calls(path.read_text())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_saved_figure_is_made_in_its_cell_and_stays_open(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        found = calls(cell.source)
        assert not {"close", "use", "switch_backend"} & {name for name, _ in found}, cell.source
        for name, call in found:
            if name not in ("save", "save_figure") or not call.args:
                continue
            figure = call.args[0]
            made = isinstance(figure, ast.Call) or figure.id in assigned(cell.source)
            assert made, cell.source


def test_a_figure_is_a_picture_in_a_fresh_kernel(tmp_path):
    source = (
        "from ureca_lib.figures import save_figure\n"
        "from ureca_lib.figures.training import live_training, training_figure\n"
        "logs = {'run': [{'step': 1, 'loss': 2.0}, {'step': 2, 'loss': 1.0}]}\n"
        f"save_figure(training_figure(logs), r'{tmp_path}/training.png');"
    )
    live = (
        "import json, pathlib\n"
        f"run = pathlib.Path(r'{tmp_path}')\n"
        "with live_training({'run': run}, every=60):\n"
        "    rows = [json.dumps(row) for row in logs['run']]\n"
        "    (run / 'log.jsonl').write_text('\\n'.join(rows) + '\\n')"
    )
    cells = [nbformat.v4.new_code_cell(source), nbformat.v4.new_code_cell(live)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell in notebook.cells:
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(pictures) == 1, cell.outputs
