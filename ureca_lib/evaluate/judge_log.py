"""The log of a judge: every question and reply, one per line, from which scores are computed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ureca_lib.journal import Journal, read_journal


@dataclass(frozen=True)
class Judged:
    """A reply, or the lack of one.

    Args:
        judge, settings: name and settings of the judge.
        prompt: the whole question.
        reply: as received; None if there is none, and `error` says why.
        problem: the server's remark on the reply, for instance that it was cut off.
        score: 0 to 100, or None if the reply has none.
        reason: the judge's reason for it.
        parsed: how the score was found: "json" or "number".
        prompt_tokens, reply_tokens: as the judge counts them.
        time: seconds since 1970.
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
        """The judge and its settings as one text."""
        return identity(self.judge, self.settings)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Judged:
        """Read a line of a log.

        Raises:
            ValueError: it has other keys.
        """
        try:
            return cls(**row)
        except TypeError as error:
            raise ValueError(f"not a reply of a judge ({error})") from None


def identity(judge: str, settings: Mapping[str, Any]) -> str:
    """A judge and its settings as one text."""
    return json.dumps([judge, dict(settings)], sort_keys=True)


class JudgeLog(Journal[Judged]):
    """An append-only log. One process at a time may write it; use it in a `with` statement.

    Args:
        path: a JSON Lines file; created if there is none.

    Attributes:
        entries: the replies in it.

    Raises:
        JournalError: the file is open elsewhere, or a line is not a reply.
    """

    def __init__(self, path: str | Path):
        super().__init__(path, Judged.from_row)
        self.entries = self.rows

    def add(self, entry: Judged) -> None:
        """Append a reply; it is on the disk when this returns. Threads may share the log."""
        entry = replace(entry, time=entry.time or time.time())
        self.append(asdict(entry))
        self.entries.append(entry)


def read_judge_log(path: str | Path) -> list[Judged]:
    """The replies of a log, without half a line at the end that a kill left.

    Raises:
        FileNotFoundError: no such file.
        JournalError: naming the line that is not a reply.
    """
    return list(read_journal(path, Judged.from_row))
