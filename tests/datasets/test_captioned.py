"""Images with regions and references, from scenes, exports, published files and SA-1B."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from fake_annotators import small_image, write_images

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.export import conversation, export_dataset, write_jsonl
from ureca_lib.annotate.run import annotate_images
from ureca_lib.datasets import read_jsonl
from ureca_lib.datasets.captioned import CaptionedError, CaptionedImage, from_scene, open_captioned
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import RegionError, load_sa1b
from ureca_lib.scenes import generate_scene, write_scenes


def row(image, mask_id, text="a caption", **more):
    names = {"id": f"{image}/{mask_id}", "image": image, "mask_id": mask_id}
    return names | {"conversations": conversation(text)} | more


@pytest.mark.parametrize(
    ("text", "first", "count"),
    [
        ("scenes:test:500", 2_000_000, 500),
        ("scenes:test:3-5", 2_000_003, 2),
        ("scenes:validation", 1_000_000, 10_000),
        ("scenes:train:100-8000", 100, 7900),
    ],
)
def test_scenes_are_those_of_their_seeds(text, first, count):
    images = open_captioned(text)
    assert len(images) == count
    assert images.ids[0] == f"scene_{first:07d}" and images.ids[-1].endswith(str(first + count - 1))
    image, scene = images[0], generate_scene(first)
    assert np.array_equal(image.pixels, scene.image) and image.size == scene.image.shape[:2]
    assert image.regions == scene.regions.regions
    assert image.captions == {key: [text] for key, text in scene.captions.items()}
    assert image.levels == {key: scene.tree.depth(key) for key in scene.captions}
    assert image.scene.seed == first


def test_scenes_in_another_style():
    (image,) = open_captioned("scenes:test:1", style="minimal")
    scene = generate_scene(2_000_000)
    assert image.captions == {k: [t] for k, t in scene.captions_in("minimal").items()}
    assert np.array_equal(image.pixels, scene.image)


def test_a_sequence_can_be_cut_and_read_again():
    images = open_captioned("scenes:test:9", limit=4)
    assert images.ids == [f"scene_200000{n}" for n in range(4)]
    assert [image.image_id for image in images[1:3]] == images.ids[1:3]
    assert images[-1].regions == images[3].regions == list(images)[3].regions
    with pytest.raises(IndexError):
        images[4]


def test_a_folder_of_scenes_is_read_back(tmp_path):
    write_scenes([2_000_000, 7], tmp_path, image_format="png", progress=False)
    stored = open_captioned(tmp_path)
    assert stored.ids == ["scene_0000007", "scene_2000000"]
    fresh = from_scene(generate_scene(2_000_000))
    assert stored[1].captions == fresh.captions and stored[1].regions == fresh.regions
    assert np.array_equal(stored[1].pixels, fresh.pixels) and stored[1].levels == fresh.levels


def test_an_export_needs_the_split_and_finds_masks_elsewhere(exported, pipeline_store):
    photos = pipeline_store.parent / "photos"
    with pytest.raises(CaptionedError, match=r"2 splits; name one of .*test\.jsonl.*train\.jsonl"):
        open_captioned(exported.folder)
    rows = list(read_jsonl(exported.folder / "test.jsonl"))
    for images in (
        open_captioned(exported.folder / "test.jsonl", masks=photos),
        open_captioned(f"{exported.folder}/test.jsonl@{photos}"),
    ):
        (image,) = images
        assert image.image_id == "coins"
        whole = load_sa1b(photos / "coins.json")
        assert image.captions == {r["mask_id"]: [r["conversations"][1]["value"]] for r in rows}
        assert np.array_equal(image.pixels, whole.pixels)
        tree = build_mask_tree(whole)
        assert image.levels == {region.id: tree.depth(region.id) for region in image.regions}
        # what a record of predictions keeps, to be opened again
        assert images.name == f"{exported.folder}/test.jsonl@{photos}"


def test_a_folder_with_one_jsonl_is_that_one(tmp_path):
    write_images(tmp_path, 2)
    rows = [row("image_1.jpg", 1, "a"), row("image_0.jpg", 5, "b"), row("image_1.jpg", 1, "c")]
    write_jsonl(tmp_path / "only.jsonl", rows)
    images = open_captioned(tmp_path)
    assert images.ids == ["image_1", "image_0"]
    assert images[0].captions == {1: ["a", "c"]} and images[1].captions == {5: ["b"]}
    asked = "Describe this region in the image."
    assert images[0].questions == {1: [asked, asked]} and images[1].questions == {5: [asked]}
    assert open_captioned("scenes:test:1")[0].questions == {}
    # regions and depths are those of all masks; those with captions are to be captioned
    whole = build_mask_tree(small_image(0))
    assert images[1].regions == small_image(0).regions
    assert images[1].levels == {region.id: whole.depth(region.id) for region in small_image(0)}
    assert [region.id for region in images[1].targets] == [5]


def test_faulty_rows_stop_the_reading_or_are_left_out(tmp_path):
    write_images(tmp_path, 2)
    rows = [row("image_1.jpg", 99), row("image_0.jpg", 5), row("gone.jpg", 5)]
    write_jsonl(tmp_path / "x.jsonl", rows)
    with pytest.raises(CaptionedError, match=r"line 3.*gone\.json"):
        open_captioned(tmp_path / "x.jsonl")
    assert open_captioned(tmp_path / "x.jsonl", strict=False).ids == ["image_0"]


def test_a_photo_with_two_files_of_masks_is_two_images(tmp_path):
    write_images(tmp_path, 2)
    rows = [row("p.jpg", 1, masks="image_0.json"), row("p.jpg", 1, masks="image_1.json")]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert open_captioned(tmp_path / "x.jsonl").ids == ["image_0", "image_1"]


def test_sa1b_files_have_regions_and_no_captions(tmp_path):
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 1)
    images = open_captioned(tmp_path)
    assert sorted(images.ids) == ["a/image_0", "b/image_0", "image_1"]  # stems where they suffice
    image = images[images.ids.index("image_1")]
    assert image.captions == {} and image.regions == small_image(1).regions == image.targets
    assert np.array_equal(image.pixels, small_image(1).pixels)
    for one in ("a/image_1.json", "a/image_1.png"):
        assert open_captioned(tmp_path / one)[0].regions == small_image(1).regions


def test_a_faulty_mask_stops_the_reading_or_is_left_out(tmp_path):
    (path,) = write_images(tmp_path, 1)
    document = json.loads(path.read_text())
    document["annotations"][0]["segmentation"]["counts"] = "!!"
    path.write_text(json.dumps(document))
    with pytest.raises(RegionError, match=r"image_0\.json: region 1"):
        open_captioned(tmp_path)[0]
    left = open_captioned(tmp_path, strict=False)[0]
    assert [region.id for region in left.regions] == [r.id for r in small_image(0)][1:]


def test_a_scene_file_without_its_description_is_named(tmp_path, samples):
    source = sorted((samples / "scenes").glob("scene_*.json"))[0]
    document = json.loads(source.read_text())
    del document["scene"]
    (tmp_path / source.name).write_text(json.dumps(document))
    shutil.copy(source.with_suffix(".png"), tmp_path)
    with pytest.raises(RegionError, match=f"{source.name}.*there is no 'scene'"):
        open_captioned(tmp_path)[0]


BAD = [
    ("scenes:", "scenes are scenes:SPLIT"),
    ("scenes:test:", "scenes are scenes:SPLIT"),
    ("scenes:test:5-", "scenes are scenes:SPLIT"),
    ("scenes:holiday:5", "split must be"),
    ("scenes:test:99999", "the test split has 10000 seeds"),
    ("scenes:test:5-5", "there are no images"),
    ("scenes:test:0", "there are no images"),
    ("nowhere.jsonl", "nowhere.jsonl: there is no such file"),
]


@pytest.mark.parametrize(("data", "reason"), BAD)
def test_bad_data_is_named(data, reason):
    with pytest.raises((ValueError, OSError), match=reason):
        open_captioned(data)


def test_other_bad_requests_are_named(tmp_path, samples):
    with pytest.raises(RegionError, match="holds no annotation files"):
        open_captioned(tmp_path)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        open_captioned("scenes:test:5", limit=0)
    with pytest.raises(ValueError, match="style must be one of"):
        open_captioned("scenes:test:5", style="haiku")
    image = load_sa1b(samples / "photos" / "coins.json")
    with pytest.raises(CaptionedError, match=r"coins: captions of regions .*-7"):
        CaptionedImage("coins", image, {-7: ["no such coin"]})
    coin = image.regions[0].id
    for captions, questions in (({coin: ["a"]}, {coin: []}), ({}, {coin: ["What?"]})):
        with pytest.raises(CaptionedError, match="not one question per caption"):
            CaptionedImage("coins", image, captions, questions=questions)


def test_what_commands_wrote_beside_photos_is_no_data_set(tmp_path):
    write_images(tmp_path, 2)
    ids = open_captioned(tmp_path).ids
    names = ("a.captions.jsonl", "P.jsonl", "P.meta.json", "P.scores.json")
    for name in names:
        (tmp_path / name).write_text("{}\n")
    assert len(ids) == 2 and open_captioned(tmp_path).ids == ids


def test_folders_that_are_links_are_searched(tmp_path):
    write_images(tmp_path / "disk", 1)
    root = tmp_path / "sa1b"
    root.mkdir()
    (root / "part").symlink_to(tmp_path / "disk")
    (image,) = open_captioned(root)
    assert len(image.regions) == 7
    (file,) = (tmp_path / "disk").glob("*.json")
    write_jsonl(tmp_path / "a.jsonl", [row(file.with_suffix(".png").name, 1)])
    (image,) = open_captioned(f"{tmp_path / 'a.jsonl'}@{root}")
    assert image.captions == {1: ["a caption"]}


def test_a_folder_may_have_an_at_sign_and_is_opened_again_by_its_name(tmp_path):
    masks = tmp_path / "me@home" / "sa1b"
    write_images(masks, 1)
    (file,) = masks.glob("*.json")
    write_jsonl(tmp_path / "a.jsonl", [row(file.with_suffix(".png").name, 1)])
    images = open_captioned(tmp_path / "a.jsonl", masks=masks)
    assert open_captioned(images.name).ids == images.ids


def test_photos_called_as_scenes_are_need_no_description(tmp_path):
    write_images(tmp_path / "made", 1)
    for file in (tmp_path / "made").iterdir():
        file.rename(tmp_path / f"scene_001{file.suffix}")
    (image,) = open_captioned(tmp_path / "scene_001.json")
    assert image.scene is None and len(image.regions) == 7


def test_files_that_are_links_keep_their_names_in_a_data_set(tmp_path):
    # as the hub's cache and git-annex keep them
    blobs, links = tmp_path / "blobs", tmp_path / "links"
    write_images(blobs, 1)
    links.mkdir()
    for suffix in (".json", ".png"):
        (blobs / f"image_0{suffix}").rename(blobs / f"9f3e{suffix}")
        (links / f"image_0{suffix}").symlink_to(blobs / f"9f3e{suffix}")
    annotate_images(links, tmp_path / "s.sqlite", AttributeAnnotator(), progress=False)
    export_dataset(tmp_path / "s.sqlite", tmp_path / "out")
    (image,) = open_captioned(f"{tmp_path / 'out' / 'train.jsonl'}@{links}")
    assert len(image.captions) == 7
