"""Streamed items are those that the standard library reads at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ureca_lib.datasets.rows import stream_items
from ureca_lib.regions import AnnotationFormatError, FileMissingError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**63, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)
written = st.tuples(st.sampled_from([None, 1]), st.booleans())
quick = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def write(path, value, how):
    indent, ascii_only = how
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    return path


@settings(max_examples=60, **quick)
@given(items=st.lists(values, min_size=1, max_size=6), how=written)
def test_a_list_equals_what_json_reads(tmp_path, items, how):
    file = write(tmp_path / "list.json", items, how)
    found = list(stream_items(file, "item"))
    assert found == items and repr(found) == repr(items)


@settings(max_examples=60, **quick)
@given(items=st.lists(values, min_size=1, max_size=4), other=values, how=written)
def test_a_list_of_an_object_equals_what_json_reads(tmp_path, items, other, how):
    file = write(tmp_path / "object.json", {"info": other, "images": items, "x": [other]}, how)
    assert list(stream_items(file, "images.item")) == items


@settings(max_examples=60, **quick)
@given(items=st.lists(values, min_size=1, max_size=4), data=st.data())
def test_a_truncated_file_is_an_error_after_the_items_before(tmp_path, items, data):
    text = json.dumps(items)
    file = tmp_path / "cut.json"
    file.write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    found = []
    with pytest.raises(AnnotationFormatError, match="truncated or not JSON") as error:
        for item in stream_items(file, "item"):
            found.append(item)
    assert str(file) in str(error.value)
    assert found[:-1] == items[: len(found)][:-1]  # of a last number digits may be missing


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "[1 2]",
        "[1, nul, " + " " * 50 + "2]",
        "{1: 2}",
        '{"a" 1}',
        "[1] [2]",
        "[" + "9" * 5000 + "]",
    ],
)
def test_a_file_that_is_not_json_is_named(tmp_path, text):
    file = tmp_path / "wrong.json"
    file.write_text(text)
    with pytest.raises(AnnotationFormatError, match=r"wrong\.json.*truncated or not JSON"):
        list(stream_items(file, "item"))


@pytest.mark.parametrize("value", [12, {"a": 1}, [], {"images": []}])
def test_a_file_without_the_list_is_named(tmp_path, value):
    file = write(tmp_path / "other.json", value, (None, True))
    for prefix in ("item", "images.item"):
        with pytest.raises(AnnotationFormatError, match=r"other\.json: there is no list of"):
            list(stream_items(file, prefix))


def test_other_files(tmp_path):
    with pytest.raises(FileMissingError, match="none"):
        list(stream_items(tmp_path / "none.json", "item"))
    with pytest.raises(AnnotationFormatError, match="truncated or not JSON"):
        list(stream_items(tmp_path, "item"))
    file = tmp_path / "file.json"
    file.write_bytes(b'["\xff\xfe"]')
    with pytest.raises(AnnotationFormatError, match="not JSON"):
        list(stream_items(file, "item"))
    file.write_bytes(b"\xef\xbb\xbf[1]")
    assert list(stream_items(file, "item")) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "[1, " + '["]", ' * 100_000,
        '["\\"", ' + "[" * 100_000,
        '["' + "a" * 300_000 + '", ' + "[" * 100_000,
        '["' + '\\"' * 200_000 + '", ' + "[" * 100_000,
    ],
)
def test_deep_lists_are_refused_before_they_fill_the_memory(tmp_path, text):
    file = tmp_path / "deep.json"
    file.write_text(text)
    with pytest.raises(AnnotationFormatError, match=r"deep\.json: lists lie deeper than 64"):
        list(stream_items(file, "item"))


def test_brackets_in_texts_do_not_count(tmp_path):
    items = ["[" * 100, '\\"' * 9 + "{" * 100, ["\\", "[" * 100_000, {"[[": '"'}]] * 3
    file = write(tmp_path / "texts.json", items, (None, True))
    assert list(stream_items(file, "item")) == items


def test_memory_is_that_of_an_item_not_of_the_file(tmp_path):
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
        "from pathlib import Path\n"
        "from ureca_lib.datasets.rows import stream_items\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "count = sum(1 for _ in stream_items(Path(sys.argv[1]), 'item'))\n"
        "print(count, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True)
    count, grown = map(int, done.stdout.split())
    unit = 1024 if sys.platform == "linux" else 1
    assert count == 6001 and grown * unit < 16_000_000
