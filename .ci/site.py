"""Gather the pages of the site and build it: README, executed notebooks, commands, docstrings.

    python .ci/site.py        # or: make site

Pages keep their places in the repository, so that links between them work. Links to files that have
no page become plain text.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import shutil
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.commands.build import build
from mkdocs.config import load_config
from typer.testing import CliRunner

from ureca_lib.cli import GROUPS, app

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "papermill_runs" / "latest" / "site_pages"
COURSE = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
TEXTS = {
    "README.md": "URECA",
    "notebooks/README.md": "The researcher's path",
    "papermill_runs/benchmarks/RESULTS.md": "Results",
    "data_samples/README.md": "Samples",
    "CONTRIBUTING.md": "Contributing",
    "CHANGELOG.md": "Changes",
}
PICTURES = ["data_samples/overview.jpg"]
CSS = """\
.md-grid { max-width: 84rem; }
.jp-InputPrompt, .jp-OutputPrompt { display: none !important; }
.md-typeset .jp-OutputArea-output img { max-width: 100%; height: auto; }
.md-typeset .jp-OutputArea-output { overflow-x: auto; }
"""


def write(name: str, text: str) -> None:
    path = PAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def with_links(name: str, text: str) -> str:
    """Keep the links that lead to a page; of the others, the text alone."""

    def linked(match: re.Match[str]) -> str:
        words, target = match.groups()
        path = target.partition("#")[0]
        if path.startswith("papermill_runs/reference"):
            return f"[{words}](notebooks/00_quickstart.ipynb)"
        if not path or path.startswith("http"):
            return match[0]
        place = (ROOT / name).parent.joinpath(path).resolve()
        kept = place.is_relative_to(ROOT) and str(place.relative_to(ROOT)) in pages()
        return match[0] if kept else words

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", linked, text)


def pages() -> set[str]:
    return {*TEXTS, *PICTURES, *(f"notebooks/{name}.ipynb" for name in COURSE)}


def formula(match: re.Match[str]) -> str:
    """A formula as MathML, which browsers draw by themselves; MathJax would have to be fetched."""
    block, inline = match.groups()
    return convert(block or inline, display="block" if block else "inline")


def notebook(name: str) -> str:
    """The executed copy of a notebook, without progress bars, which need scripts from elsewhere."""
    content = json.loads((ROOT / f"papermill_runs/reference/{name}/{name}.ipynb").read_text())
    content["metadata"].pop("widgets", None)
    for cell in content["cells"]:
        cell["outputs"] = [
            output
            for output in cell.get("outputs", [])
            if "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        ]
        if cell["cell_type"] == "markdown":
            del cell["outputs"]
            text = "".join(cell["source"])
            text = re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", formula, text, flags=re.DOTALL)
            cell["source"] = with_links(f"notebooks/{name}.ipynb", text)
    return json.dumps(content)


def commands() -> str:
    """The help of every command."""
    lines = ["# Commands"]
    for title, group in GROUPS.items():
        lines.append(f"\n## {title}")
        for name in group:
            shown = CliRunner().invoke(app, [name, "--help"], prog_name="ureca", terminal_width=96)
            lines.append(f"\n### ureca {name}\n\n```text\n{shown.output.strip()}\n```")
    return "\n".join(lines) + "\n"


def library_names() -> str:
    """Overview of the API: the first sentence of each module."""
    lines = ["# API", "", "| module | subject |", "|---|---|"]
    for name in modules():
        folder = ROOT / "ureca_lib" / name
        path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[
            0
        ]
        lines.append(f"| [{name}]({name}.md) | {first} |")
    return "\n".join(lines) + "\n"


def modules() -> list[str]:
    """The modules and packages at the top of the library."""
    paths = [*(ROOT / "ureca_lib").glob("*.py"), *(ROOT / "ureca_lib").glob("*/__init__.py")]
    names = {path.stem if path.stem != "__init__" else path.parent.name for path in paths}
    return sorted(names - {"ureca_lib", "cli"})


def main() -> None:
    logging.getLogger("mkdocs").addHandler(logging.StreamHandler())
    shutil.rmtree(PAGES, ignore_errors=True)
    for name in TEXTS:
        write(name, with_links(name, (ROOT / name).read_text(encoding="utf-8")))
    for name in PICTURES:
        shutil.copy(ROOT / name, PAGES / name)
    for name in COURSE:
        write(f"notebooks/{name}.ipynb", notebook(name))
    write("api/commands.md", commands())
    for name in modules():
        write(f"api/{name}.md", f"::: ureca_lib.{name}\n    options: {{heading_level: 1}}\n")
    write("api/index.md", library_names())
    write("site.css", CSS)
    texts = [{title: name} for name, title in TEXTS.items()]
    nav = [
        {"Home": [texts[0], *texts[2:]]},
        {"Course": [*({n.replace("_", " "): f"notebooks/{n}.ipynb"} for n in COURSE), texts[1]]},
        {"Commands": "api/commands.md"},
        {"API": ["api/index.md", *({name: f"api/{name}.md"} for name in modules())]},
    ]
    build(load_config(str(ROOT / ".ci" / "mkdocs.yml"), nav=nav, strict=True))


if __name__ == "__main__":
    main()
