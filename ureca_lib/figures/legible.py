"""Whether a figure can be read in print: smallest letters, text that is cut or runs together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ureca_lib.figures.style import PAGE_WIDTH, SMALLEST

_FINE = 300  # dots an inch to measure at: letters are fitted to them
_TOUCH = 0.5  # points by which two texts may overlap: the boxes are a little larger than letters


@dataclass(frozen=True)
class Legibility:
    """What stands in the way of reading a figure at its own width.

    Attributes:
        smallest: points of the smallest letters; infinite where there is no text.
        cut: texts that reach over the figure's edge.
        overlapping: pairs of texts that run into each other.
        width: of the figure in inches.
    """

    smallest: float
    cut: tuple[str, ...]
    overlapping: tuple[tuple[str, str], ...]
    width: float

    @property
    def good(self) -> bool:
        """Whether nothing does, on a page of a two-column paper."""
        fits = self.width <= PAGE_WIDTH + 1e-6 and self.smallest >= SMALLEST
        return fits and not self.cut and not self.overlapping


def legibility(figure: Figure) -> Legibility:
    """Measure the text of a figure as it is drawn.

    Args:
        figure: of any kind; only text that is visible counts.
    """
    dpi = figure.dpi
    figure.set_dpi(_FINE)
    try:
        return _measured(figure)
    finally:
        figure.set_dpi(dpi)


def _measured(figure: Figure) -> Legibility:
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    hidden = _not_drawn(figure)
    found = (text for text in figure.findobj(Text) if text not in hidden)
    texts = [text for text in found if text.get_visible() and text.get_text().strip()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    point = figure.dpi / 72
    page = figure.bbox.padded(_TOUCH * point)
    words = [text.get_text() for text in texts]
    cut = [word for word, box in zip(words, boxes, strict=True) if not _inside(box, page)]
    # slanted labels stand close, and their boxes overlap where the letters do not
    level = [n for n, text in enumerate(texts) if text.get_rotation() % 90 == 0]
    pairs = [
        (words[a], words[b])
        for a, b in combinations(level, 2)
        if _overlap(boxes[a], boxes[b], _TOUCH * point)
    ]
    smallest = min((text.get_fontsize() for text in texts), default=float("inf"))
    return Legibility(smallest, tuple(cut), tuple(pairs), figure.get_figwidth())


def _not_drawn(figure: Figure) -> set[Text]:
    """Labels of axes that are off, and of ticks outside what axes show."""
    found: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if not axes.axison:
                found.update(axis.findobj(Text))
                continue
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    found.update((tick.label1, tick.label2))
    return found


def _inside(box: Bbox, page: Bbox) -> bool:
    return page.x0 <= box.x0 and page.y0 <= box.y0 and box.x1 <= page.x1 and box.y1 <= page.y1


def _overlap(one: Bbox, other: Bbox, touch: float) -> bool:
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    down = min(one.y1, other.y1) - max(one.y0, other.y0)
    return across > touch and down > touch
