"""Training in progress: loss, and shares measured during the run."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import DisplayHandle, Image, display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ureca_lib.figures.style import LEGEND, PAGE_WIDTH, PALETTE, chart, label_of, wrapped
from ureca_lib.train.run_folder import read_log

Log = Sequence[Mapping[str, Any]]
MEASURES = {"eval_exact_match": "exact match", "eval_unique": "unique"}
MEASURES |= {"exact": "exact, training scenes", "validation_exact": "exact, held out"}


def training_figure(logs: Mapping[str, Log], measures: Sequence[str] = tuple(MEASURES)) -> Figure:
    """Draw the loss on the left, measured shares on the right, with a line per run.

    Args:
        logs: rows of each run by its name, each with "step" and the values noted then, as
            `TrainingResult.log` and `training_log.jsonl` have them.
        measures: names of rows' values to show on the right, if a log has them.

    Raises:
        ValueError: no log, or a log without a loss.
    """
    without = [name for name, rows in logs.items() if not _series(rows, "loss")[0]]
    if without or not logs:
        raise ValueError(f"no loss: {', '.join(without) or 'no logs to draw'}")
    figure = plt.figure(figsize=(PAGE_WIDTH, 2.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for (name, rows), color in zip(logs.items(), cycle(PALETTE), strict=False):
        left.plot(*_series(rows, "loss"), color=color, lw=1, label=wrapped(name, 30, 2))
        shown = [key for key in measures if _series(rows, key)[0]]
        for style, key in zip(("-", "--", ":", "-."), shown, strict=False):
            steps, values = _series(rows, key)
            label = wrapped(f"{name}: {MEASURES.get(key, label_of(key))}", 40, 2)
            look = {"color": color, "lw": 1, "ls": style, "ms": 3, "clip_on": False}
            look["marker"] = "o" if len(steps) < 20 else None
            right.plot(steps, np.multiply(values, 100), label=label, **look)
    right.set_ylim(0, 100)
    for ax, y in ((left, "loss per token"), (right, "share of regions, %")):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        chart(ax, "step", y)
        if ax.lines:
            ax.legend(**LEGEND)
    return figure


def _series(rows: Log, key: str) -> tuple[list[int], list[float]]:
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


@contextmanager
def live_training(
    runs: Mapping[str, str | Path], every: float = 3.0
) -> Iterator[DisplayHandle | None]:
    """Show the losses of runs below a notebook's cell, drawn anew until the context ends.

    Args:
        runs: folder of each run by its name in the legend; a run that has not begun is left out.
        every: seconds between drawings.
    """
    handle = display("waiting for the first steps", display_id=True)
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(every):
            _show(runs, handle)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield handle
    finally:
        stop.set()
        thread.join()
        _show(runs, handle)


def _show(runs: Mapping[str, str | Path], handle: DisplayHandle | None) -> None:
    logs = {name: read_log(folder) for name, folder in runs.items()}
    begun = {name: rows for name, rows in logs.items() if any("loss" in row for row in rows)}
    if begun and handle is not None:  # there is no handle outside of a notebook
        # as PNG: a figure that is drawn again in its cell would be shown a second time at its end
        figure, buffer = training_figure(begun), io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        plt.close(figure)
        handle.update(Image(buffer.getvalue(), format="png"))
