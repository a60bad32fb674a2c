"""Regions of several images with their captions: what a data set holds (after Fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.figures.outlines import close_up, draw_outline, draw_photo
from ureca_lib.figures.page import Box, Page
from ureca_lib.figures.style import FAINT, PAGE_WIDTH
from ureca_lib.figures.teaser import spread_over_levels
from ureca_lib.regions import Region

_GAP = 0.12  # inches between panels
_HEAD, _BODY = 6.0, 7.0  # points
_MOST_LINES = 12  # of a caption
_SHAPE = 0.75  # height of a picture, as a share of its width
_TINY = 0.02  # share of the image below which a region also gets a close-up
_INSET = 0.4  # side of the close-up, as a share of the picture's height


@dataclass(frozen=True)
class Example:
    """A region of an image, its caption, and a line above it, such as where it is from.

    Args:
        image: (H, W, 3) uint8.
        region: of the image.
        caption: its text.
        head: one line; it is cut where it is too long.
    """

    image: np.ndarray
    region: Region
    caption: str
    head: str = ""


def examples_figure(examples: Sequence[Example], columns: int = 4) -> Figure:
    """One panel a region: the whole image with the region in full light, its caption below.

    A region smaller than 2% of its image is shown a second time, magnified, in the corner that is
    farthest from it.

    Args:
        examples: in rows from left to right.
        columns: panels a row, 1 to 6.

    Raises:
        ValueError: no examples, or columns out of range.
    """
    if not examples or not 1 <= columns <= 6:
        raise ValueError(f"{len(examples)} examples in {columns} columns: need some, in 1 to 6")
    page = Page()
    width = (PAGE_WIDTH - (columns - 1) * _GAP) / columns
    top = 0.02
    for start in range(0, len(examples), columns):
        bottoms = []
        for place, example in enumerate(examples[start : start + columns]):
            bottoms.append(_panel(page, example, place * (width + _GAP), top, width))
        top = max(bottoms) + _GAP
    return page.figure()


def spread_examples(works: Mapping[str, AnnotatedImage], count: int = 8) -> list[Example]:
    """Examples of several annotated images, as evenly as can be, and of their different levels.

    Args:
        works: finished images by name.
        count: of examples, at most.

    Returns:
        Image by image; each says its image's name, its level and its share of the image.
    """
    found: list[Example] = []
    for number, (name, work) in enumerate(works.items()):
        texts = {region_id: text for region_id, text in work.captions.items() if text}
        share = count // len(works) + (number < count % len(works))
        for region_id in spread_over_levels(work.tree, list(texts), 2 * share)[1::2]:
            region = work.image[region_id]
            covered = 100 * region.area / (work.image.width * work.image.height)
            head = f"{name} · level {work.tree.depth(region_id)} · {covered:.2g}%"
            found.append(Example(work.image.pixels, region, texts[region_id], head))
    return found


def _panel(page: Page, example: Example, left: float, top: float, width: float) -> float:
    """Draws a panel; the inches down to its end."""
    rows, columns = example.image.shape[:2]
    place = Box(left, top, width, width * _SHAPE)
    shown = min(place.width, place.height * columns / rows)
    tall = shown * rows / columns
    picture = Box(left + (width - shown) / 2, top + place.height - tall, shown, tall)
    page.picture(picture, partial(_draw_whole, example))
    if example.region.area < _TINY * rows * columns:
        page.picture(_corner(example, picture), partial(_draw_close, example), order=2)
    bottom = place.bottom + 0.05
    if example.head:
        head = page.text(left, bottom, example.head, width, _HEAD, most=1, color=FAINT)
        bottom = head.bottom + 0.025
    return page.text(left, bottom, example.caption, width, _BODY, _MOST_LINES).bottom


def _corner(example: Example, picture: Box) -> Box:
    """The corner of the picture that is farthest from the region."""
    x, y, columns, rows = example.region.pixel_box
    height, width = example.region.size
    side = _INSET * picture.height
    left = picture.left if x + columns / 2 > width / 2 else picture.right - side
    top = picture.top if y + rows / 2 > height / 2 else picture.bottom - side
    return Box(left, top, side, side)


def _draw_whole(example: Example, ax: Axes) -> None:
    draw_photo(ax, example.image, [example.region])
    draw_outline(ax, example.region)


def _draw_close(example: Example, ax: Axes) -> None:
    draw_photo(ax, example.image)
    close_up(ax, example.region, context=0.3)
    draw_outline(ax, example.region, width=1.0)
    ax.axis("on")
    for spine in ax.spines.values():
        spine.set(color="white", linewidth=1.2)
