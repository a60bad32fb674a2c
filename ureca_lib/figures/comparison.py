"""Comparisons of systems: captions side by side (Figs. 4, 6, 8 and 9), scores, scores by size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.predictions import Prediction, prediction_id, read_meta, read_predictions
from ureca_lib.evaluate.scores import Score
from ureca_lib.figures.regions import draw_target
from ureca_lib.figures.style import (
    FAINT,
    HEAD,
    INK,
    PAGE_WIDTH,
    RIGHT_COLOR,
    SMALL,
    WRONG_COLOR,
    Interval,
    fitted,
    interval_panels,
    sheet,
    size_chart,
    text_height,
    write,
)
from ureca_lib.regions import Region
from ureca_lib.scenes.parsing import GrammarError, parse
from ureca_lib.scenes.phrases import fits

REFERENCE = "reference"
_PICTURE = (1.3, 0.87)  # inches, width and height
_GAP = 0.1  # inches between columns
_OURS = "#EAF2F8"  # behind the column that is pointed out
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
        systems: whose captions are shown, in this order; up to 5 can be read.
        ours: the one of them whose column is pointed out.
    """
    column = (PAGE_WIDTH - _PICTURE[0]) / len(systems) - _GAP
    heads = [fitted(name, 0.9 * column, HEAD, 2) for name in systems]
    room = 0.95 * column
    cells = [[fitted(row.captions.get(name) or "–", room) for name in systems] for row in rows]
    notes = [fitted(row.note, _PICTURE[0], SMALL, 2) for row in rows]
    heights = [0.1 + max(text_height(head, HEAD) for head in heads)]
    for blocks, note in zip(cells, notes, strict=True):
        said = max(text_height(block) for block in blocks) + text_height("a mark", SMALL)
        heights += [0.1, max(said, _PICTURE[1]), text_height(note, SMALL) + 0.12]
    figure, grid = sheet([_PICTURE[0], *[column] * len(systems)], heights, _GAP)
    for cell, head in zip(grid[0, 1:], heads, strict=True):
        write(cell, head, HEAD, down=0.05, fontweight="bold")
    for row, line, blocks in zip(rows, grid[2::3], cells, strict=True):
        draw_target(line[0], row.image, row.region)
        for cell, name, block in zip(line[1:], systems, blocks, strict=True):
            # a short caption stands in the middle of its row
            mark, color = _judged(row, name)
            taken = text_height(block) + text_height(mark, SMALL)
            down = (cell.get_ylim()[0] - taken) / 2
            write(cell, mark, SMALL, down=write(cell, block, down=down), color=color)
    for cell, note in zip(grid[3::3, 0], notes, strict=True):
        write(cell, note, SMALL, "center", 0.04, color=FAINT)
    for cell in grid[1::3, 0]:
        top = cell.get_position().y1
        figure.add_artist(Line2D([0, 1], [top, top], color="#BBBBBB", linewidth=0.6))
    if ours is not None:
        box = grid[0, systems.index(ours) + 1].get_position()
        corner, size = (box.x0 - 0.5 * _GAP / PAGE_WIDTH, 0), (box.width + _GAP / PAGE_WIDTH, 1)
        figure.add_artist(Rectangle(corner, *size, color=_OURS, lw=0, zorder=-1))
    return figure


def _judged(row: ComparedRegion, name: str) -> tuple[str, str]:
    """The number of regions that a system's caption fits in words, and their color."""
    if not row.fits or name not in row.fits:
        return "", INK
    if row.fits[name] is None:
        return "not scenes' words", FAINT
    count, among = row.fits[name]
    if (count, among) == (1, True):
        return "✓ fits this region only", RIGHT_COLOR
    wrong = f"{count} regions" if among else "another region" if count else "no region"
    return f"✗ fits {wrong}", WRONG_COLOR


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
    said = {name: {row.id: row.caption for row in rows} for name, rows in systems.items()}
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
    rng, times, drawn = np.random.default_rng(seed), Counter(), []
    for places in np.array_split(np.arange(len(candidates)), min(count, len(candidates))):
        group = [candidates[place] for place in places]
        fewest = min(times[image.image_id] for _, _, image, _ in group)
        free = [one for one in group if times[one[2].image_id] == fewest]
        drawn.append(free[rng.choice(len(free))])
        times[drawn[-1][2].image_id] += 1
    known = all(image.captions.get(region.id) for _, _, image, region in drawn)
    return [
        _compared(image, region, {name: texts[key] for name, texts in said.items()}, known)
        for _, key, image, region in drawn
    ]


def _compared(
    image: CaptionedImage, region: Region, captions: Mapping[str, str], known: bool
) -> ComparedRegion:
    """A region with its captions, before them the data's own if it is known."""
    if known:
        captions = {REFERENCE: image.captions[region.id][0], **captions}
    counted: dict[str, tuple[int, bool] | None] | None = None
    if image.scene is not None:
        counted = dict.fromkeys(captions)
        for name, text in captions.items():
            with suppress(GrammarError):
                ids = fits(parse(text), image.scene.description)
                counted[name] = len(ids), region.id in ids
    share = 100 * region.area / (image.size[0] * image.size[1])
    note = f"level {image.levels[region.id]} · {share:.2g}%"
    return ComparedRegion(image.pixels, region, captions, counted, note)


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
    rows = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]
    rows.sort(key=lambda row: values[row.id], reverse=not worst)
    first = {row.caption: row for row in reversed(rows)}  # the best, or worst, of each text
    said = {name: {row.id: row.caption for row in theirs} for name, theirs in systems.items()}
    ranked = []
    for row in [row for row in rows if row is first[row.caption]][:count]:
        image = images[images.ids.index(row.image_id)]
        captions = {name: texts[row.id] for name, texts in said.items() if row.id in texts}
        region = image.image[row.region_id]
        found = _compared(image, region, captions, bool(image.captions.get(region.id)))
        note = f"{score.label} {100 * values[row.id]:.0f} · {found.note}"
        ranked.append(replace(found, note=note))
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
        read_meta(f).get("system") or r[0].system or f.stem
        for f, r in zip(files, rows, strict=True)
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
    rows, titles = {system: {} for system in systems}, {}
    for name in names:
        for system, scores in systems.items():
            if interval := percent(scores.get(name)):
                rows[system][name] = interval
                arrow = "↓" if name.startswith(_LOWER_IS_BETTER) else "↑"
                titles[name] = f"{scores[name].label}, % {arrow}"
    if not titles:
        raise ValueError(f"no system has a value for {', '.join(names) or 'no score'}")
    figure, axes = interval_panels(rows, titles)
    for ax, name in zip(axes, titles, strict=True):
        if (guess := (chance or {}).get(name)) is not None:
            ax.axvline(100 * guess, color=FAINT, linestyle=":", linewidth=1)
    return figure


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
    curves: dict[str, dict[str, Interval]] = {system: {} for system in systems}
    for system, groups in systems.items():
        for size, scores in groups.items():
            if interval := percent(scores.get(name)):
                curves[system][size] = interval
    if not any(curves.values()):
        raise ValueError(f"no system has a value for {name} at any size")
    figure, ax = plt.subplots(figsize=(PAGE_WIDTH, 2.7), layout="constrained")
    size_chart(ax, curves, what)
    return figure


def percent(score: Score | None) -> Interval | None:
    """A score and its bounds in percent; None if it was not measured."""
    if score is None or score.value is None:
        return None
    return tuple(None if end is None else 100 * end for end in (score.value, score.low, score.high))
