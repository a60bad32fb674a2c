"""Figures of the model: a mask token's channel, what depends on what; see also `architecture`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter
from torch.nn import functional

from ureca_lib.figures.architecture import KIND_COLOURS, architecture_figure
from ureca_lib.figures.style import PAGE_WIDTH
from ureca_lib.inspection import Kind
from ureca_lib.mask_encoder import MaskEncoder

__all__ = ["KIND_COLOURS", "architecture_figure", "channels_figure", "influence_figure"]


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


def _kind_strip(ax: Axes, kinds: Sequence[Kind]) -> None:
    names = list(KIND_COLOURS)
    strip = ax.inset_axes((0, 1.02, 1, 0.07))
    values = [[names.index(kind) for kind in kinds]]
    strip.imshow(values, aspect="auto", cmap=ListedColormap(list(KIND_COLOURS.values())), vmax=2)
    strip.axis("off")
