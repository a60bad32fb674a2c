"""Masks in arrays, PNG files and label maps; one reader for every kind of file."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image
from regions.documents import square
from regions.test_photo import png

from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    ImageUnreadableError,
    SizeMismatchError,
    load_masks,
    load_regions,
)

MASKS = [square(0, 0), square(4, 4, 5), square(2, 9)]


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def assert_masks(image, masks=MASKS, ids=(1, 2, 3)):
    assert [region.id for region in image] == list(ids)
    for region, mask in zip(image, masks, strict=True):
        assert (region.mask == mask).all()


# arrays


def test_arrays_are_numbered_from_one():
    for masks in (np.stack(MASKS), MASKS, tuple(MASKS), [mask * 255 for mask in MASKS]):
        image = load_masks(masks)
        assert_masks(image)
        assert (image.width, image.height, image.path, image.image) == (16, 12, None, None)


def test_a_photo_goes_with_them(tmp_path):
    pixels = np.full((12, 16, 3), 7, np.uint8)
    assert (load_masks(MASKS, pixels).pixels == pixels).all()
    assert (load_masks(MASKS, Image.fromarray(pixels)).pixels == pixels).all()
    image = load_masks(MASKS, save(tmp_path / "p.png", pixels))
    assert (image.photo, image.file_name) == (tmp_path / "p.png", "p.png")
    assert image.pixels.max() == 7
    with pytest.raises(FileMissingError, match=r"gone.png: the photo does not exist"):
        load_masks(MASKS, tmp_path / "gone.png")
    with pytest.raises(SizeMismatchError, match=r"wide.png: the photo is 17 x 12"):
        load_masks(MASKS, save(tmp_path / "wide.png", np.zeros((12, 17, 3), np.uint8)))


def test_masks_drawn_on_the_stored_pixels_of_a_rotated_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[0, 15] = 255
    path = save(tmp_path / "p.png", pixels, exif=exif)
    assert (load_masks(MASKS, path).pixels == pixels).all()
    turned = load_masks([mask.T for mask in MASKS], path)
    assert (turned.pixels == np.rot90(pixels, -1)).all()


@pytest.mark.parametrize(
    ("masks", "error", "reason"),
    [
        ([], EmptyMaskError, "there are no masks"),
        (np.zeros((0, 12, 16)), EmptyMaskError, "there are no masks"),
        (square(1, 1), AnnotationFormatError, "masks are a .R, H, W. array .* 2 dimensions"),
        (np.ones((1, 2, 3, 4)), AnnotationFormatError, "4 dimensions"),
        ([MASKS[0], np.zeros((12, 16))], EmptyMaskError, "region 2: the mask has no pixels"),
        ([MASKS[0], np.ones((5, 5))], SizeMismatchError, "region 2: the mask is 5 x 5 but .* 16 x"),
        ([MASKS[0], np.ones((12, 16, 3))], AnnotationFormatError, "region 2: .*3-dimensional"),
        ([MASKS[0], None], AnnotationFormatError, "region 2"),
        ([[[1, 0], [1]]], AnnotationFormatError, "region 1: the mask is no array"),
    ],
)
def test_bad_arrays_are_named(masks, error, reason):
    with pytest.raises(error, match=reason) as caught:
        load_masks(masks)
    assert type(caught.value) is error


def test_bad_masks_are_left_out_and_listed():
    masks = [np.zeros((12, 16)), MASKS[0], np.ones((5, 5)), MASKS[1]]
    image = load_masks(masks, strict=False)
    assert_masks(image, MASKS[:2], ids=(2, 4))
    assert [(out.index, out.region_id, type(out.error)) for out in image.left_out] == [
        (0, 1, EmptyMaskError),
        (2, 3, SizeMismatchError),
    ]
    with pytest.raises(EmptyMaskError, match="none of the masks is good; the first: region 1"):
        load_masks(masks[:1], strict=False)


def test_600_arrays():
    masks = [square(i % 9, i % 13, 1 + i % 3) for i in range(600)]
    assert_masks(load_masks(masks), masks, range(1, 601))


# one PNG file a mask


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    names = ["10.png", "2.png", "1.PNG", "b.png", "a10.png", "a2.png"]
    order = ["1.PNG", "2.png", "10.png", "a2.png", "a10.png", "b.png"]
    masks = {name: square(i, 2 * i) for i, name in enumerate(names)}
    for name, mask in masks.items():
        save(tmp_path / name, mask.astype(np.uint8) * 255, format="PNG")
    (tmp_path / "metadata.csv").write_text("id,area")
    assert_masks(load_masks(tmp_path), [masks[name] for name in order], range(1, 7))
    image = load_regions(str(tmp_path))
    assert [region.name for region in image] == [name.split(".")[0] for name in order]
    assert_masks(image, [masks[name] for name in order], range(1, 7))
    assert image.path == tmp_path


MASK_FILES = {
    "bool": MASKS[1],
    "grey": MASKS[1].astype(np.uint8),
    "grey 255": MASKS[1].astype(np.uint8) * 255,
    "16 bit": MASKS[1].astype(np.uint16) * 256,
    "blue": np.dstack([np.zeros((12, 16, 2), np.uint8), MASKS[1].astype(np.uint8)]),
    "white on transparent": np.dstack(
        [np.full((12, 16, 3), 255, np.uint8), MASKS[1] * np.uint8(9)]
    ),
    "white on black with alpha": np.dstack(
        [np.repeat(MASKS[1][..., None] * np.uint8(255), 3, 2), np.full((12, 16), 255, np.uint8)]
    ),
    "grey with alpha": np.dstack([np.full((12, 16), 9, np.uint8), MASKS[1] * np.uint8(255)]),
}


@pytest.mark.parametrize("kind", MASK_FILES)
def test_inside_is_what_is_neither_black_nor_transparent(tmp_path, kind):
    path = save(tmp_path / "m.png", MASK_FILES[kind])
    assert_masks(load_masks([path]), MASKS[1:2], ids=[1])
    assert_masks(load_masks([str(path), MASKS[0]]), [MASKS[1], MASKS[0]], ids=(1, 2))


def test_hidden_files_of_a_folder_are_no_masks(tmp_path):
    save(tmp_path / "1.png", MASKS[0])
    (tmp_path / "._1.png").write_bytes(b"as macOS leaves them")
    assert len(load_masks(tmp_path)) == 1


def test_a_palette_counts_by_its_colours(tmp_path):
    image = Image.fromarray(1 - MASKS[1].astype(np.uint8), "L").convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])  # value 0 is white
    image.save(tmp_path / "m.png")
    assert_masks(load_masks([tmp_path / "m.png"]), MASKS[1:2], ids=[1])
    image.save(tmp_path / "m.png", transparency=0)
    with pytest.raises(EmptyMaskError, match=r"m.png: region 1: the mask has no pixels"):
        load_masks([tmp_path / "m.png"])


def test_bad_files_name_the_file(tmp_path):
    good = save(tmp_path / "1.png", MASKS[0])
    save(tmp_path / "2.png", np.zeros((12, 16), np.uint8))
    save(tmp_path / "3.png", np.ones((5, 5), np.uint8))
    (tmp_path / "4.png").write_text("text")
    (tmp_path / "5.png").write_bytes(good.read_bytes()[:50])
    (tmp_path / "6.png").write_bytes(png(60_000, 60_000, 8, 0, b"\0" * 100))
    (tmp_path / "7.png").mkdir()
    save(tmp_path / "8.png", MASKS[0].astype(np.uint8) * 255, format="JPEG")
    expected = {
        "2.png": (EmptyMaskError, "no pixels"),
        "3.png": (SizeMismatchError, "5 x 5"),
        "4.png": (ImageUnreadableError, "cannot identify image"),
        "5.png": (ImageUnreadableError, "cannot be decoded"),
        "6.png": (ImageUnreadableError, "mask"),
        "7.png": (ImageUnreadableError, "cannot be decoded"),
        "8.png": (AnnotationFormatError, "JPEG"),
        "gone.png": (FileMissingError, "the mask does not exist"),
    }
    for name, (error, reason) in expected.items():
        with pytest.raises(error, match=f"{name}: region 2: .*{reason}") as caught:
            load_masks([good, tmp_path / name])
        assert type(caught.value) is error
    image = load_regions(tmp_path, strict=False)
    assert [region.id for region in image] == [1]
    found = [(out.index, out.region_id, type(out.error)) for out in image.left_out]
    assert found == [(i, i + 1, expected[f"{i + 1}.png"][0]) for i in range(1, 8)]
    with pytest.raises(EmptyMaskError, match=r"2.png"):
        load_regions(tmp_path)


def test_a_folder_without_masks_is_named(tmp_path):
    with pytest.raises(EmptyMaskError, match=f"{tmp_path.name}: there are no masks"):
        load_masks(tmp_path)


# label maps


@settings(deadline=None, max_examples=60)
@given(
    st_numpy.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=8),
        elements=st.integers(0, 5),
    ).filter(np.any)
)
def test_each_value_of_a_label_map_is_a_region(tmp_path_factory, labels):
    labels = labels * labels.dtype.type(51 if labels.dtype == np.uint8 else 13_107)
    path = save(tmp_path_factory.mktemp("labels") / "m.png", labels)
    image = load_masks(path)
    values = [int(value) for value in np.unique(labels) if value]
    assert_masks(image, [labels == value for value in values], values)
    assert image.path == path


def test_label_maps_of_every_kind(tmp_path):
    labels = np.zeros((12, 16), np.uint8)
    for i, mask in enumerate(MASKS):
        labels[mask] = i + 1
    palette = Image.fromarray(labels, "L").convert("P")
    palette.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0, 255, 0, 0])  # 1 is black, 2 and 3 alike
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "32.tif", labels.astype(np.int32))
    save(tmp_path / "16.tif", labels.astype(np.uint16))
    for name in ("palette.png", "32.tif", "16.tif"):
        assert_masks(load_regions(tmp_path / name))
    save(tmp_path / "bits.png", MASKS[0])
    assert_masks(load_regions(tmp_path / "bits.png"), MASKS[:1], ids=[1])


def test_a_label_map_goes_with_its_photo(tmp_path):
    save(tmp_path / "m.png", MASKS[0].astype(np.uint8))
    photo = save(tmp_path / "p.png", np.full((12, 16, 3), 7, np.uint8))
    image = load_regions(tmp_path / "m.png", photo)
    assert image.photo == photo and image.pixels.max() == 7
    with pytest.raises(SizeMismatchError, match=r"small.png: the photo is 5 x 5"):
        load_regions(tmp_path / "m.png", save(tmp_path / "small.png", np.zeros((5, 5), np.uint8)))


def test_an_rgb_map_has_ids_as_coco_panoptic_has_them(tmp_path):
    picture = np.zeros((12, 16, 3), np.uint8)
    picture[2:5, 3:9], picture[6:8, 1:3] = (44, 1, 0), (112, 17, 1)
    image = load_regions(save(tmp_path / "m.png", picture))
    assert [(region.id, region.area) for region in image] == [(300, 18), (70000, 4)]


@pytest.mark.parametrize(
    ("array", "name", "error", "reason"),
    [
        (np.zeros((12, 16), np.uint8), "m.png", EmptyMaskError, "there are no masks"),
        (np.zeros((12, 16, 3), np.uint8), "m.png", EmptyMaskError, "there are no masks"),
        (
            np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8),
            "m.png",
            AnnotationFormatError,
            "at most 10,000 ids",
        ),
        (np.zeros((12, 16, 4), np.uint8), "m.png", AnnotationFormatError, "'RGBA'"),
        (np.zeros((12, 16, 2), np.uint8), "m.png", AnnotationFormatError, "'LA'"),
        (np.zeros((12, 16), np.float32), "m.tif", AnnotationFormatError, "'F'"),
        (np.zeros((12, 16), np.uint8), "m.jpg", AnnotationFormatError, "JPEG"),
    ],
)
def test_what_is_no_label_map_is_named(tmp_path, array, name, error, reason):
    path = save(tmp_path / name, array)
    for reader in (load_masks, load_regions):
        with pytest.raises(error, match=f"{name}: .*{reason}") as caught:
            reader(path)
        assert type(caught.value) is error


def test_a_large_label_map_is_not_taken_apart_into_arrays(tmp_path):
    labels = np.arange(1, 65_536, 131, dtype=np.uint16)  # 501 regions of 2 rows each
    path = save(tmp_path / "m.png", np.repeat(labels, 2)[:, None].repeat(1500, axis=1))
    tracemalloc.start()
    image = load_masks(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50_000_000  # 501 decoded masks would take 750 MB
    assert len(image) == 501 and {region.area for region in image} == {3000}
    assert image[132].pixel_box == (0, 2, 1500, 2)


def test_a_label_map_that_claims_too_many_pixels_is_refused(tmp_path):
    (tmp_path / "m.png").write_bytes(png(60_000, 60_000, 8, 0, b"\0" * 100))
    with pytest.raises(ImageUnreadableError, match=r"m.png: the mask"):
        load_regions(tmp_path / "m.png")


# any file


def test_load_regions_names_what_it_cannot_read(tmp_path):
    with pytest.raises(FileMissingError, match=r"gone.json: the mask file does not exist"):
        load_regions(tmp_path / "gone.json")
    with pytest.raises(FileMissingError):
        load_regions("x" * 5000)
    (tmp_path / "x.txt").write_text("masks")
    with pytest.raises(AnnotationFormatError, match=r"x.txt: the file is truncated or is not JSON"):
        load_regions(tmp_path / "x.txt")
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(AnnotationFormatError, match=r"x.json: the file holds a list"):
        load_regions(tmp_path / "x.json")
    (tmp_path / "x.png").write_text("text")
    with pytest.raises(ImageUnreadableError, match=r"x.png: the mask cannot be decoded"):
        load_regions(tmp_path / "x.png")
