"""The project in one picture: regions of one photo at several granularities, and their captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ureca_lib.figures.outlines import anchor_point, draw_outline, draw_photo
from ureca_lib.figures.page import Box, Page
from ureca_lib.figures.style import PAGE_WIDTH, PALETTE
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage

_GAP = 0.14  # inches between columns
_NUMBER = 0.17  # inches that the number before a caption takes
_BADGE = 0.09  # inches: radius of a number on the photo
_FILL = 0.28  # opacity of a region's color
_HEAD, _BODY = 9.0, 8.0  # points


@dataclass(frozen=True)
class OverviewColumn:
    """A column of the overview: regions of one granularity.

    Attributes:
        title: above the photo.
        ids: of the regions, in the order of their captions.
        view: (x, y, width, height) of the part of the photo to show; None shows all of it.
    """

    title: str
    ids: Sequence[RegionId]
    view: tuple[int, int, int, int] | None = None


def overview_figure(
    regions: RegionImage, captions: Mapping[RegionId, str], columns: Sequence[OverviewColumn]
) -> Figure:
    """Draw the photo once per column with numbered regions, and their captions below.

    Args:
        regions: with the photo.
        captions: text by region id.
        columns: from coarse to fine.
    """
    page = Page()
    width = (PAGE_WIDTH - _GAP * (len(columns) - 1)) / len(columns)
    number = 1
    for place, column in enumerate(columns):
        left = place * (width + _GAP)
        box = page.text(left, 0.02, column.title, width, _HEAD, fontweight="bold")
        _, _, w, h = column.view or (0, 0, regions.width, regions.height)
        picture = Box(left, box.bottom + 0.06, width, width * h / w)
        shown = {number + i: regions[region_id] for i, region_id in enumerate(column.ids)}
        box = page.picture(picture, partial(_draw, regions.pixels, shown, column.view))
        top = box.bottom + 0.09
        for number, region in shown.items():
            style = {"color": _color(number), "fontweight": "bold"}
            page.text(left, top, str(number), _NUMBER, _BODY, align="center", **style)
            text_left = left + _NUMBER + 0.05
            box = page.text(text_left, top, captions[region.id], left + width - text_left, _BODY)
            top = box.bottom + 0.05
        number += 1
    return page.figure()


def _color(number: int) -> str:
    return PALETTE[(number - 1) % (len(PALETTE) - 1)]  # the last one, yellow, is faint on white


def _draw(
    image: np.ndarray,
    shown: Mapping[int, Region],
    view: tuple[int, int, int, int] | None,
    ax: Axes,
) -> None:
    """A photo with the regions outlined and tinted, each with its number."""
    tinted = image.astype(np.float32)
    for number, region in sorted(shown.items(), key=lambda item: -item[1].area):
        color = np.array(to_rgb(_color(number))) * 255
        tinted[region.mask] = (1 - _FILL) * image[region.mask] + _FILL * color
    draw_photo(ax, tinted.astype(np.uint8))
    if view is not None:
        x, y, width, height = view
        ax.set_xlim(x - 0.5, x + width - 0.5)
        ax.set_ylim(y + height - 0.5, y - 0.5)
    pixels = abs(np.diff(ax.get_xlim())[0]) / (ax.get_window_extent().width / ax.figure.dpi)
    for number, region in sorted(shown.items(), key=lambda item: -item[1].area):
        draw_outline(ax, region, _color(number), 1.4)
    least = 2.4 * _BADGE * pixels
    small = [region for region in shown.values() if min(region.pixel_box[2:]) < least]
    for number, region in shown.items():
        inside = [other for other in shown.values() if other.area < region.area]
        x, y = anchor_point(region, inside)
        if region in small:  # its number would hide it, so that it stands beside
            near = [_middle(other) for other in small if other is not region]
            here = _middle(region)
            nearest = min(near, key=lambda place: np.hypot(*(place - here)), default=here - 1)
            left, _, columns, _ = region.pixel_box
            away = 1.5 * _BADGE * pixels
            x = left - away if nearest[0] > here[0] else left + columns + away
        text = {"color": "white", "fontsize": 7, "fontweight": "bold", "ha": "center"}
        circle = {"boxstyle": "circle,pad=0.22", "fc": _color(number), "ec": "white", "lw": 0.8}
        ax.text(x, y, str(number), va="center_baseline", bbox=circle, zorder=9, **text)


def _middle(region: Region) -> np.ndarray:
    x, y, columns, rows = region.pixel_box
    return np.array([x + columns / 2, y + rows / 2])
