"""Predictions, written so that a long run survives a kill and goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ureca_lib.datasets.jsonl import json_line
from ureca_lib.evaluate.predictions import (
    Prediction,
    PredictionError,
    lines_of,
    meta_path,
    read_meta,
    read_predictions,
)
from ureca_lib.journal import replacing

# what two runs into one file must agree on
_SAME = ("system", "model", "trained_on", "data", "data_settings", "settings", "seed")


class PredictionWriter:
    """Appends to a predictions file; opening it again goes on where it ended.

    Only one process may have it open. Rows of an image are handed over together and are on the
    disk when `add` returns.

    Args:
        path: the file; made with its folder where it is not there.
        meta: goes into the record beside it. A file that is there must have the same system,
            model, data, settings and seed, so that no two systems are mixed in one file.
        retry_failed: drop the rows that have an error, so that they can be made again.

    Raises:
        PredictionError: the file is open elsewhere, holds another run, or a row at fault.
    """

    def __init__(self, path: str | Path, meta: Mapping[str, Any], retry_failed: bool = False):
        self.path = Path(path)
        if self.path.suffix != ".jsonl":
            raise PredictionError("a predictions file is called NAME.jsonl", self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise PredictionError("another process is writing this file", self.path) from None
        try:
            self._file, self.ids, self.errors = self._open(dict(meta), retry_failed)
        except BaseException:
            self._lock.release()
            raise

    def _open(
        self, meta: dict[str, Any], retry_failed: bool
    ) -> tuple[BinaryIO, set[str], dict[str, str]]:
        rows = []
        if self.path.exists():
            self._check_same(meta)
            self._cut_last_line()
            rows = read_predictions(self.path) if self.path.stat().st_size else []
            if retry_failed and any(row.error for row in rows):
                rows = [row for row in rows if not row.error]
                self._rewrite(rows)
        self._write_meta(meta)
        errors = {row.id: row.error for row in rows if row.error}
        return self.path.open("ab"), {row.id for row in rows}, errors

    def _check_same(self, meta: Mapping[str, Any]) -> None:
        known = read_meta(self.path)
        if not known:
            raise PredictionError(
                f"the file is there without its {meta_path(self.path).name}: what made it is not "
                "known; name another file",
                self.path,
            )
        plain = json.loads(json.dumps(dict(meta)))
        for name in _SAME:
            if known.get(name) != plain.get(name):
                raise PredictionError(
                    f"the file is of another run: {name} was {known.get(name)!r}, is "
                    f"{plain.get(name)!r}; name another file",
                    self.path,
                )

    def _cut_last_line(self) -> None:
        """Drop what a kill left of a line; end a whole one that has no end."""
        end, ended = 0, True
        for _, line, offset in lines_of(self.path):
            end, ended = offset + len(line), line.endswith(b"\n")
        with self.path.open("rb+") as file:
            file.truncate(end)
            if not ended:
                file.seek(end)
                file.write(b"\n")

    def _rewrite(self, rows: Iterable[Prediction]) -> None:
        with replacing(self.path) as file:
            file.writelines(json_line(row.to_dict()) for row in rows)

    def _write_meta(self, more: Mapping[str, Any]) -> None:
        whole = read_meta(self.path) | dict(more)
        with replacing(meta_path(self.path)) as file:
            file.write(json.dumps(whole, indent=1) + "\n")

    def add(self, rows: Sequence[Prediction]) -> None:
        """Append rows, those of an image together.

        Raises:
            PredictionError: an id that the file has.
        """
        for row in rows:
            if row.id in self.ids:
                raise PredictionError("the id is there already", self.path, None, row.id)
            self.ids.add(row.id)
            if row.error:
                self.errors[row.id] = row.error
        # one write, so that a kill leaves all of an image or nothing
        self._file.write("".join(json_line(row.to_dict()) for row in rows).encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def note(self, **more: Any) -> None:
        """Add to the record beside the file."""
        self._write_meta(more)

    def close(self) -> None:
        """Close the file and let other processes have it."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
