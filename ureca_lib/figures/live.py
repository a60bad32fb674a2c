"""A figure that follows a run's log while the run goes on in the same cell."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from IPython.display import DisplayHandle, display

from ureca_lib.figures.training import training_figure
from ureca_lib.train.run_folder import read_log


@contextmanager
def live_training(runs: dict[str, str | Path], every: float = 3.0) -> Iterator[DisplayHandle]:
    """Show losses of runs below the cell, drawn anew while the context lasts, and at its end.

    Args:
        runs: folder of each run by the name that it is to have; one that has not begun is left out.
        every: seconds between drawings.
    """
    handle = display("waiting for the first steps", display_id=True)
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(runs, handle, stop, every), daemon=True)
    thread.start()
    try:
        yield handle
    finally:
        stop.set()
        thread.join()
        _draw(runs, handle)


def _follow(
    runs: dict[str, str | Path],
    handle: DisplayHandle | None,
    stop: threading.Event,
    every: float,
) -> None:
    while not stop.wait(every):
        _draw(runs, handle)


def _draw(runs: dict[str, str | Path], handle: DisplayHandle | None) -> None:
    logs = {name: read_log(folder) for name, folder in runs.items()}
    begun = {name: rows for name, rows in logs.items() if any("loss" in row for row in rows)}
    if begun and handle is not None:  # there is none outside of a notebook
        handle.update(training_figure(begun))
