"""Small files as other tools write them, and the regions that they mean."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from regions.documents import sa1b_annotation, sa1b_document, square, write_json

from ureca_lib.regions import (
    AnnotationFormatError,
    RegionImage,
    load_coco,
    load_regions,
    load_sa1b,
)

BLOCK, PART, BALL = (
    [8, 10, 38, 10, 38, 50, 8, 50],
    [14, 16, 24, 16, 24, 26, 14, 26],
    [55, 18, 85, 18, 85, 48, 55, 48],
)


def coco(*segmentations: Any, file_name: str = "photo.png", **fields: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "width": 96, "height": 64, "file_name": file_name}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 7, "segmentation": segmentation, **fields}
            for i, segmentation in enumerate(segmentations, start=1)
        ],
        "categories": [{"id": 7, "name": "block"}],
    }


def save_photo(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 64)).save(file)
    return file


def read(tmp_path: Path, document: dict[str, Any]) -> RegionImage:
    photo = save_photo(tmp_path / "photo.png")
    return load_regions(write_json(tmp_path / "photo.json", document), photo)


def good(tmp_path: Path) -> RegionImage:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(tmp_path / "good", coco([BLOCK], [PART], [BALL]))


def same_masks(one: RegionImage, other: RegionImage) -> bool:
    return [region.rle for region in one] == [region.rle for region in other]


@pytest.mark.parametrize("strict", [True, False])
def test_a_stated_area_of_zero_is_a_warning_that_names_file_and_region(tmp_path, strict):
    masks = [region.rle for region in good(tmp_path)]
    plain = [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in masks]
    document = coco(*plain, area=0)
    path = write_json(tmp_path / "photo.json", document)
    with pytest.warns(UserWarning) as caught:
        [image] = load_coco(path, strict=strict)
    assert [region.area for region in image] == [1200, 100, 900]
    assert image.left_out == []
    told = [str(warning.message) for warning in caught]
    assert [text.split(": ")[:3] for text in told] == [
        [str(path), f"region {i}", f"the stated area is 0 but the mask has {area} pixels; the "
        "mask's area counts"]
        for i, area in ((1, 1200), (2, 100), (3, 900))
    ]  # fmt: skip


def test_of_many_stated_areas_that_differ_the_number_is_told(tmp_path):
    entries = [sa1b_annotation(i, square(i, i)) | {"area": 1} for i in range(9)]
    with pytest.warns(UserWarning) as caught:
        image = load_sa1b(write_json(tmp_path / "x.json", sa1b_document(*entries)))
    assert len(image) == 9
    assert len(caught) == 6
    assert "x.json: 4 more corrections like these" in str(caught[-1].message)


@pytest.mark.parametrize("rest", [[20.5, 20.5, 21.0, 20.5], [], [3, 4], [[3, 4], [5, 6]]])
def test_a_degenerate_ring_is_dropped_and_its_object_stays(tmp_path, rest):
    with pytest.warns(UserWarning, match=r"photo.json: region 2: dropped 1 of its rings"):
        image = read(tmp_path, coco([BLOCK], [PART, rest], [BALL]))
    assert same_masks(image, good(tmp_path))


def test_an_object_of_degenerate_rings_alone_is_an_error(tmp_path):
    with pytest.raises(AnnotationFormatError, match=r"photo.json: region 2: a polygon is at least"):
        read(tmp_path, coco([BLOCK], [[1, 2, 3, 4], []]))


def test_a_polygon_that_is_not_in_a_list_is_one_ring(tmp_path):
    image = read(tmp_path, coco(BLOCK, np.reshape(PART, (-1, 2)).tolist(), BALL))
    assert same_masks(image, good(tmp_path))


def test_a_flat_polygon_on_a_turned_photo_is_read_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 96)).save(tmp_path / "photo.jpg", exif=exif)  # shown as 96 x 64
    document = coco(BALL, file_name="photo.jpg")
    document["images"][0] |= {"width": 64, "height": 96}
    path = write_json(tmp_path / "photo.json", document)
    with pytest.warns(UserWarning, match="they are read on the turned photo"):
        [image] = load_coco(path)
    assert (image.width, image.height) == (96, 64)


@pytest.mark.parametrize("kind", ["path", "image"])
def test_a_given_photo_that_exif_turns_is_compared_with_the_polygons(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = tmp_path / "photos" / "photo.jpg"
    photo.parent.mkdir()
    Image.new("RGB", (64, 96)).save(photo, exif=exif)  # shown as 96 x 64
    document = coco([BALL], file_name="photo.jpg")
    document["images"][0] |= {"width": 64, "height": 96}
    path = write_json(tmp_path / "photo.json", document)  # the photo is not beside it
    with pytest.warns(UserWarning, match="they are read on the turned photo"):
        image = load_regions(path, photo if kind == "path" else Image.open(photo))
    assert image.pixels.shape == (64, 96, 3) == (*image[1].size, 3)
    assert image[1].area == 900


def test_a_coco_file_of_another_photo_is_not_used_in_silence(tmp_path):
    path = write_json(tmp_path / "photo.json", coco([BLOCK], file_name="other.png"))
    photo = save_photo(tmp_path / "photo.png")
    with pytest.warns(UserWarning, match=r"photo.json: the masks are of 'other.png', .*photo.png"):
        assert len(load_regions(path, photo)) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name",
    [
        "photo.png",
        "val/photo.png",
        "a\\photo.png",
        "https://bucket.example/data/photo.png?X-Sig=abc/d&e=1",
    ],
)
def test_a_photo_is_found_by_its_name_without_folders_and_query(tmp_path, name):
    photo = save_photo(tmp_path / "photo.png")
    document = coco([BLOCK], file_name=name)
    document["images"].append({"id": 2, "width": 96, "height": 64, "file_name": "two.png"})
    path = write_json(tmp_path / "instances.json", document)
    assert len(load_regions(path, photo)) == 1
    assert load_coco(path)[0].photo == photo


def test_photos_of_one_name_are_distinguished_by_their_folders(tmp_path):
    document = coco([BLOCK], [PART], [BALL], file_name="day/photo.png")
    document["images"] += [
        {"id": 2, "width": 96, "height": 64, "file_name": "night/photo.png"},
        {"id": 3, "width": 96, "height": 64, "file_name": "photo.png"},
    ]
    for image_id, entry in enumerate(document["annotations"], start=1):
        entry["image_id"] = image_id
    path = write_json(tmp_path / "instances.json", document)
    for region_id, name in enumerate(("day/photo.png", "night/photo.png", "photo.png"), start=1):
        image = load_regions(path, save_photo(tmp_path / name))
        assert [region.id for region in image] == [region_id]


def test_names_may_be_numbers(tmp_path):
    document = coco([BLOCK])
    document["categories"][0]["name"] = 12
    assert [region.name for region in read(tmp_path, document)] == ["12"]
    entry = sa1b_annotation(1, square(1, 1), name=3)
    image = load_sa1b(write_json(tmp_path / "x.json", sa1b_document(entry)))
    assert image[1].name == "3"
