"""COCO instance JSON: polygons, encodings, crowds, and entries that are bad."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from regions.documents import (
    JSON_VALUES,
    compressed,
    paths_of,
    replaced,
    runs_of,
    square,
    write_json,
)
from regions.test_sa1b import BAD_FILES

from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    RegionError,
    SizeMismatchError,
    load_coco,
    load_regions,
    save_sa1b,
)

RING = np.ones((12, 16), bool)
RING[4:8, 4:8] = False  # a hole, which polygons cannot hold


def coco_document():
    """Two images of 16 x 12 and one of 9 x 9; the first has four regions, the last none."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 1, "width": 16, "height": 12, "file_name": "one.png"},
            {"id": "two", "width": 16, "height": 12, "file_name": "val/two.png"},
            {"id": 3, "width": 9, "height": 9},
        ],
        "categories": [{"id": 1, "name": "boot"}, {"id": 7, "name": "dog", "supercategory": "a"}],
        "annotations": [
            {
                "id": 5,
                "image_id": 1,
                "category_id": 7,
                "iscrowd": 0,
                "area": 15.5,  # of the polygons, not of their pixels
                "bbox": [1, 1, 3, 3],
                "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4], [8, 8, 10, 8, 10, 10, 8, 10]],
            },
            {
                "id": 6,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 1,
                "area": 9,
                "segmentation": {"size": [12, 16], "counts": runs_of(square(2, 2))},
            },
            {"id": 5, "image_id": "two", "segmentation": compressed(square(5, 5, 2))},
            {"id": 8, "image_id": 1, "area": 176.0, "segmentation": compressed(RING)},
            {"id": "x", "image_id": 1, "segmentation": [[0, 0, 16, 0, 16, 12, 0, 12]]},
        ],
    }


@pytest.fixture
def path(tmp_path):
    return write_json(tmp_path / "instances.json", coco_document())


def test_every_image_has_its_regions_in_file_order(path):
    one, two, three = load_coco(path)
    assert [region.id for region in one] == [5, 6, 8, "x"]
    assert [region.name for region in one] == ["dog", "boot", None, None]
    assert [region.crowd for region in one] == [False, True, False, False]
    assert (one[5].mask == (square(1, 1) | square(8, 8, 2))).all()
    assert one[5].bbox == (1, 1, 3, 3) and one[6].bbox == (2, 2, 2, 2)
    assert (one[6].mask == square(2, 2)).all()
    assert (one[8].mask == RING).all()
    assert one["x"].area == 192
    assert (two[5].mask == square(5, 5, 2)).all() and len(three) == 0
    assert [(i.image_id, i.file_name) for i in (one, two, three)] == [
        (1, "one.png"),
        ("two", "val/two.png"),
        (3, None),
    ]
    assert all(image.path == path and image.left_out == [] for image in (one, two, three))


def test_photos_are_found_in_the_folder_and_below(path, tmp_path):
    (tmp_path / "photos" / "val").mkdir(parents=True)
    for name in ("one.png", "photos/two.png", "photos/val/two.png"):
        Image.new("RGB", (16, 12)).save(tmp_path / name)
    assert [image.photo for image in load_coco(path)] == [tmp_path / "one.png", None, None]
    elsewhere = load_coco(path, tmp_path / "photos")
    assert [image.photo for image in elsewhere] == [None, tmp_path / "photos/val/two.png", None]
    with pytest.raises(FileMissingError, match="the folder of the photos does not exist"):
        load_coco(path, tmp_path / "gone")
    document = coco_document()
    document["images"][0]["file_name"] = "../one.png"
    one = load_coco(write_json(path, document), tmp_path / "photos")[0]
    assert one.photo is None


def test_a_person_made_panoptic_file_loads_and_its_areas_agree(peer):
    path = peer / "coco_panoptic" / "panoptic_coco_detection_format.json"
    images = load_coco(path)
    stated = {a["id"]: a for a in json.loads(path.read_text())["annotations"]}
    assert [len(image) for image in images] == [
        sum(a["image_id"] == image.image_id for a in stated.values()) for image in images
    ]
    assert sum(map(len, images)) == 50
    for image in images:
        assert image.pixels.shape == (image.height, image.width, 3)
        for region in image:
            assert region.area == stated[region.id]["area"]
            assert region.pixel_box == tuple(stated[region.id]["bbox"])
            assert region.name


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [case for case in BAD_FILES if not case[2].startswith("no '")],
)
def test_a_file_that_is_no_json_object_is_named(tmp_path, content, error, reason, strict):
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(error, match=f"instances.json: .*{reason}"):
        load_coco(path, strict=strict)


BAD_TOP = [
    (("images",), ..., AnnotationFormatError, "there is no 'images'"),
    (("annotations",), ..., AnnotationFormatError, "there is no 'annotations'"),
    (("images",), {}, AnnotationFormatError, "'images' is dict"),
    (("annotations",), None, AnnotationFormatError, "'annotations' is NoneType"),
    (("images", 1), None, AnnotationFormatError, "image 1: the entry is NoneType"),
    (("images", 1, "id"), ..., AnnotationFormatError, "image number 1: there is no 'id'"),
    (("images", 1, "id"), 1, AnnotationFormatError, "image 1: an image before it has this id"),
    (("images", 1, "id"), 1.5, AnnotationFormatError, "image 1.5: 'id' is float"),
    (("images", 1, "id"), 1.0, AnnotationFormatError, "image 1.0: an image before it has this id"),
    (("images", 1, "width"), ..., AnnotationFormatError, "image two: there is no 'width'"),
    (("images", 1, "width"), "16", AnnotationFormatError, "image two: 'width' is str"),
    (("images", 1, "height"), 0, SizeMismatchError, "image two: the size 16 x 0 has no pixels"),
    (("images", 1, "height"), 2**40, AnnotationFormatError, "image two: the size"),
    (("images", 1, "file_name"), 5, AnnotationFormatError, "image two: 'file_name' is int"),
    (("categories",), {"1": "boot"}, AnnotationFormatError, "'categories' is dict"),
    (("categories", 1), 7, AnnotationFormatError, "category 1: the entry is int"),
    (("categories", 1, "id"), [7], AnnotationFormatError, ".*category .*: 'id' is list"),
    (
        ("categories", 1, "name"),
        ...,
        AnnotationFormatError,
        "category 7: there is no 'name'",
    ),
    (
        ("categories", 1, "name"),
        None,
        AnnotationFormatError,
        "category 7: 'name' is NoneType",
    ),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("place", "value", "error", "reason"), BAD_TOP)
def test_a_bad_image_or_category_is_named(path, place, value, error, reason, strict):
    write_json(path, replaced(coco_document(), place, value))
    with pytest.raises(error, match=f"instances.json: {reason}") as caught:
        load_coco(path, strict=strict)
    assert type(caught.value) is error and caught.value.file == str(path)


BAD_ENTRIES = [
    ("image_id", ..., AnnotationFormatError, "no 'image_id'"),
    ("image_id", 99, AnnotationFormatError, "no image of the file has the id 99"),
    ("image_id", 1.5, AnnotationFormatError, "'image_id' is float"),
    ("image_id", [1], AnnotationFormatError, "'image_id' is list"),
    ("id", ..., AnnotationFormatError, "no 'id'"),
    ("id", 5, AnnotationFormatError, "has this id"),
    ("segmentation", ..., AnnotationFormatError, "no 'segmentation'"),
    ("segmentation", None, AnnotationFormatError, "'segmentation' is NoneType"),
    ("segmentation", [], EmptyMaskError, "there is no polygon"),
    ("segmentation", [[]], AnnotationFormatError, "at least three"),
    ("segmentation", [[1, 1, 5, 5]], AnnotationFormatError, "at least three"),
    ("segmentation", [[1, 1, 5, 5, 9, 9]], EmptyMaskError, "no pixels"),
    ("segmentation", [1, 1, 5, 1, 5, "5"], AnnotationFormatError, "list of coordinates"),
    ("segmentation", [[1, 1, 10**400, 1, 5, 5]], AnnotationFormatError, "finite"),
    ("segmentation", [[1, 1, 1e6, 1, 5, 5]], SizeMismatchError, "far outside"),
    ("segmentation", {"size": [12, 16], "counts": [5]}, AnnotationFormatError, "add up to 5"),
    ("segmentation", {"size": [12, 16], "counts": [192, 0]}, EmptyMaskError, "no pixels"),
    ("segmentation", {"size": [16, 12], "counts": [0, 9, 183]}, SizeMismatchError, "12 x 16"),
    ("segmentation", {"size": [2**30, 16], "counts": "0"}, AnnotationFormatError, "allowed"),
    ("segmentation", {"counts": "0"}, AnnotationFormatError, "a 'size' of two"),
    ("area", "9", AnnotationFormatError, "an area is a number"),
    ("bbox", [1, 2], AnnotationFormatError, "four finite numbers"),
    ("category_id", [1], AnnotationFormatError, "'category_id' is list"),
    ("iscrowd", "0", AnnotationFormatError, "'iscrowd' is 0 or 1"),
]


@pytest.mark.parametrize(("key", "value", "error", "reason"), BAD_ENTRIES)
def test_a_bad_annotation_is_named_or_left_out(path, key, value, error, reason):
    write_json(path, replaced(coco_document(), ("annotations", 1, key), value))
    label = "number 1" if key == "id" and value is ... else 5 if key == "id" else 6
    with pytest.raises(error, match=f"instances.json: region {label}: .*{reason}") as caught:
        load_coco(path)
    assert type(caught.value) is error
    one, two, three = load_coco(path, strict=False)
    assert [region.id for region in one] == [5, 8, "x"] and len(two) == 1
    homeless = key == "image_id"  # belongs to no image: listed with every image
    for image in (one, two, three):
        wanted = [(1, error)] if homeless or image is one else []
        assert [(out.index, type(out.error)) for out in image.left_out] == wanted


@pytest.mark.parametrize("spelled", [1.0, "1", "001"])
@pytest.mark.parametrize("whose", ["image", "annotations", "one annotation"])
def test_ids_match_however_they_are_spelled(path, tmp_path, spelled, whose):
    document, expected = coco_document(), load_coco(path)[0]
    if whose == "image":
        document["images"][0]["id"] = spelled
    theirs = [one for one in document["annotations"] if one["image_id"] == 1]
    for annotation in theirs[: {"image": 0, "annotations": 4, "one annotation": 1}[whose]]:
        annotation["image_id"] = spelled
    document["annotations"][0]["category_id"] = "7"
    write_json(path, document)
    Image.new("RGB", (16, 12), "white").save(tmp_path / "one.png")
    for image in (load_coco(path)[0], load_regions(path, tmp_path / "one.png")):
        assert image.regions == expected.regions and image.left_out == []


def test_an_id_that_several_images_may_mean_is_refused(path, tmp_path):
    document = coco_document()
    document["images"][0]["id"], document["images"][1]["id"] = "1", "01"
    for annotation in document["annotations"]:
        annotation["image_id"] = {1: "1", "two": "01"}[annotation["image_id"]]
    assert [len(image) for image in load_coco(write_json(path, document))] == [4, 1, 0]
    document["annotations"][1]["image_id"] = 1
    with pytest.raises(AnnotationFormatError, match="region 6: the id 1 may mean '01' or '1'"):
        load_coco(write_json(path, document))
    Image.new("RGB", (16, 12), "white").save(tmp_path / "one.png")
    with pytest.raises(AnnotationFormatError, match="region 6: the id 1 may mean"):
        load_regions(path, tmp_path / "one.png")
    image = load_regions(path, tmp_path / "one.png", strict=False)
    assert [out.region_id for out in image.left_out] == [6]


def turned_document(tmp_path, polygons):
    """A photo stored as 16 x 12 that EXIF shows as 12 x 16, and a file of its stored size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 12)).save(tmp_path / "photo.jpg", exif=exif)
    annotations = [
        {"id": number, "image_id": 1, "segmentation": [ring]}
        for number, ring in enumerate(polygons, start=1)
    ]
    images = [{"id": 1, "width": 16, "height": 12, "file_name": "photo.jpg"}]
    return write_json(tmp_path / "photo.json", {"images": images, "annotations": annotations})


LOW = [2, 12, 6, 12, 6, 15, 2, 15]  # below the stored photo, inside the turned one


def test_polygons_of_a_turned_photo_are_read_on_the_turned_photo(tmp_path):
    path = turned_document(tmp_path, [[1, 1, 5, 1, 5, 5, 1, 5], LOW])
    with pytest.warns(UserWarning, match=r"photo.json: image photo.jpg: EXIF turns .* 12 x 16"):
        image = load_regions(path, tmp_path / "photo.jpg")
    assert (image.height, image.width) == image.pixels.shape[:2] == (16, 12)
    rows, columns = np.nonzero(image[2].mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 14, 2, 5)


def test_polygons_that_fit_the_stored_size_of_a_turned_photo_stay_on_it(tmp_path):
    path = turned_document(tmp_path, [[1, 1, 14, 1, 14, 5, 1, 5]])
    image = load_regions(path, tmp_path / "photo.jpg")
    assert image.pixels.shape[:2] == (12, 16)


@pytest.mark.parametrize("strict", [True, False])
def test_polygons_that_fit_neither_size_of_a_turned_photo_are_refused(tmp_path, strict):
    path = turned_document(tmp_path, [LOW, [1, 1, 15, 1, 15, 5, 1, 5]])
    with pytest.raises(SizeMismatchError, match=r"photo.json: image photo.jpg: .*\(15, 15\)"):
        load_coco(path, strict=strict)


def test_a_category_that_is_not_in_the_file_gives_no_name(path):
    write_json(path, replaced(coco_document(), ("annotations", 0, "category_id"), 99))
    assert load_coco(path)[0][5].name is None
    write_json(path, replaced(coco_document(), ("categories",), ...))
    assert load_coco(path)[0][5].name is None


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_value_at_any_place_is_an_error_of_our_own_or_none(tmp_path_factory, data):
    document = coco_document()
    place = data.draw(st.sampled_from(paths_of(document)))
    value = data.draw(JSON_VALUES | (st.just(...) if place else st.nothing()))
    path = tmp_path_factory.mktemp("fuzz") / "f.json"
    write_json(path, replaced(document, place, value))
    for strict in (True, False):
        try:
            images = load_coco(path, strict=strict)
        except RegionError as error:
            assert error.file == str(path) and "f.json" in str(error)
            assert strict or place[:1] != ("annotations",) or len(place) == 1
        else:
            regions = [region for image in images for region in image]
            assert all(region.area == region.mask.sum() for region in regions)
            left = {out.index for image in images for out in image.left_out}
            total = len(json.loads(path.read_text())["annotations"])
            assert not images or len(regions) + len(left) == total


def test_a_coco_image_becomes_sa1b_json_and_back(path, tmp_path):
    one = load_coco(path)[0]
    save_sa1b(one, tmp_path / "one.json")
    again = load_regions(tmp_path / "one.json")
    assert again.regions == one.regions
    assert [region.crowd for region in again] == [False, True, False, False]
    assert again[5].bbox == (1, 1, 3, 3)


def test_load_regions_takes_the_photos_image(path, tmp_path):
    Image.new("RGB", (16, 12), "white").save(tmp_path / "one.png")
    image = load_regions(path, tmp_path / "one.png")
    assert [region.id for region in image] == [5, 6, 8, "x"]
    assert (image.photo, image.image_id) == (tmp_path / "one.png", 1)
    Image.new("RGB", (16, 12), "white").save(tmp_path / "two.png")
    assert [region.id for region in load_regions(path, str(tmp_path / "two.png"))] == [5]
    with pytest.raises(AnnotationFormatError, match=r"none of the file's 3 images .*'three.png'"):
        load_regions(path, tmp_path / "three.png")
    with pytest.raises(AnnotationFormatError, match="holds 3 images; give the path of the photo"):
        load_regions(path)
    with pytest.raises(AnnotationFormatError, match="holds 3 images; give the path of the photo"):
        load_regions(path, np.zeros((12, 16, 3), np.uint8))


def test_load_regions_takes_the_only_image_whatever_the_photo_is_called(path, tmp_path):
    document = coco_document()
    document["images"] = document["images"][:1]
    document["annotations"].append({"id": 6, "image_id": 1, "segmentation": []})
    write_json(path, document)
    with pytest.raises(
        AnnotationFormatError, match="region 5: no image of the file has the id two"
    ):
        load_regions(path)
    image = load_regions(path, np.full((12, 16, 3), 9, np.uint8), strict=False)
    assert len(image) == 4 and [out.index for out in image.left_out] == [2, 5]
    assert image.pixels.max() == 9
    Image.new("RGB", (16, 12), "white").save(tmp_path / "one.png")
    assert load_regions(path, strict=False).pixels.min() == 255
    Image.new("RGB", (12, 12)).save(tmp_path / "other.png")
    with pytest.raises(SizeMismatchError, match=r"other.png: the photo is 12 x 12"):
        load_regions(path, tmp_path / "other.png", strict=False)
    with pytest.raises(FileMissingError, match=r"gone.png"):
        load_regions(path, tmp_path / "gone.png", strict=False)


def test_load_regions_looks_at_no_other_images_masks(path, tmp_path):
    document = coco_document()
    document["images"][0]["file_name"] = "val\\one.png"  # as Windows writes it
    document["annotations"][2]["segmentation"] = [[5, 5, 5.1, 5, 5.1, 5.1]]  # of two.png
    document["annotations"].append({"id": 9, "image_id": 1, "segmentation": []})
    document["annotations"].append({"id": 9, "image_id": 77})
    write_json(path, document)
    Image.new("RGB", (16, 12), "white").save(tmp_path / "one.png")
    image = load_regions(path, tmp_path / "one.png", strict=False)
    assert [region.id for region in image] == [5, 6, 8, "x"]
    assert [(out.index, out.region_id) for out in image.left_out] == [(5, 9)]
    with pytest.raises(EmptyMaskError, match="region 5: "):
        load_regions(path, tmp_path / "two.png")


def test_two_images_of_one_name_are_ambiguous(path, tmp_path):
    document = replaced(coco_document(), ("images", 1, "file_name"), "val/one.png")
    document["images"][0]["file_name"] = "train/one.png"
    write_json(path, document)
    with pytest.raises(AnnotationFormatError, match=r"2 of the file's images are called 'one.png'"):
        load_regions(path, tmp_path / "one.png")


def test_holes_in_encodings_stay_holes(path):
    region = load_coco(path)[0][8]
    assert not region.mask[4:8, 4:8].any()
    assert region.area == coco_mask.area(region.rle) == 176
