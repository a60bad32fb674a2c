"""The log of a judge: every question and reply, a line each, from which its scores are computed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ureca_lib.datasets.jsonl import json_line, parse_line


class JudgeLogError(ValueError):
    """A log that cannot be read or is open elsewhere; names the file and the line."""


@dataclass(frozen=True)
class Judged:
    """One reply, or the lack of one.

    Args:
        judge, settings: who was asked, and how.
        prompt: the whole question.
        reply: as it came; None where none came, and `error` says why.
        problem: what the server says of the reply, as that it was cut off.
        score: 0 to 100, or None where the reply has none.
        reason: what the judge gives for it.
        parsed: how the score was found: "json" or "number".
        prompt_tokens, reply_tokens: as the judge counts them.
        time: when, in seconds since 1970.
    """

    judge: str
    settings: Mapping[str, Any]
    prompt: str
    reply: str | None
    problem: str | None = None
    score: float | None = None
    reason: str | None = None
    parsed: str | None = None
    error: str | None = None
    prompt_tokens: int = 0
    reply_tokens: int = 0
    time: float = 0.0

    @property
    def asked(self) -> str:
        """Who was asked, and how, as one text."""
        return identity(self.judge, self.settings)


def identity(judge: str, settings: Mapping[str, Any]) -> str:
    """A judge and its settings as one text."""
    return json.dumps([judge, dict(settings)], sort_keys=True)


class JudgeLog:
    """A log that is appended to; what a kill left of a last line is dropped.

    One process may write a log at a time. Use it in a `with` statement.

    Args:
        path: a JSON Lines file, made where there is none.

    Raises:
        JudgeLogError: the file is open elsewhere, or a line is no reply.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._guard = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JudgeLogError(f"{self.path}: another process is writing this log") from None
        try:
            self.entries = read_judge_log(self.path) if self.path.is_file() else []
            self._file = self.path.open("ab")
            self._file.truncate(_whole_lines(self.path))
        except BaseException:
            self._lock.release()
            raise

    def add(self, entry: Judged) -> None:
        """Append; it is on the disk when this returns. May be called from many threads."""
        entry = Judged(**asdict(entry) | {"time": entry.time or time.time()})
        with self._guard:
            self._file.write(json_line(asdict(entry)).encode("utf-8"))
            self._file.flush()
            os.fsync(self._file.fileno())
            self.entries.append(entry)

    def close(self) -> None:
        """Close the file and let others have it."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> JudgeLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_judge_log(path: str | Path) -> list[Judged]:
    """The replies of a log; a last line without its end is left out.

    Raises:
        FileNotFoundError: no such file.
        JudgeLogError: naming the file and the line that is no reply.
    """
    lines = Path(path).read_bytes()[: _whole_lines(Path(path))].splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            row = parse_line(path, number, line)
            if row is not None:
                found.append(Judged(**row))
        except (ValueError, TypeError) as error:
            raise JudgeLogError(f"{path}: line {number} is no reply of a judge ({error})") from None
    return found


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last line that has one."""
    return path.read_bytes().rfind(b"\n") + 1
