"""Sweeps: measured values by setting, with every seed and the spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ureca_lib.figures.style import (
    COLUMN_WIDTH,
    HEAD,
    LEGEND,
    PAGE_WIDTH,
    PALETTE,
    Interval,
    chart,
    label_of,
    size_chart,
    wrapped,
)

_PANELS = 4
_SEEDS = {"s": 8, "color": "0.3", "alpha": 0.5, "linewidths": 0, "zorder": 3}
_BARS = {"markersize": 4, "linewidth": 1, "capsize": 3}


class Measure(Protocol):
    """A measured value of a setting over its seeds."""

    mean: float
    spread: float | None  # sample standard deviation; None for a single run
    values: dict[str, float]  # by seed


class Setting(Protocol):
    """A setting of a sweep."""

    label: str
    parameters: dict[str, Any]
    measures: Mapping[str, Measure]  # by name; `size.small` for `small` in the dictionary `size`


class Summary(Protocol):
    """A sweep's summary, as `ureca_lib.runs.summarize_sweep` gives it."""

    name: str
    title: str
    report: Sequence[str]  # names of the values to show
    settings: Sequence[Any]  # of `Setting`


def sweep_figure(summary: Summary, names: Sequence[str] | None = None) -> Figure:
    """Draw a panel per measured value: the mean of each setting, its spread, and each seed.

    Settings are on an axis of numbers if they differ in one numeric parameter only, else one below
    the other. Shares are in percent.

    Args:
        summary: of a sweep.
        names: of the values; if None, the first four of the summary's report that were measured.

    Raises:
        ValueError: none of the values was measured.
    """
    measured = [
        name
        for name in names or summary.report
        if any(name in setting.measures for setting in summary.settings)
    ]
    if not measured:
        raise ValueError(f"sweep {summary.name}: none of its values was measured")
    measured = measured if names else measured[:_PANELS]
    axis = _numeric_axis(summary.settings)
    labels = [_label(s) if s.measures else f"{_label(s)} (not run)" for s in summary.settings]
    width = max(PAGE_WIDTH * len(measured) / _PANELS, COLUMN_WIDTH) + (0 if axis else 1.2)
    height = 2.4 if axis else 1.0 + 0.3 * len(labels)
    size = (min(width, PAGE_WIDTH), height)
    style = {"squeeze": False, "sharey": axis is None, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(measured), figsize=size, **style)
    for number, (ax, name) in enumerate(zip(axes[0], measured, strict=True)):
        rows = [setting.measures.get(name) for setting in summary.settings]
        _draw_settings(ax, name, rows, axis, PALETTE[number % len(PALETTE)])
        if axis is None:
            ax.set_yticks(range(len(labels)), [wrapped(label, 32, 2) for label in labels])
            ax.set_ylim(len(labels) - 0.5, -0.5)
    figure.suptitle(wrapped(summary.title, 70), fontsize=HEAD)
    return figure


def _draw_settings(
    ax: Axes,
    name: str,
    rows: Sequence[Measure | None],
    axis: tuple[str, list[float]] | None,
    color: str,
) -> None:
    """Draw the settings' means over a parameter, joined by a line, or one below the other."""
    scale = 100 if "%" in label_of(name.rpartition(".")[2]) else 1
    places = axis[1] if axis else range(len(rows))
    # a sweep's file may list its settings in any order
    drawn = sorted((place, row) for place, row in zip(places, rows, strict=True) if row)
    at = [place for place, _ in drawn]
    means = [scale * row.mean for _, row in drawn]
    spreads = np.array([scale * (row.spread or 0.0) for _, row in drawn])
    ends = np.array([spreads, spreads])
    if scale == 100:  # no share is below 0 or above 100
        ends = np.minimum(ends, [means, np.subtract(100, means)])
    if axis:
        ax.errorbar(at, means, yerr=ends, fmt="o-", color=color, **_BARS)
    else:
        ax.errorbar(means, at, xerr=ends, fmt="o", color=color, **_BARS)
    for place, row in drawn:
        seeds = [scale * value for value in row.values.values()]
        pair = ([place] * len(seeds), seeds)
        ax.scatter(*(pair if axis else pair[::-1]), **_SEEDS)
    if axis:
        if min(places) > 0 and max(places) / min(places) >= 4:
            ax.set_xscale("log", base=2)
        ax.set_xticks(places, [f"{place:g}" for place in places])
        ax.minorticks_off()
    *group, value = name.split(".")
    title = ", ".join([*map(label_of, group), label_of(value)])
    chart(ax, label_of(axis[0]) if axis else "", grid="y" if axis else "x", title=title)


def size_effect_figure(summary: Summary, value: str = "unique", group: str = "by_size") -> Figure:
    """Draw a measured value by the size of regions, a line per setting (compare Figure 10).

    Args:
        summary: of a sweep whose runs recorded `{group: {size: {value: share}}}`, smallest first.
        value: name of the value, drawn in percent with its mean and spread over seeds.
        group: name of the dictionary.

    Raises:
        ValueError: no run recorded that.
    """
    curves: dict[str, dict[str, Interval]] = {}
    for setting in summary.settings:
        curve: dict[str, Interval] = {}
        for name, row in setting.measures.items():
            if name.startswith(f"{group}.") and name.endswith(f".{value}"):
                size = name.removeprefix(f"{group}.").removesuffix(f".{value}")
                spread = row.spread or 0.0
                ends = (row.mean, row.mean - spread, row.mean + spread)
                curve[size] = tuple(100 * end for end in ends)
        curves[_label(setting)] = curve
    if not any(curves.values()):
        raise ValueError(f"sweep {summary.name}: no run recorded '{value}' in '{group}'")
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH, 2.9), layout="constrained")
    label = label_of(value)
    size_chart(ax, curves, label if "%" in label else f"{label}, %")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), **LEGEND)
    return figure


def _label(setting: Setting) -> str:
    """The setting's label, with words for the names of its parameters."""
    label = setting.label
    for name in setting.parameters:
        label = label.replace(name, label_of(name))
    return label


def _numeric_axis(settings: Sequence[Setting]) -> tuple[str, list[float]] | None:
    """The one parameter that all settings set to numbers, and its values."""
    names = {tuple(setting.parameters) for setting in settings}
    if len(settings) < 2 or len(names) != 1 or len(name := names.pop()) != 1:
        return None
    values = [setting.parameters[name[0]] for setting in settings]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    places = [float(value) for value in values]
    return (name[0], places) if np.isfinite(places).all() else None
