"""What is measured of each region by itself."""

from __future__ import annotations

import numpy as np
import pytest
from annotate.drawn import BLUE, GREEN, RED, ellipse, image_of, images, rectangle
from hypothesis import given, settings

from ureca_lib.annotate.cuts import Cut
from ureca_lib.annotate.referring.attributes import (
    mask_keys,
    measure_outline,
    region_noun,
)
from ureca_lib.annotate.referring.predicates import ImageAttributes
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import FileMissingError, Region, RegionImage

SIZE = (60, 80)


def scene_of(image: RegionImage) -> ImageAttributes:
    return ImageAttributes(image, build_mask_tree(image.regions))


def measured(image: RegionImage):
    scene = scene_of(image)
    return dict(zip(scene.ids, scene.regions, strict=True))


@settings(max_examples=30, deadline=None)
@given(images())
def test_figures_are_those_of_the_decoded_masks(image):
    for region in image:
        found = measured(image)[region.id]
        ys, xs = np.nonzero(region.mask)
        assert found.area == len(ys)
        assert found.center == pytest.approx((xs.mean(), ys.mean()))
        assert found.box == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        cut = Cut.of(region)
        assert cut.box == found.box
        assert (cut.mask == region.mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]).all()


@settings(max_examples=30, deadline=None)
@given(images())
def test_regions_with_the_same_mask_measure_the_same(image):
    found, keys = measured(image), mask_keys(image)
    for one in image:
        for other in image:
            same = bool((one.mask == other.mask).all())
            assert (keys[one.id] == keys[other.id]) == same
            if same:
                assert found[one.id] == found[other.id]


def test_equal_masks_have_one_key_however_they_are_encoded():
    plain = Region(1, {"size": [2, 3], "counts": [1, 3, 2]})
    split = Region(2, {"size": [2, 3], "counts": [1, 1, 0, 2, 2, 0]})
    other = Region(3, {"size": [2, 3], "counts": [0, 1, 0, 3, 2]})
    keys = mask_keys([plain, split, other])
    assert keys[1] == keys[2] != keys[3]


def test_a_region_that_equals_its_parent_is_no_part_of_it():
    mask = rectangle(SIZE, 5, 5, 20)
    image = image_of([mask, mask, rectangle(SIZE, 8, 8, 4)])
    scene = scene_of(image)
    assert scene.ancestors[0] == scene.ancestors[1] == []
    assert set(scene.ancestors[2]) == {0, 1}
    assert scene.nouns == ["main region", "main region", "part"]


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        *(("eye", "eye"), ("the eye", "eye"), ("A coffee  cup ", "coffee cup")),
        *(("theatre", "theatre"), ("a", "a"), ("NASA logo", "NASA logo")),
    ],
)
def test_names_lose_their_article(name, noun):
    assert region_noun(name) == noun


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        *(("car, auto, automobile, machine", "car"), ("door;double door", "door")),
        *(("tree-merged", "tree"), ("wall-other-merged", "wall"), ("mirror-stuff", "mirror")),
        *(("dining_table", "dining table"), ("pagoda_02", "pagoda"), ("tree-1", "tree")),
        *(("lake3", "lake"), ("bow_(weapon)", "bow"), ("t-shirt", "t-shirt"), ("7up", "7up")),
        *(("stage 2", "stage 2"), ("brother", "brother"), ("Åre_1", "Åre")),
    ],
)
def test_names_of_categories_and_mask_files_are_read_as_nouns(name, noun):
    assert region_noun(name) == noun


def test_a_crowd_is_several_things():
    assert region_noun("person", crowd=True) == "people"
    assert region_noun("books", crowd=True) == "books"


@pytest.mark.parametrize("name", [None, "", "   ", "12", "mask_007", "Region", "part", "---"])
def test_what_has_no_name_is_a_region_or_a_part(name):
    assert region_noun(name) == region_noun(name, crowd=True) == ""
    assert scene_of(image_of([rectangle(SIZE, 5, 5, 20)], [name])).nouns == ["region"]
    nested = image_of([rectangle(SIZE, 5, 5, 20), rectangle(SIZE, 8, 8, 4)], [name] * 2)
    assert scene_of(nested).nouns == ["main region", "part"]


def test_the_color_of_a_whole_is_without_its_parts():
    whole, part = rectangle(SIZE, 10, 10, 40), rectangle(SIZE, 12, 12, 30)
    found = measured(image_of([whole, part], colors=[RED, BLUE]))
    assert found[1].said["color"][0] == "red"
    assert "blue" not in found[1].fits
    assert found[2].said["color"][0] == "blue"


def test_a_group_that_its_members_cover_has_their_color():
    left, right = rectangle(SIZE, 5, 5, 20), rectangle(SIZE, 40, 5, 20)
    found = measured(image_of([left | right, left, right], colors=[GREEN, RED, RED]))
    assert found[1].said["color"][0] == "red"


def test_colors_of_large_regions_are_those_of_their_pixels():
    size = (900, 1200)
    mask = ellipse(size, 600, 450, 590, 440)
    found = measured(image_of([mask], colors=[BLUE]))
    assert found[1].said["color"][0] == "blue"


SHAPES = {
    "round": ellipse(SIZE, 30, 30, 20, 20),
    "square": rectangle(SIZE, 10, 10, 30),
    "rectangular": rectangle(SIZE, 10, 10, 45, 30),
    "tall": rectangle(SIZE, 30, 5, 8, 50),
    "wide": rectangle(SIZE, 5, 30, 60, 10),
    "ring-shaped": ellipse(SIZE, 30, 30, 25, 25) & ~ellipse(SIZE, 30, 30, 16, 16),
    "long": np.eye(60, 80, dtype=bool) | np.eye(60, 80, 1, dtype=bool),
}


@pytest.mark.parametrize("word", SHAPES)
def test_a_clear_shape_is_said(word):
    found = measured(image_of([SHAPES[word]]))[1]
    assert word in found.said["shape"]
    assert set(found.said["shape"]) <= found.fits


def test_shapes_that_are_far_apart_rule_each_other_out():
    fits = {word: measured(image_of([mask]))[1].fits for word, mask in SHAPES.items()}
    assert "tall" not in fits["wide"] and "wide" not in fits["tall"]
    assert "square" not in fits["long"] and "ring-shaped" not in fits["round"]
    assert "round" not in fits["tall"] and "long" not in fits["square"]
    # a square with a little less height still is one
    nearly = measured(image_of([rectangle(SIZE, 10, 10, 30, 25)]))[1]
    assert "square" in nearly.fits and "square" not in nearly.said["shape"]


def test_a_table_around_a_cup_is_not_said_to_be_ring_shaped():
    table = rectangle(SIZE, 5, 5, 50, 45) & ~ellipse(SIZE, 30, 28, 16, 16)
    found = measured(image_of([table]))[1]
    assert "ring-shaped" not in found.said["shape"] and "ring-shaped" in found.fits


def test_a_tiny_region_has_no_shape_and_every_shape_fits():
    found = measured(image_of([rectangle(SIZE, 10, 10, 1)]))[1]
    assert found.said["shape"] == ()
    assert set(SHAPES) <= found.fits


def test_outlines_do_not_depend_on_scale():
    small = measure_outline(ellipse((100, 100), 49.5, 49.5, 50, 25)[25:75])
    large = measure_outline(ellipse((1000, 1000), 499.5, 499.5, 500, 250)[250:750])
    assert small == pytest.approx(large, abs=0.05)
    assert large.ratio == pytest.approx(2, abs=0.03)
    assert large.solid == pytest.approx(1, abs=0.02)
    assert large.fill == pytest.approx(np.pi / 4, abs=0.01)


def test_a_photo_that_is_needed_and_missing_is_an_error():
    image = RegionImage([Region.from_mask(1, rectangle(SIZE, 1, 1))], SIZE[1], SIZE[0])
    with pytest.raises(FileMissingError):
        measured(image)


def test_a_tree_of_other_regions_is_an_error():
    image = image_of([rectangle(SIZE, 1, 1), rectangle(SIZE, 30, 1)])
    with pytest.raises(ValueError, match="not of the same regions: 2"):
        ImageAttributes(image, build_mask_tree(image.regions[:1]))
