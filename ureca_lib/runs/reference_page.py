"""The index page of committed runs, in Markdown, which code hosts show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ureca_lib.markdown import escaped, table
from ureca_lib.runs.record import RECORD_NAME, RunRecord
from ureca_lib.runs.summary import flat_numbers

_FIGURES = 3  # shown of each run; the others are linked
_VALUES = 12  # measured numbers shown of each run; the record has all


def reference_page(root: str | Path, names: Sequence[str]) -> str:
    """What was run, where and how long, and what it measured and drew.

    Args:
        root: holds one folder a run, each with its `run.json`; links are relative to it.
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
    lines.append(f"Parameters: {escaped(_shown(changed))}.\n")
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


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items()) or "none"


def _link(root: Path, path: Path, label: str) -> str:
    return f"[{escaped(label)}]({_address(root, path)})"


def _address(root: Path, path: Path) -> str:
    return quote(path.relative_to(root).as_posix())
