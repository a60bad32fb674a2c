"""Pickles of plain data are read as Python reads them; all others are refused, and never run."""

from __future__ import annotations

import os
import pickle
import resource
import struct
import subprocess
import sys
import time
from collections import OrderedDict
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ureca_lib.datasets.refcocog import read_pickle, read_references
from ureca_lib.regions import AnnotationFormatError, FileMissingError, RegionError

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
)
keys = st.text(max_size=5) | st.integers(-300, 70000)
plain = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=20,
)
quick = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture
def parse(tmp_path):
    """Reads bytes as a file."""

    def read(data, **options):
        file = tmp_path / "refs(umd).p"
        file.write_bytes(data)
        return read_pickle(file, **options)

    return read


@settings(max_examples=150, **quick)
@given(value=plain, protocol=st.integers(0, 5))
def test_equals_what_python_reads(parse, value, protocol):
    found = parse(pickle.dumps(value, protocol))
    assert found == value and repr(found) == repr(value)


@settings(max_examples=100, **quick)
@given(value=plain, protocol=st.integers(0, 5), data=st.data())
def test_a_truncated_pickle_is_an_error(parse, value, protocol, data):
    whole = pickle.dumps(value, protocol)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(AnnotationFormatError, match=r"refs\(umd\)\.p"):
        parse(whole[:cut])


@settings(max_examples=300, **quick)
@given(data=st.binary(max_size=60))
def test_any_bytes_give_plain_data_or_an_error(parse, data):
    try:
        found = parse(data)
    except AnnotationFormatError:
        return
    kinds, rest, seen = set(), [found], set()
    while rest:
        value = rest.pop()
        kinds.add(type(value))
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (list, tuple)):
            rest += value
        elif isinstance(value, dict):
            rest += [*value, *value.values()]
    # `object` is the marker that a stray mark leaves
    assert kinds <= {type(None), bool, int, float, str, list, tuple, dict, object}


# as Python 2 wrote them: str in S, T, U; unicode in V and X; bool as I00; long with an L
def reference(sent: bytes) -> bytes:
    numbers = b"".join(b"S'%s'\nI1\ns" % key for key in (b"ref_id", b"ann_id", b"image_id"))
    sentence = b"(dS'sent_id'\nI1\nsS'sent'\n%s\nsS'raw'\n%s\ns" % (sent, sent)
    rest = b"S'category_id'\nI1\nsS'split'\nS'val'\nsS'sentences'\n(l%sas" % sentence
    return b"(l(d" + numbers + rest + b"a."


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"S'the caf\\xc3\\xa9'", "the caf\u00e9"),
        (b"S'the caf\\xe9'", "the caf\u00e9"),
        (b'S"it\'s"', "it's"),
        (b"Vna\\u00efve", "na\u00efve"),
    ],
)
def test_sentences_of_python_2(tmp_path, sent, text):
    (tmp_path / "refs.p").write_bytes(reference(sent))
    (found,) = read_references(tmp_path / "refs.p")
    assert [(one.sent_id, one.sent) for one in found.sentences] == [(1, text)]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"(lp0\nI01\naI00\naI7\naL12L\naF1.5\naNa.", [True, False, 7, 12, 1.5, None]),
        (b"\x80\x02]q\x00(U\x03redq\x01h\x01e.", ["red", "red"]),
        (b"\x80\x02\x8a\x05\x00\xe4\x0bT\x02.", 10_000_000_000),
    ],
)
def test_files_of_python_2(parse, data, value):
    assert parse(data) == value


class _Runs:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, protocol):
    mark, file = tmp_path / "ran", tmp_path / "refs(umd).p"
    file.write_bytes(pickle.dumps([{"ref_id": 1}, _Runs(mark)], protocol))
    with pytest.raises(AnnotationFormatError, match=r"mkdir.*nothing of it was run") as error:
        read_pickle(file)
    assert str(file) in str(error.value) and not mark.exists()
    pickle.loads(file.read_bytes())
    assert mark.exists()  # it would have


@pytest.mark.parametrize(
    "value",
    [np.int64(3), np.zeros(2), OrderedDict(a=1), date(2020, 1, 1), {1}, b"bytes", Path("a")],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_is_not_plain_is_refused(parse, value, protocol):
    with pytest.raises(AnnotationFormatError, match="plain data"):
        parse(pickle.dumps([value], protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"(S'echo'\nios\nsystem\n.",  # INST
        b"cos\nsystem\n(S'echo'\ntR.",
        b"\x8c\x02os\x8c\x06system\x93\x8c\x04echo\x85R.",
        b"(cos\nsystem\nS'echo'\no.",
        b"Pname\n.",
        b"S'name'\nQ.",
        b"\x82\x01.",
        b"}S'a'\nb.",
        b"\x97.",
        b"]2.",
        b"](K\x01K\x02lR.",
        b"]]\x81.",
    ],
)
def test_every_opcode_that_could_name_or_call_is_refused(parse, data):
    with pytest.raises(AnnotationFormatError, match="plain data"):
        parse(data)


def test_an_extension_of_this_process_is_not_taken(parse):
    import copyreg

    copyreg.add_extension("os", "system", 1)
    try:
        pickle.loads(b"\x82\x01.")  # fills the cache, which unpicklers look up first
        with pytest.raises(AnnotationFormatError, match="plain data"):
            parse(b"\x82\x01S'echo'\n\x85R.")
    finally:
        copyreg.remove_extension("os", "system", 1)


BOMBS = [
    b"]r\xff\xff\xff\x7f",  # a memo index of two thousand million
    b"]r\xff\xff\xff\x7fa.",
    b"X\xff\xff\xff\xff.",
    b"\x8d" + b"\xff" * 8 + b".",
    b"\x8d" + struct.pack("<Q", 2**36) + b".",
    b"\x95" + struct.pack("<Q", 2**36) + b".",
    b"\x96" + struct.pack("<Q", 2**36) + b".",  # a bytearray of 64 GB
    b"\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    b"I" + b"9" * 10_000 + b"\n.",
]


def test_bombs_are_refused_before_they_cost_anything(tmp_path):
    files = [tmp_path / f"{number}.p" for number in range(len(BOMBS))]
    for file, data in zip(files, BOMBS, strict=True):
        file.write_bytes(data)
    code = (
        "import resource, sys\n"
        "from ureca_lib.datasets.refcocog import read_pickle\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_pickle(name)\n"
        "    except ValueError as error: print(peak() - before, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(BOMBS), done.stdout + done.stderr
    for file, line in zip(files, lines, strict=True):
        grown, _, message = line.partition(" ")
        assert str(file) in message and int(grown) < 16_000


def _doubling() -> bytes:
    data = b"](K\x01K\x02e\x94"  # a list, noted
    for index in range(60):  # each list holds the last one twice
        data += b"](h%ch%ce\x94" % (index, index)
    return data + b"."


@pytest.mark.parametrize(
    "data",
    [
        _doubling(),
        b"]" * 200_000 + b"a" * 199_999 + b".",  # deep
        b"]q\x00h\x00a.",  # holds itself
        b"]q\x00]q\x01h\x00ah\x00h\x01a.",
    ],
)
def test_lists_in_lists_are_no_references_however_they_lie(tmp_path, data):
    file = tmp_path / "refs(umd).p"
    file.write_bytes(data)
    began = time.monotonic()
    with pytest.raises(RegionError, match=r"refs\(umd\)\.p"):
        read_references(file)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("key", ["sent", "sent_id", "ref_id", "sentences", "split"])
def test_nothing_walks_into_doubled_lists(tmp_path, key):
    doubled = []
    for _ in range(60):
        doubled = [doubled, doubled]
    sentence = {"sent_id": 1, "sent": "a", "raw": "A", "tokens": doubled}
    entry = dict.fromkeys(("ref_id", "ann_id", "image_id", "category_id"), 1)
    entry |= {"split": "val", "sentences": [sentence]}
    (sentence if key in sentence else entry)[key] = doubled
    file = tmp_path / "refs(umd).p"
    file.write_bytes(pickle.dumps([entry], 2))
    with pytest.raises(RegionError) as error:
        read_references(file)
    assert len(str(error.value)) < 300


def test_a_list_that_is_shared_is_read(parse):
    tokens = ["a", "dog"]
    assert parse(pickle.dumps([tokens, tokens], 2)) == [tokens, tokens]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"refs": []}',
        b"\x80\x09.",
        b"N",
        b".",
        b"e.",
        b"(NNNu.",
        b"g7\n.",
        b"}]Ns.",
        b"Fabc\n.",
        b"X\x01\x00\x00\x00\xff\x00.",
        b"Sabc\n.",
        struct.pack("<BI", ord("X"), 3) + b"ab",
    ],
)
def test_damaged_files_are_named(parse, data):
    with pytest.raises(AnnotationFormatError, match=r"refs\(umd\)\.p: the file .*\("):
        parse(data)


def test_files(tmp_path):
    file = tmp_path / "refs(umd).p"
    with pytest.raises(FileMissingError, match="refs"):
        read_pickle(file)
    file.write_bytes(pickle.dumps(["a"] * 100, 2))
    assert read_pickle(file) == ["a"] * 100
    with pytest.raises(AnnotationFormatError, match=r"bytes, at most 50 are read"):
        read_pickle(file, max_bytes=50)
    with pytest.raises(AnnotationFormatError, match="cannot be read"):
        read_pickle(tmp_path)


def test_memory_grows_with_the_file_by_a_bounded_factor(tmp_path):
    file = tmp_path / "refs(umd).p"
    file.write_bytes(b"]" * 2_000_000 + b".")  # the most memory per byte
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_pickle(file)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 100 * file.stat().st_size
