"""Journals are resumed after a kill, and files are replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ureca_lib.journal import (
    Journal,
    JournalError,
    check_same_run,
    join_parts,
    part_path,
    read_journal,
    replacing,
    share_of,
    unique,
    write_json,
    write_text,
)


def test_rows_are_on_the_disk_and_come_back(tmp_path):
    path = tmp_path / "new" / "x.jsonl"
    with Journal(path) as journal:
        assert journal.rows == []
        journal.append({"a": "größe"}, {"b": None})
        assert list(read_journal(path)) == [{"a": "größe"}, {"b": None}]
        journal.append({"c": 1})
    with Journal(str(path)) as journal:
        assert journal.rows == [{"a": "größe"}, {"b": None}, {"c": 1}]
    assert path.read_text(encoding="utf-8") == '{"a": "größe"}\n{"b": null}\n{"c": 1}\n'


def test_half_a_line_is_dropped_wherever_it_was_cut(tmp_path):
    path, rows = tmp_path / "x.jsonl", [{"a": {"b": "größe"}}, {"c": [1, {"d": 2}]}]
    with Journal(path, header={"e": 1}) as journal:
        journal.append(*rows)
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for length in range(len(content)):
        path.write_bytes(content[:length])
        # a row is complete with its last brace, whether its line has an end or not
        complete = sum(end - 1 <= length for end in ends[1:])
        assert list(read_journal(path)) == rows[:complete]
        with Journal(path, header={"e": 1}) as journal:
            assert journal.rows == rows[:complete]
            journal.append(*rows[complete:])
        assert path.read_bytes() == content


def test_zeros_that_a_crash_of_the_machine_leaves_are_dropped(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + bytes(100))
    with Journal(path) as journal:
        journal.append({"a": 2})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n'


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"x" * 200_000, "line 1 is not JSON"),
        (b"5", "line 1 is not a JSON object"),
        (b'{"a": 1}\n{]\n{"a": 2}\n{"a', "line 2 is not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2 is not a JSON object"),
        (b'{"a": 1}\n\n{"a": "bad"}\n{"half', "line 3: invalid literal"),
        (b'{"a": 1}\n\xff\n', "line 2 is not JSON"),
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, content, place):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)

    def parse(row):
        return int(row["a"])

    with pytest.raises(JournalError, match=place) as caught:
        Journal(path, parse)
    assert str(caught.value).startswith(f"{path}: line ") and path.read_bytes() == content
    with pytest.raises(JournalError, match=place):
        list(read_journal(path, parse))
    path.write_text('{"a": 3}\n')  # and the lock is free again
    with Journal(path, parse) as journal:
        assert journal.rows == [3]


def test_two_runs_are_not_mixed(tmp_path):
    path = tmp_path / "x.jsonl"
    with Journal(path, header={"model": "m", "sizes": (1, 2)}) as journal:
        journal.append({"a": 1})
    content = path.read_bytes()
    with Journal(path, header={"sizes": (1, 2), "model": "m"}) as journal:
        assert journal.rows == [{"a": 1}]
    for other, reason in (
        ({"model": "n", "sizes": (1, 2)}, "another run: model was 'm', is 'n'"),
        ({"model": "m"}, r"sizes was \[1, 2\], is None"),
        ({"model": "m", "sizes": (1, 2), "seed": 3}, "seed was None, is 3"),
    ):
        with pytest.raises(JournalError, match=reason):
            Journal(path, header=other)
    assert path.read_bytes() == content
    assert list(read_journal(path)) == [{"a": 1}]
    path.write_text('{"a": 1}\n')
    with pytest.raises(JournalError, match="does not say which run made it"):
        Journal(path, header={"model": "m"})
    check_same_run(path, {"a": [1], "b": 2}, {"a": (1,), "b": 3}, names=["a"])


def test_rows_are_replaced_and_the_header_stays(tmp_path):
    path = tmp_path / "x.jsonl"
    with Journal(path, header={"model": "m"}) as journal:
        journal.append({"a": 1}, {"a": 2})
        journal.rewrite([{"a": 2}])
        journal.append({"a": 3})
        with pytest.raises(TypeError):
            journal.rewrite([{"a": object()}])
    with Journal(path, header={"model": "m"}) as journal:
        assert journal.rows == [{"a": 2}, {"a": 3}]


def test_a_second_row_with_the_same_key_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    with Journal(path) as journal:
        journal.append({"number": 1}, {"number": 2}, {"number": 1})
    parse = unique(lambda row: SimpleNamespace(**row), "number")
    with pytest.raises(JournalError, match="line 3: number 1 is there twice"):
        list(read_journal(path, parse))


def test_what_json_cannot_hold_is_not_written(tmp_path):
    with Journal(tmp_path / "x.jsonl") as journal:
        for row in ({"a": float("nan")}, {"a": object()}, {"a": "\ud800"}):
            with pytest.raises((TypeError, ValueError)):
                journal.append({"good": 1}, row)
        journal.append({"a": 1})
    assert list(read_journal(tmp_path / "x.jsonl")) == [{"a": 1}]


def test_threads_share_a_journal(tmp_path):
    with Journal(tmp_path / "x.jsonl") as journal:

        def append(number):
            for step in range(20):
                journal.append({"thread": number, "step": step, "text": "x" * 5000})

        threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = list(read_journal(tmp_path / "x.jsonl"))
    assert sorted((row["thread"], row["step"]) for row in rows) == [
        (number, step) for number in range(4) for step in range(20)
    ]


def test_a_journal_may_be_closed_by_another_thread(tmp_path):
    journal = Journal(tmp_path / "x.jsonl")
    thread = threading.Thread(target=journal.close)
    thread.start()
    thread.join()
    Journal(tmp_path / "x.jsonl").close()


HOLDS = """
import sys, time
from ureca_lib.journal import Journal

journal = Journal(sys.argv[1])
journal.append({"a": 1})
print("ready", flush=True)
time.sleep(60)
"""


def test_one_process_writes_and_a_killed_one_releases_the_file(tmp_path):
    path = tmp_path / "x.jsonl"
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(JournalError, match="another process is writing"):
            Journal(path)
        assert list(read_journal(path)) == [{"a": 1}]
        child.kill()
    with Journal(path) as journal:
        assert journal.rows == [{"a": 1}]
        with pytest.raises(JournalError, match="another process is writing"):
            Journal(path)


FULL = """
import resource, sys
from ureca_lib.journal import Journal

journal = Journal(sys.argv[1])
journal.append({"a": 1})
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # as a full disk: part of a row fits
try:
    journal.append({"a": "x" * 1000})
except OSError as error:
    print("refused", flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
journal.append({"a": 2})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes")
def test_a_full_disk_leaves_no_half_row_before_the_next(tmp_path):
    path = tmp_path / "x.jsonl"
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert list(read_journal(path)) == [{"a": 1}, {"a": 2}]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text())))
def test_any_rows_come_back(tmp_path_factory, rows):
    rows = [{"row": row} for row in rows]
    path = tmp_path_factory.mktemp("j") / "x.jsonl"
    with Journal(path) as journal:
        journal.append(*rows)
    assert list(read_journal(path)) == rows


def test_the_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with replacing(path) as file:
        file.write("größe\n")
        assert not path.exists()
    assert path.read_bytes() == "größe\n".encode()
    with replacing(str(path), "wb") as file:
        file.write(b"second")
        assert path.read_text(encoding="utf-8") == "größe\n"
    assert path.read_text() == "second"
    assert write_text(path, "größer") == path and path.read_text(encoding="utf-8") == "größer"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as file:
        file.write("half")
        file.flush()
        raise error
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_text_and_data_that_no_file_holds_leave_no_trace(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "x.txt", "\ud800")
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_json_has_an_entry_per_line(tmp_path):
    path = write_json(tmp_path / "a" / "x.json", {"a": [1, "ß"]})
    assert path.read_text() == '{\n "a": [\n  1,\n  "\\u00df"\n ]\n}\n'
    assert json.loads(path.read_text()) == {"a": [1, "ß"]}


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links")
def test_modes_and_links_are_those_of_a_plain_open(tmp_path):
    plain, path = tmp_path / "plain.txt", tmp_path / "x.txt"
    old = os.umask(0o027)
    try:
        plain.write_text("a")
        write_text(path, "a")
    finally:
        os.umask(old)
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o604)
    (tmp_path / "link").symlink_to(path)
    write_text(tmp_path / "link", "b")
    assert (tmp_path / "link").is_symlink() and path.read_text() == "b"
    assert path.stat().st_mode & 0o777 == 0o604


def test_parts_are_joined_in_order_and_once(tmp_path):
    path = tmp_path / "P.jsonl"
    with Journal(path) as whole:
        whole.append({"id": 4, "by": "whole"}, {"id": 1, "by": "whole"})
    items, parts = range(5), [part_path(path, (number, 2)) for number in (0, 1)]
    assert [list(share_of(items, (number, 2))) for number in (0, 1)] == [[0, 1], [2, 3, 4]]
    for part, rows in zip(parts, ([0, 1], [3, 2]), strict=True):
        with Journal(part) as journal:
            journal.append(*({"id": number, "by": "part"} for number in rows))
    with Journal(parts[0]), pytest.raises(JournalError, match="another process is writing"):
        join_parts(path, "id", lambda row: row["id"])
    kept = {part: part.read_bytes() for part in parts}
    join_parts(path, "id", lambda row: row["id"])
    joined = path.read_bytes()
    rows = [(row["id"], row["by"]) for row in read_journal(path)]
    assert rows == [(0, "part"), (1, "part"), (2, "part"), (3, "part"), (4, "whole")]
    assert not parts[0].parent.exists()
    parts[0].parent.mkdir()  # as after a kill before the parts were removed
    for part, content in kept.items():
        part.write_bytes(content)
    join_parts(path, "id", lambda row: row["id"])
    assert path.read_bytes() == joined
