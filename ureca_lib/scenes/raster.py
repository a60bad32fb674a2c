"""Rasterization of placed sketches: the visible part at each pixel, and the hidden area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from ureca_lib.scenes.backdrop import Backdrop
from ureca_lib.scenes.layout import Group, Placed
from ureca_lib.scenes.palette import Rgb
from ureca_lib.scenes.sketch import Part, Sketch

OVERSAMPLE = 2  # shapes are drawn on a grid this much finer, so that edges are smooth


@dataclass(frozen=True)
class Paint:
    """One value of the id map: a part, its color and its texture."""

    part: int
    rgb: Rgb
    textured: bool
    unit: float  # pixels of one unit of the sketch


@dataclass(frozen=True)
class Raster:
    """A drawn scene.

    Args:
        parts: of the whole scene; parents are indices into this tuple.
        paints: meaning of the values of the id maps.
        ids: (H, W) uint8, the paint visible at each pixel, from which masks are made.
        fine: (2 H, 2 W) uint8, the same on the finer grid; `ids` is every second row and column.
        full: (P,) area of each part in pixels if nothing were in front of its object.
        objects: of each placed object its first part, its paints (first, one past the last) and
            its placement, farthest first.
    """

    parts: tuple[Part, ...]
    paints: tuple[Paint, ...]
    ids: np.ndarray
    fine: np.ndarray
    full: np.ndarray
    objects: tuple[tuple[int, range, Placed], ...]

    def visible(self) -> np.ndarray:
        """(P,) visible pixels of each part itself."""
        counts = np.bincount(self.ids.ravel(), minlength=len(self.paints))
        owners = [paint.part for paint in self.paints]
        return np.bincount(owners, counts, len(self.parts)).astype(np.int64)

    def with_children(self, own: np.ndarray) -> np.ndarray:
        """(P,) visible pixels of each part with its descendants."""
        total = own.copy()
        for index in range(len(self.parts) - 1, -1, -1):  # parents stand before their children
            parent = self.parts[index].parent
            if parent is not None:
                total[parent] += total[index]
        return total


class _Drawing:
    """Parts and paints, collected while objects are drawn over one another."""

    def __init__(self, width: int, height: int):
        self.size = (OVERSAMPLE * width, OVERSAMPLE * height)
        self.canvas = Image.new("L", self.size)
        self.parts: list[Part] = []
        self.paints: list[Paint] = []
        self.full: list[np.ndarray] = []

    def add(self, sketch: Sketch, parent: int | None, unit: float) -> tuple[int, list[int]]:
        """Add a sketch's parts and paints; return its first part and the paint of each shape."""
        first, index, values = len(self.parts), {}, []
        for part in sketch.parts:
            up = parent if part.parent is None else first + part.parent
            self.parts.append(replace(part, parent=up))
        for shape in sketch.shapes:
            key = (shape.part, shape.rgb, shape.textured)
            if key not in index:
                index[key] = len(self.paints)
                self.paints.append(Paint(first + shape.part, shape.rgb, shape.textured, unit))
            values.append(index[key])
        return first, values

    def paste(self, sketch: Sketch, values: Sequence[int], x: float, base: float, unit: float):
        """Draw a sketch by itself, count its pixels, and lay it over the canvas."""
        left, bottom, right, top = sketch.bounds()
        step = OVERSAMPLE
        x0, y0 = step * int(x + unit * left - 2), step * int(base - unit * top - 2)
        wide = step * (int(unit * (right - left)) + 5)
        high = step * (int(unit * (top - bottom)) + 5)
        local, stencil = Image.new("L", (wide, high)), Image.new("1", (wide, high))
        pen, cutter = ImageDraw.Draw(local), ImageDraw.Draw(stencil)
        for shape, value in zip(sketch.shapes, values, strict=True):
            points = [
                (step * (x + unit * px) - x0, step * (base - unit * py) - y0)
                for px, py in shape.points
            ]
            if shape.ellipse:
                (ax, ay), (bx, by) = points
                box = (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
                pen.ellipse(box, value)
                cutter.ellipse(box, 1)
            else:
                pen.polygon(points, value)
                cutter.polygon(points, 1)
        self.canvas.paste(local, (x0, y0), stencil)
        seen = np.asarray(local)[::step, ::step][np.asarray(stencil)[::step, ::step]]
        self.full.append(np.bincount(seen, minlength=256))


def draw(
    backdrop: Backdrop, objects: Sequence[Placed], groups: Sequence[Group], width: int, height: int
) -> Raster:
    """Draw a backdrop and the objects on it.

    Args:
        backdrop: the setting.
        objects: farthest first.
        groups: indexed by the objects' group numbers.
        width, height: of the canvas in pixels.
    """
    drawing = _Drawing(width, height)
    _, values = drawing.add(backdrop.sketch, None, height)
    drawing.paste(backdrop.sketch, values, width / 2, height, height)
    heads: dict[int, int] = {}
    for number, group in enumerate(groups):
        if any(each.group == number for each in objects):
            heads[number] = len(drawing.parts)
            stands = {"place": group.place, "row": group.row, "member": group.member}
            drawing.parts.append(Part(group.noun, None, None, **stands))
    found = []
    for placed in objects:
        parent = None if placed.group is None else heads[placed.group]
        start = len(drawing.paints)
        first, values = drawing.add(placed.sketch, parent, placed.height)
        drawing.paste(placed.sketch, values, placed.x, placed.base, placed.height)
        found.append((first, range(start, len(drawing.paints)), placed))
    fine = np.asarray(drawing.canvas)
    per_paint = np.sum(drawing.full, axis=0)[: len(drawing.paints)]
    owners = [paint.part for paint in drawing.paints]
    full = np.bincount(owners, per_paint, len(drawing.parts)).astype(np.int64)
    ids = np.ascontiguousarray(fine[::OVERSAMPLE, ::OVERSAMPLE])
    return Raster(tuple(drawing.parts), tuple(drawing.paints), ids, fine, full, tuple(found))
