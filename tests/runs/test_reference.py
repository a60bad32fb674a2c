"""The reference run: planned from the notebooks, compared with them, published small."""

from __future__ import annotations

import base64
import io
import json

import nbformat
import numpy as np
import pytest
from lesson_notebook import write_lesson, write_sweep
from PIL import Image

from ureca_lib.runs import RunRecord, load_sweep, summarize_sweep, write_summary
from ureca_lib.runs.index import runs_page
from ureca_lib.runs.reference import (
    load_reference,
    publish_runs,
    small_picture,
)


@pytest.fixture
def project(tmp_path):
    """Two notebooks and a reference file that sets one parameter of the second."""
    (tmp_path / "notebooks").mkdir()
    for name in ("00_first", "01_second"):
        write_lesson(tmp_path / "notebooks").rename(tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "reference.yaml").write_text("notebooks:\n  01_second: {factor: 7, rate: 3e-4}\n")
    return tmp_path


def planned(project):
    return load_reference(project / "reference.yaml", project / "notebooks")


def picture(side, alpha=False, seed=0):
    """A photo, as far as a file's size tells; with alpha it is seen through."""
    channels = 4 if alpha else 3
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, channels), np.uint8)
    return png(Image.fromarray(noise))


def drawing(side):
    """Black stripes on white, opaque, as matplotlib writes figures."""
    stripes = np.full((side, side, 4), 255, np.uint8)
    stripes[::8, :, :3] = 0
    return png(Image.fromarray(stripes))


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def executed(folder, name, parameters=None, status="done", side=64):
    """What a run of a notebook leaves: record, notebook with a picture, figures, other files."""
    place = folder / name
    (place / "weights").mkdir(parents=True)
    record = RunRecord(f"{name}.ipynb", "key", dict(parameters or {}), status, f"{name}.ipynb", 60)
    record.parameters["output_dir"] = "."
    record.metrics = {"exact": 0.25, "by_size": {"small": 0.125}, "at": str(place)}
    record.save(place)
    data = {"image/png": base64.b64encode(picture(64)).decode()}
    outputs = [
        nbformat.v4.new_output("display_data", data=data),
        nbformat.v4.new_output("stream", name="stdout", text=f"wrote {place}/a figure.png"),
    ]
    cell = nbformat.v4.new_code_cell("1", outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), place / f"{name}.ipynb")
    (place / "a figure.png").write_bytes(picture(side, seed=1))
    (place / "a figure.pdf").write_bytes(b"%PDF")
    (place / "weights" / "model.safetensors").write_bytes(b"0" * 1000)
    (place / "weights" / "config.json").write_text("{}")
    (place / "table.md").write_text(f"| made in {place} |")
    (place / "large.csv").write_text("1," * 150_000)


def executed_once(folder, name, parameters=None, notebook=None):
    """The same, where it is not there yet, of a notebook that may have another name."""
    place = folder / name
    if not place.exists():
        executed(folder, name, parameters)
        record = RunRecord.load(place)
        record.notebook = notebook or record.notebook
        record.save(place)
    return place


def size(data):
    return Image.open(io.BytesIO(data)).size


def test_every_notebook_is_planned_with_its_settings(project):
    runs = planned(project)
    assert [notebook.stem for notebook in runs] == ["00_first", "01_second"]
    first, second = runs.values()
    assert first["factor"] == 2 and (second["factor"], second["rate"]) == (7, 3e-4)
    assert "output_dir" not in second


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("notebooks: {02_third: {}}", "there is no notebook '02_third'"),
        ("notebooks: {01_second: {fctor: 1}}", "01_second: the notebook has no parameter 'fctor'"),
        ("notebooks: {01_second: {factor: x}}", "01_second: parameter factor: 'x' is not"),
        ("notebooks: {01_second: {output_dir: x}}", "output_dir is the run's own folder"),
        ("notebooks: {01_second: 3}", "notebooks.01_second: Input should be a valid dict"),
        ("books: {}", "notebooks: Field required"),
        ("notebooks: [", "expected the node content"),
    ],
)
def test_what_does_not_go_with_the_notebooks_is_named(project, text, reason):
    (project / "reference.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"reference\.yaml: .*{reason}"):
        planned(project)


def test_what_is_published_is_small_and_names_no_place_of_this_machine(project):
    work = project / "work"
    for name in ("00_first", "01_second"):
        executed(work, name)
    target = project / "reference"
    (target / "old").mkdir(parents=True)
    megabytes = publish_runs(work, target, ["00_first", "01_second"], project)
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    kept = {"a figure.jpeg", "run.json", "table.md"}
    runs = {
        f"{run}/{name}" for run in ("00_first", "01_second") for name in (*kept, f"{run}.ipynb")
    }
    assert names == runs | {"README.md"}
    assert megabytes == pytest.approx(
        sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6
    )
    for path in target.rglob("*"):
        if path.suffix in (".md", ".json", ".ipynb"):
            assert str(project) not in path.read_text()
    assert (target / "00_first" / "table.md").read_text() == "| made in work/00_first |"
    assert RunRecord.load(target / "00_first").metrics["at"] == "work/00_first"
    (cell,) = nbformat.read(target / "00_first" / "00_first.ipynb", as_version=4).cells
    assert size(base64.b64decode(cell.outputs[0].data["image/jpeg"])) == (64, 64)


def swept(project, factors):
    """A notebook's folder with the runs and the summary of a sweep, which may have been others."""
    root = executed_once(project / "work", "00_first") / "sweeps"
    write_lesson(project)
    sweep = load_sweep(write_sweep(project, grid={"factor": factors}))
    for run in sweep.runs:
        executed_once(root / "runs", run.name, dict(run.parameters), notebook="lesson.ipynb")
    write_summary(summarize_sweep(sweep, root), root)
    return [run.name for run in sweep.runs]


def test_runs_that_a_sweep_no_longer_has_are_not_published(project):
    old = swept(project, [1, 2])
    new = swept(project, [2, 3])
    assert old[1] == new[0]
    publish_runs(project / "work", project / "reference", ["00_first"], project)
    root = project / "reference" / "00_first" / "sweeps"
    assert sorted(path.name for path in (root / "runs").iterdir()) == sorted(new)
    assert (root / "trial" / "summary.md").is_file()


def test_the_page_has_a_line_for_each_run_of_a_sweep(project):
    names = swept(project, [2, 3])
    publish_runs(project / "work", project / "reference", ["00_first"], project)
    page = (project / "reference" / "README.md").read_text()
    for name in names:
        (line,) = [line for line in page.splitlines() if name in line]
        assert line.startswith("- [") and line.endswith(
            f"](00_first/sweeps/runs/{name}): done, 60 s"
        )
    assert page.count("a%20figure.jpeg") == 1


def test_figures_get_a_longest_side_and_never_grow(project):
    executed(project / "work", "00_first", side=2500)
    publish_runs(project / "work", project / "reference", ["00_first"], project)
    figure = (project / "reference" / "00_first" / "a figure.jpeg").read_bytes()
    assert size(figure) == (2000, 2000)
    assert size(small_picture(picture(150), 100)[1]) == (100, 100)


def test_photos_become_jpeg_and_drawings_stay_png():
    kind, photo = small_picture(picture(150))
    assert kind == "jpeg" and len(photo) < len(picture(150))
    kind, lines = small_picture(drawing(150))
    assert kind == "png" and len(lines) <= len(drawing(150))
    kind, clear = small_picture(picture(150, alpha=True), 100)
    assert kind == "png" and Image.open(io.BytesIO(clear)).mode == "RGBA"


def test_the_page_shows_records_figures_and_links(project):
    executed(project / "work", "00_first", {"text": "<b>"})
    page = runs_page(project / "work", ["00_first"], "Runs")
    assert "![a figure](00_first/a%20figure.png)" in page
    assert "[the executed notebook](00_first/00_first.ipynb)" in page
    assert "| exact | 0.25 |" in page and "| by\\_size.small | 0.125 |" in page
    assert "1.0 minutes" in page and "<b>" not in page
    with pytest.raises(FileNotFoundError, match=r"01_second/run\.json: there is no record"):
        runs_page(project / "work", ["01_second"], "Runs")


def test_the_committed_reference_goes_with_the_notebooks(root):
    folder = root / "papermill_runs" / "reference"
    if not folder.is_dir():
        pytest.skip("no reference run is committed: 'make reproduce' writes it")
    runs = load_reference(root / "papermill_runs" / "reference.yaml", root / "notebooks")
    assert {path.parent.name for path in folder.glob("*/run.json")} == {each.stem for each in runs}
    for notebook, parameters in runs.items():
        record = RunRecord.load(folder / notebook.stem)
        assert record.status == "done"
        assert record.parameters | {"output_dir": "."} == parameters | {"output_dir": "."}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000


def test_the_reference_file_goes_with_the_notebooks(root):
    runs = load_reference(root / "papermill_runs" / "reference.yaml", root / "notebooks")
    assert list(runs) == sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    assert all(map(json.dumps, runs.values()))
