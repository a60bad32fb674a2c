"""Who works on a store: one locked file a process, which the system frees when it dies.

A lease that expires by the clock makes a run that was killed wait, and may expire under one that
is only slow. A lock on a file does neither: it is gone with its process, kill -9 included.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

_NEW = 60.0  # seconds


class Lease:
    """The proof that this process lives; `worker` is its name in the store.

    Args:
        store: the store's file; the locks lie in a folder beside it.
    """

    def __init__(self, store: Path):
        self.worker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        path = _path(store, self.worker)
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(store, path.parent)
        self._lock = FileLock(path, thread_local=False)
        self._lock.acquire(timeout=0)

    def close(self) -> None:
        """Free the lock and remove its file."""
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def is_alive(store: Path, worker: str) -> bool:
    """Whether the process of that name still runs; removes what a dead one left."""
    path = _path(store, worker)
    if not path.is_file():
        return False
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    path.unlink(missing_ok=True)
    return False


def _sweep(store: Path, folder: Path) -> None:
    """Remove what killed processes left; not what is so new that it may not be locked yet."""
    for path in folder.glob("*.lock"):
        try:
            old = time.time() - path.stat().st_mtime > _NEW
        except FileNotFoundError:  # its process ended just now
            continue
        if old:
            is_alive(store, path.stem)


def _path(store: Path, worker: str) -> Path:
    return store.with_name(f"{store.name}.workers") / f"{worker}.lock"
