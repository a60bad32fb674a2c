"""Plain pickles are read as Python reads them; all others are refused, and never run."""

from __future__ import annotations

import ast
import os
import pickle
import struct
import time
from collections import OrderedDict
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.datasets import plain_pickle, plain_stack
from ureca_lib.datasets.plain_pickle import parse_plain_pickle, read_plain_pickle
from ureca_lib.datasets.plain_stack import PickleRefusedError
from ureca_lib.regions import FileMissingError

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


@settings(max_examples=150, deadline=None)
@given(value=plain, protocol=st.integers(0, 5))
def test_equals_what_python_reads(value, protocol):
    found = parse_plain_pickle(pickle.dumps(value, protocol), max_depth=100)
    assert found == value and repr(found) == repr(value)


@settings(max_examples=100, deadline=None)
@given(value=plain, protocol=st.integers(0, 5), data=st.data())
def test_a_truncated_pickle_is_an_error(value, protocol, data):
    whole = pickle.dumps(value, protocol)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PickleRefusedError):
        parse_plain_pickle(whole[:cut], max_depth=100)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_give_plain_data_or_an_error(data):
    try:
        found = parse_plain_pickle(data)
    except PickleRefusedError:
        return
    kinds, rest = set(), [found]
    while rest:
        value = rest.pop()
        kinds.add(type(value))
        if isinstance(value, (list, tuple)):
            rest += value
        elif isinstance(value, dict):
            rest += [*value, *value.values()]
    assert kinds <= {type(None), bool, int, float, str, list, tuple, dict}


# as Python 2 wrote them: str in S, T, U; unicode in V and X; bool as I00; long with an L
PYTHON_2 = [
    (b"(dp0\nS'sent'\np1\nS'the caf\\xc3\\xa9'\np2\ns.", {"sent": "the caf\u00e9"}),
    (b"(dp0\nS'sent'\np1\nS'the caf\\xe9'\np2\ns.", {"sent": "the caf\u00e9"}),
    (b'(lp0\nS"it\'s"\np1\naVna\\u00efve\np2\na.', ["it's", "na\u00efve"]),
    (b"(lp0\nI01\naI00\naI7\naL12L\naF1.5\naNa.", [True, False, 7, 12, 1.5, None]),
    (b"\x80\x02]q\x00(U\x03redq\x01T\x02\x00\x00\x00\xe9tq\x02h\x01e.", ["red", "\u00e9t", "red"]),
    (b"\x80\x02\x8a\x05\x00\xe4\x0bT\x02.", 10_000_000_000),
]


@pytest.mark.parametrize(("data", "value"), PYTHON_2)
def test_files_of_python_2(data, value):
    assert parse_plain_pickle(data) == value


class _Runs:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, protocol):
    mark, file = tmp_path / "ran", tmp_path / "refs(umd).p"
    file.write_bytes(pickle.dumps([{"ref_id": 1}, _Runs(mark)], protocol))
    with pytest.raises(PickleRefusedError, match=r"GLOBAL.*mkdir.*nothing of it was run") as error:
        read_plain_pickle(file)
    assert str(file) in str(error.value) and not mark.exists()
    pickle.loads(file.read_bytes())
    assert mark.exists()  # it would have


@pytest.mark.parametrize(
    "value",
    [np.int64(3), np.zeros(2), OrderedDict(a=1), date(2020, 1, 1), {1}, b"bytes", Path("a")],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_is_not_plain_is_refused(value, protocol):
    with pytest.raises(PickleRefusedError, match="only plain data"):
        parse_plain_pickle(pickle.dumps([value], protocol))


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
    ],
)
def test_every_opcode_that_could_name_or_call_is_refused(data):
    with pytest.raises(PickleRefusedError, match="only plain data"):
        parse_plain_pickle(data)


def test_the_readers_import_nothing_that_could_run_a_pickle():
    for module in (plain_pickle, plain_stack):
        tree = ast.parse(Path(module.__file__).read_text())
        names = {
            name.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in node.names
        }
        assert not {name.split(".")[0] for name in names} & {
            "pickle", "_pickle", "pickletools", "copyreg", "importlib", "marshal", "shelve",
        }  # fmt: skip
        called = {
            n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and hasattr(n.func, "id")
        }
        assert not called & {"eval", "exec", "__import__", "getattr", "setattr", "compile"}


def test_bombs_are_refused_before_they_cost_anything():
    began = time.monotonic()
    doubling = b"](K\x01K\x02e\x94"  # a list, noted
    for index in range(60):  # each list holds the last one twice
        doubling += b"](h%ch%ce\x94" % (index, index)
    for data, reason in [
        (b"]r\xff\xff\xff\x7f", "truncated"),  # a memo index of two thousand million
        (b"]r\xff\xff\xff\x7fa.", "missing|no list"),
        (b"X\xff\xff\xff\xff.", "truncated"),
        (b"\x8d" + b"\xff" * 8 + b".", "truncated"),
        (b"]" * 40 + b"a" * 39 + b".", "deeper than 16"),
        (b"]q\x00h\x00a.", "holds itself"),
        (b"]q\x00]q\x01h\x00ah\x00h\x01a.", "after it was put"),
        (b"I" + b"9" * 10_000 + b"\n.", "no number"),
        (b"\x8a\xff" + b"\x01" * 255 + b".", "16 bytes"),
        (doubling + b".", "deeper|values"),
    ]:
        with pytest.raises(PickleRefusedError, match=reason):
            parse_plain_pickle(data)
    with pytest.raises(PickleRefusedError, match="values"):
        parse_plain_pickle(doubling + b".", max_depth=1000)
    with pytest.raises(PickleRefusedError, match="1,000 steps"):
        parse_plain_pickle(b"]" * 2000, max_values=1000)
    assert time.monotonic() - began < 5


def test_a_list_that_is_shared_is_read():
    tokens = ["a", "dog"]
    assert parse_plain_pickle(pickle.dumps([tokens, tokens], 2)) == [tokens, tokens]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b'{"refs": []}', "no pickle"),
        (b"\x80\x09.", "protocol 9"),
        (b"N", "truncated"),
        (b".", "leaves 0 values"),
        (b"NN.", "leaves 2 values"),
        (b"(.", "leaves 1 values"),
        (b"e.", "mark is missing"),
        (b"(NNNu.", "dict|no value"),
        (b"g7\n.", "never noted"),
        (b"}]Ns.", "a key is a list"),
        (b"Fabc\n.", "cannot be read"),
        (b"X\x01\x00\x00\x00\xff.", "cannot be read"),
        (b"Sabc\n.", "quotes"),
        (struct.pack("<BI", ord("X"), 3) + b"ab", "truncated"),
    ],
)
def test_damaged_files_say_what_is_wrong(data, reason):
    with pytest.raises(PickleRefusedError, match=reason):
        parse_plain_pickle(data)


def test_files(tmp_path):
    file = tmp_path / "refs(umd).p"
    with pytest.raises(FileMissingError, match="refs"):
        read_plain_pickle(file)
    file.write_bytes(pickle.dumps(["a"] * 100, 2))
    assert read_plain_pickle(file) == ["a"] * 100
    with pytest.raises(PickleRefusedError, match=r"bytes, 50 are read"):
        read_plain_pickle(file, max_bytes=50)
    with pytest.raises(PickleRefusedError, match="cannot be read"):
        read_plain_pickle(tmp_path)
