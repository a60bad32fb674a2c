"""Training seen as it goes: loss, and what is measured on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ureca_lib.figures.style import FAINT, INK, PAGE_WIDTH, PALETTE

Log = Sequence[Mapping[str, Any]]
MEASURES = {"eval_exact_match": "exact match", "eval_unique": "unique", "exact": "exact, learnt"}
MEASURES |= {"validation_exact": "exact, held out"}


def training_figure(logs: Mapping[str, Log], measures: Sequence[str] | None = None) -> Figure:
    """Loss on the left, measured shares on the right, a line for each run.

    Args:
        logs: rows of each run by its name, each with "step" and what was noted then, as
            `TrainingResult.log` and `training_log.jsonl` have them.
        measures: names of rows' values to show on the right; by default those of `MEASURES`
            that a log has.

    Raises:
        ValueError: no log, or a log without a loss.
    """
    if not logs:
        raise ValueError("no logs to draw")
    figure = Figure(figsize=(PAGE_WIDTH, 2.3), layout="constrained")
    loss_axes, share_axes = figure.subplots(1, 2, sharex=True)  # a single evaluation has no range
    for number, (name, rows) in enumerate(logs.items()):
        colour = PALETTE[number % len(PALETTE)]
        steps, losses = _series(rows, "loss")
        if not steps:
            raise ValueError(f"the log of {name} has no loss")
        loss_axes.plot(steps, losses, color=colour, lw=1, label=name)
        shown = [key for key in measures or MEASURES if _series(rows, key)[0]]
        for style, key in zip(("-", "--", ":", "-."), shown, strict=False):
            places, values = _series(rows, key)
            marker = "o" if len(places) < 20 else None
            label = f"{name}: {MEASURES.get(key, key)}"
            look = {"color": colour, "lw": 1, "ls": style, "marker": marker, "ms": 3}
            share_axes.plot(places, values, label=label, **look)
    loss_axes.set_ylabel("loss a token")
    share_axes.set_ylabel("share of regions")
    share_axes.set_ylim(0, 1)
    for axes in (loss_axes, share_axes):
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7, colors=INK)
        axes.grid(axis="y", color=FAINT, alpha=0.25, lw=0.5)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False)
    return figure


def _series(rows: Log, key: str) -> tuple[list[int], list[float]]:
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]
