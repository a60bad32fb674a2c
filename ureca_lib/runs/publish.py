"""Executed runs made small enough to be committed: records, notebooks, figures, tables, an index.

Figures are made coarser step by step until everything fits. Vector copies of figures,
stores, checkpoints and other large files stay behind, and so do runs of settings that a sweep in
a notebook's folder no longer has. Paths of the machine are shown from the
project's folder.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from PIL import Image

from ureca_lib.runs.record import RECORD_NAME, RunRecord
from ureca_lib.runs.reference_page import reference_page
from ureca_lib.runs.summary import SUMMARY_NAME, read_summaries

MEGABYTE = 1_000_000  # bytes
LIMIT_MB = 12.0
_LARGEST_TABLE = 200_000  # bytes of a text file that is kept
_TABLES = (".csv", ".json", ".md", ".tex", ".txt")
_WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "optimizer.pt")
_MADE_HERE = (RECORD_NAME, "metrics.json")


class TooLargeError(RuntimeError):
    """Runs that do not fit, however coarse their figures are; names the largest files."""


@dataclass(frozen=True)
class Coarseness:
    """How much a PNG may be reduced."""

    longest_side: int = field(metadata={"help": "in pixels; larger ones are resized"})
    colours: int | None = field(metadata={"help": "of a palette; None keeps all"})


LEVELS = (
    Coarseness(2000, None),
    Coarseness(1600, 256),
    Coarseness(1200, 256),
    Coarseness(900, 128),
    Coarseness(700, 64),
)


def publish_runs(
    work: str | Path,
    target: str | Path,
    names: Sequence[str],
    project: str | Path,
    limit_mb: float = LIMIT_MB,
) -> tuple[float, Coarseness]:
    """Copy runs into a folder that is committed; an older one there is replaced as a whole.

    Args:
        work: holds one folder a run.
        target: the committed folder.
        names: of the runs' folders, in the page's order.
        project: folder from which paths are shown.
        limit_mb: most megabytes (10^6 bytes) of the whole.

    Returns:
        Its size in megabytes, and how coarse its figures had to be made.

    Raises:
        FileNotFoundError: a run that has no record.
        ValueError: a sweep's summary that cannot be read.
        TooLargeError: it does not fit even with the coarsest figures.
    """
    source, final = Path(work), Path(target)
    fresh = final.with_name(f".{final.name}.new")
    for level in LEVELS:
        shutil.rmtree(fresh, ignore_errors=True)
        for name in names:
            _copy_run(source / name, fresh / name, level, _hidden(project))
        (fresh / "README.md").write_text(reference_page(fresh, names), encoding="utf-8")
        files = [path for path in fresh.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / MEGABYTE
        if size <= limit_mb:
            _swap(fresh, final)
            return size, level
    largest = sorted(files, key=lambda path: -path.stat().st_size)[:5]
    told = ", ".join(
        f"{path.relative_to(fresh)} {path.stat().st_size / MEGABYTE:.1f}" for path in largest
    )
    shutil.rmtree(fresh)
    raise TooLargeError(f"the runs take {size:.1f} MB, more than {limit_mb:g}; largest: {told}")


def shrink_png(data: bytes, level: Coarseness) -> bytes:
    """A PNG within a level's bounds; the given bytes where that would not make it smaller.

    Args:
        data: of a PNG.
        level: what it may be reduced to.
    """
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
    image.thumbnail((level.longest_side, level.longest_side), Image.Resampling.LANCZOS)
    if level.colours:
        # the only method of Pillow's that takes transparent pixels
        method = Image.Quantize.FASTOCTREE if image.mode == "RGBA" else Image.Quantize.MEDIANCUT
        image = image.quantize(level.colours, method, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return min(data, buffer.getvalue(), key=len)


def _hidden(project: str | Path) -> list[tuple[str, str]]:
    """What paths of this machine are shown as."""
    root = str(Path(project).resolve())
    return [(f"{root}/", ""), (root, "."), (str(Path.home()), "~")]


def _copy_run(source: Path, target: Path, level: Coarseness, hidden: list[tuple[str, str]]) -> None:
    record = RunRecord.load(source)
    if record is None:
        raise FileNotFoundError(f"{source / RECORD_NAME}: there is no record of the run")
    target.mkdir(parents=True)
    left = _dropped_runs(source)
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        if left.intersection(path.parents):
            continue
        place = target / path.relative_to(source)
        if path.name == record.output and path.parent == source:
            text = _shrunk_notebook(path, level)
        elif path.suffix == ".png":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(shrink_png(path.read_bytes(), level))
            continue
        elif path.name == RECORD_NAME or (_is_table(path) and not _goes_with_weights(path)):
            text = path.read_text(encoding="utf-8")
        else:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_without(text, hidden), encoding="utf-8")


def _dropped_runs(source: Path) -> set[Path]:
    """Folders of runs that no sweep there names: its file had other settings when they were run."""
    dropped: set[Path] = set()
    for root in {path.parent.parent for path in source.rglob(SUMMARY_NAME)}:
        if folders := set((root / "runs").glob("*")):
            summaries = read_summaries(root).values()
            dropped |= folders - {root / run.folder for item in summaries for run in item.runs}
    return dropped


def _is_table(path: Path) -> bool:
    small = path.stat().st_size <= _LARGEST_TABLE
    return small and path.suffix in _TABLES and path.name not in _MADE_HERE


def _goes_with_weights(path: Path) -> bool:
    """Whether a file lies in a checkpoint's folder, where it is of no use without the weights."""
    return any((path.parent / name).exists() for name in _WEIGHTS)


def _shrunk_notebook(path: Path, level: Coarseness) -> str:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png")
            if picture:
                small = shrink_png(base64.b64decode(picture), level)
                output["data"]["image/png"] = base64.b64encode(small).decode()
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _without(text: str, hidden: list[tuple[str, str]]) -> str:
    for found, shown in hidden:
        if found not in ("/", ""):
            text = text.replace(found, shown)
    return text


def _swap(fresh: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.replace(old)
    fresh.replace(final)
    shutil.rmtree(old, ignore_errors=True)
