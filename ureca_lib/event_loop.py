"""One event loop in one background thread, for synchronous callers of asynchronous code.

`asyncio.run` raises inside a notebook cell, whose kernel already runs a loop, and an asynchronous
client does not survive a second loop. So everything asynchronous in this process shares one loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = 0


def background_loop() -> asyncio.AbstractEventLoop:
    """The process's background loop, started at the first call."""
    global _loop, _pid
    with _lock:
        # a forked child inherits the loop but not the thread that runs it
        if _loop is None or _pid != os.getpid():
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="ureca-loop", daemon=True).start()
        return _loop


def run_coroutine(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in the background loop and wait for its result.

    Works in a script, in a thread, and in a notebook cell. Ctrl-C cancels the coroutine, waits
    until it has cleaned up, and is raised again.

    Raises:
        RuntimeError: called from the background loop itself, which would wait for itself.
        Exception: whatever the coroutine raises.
    """
    loop = background_loop()
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        coroutine.close()
        raise RuntimeError("run_coroutine waits for the background loop: await the coroutine")
    finished, tasks = threading.Event(), []

    def start() -> None:
        tasks.append(loop.create_task(coroutine))
        tasks[0].add_done_callback(lambda _: finished.set())

    def stop() -> None:
        if tasks:
            tasks[0].cancel()
        else:
            finished.set()

    try:
        # the coroutine may run, and Ctrl-C may come, before this call returns
        loop.call_soon_threadsafe(start)
        finished.wait()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(stop)
        finished.wait()  # for the cleanup; a second Ctrl-C does not wait for it
        raise
    return tasks[0].result()


async def in_background(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Await a coroutine of the background loop from any loop, as that of a notebook cell."""
    loop = background_loop()
    if asyncio.get_running_loop() is loop:
        return await coroutine
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
