"""The model: its parts and shapes (Fig. 3), mask tokens' channels, influence, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas
import torch
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

from ureca_lib.configuration import UrecaConfig
from ureca_lib.figures.outlines import draw_outline, draw_photo
from ureca_lib.figures.style import (
    BODY,
    FAINT,
    HEAD,
    INK,
    LEGEND,
    PAGE_WIDTH,
    PALETTE,
    SMALL,
    chart,
    wrapped,
)
from ureca_lib.inspection import KINDS, CaptionAttention, Kind, prompt_kinds
from ureca_lib.mask_encoder import MaskEncoder
from ureca_lib.mask_tree import RegionId
from ureca_lib.presets import Costs
from ureca_lib.regions import Region, RegionImage
from ureca_lib.tiling import tile_image, tile_masks

KIND_COLORS: Mapping[Kind, str] = {
    "text": "#BBBBBB",
    "mask": PALETTE[1],
    "image": PALETTE[0],
}
_HEIGHT = (-1, 39)  # of the architecture, in units of which its width has 100
_BESIDE, _MOST_WORDS = 18, 60  # words for charts side by side, and words in any chart
_PICTURES = 5  # in a row
_NOTHING = "#EFEFEF"  # behind what does not change
_LEAST_PEAK = 3.0  # times even attention that is brightest, so that little looks little
_DASHES = (0, (2, 1))
# words that join things and do not describe them
_SMALL_WORDS = frozenset(
    ["a", "an", "and", "are", "at", "by", "for", "has", "in", "is", "it", "of", "on", "the", "to"]
)


def model_shapes(
    config: UrecaConfig, image_tiles: int, mask_tiles: int
) -> dict[str, tuple[int, ...]]:
    """Shape at each step of a model.

    Args:
        config: of the model.
        image_tiles, mask_tiles: T and M, of one image and one region.

    Returns:
        Of "pixel_values" (T, 3, S, S), "image_features" (T, tokens, D), "mask_values"
        (M, 1, S, S), "mask_features" (M, N, D) and "logits" (1, L, vocabulary).
    """
    text, length = config.text_config, len(prompt_kinds(config, image_tiles, mask_tiles))
    return {
        "pixel_values": (image_tiles, 3, config.tile_size, config.tile_size),
        "image_features": (image_tiles, config.image_seq_length, text.hidden_size),
        "mask_values": (mask_tiles, 1, config.mask_size, config.mask_size),
        "mask_features": (mask_tiles, config.num_mask_tokens, text.hidden_size),
        "logits": (1, length, text.vocab_size),
    }


def architecture_figure(
    config: UrecaConfig, regions: RegionImage, region_id: RegionId, costs: Costs | None = None
) -> Figure:
    """Draw a model with the shapes of a photo and of a region of it (after Fig. 3).

    Args:
        config: of the model.
        regions: with the photo.
        region_id: of the region whose mask is shown.
        costs: the model's parameters, written below each part with the stage that trains them.
    """
    most, size, whole = config.max_tiles, config.tile_size, config.mask_thumbnail
    image_tiles = tile_image(regions.pixels, most, size, thumbnail=config.use_thumbnail).numpy()
    mask_grid = {"max_tiles": most, "thumbnail": whole} if config.mask_dynamic else {"max_tiles": 1}
    region, size = regions[region_id], config.mask_size
    mask_tiles = tile_masks([region], tile_size=size, overshoot="clip", **mask_grid)[0].numpy()
    front = np.argsort(-mask_tiles.std((1, 2)), kind="stable")  # the fullest tile in front
    shapes = model_shapes(config, len(image_tiles), len(mask_tiles))
    figure = plt.figure(figsize=(PAGE_WIDTH, 2.75))
    ax = figure.add_axes((0, 0, 1, 1))
    rows = (
        (32, regions.pixels, image_tiles, "image", "vision tower\n+ projector", "pixel_values"),
        (11, region.mask, mask_tiles[front], "mask", "mask encoder", "mask_values"),
    )
    for y, picture, tiles, kind, part, values in rows:
        _stack(ax, picture[None], (7, y), 11)
        _stack(ax, tiles, (25, y), 8.5)
        _box(ax, (43, y), 9, part, KIND_COLORS[kind])
        _tokens(ax, (59, y), [kind] * 6)
        for start, stop in ((13, 17.4), (31.5, 35), (51, 54.5)):
            _arrow(ax, (start, y), (stop, y))
        _label(ax, (7, y - 7.6), f"{kind}\n{picture.shape}")
        _label(ax, (25, y - 7.6), f"{kind} tiles\n{shapes[values]}")
        _label(ax, (59, y - 7.6), f"{kind} tokens\n{shapes[f'{kind}_features']}")
    # one sequence, the language model, the logits of the next words
    order = ["image"] * 5 + ["mask"] * 4
    order = order[::-1] if config.mask_position == "before_image" else order
    _tokens(ax, (76, 21.5), ["text", *order, "text", "text"])
    _box(ax, (90, 21.5), 11, "language\nmodel", "#666666")
    _arrow(ax, (64, 32), (73.5, 28))
    _arrow(ax, (64, 11), (73.5, 15))
    _arrow(ax, (78.5, 21.5), (82, 21.5))
    _arrow(ax, (90, 27.5), (90, 33))
    _label(ax, (76, 9), f"one sequence\n{shapes['logits'][1]} tokens")
    _label(ax, (90, 37.5), f"next-word logits\n{shapes['logits']}")
    if costs is not None:  # parameters of each part, and the stage that trains them (App. A)
        vision = _count(costs.vision_tower + costs.projector)
        language, lora = _count(costs.language_model), _count(costs.stage_2)
        notes = {
            (43, 26): f"{vision} parameters\nfrozen",
            (43, 5): f"{_count(costs.mask_encoder)} parameters\ntrained in stage 1",
            (90, 14.5): f"{language} parameters, frozen\n+ {lora} of LoRA,\ntrained in stage 2",
        }
        for place, note in notes.items():
            _label(ax, place, note, fontsize=SMALL, color=FAINT, style="italic")
    ax.set(xlim=(0, 100), ylim=_HEIGHT)
    ax.axis("off")
    return figure


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _stack(ax: Axes, tiles: np.ndarray, center: tuple[float, float], width: float) -> None:
    """Draw pictures of one size one behind the other, the first in front."""
    height = width * tiles.shape[1] / tiles.shape[2]
    step, reduced = min(1.0, 6 / len(tiles)), max(1, max(tiles.shape[1:3]) // 400)
    for number, tile in enumerate(tiles[:, ::reduced, ::reduced]):
        away = step * (number - (len(tiles) - 1) / 2)
        left, low = center[0] + away - width / 2, center[1] + away / 2 - height / 2
        box, order = (left, left + width, low, low + height), 3 + len(tiles) - number
        ax.imshow(tile, "gray", vmin=0, vmax=1, extent=box, aspect="auto", zorder=order)
        frame = {"fill": False, "edgecolor": "white", "linewidth": 0.8, "zorder": order + 0.5}
        ax.add_patch(Rectangle((left, low), width, height, **frame))


def _tokens(ax: Axes, center: tuple[float, float], kinds: Sequence[Kind]) -> None:
    """Draw a column of tokens in the colors of their kinds."""
    for number, kind in enumerate(kinds):
        corner = (center[0] - 1.6, center[1] - 0.75 + 1.85 * ((len(kinds) - 1) / 2 - number))
        ax.add_patch(Rectangle(corner, 3.2, 1.5, color=KIND_COLORS[kind]))


def _box(ax: Axes, center: tuple[float, float], height: float, text: str, color: str) -> None:
    corner = (center[0] - 7.5, center[1] - height / 2)
    style = {"boxstyle": "round,pad=0,rounding_size=1.2", "facecolor": color, "edgecolor": "none"}
    ax.add_patch(FancyBboxPatch(corner, 15, height, alpha=0.9, **style))
    ax.text(*center, text, ha="center", va="center", fontsize=HEAD, color="white")


def _arrow(ax: Axes, start: tuple[float, float], stop: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "color": "#444444", "linewidth": 0.9}
    ax.add_patch(FancyArrowPatch(start, stop, **style))


def _label(ax: Axes, place: tuple[float, float], text: str, **style: Any) -> None:
    ax.text(*place, text, ha="center", va="top", **{"fontsize": BODY, "color": INK} | style)


def channels_figure(encoder: MaskEncoder, tiles: torch.Tensor) -> Figure:
    """Draw the input of each mask token: its channel of the last feature map (Algorithm 1).

    Args:
        encoder: with N tokens.
        tiles: (R, S, S) mask tiles, a row per tile.
    """
    count = encoder.num_tokens
    with torch.no_grad():
        maps = encoder.conv1(tiles[:, None].to(encoder.conv1.weight.dtype)).relu()
        maps = encoder.conv2(maps).relu().float().numpy()  # (R, N, S/4, S/4)
    size = (PAGE_WIDTH, len(tiles) * PAGE_WIDTH / (count + 1) + 0.2)
    style = {"squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(len(tiles), count + 1, figsize=size, **style)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.03, hspace=0.03)
    for row, tile, channels in zip(axes, tiles, maps, strict=True):
        row[0].imshow(tile, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for ax, channel in zip(row[1:], channels, strict=True):
            # one scale for all, so that channels and tiles compare
            ax.imshow(channel, cmap="magma_r", vmin=0, vmax=max(1e-6, float(maps.max())))
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    heads = ["mask", *(f"token {n}" if count < 10 else str(n) for n in range(1, count + 1))]
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, fontsize=BODY)
    return figure


def influence_figure(effects: Mapping[str, tuple[Sequence[Kind], torch.Tensor]]) -> Figure:
    """Draw the positions that change if the mask or a tile is hidden, for each token order.

    Args:
        effects: by title, the kinds of the L positions and `occlusion_effect`'s (1 + T, L).
    """
    size = (PAGE_WIDTH, 1.75 * len(effects) + 0.5)
    figure, grid = plt.subplots(len(effects), 1, figsize=size, squeeze=False, layout="constrained")
    every = torch.cat([effect[effect > 0] for _, effect in effects.values()])
    norm = LogNorm(float(every.quantile(0.02)), float(every.quantile(0.98)))
    kind_map = ListedColormap(list(KIND_COLORS.values()))
    for ax, (title, (kinds, effect)) in zip(grid[:, 0], effects.items(), strict=True):
        values = np.ma.masked_less_equal(effect.numpy(), 0)
        shown = ax.imshow(values, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
        strip = ax.inset_axes((0, 1.02, 1, 0.07))
        numbers = [[list(KIND_COLORS).index(kind) for kind in kinds]]
        strip.imshow(numbers, aspect="auto", cmap=kind_map, vmin=0, vmax=2)
        strip.axis("off")
        ax.set_facecolor(_NOTHING)
        tiles = [f"tile {number}" for number in range(1, len(effect))]
        tiles = tiles if len(tiles) == 1 else [*tiles[:-1], "thumbnail"]
        ax.set_yticks(range(len(effect)), ["mask", *tiles], fontsize=BODY)
        ax.set_ylabel("hidden", fontsize=HEAD)
        ax.set_title(title, fontsize=HEAD, loc="left")
        ax.tick_params(axis="x", labelsize=BODY)
    ax.set_xlabel("position in the sequence", fontsize=HEAD)
    bar = figure.colorbar(shown, ax=grid, shrink=0.8, pad=0.01, format="%.2g")
    bar.set_label("change of the last hidden state", fontsize=HEAD)
    bar.ax.yaxis.set_minor_formatter("{x:.2g}")
    bar.ax.tick_params(which="both", labelsize=BODY)
    nothing = Patch(facecolor=_NOTHING, edgecolor="#999999", label="no change at all")
    keys = [*_kind_keys(), nothing]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, **LEGEND)
    return figure


def _kind_keys() -> list[Patch]:
    return [Patch(color=color, label=f"{kind} tokens") for kind, color in KIND_COLORS.items()]


def attention_figure(
    image: np.ndarray, region: Region, found: CaptionAttention, most: int = 9
) -> Figure:
    """Draw the attention of each word: over the photo, by kind of token, and by mask tile.

    Args:
        image: (H, W, 3) uint8.
        region: that the caption is of.
        found: of `caption_attention` on that image and region.
        most: number of words with a picture; words such as "of" come last.
            The charts have the caption's first 60 words.
    """
    words = found.words[:_MOST_WORDS]
    # words such as "of" come last
    small = [word.strip(".,;:!?").lower() in _SMALL_WORDS for word in words]
    chosen = sorted(sorted(range(len(words)), key=lambda n: (small[n], n))[:most])
    places = found.image[0].size  # (W, rows, columns) as a multiple of even attention
    times = (found.image * places / np.maximum(found.even[:, 1, None, None], 1e-12))[chosen]
    brightest = max(float(times.max()), _LEAST_PEAK)
    beside, rows = len(words) <= _BESIDE, -(-(len(chosen) + 1) // _PICTURES)
    pictures = rows * (PAGE_WIDTH / _PICTURES * image.shape[0] / image.shape[1] + 0.2)
    title = wrapped(f"“{found.caption}”", 95, 3)
    above, below = pictures + 0.3 + 0.14 * title.count("\n"), 2.2 if beside else 4.2
    figure = plt.figure(figsize=(PAGE_WIDTH, above + below), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(above, below))
    top.suptitle(title, fontsize=HEAD, fontweight="bold", color=INK)
    axes = top.subplots(rows, _PICTURES, squeeze=False).flat
    for ax in axes:
        ax.axis("off")
    draw_photo(axes[0], image, [region])
    draw_outline(axes[0], region)
    axes[0].set_title("the region", fontsize=BODY)
    gray = np.repeat(image.mean(2, keepdims=True) * 0.4, 3, axis=2).astype(np.uint8)
    height, width = image.shape[:2]
    for place, ax, heat in zip(chosen, axes[1:], times / brightest, strict=False):
        # attention as color and opacity over the photo in gray; black is none
        draw_photo(ax, gray)
        layer = colormaps["inferno"](0.25 + 0.75 * heat)
        layer[..., 3] = np.sqrt(heat) * 0.9
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        ax.imshow(layer, extent=extent, interpolation="nearest")
        draw_outline(ax, region, "white", 0.9)
        ax.set_title(wrapped(words[place], 18, 1), fontsize=BODY)
    scale = f"dark: no attention; brightest: {brightest:.2g} times even attention"
    top.supxlabel(scale, fontsize=SMALL, color=FAINT)
    left, right = bottom.subplots(*((1, 2) if beside else (2, 1)))
    _draw_shares(left, found, len(words))
    _draw_tiles(right, found, len(words))
    for ax in (left, right):
        labels = [wrapped(word, 16, 1) for word in words]  # a word of no language is cut
        style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(range(len(words)), labels, **style)
        ax.set_xlim(-0.5, len(words) - 0.5)
        ax.tick_params(labelsize=6, length=2, colors=INK)
    return figure


def _draw_shares(ax: Axes, found: CaptionAttention, count: int) -> None:
    """Draw a bar per word; dashed steps are the ends of its parts if attention were even."""
    shares = pandas.DataFrame(100 * found.shares[:count], columns=KINDS)
    shares.plot.bar(stacked=True, ax=ax, width=0.75, color=dict(KIND_COLORS), legend=False)
    for end in 100 * found.even[:count].cumsum(1)[:, :-1].T:
        x = np.arange(count)
        ax.hlines(end, x - 0.45, x + 0.45, colors=INK, lw=0.9, ls=_DASHES, label="if even")
    chart(ax, y="attention, %", grid="x")
    ax.grid(False)
    ax.set_ylim(0, 100)
    keys = [*_kind_keys(), ax.collections[0]]
    style = {"handlelength": 1.2, "columnspacing": 0.8, "ncols": 4, **LEGEND}
    ax.legend(handles=keys, loc="lower left", bbox_to_anchor=(-0.02, 0.98), **style)


def _draw_tiles(ax: Axes, found: CaptionAttention, count: int) -> None:
    """Draw mask tiles down, words across; tiles that hold a part of the region are bold."""
    mask = found.mask[:count]
    values = 100 * (mask / np.maximum(mask.sum(1, keepdims=True), 1e-12)).T  # (M, W)
    top = max(float(values.max()), min(100, 100 * _LEAST_PEAK / len(values)))
    style = {"cmap": "viridis", "vmin": 0, "vmax": top, "interpolation": "nearest"}
    shown = ax.imshow(values, aspect="auto", **style)
    names = [str(number) for number in range(1, len(values) + 1)]
    names[-1] = "whole" if len(names) > 1 else "1"
    ax.set_yticks(range(len(names)), names)
    ax.set_title("attention to mask tokens by mask tile, %", fontsize=SMALL, loc="left")
    for label, tile in zip(ax.get_yticklabels(), found.mask_tiles, strict=True):
        label.set_fontweight("bold" if tile.any() else "normal")
    bar = ax.figure.colorbar(shown, ax=ax, fraction=0.05, pad=0.03)
    bar.ax.tick_params(labelsize=6, length=2)
    bar.outline.set_visible(False)
