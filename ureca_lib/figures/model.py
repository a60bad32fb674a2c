"""The model: its parts and shapes (Fig. 3), mask tokens' channels, influence, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.ticker import FormatStrFormatter
from torch.nn import functional

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
    panels,
    text_width,
    wrapped,
)
from ureca_lib.inspection import KINDS, CaptionAttention, Kind, prompt_kinds
from ureca_lib.mask_encoder import MaskEncoder
from ureca_lib.mask_tree import RegionId
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import PRESETS, Costs, model_costs, preset_config
from ureca_lib.regions import Region, RegionImage
from ureca_lib.tiling import tile_image, tile_masks

KIND_COLORS: Mapping[Kind, str] = {
    "text": "#BBBBBB",
    "mask": PALETTE[1],
    "image": PALETTE[0],
}
_HEIGHT = (-1, 39)  # of the architecture, in units of which its width has 100
_BESIDE, _MOST_WORDS = 18, 60  # words for charts side by side, and words in any chart
_LEAST_PEAK = 3.0  # times even attention that is brightest, so that little looks little
_HEAT = colormaps["inferno"]
_DASHES = (0, (2, 1))
# words that join things and do not describe them
_SMALL_WORDS = frozenset(
    ["a", "an", "and", "are", "at", "by", "for", "has", "in", "is", "it", "of", "on", "the", "to"]
)


def model_shapes(
    config: UrecaConfig, image_tiles: int, mask_tiles: int
) -> dict[str, tuple[int, ...]]:
    """Find the shape at each step of a model, without weights.

    It runs on the meta device: a model of 8 billion parameters takes a second and no memory.

    Args:
        config: of the model.
        image_tiles, mask_tiles: T and M, of one image and one region.

    Returns:
        Of "pixel_values" (T, 3, S, S), "image_features" (T, tokens, D), "mask_values"
        (M, 1, S, S), "mask_features" (M, N, D) and "logits" (1, L, vocabulary).
    """
    length = len(prompt_kinds(config, image_tiles, mask_tiles))
    with torch.device("meta"), torch.no_grad():
        model = UrecaForConditionalGeneration(config).eval()
        pixels = torch.empty(image_tiles, 3, config.tile_size, config.tile_size)
        masks = torch.empty(mask_tiles, 1, config.mask_size, config.mask_size)
        image = model.model.get_image_features(pixels, return_dict=True).pooler_output
        sequence = torch.empty(1, length, config.text_config.hidden_size)
        states = model.model.language_model(inputs_embeds=sequence).last_hidden_state
        steps = {"pixel_values": pixels, "image_features": image, "mask_values": masks}
        places = torch.zeros(mask_tiles, 2, dtype=torch.int64)
        tokens = model.get_mask_features(masks, places)
        steps |= {"mask_features": tokens, "logits": model.lm_head(states)}
    return {name: tuple(step.shape) for name, step in steps.items()}


def preset_figure(name: str, regions: RegionImage, region_id: RegionId) -> Figure:
    """Draw the architecture of a preset with the shapes of a photo and of a region of it.

    Args:
        name: of the preset.
        regions: with the photo.
        region_id: of the region whose mask is shown.

    Raises:
        ValueError: no such preset.
    """
    config, region = preset_config(name), regions[region_id]
    image_tiles = tile_image(
        regions.pixels, config.max_tiles, config.tile_size, thumbnail=config.use_thumbnail
    )
    mask_tiles = tile_masks(
        [region],
        config.max_tiles if config.mask_dynamic else 1,
        config.mask_size,
        thumbnail=config.mask_dynamic and config.mask_thumbnail,
        overshoot="clip",
    )[0]
    photo = (regions.width, regions.height)
    return architecture_figure(
        regions.pixels,
        region.mask,
        image_tiles.numpy(),
        mask_tiles.numpy(),
        model_shapes(config, len(image_tiles), len(mask_tiles)),
        config.mask_position == "before_image",
        model_costs(config, PRESETS[name].lora_rank, photo),
    )


def architecture_figure(
    image: np.ndarray,
    mask: np.ndarray,
    image_tiles: np.ndarray,
    mask_tiles: np.ndarray,
    shapes: Mapping[str, Sequence[int]],
    mask_first: bool = True,
    costs: Costs | None = None,
) -> Figure:
    """Draw the model with the shape at each step (after Fig. 3).

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
        image_tiles: (T, S, S, 3) uint8.
        mask_tiles: (M, S, S), values 0..1.
        shapes: of "pixel_values", "image_features", "mask_values", "mask_features" and "logits".
        mask_first: mask tokens stand before the image's (paper) or after them (released weights).
        costs: the model's parameters, written below each part with the stage that trains them.
    """
    figure = plt.figure(figsize=(PAGE_WIDTH, 2.75))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, 100)
    ax.set_ylim(*_HEIGHT)
    ax.axis("off")
    front = np.argsort(-mask_tiles.std((1, 2)), kind="stable")  # the fullest tile in front
    rows = (
        (32, image, image_tiles, "image", "vision tower\n+ projector", "pixel_values"),
        (11, mask, mask_tiles[front], "mask", "mask encoder", "mask_values"),
    )
    for y, whole, tiles, kind, part, values in rows:
        _picture(ax, whole, (7, y), 11)
        _stack(ax, tiles, (25, y), 8.5)
        _box(ax, (43, y), (15, 9), part, KIND_COLORS[kind])
        _tokens(ax, (59, y), [kind] * 6)
        for start, stop in ((13, 17.4), (31.5, 35), (51, 54.5)):
            _arrow(ax, (start, y), (stop, y))
        _label(ax, (7, y - 7.6), f"{kind}\n{_shape(whole.shape)}")
        _label(ax, (25, y - 7.6), f"{kind} tiles\n{_shape(shapes[values])}")
        _label(ax, (59, y - 7.6), f"{kind} tokens\n{_shape(shapes[f'{kind}_features'])}")
    _language_model(ax, shapes["logits"], mask_first)
    if costs is not None:
        _learning(ax, costs)
    return figure


def _language_model(ax: Axes, logits: Sequence[int], mask_first: bool) -> None:
    """Draw the right-hand side: one sequence, the language model, the logits of the next words."""
    order = ["mask"] * 4 + ["image"] * 5 if mask_first else ["image"] * 5 + ["mask"] * 4
    _tokens(ax, (76, 21.5), ["text", *order, "text", "text"])
    _arrow(ax, (64, 32), (73.5, 28), bend=-0.15)
    _arrow(ax, (64, 11), (73.5, 15), bend=0.15)
    _label(ax, (76, 9), f"one sequence\n{logits[1]} tokens")
    _arrow(ax, (78.5, 21.5), (82, 21.5))
    _box(ax, (90, 21.5), (15, 11), "language\nmodel", "#666666")
    _arrow(ax, (90, 27.5), (90, 33))
    _label(ax, (90, 37.5), f"next-word logits\n{_shape(logits)}")


def _learning(ax: Axes, costs: Costs) -> None:
    """Write below each part its parameters, and the stage that trains them (App. A)."""
    vision = costs.vision_tower + costs.projector
    _note(ax, (43, 26), f"{_count(vision)} parameters\nfrozen")
    _note(ax, (43, 5), f"{_count(costs.mask_encoder)} parameters\ntrained in stage 1")
    language = f"{_count(costs.language_model)} parameters, frozen\n"
    _note(ax, (90, 14.5), f"{language}+ {_count(costs.stage_2)} of LoRA,\ntrained in stage 2")


def _note(ax: Axes, place: tuple[float, float], text: str) -> None:
    ax.text(*place, text, ha="center", va="top", fontsize=SMALL, color=FAINT, style="italic")


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _picture(ax: Axes, image: np.ndarray, center: tuple[float, float], width: float) -> None:
    image = image[:: max(1, image.shape[0] // 400), :: max(1, image.shape[1] // 400)]
    height = width * image.shape[0] / image.shape[1]
    x, y = center
    box = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
    grey = {"cmap": "gray"} if image.ndim == 2 else {}
    ax.imshow(image, extent=box, aspect="auto", zorder=2, **grey)
    ax.set_xlim(0, 100)
    ax.set_ylim(*_HEIGHT)


def _stack(ax: Axes, tiles: np.ndarray, center: tuple[float, float], side: float) -> None:
    """Draw tiles one behind the other, the first in front."""
    step = min(1.0, 6 / len(tiles))
    shift = step * (len(tiles) - 1) / 2
    for number in range(len(tiles) - 1, -1, -1):
        x, y = center[0] - shift + number * step, center[1] - shift / 2 + number * step / 2
        box = (x - side / 2, x + side / 2, y - side / 2, y + side / 2)
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if tiles.ndim == 3 else {}
        order = 3 + len(tiles) - number
        ax.imshow(tiles[number], extent=box, aspect="auto", zorder=order, **grey)
        frame = {"fill": False, "edgecolor": "white", "linewidth": 0.8, "zorder": order + 0.5}
        ax.add_patch(Rectangle((box[0], box[2]), side, side, **frame))
    ax.set_xlim(0, 100)
    ax.set_ylim(*_HEIGHT)


def _tokens(ax: Axes, center: tuple[float, float], kinds: Sequence[Kind]) -> None:
    size, gap = 1.5, 0.35
    start = center[1] + (len(kinds) * (size + gap) - gap) / 2
    for number, kind in enumerate(kinds):
        y = start - number * (size + gap) - size
        ax.add_patch(Rectangle((center[0] - 1.6, y), 3.2, size, color=KIND_COLORS[kind]))


def _box(
    ax: Axes, center: tuple[float, float], size: tuple[float, float], text: str, color: str
) -> None:
    corner = (center[0] - size[0] / 2, center[1] - size[1] / 2)
    style = {"boxstyle": "round,pad=0,rounding_size=1.2", "facecolor": color, "edgecolor": "none"}
    ax.add_patch(FancyBboxPatch(corner, *size, alpha=0.9, **style))
    ax.text(*center, text, ha="center", va="center", fontsize=HEAD, color="white")


def _arrow(
    ax: Axes, start: tuple[float, float], stop: tuple[float, float], bend: float = 0
) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "color": "#444444", "linewidth": 0.9}
    ax.add_patch(FancyArrowPatch(start, stop, connectionstyle=f"arc3,rad={bend}", **style))


def _label(ax: Axes, place: tuple[float, float], text: str) -> None:
    ax.text(*place, text, ha="center", va="top", fontsize=BODY, color=INK)


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(str(side) for side in shape)})"


def channels_figure(encoder: MaskEncoder, tiles: torch.Tensor) -> Figure:
    """Draw the input of each mask token: its channel of the last feature map (Algorithm 1).

    Args:
        encoder: with N tokens.
        tiles: (R, S, S) mask tiles, a row per tile.
    """
    count = encoder.num_tokens
    with torch.no_grad():
        maps = functional.relu(encoder.conv1(tiles[:, None].to(encoder.conv1.weight.dtype)))
        maps = functional.relu(encoder.conv2(maps)).float().numpy()  # (R, N, S/4, S/4)
    width = PAGE_WIDTH / (count + 1)
    size = (PAGE_WIDTH, len(tiles) * width + 0.2)
    figure, axes = plt.subplots(
        len(tiles), count + 1, figsize=size, squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.03, hspace=0.03)
    for row, tile, channels in zip(axes, tiles, maps, strict=True):
        row[0].imshow(tile, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for ax, channel in zip(row[1:], channels, strict=True):
            # one scale for all, so that channels and tiles compare
            ax.imshow(channel, cmap="magma_r", vmin=0, vmax=max(1e-6, float(maps.max())))
        for ax in row:
            ax.set(xticks=[], yticks=[])
    narrow = count > 9
    axes[0, 0].set_title("mask" if narrow else "mask tile", fontsize=BODY)
    for number, ax in enumerate(axes[0, 1:], 1):
        ax.set_title(str(number) if narrow else f"token {number}", fontsize=BODY)
    return figure


def influence_figure(effects: Mapping[str, tuple[Sequence[Kind], torch.Tensor]]) -> Figure:
    """Draw the positions that change if the mask or a tile is hidden, for each token order.

    Args:
        effects: by title, the kinds of the L positions and `occlusion_effect`'s (1 + T, L).
    """
    figure, axes = plt.subplots(
        len(effects), 1, figsize=(PAGE_WIDTH, 1.75 * len(effects) + 0.5), layout="constrained"
    )
    every = torch.cat([effect[effect > 0] for _, effect in effects.values()])
    norm = LogNorm(float(every.quantile(0.02)), float(every.quantile(0.98)))
    shown = None
    for ax, (title, (kinds, effect)) in zip(np.atleast_1d(axes), effects.items(), strict=True):
        values = np.ma.masked_less_equal(effect.numpy(), 0)
        shown = ax.imshow(values, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
        _kind_strip(ax, kinds)
        ax.set_facecolor("#EFEFEF")
        labels = ["mask", *(f"tile {number}" for number in range(1, len(effect)))]
        labels[-1] = "thumbnail" if len(effect) > 2 else "tile 1"
        ax.set_yticks(range(len(effect)), labels, fontsize=BODY)
        ax.set_ylabel("hidden", fontsize=HEAD)
        ax.set_title(title, fontsize=HEAD, loc="left")
        ax.tick_params(axis="x", labelsize=BODY)
    ax.set_xlabel("position in the sequence", fontsize=HEAD)
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("change of the last hidden state", fontsize=HEAD)
    bar.ax.tick_params(which="both", labelsize=BODY)
    for axis_formatter in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
        axis_formatter(FormatStrFormatter("%.2g"))
    keys = _kind_keys()
    keys.append(Patch(facecolor="#EFEFEF", edgecolor="#999999", label="no change at all"))
    figure.legend(handles=keys, loc="outside lower center", ncols=4, **LEGEND)
    return figure


def _kind_keys() -> list[Patch]:
    return [Patch(color=color, label=f"{kind} tokens") for kind, color in KIND_COLORS.items()]


def _kind_strip(ax: Axes, kinds: Sequence[Kind]) -> None:
    names = list(KIND_COLORS)
    strip = ax.inset_axes((0, 1.02, 1, 0.07))
    values = [[names.index(kind) for kind in kinds]]
    strip.imshow(values, aspect="auto", cmap=ListedColormap(list(KIND_COLORS.values())), vmax=2)
    strip.axis("off")


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
    chosen = _described(words, most)
    times = _times_even(found)[chosen]
    brightest = max(float(times.max()), _LEAST_PEAK)
    beside = len(words) <= _BESIDE
    foot = 2.4 if beside else 4.4
    notes = [["the region"], *([words[place]] for place in chosen)]
    shape = image.shape[1] / image.shape[0]
    title = wrapped(f"“{found.caption}”", 95, 3)
    top = 0.1 + 0.14 * (title.count("\n") + 1)
    figure, (first, *axes) = panels(notes, 5, shape, (top, foot), "center")
    height = figure.get_figheight()
    style = {"fontsize": HEAD, "fontweight": "bold", "va": "top", "color": INK}
    figure.text(0, 1 - 0.03 / height, title, **style)
    draw_photo(first, image, [region])
    draw_outline(first, region)
    for ax, heat in zip(axes, times / brightest, strict=True):
        _draw_word(ax, image, region, heat)
    scale = f"dark: no attention; brightest: {brightest:.2g} times even attention"
    style = {"fontsize": SMALL, "va": "top", "color": FAINT}
    figure.text(0, foot / height, scale, **style)
    _draw_charts(figure, found, words, beside, (foot - 0.4) / height)
    return figure


def _described(words: Sequence[str], most: int) -> list[int]:
    """Choose the words with a picture, in their order."""
    bare = [word.strip(".,;:!?").lower() for word in words]
    order = sorted(range(len(words)), key=lambda n: (bare[n] in _SMALL_WORDS, n))
    return sorted(order[:most])


def _times_even(found: CaptionAttention) -> np.ndarray:
    """(W, rows, columns) attention to each place, as a multiple of even attention."""
    places = found.image[0].size
    return found.image * places / np.maximum(found.even[:, 1, None, None], 1e-12)


def _draw_word(ax: Axes, image: np.ndarray, region: Region, heat: np.ndarray) -> None:
    """Draw attention as color and opacity over the photo in gray; black is none."""
    draw_photo(ax, image, gray=0.4)
    layer = _HEAT(0.25 + 0.75 * heat)
    layer[..., 3] = np.sqrt(heat) * 0.9
    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(layer, extent=extent, interpolation="nearest")
    draw_outline(ax, region, "white", 0.9)


def _draw_charts(
    figure: Figure, found: CaptionAttention, words: Sequence[str], beside: bool, top: float
) -> None:
    """Draw the charts side by side, or below each other if there are many words."""
    labels = [wrapped(word, 16, 1) for word in words]  # a word of no language is cut
    slanted = 0.75 * max(text_width(label, SMALL) for label in labels) / figure.get_figheight()
    grid = figure.add_gridspec(
        *((1, 2) if beside else (2, 1)),
        width_ratios=[1.3, 1] if beside else None,
        hspace=0.3 + 2 * slanted / top,
        wspace=0.2,
        left=0.07,
        right=0.94,
        top=top,
        bottom=slanted + 0.12 / figure.get_figheight(),
    )
    left, right = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    _draw_shares(left, found, len(words))
    _draw_tiles(right, found, len(words))
    for ax in (left, right):
        style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(range(len(words)), labels, **style)
        ax.set_xlim(-0.5, len(words) - 0.5)
        ax.tick_params(labelsize=6, length=2, colors=INK)


def _draw_shares(ax: Axes, found: CaptionAttention, count: int) -> None:
    """Draw a bar per word; dashed steps are the ends of its parts if attention were even."""
    x, start, even = np.arange(count), np.zeros(count), np.zeros(count)
    for number, kind in enumerate(KINDS):
        part = 100 * found.shares[:count, number]
        ax.bar(x, part, 0.75, start, color=KIND_COLORS[kind], linewidth=0)
        start, even = start + part, even + 100 * found.even[:count, number]
        if number < len(KINDS) - 1:
            ax.hlines(even, x - 0.45, x + 0.45, colors=INK, lw=0.9, ls=_DASHES)
    chart(ax, y="attention, %", grid="x")
    ax.grid(False)
    ax.set_ylim(0, 100)
    keys = [*_kind_keys(), Line2D([], [], color=INK, lw=0.9, ls=_DASHES, label="if even")]
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
