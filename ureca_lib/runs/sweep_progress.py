"""How far a sweep is: a bar for the whole, and one for each run that goes on."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from ureca_lib.runs.grid import PlannedRun, Sweep

_EVERY = 1.0  # seconds between looks at the notebooks that run


class SweepProgress:
    """Bars on a terminal; elsewhere, as in a log, a line as each run begins and ends.

    Args:
        sweep: whose runs are shown.
        runs: the folder that holds their folders.
        shown: False shows nothing.
    """

    def __init__(self, sweep: Sweep, runs: Path, shown: bool = True):
        self._notebook, self._runs, self._shown = sweep.notebook.name, runs, shown
        self._terminal = shown and sys.stderr.isatty()
        self._whole = tqdm(
            total=len(sweep.runs), desc=sweep.name, unit="run", disable=not self._terminal
        )
        self._count, self._all = 0, len(sweep.runs)
        self._bars: dict[str, tqdm] = {}
        self._began: dict[str, float] = {}
        self._looked = 0.0

    def begin(self, run: PlannedRun) -> None:
        """A run has been started."""
        self._began[run.name] = time.monotonic()
        if self._terminal:
            taken = {bar.pos for bar in self._bars.values()}
            place = next(number for number in range(1, len(taken) + 2) if -number not in taken)
            self._bars[run.name] = tqdm(desc=_name(run), unit="cell", position=place, leave=False)
        else:
            self._say(f"begins: {_name(run)}")

    def end(self, run: PlannedRun, how: str) -> None:
        """A run is over."""
        bar = self._bars.pop(run.name, None)
        if bar is not None:
            bar.close()
        began = self._began.pop(run.name, None)
        took = "" if began is None else f" after {time.monotonic() - began:.0f} s"
        self._count += 1
        text = f"{how}{took}: {_name(run)} -> {self._runs / run.name}"
        self._say(f"[{self._count}/{self._all}] {text}")
        self._whole.update()

    def leave(self, run: PlannedRun) -> None:
        """A run goes on in another process."""
        bar = self._bars.pop(run.name, None)
        if bar is not None:
            bar.close()
        self._say(f"runs in another process: {_name(run)}")

    def refresh(self) -> None:
        """Look how far the running notebooks are, now and then."""
        if not self._bars or time.monotonic() - self._looked < _EVERY:
            return
        self._looked = time.monotonic()
        for name, bar in self._bars.items():
            done, cells = cells_done(self._runs / name / self._notebook)
            bar.total = cells
            bar.n = done
            bar.refresh()

    def close(self) -> None:
        """Remove the bars of runs, and leave the one of the whole."""
        for bar in self._bars.values():
            bar.close()
        self._whole.close()

    def _say(self, text: str) -> None:
        if self._shown:
            tqdm.write(text, file=sys.stderr)


def cells_done(notebook: Path) -> tuple[int, int]:
    """Cells that papermill has finished in a notebook that runs, and all of its cells.

    Args:
        notebook: the executed copy, which papermill saves after each cell.

    Returns:
        (0, 0) where there is none yet that can be read.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return 0, 0
    states = [cell.get("metadata", {}).get("papermill", {}).get("status") for cell in cells]
    return states.count("completed"), len(cells)


def _name(run: PlannedRun) -> str:
    return f"{run.label}, seed {run.seed}"
