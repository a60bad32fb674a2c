"""Figures of the model say the shapes and draw the maps and changes that they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from ureca_lib.figures.model import (
    KIND_COLORS,
    architecture_figure,
    channels_figure,
    influence_figure,
    model_shapes,
)
from ureca_lib.mask_encoder import MaskEncoder
from ureca_lib.presets import preset_config
from ureca_lib.regions import Region, RegionImage


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def architecture(mask_position="before_image"):
    mask = np.zeros((224, 336), bool)
    mask[190:200, 300:310] = True
    pixels = np.random.default_rng(0).integers(0, 256, (224, 336, 3), np.uint8)
    image = RegionImage([Region.from_mask(1, mask)], 336, 224, pixels)
    config = preset_config("tiny", mask_position=mask_position)
    (ax,) = architecture_figure(config, image, 1).axes
    return ax


def test_every_shape_is_written():
    text = " ".join(label.get_text() for label in architecture().texts)
    shapes = model_shapes(preset_config("tiny"), 7, 7)
    for shape in ((224, 336, 3), (224, 336), *shapes.values()):
        assert str(shape) in text
    assert f"{shapes['logits'][1]} tokens" in text


@pytest.mark.parametrize("mask_first", [True, False])
def test_the_sequence_has_the_order_asked_for(mask_first):
    ax = architecture("before_image" if mask_first else "after_image")
    squares = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_x() > 70]
    rows = sorted(squares, key=lambda square: -square.get_y())
    names = {color.lower(): kind for kind, color in KIND_COLORS.items()}
    kinds = [names[color] for row in rows if (color := to_hex(row.get_facecolor())) in names]
    assert kinds[0] == kinds[-1] == "text"
    assert (kinds.index("mask") < kinds.index("image")) == mask_first


def test_the_fullest_mask_tile_is_in_front():
    images = architecture().images
    masks = [image for image in images if image.get_array().shape == (112, 112)]
    assert len(masks) == 7
    front = max(masks, key=lambda image: image.get_zorder())
    assert front.get_array().any()


def test_each_channel_is_drawn_beside_its_tile():
    torch.manual_seed(0)
    encoder = MaskEncoder(3, 16, 20)
    tiles = torch.rand(2, 20, 20)
    axes = channels_figure(encoder, tiles).axes
    drawn = [np.asarray(ax.images[0].get_array()) for ax in axes]
    with torch.no_grad():
        maps = encoder.conv2(encoder.conv1(tiles[:, None]).relu()).relu()
    for row in range(2):
        assert np.allclose(drawn[4 * row], tiles[row])
        for token in range(3):
            assert np.allclose(drawn[4 * row + 1 + token], maps[row, token], atol=1e-6)


def test_positions_that_cannot_change_are_left_blank():
    kinds = ["text", "mask", "image", "image"]
    effect = torch.tensor([[0, 0.3, 0.2, 0.1], [0, 0, 0.5, 0.4], [0, 0, 0, 0.6]])
    figure = influence_figure({"paper": (kinds, effect), "released": (kinds, effect)})
    ax = figure.axes[0]
    drawn = ax.images[0].get_array()
    assert np.array_equal(drawn.mask, (effect == 0).numpy())
    assert np.allclose(drawn[~drawn.mask], effect[effect > 0])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["mask", "tile 1", "thumbnail"]
    assert ax.get_title(loc="left") == "paper"


def test_an_image_of_one_tile_has_no_thumbnail():
    kinds = ["mask", "image"]
    figure = influence_figure({"one": (kinds, torch.tensor([[0.3, 0.2], [0.0, 0.5]]))})
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["mask", "tile 1"]
