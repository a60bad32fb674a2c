"""Figures of the model: its parts and shapes, a mask token's channel, what depends on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.ticker import FormatStrFormatter
from torch.nn import functional

from ureca_lib.figures.style import PAGE_WIDTH, PALETTE
from ureca_lib.mask_encoder import MaskEncoder
from ureca_lib.occlusion import Kind

KIND_COLOURS: Mapping[Kind, str] = {
    "text": "#BBBBBB",
    "mask": PALETTE[1],
    "image": PALETTE[0],
}
_HEIGHT = (-1, 39)  # of the drawing, in units of which its width has 100


def architecture_figure(
    image: np.ndarray,
    mask: np.ndarray,
    image_tiles: np.ndarray,
    mask_tiles: np.ndarray,
    shapes: Mapping[str, Sequence[int]],
    mask_first: bool = True,
) -> Figure:
    """The model with the shape at each step (after Fig. 3).

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
        image_tiles: (T, S, S, 3) uint8.
        mask_tiles: (M, S, S), values 0..1.
        shapes: of "pixel_values", "image_features", "mask_values", "mask_features" and "logits".
        mask_first: mask tokens stand before the image's (paper) or after them (released weights).
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
        _box(ax, (43, y), (15, 9), part, KIND_COLOURS[kind])
        _tokens(ax, (59, y), [kind] * 6)
        for start, stop in ((13, 18.5), (31.5, 35), (51, 54.5)):
            _arrow(ax, (start, y), (stop, y))
        _label(ax, (7, y - 7.6), f"{kind}\n{_shape(whole.shape)}")
        _label(ax, (25, y - 7.6), f"{kind} tiles\n{_shape(shapes[values])}")
        _label(ax, (59, y - 7.6), f"{kind} tokens\n{_shape(shapes[f'{kind}_features'])}")
    _language_model(ax, shapes["logits"], mask_first)
    return figure


def channels_figure(encoder: MaskEncoder, tiles: torch.Tensor) -> Figure:
    """What each mask token is made from: its channel of the last feature map (Algorithm 1).

    Args:
        encoder: with N tokens.
        tiles: (R, S, S) mask tiles, one row each.
    """
    count = encoder.num_tokens
    with torch.no_grad():
        maps = functional.relu(encoder.conv1(tiles[:, None].to(encoder.conv1.weight.dtype)))
        maps = functional.relu(encoder.conv2(maps)).float().numpy()  # (R, N, S/4, S/4)
    width = PAGE_WIDTH / (count + 1)
    figure, axes = plt.subplots(
        len(tiles), count + 1, figsize=(PAGE_WIDTH, len(tiles) * width + 0.25), squeeze=False
    )
    figure.subplots_adjust(0.005, 0.01, 0.995, 0.86, wspace=0.06, hspace=0.06)
    for row, tile, channels in zip(axes, tiles, maps, strict=True):
        row[0].imshow(tile, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for ax, channel in zip(row[1:], channels, strict=True):
            # each channel on its own scale, and the same one for all tiles
            ax.imshow(channel, cmap="magma", vmin=0, vmax=max(1e-6, float(maps.max())))
        for ax in row:
            ax.set_xticks([])
            ax.set_yticks([])
    narrow = count > 9
    axes[0, 0].set_title("mask" if narrow else "mask tile", fontsize=7)
    for number, ax in enumerate(axes[0, 1:], 1):
        ax.set_title(str(number) if narrow else f"token {number}", fontsize=7)
    return figure


def influence_figure(effects: Mapping[str, tuple[Sequence[Kind], torch.Tensor]]) -> Figure:
    """What changes where when the mask or a tile of the image is hidden, for each token order.

    Args:
        effects: by title, what stands at the L positions and `occlusion_effect`'s (1 + T, L).
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
        ax.set_yticks(range(len(effect)), labels, fontsize=7)
        ax.set_ylabel("hidden", fontsize=8)
        ax.set_title(title, fontsize=9, loc="left")
        ax.tick_params(axis="x", labelsize=7)
    ax.set_xlabel("position in the sequence", fontsize=8)
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("change of the last hidden state", fontsize=8)
    bar.ax.tick_params(which="both", labelsize=7)
    for axis_formatter in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
        axis_formatter(FormatStrFormatter("%.2g"))
    keys = [Patch(color=colour, label=f"{kind} tokens") for kind, colour in KIND_COLOURS.items()]
    keys.append(Patch(facecolor="#EFEFEF", edgecolor="#999999", label="no change at all"))
    figure.legend(handles=keys, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _language_model(ax: Axes, logits: Sequence[int], mask_first: bool) -> None:
    """The right-hand side of the architecture: one sequence, the language model, the next word."""
    order = ["mask"] * 4 + ["image"] * 5 if mask_first else ["image"] * 5 + ["mask"] * 4
    _tokens(ax, (76, 21.5), ["text", *order, "text", "text"])
    _arrow(ax, (64, 32), (73.5, 28), bend=-0.15)
    _arrow(ax, (64, 11), (73.5, 15), bend=0.15)
    _label(ax, (76, 9), f"one sequence\n{logits[1]} tokens")
    _arrow(ax, (78.5, 21.5), (82, 21.5))
    _box(ax, (90, 21.5), (15, 11), "language\nmodel", "#666666")
    _arrow(ax, (90, 27.5), (90, 33))
    _label(ax, (90, 37.5), f"next word\n{_shape(logits)}")


def _kind_strip(ax: Axes, kinds: Sequence[Kind]) -> None:
    names = list(KIND_COLOURS)
    strip = ax.inset_axes((0, 1.02, 1, 0.07))
    values = [[names.index(kind) for kind in kinds]]
    strip.imshow(values, aspect="auto", cmap=ListedColormap(list(KIND_COLOURS.values())), vmax=2)
    strip.axis("off")


def _picture(ax: Axes, image: np.ndarray, center: tuple[float, float], width: float) -> None:
    height = width * image.shape[0] / image.shape[1]
    x, y = center
    box = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
    grey = {"cmap": "gray"} if image.ndim == 2 else {}
    ax.imshow(image, extent=box, aspect="auto", zorder=2, **grey)
    ax.set_xlim(0, 100)
    ax.set_ylim(*_HEIGHT)


def _stack(ax: Axes, tiles: np.ndarray, center: tuple[float, float], side: float) -> None:
    """Tiles one behind the other, the first in front."""
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
        ax.add_patch(Rectangle((center[0] - 1.6, y), 3.2, size, color=KIND_COLOURS[kind]))


def _box(
    ax: Axes, center: tuple[float, float], size: tuple[float, float], text: str, colour: str
) -> None:
    corner = (center[0] - size[0] / 2, center[1] - size[1] / 2)
    style = {"boxstyle": "round,pad=0,rounding_size=1.2", "facecolor": colour, "edgecolor": "none"}
    ax.add_patch(FancyBboxPatch(corner, *size, alpha=0.9, **style))
    ax.text(*center, text, ha="center", va="center", fontsize=8, color="white")


def _arrow(
    ax: Axes, start: tuple[float, float], stop: tuple[float, float], bend: float = 0
) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "color": "#444444", "linewidth": 0.9}
    ax.add_patch(FancyArrowPatch(start, stop, connectionstyle=f"arc3,rad={bend}", **style))


def _label(ax: Axes, place: tuple[float, float], text: str) -> None:
    ax.text(*place, text, ha="center", va="top", fontsize=7, color="#222222")


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(str(side) for side in shape)})"
