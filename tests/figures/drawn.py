"""Shared by tests of figures: text and its faults, small images with regions and captions."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import Prediction, read_predictions
from ureca_lib.figures.style import PAGE_WIDTH
from ureca_lib.mask_tree import MaskTree, build_mask_tree
from ureca_lib.regions import Region, RegionImage


def texts_of(figure: Figure) -> list[str]:
    """Every text on a figure that is not empty, in the order in which they were written."""
    texts = [
        text.get_text() for text in [*figure.texts, *(t for a in figure.axes for t in a.texts)]
    ]
    return [text for text in texts if text]


def words_of(figure: Figure) -> Counter[str]:
    """Every word on a figure and how often it occurs: lines are broken anywhere."""
    texts = (text.get_text().replace(r"\$", "$") for text in figure.findobj(Text))
    return Counter(word for text in texts for word in text.split())


def faults(figure: Figure) -> list[str]:
    """Whatever makes a figure unreadable in print: small, cut or overlapping text, too wide."""
    figure.set_dpi(300)
    figure.canvas.draw()
    renderer, point = figure.canvas.get_renderer(), 300 / 72
    page, boxes, found = figure.bbox.padded(point), [], []
    hidden = {text for ax in figure.axes for text in _not_drawn(ax)}
    for text in figure.findobj(Text):
        if text in hidden or not text.get_visible() or not text.get_text().strip():
            continue
        box = text.get_window_extent(renderer)
        if text.get_fontsize() < 6:
            found.append(f"small: {text.get_text()}")
        if box.x0 < page.x0 or box.y0 < page.y0 or box.x1 > page.x1 or box.y1 > page.y1:
            found.append(f"cut: {text.get_text()}")
        if text.get_rotation() % 90 == 0:  # boxes of slanted labels overlap, their letters do not
            boxes.append((text.get_text(), box))
    for (first, a), (second, b) in combinations(boxes, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > point and down > point:
            found.append(f"overlap: {first} | {second}")
    if figure.get_figwidth() > PAGE_WIDTH + 1e-6:
        found.append(f"{figure.get_figwidth()} inches wide")
    return found


def _not_drawn(ax) -> list[Text]:
    """Labels of axes that are off, and of ticks outside the limits of axes."""
    labels = []
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not (ax.axison and low <= tick.get_loc() <= high):
                labels += [tick.label1, tick.label2]
        labels += [] if ax.axison else [axis.label]
    return labels


def predictions_of(system, images, folder: Path) -> list[Prediction]:
    """A system's captions of some images."""
    predict(system, images, folder / f"{system.name}.jsonl", progress=False)
    return read_predictions(folder / f"{system.name}.jsonl")


def says(figure: Figure, text: str) -> bool:
    """Whether all words of a text stand on a figure."""
    found = words_of(figure)
    return all(found[word] >= count for word, count in Counter(text.split()).items())


def nested_image(width: int = 160, height: int = 120) -> tuple[RegionImage, MaskTree]:
    """Two boxes side by side (1, 2), each with a part (11, 21), and one part of a part (111)."""
    boxes = {
        1: (5, 10, 70, 95),
        11: (12, 20, 50, 60),
        111: (20, 30, 18, 22),
        2: (85, 10, 70, 95),
        21: (95, 30, 12, 12),
    }
    names = {1: "box", 2: "box", 11: "lid", 21: "lid", 111: "knob"}
    regions = []
    for region_id, (x, y, columns, rows) in boxes.items():
        mask = np.zeros((height, width), bool)
        mask[y : y + rows, x : x + columns] = True
        regions.append(Region.from_mask(region_id, mask, names[region_id]))
    pixels = np.random.default_rng(0).integers(60, 200, (height, width, 3), np.uint8)
    image = RegionImage(regions, width, height, pixels)
    return image, build_mask_tree(image)


LONG = (
    "The tall box on the left of the picture, which is brown and has a large lid with a round knob "
    "in its middle, costs $5 and stands beside another one that is nearly as tall."
)
