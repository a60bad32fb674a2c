"""Regions from polygons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    Region,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.rle import is_finite

TRIANGLE = [1, 1, 9, 1, 1, 9]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 14), st.integers(0, 10), st.integers(1, 18), st.integers(1, 20))
def test_a_rectangle_is_filled_to_its_edges_and_cut_at_the_images(x, y, columns, rows):
    region = Region.from_polygons(1, [rectangle(x, y, x + columns, y + rows)], 12, 16)
    expected = np.zeros((12, 16), bool)
    expected[y : y + rows, x : x + columns] = True
    assert (region.mask == expected).all()


POINTS = st.lists(
    st.tuples(st.floats(-5, 20, width=32), st.floats(-5, 20, width=32)), min_size=3, max_size=7
)


@settings(deadline=None, max_examples=60)
@given(st.lists(POINTS, min_size=1, max_size=4))
def test_several_polygons_are_their_union(rings):
    union = np.zeros((12, 16), bool)
    for ring in rings:
        try:
            union |= Region.from_polygons(1, [ring], 12, 16).mask
        except EmptyMaskError:
            continue
    if not union.any():
        with pytest.raises(EmptyMaskError, match="region 1: the mask has no pixels"):
            Region.from_polygons(1, rings, 12, 16)
        return
    together = Region.from_polygons(1, rings, 12, 16)
    assert (together.mask == union).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 14), st.integers(-3, 18)), min_size=0, max_size=6))
def test_any_ring_is_filled_as_pycocotools_fills_it_or_refused(points):
    flat = [float(value) for point in points for value in point]
    try:
        region = Region.from_polygons(1, [flat], 12, 16)
    except RegionError as error:
        wanted = AnnotationFormatError if len(points) < 3 else EmptyMaskError
        assert type(error) is wanted
        if wanted is EmptyMaskError:
            assert coco_mask.decode(coco_mask.frPyObjects([flat], 12, 16)).sum() == 0
        return
    filled = coco_mask.decode(coco_mask.frPyObjects([flat], 12, 16))[..., 0]
    assert (region.mask == filled).all()


def test_rings_are_flat_or_pairs_lists_tuples_or_arrays():
    flat = Region.from_polygons(1, [TRIANGLE], 12, 16, name="sail")
    pairs = [(1, 1), (9, 1), (1, 9)]
    rings = (tuple(TRIANGLE), pairs, np.array(TRIANGLE), np.array(pairs), np.array(pairs, "f4"))
    for ring in rings:
        assert Region.from_polygons(1, [ring], 12, 16, name="sail") == flat
    assert Region.from_polygons(1, np.array([pairs]), 12, 16, name="sail") == flat
    assert flat.name == "sail"
    assert Region.from_polygons(1, [TRIANGLE], np.int32(12), np.int64(16)).size == (12, 16)


@pytest.mark.parametrize(
    ("polygons", "error", "reason"),
    [
        ([], EmptyMaskError, "there is no polygon"),
        ([[2, 2, 5, 5, 9, 9]], EmptyMaskError, "no pixels"),  # a line
        ([[3, 3, 3, 3, 3, 3]], EmptyMaskError, "no pixels"),  # a point
        ([rectangle(20, 2, 24, 6)], EmptyMaskError, "no pixels"),  # beside the image
        ([[1, 2, 3, 4]], AnnotationFormatError, "at least three"),
        ([[]], AnnotationFormatError, "at least three"),
        ([[1, 2, 3, 4, 5, 6, 7]], AnnotationFormatError, "at least three"),
        ([[1, 2, 3, 4], [1, 2]], AnnotationFormatError, "at least three"),
        ([TRIANGLE, [1, 2, 3]], AnnotationFormatError, "finite numbers"),
        ([[1, 1, 9, 1, 1, None]], AnnotationFormatError, "finite numbers"),
        ([[1, 1, 9, 1, 1, "9"]], AnnotationFormatError, "finite numbers"),
        ([[1, 1, 9, 1, 1, True]], AnnotationFormatError, "finite numbers"),
        ([[1, 1, 9, 1, 1, float("nan")]], AnnotationFormatError, "finite numbers"),
        ([[1, 1, 9, 1, 1, float("inf")]], AnnotationFormatError, "finite numbers"),
        ([[1, 1, 9, 1, 1, 10**400]], AnnotationFormatError, "finite numbers"),
        ([[(1, 1), 9, (1, 9)]], AnnotationFormatError, "finite numbers"),
        ([[(1, 1, 1), (9, 1, 1), (1, 9, 1)]], AnnotationFormatError, "finite numbers"),
        (["123456"], AnnotationFormatError, "list of coordinates"),
        ([b"123456"], AnnotationFormatError, "list of coordinates"),
        ([None], AnnotationFormatError, "list of coordinates"),
        ([{"x": 1}], AnnotationFormatError, "list of coordinates"),
        ([np.array(5)], AnnotationFormatError, "list of coordinates"),
        ([*TRIANGLE, None], AnnotationFormatError, "list of coordinates"),
        (None, AnnotationFormatError, "list of rings"),
        (5, AnnotationFormatError, "list of rings"),
        ([rectangle(0, 0, 33, 4)], SizeMismatchError, "far outside"),
        ([rectangle(-17, 0, 4, 4)], SizeMismatchError, "far outside"),
        ([rectangle(0, 0, 1e9, 4)], SizeMismatchError, "far outside"),
        ([rectangle(-(2**31), 0, 4, 4)], SizeMismatchError, "far outside"),
    ],
)
def test_bad_polygons_have_their_own_error(polygons, error, reason):
    with pytest.raises(error, match=f"region 8: .*{reason}") as caught:
        Region.from_polygons(8, polygons, 12, 16)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("size", "error"),
    [
        ((0, 16), SizeMismatchError),
        ((12, -16), SizeMismatchError),
        ((12.0, 16), AnnotationFormatError),
        ((2**20, 2**20), AnnotationFormatError),
    ],
)
def test_a_bad_size_has_its_own_error(size, error):
    with pytest.raises(error, match="region 8"):
        Region.from_polygons(8, [TRIANGLE], *size)


def test_an_outline_without_end_is_refused_before_it_is_drawn():
    to_and_fro = [0, 0, 4000, 4000] * 1500
    with pytest.raises(AnnotationFormatError, match="region 8: the polygons' outline"):
        Region.from_polygons(8, [to_and_fro], 4000, 4000)
    with pytest.raises(AnnotationFormatError, match="region 8: the polygons' outline"):
        Region.from_polygons(8, [[0, 0, 4000, 4000, 4000, 0]] * 500, 4000, 4000)


def test_is_finite_knows_what_a_float_holds():
    assert all(map(is_finite, (0, -1.5, 2**1000, np.float32(2), np.int8(3))))
    wrong = (True, None, "1", 10**400, float("nan"), np.inf, 1j, np.bool_(True), np.complex64(1))
    assert not any(map(is_finite, wrong))
