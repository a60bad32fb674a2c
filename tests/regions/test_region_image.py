"""`RegionImage`: regions of one image, and its photo when it is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from regions.documents import square

from ureca_lib.regions import (
    AnnotationFormatError,
    FileMissingError,
    ImageUnreadableError,
    Region,
    RegionError,
    RegionImage,
    SizeMismatchError,
)


def some_regions(*ids):
    return [Region.from_mask(i, square(n, n)) for n, i in enumerate(ids)]


def test_regions_are_kept_in_order_and_found_by_id():
    image = RegionImage(some_regions(9, "a", 2), 16, 12)
    assert [region.id for region in image] == [9, "a", 2]
    assert len(image) == 3 and image["a"].id == "a"
    with pytest.raises(KeyError):
        image["9"]
    assert len(RegionImage([], 16, 12)) == 0


def test_an_id_stands_once():
    with pytest.raises(
        AnnotationFormatError, match=r"f.json: region 9: another region has this id"
    ):
        RegionImage(some_regions(9, 8, 9), 16, 12, path="f.json")
    both = RegionImage(some_regions(9, "9"), 16, 12)  # a string is another id than a number
    assert len(both) == 2


def test_every_mask_has_the_images_size():
    with pytest.raises(SizeMismatchError, match=r"f.json: region 9: the mask is 16 x 12 but .* 12"):
        RegionImage(some_regions(9), 12, 16, path="f.json")


def test_a_photo_may_be_an_array_an_image_or_a_path(tmp_path):
    pixels = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    path = tmp_path / "photo.png"
    for photo in (pixels, Image.fromarray(pixels), path, str(path)):
        image = RegionImage(some_regions(1), 16, 12, photo)
        assert (image.image == pixels).all() and (image.pixels == pixels).all()
        assert image.photo == (path if isinstance(photo, (str, Path)) else None)
        assert image.image is image.image  # decoded once


def test_an_array_is_copied():
    pixels = np.zeros((12, 16, 3), np.uint8)
    image = RegionImage(some_regions(1), 16, 12, pixels)
    pixels[:] = 9
    assert image.pixels.max() == 0


def test_without_a_photo_only_pixels_are_an_error():
    image = RegionImage(some_regions(1), 16, 12, file_name="sa_1.jpg", path="f.json")
    assert image.image is None and image.photo is None
    with pytest.raises(FileMissingError, match=r"f.json: the photo 'sa_1.jpg' is needed"):
        _ = image.pixels
    with pytest.raises(FileNotFoundError, match="the photo is needed"):
        _ = RegionImage(some_regions(1), 16, 12).pixels


def test_a_path_is_read_when_it_is_needed(tmp_path):
    image = RegionImage(some_regions(1), 16, 12, tmp_path / "photo.png")
    with pytest.raises(FileMissingError, match=r"photo.png: the photo does not exist"):
        _ = image.image
    (tmp_path / "photo.png").write_text("no photo")
    with pytest.raises(ImageUnreadableError, match=r"photo.png: the photo cannot be decoded"):
        _ = image.pixels
    Image.new("RGB", (12, 16)).save(tmp_path / "photo.png")
    with pytest.raises(SizeMismatchError, match=r"photo.png: the photo is 12 x 16 but the annot"):
        _ = image.pixels
    Image.new("RGB", (16, 12), "white").save(tmp_path / "photo.png")
    assert image.pixels.min() == 255


@pytest.mark.parametrize("photo", [np.zeros((16, 12, 3), np.uint8), Image.new("RGB", (12, 16))])
def test_a_photo_of_another_size_names_the_file(photo):
    with pytest.raises(SizeMismatchError, match=r"f.json: the photo is 12 x 16 .* 16 x 12"):
        RegionImage(some_regions(1), 16, 12, photo, path="f.json")


def test_a_photo_of_another_type_is_named():
    with pytest.raises(
        ImageUnreadableError, match=r"f.json: a photo is a path, an image or an array"
    ):
        RegionImage(some_regions(1), 16, 12, 5, path="f.json")


def test_the_repr_says_what_it_is():
    image = RegionImage(some_regions(1, 2), 16, 12, file_name="sa_1.jpg")
    assert repr(image) == "RegionImage(sa_1.jpg, 16 x 12, 2 regions)"
    assert (
        repr(RegionImage([], 16, 12, path="x/f.json")) == "RegionImage(f.json, 16 x 12, 0 regions)"
    )


@pytest.mark.parametrize("count", [256, 300, 600])
def test_more_than_255_regions(count):
    masks = [square(n % 9, n % 13, 1 + n % 3) for n in range(count)]
    regions = [Region.from_mask(n, mask) for n, mask in enumerate(masks)]
    image = RegionImage(regions, 16, 12)
    assert [region.area for region in image] == [mask.sum() for mask in masks]
    assert [region.pixel_box[2] for region in image] == [
        np.ptp(np.nonzero(m)[1]) + 1 for m in masks
    ]


def test_a_photo_is_checked_by_its_header_as_by_its_pixels(tmp_path):
    mask = np.ones((4, 6), bool)
    turned = Image.new("RGB", (4, 6))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (6, 4)).save(tmp_path / "sound.png")
    Image.new("RGB", (4, 6)).save(tmp_path / "other.png")
    (tmp_path / "text.png").write_text("no photo")
    for name in ("turned.jpg", "sound.png", "other.png", "text.png", "none.png"):
        image = RegionImage([Region.from_mask(1, mask)], 6, 4, tmp_path / name)
        expected = None
        try:
            image.pixels  # noqa: B018
        except RegionError as error:
            expected = type(error)
        if expected is None:
            image.check_photo()
        else:
            with pytest.raises(expected, match=name):
                image.check_photo()
