"""What a caption's words attend to: over the photo, over mask tiles, and by kind of token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ureca_lib.figures.architecture import KIND_COLOURS
from ureca_lib.figures.outlines import draw_outline, draw_photo
from ureca_lib.figures.page import Box, Page, broken, text_width
from ureca_lib.figures.style import FAINT, INK, PAGE_WIDTH
from ureca_lib.inspection import KINDS, CaptionAttention
from ureca_lib.regions import Region

_ACROSS, _GAP = 5, 0.08  # panels in a row, and inches between them
_TALLEST = 1.6  # inches of a panel
_HEAD, _SMALL = 7.5, 6.5  # points
_CHART = 1.25  # inches, height of the charts
_BESIDE, _MOST_WORDS = 18, 60  # words that charts side by side have room for, and that any have
_LEAST_PEAK = 3.0  # times even attention that is as bright as can be, so that little looks little
_LONGEST = 0.9  # inches of a word under a chart
_HEAT = colormaps["inferno"]
_DASHES = (0, (2, 1))
# words that say what stands between things, not what things are like
_SMALL_WORDS = frozenset(
    ["a", "an", "and", "are", "at", "by", "for", "has", "in", "is", "it", "of", "on", "the", "to"]
)


def attention_figure(
    image: np.ndarray, region: Region, found: CaptionAttention, most: int = 9
) -> Figure:
    """Where each word looks in the photo, how much at mask, image and text, and at which mask tile.

    Args:
        image: (H, W, 3) uint8.
        region: that the caption is of.
        found: of `caption_attention` on that image and region.
        most: how many words get a picture; words such as "of" get none while others are left.
            The charts have the caption's first 60 words.
    """
    found = _first_words(found)
    page = Page()
    told = page.text(0, 0.03, f"“{found.caption}”", PAGE_WIDTH, _HEAD, 3, fontweight="bold")
    bottom = _pictures(page, image, region, found, _telling(found.words, most), told.bottom + 0.08)
    _charts(page, found, bottom + 0.16)
    return page.figure()


def _first_words(found: CaptionAttention) -> CaptionAttention:
    """As many words as the charts have room for."""
    names = ("words", "shares", "even", "image", "mask")
    return replace(found, **{name: getattr(found, name)[:_MOST_WORDS] for name in names})


def _telling(words: Sequence[str], most: int) -> list[int]:
    """Which words get a picture, in their order."""
    bare = [word.strip(".,;:!?").lower() for word in words]
    order = sorted(range(len(words)), key=lambda n: (bare[n] in _SMALL_WORDS, n))
    return sorted(order[:most])


def _pictures(
    page: Page,
    image: np.ndarray,
    region: Region,
    found: CaptionAttention,
    chosen: Sequence[int],
    top: float,
) -> float:
    """The region, then a picture a word; the inches down to their end."""
    width = (PAGE_WIDTH - (_ACROSS - 1) * _GAP) / _ACROSS
    height = min(_TALLEST, width * image.shape[0] / image.shape[1])
    shown = height * image.shape[1] / image.shape[0]
    times = _times_even(found)[chosen]
    brightest = max(float(times.max()), _LEAST_PEAK)
    panels = [("the region", partial(_draw_region, image, region))]
    panels += [
        (found.words[n], partial(_draw_word, image, region, heat / brightest))
        for n, heat in zip(chosen, times, strict=True)
    ]
    bottom = top
    for number, (title, draw) in enumerate(panels):
        left = number % _ACROSS * (width + _GAP)
        if number and number % _ACROSS == 0:
            top = bottom + _GAP
        style = {"align": "center", "most": 1}
        head = page.text(left, top, title, width, _HEAD, **style)
        box = Box(left + (width - shown) / 2, head.bottom + 0.03, shown, height)
        page.picture(box, draw)
        bottom = box.bottom
    told = f"dark: no attention; brightest: {brightest:.2g} times what even attention would give"
    return page.text(0, bottom + 0.04, told, PAGE_WIDTH, _SMALL, color=FAINT).bottom


def _times_even(found: CaptionAttention) -> np.ndarray:
    """(W, rows, columns) attention to each place, as a multiple of what an even one would be."""
    places = found.image[0].size
    return found.image * places / np.maximum(found.even[:, 1, None, None], 1e-12)


def _draw_region(image: np.ndarray, region: Region, ax: Axes) -> None:
    draw_photo(ax, image, [region])
    draw_outline(ax, region)


def _draw_word(image: np.ndarray, region: Region, heat: np.ndarray, ax: Axes) -> None:
    """Attention as colour and opacity over the photo in grey; black is none."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    draw_photo(ax, grey // 3 + 20)
    layer = _HEAT(0.25 + 0.75 * heat)
    layer[..., 3] = np.sqrt(heat) * 0.9
    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(layer, extent=extent, aspect="auto", interpolation="nearest")
    draw_outline(ax, region, "white", 0.9)


def _charts(page: Page, found: CaptionAttention, top: float) -> None:
    """Side by side, or below each other where there are many words."""
    longest = max(text_width(word, _SMALL) for word in _labels(found.words))
    below = 0.14 + longest * 0.75  # words stand slanted
    left, right = 0.45, 0.45  # for the charts' labels
    room = PAGE_WIDTH - left - right
    many = len(found.words) > _BESIDE
    width = room if many else room * 0.56 - 0.25
    _legend(page, left, top)
    shares = Box(left, top + 0.2, width, _CHART)
    page.chart(shares, partial(_draw_shares, found), bottom=shares.bottom + below)
    if many:
        title, tiles = shares.bottom + below + 0.1, Box(left, 0, width, _CHART)
    else:
        title, tiles = top, Box(left + room * 0.56 + 0.3, 0, room * 0.44 - 0.3, _CHART)
    told = "attention to mask tokens by mask tile, %"
    page.text(tiles.left, title, told, tiles.width + right, _SMALL, most=1)
    tiles = tiles._replace(top=title + 0.2)
    page.chart(tiles, partial(_draw_tiles, found), bottom=tiles.bottom + below)


def _labels(words: Sequence[str]) -> list[str]:
    """Words as they stand under a chart; what no language has is cut."""
    return [broken(word, _LONGEST, _SMALL, most=1)[0] for word in words]


def _legend(page: Page, left: float, top: float) -> None:
    x = left
    for kind in KINDS:
        patch = Rectangle((x, top + 0.015), 0.09, 0.09, color=KIND_COLOURS[kind], lw=0)
        page.draw(partial(_add, patch))
        name = f"{kind} tokens"
        page.text(x + 0.13, top, name, 1, _SMALL)
        x += 0.28 + text_width(name, _SMALL)
    page.draw(lambda ax: ax.plot([x, x + 0.14], [top + 0.06] * 2, color=INK, lw=0.9, ls=_DASHES))
    page.text(x + 0.19, top, "if even", 1, _SMALL)


def _add(patch: Rectangle, ax: Axes) -> None:
    ax.add_patch(patch)


def _draw_shares(found: CaptionAttention, ax: Axes) -> None:
    """A bar a word; the dashed steps are where its parts would end if attention were even."""
    x, start = np.arange(len(found.words)), np.zeros(len(found.words))
    even = np.zeros(len(found.words))
    for number, kind in enumerate(KINDS):
        part = 100 * found.shares[:, number]
        ax.bar(x, part, 0.75, start, color=KIND_COLOURS[kind], linewidth=0)
        start, even = start + part, even + 100 * found.even[:, number]
        if number < len(KINDS) - 1:
            ax.hlines(even, x - 0.45, x + 0.45, colors=INK, lw=0.9, ls=_DASHES)
    ax.set_ylim(0, 100)
    ax.set_ylabel("attention, %", fontsize=_SMALL, color=INK)
    _word_axis(ax, found.words)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_tiles(found: CaptionAttention, ax: Axes) -> None:
    """Mask tiles down, words across; tiles that hold a part of the region are named in bold."""
    values = (found.mask / np.maximum(found.mask.sum(1, keepdims=True), 1e-12)).T  # (M, W)
    top = max(float(values.max()), min(1, _LEAST_PEAK / len(values)))
    style = {"cmap": "viridis", "vmin": 0, "vmax": 100 * top, "interpolation": "nearest"}
    shown = ax.imshow(100 * values, aspect="auto", **style)
    count = len(values)
    names = [str(number) for number in range(1, count + 1)]
    if count > 1:
        names[-1] = "whole"
    ax.set_yticks(range(count), names)
    _word_axis(ax, found.words)
    for label, tile in zip(ax.get_yticklabels(), found.mask_tiles, strict=True):
        if tile.any():
            label.set_fontweight("bold")
    inch = ax.figure.dpi / ax.get_window_extent().width  # as a share of the chart's width
    bar = ax.figure.colorbar(shown, cax=ax.inset_axes((1 + 0.08 * inch, 0, 0.09 * inch, 1)))
    bar.ax.tick_params(labelsize=6, length=2)
    bar.outline.set_visible(False)


def _word_axis(ax: Axes, words: Sequence[str]) -> None:
    style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor", "parse_math": False}
    ax.set_xticks(range(len(words)), _labels(words), **style)
    ax.set_xlim(-0.5, len(words) - 0.5)
    ax.tick_params(labelsize=6, length=2, colors=INK)
