"""Captions as files of annotation tools: read back by our reader, and by the tools' own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.datasets import open_captioned
from ureca_lib.regions import Region, RegionImage, load_sa1b
from ureca_lib.regions.formats import _WRITERS, READERS, brush_values, format_table
from ureca_lib.tool_files import (
    WRITERS,
    Captioned,
    brush_stream,
    coco_document,
    export_to_tool,
    write_cvat,
    write_label_studio,
)

PHOTOS = Path(__file__).resolve().parents[1] / "data_samples" / "photos"
FILES = {"coco": "instances.json", "label-studio": "tasks.json", "cvat": "annotations.xml"}
STATES = ["unique", "unresolved", "dropped", "failed"]


def ureca(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two photos with masks, a store with their captions, predictions, and captions."""
    place = tmp_path_factory.mktemp("tools")
    for name in ("coins.png", "coins.json", "rocket.jpg", "rocket.json"):
        (place / "photos").mkdir(exist_ok=True)
        shutil.copy(PHOTOS / name, place / "photos")
    photos, predictions = place / "photos", place / "p.jsonl"
    assert ureca("annotate", photos, "--out", place / "s.db", "--no-progress").exit_code == 0
    words = ("predict", "--data", photos, "--system", "attributes", "-o", predictions)
    assert ureca(*words, "--no-progress").exit_code == 0
    shutil.copy(PHOTOS / "coffee.png", place)
    words = ("caption", place / "coffee.png", "-o", place / "c.jsonl", "--coco", place / "c.json")
    assert ureca(*words).exit_code == 0
    return place


@pytest.mark.parametrize("tool", FILES)
@pytest.mark.parametrize("source", ["s.db", "p.jsonl", "c.jsonl", "c.json"])
def test_captions_and_masks_come_back(folder, tmp_path, source, tool):
    out = tmp_path / "out"
    words = ("export", folder / source, "--format", tool, "--out", out, "--include", "unresolved")
    result = ureca(*words)
    assert result.exit_code == 0, result.output
    images = list(open_captioned(str(out / FILES[tool])))
    assert sum(len(image.captions) for image in images) == int(result.output.split()[0])
    if source.startswith("c."):
        (image,) = images
        assert image.image.file_name == "coffee.png" and len(image.captions) > 5
        return
    by_name = {image.image.file_name: image for image in images}
    for name, image in by_name.items():
        drawn = load_sa1b((PHOTOS / name).with_suffix(".json"))
        masks = {region.rle["counts"]: region for region in drawn}
        for region in image.regions:
            mine = masks[region.rle["counts"]]
            assert region.name == mine.name
            assert image.captions[region.id][0]
    if source == "p.jsonl":
        assert {image.image.file_name for image in images} == {"coins.png", "rocket.jpg"}


def test_coco_is_what_pycocotools_reads(folder, tmp_path):
    export_to_tool(str(folder / "s.db"), tmp_path, "coco", STATES)
    opened = COCO(tmp_path / "instances.json")
    assert len(opened.imgs) == 2
    for row in opened.anns.values():
        assert row["bbox"] == coco_mask.toBbox(row["segmentation"]).tolist()
        assert row["caption"] and row["category_id"] in opened.cats


def test_the_folder_of_fiftyone_has_the_photos(folder, tmp_path):
    export_to_tool(str(folder / "s.db"), tmp_path, "fiftyone", STATES)
    written = json.loads((tmp_path / "labels.json").read_text())
    names = [image["file_name"] for image in written["images"]]
    assert names == sorted(file.name for file in (tmp_path / "data").iterdir())
    for name in names:
        assert (tmp_path / "data" / name).read_bytes() == (PHOTOS / name).read_bytes()
    fields = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}
    assert all(fields <= row.keys() for row in written["annotations"])


def captioned(*masks: np.ndarray, name: str | None = None) -> Captioned:
    regions = [Region.from_mask(n, mask, name) for n, mask in enumerate(masks, start=1)]
    height, width = masks[0].shape
    image = RegionImage(regions, width, height, file_name="a.png")
    return Captioned(image, {region.id: 'a <b> & "c"\x00' for region in regions})


def test_text_cannot_leave_its_place(tmp_path):
    one = captioned(np.ones((3, 4), bool), name='<x y="1">&\x07')
    write_cvat([one], tmp_path)
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    assert root.findtext("image/mask/attribute") == 'a <b> & "c"\ufffd'
    assert root.find("image/mask").get("label") == '<x y="1">&\ufffd'
    write_label_studio([one], tmp_path)
    (label,) = ElementTree.parse(tmp_path / "config.xml").getroot().iter("Label")
    assert label.get("value") == '<x y="1">&\ufffd'


def test_brush_streams_of_any_mask_are_read_back():
    rng = np.random.default_rng(0)
    masks = [rng.random((7, 9)) < 0.5, np.ones((300, 70), bool), np.eye(5, dtype=bool)]
    for mask in masks:
        read = brush_values(brush_stream(mask)).reshape(*mask.shape, 4)
        assert np.array_equal(read[..., 3] > 0, mask)


def test_label_studio_s_own_reader_takes_the_tasks(folder, tmp_path):
    sdk = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk resolves apart from the lock"
    )
    from label_studio_sdk.converter import brush

    export_to_tool(str(folder / "s.db"), tmp_path, "label-studio", STATES)
    interface = sdk.LabelInterface((tmp_path / "config.xml").read_text())
    for task in json.loads((tmp_path / "tasks.json").read_text()):
        (annotation,) = task["annotations"]
        assert interface.validate_annotation(annotation)
        drawn = load_sa1b((PHOTOS / task["data"]["image"]).with_suffix(".json"))
        first = annotation["result"][0]
        flat = np.array(brush.decode_rle(first["value"]["rle"]))
        inside = flat.reshape(drawn.height, drawn.width, 4)[..., 3] > 0
        assert np.array_equal(inside, drawn[int(first["id"])].mask)


def test_datumaro_reads_what_is_written_for_cvat(folder, tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="datumaro resolves apart from the lock")
    export_to_tool(str(folder / "s.db"), tmp_path, "cvat", STATES)
    (tmp_path / "images").mkdir()
    for name in ("coins.png", "rocket.jpg"):
        shutil.copy(PHOTOS / name, tmp_path / "images")
    for item in datumaro.Dataset.import_from(str(tmp_path), "cvat"):
        drawn = load_sa1b(PHOTOS / f"{item.id}.json")
        assert sorted(int(one.image.sum()) for one in item.annotations) == sorted(
            region.area for region in drawn
        )
        assert all(one.attributes["caption"] for one in item.annotations)


def test_the_files_for_cvat_and_label_studio_have_what_their_readers_need(folder, tmp_path):
    """As their readers were found to need it: labels in `meta`, no XML declaration in a text."""
    export_to_tool(str(folder / "s.db"), tmp_path, "cvat", STATES)
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    listed = {label.findtext("name") for label in root.iterfind("meta/task/labels/label")}
    assert {mask.get("label") for mask in root.iter("mask")} <= listed
    kinds = {one.findtext("input_type") for one in root.iterfind("meta/task/labels/*/*/attribute")}
    assert kinds == {"text"}
    export_to_tool(str(folder / "s.db"), tmp_path, "label-studio", STATES)
    assert (tmp_path / "config.xml").read_text().startswith("<View>")


def test_wrong_sources_and_formats_are_named(folder, tmp_path):
    for words, text in (
        (("photos", "--format", "coco"), "there are no captions"),
        (("s.db", "--format", "labelbox"), "the format is one of coco, label-studio"),
        (("nothing.db", "--format", "coco"), "nothing.db"),
    ):
        result = ureca("export", folder / words[0], *words[1:], "--out", tmp_path / "o")
        assert result.exit_code == 2 and text in result.output
    assert not (tmp_path / "o").exists()


def test_names_get_a_prefix_and_selected_captions_alone_are_written(tmp_path):
    one = captioned(np.eye(4, dtype=bool), np.ones((4, 4), bool))
    document = coco_document([one._replace(captions={2: "all"}, unique={2: True})])
    (row,) = document["annotations"]
    assert (row["region_id"], row["caption"], row["unique"]) == (2, "all", True)
    (tmp_path / "c.json").write_text(json.dumps(document))
    export_to_tool(str(tmp_path / "c.json"), tmp_path / "o", "label-studio", prefix="/data/?d=")
    (task,) = json.loads((tmp_path / "o" / "tasks.json").read_text())
    assert task["data"]["image"] == "/data/?d=a.png"


def test_the_table_names_every_format_that_is_written():
    text = format_table()
    assert all(f"| {READERS} |" in line for line in text.splitlines()[2:])
    written = {words.rpartition("--format ")[2] for words in _WRITERS.values()}
    assert {"label-studio", "cvat"} <= written & WRITERS.keys()
