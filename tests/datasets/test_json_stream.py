"""Streamed entries are those that the standard library reads at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ureca_lib.datasets.json_stream import stream_json
from ureca_lib.regions import AnnotationFormatError, FileMissingError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)
written = st.tuples(st.sampled_from([None, 1]), st.booleans())


def write(path, value, how):
    indent, ascii_only = how
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    return path


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(items=st.lists(values, max_size=6), how=written, chunk=st.integers(1, 40))
def test_an_array_equals_what_json_reads(tmp_path, items, how, chunk):
    file = write(tmp_path / "array.json", items, how)
    assert list(stream_json(file, chunk)) == [(None, item) for item in items]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    members=st.dictionaries(st.text(max_size=4), values, max_size=4),
    how=written,
    chunk=st.integers(1, 40),
)
def test_an_object_equals_what_json_reads(tmp_path, members, how, chunk):
    file = write(tmp_path / "object.json", members, how)
    wanted = []
    for key, value in members.items():
        wanted += [(key, item) for item in value] if isinstance(value, list) else [(key, value)]
    assert list(stream_json(file, chunk)) == wanted


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(items=st.lists(values, min_size=1, max_size=4), data=st.data(), chunk=st.integers(1, 40))
def test_a_truncated_file_is_an_error_after_the_entries_before(tmp_path, items, data, chunk):
    text = json.dumps(items)
    file = tmp_path / "cut.json"
    file.write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    found = []
    with pytest.raises(AnnotationFormatError, match=r"truncated|not JSON") as error:
        for _, item in stream_json(file, chunk):
            found.append(item)
    assert str(file) in str(error.value)
    assert found == items[: len(found)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "truncated"),
        ("12", "'1' where"),
        ("<html>", "where"),
        ("[1 2]", "'2' where"),
        ("[1, nul, " + " " * 50 + "2]", "not JSON"),
        ("{1: 2}", "a key should be here"),
        ('{"a" 1}', "where ':'"),
        ("[1] [2]", "follows the end"),
        ("[" * 100_000, "too deep"),
        ("[" + "9" * 5000 + "]", "not JSON"),
    ],
)
def test_what_is_not_json_is_an_error_with_its_place(tmp_path, text, reason):
    file = tmp_path / "wrong.json"
    file.write_text(text)
    with pytest.raises(AnnotationFormatError, match=reason):
        list(stream_json(file))


def test_other_files(tmp_path):
    with pytest.raises(FileMissingError, match="none"):
        list(stream_json(tmp_path / "none.json"))
    with pytest.raises(AnnotationFormatError, match="cannot be read"):
        list(stream_json(tmp_path))
    file = tmp_path / "file.json"
    file.write_bytes(b"[\xff\xfe]")
    with pytest.raises(AnnotationFormatError, match="not text"):
        list(stream_json(file))
    file.write_bytes(b"\xef\xbb\xbf[1]")
    assert list(stream_json(file)) == [(None, 1)]
    file.write_text(json.dumps(["a" * 5000]))
    with pytest.raises(AnnotationFormatError, match="longer than 1,000"):
        list(stream_json(file, chunk=100, max_entry=1000))


def test_memory_is_that_of_an_entry_not_of_the_file(tmp_path):
    file = tmp_path / "large.json"
    region = {"region_id": 1, "x": 1, "y": 2, "width": 30, "height": 40, "phrase": "a red car"}
    entry = json.dumps({"id": 1, "regions": [region] * 50})
    with file.open("w") as out:
        out.write("[" + entry)
        for _ in range(6000):
            out.write("," + entry)
        out.write("]")
    assert file.stat().st_size > 25_000_000
    code = (
        "import sys, resource\n"
        "from ureca_lib.datasets.json_stream import stream_json\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "count = sum(1 for _ in stream_json(sys.argv[1]))\n"
        "print(count, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True)
    count, grown = map(int, done.stdout.split())
    unit = 1024 if sys.platform == "linux" else 1
    assert count == 6001 and grown * unit < 16_000_000
