"""Placement of a scene's objects: twins, a group, and others, nearer ones over farther ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from ureca_lib.scenes.backdrop import CENTRES, JITTER, PLACES, Backdrop
from ureca_lib.scenes.kinds import KINDS, Kind
from ureca_lib.scenes.palette import PATTERNED
from ureca_lib.scenes.sketch import Sketch
from ureca_lib.scenes.specification import SceneSpecification

MAX_COVERED = 0.4  # share of an object's box that one nearer object's box may cover
BACK_SCALE = 0.64  # size of an object in the back row, of that in the front row
GROUP_SCALE = {2: 0.74, 3: 0.62}  # size of the members, by their number

Style = tuple[str, str]  # surface, pattern
PixelBox = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Placed:
    """An object in its place.

    Args:
        sketch: its parts; the first one knows its place and row, or its side in its group.
        x, base: the sketch's origin in pixels.
        height: pixels of one unit of the sketch.
        box: its outline's box in pixels.
        group: the group's number; None for a single object.
    """

    sketch: Sketch
    x: float
    base: float
    height: float
    box: PixelBox
    group: int | None = None


@dataclass(frozen=True)
class Group:
    """A pair or row of one kind."""

    noun: str
    member: str
    place: str
    row: str | None


class Layout:
    """Objects placed one by one on a backdrop, no two of them alike in one place.

    No two objects of one kind and surface share a place (left, middle, right), so that captions
    stay short and absolute. Members of a group are the exception: they differ by their side.
    """

    def __init__(
        self, rng: Random, backdrop: Backdrop, kinds: Sequence[str], width: int, height: int
    ):
        self.rng, self.backdrop, self.kinds = rng, backdrop, kinds
        self.width, self.height = width, height
        self.unit = min(height, 0.8 * width)
        self.most_parts = 0
        self.placed: list[Placed] = []
        self.groups: list[Group] = []
        self.taken: set[tuple[str, str, str]] = set()  # kind, surface, place

    def fill(self, spec: SceneSpecification, twin: str) -> None:
        """Place twins of a kind, then perhaps a group, then others until the scene is full."""
        rng, self.most_parts = self.rng, spec.regions[1]
        self._twins(spec, twin)
        if rng.random() < spec.group_share:
            for _ in range(4):
                kind, count = self._kind(grouped=True), rng.choice((2, 2, 3))
                if self._group(kind, count, self._styles(spec, kind, count)):
                    break
        target = rng.randint((spec.regions[0] + spec.regions[1]) // 2 - 4, spec.regions[1])
        for _ in range(16):
            if self.parts() >= target and len(self.placed) >= spec.min_objects:
                break
            kind = self._kind()
            self._single(kind, self._styles(spec, kind, 1)[0])

    def parts(self) -> int:
        """Parts drawn so far, backdrop and groups included."""
        drawn = sum(len(each.sketch.parts) for each in self.placed)
        return drawn + len(self.groups) + len(self.backdrop.sketch.parts)

    def _kind(self, grouped: bool = False) -> str:
        fitting = [
            name for name in self.kinds if not grouped or (KINDS[name].groups and name != "house")
        ]
        return self.rng.choice(fitting)

    def _styles(self, spec: SceneSpecification, kind: str, count: int) -> list[Style]:
        """Surfaces and patterns: sometimes all the same, otherwise all different if possible."""
        rng, about = self.rng, KINDS[kind]
        allowed = [each for each in about.surfaces if each in spec.palette] or list(about.surfaces)
        same = rng.random() < spec.same_color_share
        chosen = rng.sample(allowed, min(count, len(allowed)))
        styles = []
        for index in range(count):
            surface = chosen[0] if same else chosen[index % len(chosen)]
            pattern = "plain"
            if about.patterned and surface in PATTERNED and rng.random() < 0.35:
                pattern = rng.choice(spec.patterns)
            styles.append(styles[0] if same and styles else (surface, pattern))
        return styles

    def _twins(self, spec: SceneSpecification, kind: str) -> None:
        count = max(spec.min_twins, self.rng.choice((2, 2, 3)))
        for number, style in enumerate(self._styles(spec, kind, count)):
            if number < spec.min_twins or 2 * self.parts() < self.most_parts:
                self._single(kind, style)

    def _single(self, kind: str, style: Style) -> bool:
        sketches = self._draw(kind, [style])
        for _ in range(8 if sketches else 0):
            (sketch,), place = sketches, self.rng.choice(PLACES)
            if (kind, style[0], place) in self.taken:
                continue
            row = self._row(KINDS[kind])
            placed = self._position(sketch, KINDS[kind], place, row, 1.0)
            if placed is not None and self._fits([placed]):
                sketch.parts[0] = replace(sketch.parts[0], place=place, row=row)
                sketch.name_sides()
                self.placed.append(placed)
                self.taken.add((kind, style[0], place))
                return True
        return False

    def _group(self, kind: str, count: int, styles: Sequence[Style]) -> bool:
        about = KINDS[kind]
        words = ("left", "middle", "right") if count == 3 else ("left", "right")
        sketches = self._draw(kind, styles[:count])
        for _ in range(8 if sketches else 0):
            place, row = self.rng.choice(PLACES), self._row(about)
            keys = {(kind, style[0], place) for style in styles[:count]}
            if keys & self.taken:
                continue
            middle = self._position(sketches[0], about, place, row, GROUP_SCALE[count])
            if middle is None:
                continue
            widest = max(right - left for left, _, right, _ in map(Sketch.bounds, sketches))
            step = 1.06 * widest * middle.height
            members = []
            for number, (sketch, word) in enumerate(zip(sketches, words, strict=True)):
                x = middle.x + step * (number - (count - 1) / 2)
                sketch.parts[0] = replace(sketch.parts[0], side=(word,))
                members.append(self._at(sketch, x, middle.base, middle.height, len(self.groups)))
            span = members[-1].box[2] - members[0].box[0]
            if span < 0.56 * self.width and self._fits(members):
                for sketch in sketches:
                    sketch.name_sides()
                self.groups.append(Group("row" if count == 3 else "pair", kind, place, row))
                self.placed += members
                self.taken |= keys
                return True
        return False

    def _row(self, about: Kind) -> str | None:
        if about.spots != "ground":
            return None
        return self.rng.choice(("front", "back"))

    def _draw(self, kind: str, styles: Sequence[Style]) -> list[Sketch]:
        """One sketch per style; empty if they have too many parts for the scene."""
        room = self.most_parts - self.parts()
        for _ in range(3 if room > 2 * len(styles) else 0):
            sketches = [Sketch() for _ in styles]
            for sketch, style in zip(sketches, styles, strict=True):
                KINDS[kind].draw(sketch, self.rng, *style)
            if sum(len(sketch.parts) for sketch in sketches) <= room:
                turned = [KINDS[kind].mirrors and self.rng.random() < 0.5 for _ in sketches]
                pairs = zip(sketches, turned, strict=True)
                return [sketch.mirrored() if turn else sketch for sketch, turn in pairs]
        return []

    def _position(
        self, sketch: Sketch, about: Kind, place: str, row: str | None, scale: float
    ) -> Placed | None:
        rng, lines = self.rng, self.backdrop
        on = lines.front if row == "front" else lines.back
        if about.spots != "ground":
            on = lines.air if about.spots == "air" else lines.water
        if on is None:
            return None
        scale *= rng.uniform(0.9, 1.06) * (BACK_SCALE if row == "back" else 1.0)
        if about.spots != "ground":
            scale *= rng.uniform(0.72, 1.0)
        tall = scale * about.height * self.unit
        x = self.width * (CENTRES[place] + rng.uniform(-JITTER, JITTER))
        left, _, right, _ = sketch.bounds()
        x -= tall * (left + right) / 2  # the place is that of the box's middle
        return self._at(sketch, x, self.height * (1 - rng.uniform(*on)), tall)

    def _at(
        self, sketch: Sketch, x: float, base: float, tall: float, group: int | None = None
    ) -> Placed:
        left, bottom, right, top = sketch.bounds()
        box = (x + tall * left, base - tall * top, x + tall * right, base - tall * bottom)
        return Placed(sketch, x, base, tall, box, group)

    def _fits(self, new: Sequence[Placed]) -> bool:
        """Whether objects are inside the canvas, have few shapes, and hide no other too much."""
        for each in new:
            left, top, right, bottom = each.box
            margin = 0.1 * (right - left)
            if left < -margin or right > self.width + margin or top < 2 or bottom > self.height - 2:
                return False
        pairs = [(each, other) for each in new for other in self.placed]
        return all(_covered(*sorted(pair, key=_depth)) <= MAX_COVERED for pair in pairs)

    def without(self, failed: set[int]) -> None:
        """Remove objects by index; removing a member removes its whole group."""
        lost = {self.placed[index].group for index in failed} - {None}
        self.placed = [
            each
            for index, each in enumerate(self.placed)
            if index not in failed and each.group not in lost
        ]

    def in_order(self) -> list[Placed]:
        """Objects in drawing order, farthest first."""
        return sorted(self.placed, key=_depth)

    def has_twins(self, least: int) -> bool:
        """Whether at least `least` objects are of one kind."""
        kinds = Counter(each.sketch.parts[0].kind for each in self.placed)
        return max(kinds.values(), default=0) >= least


def _depth(placed: Placed) -> float:
    return placed.base


def _covered(farther: Placed, nearer: Placed) -> float:
    """Share of the farther object's box that the nearer object's box covers."""
    a, b = farther.box, nearer.box
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    return wide * high / ((a[2] - a[0]) * (a[3] - a[1]))
