"""The model's parts and the shape of what goes between them (after Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from ureca_lib.configuration import UrecaConfig
from ureca_lib.figures.style import FAINT, PAGE_WIDTH, PALETTE
from ureca_lib.inspection import Kind, prompt_kinds
from ureca_lib.mask_tree import RegionId
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import PRESETS, Costs, model_costs, preset_config
from ureca_lib.regions import RegionImage
from ureca_lib.tiling import tile_image, tile_masks

KIND_COLOURS: Mapping[Kind, str] = {
    "text": "#BBBBBB",
    "mask": PALETTE[1],
    "image": PALETTE[0],
}
_HEIGHT = (-1, 39)  # of the drawing, in units of which its width has 100


def model_shapes(
    config: UrecaConfig, image_tiles: int, mask_tiles: int
) -> dict[str, tuple[int, ...]]:
    """The shape at each step of a model, by running it without weights or numbers.

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
    """The architecture of a preset with the shapes that a photo and a region of it have there.

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
    """The model with the shape at each step (after Fig. 3).

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
        image_tiles: (T, S, S, 3) uint8.
        mask_tiles: (M, S, S), values 0..1.
        shapes: of "pixel_values", "image_features", "mask_values", "mask_features" and "logits".
        mask_first: mask tokens stand before the image's (paper) or after them (released weights).
        costs: the model's parameters; then each part says how many it has and when it learns.
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


def _learning(ax: Axes, costs: Costs) -> None:
    """Under each part its parameters, and in which stage of training they change (App. A)."""
    vision = costs.vision_tower + costs.projector
    _note(ax, (43, 26), f"{_count(vision)} parameters\nfrozen")
    _note(ax, (43, 5), f"{_count(costs.mask_encoder)} parameters\ntrained in stage 1")
    told = f"{_count(costs.language_model)} parameters, frozen\n"
    told += f"+ {_count(costs.stage_2)} of LoRA,\ntrained in stage 2"
    _note(ax, (90, 14.5), told)


def _note(ax: Axes, place: tuple[float, float], text: str) -> None:
    ax.text(*place, text, ha="center", va="top", fontsize=6.5, color=FAINT, style="italic")


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


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
