"""Draw the README's picture: `python data_samples/overview.py` writes `overview.jpg` here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ureca_lib
from ureca_lib.figures.outlines import anchor_point, draw_outline, draw_photo
from ureca_lib.figures.style import HEAD, PAGE_WIDTH, PALETTE, fitted, sheet, text_height, write
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage

HERE = Path(__file__).resolve().parent


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
    gap, indent, whole = 0.14, 0.22, (0, 0, regions.width, regions.height)
    width = (PAGE_WIDTH - gap * (len(columns) - 1)) / len(columns)
    views = [column.view or whole for column in columns]
    texts = {i: fitted(captions[i], width - indent, HEAD) for c in columns for i in c.ids}
    below = max(sum(text_height(texts[i], HEAD) + 0.05 for i in c.ids) for c in columns)
    picture = max(width * height / wide for _, _, wide, height in views)
    heights = [0.27, picture, below + 0.12]
    figure, grid = sheet([width] * len(columns), heights, gap)
    numbers = count(1)
    for (head, ax, text), column, (x, y, wide, tall) in zip(grid.T, columns, views, strict=True):
        write(head, column.title, HEAD + 1, down=0.03, fontweight="bold")
        ax.set_anchor("N")
        shown = {next(numbers): regions[region_id] for region_id in column.ids}
        _draw_numbered(ax, regions.pixels, shown, (x, y, x + wide, y + tall))
        down = 0.09
        for number, region in shown.items():
            style = {"color": _number_color(number), "fontweight": "bold"}
            write(text, str(number), HEAD, down=down, right=0.03, **style)
            down = write(text, texts[region.id], HEAD, down=down, right=indent) + 0.05
    return figure


def _number_color(number: int) -> str:
    return PALETTE[(number - 1) % (len(PALETTE) - 1)]  # the last one, yellow, is faint on white


def _draw_numbered(
    ax: Axes, image: np.ndarray, shown: Mapping[int, Region], view: tuple[float, ...]
) -> None:
    """Draw a part of a photo with regions outlined and tinted, each with its number."""
    ordered = sorted(shown.items(), key=lambda item: -item[1].area)
    tints = ((region.mask, _number_color(number), 0.28) for number, region in ordered)
    draw_photo(ax, image, view=view, tints=tints)
    # pixels of the photo that a number's badge takes
    badge = 0.09 * (view[2] - view[0]) / (ax.get_window_extent().width / ax.figure.dpi)
    for number, region in ordered:
        draw_outline(ax, region, _number_color(number))
        x, y = anchor_point(region, [one for one in shown.values() if one.area < region.area])
        left, _, wide, high = region.pixel_box
        if min(wide, high) < 2.4 * badge:  # its number would hide it, so it stands beside
            here, others = _middle(region), [_middle(o) for o in shown.values() if o is not region]
            nearest = min(others, key=lambda at: np.hypot(*(at - here)), default=here)
            x = left - 1.5 * badge if nearest[0] > here[0] else left + wide + 1.5 * badge
        circle = {"boxstyle": "circle,pad=0.22", "fc": _number_color(number), "ec": "white"}
        style = {"fontsize": 7, "fontweight": "bold", "ha": "center", "va": "center_baseline"}
        ax.text(x, y, str(number), color="white", bbox=circle | {"lw": 0.8}, zorder=9, **style)


def _middle(region: Region) -> np.ndarray:
    """(x, y) of the middle of a region's box."""
    x, y, columns, rows = region.pixel_box
    return np.array([x + columns / 2, y + rows / 2])


COLUMNS = (
    OverviewColumn("Objects", (1, 100, 60, 80, 72)),
    OverviewColumn("Parts", (102, 103, 26, 27, 32)),
    OverviewColumn("Parts of parts", (5, 6, 37, 36), (60, 55, 375, 375)),
)


def main() -> None:
    """Caption the astronaut's photo and draw some of its regions."""
    matplotlib.use("Agg")
    captions = ureca_lib.caption(HERE / "photos" / "astronaut.png")
    texts = {row.region_id: row.text for row in captions}
    figure = overview_figure(captions.regions, texts, COLUMNS)
    # a photo in PNG is four times as large
    figure.savefig(HERE / "overview.jpg", dpi=260, pil_kwargs={"quality": 90, "subsampling": 0})


if __name__ == "__main__":
    main()
