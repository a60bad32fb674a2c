"""Tables as Markdown, LaTeX and HTML; every text from outside is escaped.

Quoted and measured rows stand apart and say what they are. A dash carries a letter, and its reason
stands below under that letter; below too stands what computed the figures of each measured row.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

from ureca_lib.evaluate.tables import Row, Table
from ureca_lib.markdown import escaped, table

ORIGINS = {"quoted": "printed in the paper", "measured": "measured here"}
DASH = "–"
_PIECE = 200  # characters that `escaped` leaves whole
_HEAD = ("Origin", "Trained on", "Data")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "…": r"\ldots{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
} | {sign: f"\\{sign}" for sign in "&%$#_"}


@dataclass(frozen=True)
class _Shown:
    """A table as plain texts, before any markup: each figure with the letter of its reason."""

    head: list[str]
    rows: list[tuple[str, list[str], list[tuple[str, str]]]]  # origin, texts, (figure, letter)
    notes: list[str]


def markdown(content: Table, intervals: bool = False) -> str:
    """A heading, the table and its notes."""
    shown = _shown(content, intervals)
    rows = [
        [*texts, *(f"{figure} ({letter})" if letter else figure for figure, letter in figures)]
        for _, texts, figures in shown.rows
    ]
    first = 1 + len(_HEAD)
    grid = table(shown.head, rows, right=range(first, len(shown.head)))
    notes = "".join(f"- {_escaped_whole(note)}\n" for note in shown.notes)
    return f"**{_caption(content, escaped)}**\n\n{grid}\n{notes}"


def latex(content: Table, intervals: bool = False) -> str:
    """A `table` with booktabs rules; needs `\\usepackage{booktabs}` and `[T1]{fontenc}`."""
    shown = _shown(content, intervals)
    columns = "l" * (1 + len(_HEAD)) + "r" * len(content.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_caption(content, latex_escaped)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [_latex_line(map(latex_escaped, shown.head))]
    before = None
    for origin, texts, figures in shown.rows:
        if origin != before:
            lines.append(r"\midrule")
        before = origin
        cells = [
            latex_escaped(figure) + (rf"\textsuperscript{{{letter}}}" if letter else "")
            for figure, letter in figures
        ]
        lines.append(_latex_line([*map(latex_escaped, texts), *cells]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {latex_escaped(note)}" for note in shown.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html(content: Table, intervals: bool = False) -> str:
    """A `<table>` with its notes, without scripts or styles from elsewhere."""
    shown = _shown(content, intervals)
    head = "".join(f"<th>{escape(name)}</th>" for name in shown.head)
    body = []
    for origin, texts, figures in shown.rows:
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        cells += "".join(
            f"<td>{escape(figure)}{f'<sup>{letter}</sup>' if letter else ''}</td>"
            for figure, letter in figures
        )
        body.append(f'<tr class="{origin}">{cells}</tr>')
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in shown.notes)
    caption = f"<caption>{_caption(content, escape)}</caption>"
    rows = "".join(body)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}"


def latex_escaped(text: str) -> str:
    """Text in one line that LaTeX sets as it is."""
    return re.sub(r".", lambda found: _LATEX.get(found[0], found[0]), " ".join(text.split()))


def _escaped_whole(text: str) -> str:
    """`escaped`, which cuts long texts, for a long one."""
    return " ".join(escaped(part) for part in textwrap.wrap(text, _PIECE, break_on_hyphens=False))


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _caption(content: Table, escaping: Callable[[str], str]) -> str:
    return escaping(f"Table {content.number} of the paper: {content.title}, in percent")


def _shown(content: Table, intervals: bool) -> _Shown:
    letters: dict[str, str] = {}
    rows = []
    for row in sorted(content.rows, key=lambda row: row.origin != "quoted"):
        texts = [row.system, ORIGINS[row.origin], row.trained_on, row.data]
        figures = []
        for key in content.columns:
            cell = row.cells[key]
            letter = ""
            if cell.value is None:
                letter = letters.setdefault(cell.reason, _letter(len(letters)))
            figures.append((cell.text(content.decimals, intervals) or DASH, letter))
        rows.append((row.origin, texts, figures))
    notes = [*content.notes, *(f"({letter}) {reason}." for reason, letter in letters.items())]
    if len({row.data for row in content.rows}) > 1:
        notes.append("Rows of different data do not compare.")
    notes += [_provenance(row, content) for row in content.rows if row.origin == "measured"]
    return _Shown([content.head, *_HEAD, *content.columns.values()], rows, notes)


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def _provenance(row: Row, content: Table) -> str:
    """What computed a measured row, from which predictions, made by which command."""
    sources = [row.cells[key].source for key in content.columns]
    labels: dict[str, list[str]] = {}
    for source in sources:
        if source.computed_by:
            labels.setdefault(source.computed_by, []).append(source.label)
    backends = [f"{', '.join(names)} by {backend}" for backend, names in labels.items()]
    files = dict.fromkeys(
        source.place + (f" (sha256 {source.sha256[:12]})" if source.sha256 else "")
        for source in sources
    )
    commands = dict.fromkeys(source.command for source in sources if source.command)
    parts = [f"{row.system}: {'; '.join(backends) or 'nothing was measured'}"]
    parts.append(f"predictions {', '.join(files)}")
    if commands:
        parts.append(f"made by {', '.join(commands)}")
    return "; ".join(parts) + "."
