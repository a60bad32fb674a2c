"""What dynamic masks change: a small region's mask with and without, accuracy by size (Fig. 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ureca_lib.figures.outlines import close_up, draw_edge
from ureca_lib.figures.page import Box, Page
from ureca_lib.figures.style import FAINT, INK, PAGE_WIDTH, PALETTE, TARGET_COLOUR
from ureca_lib.figures.tiles import masks_kept
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage
from ureca_lib.tiling import MAX_TILES

_MARKS = "osD^v"
_PANEL, _GAP = 1.22, 0.08  # inches
_CHART_LEFT, _CHART_BELOW = 0.5, 0.5  # inches left of and below the chart, for its labels
_HEAD, _SMALL = 7.5, 6.5  # points


class Value(Protocol):
    """A measured value; `ureca_lib.evaluate.scores.Score` is one."""

    @property
    def value(self) -> float | None: ...  # a share, 0 to 1; None where it was not measured

    @property
    def low(self) -> float | None: ...  # of its interval

    @property
    def high(self) -> float | None: ...

    @property
    def count(self) -> int: ...  # captions behind it


def dynamic_mask_figure(
    regions: RegionImage,
    region_id: RegionId,
    curves: Mapping[str, Mapping[str, Value]],
    what: str = "exact match, %",
    max_tiles: int = MAX_TILES,
    tile_size: int = 448,
) -> Figure:
    """A region's mask as it is, as one resized mask and as tiles; and what that does to captions.

    Args:
        regions: with the photo.
        region_id: of the region that is shown close up.
        curves: by the system's name, what was measured by size; sizes are named and in order, the
            smallest first, and are those of all systems (such as `measure_exact(...).by_size`).
            Without any, the right half is left out.
        what: the axis' label.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.

    Raises:
        ValueError: more systems than marks.
    """
    if len(curves) > len(_MARKS):
        raise ValueError(f"at most {len(_MARKS)} curves, not {len(curves)}")
    page = Page(PAGE_WIDTH if curves else 3 * _PANEL + 2 * _GAP)
    bottom = _close_ups(page, regions, region_id, max_tiles, tile_size)
    if curves:
        left = 3 * (_PANEL + _GAP) + _CHART_LEFT
        sizes = list(dict.fromkeys(size for curve in curves.values() for size in curve))
        chart = Box(left, 0.1, PAGE_WIDTH - left - 0.03, max(bottom, 2.0) - 0.1 - _CHART_BELOW)
        page.chart(chart, partial(_draw_curves, curves, sizes, what), bottom=max(bottom, 2.0))
    return page.figure()


def most_changed(
    regions: RegionImage, max_tiles: int = MAX_TILES, tile_size: int = 448
) -> RegionId:
    """The id of the region whose IoU tiling raises most over one resized mask.

    Args:
        regions: of one image.
        max_tiles: as `tile_masks` takes it.
        tile_size: side of a tile in pixels.
    """
    kept = [masks_kept(regions.regions, most, tile_size)[2] for most in (max_tiles, 1)]
    return regions.regions[int((kept[0] - kept[1]).argmax())].id


def _close_ups(
    page: Page, regions: RegionImage, region_id: RegionId, max_tiles: int, tile_size: int
) -> float:
    """The three panels; the inches down to their end."""
    region = regions[region_id]
    kept = [masks_kept([region], most, tile_size) for most in (1, max_tiles)]
    masks = [region.mask, *(masks[0] for masks, _, _ in kept)]
    share = 100 * region.area / (regions.width * regions.height)
    notes = [(f"{region.area} pixels", f"{share:.2g}% of the image")]
    notes += [(f"{left[0]} pixels in the mask", f"IoU {iou[0]:.2f}") for _, left, iou in kept]
    titles = ("the region", f"one mask, {tile_size} × {tile_size}", "dynamic mask (tiles)")
    for number, (title, mask, note) in enumerate(zip(titles, masks, notes, strict=True)):
        left = number * (_PANEL + _GAP)
        centered = {"align": "center", "most": 1}
        head = page.text(left, 0.03, title, _PANEL, _HEAD, **centered)
        box = Box(left, head.bottom + 0.05, _PANEL, _PANEL)
        page.picture(box, partial(_draw_mask, regions.pixels, mask, region))
        bottom = box.bottom
        for line in note:
            style = centered | {"color": FAINT}
            bottom = page.text(left, bottom + 0.04, line, _PANEL, _SMALL, **style).bottom
    return bottom


def _draw_mask(image: np.ndarray, mask: np.ndarray, region: Region, ax: Axes) -> None:
    """The photo in grey, what is kept of the mask over it in colour, its true edge on top."""
    shown = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) / 255 * 0.75
    shown[mask] = 0.3 * shown[mask] + 0.7 * np.array(to_rgb(TARGET_COLOUR))
    ax.imshow(shown, aspect="auto", interpolation="nearest")
    ax.axis("off")
    close_up(ax, region, context=0.12)
    # thin and on the very edge: what lies inside it is what the picture is about
    draw_edge(ax, region, "white", 0.6)


def _draw_curves(
    curves: Mapping[str, Mapping[str, Value]], sizes: Sequence[str], what: str, ax: Axes
) -> None:
    apart = 0.12
    for number, (name, curve) in enumerate(curves.items()):
        known = [place for place, size in enumerate(sizes) if _measured(curve.get(size))]
        values = np.array([curve[sizes[place]].value for place in known])
        bounds = [(curve[sizes[place]].low, curve[sizes[place]].high) for place in known]
        # intervals are left out where they are not known, as with a single image
        down = [0 if low is None else v - low for v, (low, _) in zip(values, bounds, strict=True)]
        up = [0 if high is None else high - v for v, (_, high) in zip(values, bounds, strict=True)]
        x = np.array(known) + (number - (len(curves) - 1) / 2) * apart
        style = {"color": PALETTE[number], "marker": _MARKS[number], "ms": 4, "lw": 1.2}
        style |= {"elinewidth": 0.8, "capsize": 2, "clip_on": False}
        errors = 100 * np.clip([down, up], 0, None)
        ax.errorbar(x, 100 * values, errors, label=name, **style)
    counts = _counts(curves, sizes)
    labels = [f"{_short(size)}\n({counts[size]})" for size in sizes]
    ax.set_xticks(range(len(sizes)), labels, fontsize=6)
    ax.set_xlim(-0.5, len(sizes) - 0.5)
    # shares end at 100, and where all is nothing, nothing is magnified
    ax.set_ylim(0, min(max(5, ax.get_ylim()[1]), 104))
    ax.set_xlabel("share of the image, % (regions)", fontsize=7, color=INK)
    ax.set_ylabel(what, fontsize=7, color=INK)
    ax.tick_params(labelsize=6, length=2.5)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=6.5, frameon=False, loc="best", handlelength=1.6)


def _measured(value: Value | None) -> bool:
    return value is not None and value.value is not None


def _counts(curves: Mapping[str, Mapping[str, Value]], sizes: Sequence[str]) -> dict[str, str]:
    """How many captions are behind each size; a range where systems differ."""
    told = {}
    for size in sizes:
        found = {curve[size].count for curve in curves.values() if size in curve}
        told[size] = str(min(found)) if len(found) == 1 else f"{min(found)}–{max(found)}"
    return told


def _short(size: str) -> str:
    """`0.1% to 0.7%` as `0.1–0.7`, which fits under a chart."""
    bare = size.replace("%", "")
    return bare.replace(" to ", "–").replace("below ", "< ").replace("from ", "≥ ")
