"""RefCOCO, Ref-L4, DLC-Bench, GAR-Bench-Caption: small files in the published shapes."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_annotators import small_image, write_images
from PIL import Image
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.datasets import open_captioned
from ureca_lib.datasets.captioned import CaptionedError
from ureca_lib.regions import AnnotationFormatError, FileMissingError


def rle(region):
    return {"size": list(region.size), "counts": region.rle["counts"].decode()}


def photos(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(small_image(0).pixels).save(folder / name)


def check(folder):
    return CliRunner().invoke(app, ["data", str(folder)])


@pytest.fixture(params=["refcoco", "refcoco+"])
def refcoco(request, samples, tmp_path):
    """The samples of RefCOCOg, split as RefCOCO's are: testA holds people, testB other objects."""
    folder = tmp_path / request.param
    shutil.copytree(samples / "refcocog", folder)
    refs = pickle.loads((folder / "refs(umd).p").read_bytes())
    for number, ref in enumerate(refs):
        ref["split"] = ("testA", "testB", "val", "train")[number % 4]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, 0))
    (folder / "refs(umd).p").unlink()
    (folder / "refs(google).p").unlink()
    return folder, refs


def test_refcoco_is_read_as_refcocog_is(refcoco):
    folder, refs = refcoco
    for split in ("train", "val", "testA", "testB"):
        found = open_captioned(f"{folder.name}:unc:{split}:{folder}")
        wanted = [ref for ref in refs if ref["split"] == split]
        texts = {ref["ann_id"]: [one["sent"] for one in ref["sentences"]] for ref in wanted}
        assert {k: v for image in found for k, v in image.captions.items()} == texts
        assert f"{found.name}: {len(found)} images, {len(wanted)} regions" in check(folder).output
    with pytest.raises(CaptionedError, match=r"no split 'test'; there are testA \(\d+\), testB"):
        open_captioned(f"{folder.name}:unc:test:{folder}")


def ref_l4(folder, rows, split="val"):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"ref-l4-{split}.parquet")


def expression(number, caption, box_id="o365_527361", **more):
    return {
        "id": number,
        "caption": caption,
        "bbox": [4.5, 6.0, 10.0, 8.25],
        "bbox_area": 82.5,
        "bbox_id": box_id,
        "ori_category_id": "o365_64",
        "image_id": "o365_922765",
        "height": 48,
        "width": 48,
        "file_name": "objects365_v2_00922765.jpg",
        "is_rewrite": bool(number % 2),
        "split": "val",
    } | more


def test_ref_l4_has_all_expressions_of_a_box(tmp_path):
    folder = tmp_path / "Ref-L4"
    coco = {"image_id": "coco_128974", "file_name": "COCO_train2014_000000128974.jpg"}
    rows = [
        expression(0, "the camera in the central frame"),
        expression(1, "an antique camera"),
        expression(2, "the man", "coco_536932", **coco, bbox=[0.0, 0.0, 48.0, 20.0]),
    ]
    ref_l4(folder, rows)
    ref_l4(folder, [expression(3, "a clock", "o365_1") | {"split": "test"}], "test")
    photos(folder / "images", "objects365_v2_00922765.jpg")
    first, second = open_captioned(f"ref_l4:val:{folder}")
    assert first.image_id == "o365_922765" and second.image_id == "coco_128974"
    texts = ["the camera in the central frame", "an antique camera"]
    assert first.captions == {"o365_527361": texts}
    assert first.regions[0].pixel_box == (4, 6, 10, 8) and first.pixels.shape == (48, 48, 3)
    both = open_captioned(f"ref_l4:val+test:{folder}")
    assert both.counts == {"images": 2, "regions": 3, "captions": 4, "photos missing": 1}
    assert [region.id for region in both[0].regions] == ["o365_527361", "o365_1"]
    found = check(folder)
    assert found.exit_code == 0 and f"ref_l4:test:{folder}: 1 images" in found.output


def test_faulty_files_of_ref_l4_are_named(tmp_path):
    ref_l4(tmp_path, [expression(7, "a") | {"bbox": [1.0, 2.0]}])
    with pytest.raises(AnnotationFormatError, match=r"ref-l4-val.*of row 7: a box is four"):
        open_captioned(f"ref_l4:val:{tmp_path}")
    with pytest.raises(FileMissingError, match="there is no such split"):
        open_captioned(f"ref_l4:train:{tmp_path}")
    ref_l4(tmp_path, [{"id": 1, "caption": "a"}])
    with pytest.raises(AnnotationFormatError, match="not a Parquet file of Ref-L4"):
        open_captioned(f"ref_l4:val:{tmp_path}")
    (tmp_path / "ref-l4-val.parquet").write_text("<html>")
    with pytest.raises(AnnotationFormatError, match="not a Parquet file of Ref-L4"):
        open_captioned(f"ref_l4:val:{tmp_path}")


@pytest.fixture
def dlc(tmp_path):
    """DLC-Bench: two masks of a photo of Objects365, with names and without captions."""
    folder, regions = tmp_path / "DLC-Bench", small_image(0).regions[:2]
    photos(folder / "images", "objects365_v2_00912042.jpg")
    image = {"height": 48, "id": 912042, "license": 5, "width": 48, "url": ""}
    annotations = [
        {
            "id": 2391761 + number,
            "iscrowd": 0,
            "area": 60783.84,  # of the box's polygon, not of the mask
            "bbox": [0, 0, 1, 1],
            "image_id": 912042,
            "category_id": 22,
            "segmentation": rle(region),
        }
        for number, region in enumerate(regions)
    ]
    document = {
        "images": [image | {"file_name": "objects365_v2_00912042.jpg"}],
        "annotations": annotations,
        "categories": [{"name": "Boat", "id": 22}],
        "licenses": [],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    (folder / "class_names.json").write_text(json.dumps({"2391761": "canoe", "2391762": "bird"}))
    return folder


def test_dlc_bench_has_named_masks_without_references(dlc):
    (image,) = open_captioned(f"dlc_bench:{dlc}")
    assert image.captions == {} and image.pixels.shape == (48, 48, 3)
    assert [(region.id, region.name) for region in image.targets] == [
        (2391761, "canoe"),
        (2391762, "bird"),
    ]
    for region, mine in zip(image.regions, small_image(0).regions, strict=False):
        assert np.array_equal(region.mask, mine.mask)
    assert "1 images, 2 regions, 0 captions, 0 photos missing" in check(dlc).output


def gar(folder, name, items):
    (folder / f"GAR-Bench-Caption-{name}.json").write_text(json.dumps(items))


def test_gar_bench_has_relations_of_masks(tmp_path):
    masks = [rle(region) for region in small_image(0).regions[:3]]
    photos(tmp_path / "images", "caption_simple_0.png", "caption_detailed_0.png")
    question = "What is the spatial relationship between <Prompt1> and <Prompt0>?"
    simple = {
        "image_path": "/somewhere/else/000000227491.jpg",
        "mask_rles": masks,
        "question": question,
        "answer": "<Prompt1> is beside <Prompt0>.",
        "image": "images/caption_simple_0.png",
    }
    detailed = {
        "image": "images/caption_detailed_0.png",
        "subject_name": "person",
        "object_name": "skateboard",
        "predicate_name": "beside",
        "mask_rles": masks[:2],
    }
    gar(tmp_path, "Simple", [simple])
    gar(tmp_path, "Detailed", [detailed])
    (image,) = open_captioned(f"gar_bench:simple:{tmp_path}")
    assert image.image_id == "caption_simple_0" and image.pixels.shape == (48, 48, 3)
    assert image.captions == {1: ["<Prompt1> is beside <Prompt0>."]}
    assert [region.id for region in image.regions] == [0, 1, 2]
    assert [region.id for region in image.targets] == [1]
    (image,) = open_captioned(f"gar_bench:detailed:{tmp_path}")
    assert [(r.id, r.name) for r in image.targets] == [(0, "person"), (1, "skateboard")]
    assert "gar_bench:simple:" in check(tmp_path).output
    with pytest.raises(ValueError, match="simple, detailed, not 'vqa'"):
        open_captioned(f"gar_bench:vqa:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mask_rles": []}, "of item 0: there are no masks"),
        ({"mask_rles": [1]}, "of item 0: the entry is int"),
        ({"mask_rles": [{"size": [48, 48], "counts": "!!"}]}, "region 0: the encoding"),
        ({"image": 5}, "of item 0: 'image' is int"),
    ],
)
def test_faulty_items_of_gar_bench_are_named_or_left_out(tmp_path, change, reason):
    item = {"image": "images/a.png", "mask_rles": [rle(small_image(0).regions[0])]}
    gar(tmp_path, "Detailed", [item | change, item | {"image": "images/b.png"}])
    with pytest.raises(AnnotationFormatError, match=reason):
        list(open_captioned(f"gar_bench:detailed:{tmp_path}"))
    found = open_captioned(f"gar_bench:detailed:{tmp_path}", strict=False)
    assert "b" in found.ids and len(found.left_out) == 1


def test_two_images_of_one_name_are_refused(tmp_path):
    write_images(tmp_path, 1)
    item = {"image": "images/a.png", "mask_rles": [rle(small_image(0).regions[0])]}
    gar(tmp_path, "Detailed", [item, item])
    with pytest.raises(CaptionedError, match="two images are named a"):
        open_captioned(f"gar_bench:detailed:{tmp_path}")
