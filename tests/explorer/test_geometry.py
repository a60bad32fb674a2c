"""Clicks pick the smallest region; outlines enclose the pixels of the mask."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from annotate.drawn import ellipse, image_of, images, rectangle
from hypothesis import given, settings
from matplotlib.path import Path as Outline
from PIL import Image

from ureca_lib.explorer.geometry import (
    LabelMap,
    drawn_region,
    outline_path,
    outline_rings,
    photo_jpeg,
)
from ureca_lib.regions import AnnotationFormatError, EmptyMaskError, Region


@settings(max_examples=40, deadline=None)
@given(images())
def test_each_pixel_gives_the_smallest_region_that_has_it(image):
    labels = LabelMap(image.regions)
    for row in range(0, image.height, 3):
        for column in range(0, image.width, 3):
            there = [region for region in image if region.mask[row, column]]
            found = labels.at(column + 0.5, row + 0.5)
            if not there:
                assert found is None
            else:
                assert image[found].area == min(region.area for region in there)
                assert image[found].mask[row, column]


@pytest.mark.parametrize("place", [(-0.1, 5), (5, -0.1), (40, 5), (5, 30), (1e9, 5)])
def test_outside_the_image_there_is_nothing(place):
    labels = LabelMap([Region.from_mask(1, np.ones((30, 40), bool))])
    assert labels.at(*place) is None
    assert labels.at(39.9, 29.9) == 1


def enclosed(region: Region) -> np.ndarray:
    """(H, W) bool: pixels whose center is within an odd number of the region's rings."""
    height, width = region.size
    centers = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2) + 0.5
    count = sum(
        Outline(ring).contains_points(centers).astype(int) for ring in outline_rings(region)
    )
    return (count % 2 == 1).reshape(height, width)


@settings(max_examples=40, deadline=None)
@given(images())
def test_outlines_enclose_the_mask(image):
    for region in image:
        # corners are cut by half a pixel, so a single pixel's diamond still contains its center
        assert np.mean(enclosed(region) != region.mask) <= 0.002


def test_a_hole_is_not_enclosed():
    mask = ellipse((60, 60), 30, 30, 25, 25) & ~ellipse((60, 60), 30, 30, 10, 10)
    region = Region.from_mask(1, mask)
    assert len(outline_rings(region)) == 2
    assert not enclosed(region)[30, 30] and enclosed(region)[30, 12]


def test_the_outline_of_a_very_large_mask_is_that_of_a_smaller_copy():
    region = Region.from_mask(1, rectangle((3000, 4000), 501, 400, 3001, 2001))
    (ring,) = outline_rings(region)
    np.testing.assert_allclose(ring.min(0), (501, 400), atol=2)
    np.testing.assert_allclose(ring.max(0), (3502, 2401), atol=2)


def test_the_path_is_the_rings():
    region = Region.from_mask(1, rectangle((30, 40), 10, 5, 12, 8))
    path = outline_path(region)
    assert re.fullmatch(r"M[\d. ]+Z", path)
    numbers = np.array(path.strip("MZ").split(), float).reshape(-1, 2)
    np.testing.assert_allclose(numbers.min(0), (10, 5), atol=0.5)
    np.testing.assert_allclose(numbers.max(0), (22, 13), atol=0.5)


def test_large_photos_are_made_smaller_and_others_are_not():
    noise = np.random.default_rng(0).integers(0, 256, (300, 900, 3), dtype=np.uint8)
    small = Image.open(io.BytesIO(photo_jpeg(noise, side=450)))
    assert (small.size, small.format) == ((450, 150), "JPEG")
    assert Image.open(io.BytesIO(photo_jpeg(noise))).size == (900, 300)


def test_two_points_are_a_box_in_any_order():
    one = drawn_region("drawn 1", [(22, 5), (10, 13)], (30, 40))
    np.testing.assert_array_equal(one.mask, rectangle((30, 40), 10, 5, 12, 8))


def test_more_points_are_a_polygon_and_what_is_outside_is_cut_off():
    triangle = drawn_region("drawn 1", [(-50, 0), (40, 0), (40, 90)], (30, 40))
    assert triangle.mask[2, 35] and not triangle.mask[29, 0]
    square = drawn_region("drawn 2", [(5, 5), (15, 5), (15, 15), (5, 15)], (30, 40))
    assert square.area == pytest.approx(100, abs=25)


@pytest.mark.parametrize(
    "points", [[], [(1, 1)], [(1, float("nan")), (2, 2)], "ab", [(1,), (2, 3)]]
)
def test_what_is_no_drawing_is_refused(points):
    with pytest.raises(AnnotationFormatError, match="drawn 1"):
        drawn_region("drawn 1", points, (30, 40))


@pytest.mark.parametrize("points", [[(5, 5), (5.2, 20)], [(50, 50), (70, 70)]])
def test_a_box_without_pixels_is_refused(points):
    with pytest.raises(EmptyMaskError):
        drawn_region("drawn 1", points, (30, 40))


def test_regions_of_one_image_are_labelled_whatever_their_order():
    masks = [
        rectangle((30, 40), 5, 5, 4),
        rectangle((30, 40), 0, 0, 20),
        rectangle((30, 40), 3, 3, 9),
    ]
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        image = image_of([masks[i] for i in order], ids=[order[i] for i in range(3)])
        labels = LabelMap(image.regions)
        assert [labels.at(x, x) for x in (6, 4, 1, 25)] == [0, 2, 1, None]
