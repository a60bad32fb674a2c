"""Figures of the annotation pipeline: what an annotator sees, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ureca_lib.annotate.look_alikes import NearPair
from ureca_lib.figures.style import PAGE_WIDTH, PALETTE, wrapped


def views_figure(views: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Pictures side by side, each under its title, all of one height.

    Args:
        views: (H, W, 3) uint8 each.
        titles: one for each.
    """
    shares = [view.shape[1] / view.shape[0] for view in views]
    height = min(3.2, PAGE_WIDTH / sum(shares))
    size = (height * sum(shares) + 0.1 * len(views), height + 0.35)
    figure, axes = plt.subplots(
        1, len(views), figsize=size, width_ratios=shares, squeeze=False, layout="constrained"
    )
    for ax, view, title in zip(axes[0], views, titles, strict=True):
        ax.imshow(view)
        ax.set_title(wrapped(title, 44), fontsize=8)
        ax.axis("off")
    return figure


def similarity_figure(similarity: np.ndarray, names: Sequence[str], threshold: float) -> Figure:
    """A matrix of cosine similarities, with those at or above the threshold marked.

    Args:
        similarity: (R, R), its diagonal ignored.
        names: R labels.
        threshold: from which on two regions look alike.
    """
    shown = similarity.copy()
    np.fill_diagonal(shown, np.nan)
    side = max(3.3, 0.12 * len(names) + 1.2)
    figure, ax = plt.subplots(figsize=(side, side), layout="constrained")
    image = ax.imshow(shown, cmap="cividis", vmin=0, vmax=1)
    rows, columns = np.nonzero(np.nan_to_num(shown, nan=-1) >= threshold)
    ax.scatter(columns, rows, marker="s", s=5, color=PALETTE[1], linewidths=0)
    labels = [name.replace("$", r"\$") for name in names]
    ax.set_xticks(range(len(names)), labels, rotation=90, fontsize=5)
    ax.set_yticks(range(len(names)), labels, fontsize=5)
    bar = figure.colorbar(image, ax=ax, shrink=0.6)
    bar.set_label(f"cosine similarity (marked: at least {threshold:g})", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def survey_figure(similarities: np.ndarray, threshold: float, pairs: Sequence[NearPair]) -> Figure:
    """A histogram of the similarities of pairs of regions, and pairs near the threshold.

    Args:
        similarities: (P,) cosine similarities.
        threshold: from which two regions look alike.
        pairs: with their crops.
    """
    columns = 4
    rows = -(-len(pairs) // columns)
    figure = plt.figure(figsize=(PAGE_WIDTH, 2 + 1.2 * rows), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2, 1.2 * rows))
    ax = top.subplots()
    ax.hist(similarities, bins=50, color=PALETTE[0])
    share = (similarities >= threshold).mean()
    ax.axvline(threshold, color=PALETTE[1], label=f"{threshold:g}: {share:.1%} of pairs are above")
    ax.set_xlabel("cosine similarity", fontsize=8)
    ax.set_ylabel("pairs of regions", fontsize=8)
    ax.legend(fontsize=7)
    axes = bottom.subplots(rows, 2 * columns, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for place, pair in enumerate(pairs):
        row, column = divmod(place, columns)
        for side, (crop, region_id) in enumerate(zip(pair.crops, pair.region_ids, strict=True)):
            ax = axes[row, 2 * column + side]
            ax.imshow(crop)
            title = f"{pair.similarity:.3f}" if side == 0 else ""
            ax.set_title(f"{title} [{region_id}]".strip().replace("$", r"\$"), fontsize=6)
    return figure


def statistics_figure(
    depths: Sequence[int], shares: Sequence[float], words: Mapping[str, Sequence[int]]
) -> Figure:
    """Regions by level, by share of the image, and words a caption in each stage.

    Args:
        depths: level of each region.
        shares: share of the image that each region covers, 0 to 1.
        words: lengths of captions in words, by stage.
    """
    figure, axes = plt.subplots(1, 3, figsize=(PAGE_WIDTH, 2.2), layout="constrained")
    levels = Counter(depths)
    axes[0].bar(list(levels), list(levels.values()), color=PALETTE[0])
    axes[0].set_xticks(range(1, max(levels) + 1))
    axes[0].set_xlabel("level in the tree", fontsize=8)
    axes[0].set_ylabel("regions", fontsize=8)
    bins = np.logspace(np.log10(min(shares)), 0, 20)
    axes[1].hist(shares, bins=list(bins), color=PALETTE[2])
    axes[1].set_xscale("log")
    axes[1].set_xlabel("share of the image", fontsize=8)
    most = max(max(lengths) for lengths in words.values())
    for number, (stage, lengths) in enumerate(words.items()):
        colour = PALETTE[number % len(PALETTE)]
        axes[2].hist(lengths, bins=range(1, most + 2), histtype="step", color=colour, label=stage)
    axes[2].set_xlabel("words a caption", fontsize=8)
    axes[2].legend(fontsize=7, frameon=False)
    for ax in axes:
        ax.tick_params(labelsize=7)
    return figure
