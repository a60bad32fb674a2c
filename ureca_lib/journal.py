"""Files that survive a kill: append-only JSON Lines journals, and atomic replacement.

A journal holds one JSON object per line. One process at a time appends to it; a row is on the disk
when `append` returns. When a kill leaves half a line at the end, the next process drops it, and
resumes after the rows that are complete.

    with Journal("scores.jsonl", header={"model": "tiny"}) as journal:
        done = {row["id"] for row in journal.rows}
        journal.append({"id": 7, "score": 0.5})

Files that are written whole go through `replacing`, `write_text` or `write_json`: a reader sees
the old content or the new one, never a part.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

from filelock import FileLock, Timeout

_HEADER = "journal"  # the only key of a header row
_Row = TypeVar("_Row")
_Parse = Callable[[dict[str, Any]], _Row]


class JournalError(ValueError):
    """A journal that cannot be read or written.

    Args:
        path: the file.
        reason: what is wrong and what to do.
        line: line number, from 1.
    """

    def __init__(self, path: str | Path, reason: str, line: int | None = None):
        super().__init__(f"{path}: {reason}" if line is None else f"{path}: line {line}: {reason}")


class Journal(Generic[_Row]):
    """An append-only JSON Lines file, open in one process. Threads may share it.

    Args:
        path: the file; created with its folder if there is none.
        parse: converts a row that the file holds; raises ValueError for a bad one.
        header: settings that all rows share. A new file starts with them; an existing file must
            have the same ones, so that two runs are never mixed.

    Attributes:
        rows: the rows that the file held when it was opened, parsed.

    Raises:
        JournalError: the file is open elsewhere, is of another run, or has a bad row. It is
            unchanged.
    """

    def __init__(
        self, path: str | Path, parse: _Parse[_Row] = dict, header: Mapping[str, Any] | None = None
    ):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._header, self._guard = header, threading.Lock()
        # not per thread: the thread that closes the journal need not be the one that opened it
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JournalError(self.path, "another process is writing this file") from None
        try:
            known = self.path.exists()
            self.rows = list(read_journal(self.path, parse, header)) if known else []
            # unbuffered, so that a failed write leaves nothing that `close` would write later
            self._file = self.path.open("ab", buffering=0)
            self._end_last_line()
            if header is not None and not self._file.tell():
                self.append({_HEADER: header})
        except BaseException:
            self._lock.release()
            raise

    def _end_last_line(self) -> None:
        """Remove half a line at the end, or add the end that a complete row lacks."""
        last = self.path.read_bytes().rpartition(b"\n")[2]
        if last and _is_half(last):
            self._file.truncate(self._file.tell() - len(last))
            self._file.seek(0, os.SEEK_END)
        elif last:
            self._file.write(b"\n")

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Append rows with one write, so that a kill seldom separates them.

        Raises:
            TypeError, ValueError: JSON cannot hold a row; nothing is written.
            OSError: the disk is full, for instance; nothing of the rows stays in the file.
        """
        rest = memoryview("".join(json_line(row) for row in rows).encode("utf-8"))
        with self._guard:
            start = self._file.seek(0, os.SEEK_END)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            finally:
                if rest:  # half a line, to which the next row would be added
                    self._file.truncate(start)

    def rewrite(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace all rows, for instance to drop some that are computed again; the header stays."""
        head = [] if self._header is None else [{_HEADER: self._header}]
        with self._guard:
            write_text(self.path, "".join(json_line(row) for row in (*head, *rows)))
            self._file.close()
            self._file = self.path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file and let other processes open it."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_journal(
    path: str | Path, parse: _Parse[_Row] = dict, header: Mapping[str, Any] | None = None
) -> Iterator[_Row]:
    """Read the rows of a journal one by one, without its header, also while a process writes it.

    Half a line at the end, which a kill left, is not a row.

    Args:
        path: the file.
        parse: converts a row; raises ValueError for a bad one.
        header: settings that the file must start with; None reads any file.

    Raises:
        FileNotFoundError: no such file.
        JournalError: another header, a line that is not a JSON object, or one that `parse` refuses.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and _is_half(line):
                return
            row = parse_line(path, number, line)
            settings = row[_HEADER] if number == 1 and row and row.keys() == {_HEADER} else None
            if number == 1 and header is not None:
                check_same_run(path, settings, header)
            if row is None or settings is not None:
                continue
            try:
                parsed = parse(row)
            except ValueError as error:
                raise JournalError(path, str(error), number) from None
            yield parsed


Part = Sequence[int]  # (k, n): the k-th of n parts, from 0


def share_of(items: Sequence[Any], part: Part) -> Any:
    """The items of a part; parts follow one another."""
    number, count = part
    return items[number * len(items) // count : (number + 1) * len(items) // count]


def part_path(path: str | Path, part: Part) -> Path:
    """The file of a part, which `join_parts` adds to the whole: `P.parts/00003-of-00008.jsonl`."""
    return Path(path).with_suffix(".parts") / "{:05d}-of-{:05d}.jsonl".format(*part)


def part_paths(path: str | Path) -> list[Path]:
    """Files of all parts that are there, also of a run that was killed."""
    return sorted(Path(path).with_suffix(".parts").glob("*-of-*.jsonl"))


def join_parts(path: str | Path, name: str, order: Callable[[dict[str, Any]], int]) -> None:
    """Move the rows of all parts into the whole, and remove the parts.

    A kill in between loses nothing: the next call takes the parts that are left again.

    Args:
        path: the whole.
        name: key of a row that no other row has the value of; a later row replaces an earlier one.
        order: place of a row in the whole.

    Raises:
        JournalError: a process is writing one of the files, or has left a bad row.
    """
    if not (parts := part_paths(path)):
        return
    with Journal(path) as whole, ExitStack() as stack:
        journals = [whole, *(stack.enter_context(Journal(part)) for part in parts)]
        rows = {row[name]: row for journal in journals for row in journal.rows}
        whole.rewrite(sorted(rows.values(), key=order))
    shutil.rmtree(parts[0].parent)


def check_same_run(
    path: str | Path,
    known: Mapping[str, Any] | None,
    wanted: Mapping[str, Any],
    names: Iterable[str] | None = None,
) -> None:
    """Check that a file was made with the settings of this run.

    Args:
        path: the file, for the error.
        known: settings that the file was made with; None if it does not say.
        wanted: settings of this run.
        names: settings that must agree; None compares all.

    Raises:
        JournalError: naming the first setting that differs, with both values.
    """
    if known is None:
        raise JournalError(path, "the file does not say which run made it; name another file")
    plain = json.loads(json.dumps(dict(wanted)))  # as a file returns it: lists for tuples
    for name in names or {**known, **plain}:
        if known.get(name) != plain.get(name):
            raise JournalError(
                path,
                f"the file is of another run: {name} was {known.get(name)!r}, is "
                f"{plain.get(name)!r}; name another file",
            )


def unique(parse: _Parse[_Row], name: str) -> _Parse[_Row]:
    """A `parse` that refuses a second row with the same value of an attribute."""
    seen = set()

    def parse_unique(row: dict[str, Any]) -> _Row:
        parsed = parse(row)
        value = getattr(parsed, name)
        if value in seen:
            raise ValueError(f"{name} {value} is there twice")
        seen.add(value)
        return parsed

    return parse_unique


def json_line(row: Mapping[str, Any]) -> str:
    """A row as its line, with the line's end.

    Raises:
        TypeError, ValueError: JSON or UTF-8 cannot hold it; NaN and infinity JSON cannot.
    """
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    line.encode("utf-8")
    return line + "\n"


def parse_line(path: str | Path, number: int, line: bytes) -> dict[str, Any] | None:
    """The row of one line, counted from 1; None if it is blank.

    Raises:
        JournalError: naming the file and the line that is not a JSON object.
    """
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        row = json.loads(text) if text.strip() else None
    except (ValueError, RecursionError) as error:
        raise JournalError(path, f"line {number} is not JSON ({error})") from None
    if text.strip() and not isinstance(row, dict):
        raise JournalError(path, f"line {number} is not a JSON object")
    return row


def _is_half(line: bytes) -> bool:
    """Whether a line without an end is the start of a row; an editor may leave a complete row.

    A file that does not look like a journal is not one: reading it fails, and it is not cut.
    """
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.strip(b"\0")[:1] in (b"", b"{")  # a crash of the machine may leave zeros
    return False


@contextmanager
def replacing(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` when the block ends without an error.

    After an error `path` is as it was, and nothing else is left. A library that writes to a path
    of its own accord can be given the file's `name`.

    Args:
        path: the file; its folder is created. A link stays, and the file that it names is replaced.
        mode: "w" for UTF-8 text or "wb" for bytes.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    # hidden and with another suffix, so that no reader of the folder takes it for data
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        encoding = None if "b" in mode else "utf-8"
        with partial.open(mode.replace("w", "x"), encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name without content
        if target.exists():
            shutil.copymode(target, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Replace a UTF-8 text file as a whole; returns its path."""
    with replacing(path) as file:
        file.write(text)
    return Path(path)


def write_json(path: str | Path, content: Any) -> Path:
    """Replace a JSON file as a whole; returns its path.

    Raises:
        TypeError: JSON cannot hold the content; the file is unchanged.
    """
    return write_text(path, json.dumps(content, indent=1) + "\n")
