"""Notebooks of a cell or two, quick to run, for tests of runs and sweeps."""

from __future__ import annotations

from pathlib import Path

import nbformat
import yaml

PARAMETERS = """factor: int = 2  # times
rate: float = 0.1  # learning rate
sizes: list[int] = [1]  # several
options: dict[str, int] = {}  # by name
seed: int = 0  # of the run
output_dir: str = "."  # the run's folder"""
# counts its runs, fails for one factor and seed, and measures without importing the library
BODY = """import json, os, pathlib, time
place = pathlib.Path(output_dir)
with (place / "runs.txt").open("a") as file:
    file.write("x")
while (place.parent / "wait").exists():
    time.sleep(0.05)
assert (factor, seed) != (13, 4), "an unlucky <factor>"
threads = int(os.environ.get("OMP_NUM_THREADS", 0))
metrics = {"product": factor * (10 + seed), "threads": threads, "text": "no number",
           "size": {"small": rate, "large": float(len(sizes))}, "list": sizes}
(place / "metrics.json").write_text(json.dumps(metrics))"""


def write_lesson(folder: Path, *sources: str) -> Path:
    """Write `lesson.ipynb`: the parameters, then cells of code (`BODY` if none is given)."""
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources or (BODY,)]
    metadata = {"kernelspec": {"name": "no-such-kernel", "display_name": "x"}}
    path = folder / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def write_notebook(path: Path, source: str, tags: tuple[str, ...] = ("parameters",)) -> Path:
    """Write a notebook of one cell, which says what its parameters are."""
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


def write_sweep(folder: Path, **fields: object) -> Path:
    """Write `trial.yaml`, a sweep of the lesson beside it."""
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump({"notebook": "lesson.ipynb", **fields}, sort_keys=False))
    return path


def times_run(root: Path) -> dict[str, int]:
    """How often each run of a folder of sweeps has begun."""
    return {path.parent.name: len(path.read_text()) for path in root.glob("runs/*/runs.txt")}
