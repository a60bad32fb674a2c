"""A sketch: the parts of one object as shapes in its own coordinates, before it is placed.

Coordinates are in units of the object's height: x from its middle to the right, y from the
ground up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ureca_lib.scenes.palette import Rgb, rgb_of

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top in the sketch's coordinates


@dataclass(frozen=True)
class Part:
    """Facts about one part that a caption may state.

    Args:
        kind: the noun.
        parent: index of its whole in the sketch; None for the object itself.
        surface: color or material, None for a group.
        pattern: plain, striped, dotted or checkered.
        mention: whether captions of the "phrase" style state the surface.
        side: position among the parts of its kind in its whole, such as ("top", "left").
        place, row: of the object: left, middle or right; front or back.
        member: kind of the members of a group.
    """

    kind: str
    parent: int | None
    surface: str | None
    pattern: str = "plain"
    mention: bool = False
    side: tuple[str, ...] = ()
    place: str | None = None
    row: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class Shape:
    """One filled outline, drawn over those before it: a polygon, or an ellipse's box."""

    part: int
    points: tuple[Point, ...]
    ellipse: bool
    rgb: Rgb
    textured: bool


class Sketch:
    """Collects parts and shapes; the first part is the object itself."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.shapes: list[Shape] = []

    def part(
        self,
        kind: str,
        parent: int | None,
        surface: str,
        pattern: str = "plain",
        mention: bool = False,
    ) -> int:
        """Add a part and return its index."""
        self.parts.append(Part(kind, parent, surface, pattern, mention))
        return len(self.parts) - 1

    def poly(self, part: int, points: Sequence[Point], rgb: Rgb | None = None) -> None:
        """Fill a polygon in the part's color and texture, or in `rgb`."""
        self._add(part, tuple(points), False, rgb)

    def rect(self, part: int, box: Box, rgb: Rgb | None = None) -> None:
        """Fill a rectangle (left, bottom, right, top)."""
        x0, y0, x1, y1 = box
        self._add(part, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), False, rgb)

    def ellipse(self, part: int, middle: Point, rx: float, ry: float, rgb: Rgb | None = None):
        """Fill an ellipse of radii rx and ry."""
        (x, y) = middle
        self._add(part, ((x - rx, y - ry), (x + rx, y + ry)), True, rgb)

    def disc(self, part: int, middle: Point, radius: float, rgb: Rgb | None = None) -> None:
        """Fill a circle."""
        self.ellipse(part, middle, radius, radius, rgb)

    def _add(self, part: int, points: tuple[Point, ...], ellipse: bool, rgb: Rgb | None) -> None:
        colour = rgb_of(self.parts[part].surface) if rgb is None else rgb
        self.shapes.append(Shape(part, points, ellipse, colour, rgb is None))

    def mirrored(self) -> Sketch:
        """The sketch with left and right exchanged."""
        other = Sketch()
        other.parts = list(self.parts)
        for shape in self.shapes:
            points = tuple((-x, y) for x, y in shape.points)
            other.shapes.append(replace(shape, points=points))
        return other

    def bounds(self) -> Box:
        """(left, bottom, right, top) of all shapes."""
        xs = [x for shape in self.shapes for x, _ in shape.points]
        ys = [y for shape in self.shapes for _, y in shape.points]
        return min(xs), min(ys), max(xs), max(ys)

    def name_sides(self) -> None:
        """Name the sides of parts of one kind in one whole."""
        middles = self._middles()
        alike: dict[tuple[int | None, str], list[int]] = defaultdict(list)
        for index, part in enumerate(self.parts):
            if part.parent is not None and part.place is None and index in middles:
                alike[part.parent, part.kind].append(index)
        for members in alike.values():
            if len(members) > 1:
                for index, side in sides([middles[each] for each in members]).items():
                    self.parts[members[index]] = replace(self.parts[members[index]], side=side)

    def _middles(self) -> dict[int, Point]:
        found: dict[int, Point] = {}
        for shape in self.shapes:
            xs, ys = zip(*shape.points, strict=True)
            found.setdefault(shape.part, ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2))
        return found


def sides(middles: Sequence[Point]) -> dict[int, tuple[str, ...]]:
    """Name two or three things along a line, or four in a square, by their middles (y up).

    Raises:
        ValueError: unsupported number of things.
    """
    count = len(middles)
    if count == 4:
        by_height = sorted(range(4), key=lambda index: -middles[index][1])
        named = {}
        for word, pair in (("top", by_height[:2]), ("bottom", by_height[2:])):
            left, right = sorted(pair, key=lambda index: middles[index][0])
            named |= {left: (word, "left"), right: (word, "right")}
        return named
    if count not in (2, 3):
        raise ValueError(f"two to four things of a kind can be named by side, not {count}")
    xs, ys = zip(*middles, strict=True)
    across = max(xs) - min(xs) >= max(ys) - min(ys)
    order = sorted(range(count), key=lambda i: middles[i][0] if across else -middles[i][1])
    words = ("left", "middle", "right") if across else ("top", "middle", "bottom")
    chosen = words if count == 3 else (words[0], words[2])
    return {index: (word,) for index, word in zip(order, chosen, strict=True)}
