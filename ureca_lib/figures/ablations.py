"""Figures of sweeps: measured values by setting, with every seed and the spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ureca_lib.figures.style import COLUMN_WIDTH, PAGE_WIDTH, PALETTE, wrapped

if TYPE_CHECKING:
    from ureca_lib.runs.summary import Measure, SettingSummary, SweepSummary

_PANELS = 4
_SEEDS = {"s": 8, "color": "0.3", "alpha": 0.5, "linewidths": 0, "zorder": 3}
_MARKERS = "osD^vP"  # lines are told apart by shape too


def sweep_figure(summary: SweepSummary, names: Sequence[str] | None = None) -> Figure:
    """One panel a measured value: the mean of each setting, its spread, and each seed.

    Settings are on an axis of numbers where they differ in one numeric parameter only, else one
    below the other.

    Args:
        summary: of a sweep.
        names: of the values; if None, the first four of the summary's report that were measured.

    Raises:
        ValueError: none of the values was measured.
    """
    measured = [name for name in names or summary.report if _measures(summary, name)]
    if not measured:
        raise ValueError(f"sweep {summary.name}: none of its values was measured")
    measured = measured if names else measured[:_PANELS]
    axis = _numeric_axis(summary.settings)
    labels = [s.label if s.measures else f"{s.label} (not run)" for s in summary.settings]
    width = max(PAGE_WIDTH * len(measured) / _PANELS, COLUMN_WIDTH) + (0 if axis else 1.2)
    height = 2.4 if axis else 1.0 + 0.3 * len(labels)
    figure, axes = plt.subplots(
        1,
        len(measured),
        figsize=(min(width, PAGE_WIDTH), height),
        squeeze=False,
        sharey=axis is None,
        layout="constrained",
    )
    for number, (ax, name) in enumerate(zip(axes[0], measured, strict=True)):
        found = [setting.measures.get(name) for setting in summary.settings]
        colour = PALETTE[number % len(PALETTE)]
        if axis:
            _draw_over(ax, *axis, found, colour)
        else:
            _draw_beside(ax, labels, found, colour)
        ax.set_title(wrapped(name, 28), fontsize=8)
        ax.tick_params(labelsize=7)
    figure.suptitle(wrapped(summary.title, 70), fontsize=9)
    return figure


def size_effect_figure(
    summary: SweepSummary, value: str = "unique", group: str = "by_size"
) -> Figure:
    """A measured value by the size of regions, one line a setting (compare Figure 10).

    Args:
        summary: of a sweep whose runs recorded `{group: {size: {value: share}}}`, smallest first.
        value: what is drawn, its mean and spread over seeds.
        group: name of the dictionary.

    Raises:
        ValueError: no run recorded that.
    """
    found = {
        setting.label: {
            name.removeprefix(f"{group}.").removesuffix(f".{value}"): item
            for name, item in setting.measures.items()
            if name.startswith(f"{group}.") and name.endswith(f".{value}")
        }
        for setting in summary.settings
    }
    sizes = list(dict.fromkeys(size for items in found.values() for size in items))
    if not sizes:
        raise ValueError(f"sweep {summary.name}: no run recorded '{value}' in '{group}'")
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH, 2.9), layout="constrained")
    for number, (label, items) in enumerate(found.items()):
        shift = 0.06 * (number - (len(found) - 1) / 2)  # so that bars do not hide each other
        there = [(place + shift, items[size]) for place, size in enumerate(sizes) if size in items]
        if not there:  # a setting that has not been run is no line of the legend
            continue
        ax.errorbar(
            [place for place, _ in there],
            [item.mean for _, item in there],
            yerr=[item.spread or 0.0 for _, item in there],
            fmt=f"{_MARKERS[number % len(_MARKERS)]}-",
            color=PALETTE[number % len(PALETTE)],
            label=wrapped(label, 32),
            markersize=4,
            linewidth=1,
            capsize=2,
        )
    ax.set_xticks(range(len(sizes)), [wrapped(size, 14) for size in sizes])
    ax.set_xlabel("share of the image that a region covers", fontsize=8)
    ax.set_ylabel(wrapped(value, 28), fontsize=8)
    ax.tick_params(labelsize=7)
    ax.grid(axis="y", linewidth=0.4, alpha=0.5)
    ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _draw_over(
    ax: Axes, parameter: str, places: Sequence[float], found: Sequence[Measure | None], colour: str
) -> None:
    """Means over the values of a parameter, joined by a line."""
    drawn = [(place, item) for place, item in zip(places, found, strict=True) if item]
    there = sorted(drawn, key=lambda pair: pair[0])  # a sweep's file may list them in any order
    means = [item.mean for _, item in there]
    spreads = [item.spread or 0.0 for _, item in there]
    style = {"fmt": "o-", "color": colour, "markersize": 4, "linewidth": 1, "capsize": 3}
    ax.errorbar([place for place, _ in there], means, yerr=spreads, **style)
    for place, item in there:
        seeds = list(item.values.values())
        ax.scatter([place] * len(seeds), seeds, **_SEEDS)
    if min(places) > 0 and max(places) / min(places) >= 4:
        ax.set_xscale("log", base=2)
    ax.set_xticks(places, [f"{place:g}" for place in places])
    ax.minorticks_off()
    ax.set_xlabel(wrapped(parameter, 28), fontsize=8)
    ax.grid(axis="y", linewidth=0.4, alpha=0.5)


def _draw_beside(
    ax: Axes, labels: Sequence[str], found: Sequence[Measure | None], colour: str
) -> None:
    """A row for each setting, its label at the left: labels may be long."""
    there = [(row, item) for row, item in enumerate(found) if item]
    means = [item.mean for _, item in there]
    spreads = [item.spread or 0.0 for _, item in there]
    style = {"fmt": "o", "color": colour, "markersize": 4, "linewidth": 1, "capsize": 3}
    ax.errorbar(means, [row for row, _ in there], xerr=spreads, **style)
    for row, item in there:
        seeds = list(item.values.values())
        ax.scatter(seeds, [row] * len(seeds), **_SEEDS)
    ax.set_yticks(range(len(labels)), [wrapped(label, 32) for label in labels])
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(axis="x", linewidth=0.4, alpha=0.5)


def _numeric_axis(settings: Sequence[SettingSummary]) -> tuple[str, list[float]] | None:
    """The one parameter that all settings set to numbers, and its values."""
    names = {tuple(setting.parameters) for setting in settings}
    if len(settings) < 2 or len(names) != 1 or len(name := names.pop()) != 1:
        return None
    values = [setting.parameters[name[0]] for setting in settings]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    places = [float(value) for value in values]
    return (name[0], places) if np.isfinite(places).all() else None


def _measures(summary: SweepSummary, name: str) -> bool:
    return any(name in setting.measures for setting in summary.settings)
