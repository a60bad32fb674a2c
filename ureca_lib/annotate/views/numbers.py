"""Numbers of look-alikes (Table 9): their colours, how they look, and where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ureca_lib.annotate.views.frames import Cut
from ureca_lib.annotate.views.settings import BLUE, Color

# far from one another and from blue; after the last one they begin again, told by the numbers
LOOK_ALIKE_COLORS: tuple[Color, ...] = (
    (255, 0, 0),  # red
    (255, 235, 0),  # yellow
    (0, 170, 40),  # green
    (255, 0, 255),  # magenta
    (255, 130, 0),  # orange
    (255, 255, 255),  # white
    (140, 70, 20),  # brown
    (150, 255, 60),  # lime
    (255, 150, 170),  # pink
    (0, 0, 0),  # black
    (150, 0, 70),  # burgundy
    (130, 130, 20),  # olive
)
COVERED = 0.15  # of a region's pixels that a number may stand on
_LEAST_HEIGHT = 14  # pixels: a number smaller than that cannot be read
_OUTLINE = 0.12  # of a number's height
_GRID = 5  # places tried along each side of a region that is too crowded in its middle
# what is worse than what, where no place is free: standing on a number, hiding a region, having
# one's middle in another, touching another, a number's height of distance
_ON_NUMBER, _ON_REGION, _IN_SMALLER, _ON_ANOTHER, _FAR = 10.0, 4.0, 4.0, 2.0, 0.4


def number_color(index: int) -> Color:
    """The colour of a number and its contour: blue for 0, the target; never blue for another."""
    return BLUE if index == 0 else LOOK_ALIKE_COLORS[(index - 1) % len(LOOK_ALIKE_COLORS)]


@dataclass(frozen=True)
class Placed:
    """A number's patch on the picture: corner and size in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns, for indexing."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    @property
    def centre(self) -> tuple[int, int]:
        """(x, y)."""
        return self.x + self.width // 2, self.y + self.height // 2

    def overlap(self, other: Placed) -> int:
        """Pixels that both cover."""
        columns = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        rows = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0, columns) * max(0, rows)


def number_pixels(share: float, height: int, width: int) -> int:
    """Height in pixels of the numbers on a picture of (height, width)."""
    return max(_LEAST_HEIGHT, round(share * max(height, width)))


@lru_cache(maxsize=512)
def number_patch(index: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """A number in its colour, with an outline that sets it off from any background.

    Args:
        index: 0 for the target.
        pixels: height of the digits.

    Returns:
        (h, w, 3) uint8 colours and (h, w, 1) float32 opacity.
    """
    color = number_color(index)
    luminance = np.dot(color, (0.299, 0.587, 0.114))
    outline = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    stroke = max(1, round(_OUTLINE * pixels))
    font = ImageFont.load_default(size=round(pixels / 0.72))  # a digit is 0.72 of the font's size
    left, top, right, bottom = font.getbbox(str(index), stroke_width=stroke)
    size = (int(right - left) + 1, int(bottom - top) + 1)
    drawn = {"font": font, "stroke_width": stroke}
    opacity = Image.new("L", size)
    ImageDraw.Draw(opacity).text((-left, -top), str(index), fill=255, stroke_fill=255, **drawn)
    patch = Image.new("RGB", size, outline)
    text = ImageDraw.Draw(patch)
    text.text((-left, -top), str(index), fill=color, stroke_fill=outline, **drawn)
    return np.asarray(patch), np.asarray(opacity, np.float32)[..., None] / 255


def draw_number(canvas: np.ndarray, index: int, pixels: int, placed: Placed) -> None:
    """Draw a number onto a (H, W, 3) uint8 canvas, in place; parts beyond the edge are cut."""
    patch, opacity = number_patch(index, pixels)
    below = canvas[placed.window]
    rows, columns = below.shape[:2]
    patch, opacity = patch[:rows, :columns], opacity[:rows, :columns]
    below[:] = np.rint(opacity * patch + (1 - opacity) * below)


def place_numbers(
    cuts: Sequence[Cut], sizes: Sequence[tuple[int, int]], height: int, width: int, gap: int
) -> list[Placed]:
    """Where the numbers stand: at the middle of their region, moved only where they must be.

    A number is moved if it would cover more than `COVERED` of any region shown, stand on another
    number, or have its middle in a smaller region than its own. It is then put within its region
    where that is free, else beside it: close, but off all other regions except those around its
    own. Numbers of large regions are placed first.

    Args:
        cuts: the regions in pixels of the picture, in the order of their numbers.
        sizes: (columns, rows) of each number's patch.
        height, width: of the picture.
        gap: pixels between a region and a number beside it.
    """
    areas = [np.count_nonzero(cut.mask) for cut in cuts]
    placed: dict[int, Placed] = {}
    for index in sorted(range(len(cuts)), key=lambda index: -areas[index]):
        around = [_mostly_in(cuts[index], cut) for cut in cuts]
        best, least = None, float("inf")
        for spot, away in _spots(cuts[index], sizes[index], height, width, gap):
            blame = away + _blame(spot, areas[index], cuts, areas, placed.values())
            if best is not None:  # moved
                strange = sum(_covered(c, spot) for c, a in zip(cuts, around, strict=True) if not a)
                blame += _ON_ANOTHER * strange / (spot.width * spot.height)
            if blame < least:
                best, least = spot, blame
            if blame == 0:
                break
        placed[index] = best  # type: ignore[assignment]
    return [placed[index] for index in range(len(cuts))]


def middle(cut: Cut) -> tuple[int, int]:
    """(x, y): the mean of a region's pixels, in pixels of the picture."""
    columns, rows = cut.mask.sum(0), cut.mask.sum(1)
    total = columns.sum()
    x = int(np.dot(columns, np.arange(len(columns))) / total)
    y = int(np.dot(rows, np.arange(len(rows))) / total)
    return cut.x + x, cut.y + y


def _spots(
    cut: Cut, size: tuple[int, int], height: int, width: int, gap: int
) -> Iterator[tuple[Placed, float]]:
    """Places for a number: the middle, elsewhere inside, beside; and how far away they are."""
    w, h = size

    def around(x: float, y: float) -> Placed:
        left = min(max(0, round(x - w / 2)), max(0, width - w))
        top = min(max(0, round(y - h / 2)), max(0, height - h))
        return Placed(left, top, w, h)

    x, y = middle(cut)
    yield around(x, y), 0.0
    rows, columns = cut.mask.shape
    if rows > 2 * h and columns > 2 * w:  # room inside
        steps = (np.arange(_GRID) + 0.5) / _GRID
        points = [(int(u * columns), int(v * rows)) for v in steps for u in steps]
        points = [(u + cut.x, v + cut.y) for u, v in points if cut.mask[v, u]]
        for u, v in sorted(points, key=lambda p: (p[0] - x) ** 2 + (p[1] - y) ** 2):
            yield around(u, v), 0.0
    for far in (0, 1, 2, 4):  # in heights of the number
        for number, (u, v, dx, dy) in enumerate(_tips(cut)):
            spot_x = u + dx * (gap + w / 2 + far * h)
            spot_y = v + dy * (gap + h / 2 + far * h)
            fits_x = dx == 0 or w / 2 <= spot_x <= width - w / 2
            if fits_x and (dy == 0 or h / 2 <= spot_y <= height - h / 2):
                yield around(spot_x, spot_y), _FAR * (far + number // 4)


def _tips(cut: Cut) -> list[tuple[float, float, int, int]]:
    """Where a number may stand beside a region: x, y at its border, and the way out from there.

    First where the region reaches farthest right, left, up and down, then its box's corners.
    """
    rows, columns = cut.mask.shape
    right, bottom = cut.x + columns, cut.y + rows

    def mean(line: np.ndarray) -> float:
        return float(np.flatnonzero(line).mean()) + 0.5

    return [
        (right, cut.y + mean(cut.mask[:, -1]), 1, 0),
        (cut.x, cut.y + mean(cut.mask[:, 0]), -1, 0),
        (cut.x + mean(cut.mask[0]), cut.y, 0, -1),
        (cut.x + mean(cut.mask[-1]), bottom, 0, 1),
        *((right, cut.y, 1, -1), (cut.x, cut.y, -1, -1)),
        *((right, bottom, 1, 1), (cut.x, bottom, -1, 1)),
    ]


def _blame(
    spot: Placed, area: int, cuts: Sequence[Cut], areas: Sequence[int], placed: Iterable[Placed]
) -> float:
    """How much is wrong with a place for the number of a region of `area`: 0 where nothing is."""
    blame = _ON_NUMBER * sum(spot.overlap(other) for other in placed) / (spot.width * spot.height)
    for other, cut in enumerate(cuts):
        share = _covered(cut, spot) / areas[other]
        if share > COVERED:
            blame += _ON_REGION * share
        if areas[other] < area and _holds(cut, *spot.centre):
            blame += _IN_SMALLER
    return blame


def _holds(cut: Cut, x: int, y: int) -> bool:
    """Whether a pixel of the picture is in the region."""
    column, row = x - cut.x, y - cut.y
    rows, columns = cut.mask.shape
    return 0 <= row < rows and 0 <= column < columns and bool(cut.mask[row, column])


def _mostly_in(inner: Cut, outer: Cut) -> bool:
    """Whether more than half of a region lies in another."""
    x, y = max(inner.x, outer.x), max(inner.y, outer.y)
    both = inner.mask[y - inner.y :, x - inner.x :], outer.mask[y - outer.y :, x - outer.x :]
    rows, columns = (min(mask.shape[axis] for mask in both) for axis in (0, 1))
    shared = both[0][:rows, :columns] & both[1][:rows, :columns]
    return 2 * np.count_nonzero(shared) > np.count_nonzero(inner.mask)


def _covered(cut: Cut, spot: Placed) -> int:
    """Pixels of a region under a number."""
    top, left = spot.y - cut.y, spot.x - cut.x
    rows = slice(max(0, top), max(0, top + spot.height))
    return int(np.count_nonzero(cut.mask[rows, max(0, left) : max(0, left + spot.width)]))
