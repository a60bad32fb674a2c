"""The pictures that an annotator sees (Sec. 3, Tables 7-9).

Every stage shows the target region in its own way: cropped with the rest blurred, contoured in
its parent or in the image, or contoured and numbered among its look-alikes. `ImageViews` draws
these pictures for one image, and `stage_views` returns the ones that a stage's prompt describes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ureca_lib.annotate.cuts import Box, Cut
from ureca_lib.annotate.protocol import Context, Stage
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.options import at_least, setting
from ureca_lib.regions import RegionImage

ContextBlur = Literal["parent", "main_object"]
LookAlikeFrame = Literal["image", "crop"]
Numbers = Literal["boxes", "digits"]
Color = tuple[int, int, int]

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
NUMBER_HEIGHT = 0.04  # of the picture's longer side
MIN_MARGIN = 8  # least space around a crop, in photo pixels

_CACHED_MASKS = 64  # decoded masks per image, each cut to its box: every stage needs them again
_REDUCED_SIGMA = 8.0  # standard deviation of the blur in pixels of the reduced photo
_LEAST_HEIGHT = 14  # pixels: a smaller number cannot be read
_OUTLINE = 0.12  # of a number's height
_BOX_WIDTH = 2  # pixels: the line of a bounding box
_GRID = 5  # places tried along each side of a region whose middle is too crowded


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the views. The prompts speak of a yellow contour: keep it yellow.

    Raises:
        ValueError: a value out of its range, naming the field.
    """

    blur_sigma: float = setting(
        100.0, "standard deviation of the background's blur, photo pixels (published)"
    )
    contour_width: int = setting(3, "width of a contour, pixels of the picture shown (published)")
    contour_color: Color = setting(YELLOW, "RGB of the target's contour (Tables 7 and 8)")
    context_blur: ContextBlur = setting(
        "parent",
        "the part of the context that stays sharp: 'parent' crops the parent and blurs all of it "
        "but the target (Sec. 3); 'main_object' crops the main object and leaves it sharp "
        "(published code)",
    )
    look_alike_frame: LookAlikeFrame = setting(
        "crop",
        "picture in which look-alikes are numbered: 'crop', the box that holds them all (published "
        "code), or 'image', the whole image",
    )
    numbers: Numbers = setting(
        "boxes",
        "marks of look-alikes besides their contours: 'boxes', a bounding box and a filled label "
        "with its number (Sec. 3), or 'digits', the bare number",
    )
    margin: float = setting(0.1, "space around a crop, as a share of its longer side")
    min_side: int = setting(
        448,
        "pictures with a shorter longer side are enlarged before contours are drawn, which would "
        "hide small parts (448: a tile of the model); 0: never",
    )
    max_side: int = setting(
        1792,
        "pictures with a longer longer side are reduced before contours are drawn (1792: four "
        "tiles, the longer side of a grid of 12); 0: never",
    )

    def __post_init__(self) -> None:
        at_least(self, blur_sigma=0.1, contour_width=1, margin=0, min_side=0, max_side=0)
        if self.max_side and self.min_side > self.max_side:
            raise ValueError(f"min_side {self.min_side} is above max_side {self.max_side}")
        kinds = {"context_blur": ContextBlur, "look_alike_frame": LookAlikeFrame}
        for name, kind in (kinds | {"numbers": Numbers}).items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is one of {get_args(kind)}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class Frame:
    """A box of the photo, and the size in pixels of the picture that shows it."""

    box: Box
    width: int
    height: int

    def resized(self, pixels: np.ndarray) -> np.ndarray:
        """(rows, columns, 3) of the photo -> (height, width, 3) of the picture, uint8."""
        if pixels.shape[:2] == (self.height, self.width):
            return pixels
        size = (self.width, self.height)
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

    def mapped(self, cut: Cut) -> Cut:
        """The mask in pixels of the picture; never empty, however small it becomes."""
        x, y, (rows, columns) = cut.x - self.box.x, cut.y - self.box.y, cut.mask.shape
        if self.box[2:] == (self.width, self.height):
            return Cut(x, y, cut.mask)
        left, right, x_pad, x_span = _span(x, columns, self.box.columns, self.width)
        top, bottom, y_pad, y_span = _span(y, rows, self.box.rows, self.height)
        levels = Image.fromarray(np.pad(cut.mask.view(np.uint8) * 255, (y_pad, x_pad)))
        size, source = (right - left, bottom - top), (x_span[0], y_span[0], x_span[1], y_span[1])
        shown = levels.resize(size, Image.Resampling.BILINEAR, source)
        # half covered, or, where the mask is thinner than a pixel, as covered as it gets
        inside = np.asarray(shown) >= min(128, max(1, shown.getextrema()[1]))
        if not inside.any():
            inside[size[1] // 2, size[0] // 2] = True
        ((rows, columns),) = ndimage.find_objects(inside.view(np.uint8))
        return Cut(left + columns.start, top + rows.start, inside[rows, columns])


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
    near, far = max(0, start - reach), min(photo_side, start + length + reach)
    span = max(0.0, first / scale - near), min(far - near, last / scale - near)
    return first, last, (start - near, far - start - length), span


def frame_of(
    boxes: Sequence[tuple[int, int, int, int]], height: int, width: int, settings: ViewSettings
) -> Frame:
    """The frame around boxes, with the margin of the settings, cut at the image's edges.

    Args:
        boxes: (x, y, columns, rows) in photo pixels, at least one.
        height, width: of the photo in pixels.
        settings: margins and sides.
    """
    corners = np.array(boxes)  # (N, 4)
    low, high = corners[:, :2].min(0), (corners[:, :2] + corners[:, 2:]).max(0)
    margin = max(math.ceil(settings.margin * (high - low).max()), MIN_MARGIN)
    low, high = np.maximum(0, low - margin), np.minimum((width, height), high + margin)
    longest = int((high - low).max())
    scale = max(longest, settings.min_side) / longest
    if settings.max_side:
        scale = min(scale, settings.max_side / longest)
    shown = np.maximum(1, np.rint((high - low) * scale)).astype(int)
    return Frame(Box(*low.tolist(), *(high - low).tolist()), *shown.tolist())


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


def paint(canvas: np.ndarray, cut: Cut, source: np.ndarray | Color) -> None:
    """Paint the pixels under a mask, from a picture or in one color, in place.

    Args:
        canvas: (H, W, 3) uint8.
        cut: the mask in pixels of the canvas; it may reach beyond it.
        source: (H, W, 3) uint8, or the color.
    """
    height, width = canvas.shape[:2]
    x, y = max(0, cut.x), max(0, cut.y)
    mask = cut.mask[y - cut.y : height - cut.y, x - cut.x : width - cut.x]
    window = Box(x, y, mask.shape[1], mask.shape[0]).window
    colors = np.broadcast_to(np.asarray(source, np.uint8), canvas.shape)
    # a pixel as one value of three bytes: 5 to 10 times faster than a mask on (h, w, 3)
    below, above = canvas.view("V3")[..., 0], colors.view("V3")[..., 0]
    np.copyto(below[window], above[window], where=mask)


def grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """(h, w) bool -> (h + 2 radius, w + 2 radius) bool: all within `radius` pixels of the mask."""
    padded = np.pad(mask, radius)
    wide, grown, reach = padded.copy(), padded.copy(), 0
    # the rows of a disk, from its end to its middle: each is as wide as the one before, or wider
    for step in range(radius, -1, -1):
        while (reach + 1) ** 2 + step**2 <= (radius + 0.5) ** 2:
            reach += 1
            wide[:, reach:] |= padded[:, :-reach]
            wide[:, :-reach] |= padded[:, reach:]
        grown[step:] |= wide[: len(wide) - step]
        grown[: len(wide) - step] |= wide[step:]
    return grown


def draw_contour(canvas: np.ndarray, cut: Cut, width: int, color: Color) -> None:
    """Draw a region's contour: around it, and around its holes, on the outside.

    At the picture's edge there is no outside, so the contour runs inside along the edge, unless
    that would hide more than half of the region.

    Args:
        canvas: (H, W, 3) uint8, drawn on in place.
        cut: the region in pixels of the canvas.
        width: of the contour in pixels.
        color: of the contour.
    """
    height, columns = canvas.shape[:2]
    ring = grow(cut.mask, width)
    inner = ring[width:-width, width:-width]
    inner &= ~cut.mask
    edge = np.zeros_like(cut.mask)
    edge[: max(0, width - cut.y)] = edge[:, : max(0, width - cut.x)] = True
    edge[max(0, height - width - cut.y) :] = edge[:, max(0, columns - width - cut.x) :] = True
    edge &= cut.mask
    if 2 * np.count_nonzero(edge) <= np.count_nonzero(cut.mask):
        inner |= edge
    paint(canvas, Cut(cut.x - width, cut.y - width, ring), color)


def draw_box(canvas: np.ndarray, box: Box, gap: int, color: Color) -> None:
    """Draw a rectangle around a box onto a (H, W, 3) uint8 canvas, in place.

    Args:
        canvas: the picture.
        box: in pixels of the picture.
        gap: pixels between the box and the line; at the picture's edge the line is inside.
        color: of the line.
    """
    height, width = canvas.shape[:2]
    reach = gap + _BOX_WIDTH
    left, top = max(0, box.x - reach), max(0, box.y - reach)
    right, bottom = box.x + box.columns + reach, box.y + box.rows + reach
    outer = canvas[top : min(height, bottom), left : min(width, right)]
    outer[:_BOX_WIDTH] = outer[-_BOX_WIDTH:] = color
    outer[:, :_BOX_WIDTH] = outer[:, -_BOX_WIDTH:] = color


def number_color(index: int) -> Color:
    """The color of a number and its contour: blue for 0, the target, and for no other."""
    return BLUE if index == 0 else LOOK_ALIKE_COLORS[(index - 1) % len(LOOK_ALIKE_COLORS)]


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
    opacity, patch = Image.new("L", size, 255 if boxed else 0), Image.new("RGB", size, outline)
    for picture, fill, around in ((opacity, 255, 255), (patch, color, outline)):
        ImageDraw.Draw(picture).text(
            (-left, -top), text, fill=fill, font=font, stroke_width=stroke, stroke_fill=around
        )
    if boxed:
        ImageDraw.Draw(patch).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=color)
    return np.asarray(patch), np.asarray(opacity, np.float32)[..., None] / 255


def draw_number(canvas: np.ndarray, spot: Box, patch: np.ndarray, opacity: np.ndarray) -> None:
    """Draw a number's patch onto a (H, W, 3) uint8 canvas, in place; the edge may cut it."""
    below = canvas[spot.window]
    rows, columns = below.shape[:2]
    patch, opacity = patch[:rows, :columns], opacity[:rows, :columns]
    below[:] = np.rint(opacity * patch + (1 - opacity) * below)


def place_numbers(
    cuts: Sequence[Cut], sizes: Sequence[tuple[int, int]], height: int, width: int, gap: int
) -> list[Box]:
    """Choose the places of the numbers: the middle of the region, elsewhere only if necessary.

    A number is moved if it would cover more than `COVERED` of any region shown, overlap another
    number, or seem to belong to another region: a smaller one, or one without its region's middle.
    It takes the first place with none of these faults, else the one with the least: in the region,
    then beside it. Numbers of large regions are placed first.

    Args:
        cuts: the regions in pixels of the picture, in the order of their numbers.
        sizes: (columns, rows) of each number's patch.
        height, width: of the picture.
        gap: pixels between a region and a number beside it.
    """
    areas = [np.count_nonzero(cut.mask) for cut in cuts]
    middles = [middle(cut) for cut in cuts]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(cuts)), key=lambda index: -areas[index]):
        own = Box(*middles[index], 1, 1)
        others = [
            cut
            for cut, area in zip(cuts, areas, strict=True)
            if cut is not cuts[index] and (area < areas[index] or not cut.pixels_in(own))
        ]

        def faults(spot: Box, others: list[Cut] = others) -> float:
            shares = [cut.pixels_in(spot) / area for cut, area in zip(cuts, areas, strict=True)]
            hidden = sum(share for share in shares if share > COVERED)
            touched = sum(cut.pixels_in(spot) for cut in others)
            numbers = sum(spot.overlap(other) for other in placed.values())
            return hidden + (touched + 10 * numbers) / (spot.columns * spot.rows)

        place = (cuts[index], middles[index], sizes[index], height, width, gap)
        good = (spot for spot in _spots(*place) if not faults(spot))
        placed[index] = next(good, None) or min(_spots(*place), key=faults)
    return [placed[index] for index in range(len(cuts))]


def middle(cut: Cut) -> tuple[int, int]:
    """(x, y): the mean of a region's pixels, in pixels of the picture."""
    return int(cut.center[0]), int(cut.center[1])


def _spots(
    cut: Cut, center: tuple[int, int], size: tuple[int, int], height: int, width: int, gap: int
) -> Iterator[Box]:
    """Places for a number, the best first: the region's middle, elsewhere inside, beside it."""
    w, h = size

    def around(x: float, y: float) -> Box:
        left, top = round(x - w / 2), round(y - h / 2)
        return Box(max(0, min(left, width - w)), max(0, min(top, height - h)), w, h)

    yield around(*center)
    x, y, columns, rows = cut.box
    if rows > 2 * h and columns > 2 * w:  # room inside
        steps = (np.arange(_GRID) + 0.5) / _GRID
        points = [(int(u * columns), int(v * rows)) for v in steps for u in steps]
        points = [(u + x, v + y) for u, v in points if cut.mask[v, u]]
        for point in sorted(points, key=lambda point: math.dist(point, center)):
            yield around(*point)
    u, v = center
    for far in (0, 1, 2, 4):  # in heights of the number
        across, down = gap + w / 2 + far * h, gap + h / 2 + far * h
        right, left, above, below = x + columns + across, x - across, y - down, y + rows + down
        beside = around(right, v), around(left, v), around(u, above), around(u, below)
        # at the picture's edge there may be no room
        yield from (spot for spot in beside if not spot.overlap(cut.box))


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
        self._cut = lru_cache(_CACHED_MASKS)(lambda region_id: Cut.of(image[region_id]))

    def target_crop(self, region_id: RegionId) -> np.ndarray:
        """The target cropped, with all else blurred (Table 7, Image-2): (h, w, 3) uint8."""
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
        target, as_published = self._cut(region_id), self.settings.context_blur == "main_object"
        around = main_object_id if as_published else parent_id
        if around is None:
            canvas = (self._shown if as_published else self._shown_blurred).copy()
            shown = self._whole.mapped(target)
            paint(canvas, shown, self._shown)
        else:
            context = self._cut(around)
            frame = self._frame([context, target])  # a part may reach out of its parent
            canvas = frame.resized(self._blurred_around(frame, context if as_published else target))
            shown = frame.mapped(target)
        self._contour(canvas, shown)
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
        """
        cuts = [self._cut(member) for member in (region_id, *look_alike_ids)]
        frame = self._frame(cuts) if self.settings.look_alike_frame == "crop" else self._whole
        canvas = frame.resized(self._photo[frame.box.window].copy())
        cuts = [frame.mapped(cut) for cut in cuts]
        height, width = canvas.shape[:2]
        pixels = max(_LEAST_HEIGHT, round(NUMBER_HEIGHT * max(height, width)))
        boxed, line = self.settings.numbers == "boxes", self.settings.contour_width
        patches = [number_patch(index, pixels, boxed) for index in range(len(cuts))]
        sizes = [patch.shape[1::-1] for patch, _ in patches]
        spots = place_numbers(cuts, sizes, height, width, line + 2 + boxed * _BOX_WIDTH)
        # the target comes last, over the others; all numbers come over all contours
        for index in reversed(range(len(cuts))):
            self._contour(canvas, cuts[index], number_color(index))
            if boxed:
                draw_box(canvas, cuts[index].box, line + 1, number_color(index))
        for index in reversed(range(len(cuts))):
            draw_number(canvas, spots[index], *patches[index])
        return canvas

    def _frame(self, cuts: Sequence[Cut]) -> Frame:
        boxes = [cut.box for cut in cuts]
        return frame_of(boxes, self.image.height, self.image.width, self.settings)

    def _blurred_around(self, frame: Frame, cut: Cut) -> np.ndarray:
        """(rows, columns, 3) of the frame in photo pixels: sharp in the mask, blurred elsewhere."""
        canvas, box = self._blurred[frame.box.window].copy(), frame.box
        paint(canvas, Cut(cut.x - box.x, cut.y - box.y, cut.mask), self._photo[box.window])
        return canvas

    def _contour(self, canvas: np.ndarray, cut: Cut, color: Color | None = None) -> None:
        color = color or self.settings.contour_color
        draw_contour(canvas, cut, self.settings.contour_width, color)


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
    """
    if stage == "unique":
        return [views.numbered(region_id, context.look_alikes)]
    if stage == "long":
        return [views.contoured_image(region_id)]
    crop = views.target_crop(region_id)
    if stage == "verify":
        return [views.contoured_image(region_id), crop]
    *_, main_object = [None, *tree.ancestors(region_id)]
    return [views.contoured_parent(region_id, tree.parent(region_id), main_object), crop]
