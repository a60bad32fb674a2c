"""The published data set's layout, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.annotate.export import QUESTION, caption_rows, write_jsonl
from ureca_lib.datasets import read_jsonl


@dataclass
class Captioned:
    region_id: int | str
    text: str


@dataclass
class Judged(Captioned):
    unique: bool | None = None


def test_rows_have_the_published_layout():
    rows = list(
        caption_rows(
            "photos/sa_1.jpg", [Captioned(523353737, "The left eye."), Judged("b", "é", False)]
        )
    )
    assert rows[0] == {
        "id": "sa_1_523353737",
        "image": "photos/sa_1.jpg",
        "mask_id": 523353737,
        "conversations": [
            {"from": "human", "value": QUESTION},
            {"from": "gpt", "value": "The left eye."},
        ],
    }
    assert QUESTION.startswith("<image>\n")
    assert (rows[1]["mask_id"], rows[1]["unique"]) == ("b", False)
    assert "unique" not in next(iter(caption_rows("x.jpg", [Judged(1, "a")])))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    assert write_jsonl(path, iter(rows)) == len(rows)
    assert list(read_jsonl(path)) == rows
    assert path.read_bytes().count(b"\n") == len(rows)
    assert [entry.name for entry in path.parent.iterdir()] == ["x.jsonl"]


def test_line_separators_of_unicode_do_not_split_a_row(tmp_path):
    rows = [{"text": "a\u2028b\u0085c\x0bd\re\nf"}, {"text": "größe 樹"}]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert list(read_jsonl(tmp_path / "x.jsonl")) == rows
    assert "größe 樹" in (tmp_path / "x.jsonl").read_text(encoding="utf-8")


def test_folders_are_made_and_an_old_file_is_replaced(tmp_path):
    path = tmp_path / "new" / "folder" / "x.jsonl"
    assert write_jsonl(str(path), [{"a": 1}, {"a": 2}]) == 2
    assert write_jsonl(path, []) == 0
    assert path.read_text() == "" and list(read_jsonl(path)) == []


@pytest.mark.parametrize(
    "row", [{"a": {1, 2}}, {"a": float("nan")}, {"a": float("inf")}, {"a": "\ud800"}, {(1, 2): 3}]
)
def test_a_row_that_json_cannot_hold_leaves_the_old_file_alone(tmp_path, row):
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"old": 1}])
    with pytest.raises(ValueError, match=r"x.jsonl: row 2 does not go into JSON"):
        write_jsonl(path, [{"new": 1}, row])
    assert list(read_jsonl(path)) == [{"old": 1}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.jsonl"]


def test_rows_that_stop_half_way_leave_no_file(tmp_path):
    def rows():
        yield {"a": 1}
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_jsonl(tmp_path / "x.jsonl", rows())
    assert list(tmp_path.iterdir()) == []


def test_rows_come_one_at_a_time(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": 2}\nbroken\n')
    rows = read_jsonl(tmp_path / "x.jsonl")
    assert next(rows) == {"a": 1} and next(rows) == {"a": 2}
    with pytest.raises(ValueError, match=r"x.jsonl: line 3 is not JSON"):
        next(rows)


@pytest.mark.parametrize(
    "content", [b'{"a": 1}', b'\xef\xbb\xbf{"a": 1}\r\n', b'\n\n  \n{"a": 1}\n\n']
)
def test_a_byte_order_mark_and_blank_lines_are_no_error(tmp_path, content):
    (tmp_path / "x.jsonl").write_bytes(content)
    assert list(read_jsonl(tmp_path / "x.jsonl")) == [{"a": 1}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": ', "is not JSON"),
        (b"hello", "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b"\x00\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b'{"a": 1} {"b": 2}', "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b"5", "is not a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, reason):
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n\n' + line + b'\n{"b": 2}\n')
    with pytest.raises(ValueError, match=f"x.jsonl: line 3 {reason}"):
        list(read_jsonl(tmp_path / "x.jsonl"))


def test_a_file_cut_off_at_any_byte_loses_its_last_row_or_is_named(tmp_path):
    rows = [{"text": "größe"}, {"text": "樹"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    whole = {0: 0, text.index(b"\n"): 1, text.index(b"\n") + 1: 1, len(text) - 1: 2}
    for stop in range(len(text)):
        (tmp_path / "x.jsonl").write_bytes(text[:stop])
        if stop in whole:
            assert list(read_jsonl(tmp_path / "x.jsonl")) == rows[: whole[stop]]
        else:
            with pytest.raises(ValueError, match=r"x.jsonl: line [12] is not JSON"):
                list(read_jsonl(tmp_path / "x.jsonl"))


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.jsonl"):
        list(read_jsonl(tmp_path / "gone.jsonl"))
