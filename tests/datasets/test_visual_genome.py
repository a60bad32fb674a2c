"""Visual Genome's own files, those in the form of GRiT, boxes as masks, and faulty files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zero_shot_data import visual_genome

from ureca_lib.datasets.captioned import CaptionedError, open_captioned
from ureca_lib.datasets.visual_genome import densecap_words
from ureca_lib.datasets.zero_shot import box_mask
from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    SizeMismatchError,
)


@pytest.fixture
def folder(samples):
    return samples / "visual_genome"


@pytest.fixture
def copy(folder, samples, tmp_path):
    shutil.copytree(folder, tmp_path / "visual_genome")
    (tmp_path / "photos").symlink_to(samples / "photos")
    return tmp_path / "visual_genome"


def change(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def contents(found):
    return [
        (image.image_id, image.size, image.captions, [region.rle for region in image.regions])
        for image in found
    ]


sides = st.floats(-30, 60) | st.integers(-30, 60)
lengths = st.integers(1, 20)


@settings(deadline=None)
@given(box=st.tuples(sides, sides, sides, sides), size=st.tuples(lengths, lengths))
def test_a_box_is_the_pixels_whose_centres_lie_in_it(box, size):
    x, y, width, height = box
    rows, columns = np.mgrid[: size[0], : size[1]]
    across, down = columns + 0.5, rows + 0.5
    inside = (across > x) & (across <= x + width) & (down > y) & (down <= y + height)
    # on an edge either side is right
    near = np.isclose(across, x) | np.isclose(across, x + width)
    near |= np.isclose(down, y) | np.isclose(down, y + height)
    try:
        mask = box_mask(box, *size)
    except EmptyMaskError:
        assert not (inside & ~near).any() or width <= 0 or height <= 0
        return
    assert np.array_equal(mask[~near], inside[~near])


def test_whole_boxes_have_their_width_and_height():
    mask = box_mask([2, 1, 3, 4], 6, 8)
    assert mask.sum() == 12 and mask[1:5, 2:5].all()
    assert box_mask([-2, -1, 4, 3], 6, 8).sum() == 4  # clipped
    assert box_mask([0, 0, 100, 100], 6, 8).all()
    for box in ([8, 0, 3, 3], [0, 0, 0, 5], [0, 0, 5, -1], [3, 3, 0.4, 0.4]):
        with pytest.raises(EmptyMaskError, match="no pixel of the 8 x 6 image"):
            box_mask(box, 6, 8)
    for box in ("box", [1, 2, 3], [1, 2, 3, float("nan")], None, [1, 2, 3, "4"], [1, 2, 3, True]):
        with pytest.raises(AnnotationFormatError, match="four finite numbers"):
            box_mask(box, 6, 8)


def test_words_as_densecap_splits_them():
    words = densecap_words("The man's T-shirt, 90\u00b0.")
    assert words == ["the", "mans", "tshirt", "90", "degree"]
    assert densecap_words("\u00bd a caf\u00e9\u2014bar\u2122\u2026") == ["half", "a", "cafebar"]
    assert densecap_words(" ... ") == []


def test_the_test_split_as_it_stands_in_the_files(folder):
    found = visual_genome(folder)
    ids = json.loads((folder / "densecap_splits.json").read_text())["test"]
    entries = json.loads((folder / "region_descriptions.json").read_text())
    sizes = {
        one["image_id"]: (one["height"], one["width"])
        for one in json.loads((folder / "image_data.json").read_text())
    }
    assert found.ids == [str(one["id"]) for one in entries if one["id"] in ids]
    left_out = {error.region_id: error.reason for error in found.left_out}
    assert set(left_out) == {108, 109}
    assert "20 words, more than 15" in left_out[108] and "no pixel" in left_out[109]
    for image, entry in zip(found, (one for one in entries if one["id"] in ids), strict=True):
        assert image.size == sizes[entry["id"]] == image.pixels.shape[:2]
        kept = [one for one in entry["regions"] if one["region_id"] not in left_out]
        assert [region.id for region in image.regions] == [one["region_id"] for one in kept]
        for region, one in zip(image.regions, kept, strict=True):
            x, y, w, h = max(one["x"], 0), one["y"], one["width"] + min(one["x"], 0), one["height"]
            assert region.pixel_box == (x, y, w, h) and region.area == w * h
            assert image.captions[region.id] == [" ".join(densecap_words(one["phrase"]))]


def test_grits_form_gives_the_same(folder):
    raw = contents(visual_genome(folder))
    assert contents(visual_genome(folder / "annotations")) == raw
    assert contents(visual_genome(folder / "annotations" / "test.json")) == raw


def test_version_1_0_gives_the_same(copy):
    def old_regions(images):
        for image in images:
            for region in image["regions"]:
                region["id"], region["image"] = region.pop("region_id"), region.pop("image_id")

    def newer_images(images):
        for image in images:
            image["image_id"] = image.pop("id")

    def old_data(images):
        for image in images:
            image["id"] = image.pop("image_id")

    whole = contents(visual_genome(copy))
    change(copy / "region_descriptions.json", old_regions)
    change(copy / "image_data.json", old_data)
    assert contents(visual_genome(copy)) == whole
    change(copy / "region_descriptions.json", newer_images)
    assert contents(visual_genome(copy)) == whole


def test_other_splits_raw_phrases_sets_and_limits(folder):
    assert visual_genome(folder, "val").ids == ["4"]
    assert visual_genome(folder, "all").ids == ["1", "2", "3", "4", "5"]
    left_out = visual_genome(folder).left_out
    assert [error.region_id for error in left_out] == [108, 109]
    assert visual_genome(folder, limit=2).ids == ["1", "2"]
    assert visual_genome(folder, regions="multi").ids == ["1", "2", "3"]
    with pytest.raises(CaptionedError, match="no images; 2 entries left out, such as"):
        visual_genome(folder, regions="single")


def test_a_limit_reads_no_further_than_it_needs(copy):
    file = copy / "region_descriptions.json"
    first = json.dumps(json.loads(file.read_text())[0])
    file.write_text("[" + first + ", " + " " * 2_000_000 + "broken")
    assert visual_genome(copy, limit=1).ids == ["1"]
    opened = open_captioned(f"visual_genome:test:{copy}", limit=1)
    assert opened.ids == ["1"] and [out.region_id for out in opened.left_out] == [108, 109]
    with pytest.raises(AnnotationFormatError, match=r"truncated|not JSON"):
        visual_genome(copy)


def test_photos_lie_where_visual_genome_has_them(copy, samples, tmp_path):
    (tmp_path / "photos").unlink()
    change(
        copy / "image_data.json",
        lambda images: images[0].update(
            url="https://cs.stanford.edu/people/rak248/VG_100K_2/1.png"
        ),
    )
    with pytest.raises(FileMissingError, match=r"VG_100K_2/1\.png"):
        _ = visual_genome(copy)[0].pixels
    (copy / "images" / "VG_100K_2").mkdir(parents=True)
    shutil.copy(samples / "photos" / "astronaut.png", copy / "images" / "VG_100K_2" / "1.png")
    assert visual_genome(copy)[0].pixels.shape == (512, 512, 3)
    given = visual_genome(copy, images=copy / "images" / "VG_100K_2")
    assert given[0].pixels.shape == (512, 512, 3)
    with pytest.raises(FileMissingError, match="folder of the photos"):
        visual_genome(copy, images=tmp_path / "none")


def test_an_entry_for_each_region_is_one_image(folder, tmp_path):
    file = tmp_path / "test_caption.json"
    form = json.loads((folder / "annotations" / "test.json").read_text())
    images = {image["id"]: image for image in form["images"]}
    form["images"] = []
    for number, one in enumerate(form["annotations"], 1000):
        form["images"].append(images[one["image_id"]] | {"id": number})
        one.update(id=number, image_id=number)
    file.write_text(json.dumps(form))
    found = visual_genome(file, images=folder.parent / "photos")
    whole = visual_genome(folder)
    assert len(found) == 3 and found.counts["regions"] == whole.counts["regions"]
    assert [list(image.captions.values()) for image in found] == [
        list(image.captions.values()) for image in whole
    ]


REGIONS, IMAGES = "region_descriptions.json", "image_data.json"


def _first(images):
    return images[0]["regions"][0]


@pytest.mark.parametrize(
    ("name", "edit", "kind", "reason"),
    [
        (REGIONS, lambda v: v.append(v[0]), AnnotationFormatError, "1 is there twice"),
        (REGIONS, lambda v: v[0].pop("regions"), AnnotationFormatError, "'regions'"),
        (REGIONS, lambda v: v[0].pop("id"), AnnotationFormatError, "'image_id'"),
        (REGIONS, lambda v: v.append(3), AnnotationFormatError, "not an object"),
        (REGIONS, lambda v: _first(v).pop("x"), AnnotationFormatError, "100: .*'x'"),
        (REGIONS, lambda v: _first(v).update(x="1"), AnnotationFormatError, "'x' is str"),
        (REGIONS, lambda v: _first(v).pop("phrase"), AnnotationFormatError, "'phrase'"),
        (REGIONS, lambda v: _first(v).update(region_id=101), AnnotationFormatError, "101"),
        (IMAGES, lambda v: v.pop(0), AnnotationFormatError, "no image 1"),
        (IMAGES, lambda v: v[0].pop("width"), AnnotationFormatError, "'width'"),
    ],
)  # fmt: skip
def test_malformed_entries_are_named(copy, name, edit, kind, reason):
    change(copy / name, edit)
    with pytest.raises(kind, match=reason) as error:
        visual_genome(copy)
    assert "visual_genome" in str(error.value) and ".json" in str(error.value)


def test_malformed_entries_are_left_out_when_asked(copy):
    whole = visual_genome(copy)

    def edit(images):
        _first(images).pop("x")
        images[0]["regions"][1]["phrase"] = " !! "
        images.append({"id": 1})

    change(copy / "region_descriptions.json", edit)
    found = visual_genome(copy, strict=False)
    assert found.counts["regions"] == whole.counts["regions"] - 2
    reasons = " ".join(map(str, found.left_out))
    assert "there is no 'x'" in reasons and "phrase is empty" in reasons and "twice" in reasons


@pytest.mark.parametrize(
    ("edit", "kind", "reason"),
    [
        (
            lambda v: v["images"].clear(),
            AnnotationFormatError,
            "there is no list of images",
        ),
        (lambda v: v["images"].pop(0), AnnotationFormatError, "region 100: there is no image 1"),
        (lambda v: v["images"][0].pop("height"), AnnotationFormatError, "'height'"),
        (lambda v: v["annotations"][0].pop("caption"), AnnotationFormatError, "'caption'"),
        (lambda v: v["annotations"][0].update(bbox=[1, 2]), AnnotationFormatError, "four finite"),
        (lambda v: v["annotations"].append(5), AnnotationFormatError, "not an object"),
        (
            lambda v: v["images"].append(v["images"][0] | {"id": 9, "width": 5}),
            SizeMismatchError,
            "is 5 x 512 here",
        ),
        (
            lambda v: v["images"].append(v["images"][0] | {"file_name": "other.jpg"}),
            AnnotationFormatError,
            "an image before it, astronaut.png, has this id",
        ),
    ],
)
def test_malformed_files_of_grits_form_are_named(copy, edit, kind, reason):
    change(copy / "annotations" / "test.json", edit)
    with pytest.raises(kind, match=reason) as error:
        visual_genome(copy / "annotations")
    assert "test.json" in str(error.value)


def test_missing_and_foreign_files(copy, tmp_path):
    with pytest.raises(CaptionedError, match=r"no split 'dev'; there are train \(1\), val"):
        visual_genome(copy, "dev")
    with pytest.raises(FileMissingError, match=r"test\.json: the annotation file does not exist"):
        visual_genome(tmp_path)
    with pytest.raises(FileMissingError, match="does not exist"):
        visual_genome(tmp_path / "none.json")
    (copy / "densecap_splits.json").unlink()
    with pytest.raises(FileMissingError, match=r"densecap_splits\.json"):
        visual_genome(copy)
    assert len(visual_genome(copy, "all")) == 5
    (copy / "image_data.json").write_text(json.dumps({"images": 1}))
    with pytest.raises(AnnotationFormatError, match="there is no list of its items"):
        visual_genome(copy, "all")
    (copy / "image_data.json").unlink()
    with pytest.raises(FileMissingError, match=r"image_data\.json"):
        visual_genome(copy, "all")
