"""The reference run: every notebook at the settings of one file, published small enough to commit.

Published are records, executed notebooks, figures, tables and an index page. Vector copies of
figures, stores, checkpoints and other large files stay behind, as do runs of settings that a sweep
no longer has. Paths of this machine are shown from the project's folder.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image
from pydantic import BaseModel

from ureca_lib.journal import write_text
from ureca_lib.runs.index import load_record, runs_page
from ureca_lib.runs.parameters import check_parameters, notebook_parameters
from ureca_lib.runs.record import METRICS_NAME, RECORD_NAME
from ureca_lib.runs.summary import SUMMARY_NAME, read_summaries
from ureca_lib.runs.sweep import read_yaml

NOTEBOOKS = "[0-9][0-9]_*.ipynb"
LONGEST_SIDE = 2000  # of a figure in pixels
_QUALITY, _PHOTO = 88, 0.6  # of JPEG; a picture is a photo if JPEG has less than this share of PNG
_LARGEST_TABLE = 200_000  # bytes of a text file that is kept
_TABLES = (".csv", ".json", ".md", ".tex", ".txt")


class _File(BaseModel, extra="forbid"):
    notebooks: dict[str, dict[str, Any]]  # parameters by notebook, without its suffix


def load_reference(path: str | Path, notebooks: str | Path) -> dict[Path, dict[str, Any]]:
    """Plan the reference run: every numbered notebook, in order, with all of its parameters.

    Args:
        path: YAML; `notebooks` holds parameters by notebook, for those not run with defaults.
        notebooks: the folder of the notebooks.

    Returns:
        Parameters but `output_dir` by notebook.

    Raises:
        ValueError: naming the file and what is wrong: a notebook, parameter or type.
    """
    source = Path(path)
    wanted = read_yaml(source, _File).notebooks
    found = {place.stem: place for place in sorted(Path(notebooks).glob(NOTEBOOKS))}
    if unknown := [name for name in wanted if name not in found]:
        raise ValueError(f"{source}: there is no notebook '{unknown[0]}' in {notebooks}")
    planned = {}
    for name, notebook in found.items():
        try:
            if "output_dir" in wanted.get(name, {}):
                raise ValueError("output_dir is the run's own folder")
            known = notebook_parameters(notebook)
            values = check_parameters(known, wanted.get(name, {}), texts=True)
        except ValueError as error:
            raise ValueError(f"{source}: {name}: {error}") from None
        planned[notebook] = {key: value for key, value in values.items() if key != "output_dir"}
    return planned


def publish_runs(
    work: str | Path, target: str | Path, names: Sequence[str], project: str | Path
) -> float:
    """Copy runs to a folder that is committed; an older one there is replaced as a whole.

    Args:
        work: holds a folder per run.
        target: the committed folder.
        names: of the runs' folders, in the page's order.
        project: folder from which paths are shown.

    Returns:
        Its size in megabytes (10^6 bytes).

    Raises:
        FileNotFoundError: a run that has no record.
        ValueError: a sweep's summary that cannot be read.
    """
    source, final = Path(work), Path(target)
    fresh = final.with_name(f".{final.name}.new")
    root = str(Path(project).resolve())
    # how paths of this machine are shown; in a container a home may be /
    hidden = {f"{root}/": "", root: ".", str(Path.home()): "~"}
    hidden = {found: shown for found, shown in hidden.items() if found.strip("/")}
    shutil.rmtree(fresh, ignore_errors=True)
    for name in names:
        _copy_run(source / name, fresh / name, hidden)
    about = "Every notebook, executed at the setting in `reference.yaml` by `ureca reference`. "
    write_text(fresh / "README.md", runs_page(fresh, names, "Reference run", about))
    shutil.rmtree(final, ignore_errors=True)
    fresh.replace(final)
    return sum(path.stat().st_size for path in final.rglob("*") if path.is_file()) / 1e6


def small_picture(data: bytes, side: int = LONGEST_SIDE) -> tuple[str, bytes]:
    """Reduce a PNG: photos become JPEG, drawings stay PNG, and neither grows.

    A palette would be as small, but posterizes skin and fur.

    Args:
        data: of a PNG.
        side: longest side in pixels.

    Returns:
        "jpeg" or "png", and the file.
    """
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        image = image.convert("RGB")  # opaque, as matplotlib's figures are
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    drawing, photo = io.BytesIO(), io.BytesIO()
    image.save(drawing, "PNG", optimize=True)
    smallest = min(data, drawing.getvalue(), key=len)
    if image.mode == "RGB":
        image.save(photo, "JPEG", quality=_QUALITY)
        if photo.tell() < _PHOTO * len(smallest):
            return "jpeg", photo.getvalue()
    return "png", smallest


def _copy_run(source: Path, target: Path, hidden: Mapping[str, str]) -> None:
    record, dropped = load_record(source), _dropped_runs(source)
    for path in sorted(source.rglob("*")):
        if not path.is_file() or dropped & set(path.parents):
            continue
        place = target / path.relative_to(source)
        if path == source / record.output:
            content = _shrunk_notebook(path)
        elif path.suffix == ".png":
            kind, content = small_picture(path.read_bytes())
            place = place.with_suffix(f".{kind}")
        elif path.name == RECORD_NAME or _is_table(path):
            content = path.read_bytes()
        else:
            continue
        if path.suffix != ".png":
            for found, shown in hidden.items():
                content = content.replace(found.encode(), shown.encode())
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _dropped_runs(source: Path) -> set[Path]:
    """Return folders of runs that no sweep there names any more: its settings have changed."""
    dropped: set[Path] = set()
    for root in {path.parent.parent for path in source.rglob(SUMMARY_NAME)}:
        if folders := set((root / "runs").glob("*")):
            summaries = read_summaries(root).values()
            dropped |= folders - {root / run.folder for item in summaries for run in item.runs}
    return dropped


def _is_table(path: Path) -> bool:
    """Tell whether a file is a small table, and not a part of a checkpoint without its weights."""
    small = path.stat().st_size <= _LARGEST_TABLE and path.suffix in _TABLES
    return small and path.name != METRICS_NAME and not any(path.parent.glob("*.safetensors"))


def _shrunk_notebook(path: Path) -> bytes:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).pop("image/png", None):
                kind, small = small_picture(base64.b64decode(picture))
                output["data"][f"image/{kind}"] = base64.b64encode(small).decode()
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
