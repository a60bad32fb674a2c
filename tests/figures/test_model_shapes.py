"""The architecture has a preset's shapes; attention and dynamic masks are drawn as measured."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from figures.drawn import LONG, faults, nested_image, says, words_of
from matplotlib import pyplot as plt
from matplotlib.text import Text

from ureca_lib.figures.model import architecture_figure, attention_figure, model_shapes
from ureca_lib.figures.tiles import dynamic_mask_figure, masks_kept, most_changed
from ureca_lib.inspection import CaptionAttention, prompt_ids, prompt_kinds
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import count, describe_preset, preset_config
from ureca_lib.regions import Region, RegionImage

SIZES = ("below 0.1%", "0.1% to 5%", "from 5%")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def image():
    return nested_image()[0]


def test_shapes_without_weights_are_those_of_a_real_pass():
    config = preset_config("tiny", num_mask_tokens=4)
    model = UrecaForConditionalGeneration(config).eval()
    pixels, masks = torch.zeros(3, 3, 112, 112), torch.zeros(2, 1, 112, 112)
    ids = prompt_ids(config, prompt_kinds(config, 3, 2))
    with torch.no_grad():
        found = {"pixel_values": pixels, "mask_values": masks}
        image = model.model.get_image_features(pixels, return_dict=True)
        found["image_features"] = image.pooler_output
        found["mask_features"] = model.get_mask_features(masks)
        found["logits"] = model(ids, pixel_values=pixels, mask_values=masks).logits
    assert model_shapes(config, 3, 2) == {name: tuple(x.shape) for name, x in found.items()}


@pytest.mark.parametrize("preset", ["tiny", "8b"])
def test_a_presets_architecture_can_be_read_and_says_its_shapes(image, preset):
    config = preset_config(preset)
    figure = architecture_figure(config, image, 11, describe_preset(preset))
    assert not faults(figure)
    text = " ".join(text.get_text() for text in figure.findobj(Text))
    tiles = int(re.search(r"image tiles\n\((\d+),", text)[1])
    for shape in model_shapes(config, tiles, tiles).values():
        assert str(shape) in text


def test_the_architecture_says_how_many_parameters_learn(image):
    config = preset_config("tiny")
    costs = describe_preset("tiny")
    figure = architecture_figure(config, image, 11, costs)
    text = " ".join(t.get_text() for t in figure.findobj(Text))
    encoder = count(UrecaForConditionalGeneration(config).model.mask_encoder)
    assert f"{encoder / 1000:.3g}k parameters\ntrained in stage 1" in text
    assert f"{costs.stage_2 / 1000:.3g}k of LoRA" in text


def values(*shares):
    return {
        size: SimpleNamespace(value=share, low=max(0, share - 0.1), high=share, count=7)
        for size, share in zip(SIZES, shares, strict=False)
        if share is not None
    }


def test_curves_are_drawn_as_measured(image):
    curves = {"tiles": values(0.1, 0.5, 1.0), "one mask": values(0.0, None, 0.25)}
    figure = dynamic_mask_figure(image, 111, curves, tile_size=28)
    assert not faults(figure)
    (chart,) = [ax for ax in figure.axes if ax.get_ylabel()]
    drawn = {one.get_label(): one for one in chart.lines}
    assert drawn["tiles"].get_ydata() == pytest.approx([10, 50, 100])
    assert drawn["one mask"].get_ydata() == pytest.approx([0, 25])
    assert np.round(drawn["one mask"].get_xdata()).tolist() == [0, 2]
    assert drawn["tiles"].get_marker() != drawn["one mask"].get_marker()
    bars = [segment[:, 1] for segment in chart.collections[0].get_segments()]
    assert np.allclose(bars, [[0, 10], [40, 50], [90, 100]])
    ticks = [label.get_text() for label in chart.get_xticklabels()]
    assert ticks == ["< 0.1\n(7)", "0.1–5\n(7)", "≥ 5\n(7)"]


def test_counts_that_differ_are_a_range(image):
    curves = {"a": values(0.5), "b": values(0.6)}
    curves["b"][SIZES[0]].count = 9
    figure = dynamic_mask_figure(image, 111, curves, tile_size=28)
    assert says(figure, "(7–9)")


def test_a_value_without_an_interval_is_drawn(image):
    one = {SIZES[0]: SimpleNamespace(value=0.5, low=None, high=None, count=3)}
    missing = {SIZES[1]: SimpleNamespace(value=None, low=None, high=None, count=0)}
    figure = dynamic_mask_figure(image, 111, {"a": one | missing}, tile_size=28)
    (chart,) = [ax for ax in figure.axes if ax.get_ylabel()]
    assert chart.lines[0].get_ydata() == pytest.approx([50])


def test_the_close_ups_say_what_tiling_keeps(image):
    figure = dynamic_mask_figure(image, 21, {"a": values(0.5)}, max_tiles=12, tile_size=28)
    assert not faults(figure) and len(figure.axes) == 4
    for most in (1, 12):
        _, pixels, iou = masks_kept([image[21]], most, 28)
        assert says(figure, f"{pixels[0]} px, IoU {iou[0]:.2f}")


def test_the_most_changed_region_is_the_one_that_gains_most():
    masks = np.zeros((2, 224, 336), bool)
    masks[0, 20:200, 20:200] = True
    masks[1, 100:102, 250:320] = True
    regions = [Region.from_mask(number, mask) for number, mask in enumerate(masks)]
    assert most_changed(RegionImage(regions, 336, 224), 12, 56) == 1


def attention(caption, tiles=7):
    words = tuple(caption.split())
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(3), len(words))
    even = np.tile([0.2, 0.5, 0.3], (len(words), 1))
    mask = generator.random((len(words), tiles))
    held = np.zeros((tiles, 28, 28))
    held[[min(1, tiles - 1), -1], 4:9, 4:9] = 1
    heat = generator.random((len(words), 4, 6))
    return CaptionAttention(caption, words, shares, even, heat, mask, (3, 2), held)


@pytest.mark.parametrize("caption", ["box", "the lid of the left box", LONG, 3 * LONG])
@pytest.mark.parametrize("tiles", [1, 7, 13])
def test_attention_can_be_read(image, caption, tiles):
    found = attention(caption, tiles)
    figure = attention_figure(image.pixels, image[11], found)
    assert not faults(figure)


def test_a_word_of_no_language_does_not_push_the_charts_off_the_page(image):
    figure = attention_figure(image.pixels, image[11], attention("the " + "x" * 90))
    assert not faults(figure)
    assert figure.get_figheight() < 5


def test_every_share_is_a_part_of_its_bar(image):
    found = attention("the lid of the left box")
    figure = attention_figure(image.pixels, image[11], found)
    (bars,) = [ax for ax in figure.axes if ax.get_ylabel() == "attention, %"]
    heights = [[bar.get_height() for bar in group] for group in bars.containers]
    assert np.allclose(heights, 100 * found.shares.T)
    tops = [bar.get_y() + bar.get_height() for bar in bars.containers[-1]]
    assert np.allclose(tops, 100)


def test_tiles_that_hold_the_region_are_bold_and_rows_are_their_shares(image):
    found = attention("left box")
    figure = attention_figure(image.pixels, image[11], found)
    (shown,) = [ax for ax in figure.axes if ax.images and ax.images[0].get_array().shape == (7, 2)]
    expected = 100 * (found.mask / found.mask.sum(1, keepdims=True)).T
    assert np.allclose(shown.images[0].get_array(), expected)
    weights = {t.get_text(): t.get_fontweight() for t in shown.get_yticklabels()}
    assert [name for name, weight in weights.items() if weight == "bold"] == ["2", "whole"]


def test_even_attention_looks_even_and_dim(image):
    found = attention("left box")
    even = replace(found, image=np.full((2, 4, 6), 0.5 / 24), mask=np.full((2, 7), 0.2 / 7))
    figure = attention_figure(image.pixels, image[11], even)
    assert says(figure, "brightest: 3 times even attention")
    layers = [ax.images[1].get_array() for ax in figure.axes if len(ax.images) == 2]
    assert len(layers) == 2 and all(np.ptp(layer[..., 3]) < 1e-9 for layer in layers)
    assert max(layer[..., 3].max() for layer in layers) < 0.6
    peak = even.image.copy()
    peak[0, 1, 2] *= 9
    figure = attention_figure(image.pixels, image[11], replace(even, image=peak))
    assert says(figure, "brightest: 9 times even attention")


def test_words_such_as_of_get_a_picture_only_where_there_is_room(image):
    few = attention_figure(image.pixels, image[11], attention("the lid of the box"), most=2)
    many = attention_figure(image.pixels, image[11], attention("the lid of the box"), most=9)
    panels = [[ax.get_title() for ax in figure.axes] for figure in (few, many)]
    assert panels[0].count("of") == 0 and panels[0].count("lid") == 1
    assert panels[1].count("of") == 1 and words_of(many)["the"] >= 2
