"""RefCOCOg in the refer API's files: the samples, others made here, and faulty ones."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from zero_shot_data import refcocog

from ureca_lib.datasets.captioned import CaptionedError
from ureca_lib.datasets.refcocog import read_references
from ureca_lib.regions import (
    AnnotationFormatError,
    FileMissingError,
    RegionError,
)


@pytest.fixture
def folder(samples):
    return samples / "refcocog"


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "refcocog")
    return tmp_path / "refcocog"


def raw_refs(folder, partition="umd"):
    return pickle.loads((folder / f"refs({partition}).p").read_bytes())


def change(copy, edit, partition="umd", protocol=2):
    refs = raw_refs(copy, partition)
    edit(refs)
    (copy / f"refs({partition}).p").write_bytes(pickle.dumps(refs, protocol))


def change_instances(copy, edit):
    instances = json.loads((copy / "instances.json").read_text())
    edit(instances)
    (copy / "instances.json").write_text(json.dumps(instances))


@pytest.mark.parametrize("partition", ["umd", "google"])
def test_references_equal_what_pickle_reads(folder, partition):
    found = read_references(folder / f"refs({partition}).p")
    raw = raw_refs(folder, partition)
    assert len(found) == len(raw) > 20
    for mine, theirs in zip(found, raw, strict=True):
        for key in ("ref_id", "ann_id", "image_id", "category_id", "split"):
            assert getattr(mine, key) == theirs[key]
        assert [(one.sent_id, one.sent) for one in mine.sentences] == [
            (one["sent_id"], one["sent"]) for one in theirs["sentences"]
        ]


@pytest.mark.parametrize(
    ("partition", "split"),
    [("umd", "train"), ("umd", "val"), ("umd", "test"), ("google", "train"), ("google", "val")],
)
def test_a_split_has_its_references_all_expressions_and_cocos_masks(folder, partition, split):
    found = refcocog(folder, partition, split)
    wanted = [ref for ref in raw_refs(folder, partition) if ref["split"] == split]
    instances = json.loads((folder / "instances.json").read_text())
    annotations = {one["id"]: one for one in instances["annotations"]}
    names = {one["id"]: one["name"] for one in instances["categories"]}
    assert found.counts["regions"] == len(wanted)
    assert found.ids == list(dict.fromkeys(str(ref["image_id"]) for ref in wanted))
    by_image = {image.image_id: image for image in found}
    for ref in wanted:
        image = by_image[str(ref["image_id"])]
        region = image.image[ref["ann_id"]]
        polygons = annotations[ref["ann_id"]]["segmentation"]
        theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *image.size)))
        assert np.array_equal(region.mask, theirs.astype(bool))
        assert region.name == names[ref["category_id"]]
        assert image.captions[region.id] == [one["sent"] for one in ref["sentences"]]
        assert image.pixels.shape[:2] == image.size


def test_several_splits_are_opened_together(folder):
    found = refcocog(folder, "google", "train+val")
    both = [refcocog(folder, "google", split) for split in ("train", "val")]
    assert (
        found.counts["regions"]
        == sum(one.counts["regions"] for one in both)
        == len(raw_refs(folder, "google"))
    )
    captions = {}
    for image in (image for one in both for image in one):
        captions.setdefault(image.image_id, {}).update(image.captions)
    assert {image.image_id: image.captions for image in found} == captions
    assert found.name == f"refcocog:google:train+val:{folder}"
    with pytest.raises(CaptionedError, match="no split 'test'; there are"):
        refcocog(folder, "google", "val+test")


def test_google_divides_objects_and_umd_images(folder):
    def ids(partition, split):
        return set(refcocog(folder, partition, split).ids)

    assert ids("google", "train") & ids("google", "val")
    assert not ids("umd", "train") & (ids("umd", "val") | ids("umd", "test"))


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_and_json(copy, protocol):
    whole = [image.captions for image in refcocog(copy)]
    change(copy, lambda refs: None, protocol=protocol)
    assert [image.captions for image in refcocog(copy)] == whole
    (copy / "refs(umd).json").write_text(json.dumps(raw_refs(copy)))
    (copy / "refs(umd).p").unlink()
    assert [image.captions for image in refcocog(copy)] == whole


def test_two_references_to_one_object_are_one_region(copy):
    def again(refs):
        sentence = {"sent_id": 999, "sent": "the smiling woman", "tokens": [], "raw": "x"}
        refs.append(refs[0] | {"ref_id": 999, "sent_ids": [999], "sentences": [sentence]})

    regions = refcocog(copy).counts["regions"]
    change(copy, again)
    found = refcocog(copy)
    assert found.counts["regions"] == regions
    assert found[0].captions[1001][-1] == "the smiling woman" and len(found[0].captions[1001]) == 3


def test_single_and_multi_region_sets_part_the_images(copy):
    change(copy, lambda refs: refs[1].update(split="x"))
    change(copy, lambda refs: [r.update(split="x") for r in refs if r["ann_id"] in (2001, 2020)])
    change(copy, lambda refs: [r.update(split="x") for r in refs if r["ann_id"] in (2030, 2004)])
    single, multi = (refcocog(copy, regions=which) for which in ("single", "multi"))
    assert single.ids == ["2"] and multi.ids == ["1", "3"]
    assert all(len(image.regions) > 1 for image in multi)
    assert refcocog(copy).ids == ["1", "2", "3"]
    assert refcocog(copy, limit=2).ids == ["1", "2"]


def test_rle_annotations_are_read(copy):
    image = refcocog(copy)[0]
    mask = image.image[1001].mask
    flat = mask.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()

    def crowd(instances):
        found = next(one for one in instances["annotations"] if one["id"] == 1001)
        found.update(segmentation={"size": list(mask.shape), "counts": counts}, iscrowd=1)

    change_instances(copy, crowd)
    assert np.array_equal(refcocog(copy)[0].image[1001].mask, mask)


def test_photos_are_looked_for_and_may_be_missing(copy, samples, tmp_path):
    image = refcocog(copy)[0]
    with pytest.raises(FileMissingError, match=r"astronaut\.png"):
        _ = image.pixels
    assert refcocog(copy, images=samples / "photos")[0].pixels.shape == (512, 512, 3)
    with pytest.raises(FileMissingError, match="folder of the photos"):
        refcocog(copy, images=tmp_path / "none")
    place = tmp_path / "images" / "mscoco" / "images" / "train2014"
    place.mkdir(parents=True)
    shutil.copy(samples / "photos" / "astronaut.png", place)  # the refer API's folders
    assert refcocog(copy)[0].pixels.shape == (512, 512, 3)


def test_wrong_arguments(folder, tmp_path):
    with pytest.raises(ValueError, match=r"refs\(berkeley\)\.p: the file does not"):
        refcocog(folder, "berkeley")
    with pytest.raises(ValueError, match="single or /multi"):
        refcocog(folder, regions="both")
    with pytest.raises(ValueError, match="at least 1"):
        refcocog(folder, limit=0)
    with pytest.raises(CaptionedError, match=r"no split 'test'; there are val \(\d+\), train"):
        refcocog(folder, "google", "test")
    with pytest.raises(FileMissingError, match=r"refs\(umd\)\.p: the file does not exist"):
        refcocog(tmp_path / "none")
    with pytest.raises(FileMissingError, match=r"refs\(umd\)\.p: the file does not exist"):
        refcocog(tmp_path)


@pytest.mark.parametrize(
    ("edit", "kind", "reason"),
    [
        (lambda refs: refs.clear(), AnnotationFormatError, "nothing, not a list"),
        (lambda refs: refs.__setitem__(3, "x"), AnnotationFormatError, "reference number 3"),
        (
            lambda refs: refs[3].pop("ann_id"),
            AnnotationFormatError,
            "ref_id 3: ann_id: Field required",
        ),
        (lambda refs: refs[3].update(ann_id="7"), AnnotationFormatError, "ref_id 3: ann_id: .*'7'"),
        (lambda refs: refs[3].update(ref_id=2), AnnotationFormatError, "ref_id 2 is there twice"),
        (lambda refs: refs[3].update(sentences=[]), AnnotationFormatError, "ref_id 3: sentences: "),
        (
            lambda refs: refs[3]["sentences"][0].pop("sent"),
            AnnotationFormatError,
            "sentences.0.sent: F",
        ),
        (lambda refs: refs[3]["sentences"][0].update(sent=" "), AnnotationFormatError, "0.sent: "),
        (lambda refs: refs[3].update(ann_id=77), AnnotationFormatError, "no annotation 77"),
        (lambda refs: refs[3].update(image_id=77), AnnotationFormatError, "no image 77"),
        (lambda refs: refs[3].update(image_id=2), AnnotationFormatError, "do not belong together"),
        (lambda refs: refs[3].update(category_id=99), AnnotationFormatError, "another category_id"),
    ],
)
def test_faulty_references_are_named(copy, edit, kind, reason):
    change(copy, edit)
    with pytest.raises(kind, match=reason) as error:
        refcocog(copy)
    assert "refs(umd).p" in str(error.value)


def test_faulty_annotations_are_left_out_when_asked(copy):
    def edit(instances):
        annotations = {one["id"]: one for one in instances["annotations"]}
        annotations[1001]["segmentation"] = [[1, 2, 3]]
        del annotations[1060]["segmentation"]
        annotations[3021]["segmentation"] = []

    whole = refcocog(copy).counts["regions"]
    change_instances(copy, edit)
    with pytest.raises(RegionError, match=r"ref_id 1: there is no 'segmentation'"):
        refcocog(copy)
    found = refcocog(copy, strict=False)
    assert found.counts["regions"] == whole - 3 and len(found.left_out) == 3
    reasons = " ".join(map(str, found.left_out))
    assert "three (x, y) pairs" in reasons and "no polygon" in reasons and "3021" in reasons
    assert sum(len(image.regions) for image in found) == found.counts["regions"]


def test_truncated_and_foreign_files(copy):
    file, instances = copy / "refs(umd).p", copy / "instances.json"
    good, listed = file.read_bytes(), instances.read_bytes()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(AnnotationFormatError, match=r"refs\(umd\)\.p.*cannot be read as a pickle"):
        refcocog(copy)
    file.write_bytes(b"<html>404</html>")
    with pytest.raises(AnnotationFormatError, match="no pickle"):
        refcocog(copy)
    file.write_bytes(pickle.dumps({"refs": []}))
    with pytest.raises(AnnotationFormatError, match="a dict, not a list"):
        refcocog(copy)
    file.write_bytes(good)
    instances.write_bytes(listed[:20_000])
    with pytest.raises(AnnotationFormatError, match=r"instances\.json.*truncated"):
        refcocog(copy)
    instances.write_text(json.dumps([1]))
    with pytest.raises(AnnotationFormatError, match=r"instances\.json: there is no list of images"):
        refcocog(copy)
    instances.unlink()
    with pytest.raises(FileMissingError, match=r"instances\.json"):
        refcocog(copy)


def test_a_pickle_that_runs_code_does_not(copy, tmp_path):
    mark = tmp_path / "ran"
    call = b"cos\nmkdir\n(V" + str(mark).encode() + b"\ntR."
    (copy / "refs(umd).p").write_bytes(call)
    with pytest.raises(AnnotationFormatError, match=r"os\.mkdir.*nothing of it was run"):
        refcocog(copy)
    assert not mark.exists()
