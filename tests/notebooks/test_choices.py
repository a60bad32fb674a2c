"""What the lessons do where an answer failed or a file is not there."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from ureca_lib.annotate.records import FinalCaption
from ureca_lib.regions import RegionError, load_coco

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def assigned(name: str, wanted: set[str], known: dict) -> dict:
    """`known` after the assignments of a notebook to the names that are wanted."""
    for cell in nbformat.read(NOTEBOOKS / name, as_version=4).cells:
        if cell.cell_type != "code" or "parameters" in cell.metadata.get("tags", ()):
            continue
        for node in ast.parse(cell.source).body:
            targets = node.targets if isinstance(node, ast.Assign) else ()
            if any(isinstance(one, ast.Name) and one.id in wanted for one in targets):
                exec(compile(ast.Module([node], []), name, "exec"), known)
    return known


@pytest.mark.parametrize("name", ["03_bottom_up.ipynb", "04_uniqueness.ipynb"])
def test_the_region_shown_is_one_that_was_asked(name):
    failed = FinalCaption(1, "", "failed", "short: refused", height=3, look_alikes=(2,))
    good = FinalCaption(2, "a cat", "unique", height=3, look_alikes=(1,))
    for finals, chosen in (((failed, good), 2), ((failed,), 1)):
        work = SimpleNamespace(finals={final.region_id: final for final in finals})
        known = {"work": work, "seed": 0, "region": 0}
        assert assigned(name, {"written", "choices", "region"}, known)["region"] == chosen


def test_a_file_that_is_not_there_is_no_empty_one():
    known = {"load_coco": load_coco, "Path": Path}
    assert assigned("05_dataset.ipynb", {"in_memory"}, known | {"coco": ""})["in_memory"] == []
    with pytest.raises(RegionError, match=r"mistyped\.json"):
        assigned("05_dataset.ipynb", {"in_memory"}, known | {"coco": "mistyped.json"})


@pytest.mark.parametrize("number", ["02", "03", "04", "05"])
def test_a_server_s_key_is_named_by_its_variable(number):
    (name,) = (path.name for path in NOTEBOOKS.glob(f"{number}_*.ipynb"))
    asked = []
    known = {"make_annotator": lambda *given, **named: asked.append((given, named))}
    chosen = {"annotator": "openai", "model": "tiny", "base_url": "", "api_key_env": "MY_KEY"}
    assigned(name, {"asked"}, known | chosen)
    assigned(name, {"asked"}, known | chosen | {"api_key_env": ""})
    given = ("openai", "tiny", None)
    assert asked == [(given, {"api_key_env": key}) for key in ("MY_KEY", None)]
