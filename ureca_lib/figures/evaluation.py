"""Figures of an evaluation: scores with their intervals, scores by size, the best and the worst."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ureca_lib.datasets.captioned import CaptionedImages
from ureca_lib.evaluate.predictions import Prediction
from ureca_lib.evaluate.scores import Score
from ureca_lib.evaluate.tables import PERCENT
from ureca_lib.figures.compared import compared_regions
from ureca_lib.figures.comparison import ComparedRegion
from ureca_lib.figures.style import FAINT, INK, PAGE_WIDTH, PALETTE, wrapped

_COLOURS = (*PALETTE[:6], INK, FAINT)  # without yellow, which is hard to see as a thin line
_MARKERS = "osD^vP*Xh"  # systems are told apart by shape too
_PANELS = 4  # in a row
_LABEL, _TICK = 8, 7  # points
_LINE, _BETWEEN = 0.125, 0.07  # inches of a line of a system's name, and to the next name


def scores_figure(
    systems: Mapping[str, Mapping[str, Score]],
    names: Sequence[str],
    chance: Mapping[str, float | None] | None = None,
) -> Figure:
    """One panel a score, one line a system: the value in percent and its interval.

    Args:
        systems: by name, from the top, what each scores.
        names: keys of the scores, in this order; those that no system has are left out.
        chance: by key, from 0 to 1, what a guess scores: a dotted line.

    Raises:
        ValueError: no system has any of the scores.
    """
    shown = [name for name in names if any(_value(s, name) is not None for s in systems.values())]
    if not shown:
        raise ValueError(f"no system has a value for {', '.join(names) or 'no score'}")
    rows = math.ceil(len(shown) / _PANELS)
    labels = [wrapped(system, 18) for system in systems]
    row = _BETWEEN + _LINE * max(label.count("\n") + 1 for label in labels)
    height = rows * (0.62 + row * len(systems))
    figure, grid = plt.subplots(
        rows,
        min(_PANELS, len(shown)),
        figsize=(PAGE_WIDTH, height),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for ax in grid.flat[len(shown) :]:
        ax.set_axis_off()
    for ax, name in zip(grid.flat, shown, strict=False):
        _panel(ax, systems, name, (chance or {}).get(name))
    for ax in grid[:, 0]:
        ax.set_yticks(range(len(systems)), labels)
    grid[0, 0].set_ylim(len(systems) - 0.5, -0.5)
    return figure


def size_scores_figure(
    systems: Mapping[str, Mapping[str, Mapping[str, Score]]], name: str, what: str
) -> Figure:
    """A score by the regions' share of the image, one line a system.

    Args:
        systems: by name, for each size, the smallest first, what the system scores there.
        name: key of the score.
        what: the axis' label.

    Raises:
        ValueError: no system has the score at any size.
    """
    sizes = list(dict.fromkeys(size for groups in systems.values() for size in groups))
    lines = {
        system: [
            (place, groups[size][name])
            for place, size in enumerate(sizes)
            if _value(groups.get(size, {}), name) is not None
        ]
        for system, groups in systems.items()
    }
    if not any(lines.values()):
        raise ValueError(f"no system has a value for {name} at any size")
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH, 2.7), layout="constrained")
    for number, (system, points) in enumerate(lines.items()):
        shift = 0.06 * (number - (len(lines) - 1) / 2)  # so that intervals do not hide each other
        places = [place + shift for place, _ in points]
        values = [PERCENT * score.value for _, score in points]
        ax.plot(places, values, label=wrapped(system, 18), **_style(number), linewidth=1)
        for place, (_, score) in zip(places, points, strict=True):
            if score.low is not None:
                ends = [PERCENT * score.low, PERCENT * score.high]
                ax.plot([place] * 2, ends, color=_style(number)["color"], linewidth=1)
    ax.set_xticks(range(len(sizes)), [wrapped(size, 14) for size in sizes])
    ax.set_xlabel("share of the image that a region covers", fontsize=_LABEL)
    ax.set_ylabel(wrapped(what, 28), fontsize=_LABEL)
    _plain(ax, "y")
    ax.legend(fontsize=_TICK, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def ranked_regions(
    images: CaptionedImages,
    systems: Mapping[str, Sequence[Prediction]],
    score: Score,
    count: int = 3,
    worst: bool = False,
    seed: int = 0,
) -> list[ComparedRegion]:
    """The regions whose captions score best, or worst, for `comparison_figure`.

    Args:
        images: that the predictions are of.
        systems: by name, the predictions of each; regions are those of the first.
        score: of the first system, with each caption's own.
        count: of regions, at most; a caption that was taken is not taken again.
        worst: the lowest scores first.
        seed: decides between captions of one score.

    Returns:
        In the order of their scores, with the score in the note; the data's own caption is the
        first column.

    Raises:
        ValueError: no system, or no region of the first system has a score.
    """
    if not systems:
        raise ValueError("there is no system to rank")
    values = {key: value for key, value in score.by_id.items() if not math.isnan(value)}
    rows = [row for row in next(iter(systems.values())) if row.id in values]
    if not rows:
        raise ValueError(f"{next(iter(systems))}: no caption has a score of its own")
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    order.sort(key=lambda place: values[rows[place].id] * (1 if worst else -1))
    taken: dict[str, Prediction] = {}
    for place in order:
        taken.setdefault(rows[place].caption, rows[place])
    places = {image_id: place for place, image_id in enumerate(images.ids)}
    found = []
    for row in list(taken.values())[:count]:
        said = {
            name: [one for one in theirs if one.id == row.id] for name, theirs in systems.items()
        }
        said = {name: theirs for name, theirs in said.items() if theirs}
        (region,) = compared_regions([images[places[row.image_id]]], said, 1)
        note = f"{score.label} {PERCENT * values[row.id]:.0f} · {region.note}"
        found.append(replace(region, note=note))
    return found


def _panel(
    ax: Axes, systems: Mapping[str, Mapping[str, Score]], name: str, chance: float | None
) -> None:
    label = name
    for place, scores in enumerate(systems.values()):
        if _value(scores, name) is None:
            continue
        label = scores[name].label
        score, style = scores[name], _style(place)
        if score.low is not None:
            ends = [PERCENT * score.low, PERCENT * score.high]
            ax.plot(ends, [place] * 2, color=style["color"], linewidth=1)
        ax.plot([PERCENT * score.value], [place], **style, linestyle="")
    if chance is not None:
        ax.axvline(PERCENT * chance, color=FAINT, linestyle=":", linewidth=1)
    ax.set_title(wrapped(label, 24), fontsize=_LABEL)
    ax.margins(x=0.1)
    _plain(ax, "x")


def _style(number: int) -> dict[str, Any]:
    mark, colour = _MARKERS[number % len(_MARKERS)], _COLOURS[number % len(_COLOURS)]
    # where colours begin anew, marks are open: at this size a hexagon is a circle
    face = colour if number < len(_COLOURS) else "white"
    return {"marker": mark, "color": colour, "markerfacecolor": face, "markersize": 4}


def _value(scores: Mapping[str, Score], name: str) -> float | None:
    return scores[name].value if name in scores else None


def _plain(ax: Axes, axis: str) -> None:
    ax.tick_params(labelsize=_TICK)
    ax.grid(axis=axis, linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
