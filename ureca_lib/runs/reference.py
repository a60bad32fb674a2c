"""The reference run: every notebook at the settings of one file, published small enough to commit.

Published are records, executed notebooks, figures, tables and an index page. Figures are made
coarser step by step until everything fits. Vector copies of figures, stores, checkpoints and other
large files stay behind, as do runs of settings that a sweep no longer has. Paths of this machine
are shown from the project's folder.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ureca_lib.markdown import escaped, table
from ureca_lib.runs.parameters import (
    NotebookError,
    ParameterError,
    check_parameters,
    notebook_parameters,
    same_value,
)
from ureca_lib.runs.record import RECORD_NAME, RunRecord
from ureca_lib.runs.summary import SUMMARY_NAME, flat_numbers, read_summaries
from ureca_lib.runs.sweep import SweepError, read_yaml, typed

NOTEBOOKS = "[0-9][0-9]_*.ipynb"
MEGABYTE = 1_000_000  # bytes
LIMIT_MB = 12.0
_LARGEST_TABLE = 200_000  # bytes of a text file that is kept
_TABLES = (".csv", ".json", ".md", ".tex", ".txt")
_MADE_HERE = (RECORD_NAME, "metrics.json")
_FIGURES = 3  # shown of each run; the others are linked
_VALUES = 12  # measured numbers shown of each run; the record has all


class ReferenceFileError(ValueError):
    """The reference file does not match the notebooks."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    notebooks: dict[str, dict[str, Any]] = Field(description="parameters by notebook, no suffix")


@dataclass(frozen=True)
class ReferenceRun:
    """One notebook of the reference, and all of its parameters but `output_dir`."""

    notebook: Path
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.notebook.stem


def load_reference(path: str | Path, notebooks: str | Path) -> list[ReferenceRun]:
    """Plan the reference run: every numbered notebook, in order.

    Args:
        path: YAML; `notebooks` holds parameters by notebook, for those not run with defaults.
        notebooks: the folder of the notebooks.

    Raises:
        ReferenceFileError: naming the file and what is wrong: a notebook, parameter or type.
    """
    source = Path(path)
    found = {place.stem: place for place in sorted(Path(notebooks).glob(NOTEBOOKS))}
    try:
        wanted = read_yaml(source, _File).notebooks
    except SweepError as error:
        raise ReferenceFileError(str(error)) from None
    if unknown := [name for name in wanted if name not in found]:
        raise ReferenceFileError(f"{source}: there is no notebook '{unknown[0]}' in {notebooks}")
    return [_planned(source, place, wanted.get(name, {})) for name, place in found.items()]


def compare_reference(runs: Sequence[ReferenceRun], folder: str | Path) -> list[str]:
    """Compare a committed reference with the present notebooks and their settings.

    Args:
        runs: from `load_reference`.
        folder: of the committed reference.

    Returns:
        A line per difference; empty if all records are of done runs with these parameters.
    """
    root, differences = Path(folder), []
    there = {path.parent.name for path in root.glob(f"*/{RECORD_NAME}")}
    differences += [f"{name}: a record of no notebook" for name in there - {r.name for r in runs}]
    for run in runs:
        record = RunRecord.load(root / run.name)
        if record is None:
            differences.append(f"{run.name}: no record")
            continue
        if record.status != "done":
            differences.append(f"{run.name}: its run is '{record.status}'")
        then = {name: value for name, value in record.parameters.items() if name != "output_dir"}
        for name in sorted(then.keys() | run.parameters.keys()):
            old, new = then.get(name, "missing"), run.parameters.get(name, "missing")
            if not same_value(old, new):
                differences.append(f"{run.name}: {name} was {old!r}, and now is {new!r}")
    return sorted(differences)


def _planned(source: Path, notebook: Path, wanted: Mapping[str, Any]) -> ReferenceRun:
    try:
        known = notebook_parameters(notebook)
        values = check_parameters(known, typed(known, wanted))
    except (NotebookError, ParameterError) as error:
        raise ReferenceFileError(f"{source}: {notebook.stem}: {error}") from None
    if "output_dir" in wanted:
        raise ReferenceFileError(f"{source}: {notebook.stem}: output_dir is the run's own folder")
    values.pop("output_dir", None)
    return ReferenceRun(notebook, values)


class TooLargeError(RuntimeError):
    """The runs do not fit, however coarse their figures are; names the largest files."""


@dataclass(frozen=True)
class Coarseness:
    """Bounds that a PNG is reduced to."""

    longest_side: int = field(metadata={"help": "in pixels; larger ones are resized"})
    colors: int | None = field(metadata={"help": "of a palette; None keeps all colors"})


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
    """Copy runs to a folder that is committed; an older one there is replaced as a whole.

    Args:
        work: holds a folder per run.
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
    names_of = ", ".join(
        f"{path.relative_to(fresh)} {path.stat().st_size / MEGABYTE:.1f}" for path in largest
    )
    shutil.rmtree(fresh)
    raise TooLargeError(f"the runs take {size:.1f} MB, more than {limit_mb:g}; largest: {names_of}")


def shrink_png(data: bytes, level: Coarseness) -> bytes:
    """Reduce a PNG to a level's bounds; return the given bytes if that is not smaller.

    Args:
        data: of a PNG.
        level: bounds.
    """
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
    image.thumbnail((level.longest_side, level.longest_side), Image.Resampling.LANCZOS)
    if level.colors:
        # the only method of Pillow's that takes transparent pixels
        method = Image.Quantize.FASTOCTREE if image.mode == "RGBA" else Image.Quantize.MEDIANCUT
        image = image.quantize(level.colors, method, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return min(data, buffer.getvalue(), key=len)


def _hidden(project: str | Path) -> list[tuple[str, str]]:
    """Return how paths of this machine are shown."""
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
    """Return folders of runs that no sweep there names any more: its settings have changed."""
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
    """Tell whether a file belongs to a checkpoint: it is of no use without the weights."""
    return any(path.parent.glob("*.safetensors"))


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


def reference_page(root: str | Path, names: Sequence[str]) -> str:
    """Return the index page in Markdown: runs, machines, times, measured values and figures.

    Args:
        root: holds a folder per run, each with its `run.json`; links are relative to it.
        names: of the folders, in the page's order.

    Raises:
        FileNotFoundError: a folder without a record.
    """
    folder = Path(root)
    records = {}
    for name in names:
        record = RunRecord.load(folder / name)
        if record is None:
            raise FileNotFoundError(f"{folder / name / RECORD_NAME}: there is no record of the run")
        records[name] = record
    rows = [
        [name, record.status, f"{record.seconds:.0f} s", record.started[:10], record.commit or ""]
        for name, record in records.items()
    ]
    total = sum(record.seconds for record in records.values())
    parts = [
        "# Reference run\n",
        "Every notebook, executed at the setting in `reference.yaml` by `ureca reference`. "
        f"All of them took {total / 60:.1f} minutes{_where(list(records.values()))}.\n",
        table(["notebook", "state", "time", "day", "commit"], rows, right=(2,)),
        *(_section(folder, name, record) for name, record in records.items()),
    ]
    return "\n".join(parts)


def _where(records: Sequence[RunRecord]) -> str:
    machines = dict.fromkeys(
        f"{item.get('device')}, {item.get('cores')} cores, {item.get('platform')}"
        for item in (record.machine for record in records)
    )
    return f" on {escaped('; '.join(machines))}" if machines else ""


def _section(root: Path, name: str, record: RunRecord) -> str:
    links = [_link(root, root / name / record.output, "the executed notebook")]
    links.append(_link(root, root / name / RECORD_NAME, "its record"))
    runs = sorted(path.parent for path in (root / name).glob(f"*/**/{RECORD_NAME}"))
    files = sorted(
        path
        for path in (root / name).rglob("*")
        if path.is_file() and not any(run in path.parents for run in runs)
    )
    own = {record.output, RECORD_NAME}
    pictures = [path for path in files if path.suffix == ".png"]
    others = [path for path in files if path not in pictures and path.name not in own]
    links += [_link(root, path, path.name) for path in [*pictures[_FIGURES:], *others]]
    lines = [f"## {escaped(name)}\n", f"{' · '.join(links)}\n"]
    if runs:  # of a sweep in the notebook
        lines.append("Runs that it made:\n")
        lines.append("".join(f"- {_run_line(root, name, run)}\n" for run in runs))
    changed = {key: value for key, value in record.parameters.items() if key != "output_dir"}
    lines.append(f"Parameters: {escaped(_settings_text(changed))}.\n")
    numbers = list(flat_numbers(record.metrics).items())
    if numbers:
        rows = [[key, f"{value:.4g}"] for key, value in numbers[:_VALUES]]
        lines.append(table(["measured", "value"], rows, right=(1,)))
    if len(numbers) > _VALUES:
        lines.append(f"{len(numbers) - _VALUES} further values are in the record.\n")
    for path in pictures[:_FIGURES]:
        alt = escaped(path.stem.replace("_", " "))
        lines.append(f"![{alt}]({_address(root, path)})\n")
    return "\n".join(lines)


def _run_line(root: Path, name: str, folder: Path) -> str:
    link = _link(root, folder, folder.relative_to(root / name).as_posix())
    record = RunRecord.load(folder)
    return f"{link}: {record.status}, {record.seconds:.0f} s" if record else link


def _settings_text(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items()) or "none"


def _link(root: Path, path: Path, label: str) -> str:
    return f"[{escaped(label)}]({_address(root, path)})"


def _address(root: Path, path: Path) -> str:
    return quote(path.relative_to(root).as_posix())
