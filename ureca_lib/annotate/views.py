"""The pictures that an annotator sees (Sec. 3, Tables 7-9).

Every stage shows the target region in its own way: cropped with the rest blurred, contoured in
its parent or in the image, or contoured and numbered among its look-alikes. `ImageViews` draws
these pictures for one image, and `stage_views` returns the ones that a stage's prompt describes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ureca_lib.annotate.protocol import STAGES, Context, Stage
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region, RegionError, RegionImage

ContextBlur = Literal["parent", "main_object"]
LookAlikeFrame = Literal["image", "crop"]
Numbers = Literal["boxes", "digits"]
Color = tuple[int, int, int]
Box = tuple[int, int, int, int]  # x, y, columns, rows in photo pixels

YELLOW: Color = (255, 255, 0)  # Tables 7 and 8
BLUE: Color = (0, 0, 255)  # Table 9, index 0
# far from one another and from blue; after the last one they repeat, and the numbers differ
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
COVERED = 0.15  # share of a region's pixels that a number may cover

_CACHED_MASKS = 64  # decoded masks per image, each cut to its box: every stage needs them again
_REDUCED_SIGMA = 8.0  # standard deviation of the blur in pixels of the reduced photo
_LEAST_HEIGHT = 14  # pixels: a smaller number cannot be read
_OUTLINE = 0.12  # of a number's height
_BOX_WIDTH = 2  # pixels: the line of a bounding box
_GRID = 5  # places tried along each side of a region whose middle is too crowded
# Penalties where no place is free: to overlap a number, to hide a region, to have the middle in
# a smaller region, to touch another region, to be one number's height away.
_ON_NUMBER, _ON_REGION, _IN_SMALLER, _ON_ANOTHER, _FAR = 10.0, 4.0, 4.0, 2.0, 0.4


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the views. The prompts speak of a yellow contour: keep it yellow.

    Raises:
        ValueError: a value out of its range, naming the field.
    """

    blur_sigma: float = field(
        default=100.0,
        metadata={"help": "standard deviation of the background's blur, photo pixels (published)"},
    )
    contour_width: int = field(
        default=3, metadata={"help": "width of a contour, pixels of the picture shown (published)"}
    )
    contour_color: Color = field(
        default=YELLOW, metadata={"help": "RGB of the target's contour (Tables 7 and 8)"}
    )
    context_blur: ContextBlur = field(
        default="parent",
        metadata={
            "help": "the part of the context that stays sharp: 'parent' crops the parent and blurs "
            "all of it but the target (Sec. 3); 'main_object' crops the main object and leaves it "
            "sharp (published code)"
        },
    )
    look_alike_frame: LookAlikeFrame = field(
        default="crop",
        metadata={
            "help": "picture in which look-alikes are numbered: 'crop', the box that holds them "
            "all (published code), or 'image', the whole image"
        },
    )
    numbers: Numbers = field(
        default="boxes",
        metadata={
            "help": "marks of look-alikes besides their contours: 'boxes', a bounding box and a "
            "filled label with its number (Sec. 3), or 'digits', the bare number"
        },
    )
    margin: float = field(
        default=0.1, metadata={"help": "space around a crop, as a share of its longer side"}
    )
    min_margin: int = field(
        default=8, metadata={"help": "least space around a crop, in photo pixels"}
    )
    min_side: int = field(
        default=448,
        metadata={
            "help": "pictures with a shorter longer side are enlarged before contours are drawn, "
            "which would hide small parts (448: a tile of the model); 0: never"
        },
    )
    max_side: int = field(
        default=1792,
        metadata={
            "help": "pictures with a longer longer side are reduced before contours are drawn "
            "(1792: four tiles, the longer side of a grid of 12); 0: never"
        },
    )
    number_height: float = field(
        default=0.04,
        metadata={"help": "height of the numbers, as a share of the picture's longer side"},
    )

    def __post_init__(self) -> None:
        least = {"blur_sigma": 0.1, "contour_width": 1, "number_height": 0.005}
        least |= dict.fromkeys(("margin", "min_margin", "min_side", "max_side"), 0)
        for name, lowest in least.items():
            if not getattr(self, name) >= lowest:  # also refuses NaN
                raise ValueError(f"{name} is at least {lowest:g}, not {getattr(self, name)!r}")
        if self.max_side and self.min_side > self.max_side:
            raise ValueError(f"min_side {self.min_side} is above max_side {self.max_side}")
        for name, allowed in (
            ("context_blur", ("parent", "main_object")),
            ("look_alike_frame", ("image", "crop")),
            ("numbers", ("boxes", "digits")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {allowed}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class Cut:
    """A mask within its tight box: `x`, `y` of the box's corner in its image, mask (h, w) bool."""

    x: int
    y: int
    mask: np.ndarray

    @property
    def box(self) -> Box:
        """(x, y, columns, rows)."""
        return self.x, self.y, self.mask.shape[1], self.mask.shape[0]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the box, for indexing."""
        return _window(self.box)

    def trimmed(self) -> Cut:
        """The same mask in its tight box."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        inside = self.mask[top : rows[-1] + 1, left : columns[-1] + 1]
        return Cut(self.x + left, self.y + top, inside)

    @classmethod
    def of(cls, region: Region) -> Cut:
        """A region's mask, cut out of its image."""
        x, y, _, _ = box = region.pixel_box
        return cls(x, y, np.ascontiguousarray(region.mask[_window(box)]))


@dataclass(frozen=True)
class Frame:
    """A box of the photo, and the size in pixels of the picture that shows it."""

    x: int
    y: int
    columns: int
    rows: int
    width: int
    height: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the photo, for indexing."""
        return _window((self.x, self.y, self.columns, self.rows))

    def shifted(self, cut: Cut) -> Cut:
        """The mask in photo pixels counted from the frame's corner."""
        return Cut(cut.x - self.x, cut.y - self.y, cut.mask)

    def resized(self, pixels: np.ndarray) -> np.ndarray:
        """(rows, columns, 3) of the photo -> (height, width, 3) of the picture, uint8."""
        if pixels.shape[:2] == (self.height, self.width):
            return pixels
        size = (self.width, self.height)
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

    def mapped(self, cut: Cut) -> Cut:
        """The mask in pixels of the picture; never empty, however small it becomes."""
        cut = self.shifted(cut)
        if (self.rows, self.columns) == (self.height, self.width):
            return cut
        left, right, pad_x, x_span = _span(cut.x, cut.mask.shape[1], self.columns, self.width)
        top, bottom, pad_y, y_span = _span(cut.y, cut.mask.shape[0], self.rows, self.height)
        levels = Image.fromarray(np.pad(cut.mask.view(np.uint8) * 255, (pad_y, pad_x)))
        source = (x_span[0], y_span[0], x_span[1], y_span[1])
        size = (right - left, bottom - top)
        shown = np.asarray(levels.resize(size, Image.Resampling.BILINEAR, source))
        # half covered, or, where the mask is thinner than a pixel, as covered as it gets
        inside = shown >= min(128, max(1, int(shown.max())))
        if not inside.any():
            inside[size[1] // 2, size[0] // 2] = True
        return Cut(left, top, inside).trimmed()


def _window(box: Box) -> tuple[slice, slice]:
    x, y, columns, rows = box
    return slice(y, y + rows), slice(x, x + columns)


def _span(
    start: int, length: int, photo_side: int, shown_side: int
) -> tuple[int, int, tuple[int, int], tuple[float, float]]:
    """One axis of a mask brought to the picture's scale.

    Returns:
        First and last picture pixel that it may touch; the padding in photo pixels that it needs
        on both sides, none at the frame's end; the same stretch in pixels of the padded mask.
    """
    scale = shown_side / photo_side
    first = max(0, math.floor(start * scale) - 1)
    last = min(shown_side, math.ceil((start + length) * scale) + 1)
    reach = math.ceil(2 / scale) + 1
    before = min(reach, start)
    after = min(reach, photo_side - start - length)
    offset = before - start
    span = max(0.0, first / scale + offset), min(before + length + after, last / scale + offset)
    return first, last, (before, after), span


def frame_of(boxes: list[Box], height: int, width: int, settings: ViewSettings) -> Frame:
    """The frame around boxes, with the margin of the settings, cut at the image's edges.

    Args:
        boxes: (x, y, columns, rows) in photo pixels, at least one.
        height, width: of the photo in pixels.
        settings: margins and sides.
    """
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    margin = math.ceil(settings.margin * max(right - left, bottom - top))
    margin = max(margin, settings.min_margin)
    left, top = max(0, left - margin), max(0, top - margin)
    right, bottom = min(width, right + margin), min(height, bottom + margin)
    columns, rows = right - left, bottom - top
    longest, scale = max(columns, rows), 1.0
    if longest < settings.min_side:
        scale = settings.min_side / longest
    elif settings.max_side and longest > settings.max_side:
        scale = settings.max_side / longest
    shown = max(1, round(columns * scale)), max(1, round(rows * scale))
    return Frame(left, top, columns, rows, *shown)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a photo with a wide Gaussian, in time that does not grow with its width.

    A reduced photo holds all that a wide blur leaves. The photo is reduced until the blur is 8
    pixels wide, blurred there exactly, and enlarged again; the blur of reducing and enlarging is
    subtracted first. The error against the exact Gaussian is at most 3 of 255 levels at any
    width, and only rounding below a width of 16 pixels. Three box blurs, as fast, are up to 20
    levels off.

    Args:
        image: (H, W, 3) uint8.
        sigma: standard deviation in pixels.

    Returns:
        (H, W, 3) uint8; the photo is mirrored beyond its edge.
    """
    height, width = image.shape[:2]
    factor = max(1, int(sigma / _REDUCED_SIGMA))
    columns, rows = math.ceil(width / factor), math.ceil(height / factor)
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX)
    # a box of f pixels has the variance (f^2 - 1) / 12, linear enlarging by f about (f^2 - 1) / 6
    sigmas = [
        math.sqrt(max(sigma**2 - (step**2 - 1) / 4, 0)) / step
        for step in (height / rows, width / columns)
    ]
    levels = ndimage.gaussian_filter(np.asarray(small, np.float32), (*sigmas, 0), mode="reflect")
    smooth = Image.fromarray(np.rint(levels).astype(np.uint8))
    return np.array(smooth.resize((width, height), Image.Resampling.BILINEAR))


def _show_sharp(canvas: np.ndarray, photo: np.ndarray, cut: Cut) -> None:
    """Copy a region's pixels from a (H, W, 3) photo onto a canvas of its size, in place."""
    rows, columns = cut.mask.shape
    # a mask as deep as the pixels is 5 times faster than one that numpy has to broadcast
    inside = np.repeat(cut.mask, 3, axis=1).reshape(rows, columns, 3)  # (h, w * 3) -> (h, w, 3)
    np.copyto(canvas[cut.window], photo[cut.window], where=inside)


def grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """(h, w) bool -> (h + 2 radius, w + 2 radius) bool: all within `radius` pixels of the mask."""
    padded = np.pad(mask, radius)
    wide = [padded]  # grown sideways by 0, 1, ... pixels
    for reach in range(1, radius + 1):
        row = wide[-1].copy()
        row[:, reach:] |= padded[:, :-reach]
        row[:, :-reach] |= padded[:, reach:]
        wide.append(row)
    grown = wide[radius].copy()
    for step in range(1, radius + 1):
        row = wide[int(math.sqrt((radius + 0.5) ** 2 - step**2))]
        grown[step:] |= row[:-step]
        grown[:-step] |= row[step:]
    return grown


def contour_of(cut: Cut, width: int, height: int, columns: int) -> Cut:
    """The pixels of a region's contour: around it, and around its holes, on the outside.

    At the picture's edge there is no outside, so the contour runs inside along the edge, unless
    that would hide more than half of the region.

    Args:
        cut: the region in pixels of the picture.
        width: of the contour in pixels.
        height, columns: of the picture.
    """
    ring = grow(cut.mask, width)
    inner = ring[width:-width, width:-width]
    inner &= ~cut.mask
    x, y, w, h = cut.box
    edge = np.zeros_like(cut.mask)
    edge[: max(0, width - y)] = edge[:, : max(0, width - x)] = True
    edge[max(0, height - width - y) :] = edge[:, max(0, columns - width - x) :] = True
    edge &= cut.mask
    if 2 * np.count_nonzero(edge) <= np.count_nonzero(cut.mask):
        inner |= edge
    left, top = max(0, width - x), max(0, width - y)
    right, bottom = min(w + 2 * width, columns - x + width), min(h + 2 * width, height - y + width)
    return Cut(x - width + left, y - width + top, ring[top:bottom, left:right])


def draw_contour(canvas: np.ndarray, cut: Cut, width: int, color: Color) -> None:
    """Draw a region's contour onto a (H, W, 3) uint8 canvas, in place; `cut` in its pixels."""
    contour = contour_of(cut, width, *canvas.shape[:2])
    canvas[contour.window][contour.mask] = color


def draw_box(canvas: np.ndarray, box: Box, gap: int, color: Color) -> None:
    """Draw a rectangle around a box onto a (H, W, 3) uint8 canvas, in place.

    Args:
        canvas: the picture.
        box: (x, y, columns, rows) in pixels of the picture.
        gap: pixels between the box and the line; at the picture's edge the line is inside.
        color: of the line.
    """
    x, y, columns, rows = box
    height, width = canvas.shape[:2]
    reach = gap + _BOX_WIDTH
    left, top = max(0, x - reach), max(0, y - reach)
    right, bottom = min(width, x + columns + reach), min(height, y + rows + reach)
    inside = canvas[top + _BOX_WIDTH : bottom - _BOX_WIDTH, left + _BOX_WIDTH : right - _BOX_WIDTH]
    kept = inside.copy()
    canvas[top:bottom, left:right] = color
    inside[:] = kept


def number_color(index: int) -> Color:
    """The color of a number and its contour: blue for 0, the target, and for no other."""
    return BLUE if index == 0 else LOOK_ALIKE_COLORS[(index - 1) % len(LOOK_ALIKE_COLORS)]


def number_pixels(share: float, height: int, width: int) -> int:
    """Height in pixels of the numbers on a picture of (height, width)."""
    return max(_LEAST_HEIGHT, round(share * max(height, width)))


@lru_cache(maxsize=512)
def number_patch(index: int, pixels: int, boxed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A number in its color, readable on any background: with an outline, or on a filled label.

    Args:
        index: 0 for the target.
        pixels: height of the digits.
        boxed: fill the patch with the color of the outline, black or white.

    Returns:
        (h, w, 3) uint8 colors and (h, w, 1) float32 opacity.
    """
    color, text = number_color(index), str(index)
    outline = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
    stroke = max(1, round(_OUTLINE * pixels))
    font = ImageFont.load_default(size=round(pixels / 0.72))  # a digit is 0.72 of the font's size
    left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
    size = (int(right - left) + 1, int(bottom - top) + 1)
    opacity, patch = Image.new("L", size), Image.new("RGB", size, outline)
    for picture, fill, around in ((opacity, 255, 255), (patch, color, outline)):
        ImageDraw.Draw(picture).text(
            (-left, -top), text, fill=fill, font=font, stroke_width=stroke, stroke_fill=around
        )
    if boxed:
        opacity = Image.new("L", size, 255)
        ImageDraw.Draw(patch).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=color)
    return np.asarray(patch), np.asarray(opacity, np.float32)[..., None] / 255


class Spot(NamedTuple):
    """The place of a number's patch on the picture: corner and size in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns, for indexing."""
        return _window(self)

    @property
    def center(self) -> tuple[int, int]:
        """(x, y)."""
        return self.x + self.width // 2, self.y + self.height // 2

    def overlap(self, other: Spot) -> int:
        """Pixels that both cover."""
        columns = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        rows = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0, columns) * max(0, rows)


def draw_number(canvas: np.ndarray, spot: Spot, patch: np.ndarray, opacity: np.ndarray) -> None:
    """Draw a number's patch onto a (H, W, 3) uint8 canvas, in place; the edge may cut it."""
    below = canvas[spot.window]
    rows, columns = below.shape[:2]
    patch, opacity = patch[:rows, :columns], opacity[:rows, :columns]
    below[:] = np.rint(opacity * patch + (1 - opacity) * below)


def place_numbers(
    cuts: Sequence[Cut], sizes: Sequence[tuple[int, int]], height: int, width: int, gap: int
) -> list[Spot]:
    """Choose the places of the numbers: the middle of the region, elsewhere only if necessary.

    A number is moved if it would cover more than `COVERED` of any region shown, overlap another
    number, or have its middle in a smaller region than its own. It is then put elsewhere within
    its region if that is free, else beside it: close, but off all other regions except those
    around its own. Numbers of large regions are placed first.

    Args:
        cuts: the regions in pixels of the picture, in the order of their numbers.
        sizes: (columns, rows) of each number's patch.
        height, width: of the picture.
        gap: pixels between a region and a number beside it.
    """
    areas = [np.count_nonzero(cut.mask) for cut in cuts]
    placed: dict[int, Spot] = {}
    for index in sorted(range(len(cuts)), key=lambda index: -areas[index]):
        strangers = [cut for cut in cuts if not _mostly_in(cuts[index], cut)]
        best, least = None, math.inf
        for spot, away in _spots(cuts[index], sizes[index], height, width, gap):
            penalty = away + _penalty(spot, areas[index], cuts, areas, placed.values())
            if best is not None:  # moved
                touched = sum(_covered(cut, spot) for cut in strangers)
                penalty += _ON_ANOTHER * touched / (spot.width * spot.height)
            if penalty < least:
                best, least = spot, penalty
            if penalty == 0:
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
) -> Iterator[tuple[Spot, float]]:
    """Places for a number: the middle, elsewhere inside, beside; and their penalty for distance."""
    w, h = size

    def around(x: float, y: float) -> Spot:
        left = min(max(0, round(x - w / 2)), max(0, width - w))
        top = min(max(0, round(y - h / 2)), max(0, height - h))
        return Spot(left, top, w, h)

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
    """Points on a region's border where a number may stand beside it: x, y and the way out.

    First where the region reaches farthest right, left, up and down, then its box's corners.
    """
    x, y, columns, rows = cut.box
    right, bottom = x + columns, y + rows

    def mean(line: np.ndarray) -> float:
        return float(np.flatnonzero(line).mean()) + 0.5

    return [
        (right, y + mean(cut.mask[:, -1]), 1, 0),
        (x, y + mean(cut.mask[:, 0]), -1, 0),
        (x + mean(cut.mask[0]), y, 0, -1),
        (x + mean(cut.mask[-1]), bottom, 0, 1),
        *((right, y, 1, -1), (x, y, -1, -1), (right, bottom, 1, 1), (x, bottom, -1, 1)),
    ]


def _penalty(
    spot: Spot, area: int, cuts: Sequence[Cut], areas: Sequence[int], placed: Iterable[Spot]
) -> float:
    """Penalty of a place for the number of a region of `area`: 0 if nothing is wrong with it."""
    penalty = _ON_NUMBER * sum(spot.overlap(other) for other in placed) / (spot.width * spot.height)
    for cut, other_area in zip(cuts, areas, strict=True):
        share = _covered(cut, spot) / other_area
        if share > COVERED:
            penalty += _ON_REGION * share
        if other_area < area and _covered(cut, Spot(*spot.center, 1, 1)):
            penalty += _IN_SMALLER
    return penalty


def _mostly_in(inner: Cut, outer: Cut) -> bool:
    """Whether more than half of a region is in another."""
    x, y = max(inner.x, outer.x), max(inner.y, outer.y)
    both = inner.mask[y - inner.y :, x - inner.x :], outer.mask[y - outer.y :, x - outer.x :]
    rows, columns = (min(mask.shape[axis] for mask in both) for axis in (0, 1))
    shared = both[0][:rows, :columns] & both[1][:rows, :columns]
    return 2 * np.count_nonzero(shared) > np.count_nonzero(inner.mask)


def _covered(cut: Cut, spot: Spot) -> int:
    """Pixels of a region under a number."""
    top, left = spot.y - cut.y, spot.x - cut.x
    rows = slice(max(0, top), max(0, top + spot.height))
    return int(np.count_nonzero(cut.mask[rows, max(0, left) : max(0, left + spot.width)]))


class ImageViews:
    """Views of the regions of one image. May be used from several threads at once.

    The photo is blurred once, here. Every view is a new array.

    Args:
        image: with its photo.
        settings: of the pictures.

    Raises:
        FileMissingError, ImageUnreadableError, SizeMismatchError: the photo cannot be read.
    """

    def __init__(self, image: RegionImage, settings: ViewSettings | None = None):
        self.image, self.settings = image, settings or ViewSettings()
        self._photo = np.ascontiguousarray(image.pixels)
        self._blurred = blur(self._photo, self.settings.blur_sigma)
        whole = (0, 0, image.width, image.height)
        self._whole = frame_of([whole], image.height, image.width, self.settings)
        self._shown = self._whole.resized(self._photo)
        self._shown_blurred = self._whole.resized(self._blurred)
        # of the image, not of self: a cycle would hold the pictures until the collector runs
        self._cut = lru_cache(maxsize=_CACHED_MASKS)(partial(_decode, image))

    def target_crop(self, region_id: RegionId) -> np.ndarray:
        """The target cropped, with all else blurred (Table 7, Image-2): (h, w, 3) uint8.

        Raises:
            RegionError: no region has this id; so for all the views.
        """
        cut = self._cut(region_id)
        frame = self._frame([cut])
        return frame.resized(self._blurred_around(frame, cut))

    def contoured_parent(
        self,
        region_id: RegionId,
        parent_id: RegionId | None,
        main_object_id: RegionId | None = None,
    ) -> np.ndarray:
        """The parent cropped, with the target contoured (Table 7, Image-1): (h, w, 3) uint8.

        With `context_blur="parent"` only the target is sharp (Sec. 3). With "main_object" the crop
        holds the main object, all of which is sharp (published code).

        Args:
            region_id: the target.
            parent_id: its parent; None if that is the image.
            main_object_id: the ancestor under the root; None if that is the target itself.
        """
        target = self._cut(region_id)
        as_published = self.settings.context_blur == "main_object"
        around = main_object_id if as_published else parent_id
        if around is None:
            frame = self._whole
            canvas = (self._shown if as_published else self._shown_blurred).copy()
            if not as_published:
                _show_sharp(canvas, self._shown, frame.mapped(target))
        else:
            context = self._cut(around)
            frame = self._frame([context, target])  # a part may reach out of its parent
            sharp = context if as_published else target
            canvas = frame.resized(self._blurred_around(frame, sharp))
        self._contour(canvas, frame.mapped(target))
        return canvas

    def contoured_image(self, region_id: RegionId) -> np.ndarray:
        """The full image with the target contoured (Table 8): (H, W, 3) uint8."""
        canvas = self._shown.copy()
        self._contour(canvas, self._whole.mapped(self._cut(region_id)))
        return canvas

    def numbered(self, region_id: RegionId, look_alike_ids: Sequence[RegionId]) -> np.ndarray:
        """The target and its look-alikes contoured and numbered (Sec. 3, Table 9): (h, w, 3) uint8.

        With `numbers="boxes"` each has a bounding box and a filled label too.

        Args:
            region_id: the target, 0, in blue.
            look_alike_ids: numbered from 1, each in a color of its own.

        Raises:
            ValueError: a look-alike is named twice, or is the target.
        """
        ids = [region_id, *look_alike_ids]
        if len(set(ids)) < len(ids):
            raise ValueError(f"region {region_id}: look-alikes are named twice: {ids[1:]}")
        cuts = [self._cut(member) for member in ids]
        cropped = self.settings.look_alike_frame == "crop"
        frame = self._frame(cuts) if cropped else self._whole
        canvas = frame.resized(self._photo[frame.window]).copy() if cropped else self._shown.copy()
        mapped = [frame.mapped(cut) for cut in cuts]
        height, width = canvas.shape[:2]
        pixels = number_pixels(self.settings.number_height, height, width)
        boxed, line = self.settings.numbers == "boxes", self.settings.contour_width
        patches = [number_patch(index, pixels, boxed) for index in range(len(ids))]
        sizes = [patch.shape[1::-1] for patch, _ in patches]
        gap = line + 2 + boxed * _BOX_WIDTH
        spots = place_numbers(mapped, sizes, height, width, gap)
        # the target comes last, over the others; all numbers come over all contours
        for index in reversed(range(len(ids))):
            self._contour(canvas, mapped[index], number_color(index))
            if boxed:
                draw_box(canvas, mapped[index].box, line + 1, number_color(index))
        for index in reversed(range(len(ids))):
            draw_number(canvas, spots[index], *patches[index])
        return canvas

    def _frame(self, cuts: Sequence[Cut]) -> Frame:
        boxes = [cut.box for cut in cuts]
        return frame_of(boxes, self.image.height, self.image.width, self.settings)

    def _blurred_around(self, frame: Frame, cut: Cut) -> np.ndarray:
        """(rows, columns, 3) of the frame in photo pixels: sharp in the mask, blurred elsewhere."""
        canvas = self._blurred[frame.window].copy()
        _show_sharp(canvas, self._photo[frame.window], frame.shifted(cut))
        return canvas

    def _contour(self, canvas: np.ndarray, cut: Cut, color: Color | None = None) -> None:
        color = self.settings.contour_color if color is None else color
        draw_contour(canvas, cut, self.settings.contour_width, color)


def _decode(image: RegionImage, region_id: RegionId) -> Cut:
    try:
        region = image[region_id]
    except KeyError:
        raise RegionError("the image has no region of this id", image.path, region_id) from None
    return Cut.of(region)


def stage_views(
    stage: Stage, views: ImageViews, tree: MaskTree, region_id: RegionId, context: Context
) -> list[np.ndarray]:
    """The pictures of a stage's prompt, in the order in which it describes them (Tables 7-9).

    Args:
        stage: "short": the contoured parent and the cropped target; "long": the contoured image;
            "unique": the numbered look-alikes; "verify": the contoured image and the crop.
        views: of the image.
        tree: of its regions.
        region_id: the target.
        context: its look-alikes are numbered in their order.

    Returns:
        (h, w, 3) uint8 each.

    Raises:
        ValueError: no such stage.
    """
    if stage == "short":
        ancestors = tree.ancestors(region_id)
        main_object = ancestors[-1] if ancestors else None
        contoured = views.contoured_parent(region_id, tree.parent(region_id), main_object)
        return [contoured, views.target_crop(region_id)]
    if stage == "long":
        return [views.contoured_image(region_id)]
    if stage == "unique":
        return [views.numbered(region_id, context.look_alikes)]
    if stage == "verify":
        return [views.contoured_image(region_id), views.target_crop(region_id)]
    raise ValueError(f"a stage is one of {', '.join(STAGES)}, not {stage!r}")
