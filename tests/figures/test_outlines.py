"""Outlines stay inside their regions, close-ups hold them, colors can be told apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from figures.drawn import nested_image
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from ureca_lib.figures.outlines import (
    anchor_point,
    close_view,
    draw_outline,
    draw_photo,
)
from ureca_lib.figures.style import FAINT, INK, PALETTE
from ureca_lib.regions import Region

# what people without red, green or blue cones see (Machado, Oliveira and Fernandes, 2009, severity
# 1), applied to linear RGB
BLIND = {
    "protan": "0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998",
    "deutan": "0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.011820 0.042940 0.968881",
    "tritan": "1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.303900",
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def image():
    return nested_image()[0]


@pytest.fixture
def ax(image):
    ax = plt.figure(figsize=(4, 3)).add_axes((0, 0, 1, 1))
    draw_photo(ax, image.pixels)
    return ax


def vertices(ax) -> np.ndarray:
    return np.concatenate([path.vertices for path in ax.collections[-1].get_paths()])


def test_an_outline_runs_inside_its_region(ax, image):
    region = image[1]
    draw_outline(ax, region, width=2)
    x, y, columns, rows = region.pixel_box
    places = vertices(ax)
    inside = (places > [x, y]) & (places < [x + columns - 1, y + rows - 1])
    assert len(places) and inside.all()


def test_neighbours_outlines_do_not_meet(ax):
    left, right = np.zeros((2, 120, 160), bool)
    left[20:100, 20:80] = True
    right[20:100, 80:140] = True
    draw_outline(ax, Region.from_mask(1, left), width=2)
    edge = vertices(ax)[:, 0].max()
    draw_outline(ax, Region.from_mask(2, right), width=2)
    assert vertices(ax)[:, 0].min() - edge > 1


@pytest.mark.parametrize("thin", [(slice(40, 42), slice(10, 150)), (slice(5, 6), slice(5, 6))])
def test_a_region_too_thin_for_that_has_an_outline_all_the_same(ax, thin):
    mask = np.zeros((120, 160), bool)
    mask[thin] = True
    draw_outline(ax, Region.from_mask(1, mask), width=2)
    assert len(vertices(ax)) > 3


def test_a_region_at_the_border_is_closed(ax):
    draw_outline(ax, Region.from_mask(1, np.ones((120, 160), bool)), width=1)
    (path,) = ax.collections[-1].get_paths()
    assert np.array_equal(path.vertices[0], path.vertices[-1])
    assert path.vertices.min(0) == pytest.approx([0, 0], abs=1)
    assert path.vertices.max(0) == pytest.approx([159, 119], abs=1)


def test_outside_of_the_bright_regions_is_dimmed_and_they_are_not(image):
    ax = plt.figure().add_axes((0, 0, 1, 1))
    draw_photo(ax, image.pixels, [image[11], image[21]])
    shown, bright = ax.images[0].get_array(), image[11].mask | image[21].mask
    assert (shown[bright] == image.pixels[bright]).all()
    assert (shown[~bright] < image.pixels[~bright]).all()


@pytest.mark.parametrize("region_id", [1, 21, 111])
@pytest.mark.parametrize("shape", [4 / 3, 1, 1 / 3])
def test_a_close_up_holds_its_region_and_stays_on_the_photo(image, region_id, shape):
    left, top, right, bottom = close_view(image[region_id], shape, 0.3, least=0.2)
    x, y, columns, rows = image[region_id].pixel_box
    assert (right - left) / (bottom - top) == pytest.approx(shape)
    assert left <= x and x + columns <= right and top <= y and y + rows <= bottom
    if bottom - top <= 120:  # else the photo is too flat for a tall strip
        assert min(left, top) >= 0 and right <= 160 and bottom <= 120


def test_a_large_photo_is_reduced_and_its_outlines_stay_in_place():
    mask = np.zeros((3000, 4000), bool)
    mask[1000:2000, 1500:3000] = True
    region = Region.from_mask(1, mask)
    ax = plt.figure(figsize=(2, 1.5)).add_axes((0, 0, 1, 1))
    draw_photo(ax, np.full((3000, 4000, 3), 200, np.uint8), [region])
    assert max(ax.images[0].get_array().shape) <= 400
    assert ax.images[0].get_extent() == [-0.5, 3999.5, 2999.5, -0.5]
    draw_outline(ax, region)
    places = vertices(ax)
    box = [*places.min(0), *places.max(0)]
    assert box == pytest.approx([1500, 1000, 3000, 2000], abs=50)
    line = np.zeros((3000, 4000), bool)
    line[100, 101:3900:7] = True  # dots of a pixel, most of which no sample would meet
    region = Region.from_mask(2, line)
    draw_outline(ax, region)
    assert vertices(ax)[:, 0].max() == pytest.approx(3900, abs=20)
    x, y = map(int, anchor_point(region))
    assert line[y, x]


def test_an_anchor_is_in_its_region_and_not_in_its_parts(image):
    x, y = map(int, anchor_point(image[1], [image[11]]))
    assert image[1].mask[y, x] and not image[11].mask[y, x]
    x, y = map(int, anchor_point(image[11], [image[1]]))  # nothing is left of it
    assert image[11].mask[y, x]


def linear(color) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear RGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", ["all", *BLIND])
def test_every_two_colors_can_be_told_apart(kind):
    numbers = BLIND.get(kind, "1 0 0 0 1 0 0 0 1").split()
    matrix = np.array(numbers, float).reshape(3, 3)
    seen = {color: lab(matrix @ linear(color)) for color in PALETTE}
    least = min(np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(PALETTE, 2))
    assert least > 10, least  # four times what is just noticeable


@pytest.mark.parametrize("color", [INK, FAINT])
def test_text_stands_out_from_paper(color):
    luminance = linear(color) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 4.5  # WCAG 2, level AA
