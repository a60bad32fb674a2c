"""Figures of tiles show the tiles, and the numbers under them are right."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from ureca_lib.figures.tiles import (
    fidelity_figure,
    masks_kept,
    resizing_figure,
    tiles_figure,
)
from ureca_lib.regions import Region, RegionImage
from ureca_lib.tiling import tile_image, tile_masks


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def scene():
    """A photo of 90 x 60 pixels with a dot, a line and a square, none larger than a tile."""
    generator = np.random.default_rng(0)
    masks = np.zeros((3, 60, 90), bool)
    masks[0, 31, 41] = masks[1, 5:50, 20] = masks[2, 10:50, 30:70] = True
    names = ("dot", "line", "square")
    regions = [Region.from_mask(i, m, n) for i, (m, n) in enumerate(zip(masks, names, strict=True))]
    return RegionImage(regions, 90, 60, photo=generator.integers(0, 256, (60, 90, 3), np.uint8))


def pictures(ax):
    return [np.asarray(image.get_array()) for image in ax.images]


def test_the_tiles_are_shown_at_their_places(scene):
    left, right = tiles_figure(scene, None, 6, 28).axes
    tiles = tile_image(scene.pixels, 6, 28).numpy()
    assert np.array_equal(pictures(right), tiles)
    corners = [image.get_extent()[::3] for image in right.images]  # left and top
    assert sorted(corners[:6], key=lambda corner: (corner[1], corner[0])) == corners[:6]
    assert corners[6][0] > max(x for x, _ in corners[:6])
    assert len(left.lines) == 3  # two between columns, one between rows
    assert "3 × 2" in left.get_title() and "7 tiles" in right.get_title()


def test_a_photo_of_one_tile_has_no_grid_and_no_thumbnail(scene):
    left, right = tiles_figure(scene, None, 1, 28).axes
    assert not left.lines
    assert len(right.images) == 1


def test_tiles_of_one_value_are_counted_and_marked(scene):
    _, right = tiles_figure(scene, 1, 6, 28).axes
    tiles = tile_masks([scene[1]], 6, 28, thumbnail=True)[0].flatten(1)
    constant = [bool(tile.min() == tile.max()) for tile in tiles]
    assert 0 < sum(constant) < 7
    assert right.get_title().startswith(f"{sum(constant)} of 7 tiles")
    widths = [frame.get_linewidth() for frame in right.patches]
    assert [width < 1 for width in widths] == constant


def test_what_is_kept_is_what_pillow_keeps(scene):
    for most, grid in ((1, (1, 1)), (6, (3, 2))):
        back, pixels, share = masks_kept(scene.regions, most, 28)
        for region, *found in zip(scene.regions, back, pixels, share, strict=True):
            small = Image.fromarray(region.mask).resize((28 * grid[0], 28 * grid[1]), Image.NEAREST)
            again = np.asarray(small.resize((90, 60), Image.NEAREST))
            assert np.array_equal(found[0], again)
            assert found[1] == np.asarray(small).sum()
            common, union = (again & region.mask).sum(), (again | region.mask).sum()
            assert found[2] == pytest.approx(common / union)


def test_a_lost_region_is_said_to_be_lost(scene):
    titles = [ax.get_title() for ax in resizing_figure(scene, [0, 2], 6, 28).axes]
    assert len(titles) == 6
    assert titles[0] == "the region\ndot, 1 px"
    assert titles[1] == "one mask, 28 × 28\n0 px, IoU 0.00"
    _, pixels, share = masks_kept([scene[2]], 6, 28)
    assert titles[5] == f"tiles of that size\n{pixels[0]} px, IoU {share[0]:.2f}"


def test_close_ups_stay_inside_the_photo(scene):
    for ax in resizing_figure(scene, [0, 1, 2], 6, 28).axes:
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert left >= -0.5 and right <= 89.5
        assert top >= -0.5 and bottom <= 59.5


def test_every_region_of_every_photo_is_a_point(scene):
    (ax,) = fidelity_figure({"one": scene, "two": scene}, 6, 28).axes
    shares = [100 / 5400, 4500 / 5400, 160000 / 5400] * 2
    for points, most in zip(ax.collections, (6, 1), strict=True):
        kept = np.tile(masks_kept(scene.regions, most, 28)[2], 2)
        assert np.allclose(points.get_offsets(), np.stack([shares, kept], axis=1))


def test_one_tile_at_most_makes_both_ways_the_same(scene):
    axes = resizing_figure(scene, [1], 1, 28).axes
    notes = [ax.get_title().split("\n")[1] for ax in axes]
    assert notes[1] == notes[2]
    assert np.array_equal(pictures(axes[1])[0], pictures(axes[2])[0])
