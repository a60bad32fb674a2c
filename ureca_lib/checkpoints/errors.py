"""Errors of reading a checkpoint."""

from __future__ import annotations

from pathlib import Path

_SHOWN = 200  # enough for every key of a mistaken prefix in one layer, short of a flood


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; says which file and why."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)


class CheckpointKeysError(CheckpointError):
    """A checkpoint whose tensors are not those of its configuration.

    Attributes:
        missing: keys that the configuration asks for and the files lack.
        unexpected: keys that the files hold and the configuration has no place for.
        mismatched: lines "key: shape in the file, what is wrong with it".
    """

    def __init__(
        self, path: Path | str, missing: list[str], unexpected: list[str], mismatched: list[str]
    ):
        self.missing, self.unexpected, self.mismatched = missing, unexpected, mismatched
        parts = [
            _listing("missing", missing),
            _listing("unexpected", unexpected),
            _listing("of the wrong shape", mismatched),
        ]
        super().__init__(path, "; ".join(part for part in parts if part))


def _listing(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} tensors {what}: {', '.join(keys[:_SHOWN])}{more}"
