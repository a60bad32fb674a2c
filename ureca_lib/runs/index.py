"""HTML page of the runs in a folder: their states, parameters, measured values and figures."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbconvert import HTMLExporter

from ureca_lib.journal import write_text
from ureca_lib.runs.record import RECORD_NAME, RunRecord

FIGURE_SUFFIXES = (".png", ".svg")
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; color: #222; }
section { border-top: 1px solid #ddd; padding: 1rem 0; }
.done { color: #00704a; } .failed { color: #b30000; }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; }
.figures img { max-height: 15rem; max-width: 32rem; border: 1px solid #ddd; }
code, td { font-size: .85rem; } td { padding-right: 1.5rem; vertical-align: top; }
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
    sections = []
    for place in sorted(path.parent for path in root.glob(f"*/{RECORD_NAME}")):
        record = RunRecord.load(place)
        if record is not None:
            sections.append(_section(place, record))
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    body = f"<h1>{html.escape(title)}</h1>{''.join(sections)}"
    page = f"<!doctype html><html lang='en'>{head}{body}</html>\n"
    return write_text(root / "index.html", page)


def _section(place: Path, record: RunRecord) -> str:
    name = html.escape(Path(record.notebook).stem)
    notebook = place / record.output
    links = []
    if notebook.is_file():
        links.append(_link(place, _as_html(notebook), "read"))
        links.append(_link(place, notebook, "notebook"))
    links.append(_link(place, place / RECORD_NAME, "record"))
    others = [path for path in sorted(place.rglob("*")) if path.suffix in (".jsonl", ".csv", ".md")]
    links += [_link(place, path, path.name) for path in others]
    error = ""
    if record.error:
        text = f"cell {record.error.get('cell')}: {record.error.get('name')}: "
        error = f"<p class='failed'>{html.escape(text + str(record.error.get('message')))}</p>"
    figures = [path for path in sorted(place.rglob("*")) if path.suffix in FIGURE_SUFFIXES]
    images = "".join(_figure(place, path) for path in figures)
    status = html.escape(record.status)
    return (
        f"<section><h2>{name} <small class='{status}'>{status}, {record.seconds:g} s</small></h2>"
        f"<p>{' · '.join(links)}</p>{error}{_table(record.parameters, 'parameter')}"
        f"{_table(record.metrics, 'measured')}<div class='figures'>{images}</div></section>"
    )


def _as_html(notebook: Path) -> Path:
    target = notebook.with_suffix(".html")
    if not target.is_file() or target.stat().st_mtime < notebook.stat().st_mtime:
        exporter = HTMLExporter(sanitize_html=False, embed_images=False)
        text, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
        write_text(target, text)
    return target


def _address(place: Path, path: Path) -> str:
    return quote(path.relative_to(place.parent).as_posix())


def _link(place: Path, path: Path, label: str) -> str:
    return f"<a href='{_address(place, path)}'>{html.escape(label)}</a>"


def _figure(place: Path, path: Path) -> str:
    address = _address(place, path)
    alt = html.escape(path.stem.replace("_", " "))
    return f"<a href='{address}'><img src='{address}' alt='{alt}' title='{alt}'></a>"


def _table(values: dict, label: str) -> str:
    if not values:
        return ""
    rows = "".join(
        f"<tr><td><code>{html.escape(str(name))}</code></td><td>{html.escape(_shown(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<details><summary>{label}</summary><table>{rows}</table></details>"


def _shown(value: object) -> str:
    """Return a value for readers: four digits of a float, `name value` for a dictionary."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    return str(value)
