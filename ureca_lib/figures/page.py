"""A figure laid out by hand, in inches from its top left corner, as high as what is on it.

Captions are of any length. Text is measured and broken into lines before anything is placed, so
that no line runs into what stands beside or below it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from ureca_lib.figures.style import INK, PAGE_WIDTH

POINT = 1 / 72  # inches
_SPACING = 1.25  # of lines, as a multiple of their height
_SCREEN = 1.025
_ELLIPSIS = "…"


class Box(NamedTuple):
    """A rectangle in inches; `top` is counted downwards."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def middle(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2


@dataclass
class Page:
    """Pictures, text and lines, placed one by one; `figure` draws them.

    Args:
        width: in inches.
        margin: left free below the lowest thing on the page.
    """

    width: float = PAGE_WIDTH
    margin: float = 0.04
    _pictures: list[tuple[Box, Callable[[Axes], Any], float]] = field(default_factory=list)
    _charts: list[tuple[Box, Callable[[Axes], Any]]] = field(default_factory=list)
    _drawn: list[tuple[Callable[[Axes], Any], bool]] = field(default_factory=list)
    _bottom: float = 0.0

    def picture(self, box: Box, draw: Callable[[Axes], Any], order: float = 1) -> Box:
        """Axes at a box, without ticks, that `draw` fills when the figure is made."""
        self._pictures.append((box, draw, order))
        self._reach(box.bottom)
        return box

    def chart(self, box: Box, draw: Callable[[Axes], Any], bottom: float) -> Box:
        """Axes of a chart at a box, with its labels down to `bottom`."""
        self._charts.append((box, draw))
        self._reach(bottom)
        return box

    def draw(self, draw: Callable[[Axes], Any], above: bool = True, bottom: float = 0) -> None:
        """Lines and patches in inches of the page, above its pictures or below them.

        `bottom` is how far down they reach.
        """
        self._drawn.append((draw, above))
        self._reach(bottom)

    def text(
        self,
        left: float,
        top: float,
        text: str,
        width: float,
        size: float = 7,
        most: int | None = None,
        align: str = "left",
        **style: Any,
    ) -> Box:
        """Text broken into lines of at most `width` inches.

        Args:
            left, top: of the place that is `width` wide.
            text: drawn letter by letter: `$` is no mathematics.
            width: in inches.
            size: in points.
            most: lines at most; what is cut ends in an ellipsis.
            align: "left", "center" or "right", within the width.
            style: of matplotlib's text.

        Returns:
            The place that it takes, as wide as was given.
        """
        bold = style.get("fontweight") == "bold"
        lines = broken(text, width, size, bold, most)
        x = left + width * {"left": 0, "center": 0.5, "right": 1}[align]
        options = {"color": INK, "fontsize": size} | style
        options |= {"ha": align, "va": "baseline", "parse_math": False, "zorder": 9}
        # line by line: matplotlib rounds the places of a text's lines to pixels
        for number, line in enumerate(lines):
            self.draw(partial(_write, x, top + baseline(number, size), line, options))
        box = Box(left, top, width, lines_height(len(lines), size))
        self._reach(box.bottom)
        return box

    def figure(self) -> Figure:
        """Everything that was placed, drawn."""
        height = self._bottom + self.margin
        figure = plt.figure(figsize=(self.width, height))
        below, above = (self._canvas(figure, height, order) for order in (0, 5))
        for box, draw, order in self._pictures:
            ax = self._axes(figure, height, box, order)
            ax.set_xticks([])
            ax.set_yticks([])
            draw(ax)
        for box, draw in self._charts:
            draw(self._axes(figure, height, box, 1))
        for draw, on_top in self._drawn:
            draw(above if on_top else below)
        return figure

    def _axes(self, figure: Figure, height: float, box: Box, order: float) -> Axes:
        place = (box.left, height - box.bottom, box.width, box.height)
        shares = [p / s for p, s in zip(place, (self.width, height) * 2, strict=True)]
        return figure.add_axes(shares, zorder=order)

    def _canvas(self, figure: Figure, height: float, order: float) -> Axes:
        canvas = figure.add_axes((0, 0, 1, 1), zorder=order)
        canvas.set_xlim(0, self.width)
        canvas.set_ylim(height, 0)
        canvas.set_autoscale_on(False)
        canvas.axis("off")
        return canvas

    def _reach(self, bottom: float) -> None:
        self._bottom = max(self._bottom, bottom)


def broken(
    text: str, width: float, size: float, bold: bool = False, most: int | None = None
) -> list[str]:
    """Lines of at most `width` inches at `size` points; a word that is longer is cut.

    `most` is how many lines there may be; the last one then ends in an ellipsis.
    """
    lines: list[str] = []
    for word in text.split() or [""]:
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size, bold) <= width:
            lines[-1] = joined
            continue
        while text_width(word, size, bold) > width and len(word) > 1:
            fits = len(word) - 1
            while fits > 1 and text_width(word[:fits], size, bold) > width:
                fits -= 1
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    if most is not None and len(lines) > most:
        last = lines[most - 1]
        while last and text_width(last + _ELLIPSIS, size, bold) > width:
            last = last[:-1]
        lines = [*lines[: most - 1], last.rstrip() + _ELLIPSIS]
    return lines


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Inches that a line takes; a little more on screens, which fit letters to their pixels."""
    return _extent(text, bold)[0] * size * POINT * _SCREEN


def lines_height(count: int, size: float) -> float:
    """Inches that `count` lines take, from the first one's top to the last one's descenders."""
    _, _, descent = _extent("lp", False)
    return baseline(count - 1, size) + descent * size * POINT


def baseline(number: int, size: float) -> float:
    """Inches from the top of a text to what its line `number`, counted from 0, stands on."""
    _, height, descent = _extent("lp", False)
    return (height - descent + number * height * _SPACING) * size * POINT


def _write(x: float, y: float, line: str, options: dict[str, Any], ax: Axes) -> None:
    ax.text(x, y, line, **options)


@cache
def _extent(text: str, bold: bool) -> tuple[float, float, float]:
    """Width, height and descent at one point, in points."""
    font = FontProperties(size=100, weight="bold" if bold else "normal")
    sizes = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return tuple(size / 100 for size in sizes)
