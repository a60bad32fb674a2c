"""`Region`: what it keeps, what it refuses, and its boxes."""

from __future__ import annotations

import copy
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools import mask as coco_mask
from regions.documents import compressed, masks, runs_of, square

from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    Region,
)

SQUARE = compressed(square(2, 4))


@settings(deadline=None, max_examples=100)
@given(masks())
def test_a_region_is_its_mask(mask):
    region = Region.from_mask(3, mask, "thing")
    assert region.mask.dtype == bool
    assert (region.mask == mask).all()
    assert region.size == mask.shape
    assert region.area == mask.sum() and type(region.area) is int
    assert type(region.rle["counts"]) is bytes
    rows, columns = np.nonzero(mask)
    x, y = columns.min(), rows.min()
    assert region.pixel_box == (x, y, np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert region.pixel_box == tuple(coco_mask.toBbox(region.rle))
    assert region.bbox == (x, y, np.ptp(columns), np.ptp(rows))  # as SA-1B writes it


@settings(deadline=None, max_examples=60)
@given(masks())
def test_every_encoding_of_a_mask_makes_an_equal_region(mask):
    packed = compressed(mask)
    runs = runs_of(mask)
    split = [runs[0], 1, 0, runs[1] - 1, *runs[2:]]  # an empty run inside the first
    others = [packed, {**packed, "counts": runs}, {**packed, "counts": split}]
    regions = [Region.from_mask("a", mask), *(Region("a", rle) for rle in others)]
    assert len(set(regions)) == 1
    assert all(region == regions[0] for region in regions)
    assert Region("b", packed) != regions[0]
    assert Region("a", packed, name="x") != regions[0]
    assert regions[0] != "a"


def test_the_mask_is_decoded_each_time_and_never_kept():
    region = Region(1, SQUARE)
    first = region.mask
    first[:] = True
    assert (region.mask == square(2, 4)).all()
    kept = [getattr(region, name) for name in Region.__slots__]
    assert not hasattr(region, "__dict__")
    assert not any(isinstance(value, np.ndarray) for value in kept)


def test_many_large_regions_take_little_memory():
    counts = [5_000, 1_000_000, 2_370_000]
    tracemalloc.start()
    regions = [Region(i, {"size": [1500, 2250], "counts": counts}) for i in range(300)]
    pixels = sum(region.mask.sum() for region in regions[:3])
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels == 3_000_000
    assert kept < 1_000_000  # one decoded mask would take 3.4 MB


def test_genuine_sa1b_annotations_state_the_area_and_the_box_that_a_region_computes(peer):
    documents = json.loads((peer / "sa1b_excerpts.json").read_text())
    assert len(documents) == 3
    for document in documents:
        for annotation in document["annotations"]:
            region = Region(annotation["id"], annotation["segmentation"])
            assert region.area == annotation["area"]
            assert list(region.bbox) == annotation["bbox"]
            x, y, width, height = annotation["bbox"]
            assert region.pixel_box == (x, y, width + 1, height + 1)


def test_a_stated_box_is_kept():
    region = Region(1, SQUARE, bbox=[1, 2, 3.5, np.float32(4)])
    assert region.bbox == (1.0, 2.0, 3.5, 4.0)
    assert all(type(side) is float for side in region.bbox)
    assert region.pixel_box == (4, 2, 3, 3)
    assert Region(1, SQUARE, bbox=np.array([1, 2, 3, 4])).bbox == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "bbox",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, 3, None],
        [1, 2, 3, "4"],
        [1, 2, 3, True],
        [1, 2, 3, float("nan")],
        [1, 2, 3, float("inf")],
        [1, 2, 3, 10**400],
        [1, 2, 3, 4j],
        [[1, 2, 3, 4]],
        "1234",
        b"1234",
        5,
        {},
        np.array(4),
        np.ones((4, 4)),
        list(range(100_000)),
    ],
)
def test_a_bad_box_is_named(bbox):
    with pytest.raises(
        AnnotationFormatError, match="region 8: a box is four finite numbers"
    ) as caught:
        Region(8, SQUARE, bbox=bbox)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("area", [9, 9.0, np.int64(9), np.float32(9), None])
def test_the_right_area_is_accepted(area):
    assert Region(1, SQUARE, area=area).area == 9


@pytest.mark.parametrize("area", [8, 9.5, 14773001, -9, 0, float("nan"), float("inf"), 10**400])
def test_the_masks_own_area_counts_and_a_difference_is_a_warning(area):
    with pytest.warns(UserWarning, match=r"region 8: the stated area is .* has 9 pixels") as caught:
        region = Region(8, SQUARE, area=area)
    assert region.area == 9
    assert len(str(caught[0].message)) < 300
    notes = []
    Region(8, SQUARE, area=area, note=notes.append)
    assert notes == [str(caught[0].message)]


@pytest.mark.parametrize("area", [True, "9", [9], {}])
def test_an_area_that_is_no_number_is_named(area):
    with pytest.raises(AnnotationFormatError, match="region 8: an area is a number, not"):
        Region(8, SQUARE, area=area)


@pytest.mark.parametrize("region_id", [0, -1, 2**80, "x", "", "Größe 樹", np.int64(5)])
def test_an_id_is_a_whole_number_or_a_string(region_id):
    region = Region(region_id, SQUARE)
    assert region.id == region_id
    assert json.loads(json.dumps(region.id)) == region_id


@pytest.mark.parametrize("region_id", [None, 1.0, True, [1], {}, b"x", (1,), np.float64(2)])
def test_anything_else_is_no_id(region_id):
    with pytest.raises(AnnotationFormatError, match="an id is a whole number or a string"):
        Region(region_id, SQUARE)


@pytest.mark.parametrize("name", [5.5, ["boot"], b"boot", True])
def test_a_name_is_a_string(name):
    with pytest.raises(AnnotationFormatError, match="region 8: a name is a string"):
        Region(8, SQUARE, name=name)


@pytest.mark.parametrize("name", [5, np.int64(5), "5"])
def test_a_name_may_be_a_number(name):
    assert Region(8, SQUARE, name=name).name == "5"


def test_the_repr_says_what_it_is():
    assert repr(Region(5, SQUARE)) == "Region(5, 9 px of 16 x 12)"
    assert repr(Region("e", SQUARE, name="eye")) == "Region(e 'eye', 9 px of 16 x 12)"


def test_a_region_survives_copying_to_another_process():
    region = Region(5, SQUARE, bbox=[1, 2, 3, 4], name="eye", crowd=True)
    again = copy.deepcopy(region)
    assert again == region and hash(again) == hash(region)
    assert (again.bbox, again.area, again.crowd) == ((1, 2, 3, 4), 9, True)


@pytest.mark.parametrize(
    "array",
    [
        square(2, 4).astype(np.uint8) * 255,
        square(2, 4) * 0.25,
        square(2, 4) * -3,
        square(2, 4).astype(np.float16),
        square(2, 4).astype(np.uint16) * 256,
        square(2, 4).tolist(),
        np.asfortranarray(square(2, 4)),
        square(2, 4)[:, ::-1].copy()[:, ::-1],
        square(2, 4).T.copy().T,
    ],
)
def test_what_is_not_zero_is_inside(array):
    assert (Region.from_mask(1, array).mask == square(2, 4)).all()


@pytest.mark.parametrize(
    ("array", "error", "reason"),
    [
        (np.zeros((4, 3)), EmptyMaskError, "no pixels"),
        (np.zeros((0, 3), bool), EmptyMaskError, "no pixels"),
        (np.full((4, 3), np.nan), AnnotationFormatError, "NaN"),
        (np.ones((4, 3, 1)), AnnotationFormatError, "3-dimensional"),
        (np.ones(4), AnnotationFormatError, "1-dimensional"),
        (np.ones((4, 3), complex), AnnotationFormatError, "complex"),
        (np.array([["a", "b"]]), AnnotationFormatError, "of numbers"),
        (np.array([[1, None]]), AnnotationFormatError, "object"),
        ([[1, 0], [1]], AnnotationFormatError, "no array"),
        (None, AnnotationFormatError, "0-dimensional"),
    ],
)
def test_a_bad_array_is_named(array, error, reason):
    with pytest.raises(error, match=f"region 8: .*{reason}"):
        Region.from_mask(8, array)
