"""Comparisons of systems: captions side by side (Figs. 4, 6, 8 and 9), scores, scores by size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.predictions import Prediction, prediction_id, read_meta, read_predictions
from ureca_lib.evaluate.scores import Score
from ureca_lib.figures.outlines import close_view, draw_outline, draw_photo
from ureca_lib.figures.style import (
    BODY,
    FAINT,
    HEAD,
    INK,
    LEGEND,
    PAGE_WIDTH,
    RIGHT_COLOR,
    SMALL,
    WRONG_COLOR,
    Interval,
    chart,
    fitted,
    marks,
    sheet,
    size_chart,
    text_height,
    wrapped,
    write,
)
from ureca_lib.regions import Region
from ureca_lib.scenes.parsing import GrammarError, parse
from ureca_lib.scenes.phrases import fits

REFERENCE = "reference"
_PICTURE = (1.3, 0.87)  # inches, width and height
_PAD = 0.08  # inches
_OURS = "#EAF2F8"  # behind the column that is pointed out
_PANELS = 4  # in a row
_LOWER_IS_BETTER = "collision"  # how the names of such scores begin


@dataclass(frozen=True)
class ComparedRegion:
    """A region and each system's caption of it.

    Args:
        image: (H, W, 3) uint8.
        region: of the image.
        captions: text by the system's name; a system without a caption is shown with a dash.
        fits: by the system's name, the number of regions of the image that its caption fits and
            whether this region is among them, if that is known; None for a caption that cannot be
            parsed. Drawn as a mark under the caption.
        note: a line under the picture, such as its size.
    """

    image: np.ndarray
    region: Region
    captions: Mapping[str, str]
    fits: Mapping[str, tuple[int, bool] | None] | None = None
    note: str = ""


def comparison_figure(
    rows: Sequence[ComparedRegion], systems: Sequence[str], ours: str | None = None
) -> Figure:
    """Draw a table: a row per region, with its picture, and a column per system.

    Args:
        rows: regions, from the same image or from several.
        systems: whose captions are shown, in this order; at most 5.
        ours: the system whose column is pointed out.

    Raises:
        ValueError: no rows, no systems or too many, or `ours` is not among them.
    """
    if not rows or not 0 < len(systems) <= 5:
        raise ValueError(f"a table has rows and 1 to 5 systems, not {len(rows)} and {len(systems)}")
    if ours is not None and ours not in systems:
        raise ValueError(f"{ours!r} is not among the systems {', '.join(systems)}")
    column = (PAGE_WIDTH - _PICTURE[0] - _PAD) / len(systems)
    room = column - 1.5 * _PAD
    heads = [fitted(name, 0.9 * room, HEAD, 2) for name in systems]
    cells = [[fitted(row.captions.get(name) or "–", room) for name in systems] for row in rows]
    notes = [fitted(row.note, _PICTURE[0], SMALL, 2) for row in rows]
    heights = [0.1 + max(text_height(head, HEAD) for head in heads)]
    for row, blocks, note in zip(rows, cells, notes, strict=True):
        marked = text_height("x", SMALL) if row.fits else 0
        said = max(text_height(block) for block in blocks) + marked
        heights.append(max(said, _PICTURE[1] + 0.04 + text_height(note, SMALL)) + 2 * _PAD)
    figure, grid = sheet([_PICTURE[0], _PAD, *[column] * len(systems)], heights)
    for place, head in enumerate(heads):
        write(grid[0, place + 2], head, HEAD, down=0.05, right=_PAD, fontweight="bold")
    for number, (row, blocks, note) in enumerate(zip(rows, cells, notes, strict=True), 1):
        _rule(figure, grid[number, 0].get_position(figure).y1, number == 1)
        _draw_region(figure, grid[number, 0].get_position(figure), row)
        down = _PAD + _PICTURE[1] + 0.04
        write(grid[number, 0], note, SMALL, "center", down, color=FAINT)
        for place, (name, block) in enumerate(zip(systems, blocks, strict=True), 2):
            # a short caption stands in the middle of its row
            mark = bool(row.fits and name in row.fits)
            taken = text_height(block) + (text_height("x", SMALL) if mark else 0)
            down = (heights[number] - taken) / 2
            color = INK if row.captions.get(name) else FAINT
            end = write(grid[number, place], block, BODY, down=down, right=_PAD, color=color)
            if mark:
                sign, color, words = _judged(row.fits[name])
                write(grid[number, place], sign, SMALL, down=end, right=_PAD, color=color)
                indent = _PAD + 0.13 * bool(sign)
                write(grid[number, place], words, SMALL, down=end, right=indent, color=FAINT)
    _rule(figure, 0.002, True)
    if ours is not None:
        left = grid[0, systems.index(ours) + 2].get_position(figure).x0
        size = (column - 0.5 * _PAD) / PAGE_WIDTH, 1
        figure.add_artist(Rectangle((left, 0), *size, color=_OURS, lw=0, zorder=-1))
    return figure


def _draw_region(figure: Figure, cell: Bbox, row: ComparedRegion) -> None:
    """Show the row's region with its surroundings at the top of a cell."""
    wide, high = figure.get_size_inches()
    height, width = row.image.shape[:2]
    # an upright photo gets a narrower picture, in the middle
    share = max(0.6, width / height) if height > width else 1.0
    shown = _PICTURE[0] * share
    left, bottom = (_PICTURE[0] - shown) / 2 / wide, cell.y1 - (_PAD + _PICTURE[1]) / high
    ax = figure.add_axes((left, bottom, shown / wide, _PICTURE[1] / high))
    view = close_view(row.region, shown / _PICTURE[1], context=0.9, least=0.25)
    draw_photo(ax, row.image, [row.region], view)
    draw_outline(ax, row.region)


def _judged(fitting: tuple[int, bool] | None) -> tuple[str, str, str]:
    """Sign, its color, and words for the number of regions that a caption fits."""
    if fitting is None:
        return "", FAINT, "not scenes' words"
    count, among = fitting
    if not among:
        return "✗", WRONG_COLOR, "fits no region" if count == 0 else "fits another region"
    if count > 1:
        return "✗", WRONG_COLOR, f"fits {count} regions"
    return "✓", RIGHT_COLOR, "fits this region only"


def _rule(figure: Figure, y: float, strong: bool) -> None:
    color, width = ("#444444", 0.9) if strong else ("#CCCCCC", 0.6)
    figure.add_artist(Line2D([0, 1], [y, y], color=color, linewidth=width))


def compared_regions(
    images: Iterable[CaptionedImage],
    systems: Mapping[str, Sequence[Prediction]],
    count: int = 6,
    seed: int = 0,
) -> list[ComparedRegion]:
    """Draw regions at random that all systems have captioned, of every size.

    Regions are sorted by their share of the image and cut into `count` groups of one length; one
    region of each group is drawn, from the image that was least drawn from. Captions are not
    looked at, so that no region is picked because it flatters a system.

    Args:
        images: of the predictions; others are passed over.
        systems: by name, the predictions of each.
        count: of regions, at most.
        seed: of the draw.

    Returns:
        The regions, largest first, also with the data's own captions if all of them have one. On
        procedural scenes each caption is parsed and compared with its scene, which gives the
        number of regions it fits.

    Raises:
        ValueError: no region is in all files and among the images.
    """
    said = {name: {row.id: row for row in rows} for name, rows in systems.items()}
    shared = set.intersection(*(set(rows) for rows in said.values())) if said else set()
    candidates = []
    for image in images:
        pixels = image.size[0] * image.size[1]
        ids = [(region, prediction_id(image.image_id, region.id)) for region in image.regions]
        candidates += [(r.area / pixels, key, image, r) for r, key in ids if key in shared]
    if not candidates:
        names = ", ".join(systems) or "no system"
        raise ValueError(f"no region of these images has a caption of each of {names}")
    candidates.sort(key=lambda candidate: (-candidate[0], candidate[1]))
    drawn = _drawn(candidates, count, np.random.default_rng(seed))
    known = all(image.captions.get(region.id) for _, _, image, region in drawn)
    rows = []
    for share, key, image, region in drawn:
        captions = {name: predictions[key].caption for name, predictions in said.items()}
        if known:
            captions = {REFERENCE: image.captions[region.id][0]} | captions
        note = f"level {image.levels[region.id]} · {100 * share:.2g}%"
        counted = None if image.scene is None else _fits(image, region.id, captions)
        rows.append(ComparedRegion(image.pixels, region, captions, counted, note))
    return rows


def _drawn(candidates: list[tuple], count: int, rng: np.random.Generator) -> list[tuple]:
    """Draw a candidate of each group, of an image that has few so far."""
    times: dict[str, int] = {}
    drawn = []
    for group in np.array_split(np.arange(len(candidates)), min(count, len(candidates))):
        fewest = min(times.get(candidates[n][2].image_id, 0) for n in group)
        free = [n for n in group if times.get(candidates[n][2].image_id, 0) == fewest]
        drawn.append(candidates[int(rng.choice(free))])
        image_id = drawn[-1][2].image_id
        times[image_id] = times.get(image_id, 0) + 1
    return drawn


def _fits(
    image: CaptionedImage, region_id: int | str, captions: Mapping[str, str]
) -> dict[str, tuple[int, bool] | None]:
    counted: dict[str, tuple[int, bool] | None] = {}
    for name, text in captions.items():
        try:
            ids = fits(parse(text), image.scene.description)
            counted[name] = len(ids), region_id in ids
        except GrammarError:
            counted[name] = None
    return counted


def ranked_regions(
    images: CaptionedImages,
    systems: Mapping[str, Sequence[Prediction]],
    score: Score,
    count: int = 3,
    worst: bool = False,
    seed: int = 0,
) -> list[ComparedRegion]:
    """Choose the regions whose captions score best, or worst, for `comparison_figure`.

    Args:
        images: of the predictions.
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
    ranked = []
    for row in list(taken.values())[:count]:
        same = {name: [p for p in theirs if p.id == row.id] for name, theirs in systems.items()}
        same = {name: theirs for name, theirs in same.items() if theirs}
        (region,) = compared_regions([images[places[row.image_id]]], same, 1)
        note = f"{score.label} {100 * values[row.id]:.0f} · {region.note}"
        ranked.append(replace(region, note=note))
    return ranked


def read_systems(paths: Iterable[str | Path]) -> dict[str, list[Prediction]]:
    """Read predictions files by the name of their system, or of the file if two names are equal.

    Args:
        paths: of predictions files.

    Raises:
        FileNotFoundError: a file does not exist. JournalError: a row at fault.
    """
    files = [Path(path) for path in paths]
    rows = [read_predictions(path) for path in files]
    names = [
        read_meta(path).get("system") or read[0].system or path.stem
        for path, read in zip(files, rows, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [path.stem for path in files]
    return dict(zip(names, rows, strict=True))


def scores_figure(
    systems: Mapping[str, Mapping[str, Score]],
    names: Sequence[str],
    chance: Mapping[str, float | None] | None = None,
) -> Figure:
    """Draw a panel per score and a line per system: the value in percent and its interval.

    Args:
        systems: by name, from the top, each system's scores.
        names: keys of the scores, in this order; those that no system has are left out.
        chance: by key, from 0 to 1, the score of a guess: a dotted line.

    Raises:
        ValueError: no system has any of the scores.
    """
    shown = [name for name in names if any(percent(s.get(name)) for s in systems.values())]
    if not shown:
        raise ValueError(f"no system has a value for {', '.join(names) or 'no score'}")
    rows = math.ceil(len(shown) / _PANELS)
    labels = [wrapped(system, 18) for system in systems]
    row = 0.07 + 0.125 * max(label.count("\n") + 1 for label in labels)
    size = (PAGE_WIDTH, rows * (0.62 + row * len(systems)))
    grid_size = (rows, min(_PANELS, len(shown)))
    style = {"squeeze": False, "sharey": True, "layout": "constrained"}
    figure, grid = plt.subplots(*grid_size, figsize=size, **style)
    for ax in grid.flat[len(shown) :]:
        ax.set_axis_off()
    for ax, name in zip(grid.flat, shown, strict=False):
        _draw_scores(ax, systems, name, (chance or {}).get(name))
    for ax in grid[:, 0]:
        ax.set_yticks(range(len(systems)), labels)
    grid[0, 0].set_ylim(len(systems) - 0.5, -0.5)
    return figure


def _draw_scores(
    ax: Axes, systems: Mapping[str, Mapping[str, Score]], name: str, chance: float | None
) -> None:
    label = name
    for place, scores in enumerate(systems.values()):
        interval, style = percent(scores.get(name)), marks(place)
        if interval is None:
            continue
        label = scores[name].label
        value, *ends = interval
        if ends[0] is not None:
            ax.plot(ends, [place] * 2, color=style["color"], linewidth=1)
        ax.plot([value], [place], **style, linestyle="")
    if chance is not None:
        ax.axvline(100 * chance, color=FAINT, linestyle=":", linewidth=1)
    arrow = "↓" if name.startswith(_LOWER_IS_BETTER) else "↑"
    chart(ax, grid="x", title=f"{label}, % {arrow}")
    ax.margins(x=0.1)


def size_scores_figure(
    systems: Mapping[str, Mapping[str, Mapping[str, Score]]], name: str, what: str
) -> Figure:
    """Draw a score by the regions' share of the image, a line per system.

    Args:
        systems: by name, for each size, the smallest first, the system's scores there.
        name: key of the score.
        what: the axis' label.

    Raises:
        ValueError: no system has the score at any size.
    """
    curves = {
        system: {
            size: interval
            for size, scores in groups.items()
            if (interval := percent(scores.get(name))) is not None
        }
        for system, groups in systems.items()
    }
    if not any(curves.values()):
        raise ValueError(f"no system has a value for {name} at any size")
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH, 2.7), layout="constrained")
    size_chart(ax, curves, what)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), **LEGEND)
    return figure


def percent(score: Score | None) -> Interval | None:
    """A score and its bounds in percent; None if it was not measured."""
    if score is None or score.value is None:
        return None
    return tuple(None if end is None else 100 * end for end in (score.value, score.low, score.high))
