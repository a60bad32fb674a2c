"""Pages about the runs in a folder: their states, parameters, measured values and figures."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from ureca_lib.journal import write_text
from ureca_lib.markdown import escaped, table
from ureca_lib.runs.record import RECORD_NAME, RunRecord
from ureca_lib.runs.summary import flat_numbers, machine_text

_TEXTS = (".csv", ".html", ".json", ".jsonl", ".md", ".tex", ".txt")  # files that are linked
_VALUES = 12  # measured numbers shown of each run; the record has all
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; color: #222; }
img { max-height: 15rem; max-width: 32rem; border: 1px solid #ddd; }
td, th { padding-right: 1.5rem; text-align: left; } .anchor-link { display: none; }
p:has(> img) { display: inline-block; margin: .3rem; }
"""


def write_index(folder: str | Path, title: str = "URECA: executed notebooks") -> Path:
    """Write `index.html`, and each executed notebook as HTML beside it.

    Args:
        folder: holds a folder per run, each with its `run.json`.
        title: of the page.

    Returns:
        The path of the page.
    """
    root = Path(folder)
    places = sorted(path.parent for path in root.glob(f"*/{RECORD_NAME}"))
    records = {place: record for place in places if (record := RunRecord.load(place))}
    exporter = HTMLExporter(sanitize_html=False, embed_images=False)
    for place, record in records.items():
        if (notebook := place / record.output).is_file():
            text, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
            write_text(notebook.with_suffix(".html"), text)
    page = runs_page(root, [place.name for place in records], title, figures=100)
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    text = f"<!doctype html><html lang='en'>{head}{markdown2html(page)}</html>\n"
    return write_text(root / "index.html", text)


def runs_page(
    root: str | Path, names: Sequence[str], title: str, about: str = "", figures: int = 3
) -> str:
    """Return a page in Markdown: runs, machines, times, measured values and figures.

    Args:
        root: holds a folder per run, each with its `run.json`; links are relative to it.
        names: of the folders, in the page's order.
        title: of the page.
        about: a sentence below the title.
        figures: that are shown of each run; the others are linked.

    Raises:
        FileNotFoundError: a folder without a record.
    """
    folder = Path(root)
    records = {name: load_record(folder / name) for name in names}
    rows = [
        [name, record.status, f"{record.seconds:.0f} s", record.started[:10], record.commit or ""]
        for name, record in records.items()
    ]
    total = sum(record.seconds for record in records.values())
    machines = dict.fromkeys(machine_text(record.machine) for record in records.values())
    where = f" on {escaped('; '.join(machines))}" if machines else ""
    parts = [
        f"# {escaped(title)}\n",
        f"{about}All of them took {total / 60:.1f} minutes{where}.\n",
        table(["notebook", "state", "time", "day", "commit"], rows, right=(2,)),
        *(_section(folder, name, record, figures) for name, record in records.items()),
    ]
    return "\n".join(parts)


def load_record(place: Path) -> RunRecord:
    """Read the record in a run's folder.

    Raises:
        FileNotFoundError: there is none.
    """
    if record := RunRecord.load(place):
        return record
    raise FileNotFoundError(f"{place / RECORD_NAME}: there is no record of the run")


def _section(root: Path, name: str, record: RunRecord, figures: int) -> str:
    place = root / name
    links = [_link(root, place / record.output, "the executed notebook")]
    links.append(_link(root, place / RECORD_NAME, "its record"))
    runs = sorted(path.parent for path in place.glob(f"*/**/{RECORD_NAME}"))
    files = [path for path in sorted(place.rglob("*")) if not set(runs) & set(path.parents)]
    pictures = [path for path in files if path.suffix in (".png", ".jpeg")]
    others = [path for path in files if path.suffix in _TEXTS and path.name != RECORD_NAME]
    links += [_link(root, path, path.name) for path in [*pictures[figures:], *others]]
    lines = [f"## {escaped(name)}\n", f"{' · '.join(links)}\n"]
    if error := record.error:
        reason = f"cell {error.get('cell')}: {error.get('name')}: {error.get('message')}"
        lines.append(f"**Failed in {escaped(reason)}**\n")
    if runs:  # of a sweep in the notebook
        lines.append("Runs that it made:\n")
        lines.append("".join(f"- {_run_line(root, name, run)}\n" for run in runs))
    values = {key: value for key, value in record.parameters.items() if key != "output_dir"}
    settings = ", ".join(f"{key} {json.dumps(value)}" for key, value in values.items())
    lines.append(f"Parameters: {escaped(settings or 'none')}.\n")
    numbers = [[key, f"{value:.4g}"] for key, value in flat_numbers(record.metrics).items()]
    if numbers:
        lines.append(table(["measured", "value"], numbers[:_VALUES], right=(1,)))
    if len(numbers) > _VALUES:
        lines.append(f"{len(numbers) - _VALUES} further values are in the record.\n")
    for path in pictures[:figures]:
        lines.append(f"!{_link(root, path, path.stem.replace('_', ' '))}\n")
    return "\n".join(lines)


def _run_line(root: Path, name: str, folder: Path) -> str:
    link = _link(root, folder, folder.relative_to(root / name).as_posix())
    record = RunRecord.load(folder)
    return f"{link}: {record.status}, {record.seconds:.0f} s" if record else link


def _link(root: Path, path: Path, label: str) -> str:
    return f"[{escaped(label)}]({quote(path.relative_to(root).as_posix())})"
