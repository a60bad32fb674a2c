"""Sweeps: measured values by setting, with every seed and the spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ureca_lib.figures.style import (
    COLUMN_WIDTH,
    HEAD,
    PAGE_WIDTH,
    Interval,
    chart,
    interval_panels,
    label_of,
    marks,
    size_chart,
    wrapped,
)

_PANELS = 4
_SEEDS = {"s": 8, "color": "0.3", "alpha": 0.5, "linewidths": 0, "zorder": 3}


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
    settings: Sequence[Setting]


def sweep_figure(summary: Summary) -> Figure:
    """Draw a panel per measured value: the mean of each setting, its spread, and each seed.

    The values are the first four of the summary's report that were measured. Settings are on an
    axis of numbers if they differ in one numeric parameter only, else one below the other. Shares
    are in percent.

    Args:
        summary: of a sweep.

    Raises:
        ValueError: none of the values was measured.
    """
    settings = summary.settings
    names = [name for name in summary.report if any(name in s.measures for s in settings)][:_PANELS]
    if not names:
        raise ValueError(f"sweep {summary.name}: none of its values was measured")
    titles = {name: ", ".join(map(label_of, name.split("."))) for name in names}
    parameter, places = _numeric_axis(settings) or ("", range(len(settings)))
    if parameter:
        size = (max(PAGE_WIDTH * len(names) / _PANELS, COLUMN_WIDTH), 2.4)
        figure = plt.figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(names), squeeze=False)[0]
    else:
        rows = {}
        for setting in settings:
            label = _label(setting) + ("" if setting.measures else " (not run)")
            measured = {name: row for name, row in setting.measures.items() if name in names}
            rows[label] = {name: _interval(row, titles[name]) for name, row in measured.items()}
        figure, axes = interval_panels(rows, titles)
    for number, (ax, (name, title)) in enumerate(zip(axes, titles.items(), strict=True)):
        # a sweep's file may list its settings in any order
        pairs = sorted(zip(places, settings, strict=True), key=lambda pair: pair[0])
        drawn = [(place, s.measures[name]) for place, s in pairs if name in s.measures]
        seeds = [(at, _scale(title) * value) for at, row in drawn for value in row.values.values()]
        x, y = np.transpose(seeds)
        ax.scatter(*((x, y) if parameter else (y, x)), **_SEEDS)
        if parameter:
            at = [place for place, _ in drawn]
            values, *ends = np.transpose([_interval(row, title) for _, row in drawn])
            ax.vlines(at, *ends, color=marks(number)["color"], linewidth=1)
            ax.plot(at, values, linewidth=1, **marks(number))
            if min(places) > 0 and max(places) / min(places) >= 4:
                ax.set_xscale("log", base=2)
            ax.set_xticks(places, [f"{place:g}" for place in places])
            ax.minorticks_off()
            chart(ax, label_of(parameter), title=title)
    figure.suptitle(wrapped(summary.title, 70), fontsize=HEAD)
    return figure


def _scale(title: str) -> int:
    return 100 if "%" in title else 1


def _interval(row: Measure, title: str) -> Interval:
    """Mean, and mean minus and plus the spread; no share is below 0% or above 100%."""
    ends = _scale(title) * (row.mean + np.array([0, -1, 1]) * (row.spread or 0.0))
    return tuple(ends.clip(0, 100) if "%" in title else ends)


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
        curve = curves[_label(setting)] = {}
        for name, row in setting.measures.items():
            if name.startswith(f"{group}.") and name.endswith(f".{value}"):
                size = name.removeprefix(f"{group}.").removesuffix(f".{value}")
                curve[size] = _interval(row, "%")
    if not any(curves.values()):
        raise ValueError(f"sweep {summary.name}: no run recorded '{value}' in '{group}'")
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH, 2.9), layout="constrained")
    label = label_of(value)
    size_chart(ax, curves, label if "%" in label else f"{label}, %")
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
    numbers = all(type(value) in (int, float) and math.isfinite(value) for value in values)
    return (name[0], [float(value) for value in values]) if numbers else None
