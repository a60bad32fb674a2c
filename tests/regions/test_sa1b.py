"""SA-1B JSON: what is read, what is refused, what is left out, and what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from regions.documents import (
    JSON_VALUES,
    compressed,
    masks,
    paths_of,
    replaced,
    runs_of,
    sa1b_annotation,
    sa1b_document,
    square,
    three_squares,
    write_json,
)

from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    ImageUnreadableError,
    Region,
    RegionError,
    RegionImage,
    SizeMismatchError,
    load_regions,
    load_sa1b,
    save_sa1b,
)

MISSING = ...
OTHER_SIZE = np.ones((12, 17), bool)


def photo(path, width=16, height=12, **options):
    Image.new("RGB", (width, height), (10, 20, 30)).save(path, **options)
    return path


def test_a_good_file_is_read_in_its_order(tmp_path):
    path = write_json(tmp_path / "sa_7.json", three_squares())
    image = load_sa1b(path)
    assert [region.id for region in image] == [11, 12, 13]
    assert [region.area for region in image] == [64, 9, 16]
    assert (image[12].mask == square(2, 2)).all()
    assert image[12].bbox == (2, 2, 2, 2) and image[12].pixel_box == (2, 2, 3, 3)
    assert (image.width, image.height) == (16, 12)
    assert (image.image_id, image.file_name, image.path) == (7, "sa_7.jpg", path)
    assert image.image is None and image.left_out == []
    assert [region.id for region in load_sa1b(str(path))] == [11, 12, 13]


def test_the_genuine_excerpts_are_read(peer, tmp_path):
    for document in json.loads((peer / "sa1b_excerpts.json").read_text()):
        image = load_sa1b(write_json(tmp_path / "sa.json", document))
        stated = document["annotations"][0]
        assert (image.width, image.height) == (document["image"]["width"], image.height)
        assert (image.image_id, len(image)) == (document["image"]["image_id"], 1)
        assert image[stated["id"]].area == stated["area"]
        assert image[stated["id"]].bbox == tuple(stated["bbox"])


def test_only_size_id_and_segmentation_are_needed(tmp_path):
    document = {
        "image": {"width": 16, "height": 12},
        "annotations": [{"id": 1, "segmentation": compressed(square(2, 2))}],
    }
    image = load_sa1b(write_json(tmp_path / "x.json", document))
    assert (image[1].area, image[1].bbox, image[1].name) == (9, (2, 2, 2, 2), None)
    assert (image.image_id, image.file_name) == (None, None)


def test_null_is_like_a_missing_key_where_a_key_is_optional(tmp_path):
    entry = sa1b_annotation(1, square(2, 2), bbox=None, area=None, name=None, iscrowd=None)
    document = sa1b_document(entry, file_name=None, image_id=None)
    image = load_sa1b(write_json(tmp_path / "x.json", document))
    assert image[1].bbox == (2, 2, 2, 2) and image.file_name is None


def test_polygons_are_read_as_in_coco(tmp_path):
    ring = [2, 2, 5, 2, 5, 5, 2, 5]
    document = sa1b_document({"id": 1, "segmentation": [ring]}, {"id": 2, "segmentation": ring})
    image = load_sa1b(write_json(tmp_path / "x.json", document))
    assert all((region.mask == square(2, 2)).all() for region in image)


def test_no_annotations_are_no_error(tmp_path):
    assert len(load_sa1b(write_json(tmp_path / "x.json", sa1b_document()))) == 0


def test_compressed_and_uncompressed_masks_names_crowds_and_big_ids(tmp_path):
    runs = {"size": [12, 16], "counts": runs_of(square(1, 1))}
    entries = [
        sa1b_annotation(2**80, square(1, 1), name="œil gauche 👁"),
        sa1b_annotation("text id", square(1, 1), segmentation=runs, iscrowd=1, extra={"a": [1]}),
    ]
    image = load_sa1b(write_json(tmp_path / "x.json", sa1b_document(*entries, license=4)))
    assert image[2**80].rle == image["text id"].rle
    assert image[2**80].name == "œil gauche 👁"
    assert [region.crowd for region in image] == [False, True]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_error(tmp_path, encoding):
    text = json.dumps(sa1b_document(sa1b_annotation(1, square(2, 2), name="é")), ensure_ascii=False)
    (tmp_path / "x.json").write_text(text, encoding=encoding)
    assert load_sa1b(tmp_path / "x.json")[1].name == "é"


@pytest.mark.parametrize("count", [300, 600])
def test_more_than_255_masks(tmp_path, count):
    entries = [sa1b_annotation(i, square(i % 9, i % 13, 1 + i % 3)) for i in range(count)]
    image = load_sa1b(write_json(tmp_path / "x.json", sa1b_document(*entries)))
    assert [region.area for region in image] == [(1 + i % 3) ** 2 for i in range(count)]
    save_sa1b(image, tmp_path / "y.json")
    assert load_sa1b(tmp_path / "y.json").regions == image.regions


BAD_FILES = [
    (b"", AnnotationFormatError, "truncated or is not JSON"),
    (b"   \n", AnnotationFormatError, "truncated or is not JSON"),
    (b"hello", AnnotationFormatError, "truncated or is not JSON"),
    (b"\x00" * 20, AnnotationFormatError, "truncated or is not JSON"),
    (b"\xff\xfe{\x00}\x00", AnnotationFormatError, "truncated or is not JSON"),
    (b"\x89PNG\r\n\x1a\n", AnnotationFormatError, "truncated or is not JSON"),
    (b"{" * 100_000, AnnotationFormatError, "truncated or is not JSON"),
    (b"[" * 100_000, AnnotationFormatError, "truncated or is not JSON"),
    (b'{"image": ' + b"1" * 5000 + b"}", AnnotationFormatError, "truncated or is not JSON"),
    (b"[]", AnnotationFormatError, "holds a list"),
    (b'"text"', AnnotationFormatError, "holds a str"),
    (b"null", AnnotationFormatError, "holds a NoneType"),
    (b"{}", AnnotationFormatError, "no 'image'"),
    (b'{"image": {"width": 4, "height": 3}}', AnnotationFormatError, "no 'annotations'"),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("content", "error", "reason"), BAD_FILES)
def test_a_file_that_is_no_sa1b_json_is_named(tmp_path, content, error, reason, strict):
    path = tmp_path / "sa_9.json"
    path.write_bytes(content)
    with pytest.raises(error, match=reason) as caught:
        load_sa1b(path, strict=strict)
    assert type(caught.value) is error
    assert caught.value.file == str(path) and "sa_9.json: " in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(FileMissingError, match=r"gone.json: the annotation file does not exist"):
        load_sa1b(tmp_path / "gone.json")
    with pytest.raises(AnnotationFormatError, match="truncated or is not JSON"):
        load_sa1b(tmp_path)
    with pytest.raises(RegionError):
        load_sa1b("nul\x00.json")
    with pytest.raises(RegionError):
        load_sa1b("x" * 5000)


def test_a_file_cut_off_at_any_byte_is_truncated_and_nothing_else(tmp_path):
    text = json.dumps(sa1b_document(sa1b_annotation(1, square(2, 2), name="é")), ensure_ascii=False)
    content, path = text.encode(), tmp_path / "sa_9.json"
    for stop in range(len(content)):
        path.write_bytes(content[:stop])
        with pytest.raises(AnnotationFormatError, match=r"sa_9.json: the file is "):
            load_sa1b(path)
        with pytest.raises(AnnotationFormatError):
            load_sa1b(path, strict=False)
    path.write_bytes(content)
    assert len(load_sa1b(path)) == 1


BAD_IMAGES = [
    ({"image": []}, AnnotationFormatError, "'image' is list, not Mapping"),
    ({"image": None}, AnnotationFormatError, "'image' is NoneType"),
    ({"annotations": {}}, AnnotationFormatError, "'annotations' is dict, not list"),
    ({"annotations": None}, AnnotationFormatError, "'annotations' is NoneType"),
    ({"image": {"height": 12}}, AnnotationFormatError, "no 'width'"),
    ({"image": {"width": 16}}, AnnotationFormatError, "no 'height'"),
    ({"image": {"width": "16", "height": 12}}, AnnotationFormatError, "'width' is str, not int"),
    ({"image": {"width": 16.5, "height": 12}}, AnnotationFormatError, "'width' is float, not int"),
    ({"image": {"width": True, "height": 12}}, AnnotationFormatError, "'width' is bool"),
    ({"image": {"width": None, "height": 12}}, AnnotationFormatError, "'width' is NoneType"),
    ({"image": {"width": 0, "height": 12}}, SizeMismatchError, "no pixels"),
    ({"image": {"width": 16, "height": -12}}, SizeMismatchError, "no pixels"),
    (
        {"image": {"width": 10**6, "height": 10**6}},
        AnnotationFormatError,
        "1,000,000,000,000 pixels",
    ),
    (
        {"image": {"width": 16, "height": 12, "file_name": 5}},
        AnnotationFormatError,
        "'file_name' is int",
    ),
    (
        {"image": {"width": 16, "height": 12, "image_id": []}},
        AnnotationFormatError,
        "'image_id' is list",
    ),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("change", "error", "reason"), BAD_IMAGES)
def test_a_bad_image_entry_is_named(tmp_path, change, error, reason, strict):
    path = write_json(tmp_path / "sa_9.json", {**three_squares(), **change})
    with pytest.raises(error, match=f"sa_9.json: .*{reason}") as caught:
        load_sa1b(path, strict=strict)
    assert type(caught.value) is error


def with_rle(**changes):
    return {"segmentation": {**compressed(square(2, 2)), **changes}}


BAD_ANNOTATIONS = [
    ({"id": MISSING}, AnnotationFormatError, "no 'id'", None),
    ({"id": None}, AnnotationFormatError, "'id' is NoneType", None),
    ({"id": 12.5}, AnnotationFormatError, "'id' is float", None),
    ({"id": True}, AnnotationFormatError, "'id' is bool", None),
    ({"id": [12]}, AnnotationFormatError, "'id' is list", None),
    ({"id": 11}, AnnotationFormatError, "has this id", 11),
    ({"segmentation": MISSING}, AnnotationFormatError, "no 'segmentation'", 12),
    ({"segmentation": None}, AnnotationFormatError, "'segmentation' is NoneType", 12),
    ({"segmentation": "04"}, AnnotationFormatError, "'segmentation' is str", 12),
    ({"segmentation": [[1, 1, 9, 1]]}, AnnotationFormatError, "three .x, y. pairs", 12),
    (
        {"segmentation": {"size": [12, 16]}},
        AnnotationFormatError,
        "'counts' is a string or a list",
        12,
    ),
    ({"segmentation": {"counts": "04"}}, AnnotationFormatError, "a 'size' of two", 12),
    (with_rle(size=["12", 16]), AnnotationFormatError, "two whole numbers", 12),
    (with_rle(size=[12.0, 16.0]), AnnotationFormatError, "two whole numbers", 12),
    (with_rle(size=16), AnnotationFormatError, "two whole numbers", 12),
    (with_rle(counts=5), AnnotationFormatError, "a string or a list", 12),
    (with_rle(counts=""), AnnotationFormatError, "empty", 12),
    (with_rle(counts="ab\x00"), AnnotationFormatError, "character", 12),
    (with_rle(counts="é"), AnnotationFormatError, "character", 12),
    (
        with_rle(counts=[100, 20]),
        AnnotationFormatError,
        "add up to 120 pixels but the size has 192",
        12,
    ),
    (with_rle(counts=[100, 200]), AnnotationFormatError, "add up to 300", 12),
    (with_rle(counts=[200, -8]), AnnotationFormatError, "negative", 12),
    (with_rle(counts=[100, 92.0]), AnnotationFormatError, "whole numbers", 12),
    (with_rle(counts=compressed(square(2, 2))["counts"][:-1]), AnnotationFormatError, "", 12),
    (with_rle(counts=[192]), EmptyMaskError, "no pixels", 12),
    (with_rle(size=[2**20, 2**20]), AnnotationFormatError, "allowed", 12),
    ({"segmentation": compressed(OTHER_SIZE), "area": 204}, SizeMismatchError, "17 x 12", 12),
    (with_rle(size=[16, 12]), SizeMismatchError, "the mask is 12 x 16 but the image", 12),
    ({"area": "9"}, AnnotationFormatError, "an area is a number", 12),
    ({"bbox": [1, 2, 3]}, AnnotationFormatError, "four finite numbers", 12),
    ({"bbox": "1234"}, AnnotationFormatError, "four finite numbers", 12),
    ({"bbox": [1, 2, 3, 10**400]}, AnnotationFormatError, "four finite numbers", 12),
    ({"bbox": [1, 2, 3, float("nan")]}, AnnotationFormatError, "four finite numbers", 12),
    ({"name": [5]}, AnnotationFormatError, "a name is a string", 12),
    ({"iscrowd": 2}, AnnotationFormatError, "'iscrowd' is 0 or 1", 12),
    ({"iscrowd": []}, AnnotationFormatError, "'iscrowd' is 0 or 1", 12),
]


@pytest.mark.parametrize(("change", "error", "reason", "region_id"), BAD_ANNOTATIONS)
def test_a_bad_annotation_is_named_or_left_out(tmp_path, change, error, reason, region_id):
    document = three_squares()
    entry = {**document["annotations"][1], **change}
    document["annotations"][1] = {
        key: value for key, value in entry.items() if value is not MISSING
    }
    path = write_json(tmp_path / "sa_9.json", document)
    label = "number 1" if region_id is None else region_id
    with pytest.raises(error, match=f"sa_9.json: region {label}: .*{reason}") as caught:
        load_sa1b(path)
    assert type(caught.value) is error and caught.value.file == str(path)

    image = load_sa1b(path, strict=False)
    assert [region.id for region in image] == [11, 13]
    assert [(out.index, out.region_id) for out in image.left_out] == [(1, region_id)]
    assert type(image.left_out[0].error) is error
    assert str(image.left_out[0]) == f"annotation 1: {caught.value}"
    assert "1 left out" in repr(image)


@pytest.mark.parametrize("entry", [None, 5, "text", [], [1]])
def test_an_annotation_that_is_no_object_is_named_by_its_number(tmp_path, entry):
    document = three_squares()
    document["annotations"].insert(0, entry)
    path = write_json(tmp_path / "sa_9.json", document)
    with pytest.raises(
        AnnotationFormatError, match=r"sa_9.json: region number 0: .* not an object"
    ):
        load_sa1b(path)
    image = load_sa1b(path, strict=False)
    assert len(image) == 3 and image.left_out[0].region_id is None


def test_everything_bad_is_left_out_in_file_order(tmp_path):
    document = three_squares()
    good = document["annotations"]
    document["annotations"] = [
        None,
        good[0],
        {**good[0], "area": "1"},
        {**good[1], "id": "b", "segmentation": {"size": [12, 16], "counts": "zz"}},
        good[1],
        good[1],
        {},
        good[2],
    ]
    image = load_sa1b(write_json(tmp_path / "x.json", document), strict=False)
    assert [region.id for region in image] == [11, 12, 13]
    found = [(out.index, out.region_id, type(out.error)) for out in image.left_out]
    assert found == [
        (0, None, AnnotationFormatError),
        (2, 11, AnnotationFormatError),
        (3, "b", AnnotationFormatError),
        (5, 12, AnnotationFormatError),
        (6, None, AnnotationFormatError),
    ]
    assert all("x.json: region" in str(out) for out in image.left_out)


def test_a_good_region_may_have_the_id_of_a_bad_one_before_it(tmp_path):
    document = three_squares()
    document["annotations"].insert(0, {**document["annotations"][0], "area": "1"})
    image = load_sa1b(write_json(tmp_path / "x.json", document), strict=False)
    assert [region.id for region in image] == [11, 12, 13]
    assert type(image.left_out[0].error) is AnnotationFormatError


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_at_any_place_is_an_error_of_our_own_or_none(tmp_path_factory, data):
    document = sa1b_document(*(sa1b_annotation(i, square(i, i), name="n") for i in range(2)))
    place = data.draw(st.sampled_from(paths_of(document)))
    value = data.draw(JSON_VALUES | (st.just(...) if place else st.nothing()))
    path = tmp_path_factory.mktemp("fuzz") / "sa_9.json"
    path.write_text(json.dumps(replaced(document, place, value)))
    try:
        image = load_sa1b(path)
    except RegionError as error:
        assert error.file == str(path) and "sa_9.json" in str(error)
    else:
        assert all(region.area == region.mask.sum() for region in image)
    try:
        image = load_sa1b(path, strict=False)
    except RegionError:
        assert place[:1] != ("annotations",) or len(place) == 1
    else:
        assert len(image) + len(image.left_out) == len(json.loads(path.read_text())["annotations"])


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=40))
def test_any_bytes_are_an_error_of_our_own(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "sa_9.json"
    path.write_bytes(content)
    with pytest.raises(RegionError, match=r"sa_9.json"):
        load_sa1b(path)


# photos


def test_the_photo_beside_the_json_is_found_and_read_when_needed(tmp_path):
    path = write_json(tmp_path / "sa_7.json", three_squares())
    photo(tmp_path / "sa_7.jpg", quality=100)
    image = load_sa1b(path)
    assert image.photo == tmp_path / "sa_7.jpg"
    assert image.image.shape == (12, 16, 3) and image.pixels.dtype == np.uint8


@pytest.mark.parametrize("name", ["sa_9.png", "sa_9.JPG", "sa_9.jpeg", "sa_9.tif", "sa_9.webp"])
def test_a_photo_with_the_jsons_stem_is_found(tmp_path, name):
    path = write_json(tmp_path / "sa_9.json", sa1b_document(file_name="elsewhere.jpg"))
    assert load_sa1b(path).photo is None
    photo(tmp_path / name)
    assert load_sa1b(path).photo == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "folder/../../secret.png",
        "..\\secret.png",
        "C:\\photos\\secret.png",
        "{parent}/secret.png",
        "..",
        ".",
        "/",
        "",
        "a\x00b.png",
        "x" * 5000,
        "\ud800.png",
    ],
)
def test_a_file_name_never_leads_out_of_the_folder(tmp_path, name):
    photo(tmp_path / "secret.png")
    folder = tmp_path / "annotations"
    folder.mkdir()
    name = name.format(parent=tmp_path)
    path = write_json(folder / "sa_9.json", sa1b_document(file_name=name))
    assert load_sa1b(path).photo is None
    if name.endswith("secret.png"):
        photo(folder / "secret.png")
        assert load_sa1b(path).photo == folder / "secret.png"


def test_a_file_name_may_lead_into_a_folder_below(tmp_path):
    (tmp_path / "train").mkdir()
    photo(tmp_path / "train" / "a b é.png")
    path = write_json(tmp_path / "x.json", sa1b_document(file_name="train/a b é.png"))
    assert load_sa1b(path).photo == tmp_path / "train" / "a b é.png"
    path = write_json(tmp_path / "x.json", sa1b_document(file_name="train\\a b é.png"))
    assert load_sa1b(path).photo == tmp_path / "train" / "a b é.png"


def test_a_photo_that_is_found_is_judged_when_it_is_needed(tmp_path):
    path = write_json(tmp_path / "sa_7.json", three_squares())
    (tmp_path / "sa_7.jpg").write_text("no photo")
    image = load_sa1b(path)
    assert len(image) == 3
    with pytest.raises(ImageUnreadableError, match=r"sa_7.jpg: the photo cannot be decoded"):
        _ = image.image


def test_a_photo_that_is_given_is_read_at_once(tmp_path):
    path = write_json(tmp_path / "x.json", three_squares())
    good = photo(tmp_path / "good.png")
    for given_photo in (good, str(good), Image.open(good), np.asarray(Image.open(good))):
        assert load_sa1b(path, given_photo).pixels[0, 0].tolist() == [10, 20, 30]
    with pytest.raises(FileMissingError, match=r"gone.png: the photo does not exist"):
        load_sa1b(path, tmp_path / "gone.png")
    with pytest.raises(ImageUnreadableError, match="cannot be decoded"):
        load_sa1b(path, tmp_path)
    with pytest.raises(SizeMismatchError, match=r"wide.png: the photo is 17 x 12 but .* 16 x 12"):
        load_sa1b(path, photo(tmp_path / "wide.png", 17, 12))
    with pytest.raises(SizeMismatchError, match=r"x.json: the photo is 17 x 12"):
        load_sa1b(path, np.zeros((12, 17, 3), np.uint8))
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(ImageUnreadableError, match=r"text.jpg: the photo cannot be decoded"):
        load_sa1b(path, tmp_path / "text.jpg")
    with pytest.raises(ImageUnreadableError, match="a photo is a path"):
        load_sa1b(path, 5)


@pytest.mark.parametrize("size", [(16, 12), (12, 16)])
def test_a_rotated_photo_fits_masks_of_either_orientation(tmp_path, size):
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[0, 15] = 255  # stored: the top right corner
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right: the bottom right corner
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    document = {"image": {"width": size[0], "height": size[1]}, "annotations": []}
    found = load_sa1b(write_json(tmp_path / "x.json", document)).pixels
    corner = (0, 15) if size == (16, 12) else (15, 11)
    assert found.shape == (size[1], size[0], 3)
    assert np.argwhere(found.any(axis=2)).tolist() == [list(corner)]


# writing


@settings(deadline=None, max_examples=60)
@given(
    st.lists(masks(), min_size=1, max_size=4),
    st.lists(st.none() | st.text(max_size=9), min_size=4, max_size=4),
    st.lists(st.integers() | st.text(max_size=5), min_size=4, max_size=4, unique=True),
)
def test_what_is_written_is_read_again(tmp_path_factory, arrays, names, ids):
    arrays = [array for array in arrays if array.shape == arrays[0].shape]
    regions = [Region.from_mask(ids[i], m, names[i]) for i, m in enumerate(arrays)]
    height, width = arrays[0].shape
    image = RegionImage(regions, width, height, image_id=5, file_name="größe.jpg")
    path = tmp_path_factory.mktemp("out") / "x.json"
    save_sa1b(image, path)
    again = load_sa1b(path)
    assert again.regions == regions
    assert [region.bbox for region in again] == [region.bbox for region in regions]
    assert (again.width, again.height, again.image_id) == (width, height, 5)
    assert again.file_name == "größe.jpg"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


def test_the_file_has_sa1bs_keys_and_one_line_a_region(tmp_path):
    image = load_sa1b(write_json(tmp_path / "in.json", three_squares()))
    save_sa1b(image, tmp_path / "new" / "folder" / "out.json")
    text = (tmp_path / "new" / "folder" / "out.json").read_text()
    assert len(text.splitlines()) == len(image) + 3
    document = json.loads(text)
    assert document["image"] == three_squares()["image"]
    for written, given_entry in zip(
        document["annotations"], three_squares()["annotations"], strict=True
    ):
        assert written == {key: given_entry[key] for key in written}
        assert set(written) == {"id", "area", "bbox", "segmentation"}


def test_boxes_crowds_and_the_photos_name_are_kept(tmp_path):
    rle = compressed(square(2, 2))
    regions = [Region(np.int64(5), rle, bbox=[1, 2, 3.5, 4], crowd=True), Region("b", rle)]
    image = RegionImage(regions, 16, 12, photo(tmp_path / "p.png"), image_id=np.int64(9))
    save_sa1b(image, tmp_path / "x.json")
    again = load_sa1b(tmp_path / "x.json")
    assert again[5].bbox == (1, 2, 3.5, 4)
    assert [region.crowd for region in again] == [True, False]
    assert (again.file_name, again.photo, again.image_id) == ("p.png", tmp_path / "p.png", 9)
    save_sa1b(again, tmp_path / "x.json", file_name="other.png")
    assert load_sa1b(tmp_path / "x.json").file_name == "other.png"


def test_a_stop_while_writing_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = write_json(tmp_path / "x.json", three_squares())
    before = path.read_bytes()
    image = load_sa1b(path)
    image.image_id = object()
    with pytest.raises(TypeError):
        save_sa1b(image, path)
    image.image_id = 7

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space"):
        save_sa1b(image, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_load_regions_reads_sa1b_json(tmp_path):
    path = write_json(tmp_path / "sa_7.json", three_squares())
    assert [region.id for region in load_regions(path)] == [11, 12, 13]
    document = three_squares()
    document["annotations"][0]["area"] = "1"
    write_json(path, document)
    with pytest.raises(AnnotationFormatError):
        load_regions(path)
    assert len(load_regions(path, strict=False).left_out) == 1
    with pytest.raises(FileMissingError, match=r"gone.png"):
        load_regions(path, tmp_path / "gone.png", strict=False)
