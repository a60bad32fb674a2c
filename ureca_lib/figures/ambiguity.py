"""A caption that several regions fit, and one that a single region fits (after Fig. 5)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ureca_lib.figures.outlines import anchor_point, draw_outline, draw_photo
from ureca_lib.figures.page import Box, Page, broken, lines_height
from ureca_lib.figures.style import FAINT, PAGE_WIDTH, RIGHT_COLOUR, WRONG_COLOUR
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage

_GAP, _PAD = 0.2, 0.07  # inches, between the panels and inside a caption's frame
_LEAD = 0.26  # inches between caption and photo
_BODY, _SMALL = 8.0, 6.5  # points
_TALLEST = 3.2  # inches of a photo
_MOST_ARROWS = 8


def ambiguity_figure(
    regions: RegionImage,
    target: RegionId,
    ambiguous: tuple[str, Collection[RegionId]],
    unique: tuple[str, Collection[RegionId]],
) -> Figure:
    """The same region under two captions, each with arrows to all regions that it fits.

    A full green arrow leads to the region that is meant, dashed red ones to the others; where there
    are too many of those, they are outlined only.

    Args:
        regions: with the photo.
        target: the region that both captions are about.
        ambiguous: a caption, and the ids of all regions that it fits.
        unique: another caption, and the ids of all that it fits.

    Raises:
        ValueError: a caption that fits no region.
    """
    page = Page()
    width = (PAGE_WIDTH - _GAP) / 2
    shown = min(width, _TALLEST * regions.width / regions.height)
    said = [broken(f"“{text}”", width - 2 * _PAD, _BODY, True) for text, _ in (ambiguous, unique)]
    head = max(lines_height(len(lines), _BODY) for lines in said) + 2 * _PAD
    for left, (text, fitting) in zip((0, width + _GAP), (ambiguous, unique), strict=True):
        if not fitting:
            raise ValueError(f"{text!r} fits no region, so there is nothing to point at")
        photo = Box(
            left + (width - shown) / 2,
            0.03 + head + _LEAD,
            shown,
            shown * regions.height / regions.width,
        )
        frame = Box(left, 0.03, width, head)
        _caption(page, text, frame, len(fitting) == 1)
        ordered = sorted(fitting, key=lambda one: one == target)  # the target last, on top
        page.picture(photo, partial(_draw, regions, target, ordered))
        for region_id in ordered if len(ordered) <= _MOST_ARROWS else [target]:
            page.draw(_arrow(regions, region_id, region_id == target, frame, photo))
        count = len(fitting)
        told = "fits 1 region of the image" if count == 1 else f"fits {count} regions of the image"
        style = {"align": "center", "color": FAINT}
        page.text(left, photo.bottom + 0.05, told, width, _SMALL, **style)
    return page.figure()


def shared_name(regions: RegionImage, most: int = _MOST_ARROWS) -> list[RegionId]:
    """Regions of an image that share one name: those that a caption of that name alone fits.

    Args:
        regions: with names.
        most: how many may share it.

    Returns:
        Of the names that 2 to `most` regions share, the ids of the one whose regions are largest,
        largest first.

    Raises:
        ValueError: no name is shared so.
    """
    named: dict[str, list[Region]] = {}
    for region in regions:
        if region.name:
            named.setdefault(region.name, []).append(region)
    shared = [group for group in named.values() if 2 <= len(group) <= most]
    if not shared:
        raise ValueError(f"no name of {regions.file_name or 'the image'} is shared by regions")
    group = max(shared, key=lambda group: min(region.area for region in group))
    return [region.id for region in sorted(group, key=lambda region: -region.area)]


def _caption(page: Page, text: str, frame: Box, right: bool) -> None:
    colour = RIGHT_COLOUR if right else WRONG_COLOUR
    style = {"boxstyle": "round,pad=0,rounding_size=0.05", "linewidth": 1.2}
    corner, size = (frame.left + 0.01, frame.top), (frame.width - 0.02, frame.height)
    patch = FancyBboxPatch(corner, *size, facecolor="white", edgecolor=colour, **style)
    page.draw(lambda ax: ax.add_patch(patch), above=False)
    quoted, room = f"“{text}”", frame.width - 2 * _PAD
    spare = frame.height - lines_height(len(broken(quoted, room, _BODY, True)), _BODY)
    place = (frame.left + _PAD, frame.top + spare / 2)
    page.text(*place, quoted, room, _BODY, align="center", fontweight="bold")


def _draw(regions: RegionImage, target: RegionId, fitting: list[RegionId], ax: Axes) -> None:
    draw_photo(ax, regions.pixels, [regions[one] for one in fitting])
    for one in fitting:
        right = one == target
        draw_outline(ax, regions[one], RIGHT_COLOUR if right else WRONG_COLOUR, 1.4)


def _arrow(
    regions: RegionImage, region_id: RegionId, right: bool, frame: Box, photo: Box
) -> Callable[[Axes], None]:
    scale = photo.width / regions.width
    x, y = anchor_point(regions[region_id])
    stop = (photo.left + x * scale, photo.top + y * scale)
    # each leaves the caption above its own region, as far as the caption reaches
    middle = frame.left + frame.width / 2
    start = (middle + 0.6 * (stop[0] - middle), frame.bottom + 0.015)
    style = {
        "arrowstyle": "-|>",
        "mutation_scale": 9,
        "linewidth": 1.5,
        "color": RIGHT_COLOUR if right else WRONG_COLOUR,
        "zorder": 4 if right else 3,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    casing = style | {"color": "white", "linewidth": 3.2, "arrowstyle": "-"}
    casing |= {"shrinkB": 7, "capstyle": "butt"}

    def draw(ax: Axes) -> None:
        ax.add_patch(FancyArrowPatch(start, stop, **casing))
        dashes = "-" if right else (0, (3, 1.5))
        ax.add_patch(FancyArrowPatch(start, stop, linestyle=dashes, **style))

    return draw
