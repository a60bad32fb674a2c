"""Small files as other tools write them: the same regions in every command."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.annotate.store import Store
from ureca_lib.cli import app
from ureca_lib.datasets import open_captioned, read_jsonl
from ureca_lib.regions import AnnotationFormatError, RegionError, load_photo, masked_photos
from ureca_lib.train.index import open_index

CASES = Path(__file__).parent / "cases"
POLYGONS, PIXELS = [1200, 100, 900], [1271, 121, 961]
# photos (with masks), and areas of each photo's regions
EXPECTED = {
    "sam_amg_list": (["photo.png"], PIXELS),
    "rle_area_zero": (["photo.png"], PIXELS),
    "degenerate_ring": (["photo.png"], POLYGONS),
    "same_name_folders": (["day/photo.png", "night/photo.png"], POLYGONS),
    "exif_swapped_size": (["photo.jpg"], POLYGONS),
    "file_name": (["photo.png"], POLYGONS),
    "labelme": (["photo.png"], POLYGONS),
    "arrays": (["12_photo.png"], PIXELS),
    "panoptic": (["photo.png"], [1150, 121, 961]),
    "coco_results": (["photo.png"], PIXELS),
    "text_image_id": (["photo.png"], POLYGONS),
    "one_text_image_id": (["photo.png"], POLYGONS),
    "flat_polygon": (["photo.png"], POLYGONS),
}
ELSEWHERE = {"arrays": "12_masks.npy", "same_name_folders": "instances.json"}


def ureca(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(params=EXPECTED)
def case(request, tmp_path):
    """Photos, the file of their masks if it is not beside them, and the areas of the regions."""
    folder = tmp_path / request.param
    shutil.copytree(CASES / request.param, folder)
    photos, areas = EXPECTED[request.param]
    masks = ELSEWHERE.get(request.param)
    return [folder / name for name in photos], masks and folder / masks, areas


def test_caption(case, tmp_path):
    photos, masks, areas = case
    for photo in photos:
        given = ["--masks", masks] if masks else []
        result = ureca("caption", photo, *given, "--coco", tmp_path / "o.json")
        assert result.exit_code == 0, result.output
        written = json.loads((tmp_path / "o.json").read_text())
        assert [row["area"] for row in written["annotations"]] == areas


def test_annotate_export_and_train(case, tmp_path):
    photos, masks, areas = case
    folder = tmp_path / photos[0].relative_to(tmp_path).parts[0]
    given = ["--masks", masks] if masks else []
    store, out = tmp_path / "s.sqlite", tmp_path / "out"
    result = ureca("annotate", folder, "--out", store, *given, "--no-progress")
    assert result.exit_code == 0, result.output
    result = ureca("export", store, "--out", out, "--include", "unresolved", "--no-progress")
    assert result.exit_code == 0, result.output
    data = f"{out / 'train.jsonl'}@{folder}"
    images = list(open_captioned(data))
    assert [[region.area for region in image.regions] for image in images] == [areas] * len(photos)
    assert all(len(image.captions) == len(areas) for image in images)
    assert {image.image.photo for image in images} <= {*photos, None}
    index = open_index(data, folder=tmp_path, progress=False)
    assert index.counts.tolist() == [len(areas)] * len(photos)
    for photo in photos:  # a notebook follows one image of a store
        with Store(store) as opened:
            work = AnnotatedImage(f"{photo}@{masks}" if masks else photo, opened)
        assert sorted(work.captions) == sorted(region.id for region in work.image)
    if masks is not None or len(photos) > 1:
        return
    shards = ureca("annotate", folder, "--out", tmp_path / "stores", "--shards", 2, "--no-progress")
    assert shards.exit_code == 0, shards.output
    assert "1 train done" in ureca("status", tmp_path / "stores").output


def test_predict(case, tmp_path):
    photos, masks, areas = case
    folder = tmp_path / photos[0].relative_to(tmp_path).parts[0]
    data = f"{folder}@{masks}" if masks else folder
    out = tmp_path / "p.jsonl"
    result = ureca("predict", "--data", data, "--system", "attributes", "-o", out, "--no-progress")
    assert result.exit_code == 0, result.output
    assert [row["area"] for row in read_jsonl(out)] == areas * len(photos)


def test_notebooks_read_a_photo(case):
    photos, masks, areas = case
    for photo in photos:
        image = load_photo(f"{photo}@{masks}" if masks else photo)
        assert [region.area for region in image] == areas
        assert image.pixels.shape == (64, 96, 3)


def test_boxes_are_regions_when_asked_for_in_every_command(tmp_path):
    folder = tmp_path / "boxes"
    shutil.copytree(CASES / "boxes_only_empty", folder)
    photo, store, out = folder / "photo.png", tmp_path / "s.sqlite", tmp_path / "out"
    commands = {
        "caption": ("caption", photo, "-o", tmp_path / "c.jsonl"),
        "annotate": ("annotate", folder, "--out", store, "--no-progress"),
        "predict": ("predict", "--data", folder, "--system", "attributes", "-o"),
    }
    commands["predict"] += (tmp_path / "p.jsonl",)
    for words in commands.values():
        result = ureca(*words)
        assert result.exit_code and "it has a box and no mask" in result.output
        result = ureca(*words, "--use-boxes")
        assert result.exit_code == 0, result.output
    for name in ("c.jsonl", "p.jsonl"):
        assert len(list(read_jsonl(tmp_path / name))) == 3
    assert ureca("export", store, "--out", out, "--include", "unresolved").exit_code == 0
    (image,) = open_captioned(f"{out / 'train.jsonl'}@{folder}")
    assert [region.area for region in image.regions] == POLYGONS


def test_an_avif_photo_is_read_in_every_command(tmp_path):
    photo, store = tmp_path / "p.avif", tmp_path / "s.sqlite"
    shutil.copy(CASES / "photo_kinds" / "p.avif", photo)
    assert ureca("caption", photo, "-o", tmp_path / "c.jsonl").exit_code == 0  # superpixels
    result = ureca("annotate", photo, "--out", store)
    assert result.exit_code == 2 and "`ureca segment` finds masks" in result.output
    assert ureca("segment", photo).exit_code == 0
    for words in (("annotate", tmp_path, "--out", store), ("annotate", photo, "--out", store)):
        assert ureca(*words, "--no-progress").exit_code == 0
    out = tmp_path / "p.jsonl"
    predicted = ureca("predict", "--data", photo, "--system", "attributes", "-o", out)
    assert predicted.exit_code == 0, predicted.output


@pytest.fixture
def mixed(tmp_path):
    """A folder of three photos, of which one has masks beside and one in a file of many."""
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (96, 64), (200, 10, 10)).save(tmp_path / name)
    np.save(tmp_path / "a.npy", np.ones((64, 96), bool))
    sizes = {"width": 96, "height": 64}
    names = ("B.PNG", "gone.png")
    ring = [[8, 10, 38, 10, 38, 50, 8, 50]]
    document = {
        "images": [{"id": n, "file_name": name} | sizes for n, name in enumerate(names)],
        "annotations": [{"id": 1, "image_id": 0, "segmentation": ring, "caption": "the block"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    return tmp_path


def test_a_folder_says_what_happens_with_photos_without_masks(mixed):
    with pytest.warns(UserWarning) as told:
        result = ureca("annotate", mixed, "--out", mixed / "s.sqlite", "--no-progress")
    texts = [str(warning.message) for warning in told]
    assert any("1 of 3 photos have no masks and are left out: c.png" in text for text in texts)
    lost = "instances.json: 1 of its 2 images have no photo here: gone.png"
    assert any(lost in text for text in texts)
    assert "2 images: 2 done" in result.output
    result = ureca("caption", mixed, "--model", "tiny")
    assert "masks of instances.json" in result.output
    assert "1 of 3 photos have no masks: c.png; superpixels instead" in result.output
    assert result.exit_code == 0


def test_captions_of_a_coco_file_are_references(mixed):
    images = {image.image_id: image for image in open_captioned(mixed)}
    assert images["B"].captions == {1: ["the block"]} and images["a"].captions == {}
    assert images["B"].pixels.shape == (64, 96, 3)
    (alone,) = open_captioned(mixed / "b.png")
    assert alone.captions == {1: ["the block"]}
    (named,) = open_captioned(f"{mixed / 'instances.json'}/B.PNG")
    assert [region.area for region in named.regions] == [1200]
    index = open_index(str(mixed), folder=mixed / "run", progress=False)
    assert index.counts.tolist() == [0, 1]


def test_png_folders_and_label_maps_belong_to_the_photo_of_their_name(tmp_path):
    photos, maps = tmp_path / "photos", tmp_path / "maps"
    for folder in (photos / "a", maps):
        folder.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(photos / name)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:6] = 7
    for file in (photos / "a" / "lake.png", maps / "b.png"):
        Image.fromarray(mask).save(file)
    (beside,) = masked_photos(photos)
    assert [(r.id, r.name, r.area) for r in beside.load()] == [(1, "lake", 8)]
    (other,) = masked_photos(photos, maps)
    assert other.photo == photos / "b.jpg" and [r.id for r in other.load()] == [7]
    image = load_photo(f"{photos / 'b.jpg'}@{photos / 'a'}")  # a folder of one photo's masks
    assert [region.name for region in image] == ["lake"]


def test_masks_of_other_photos_are_not_used_in_silence(tmp_path):
    shutil.copytree(CASES / "same_name_folders", tmp_path / "x")
    folder, masks = tmp_path / "x", tmp_path / "x" / "instances.json"
    (folder / "photo.png").write_bytes((folder / "day" / "photo.png").read_bytes())
    (folder / "phot.png").write_bytes((folder / "day" / "photo.png").read_bytes())
    with pytest.raises(AnnotationFormatError, match=r"2 of the file's images are called 'photo"):
        masked_photos(folder / "photo.png", masks)
    with pytest.raises(AnnotationFormatError, match=r"'phot.png'; the nearest: photo.png"):
        masked_photos(folder / "phot.png", masks)
    document = json.loads(masks.read_text())
    document["images"] = [
        {**document["images"][0], "file_name": "a/photo.png"},
        {**document["images"][1], "file_name": "other.png"},
    ]
    masks.write_text(json.dumps(document))
    (folder / "photo.png").unlink()
    with pytest.raises(AnnotationFormatError, match=r"may be of .*photo.png or .*photo.png"):
        masked_photos(folder)
    one = tmp_path / "one"
    one.mkdir()
    document["images"] = document["images"][1:]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] == 2]
    (one / "photo.json").write_text(json.dumps(document))
    shutil.copy(folder / "phot.png", one / "photo.png")
    with pytest.warns(UserWarning, match=r"the masks are of 'other.png', .* used for 'photo.png'"):
        masked_photos(one)[0].load()
    shutil.copy(folder / "phot.png", one / "second.png")
    with pytest.raises(RegionError, match="of one image, and none of 2 photos has its name"):
        (one / "photo.json").rename(tmp_path / "masks.json")
        masked_photos(one, tmp_path / "masks.json")


def test_names_may_be_percent_encoded(tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "my photo.png")
    sizes = {"width": 96, "height": 64}
    names = ("my%20photo.png", "b.png")
    images = [{"id": n, "file_name": name} | sizes for n, name in enumerate(names)]
    annotation = {"id": 1, "image_id": 0, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"images": images, "annotations": [annotation]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_photo(tmp_path / "my photo.png")) == 1
