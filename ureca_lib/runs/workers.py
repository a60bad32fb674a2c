"""Processes that run a sweep's notebooks: started, watched, stopped; and their locks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ureca_lib.runs.worker import GRACE

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_LOCKS = ".locks"


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_environment(jobs: int, cores: int | None = None) -> dict[str, str]:
    """This process's environment, with the threads of each of `jobs` workers capped.

    Args:
        jobs: workers at a time.
        cores: that they share; those that this process may use if None.

    Returns:
        The environment. A smaller number that is set already, in whichever variable, holds for
        all of them: torch heeds MKL's as well as OpenMP's.
    """
    environment = dict(os.environ)
    given = [environment.get(name, "") for name in _THREADS]
    limits = [int(each) for each in given if each.isdigit() and int(each) > 0]
    cap = min([max(1, (cores or usable_cores()) // jobs), *limits])
    environment |= dict.fromkeys(_THREADS, str(cap))
    environment["TOKENIZERS_PARALLELISM"] = "false"
    return environment


def run_lock(root: Path, name: str) -> FileLock:
    """The lock of a run; a process that dies frees it. The file is never removed.

    Args:
        root: folder of the sweeps.
        name: of the run's folder.
    """
    path = root / _LOCKS / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # removing the file would let two processes hold locks on two files of this name
    return FileLock(path, thread_local=False)


def is_running(root: Path, name: str) -> bool:
    """Whether some process holds the lock of a run."""
    lock = run_lock(root, name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


class Worker:
    """A process that executes one run.

    Args:
        root: folder of the sweeps.
        name: of the run's folder.
        notebook: path of the notebook.
        parameters: all of its parameters.
        folder: the run's.
        timeout: seconds that a cell may take.
        environment: of the process.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        notebook: Path,
        parameters: Mapping[str, Any],
        folder: Path,
        timeout: float | None,
        environment: Mapping[str, str],
    ):
        job = {
            "notebook": str(notebook),
            "parameters": dict(parameters),
            "folder": str(folder.resolve()),
            "lock": run_lock(root.resolve(), name).lock_file,
            "timeout": timeout,
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ureca_lib.runs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C reaches the sweep, which stops its workers
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit status tells
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Ask the run to stop, and return at once."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]

    def wait(self, seconds: float = GRACE + 2) -> None:
        """Wait for the process to end; after `seconds` it is killed."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self) -> str:
        """The last line that it wrote to standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Close its pipe and file."""
        self.stop()
        self._errors.close()
