"""Text in Markdown: it reads as it was, and breaks nothing."""

from __future__ import annotations

import html
import unicodedata

import mistune
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.markdown import escaped, percent, table

RENDER = mistune.create_markdown(
    escape=True, plugins=["table", "url", "strikethrough", "math", "superscript", "subscript"]
)
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")


def shown(text):
    """What a reader is to see of a text."""
    line = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(c) in HIDDEN else c for c in line)


def cells(markdown):
    """Texts of the body cells of a rendered table, which has to be one table and nothing else."""
    page = RENDER(markdown)
    assert page.startswith("<table>") and page.count("<table>") == 1
    assert page.rstrip().endswith("</table>")
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    rows = [row.split("</td>")[:-1] for row in body.split("</tr>")[:-1]]
    inner = [[cell.split(">", 1)[1] for cell in _cells(row)] for row in rows]
    assert all("<" not in cell for row in inner for cell in row)
    return [[html.unescape(cell) for cell in row] for row in inner]


def _cells(row):
    return [cell[cell.index("<td") :] for cell in row]


ODD = st.text(
    st.sampled_from("ab |`*_~<>&[]()!#$^:/\\@.-+=\n\t\r\u2028\u202e\x00é樹'\"") | st.characters(),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(ODD, min_size=1, max_size=3))
def test_a_cell_reads_as_what_it_was_given(texts):
    rows = [[f"x{text}x", "second"] for text in texts]
    found = cells(table(["one", "two"], rows))
    assert found == [[shown(first), second] for first, second in rows]


@pytest.mark.parametrize(
    "text",
    [
        "^0^ ~1~",
        "<script>alert(1)</script>",
        "a | b",
        "a \\| b",
        "`code | more`",
        "[link](http://example.org)",
        "![image](x.png)",
        "http://example.org www.example.org a@example.org",
        "**bold** _it_ ~~gone~~ $x$ &amp; <br>",
        "line one\nline two\n\n# heading\n| a | b |",
    ],
)
def test_markup_is_shown_and_not_followed(text):
    assert cells(table(["one"], [[text]])) == [[shown(text)]]


def test_addresses_do_not_become_links():
    assert escaped("WWW.example.org, http://x, a@b: c") == "WWW\\.example.org, http\\://x, a\\@b: c"


def test_long_text_is_cut_before_it_is_escaped():
    text = escaped("*" * 1000)
    assert text == "\\*" * 239 + "…"


def test_numbers_nothing_and_sides():
    text = table(["name", "count"], [["a", 1234567], ["b", None], ["c", True]], right=[1])
    assert text.splitlines() == [
        "| name | count |",
        "| --- | ---: |",
        "| a | 1,234,567 |",
        "| b |  |",
        "| c | True |",
    ]


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(1, 3, "33.3%"), (0, 5, "0.0%"), (0, 0, "–"), (0.973, 1, "97.3%")]
)
def test_percent(part, whole, text):
    assert percent(part, whole) == text
