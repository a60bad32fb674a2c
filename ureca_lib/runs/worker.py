"""One run of a sweep in a process of its own: `python -m ureca_lib.runs.worker`.

The first line of standard input is the job as JSON. The pipe then stays open and says nothing:
its end means that the sweep has stopped or is gone, and the run stops too, with its kernel.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

DONE, FAILED, ELSEWHERE = 0, 1, 75  # exit statuses; 75 is EX_TEMPFAIL
GRACE = 10.0  # seconds that a run is given to stop


def main() -> int:
    """Run the job, under its lock.

    Returns:
        The exit status: done, failed (the record tells why), or running in another process.
    """
    # a shell's background job starts with the signal ignored, and so do its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = json.loads(sys.stdin.readline())
    lock = FileLock(job["lock"], thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return ELSEWHERE
    # the system frees the lock when this process ends, however it ends
    stopping = threading.Event()
    threading.Thread(target=_watch, args=(stopping,), daemon=True).start()
    try:
        return _run(job, stopping)
    except KeyboardInterrupt:
        return FAILED
    finally:
        stopping.set()


def _run(job: dict, stopping: threading.Event) -> int:
    # imported under the lock, as it takes a second
    from ureca_lib.runs.runner import RunFailedError, run_notebook

    folder = Path(job["folder"])
    try:
        run_notebook(
            job["notebook"], job["parameters"], folder, timeout=job["timeout"], progress=False
        )
    except RunFailedError as error:
        if stopping.is_set():  # the kernel did not die by itself
            place = {name: (error.record.error or {}).get(name) for name in ("cell", "source")}
            error.record.error = place | {"name": "Interrupted", "message": "stopped"}
            error.record.save(folder)
        return FAILED
    return DONE


def _watch(stopping: threading.Event) -> None:
    # not through sys.stdin, whose lock a thread may not hold when Python ends
    while os.read(0, 1):
        pass
    if stopping.is_set():  # the run is over
        return
    stopping.set()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE)
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
