"""Write results and benchmarks' tables into papermill_runs/benchmarks/RESULTS.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parents[2] / "papermill_runs" / "benchmarks" / "RESULTS.md"
HEAD = """# Benchmarks

Each table is written by the command above it. Ratios are against the baseline named in the same
table, measured in the same run; times are medians. `make bench` runs them all.
"""


def machine() -> str:
    """The processor, the cores this process may use, and the accelerator if there is one."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        model = found.group(1).strip() if found else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    card = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return f"{model}, {cores} cores, {torch.get_num_threads()} threads used{card}"


def record(section: str, markdown: str, command: str) -> None:
    """Print a result and replace its section in RESULTS.md.

    Args:
        section: the heading; a section of that name is replaced.
        markdown: the table, and what it says.
        command: what was run, as one would type it at the repository's root.
    """
    packages = ("torch", "transformers", "pycocotools", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    lines = [
        f"## {section}\n",
        f"`{command}`, {datetime.date.today().isoformat()}\n",
        f"{machine()}; Python {platform.python_version()}, {versions}\n",
        markdown.strip(),
    ]
    text = "\n".join(lines)
    print(text)
    results, existing = _parts()
    parts = re.split(r"(?m)^(?=## )", existing)
    others = [part.strip() for part in parts[1:] if not part.startswith(f"## {section}\n")]
    _write(results, "\n\n".join([HEAD.strip(), *sorted([*others, text.strip()])]))


def write_results(results: str) -> None:
    """Replace the first part of RESULTS.md, which comes from the committed records."""
    _write(results, _parts()[1])


def _parts() -> tuple[str, str]:
    """RESULTS.md's part about the models, and the one about speed, which begins at `HEAD`."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else HEAD
    results, _, rest = text.partition("# Benchmarks\n")
    return results.strip(), f"# Benchmarks\n{rest}".strip()


def _write(results: str, benchmarks: str) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(f"{results}\n\n{benchmarks}\n".lstrip(), encoding="utf-8")
