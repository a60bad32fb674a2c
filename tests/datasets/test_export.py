"""A store written as a data set: JSONL, Parquet, COCO; all or nothing, the same each time."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_annotators import FakeAnnotator, distinct_reply, small_image, write_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.parquet import ParquetFile, read_table
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from typer.testing import CliRunner

from ureca_lib.annotate import export as exporting
from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.export import QUESTION, SCHEMA, export_dataset
from ureca_lib.annotate.protocol import (
    STAGES,
    AnnotatorUnavailableError,
    BudgetSpentError,
    Reply,
)
from ureca_lib.annotate.records import Answer, FinalCaption, ImageRow, Step
from ureca_lib.annotate.run import annotate_images
from ureca_lib.annotate.settings import CheckSettings, PipelineSettings
from ureca_lib.annotate.sources import SplitRule
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.annotate.views import ViewSettings
from ureca_lib.cli import app
from ureca_lib.datasets import load_published, read_jsonl
from ureca_lib.datasets.captioned import CaptionedError, open_captioned
from ureca_lib.regions import Region, load_coco, load_sa1b


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def stored(path):
    """For each image of a store, by the stem of its name, its split and captions."""
    with Store(path, create=False) as store:
        return {
            Path(row.image).stem: (row.split, store.captions(row.image)) for row in store.images()
        }


def test_all_files_are_there_and_the_manifest_lists_them(exported):
    found = contents(exported.folder)
    splits = [
        name
        for split in ("train", "test")
        for name in (
            f"{split}.jsonl",
            f"parquet/{split}.parquet",
            f"coco/captions_{split}.json",
            f"coco/instances_{split}.json",
        )
    ]
    others = ["README.md", "table_1.md", "left_out.jsonl", "manifest.json"]
    assert sorted(found) == sorted(splits + others) == sorted(exported.files)
    listed = json.loads(found["manifest.json"])["files"]
    assert {name: entry["bytes"] for name, entry in listed.items()} == {
        name: len(content) for name, content in found.items() if name != "manifest.json"
    }


def test_every_region_is_in_the_jsonl_or_says_why_not(exported, pipeline_store):
    out = exported.folder
    rows = {split: list(read_jsonl(out / f"{split}.jsonl")) for split in ("train", "test")}
    left = {(row["image"], row["mask_id"]): row for row in read_jsonl(out / "left_out.jsonl")}
    seen, quoted = set(), {"7": '"7"'}
    for stem, (split, captions) in stored(pipeline_store).items():
        own = {row["mask_id"]: row for row in rows[split] if Path(row["image"]).stem == stem}
        for caption in captions:
            seen.add((stem, caption.region_id))
            if caption.state == "unique":
                assert own[caption.region_id] == {
                    "id": f"{stem}_{quoted.get(caption.region_id, caption.region_id)}",
                    "image": f"{stem}.png",
                    "mask_id": caption.region_id,
                    "conversations": [
                        {"from": "human", "value": QUESTION},
                        {"from": "gpt", "value": caption.text},
                    ],
                }
            else:
                assert caption.region_id not in own
                row = left[f"{stem}.png", caption.region_id]
                assert (row["state"], row["reason"], row["caption"], row["split"]) == (
                    caption.state,
                    caption.reason,
                    caption.text,
                    split,
                )
    total = len(rows["train"]) + len(rows["test"]) + len(left)
    assert total == len(seen) and len(rows["test"]) > 20 and len(rows["train"]) > 20
    ids = [row["id"] for part in rows.values() for row in part]
    assert len(set(ids)) == len(ids)
    counts = exported.statistics.regions.groupby("split").exported.sum()
    assert counts.to_dict() == {split: len(part) for split, part in rows.items()}


def test_the_jsonl_is_read_with_the_masks_it_came_from(exported, pipeline_store):
    photos = pipeline_store.parent / "photos"
    captions = {
        (stem, caption.region_id): caption.text
        for stem, (_, finals) in stored(pipeline_store).items()
        for caption in finals
        if caption.state == "unique"
    }
    found = {}
    for split in ("train", "test"):
        for image in load_published(exported.folder / f"{split}.jsonl", photos):
            whole = load_sa1b(photos / f"{image.image_id}.json")
            for region_id, [text] in image.captions.items():
                found[image.image_id, region_id] = text
                assert image.image[region_id] == whole[region_id]
    assert found == captions


def test_parquet_is_loaded_by_datasets_and_its_masks_decode(
    exported, pipeline_store, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    files = {
        split: str(exported.folder / f"parquet/{split}.parquet") for split in ("train", "test")
    }
    data = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))
    regions = stored(pipeline_store)
    assert {split: len(data[split]) for split in data} == {
        split: sum(len(finals) for where, finals in regions.values() if where == split)
        for split in ("train", "test")
    }
    photos = pipeline_store.parent / "photos"
    for split in data:
        for row in data[split]:
            image = load_sa1b(photos / f"{row['image_key']}.json")
            region = image[json.loads(row["mask_id"])]
            assert np.array_equal(coco_mask.decode(row["segmentation"]), region.mask)
            assert (row["width"], row["height"]) == (image.width, image.height)
            assert (row["area"], tuple(row["bbox"])) == (region.area, region.bbox)
            assert (row["split"], row["name"]) == (split, region.name)
            assert (photos / row["image"]).is_file()
    assert data["train"].column_names == SCHEMA.names


def loaded(folder, cache) -> dict[str, list]:
    """The rows of each split as the `datasets` library loads them, offline."""
    from datasets import load_dataset

    found = load_dataset(str(folder), cache_dir=str(cache / "cache"))
    for split, rows in found.items():
        mine = [{n: value for n, value in row.items() if value is not None} for row in rows]
        written = list(read_jsonl(folder / f"{split}.jsonl"))
        for row in written:  # where ids are numbers and texts, the library reads "7" as 7
            row["mask_id"] = 7 if row["mask_id"] == "7" else row["mask_id"]
        assert mine == written
    return {split: list(rows) for split, rows in found.items()}


def test_the_folder_is_loaded_by_datasets(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = loaded(exported.folder, tmp_path)
    assert set(found) == {"train", "test"} and len(found["test"]) > 20


def test_splits_of_other_columns_and_ids_are_loaded_together(tmp_path, write_store, finals):
    path = write_store(tmp_path, {"photos/a.json": finals(), "b/photos/a.json": finals()})
    write_store(tmp_path, {"c.json": finals()}, "val.2")
    write_store(tmp_path, {"d.json": [replace(one, state="failed") for one in finals()]}, "none")
    folder = export_dataset(path, tmp_path / "out", ("unique", "unresolved"), progress=False).folder
    found = loaded(folder, tmp_path)
    assert {split: len(rows) for split, rows in found.items()} == {"train": 14, "val.2": 7}
    assert {row["state"] for row in found["val.2"]} == {"unique"}


def test_a_readme_of_ones_own_is_not_overwritten(tmp_path, write_store, finals):
    path, out = write_store(tmp_path, {"photos/a.json": finals()}), tmp_path / "out"
    export_dataset(path, out, progress=False)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["files"]["README.md"]  # as exports were before their card had this name
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"README.md is not of an export"):
        export_dataset(path, out, progress=False)
    assert (out / "README.md").read_text() == "mine"


def captions_in(rows) -> list[FinalCaption]:
    """The final captions that rows of the Parquet hold."""
    return [
        FinalCaption(
            *(json.loads(row["mask_id"]), row["caption"], row["state"], row["reason"]),
            *(
                row["stage"],
                row["round"],
                row["tree"]["parent"] and json.loads(row["tree"]["parent"]),
            ),
            *(row["tree"]["depth"], row["tree"]["height"]),
            tuple(map(json.loads, row["look_alikes"])),
        )
        for row in rows
    ]


def answers_in(rows) -> list[Answer]:
    """The answers of all stages that rows of the Parquet hold."""
    return [
        Answer(Step(answer.pop("stage"), answer.pop("round"), json.loads(row["mask_id"])), **answer)
        for row in rows
        for answer in row["answers"]
    ]


def parquet_rows(path) -> dict[str, list]:
    """The rows of a Parquet file by image."""
    rows = read_table(path).to_pylist()
    keys = dict.fromkeys(row["image_key"] for row in rows)
    return {key: [row for row in rows if row["image_key"] == key] for key in keys}


def test_parquet_gives_back_all_that_the_store_knows(exported, pipeline_store):
    with Store(pipeline_store, create=False) as store:
        images = {Path(row.image).stem: row for row in store.images()}
        found = {}
        for split in ("train", "test"):
            for key, rows in parquet_rows(exported.folder / f"parquet/{split}.parquet").items():
                row = found[key] = images[key]
                assert captions_in(rows) == store.captions(row.image)
                whole = load_sa1b(pipeline_store.parent / row.image)
                for one, region in zip(rows, whole.regions, strict=True):
                    assert (one["split"], one["crowd"]) == (split, region.crowd)
                    assert (one["width"], one["height"]) == (row.width, row.height)
                    counts = one["segmentation"]["counts"].encode()
                    same = Region(region.id, {**one["segmentation"], "counts": counts})
                    assert (same.mask == region.mask).all()
                    order = [STAGES.index(answer["stage"]) for answer in one["answers"]]
                    assert sorted(order) == order
                answers = answers_in(rows)
                assert {a.step: a for a in answers} == store.answers(row.image)
                stages = {answer.step.stage for answer in answers}
                assert stages >= {"short", "long", "unique"}
                assert ("verify" in stages) == (split == "test")
    assert found == images


def test_coco_captions_are_what_the_metrics_read(exported, capsys):
    for split in ("train", "test"):
        path = exported.folder / f"coco/captions_{split}.json"
        rows = {row["id"]: row for row in read_jsonl(exported.folder / f"{split}.jsonl")}
        coco = COCO(str(path))
        assert set(coco.getImgIds()) == set(rows)
        for row_id, row in rows.items():
            (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[row_id]))
            assert annotation["caption"] == row["conversations"][1]["value"]
        results = [{"image_id": row_id, "caption": "a cup"} for row_id in rows]
        assert len(coco.loadRes(results).getAnnIds()) == len(rows)
        assert len({a["id"] for a in coco.dataset["annotations"]}) == len(rows)


def test_coco_instances_have_the_masks_and_captions(exported, pipeline_store, capsys):
    for split in ("train", "test"):
        path = exported.folder / f"coco/instances_{split}.json"
        coco, photos = COCO(str(path)), pipeline_store.parent / "photos"
        rows = {row["id"]: row for row in read_jsonl(exported.folder / f"{split}.jsonl")}
        images = load_coco(path, photos)
        assert sum(len(image) for image in images) == len(rows)
        for annotation in coco.dataset["annotations"]:
            photo = photos / coco.imgs[annotation["image_id"]]["file_name"]
            mask = load_sa1b(photo.with_suffix(".json"))[annotation["mask_id"]].mask
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["bbox"] == coco_mask.toBbox(coco.annToRLE(annotation)).tolist()
            row = rows.pop(annotation["region_id"])
            assert annotation["caption"] == row["conversations"][1]["value"]
        assert rows == {}


def test_the_same_store_gives_the_same_bytes(exported, pipeline_store, tmp_path):
    again = export_dataset(pipeline_store, tmp_path / "again", progress=False)
    assert contents(again.folder) == contents(exported.folder)


def test_images_come_by_name_whatever_order_they_were_added_in(tmp_path, write_store, finals):
    write_images(tmp_path / "photos", 1)
    names = [f"photos/image_{n}.json" for n in (3, 1, 2)]
    one = write_store(tmp_path / "one", {name: finals() for name in names})
    other = write_store(tmp_path / "other", {name: finals() for name in sorted(names)})
    found = [
        contents(export_dataset(path, path.parent / "out", progress=False).folder)
        for path in (one, other)
    ]
    assert found[0] == found[1]


def all_states(finals):
    return finals(
        a=FinalCaption(1, "", "skipped", "too small"),
        b=FinalCaption(2, "", "failed", "short: timed out"),
        c=FinalCaption(3, "same", "unresolved", "reads like 4", "unique", 2),
        d=FinalCaption(4, "same", "unresolved", "reads like 3", "unique", 2),
        e=FinalCaption("six", "a dog", "dropped", "there is no dog"),
        f=FinalCaption("7", "a cat", "failed", "verify: timed out"),
    )


@pytest.mark.parametrize("states", [("unique",), ("unique", "unresolved"), ("dropped", "failed")])
def test_states_are_left_out_or_marked(tmp_path, write_store, finals, states):
    captions = all_states(finals)
    path = write_store(tmp_path, {"photos/a.json": captions})
    exported = export_dataset(path, tmp_path / "out", states, progress=False)
    rows = list(read_jsonl(tmp_path / "out" / "train.jsonl"))
    kept = [c for c in captions if c.text and c.state in states]
    assert [row["mask_id"] for row in rows] == [c.region_id for c in kept]
    marks = [row.get("state") for row in rows]
    assert marks == ([None] if states == ("unique",) else [c.state for c in kept])
    left = list(read_jsonl(tmp_path / "out" / "left_out.jsonl"))
    assert [row["mask_id"] for row in left] == [c.region_id for c in captions if c not in kept]
    coco = json.loads((tmp_path / "out/coco/captions_train.json").read_text())
    assert [image["id"] for image in coco["images"]] == [row["id"] for row in rows]
    assert exported.statistics.regions.state.value_counts().to_dict() == {
        "unique": 1,
        "unresolved": 2,
        "failed": 2,
        "dropped": 1,
        "skipped": 1,
    }


@pytest.mark.parametrize("states", [(), ("skipped",), ("unique", "good")])
def test_states_that_cannot_be_exported_are_refused(tmp_path, write_store, finals, states):
    path = write_store(tmp_path, {"photos/a.json": finals()})
    with pytest.raises(ValueError, match="states are some of unique, unresolved, failed, dropped"):
        export_dataset(path, tmp_path / "out", states, progress=False)
    assert not (tmp_path / "out").exists()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(TEXT, min_size=7, max_size=7), TEXT)
def test_any_text_is_the_same_in_every_file(tmp_path_factory, write_store, texts, reason):
    folder = tmp_path_factory.mktemp("odd")
    ids = [region.id for region in small_image(0)]
    captions = [
        FinalCaption(region_id, text, "unresolved", reason)
        for region_id, text in zip(ids, texts, strict=True)
    ]
    path = write_store(folder, {"photos/a.json": captions})
    export_dataset(path, folder / "out", ("unresolved",), progress=False)
    out = folder / "out"
    rows = list(read_jsonl(out / "train.jsonl"))
    assert [row["conversations"][1]["value"] for row in rows] == texts
    parquet = read_table(out / "parquet" / "train.parquet").to_pylist()
    assert [(row["caption"], row["reason"]) for row in parquet] == [
        (text, reason) for text in texts
    ]
    for kind in ("captions", "instances"):
        document = json.loads((out / f"coco/{kind}_train.json").read_text(encoding="utf-8"))
        assert [a["caption"] for a in document["annotations"]] == texts
    (found,) = load_published(out / "train.jsonl", folder / "photos")
    assert [text for [text] in found.captions.values()] == texts


def test_two_photos_of_one_name_keep_their_masks_and_ids(tmp_path, write_store, finals):
    names = ["a/image_0.json", "b/image_0.json", "c.json"]
    path = write_store(tmp_path, {name: finals() for name in names})
    out = export_dataset(path, tmp_path / "out", progress=False).folder
    rows = list(read_jsonl(out / "train.jsonl"))
    assert {row["image"] for row in rows} == {"a/image_0.png", "b/image_0.png", "c.png"}
    assert len({row["id"] for row in rows}) == len(rows) == 21
    found = {
        image.image_id: image.image.path for image in load_published(out / "train.jsonl", tmp_path)
    }
    assert found == {Path(name).with_suffix("").as_posix(): tmp_path / name for name in names}


def test_a_photo_of_another_name_than_its_masks_is_found_again(tmp_path, write_store, finals):
    path = write_store(tmp_path, {"masks.json": finals()})
    with Store(path) as store:
        row = replace(store.image("masks.json"), photo="somewhere/photo.jpg")
        store.finish(row, captions=finals())
    out = export_dataset(path, tmp_path / "out", progress=False).folder
    rows = list(read_jsonl(out / "train.jsonl"))
    assert {(row["image"], row["masks"]) for row in rows} == {("photo.jpg", "masks.json")}
    (image,) = load_published(out / "train.jsonl", tmp_path)
    assert len(image.captions) == len(rows) == 7


def test_images_in_memory_are_given(tmp_path):
    image = small_image(0)
    annotate_images(image, tmp_path / "s.db", AttributeAnnotator(), progress=False)
    with pytest.raises(ValueError, match=r"s.db: image_0.png was annotated in memory"):
        export_dataset(tmp_path / "s.db", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    images = {"image_0.png": image}
    export_dataset(tmp_path / "s.db", tmp_path / "out", images=images, progress=False)
    rows = read_table(tmp_path / "out/parquet/train.parquet").to_pylist()
    assert [json.loads(row["mask_id"]) for row in rows] == [region.id for region in image]
    assert {(row["image"], row["image_key"]) for row in rows} == {("image_0.png", "image_0")}


@pytest.mark.parametrize("place", ["s.db", "photos/s.db"])
def test_images_in_memory_are_given_though_they_were_read_from_files(tmp_path, place):
    (path,) = write_images(tmp_path / "photos", 1)
    image = load_sa1b(path)
    annotate_images(image, tmp_path / place, AttributeAnnotator(), progress=False)
    with pytest.raises(ValueError, match=r"image_0.png was annotated in memory; give its masks"):
        export_dataset(tmp_path / place, tmp_path / "out", progress=False)
    images = {"image_0.png": image}
    exported = export_dataset(tmp_path / place, tmp_path / "out", images=images, progress=False)
    assert exported.statistics.regions.exported.any()


def test_store_and_images_can_be_moved_together(pipeline_store, exported, tmp_path):
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    for name in contents(pipeline_store.parent / "photos"):
        shutil.copy(pipeline_store.parent / "photos" / name, home / "photos" / name)
    shutil.copy(pipeline_store, home / "s.db")
    with Store(home / "s.db") as store:
        for row in store.images():
            finish_again(store, replace(row, path=f"/nowhere/{row.path}"))
    moved = export_dataset(home / "s.db", home / "out", progress=False)
    assert contents(moved.folder) == contents(exported.folder)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "a.json: .*does not exist"),
        (lambda path: path.write_text("{"), "a.json: .*truncated"),
        (lambda path: _drop(path, "six"), "a.json: region 'six': .*a caption without a mask"),
        (lambda path: _rename(path), "a.json: region 2, 22: a mask without"),
        (lambda path: _resize(path), "a.json: 50 x 48 pixels are not those"),
    ],
)
def test_masks_that_are_gone_or_changed_are_an_error_and_nothing_is_written(
    tmp_path, write_store, finals, spoil, reason
):
    path = write_store(tmp_path, {"photos/a.json": finals(), "photos/b.json": finals()})
    out = export_dataset(path, tmp_path / "out", progress=False).folder
    before = contents(out)
    spoil(tmp_path / "photos" / "a.json")
    with pytest.raises(ValueError, match=reason):
        export_dataset(path, tmp_path / "out", ("dropped",), progress=False)
    assert contents(out) == before and not list(out.glob(".partial*"))


def test_masks_that_moved_under_their_ids_are_an_error(tmp_path):
    (path,) = write_images(tmp_path / "photos", 1)
    annotate_images(path, tmp_path / "s.db", AttributeAnnotator(), progress=False)
    document = json.loads(path.read_text())
    document["annotations"].reverse()
    path.write_text(json.dumps(document))
    export_dataset(tmp_path / "s.db", tmp_path / "out", progress=False)  # the order is not a mask's
    first, second = document["annotations"][:2]
    first["id"], second["id"] = second["id"], first["id"]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"image_0.json: its masks have changed since"):
        export_dataset(tmp_path / "s.db", tmp_path / "out", progress=False)
    with Store(tmp_path / "s.db") as store:
        (row,) = store.images()
        finish_again(store, replace(row, masks=None))  # as before they were kept
    export_dataset(tmp_path / "s.db", tmp_path / "out", progress=False)


def finish_again(store, row):
    """Finish an image with other values of its row."""
    store.finish(row, store.answers(row.image).values(), store.captions(row.image))


def _drop(path, region_id):
    document = json.loads(path.read_text())
    document["annotations"] = [a for a in document["annotations"] if a["id"] != region_id]
    path.write_text(json.dumps(document))


def _rename(path):
    path.write_text(path.read_text().replace('"id": 2,', '"id": 22,'))


def _resize(path):
    path.write_text(path.read_text().replace('"width": 48', '"width": 50'))


def test_a_mask_that_came_after_the_captions_is_an_error(tmp_path, write_store, finals):
    path = write_store(tmp_path, {"photos/a.json": finals()[:-1]})
    with pytest.raises(ValueError, match="region '7': a mask without a caption"):
        export_dataset(path, tmp_path / "out", progress=False)


def test_unfinished_images_are_counted_and_left_out(tmp_path, write_store, finals):
    path = write_store(tmp_path, {"photos/a.json": finals()})
    with Store(path) as store:
        store.register([("photos/late.json", "test"), ("photos/bad.json", "train")])
        unknown = (None, None, None, None, (), None)
        store.finish(ImageRow("photos/bad.json", "train", "failed", "bad: no masks", *unknown))
    exported = export_dataset(path, tmp_path / "out", progress=False)
    assert exported.unfinished == 2
    counts = exported.statistics.images[["split", "status"]].value_counts().to_dict()
    assert counts == {("train", "done"): 1, ("train", "failed"): 1, ("test", "waiting"): 1}
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "| image | bad: no masks | 1 | photos/bad.json |" in card
    assert list(read_jsonl(tmp_path / "out/test.jsonl")) == []
    assert read_table(tmp_path / "out/parquet/test.parquet").num_rows == 0
    assert load_coco(tmp_path / "out/coco/instances_test.json") == []


def test_a_retry_that_stops_at_once_takes_nothing_out_of_the_data_set(tmp_path):
    def say(request):
        bad = request.stage == "short" and request.region_id == 3
        return Reply("", "failed", "refused") if bad else distinct_reply(request)

    def gone(request):
        raise AnnotatorUnavailableError("no server")

    (path,) = write_images(tmp_path / "photos", 1)
    annotate_images(path, tmp_path / "s.db", FakeAnnotator(say=say), progress=False)
    before = contents(export_dataset(tmp_path / "s.db", tmp_path / "out", progress=False).folder)
    summary = annotate_images(path, tmp_path / "s.db", FakeAnnotator(say=gone), progress=False)
    assert "no server" in summary.stopped
    after = contents(export_dataset(tmp_path / "s.db", tmp_path / "out", progress=False).folder)
    assert after == before


def test_nothing_finished_is_an_error(tmp_path):
    with Store(tmp_path / "s.db") as store:
        store.register([("a.json", "train")])
    with pytest.raises(ValueError, match=r"s.db: none of its 1 images is finished"):
        export_dataset(tmp_path / "s.db", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoreError, match=r"gone.db: there is no store"):
        export_dataset(tmp_path / "gone.db", tmp_path / "out", progress=False)


@pytest.mark.parametrize("split", ["../up", "a/b", "", ".hidden", "left_out", "a b", "x\n"])
def test_a_split_that_cannot_name_files_is_refused(tmp_path, write_store, finals, split):
    path = write_store(tmp_path, {"photos/a.json": finals()}, split)
    with pytest.raises(ValueError, match=f"the split {re.escape(repr(split))} cannot name files"):
        export_dataset(path, tmp_path / "out", progress=False)


def test_files_of_an_earlier_export_go_and_others_stay(tmp_path, write_store, finals):
    path = write_store(tmp_path / "one", {"photos/a.json": finals()}, "val")
    out = tmp_path / "out"
    export_dataset(path, out, progress=False)
    (out / "notes.md").write_text("mine")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["../one/hand.db"] = manifest["files"]["notes.txt"] = {}
    (out / "manifest.json").write_text(json.dumps(manifest))
    other = write_store(tmp_path / "two", {"photos/a.json": finals()}, "train")
    exported = export_dataset(other, out, progress=False)
    assert sorted(contents(out)) == sorted([*exported.files, "notes.md"])
    assert path.is_file() and not (out / "val.jsonl").exists()


def test_an_export_that_was_killed_half_way_is_refused_by_readers_and_can_be_repeated(
    tmp_path, write_store, finals, monkeypatch
):
    out = tmp_path / "out"
    old = write_store(tmp_path / "one", {"photos/a.json": finals()}, "val")
    export_dataset(old, out, progress=False)
    new = write_store(tmp_path / "two", {"photos/a.json": finals()}, "train")
    replace_file, moved = Path.replace, []

    def dies(self, target):
        if self.suffix == ".parquet":
            raise KeyboardInterrupt
        moved.append(target)
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        export_dataset(new, out, progress=False)
    monkeypatch.undo()
    assert moved and (out / "val.jsonl").is_file() and not (out / "manifest.json").exists()
    (out / ".partial.old").mkdir()
    with pytest.raises(CaptionedError, match=r"out: the export was interrupted"):
        open_captioned(out / "val.jsonl", masks=tmp_path / "one")
    exported = export_dataset(new, out, progress=False)
    assert sorted(contents(out)) == sorted(exported.files) and "val.jsonl" not in exported.files
    assert not list(out.glob(".partial*"))
    assert len(open_captioned(out, masks=tmp_path / "two")) == 1


def test_an_export_without_captions_says_why_and_is_no_success(tmp_path, write_store, finals):
    ids = [region.id for region in small_image(0)]
    captions = [FinalCaption(region_id, "a dog", "unresolved", "alike") for region_id in ids]
    path = write_store(tmp_path, {"photos/a.json": captions})
    result = CliRunner().invoke(app, ["export", str(path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert (
        "left out: 7 unresolved regions" in result.output
        and "no caption is unique, for reasons such as: alike" in result.output
    )


@pytest.mark.parametrize("manifest", [None, '{"name": "a web page"}', '{"files": ["x.png"]}'])
def test_a_folder_of_something_else_is_refused(tmp_path, write_store, finals, manifest):
    path, out = write_store(tmp_path, {"photos/a.json": finals()}), tmp_path / "out"
    out.mkdir()
    (out / "thesis.md").write_text("mine")
    if manifest:
        (out / "manifest.json").write_text(manifest)
    before = contents(out)
    with pytest.raises(ValueError, match=f"{re.escape(str(out))}: the folder is not empty"):
        export_dataset(path, out, progress=False)
    assert contents(out) == before


def test_an_empty_folder_is_filled(tmp_path, write_store, finals):
    path, out = write_store(tmp_path, {"photos/a.json": finals()}), tmp_path / "out"
    (out / ".partial.old").mkdir(parents=True)  # of an export that was killed
    assert export_dataset(path, out, progress=False).folder == out
    assert (out / "train.jsonl").is_file()


class Stops(FakeAnnotator):
    """Spends its budget at a call."""

    def __init__(self, temperature: float, most: int = 1000):
        super().__init__(max_in_flight=1)
        self.answer_settings, self._most = {"temperature": temperature}, most

    def answer(self, request):
        if len(self.requests) >= self._most:
            raise BudgetSpentError("spent")
        return super().answer(request)


def annotated(images, store, annotator=None, *, splits=None, **settings):
    changed = replace(PipelineSettings(views=ViewSettings(min_side=0)), **settings)
    annotator = annotator or Stops(0.0)
    return annotate_images(images, store, annotator, changed, splits=splits, progress=False)


def card_of(store, out, **options) -> str:
    folder = export_dataset(store, out, progress=False, **options).folder
    return (folder / "README.md").read_text(encoding="utf-8")


def test_captions_of_several_settings_go_together_only_where_that_is_allowed(tmp_path):
    photos, store, out = tmp_path / "photos", tmp_path / "s.db", tmp_path / "out"
    write_images(photos, 3)
    annotated(photos, store)
    first = card_of(store, out)
    assert "temperature': 0.0" in first and "not all made with the same" not in first
    assert annotated(photos, store, Stops(1.0, 0)).stopped
    assert card_of(store, out) == first  # nothing new: the settings are those of the captions
    calls = 3 * len(small_image(0)) + 1
    stopped = annotated(photos, store, Stops(1.0, calls))
    assert stopped.stopped and stopped.done == 1
    with pytest.raises(ValueError, match=r"s.db: 1 of 2 finished images .* other settings"):
        export_dataset(store, out, progress=False)
    wrong = CliRunner().invoke(app, ["export", str(store), "-o", str(out)])
    assert wrong.exit_code == 2 and "--mixed" in wrong.output
    assert CliRunner().invoke(app, ["export", str(store), "-o", str(out), "--mixed"]).exit_code == 0
    card = card_of(store, out, mixed=True)
    assert "not all made with the same" in card
    assert all(re.search(rf"\| train +\| +1 \|.*temperature': {t}", card) for t in (0.0, 1.0))
    annotated(photos, store, Stops(1.0))
    assert "temperature': 1.0" in card_of(store, out)


def test_splits_annotated_apart_are_in_one_card_with_the_annotators_of_both(tmp_path):
    paths, store = write_images(tmp_path / "photos", 2), tmp_path / "s.db"
    for path, split, heat in zip(paths, ("train", "test"), (0.25, 0.75), strict=True):
        rule = SplitRule.parse(split)
        annotated(path, store, Stops(heat), splits=rule, verify_splits=("test",))
    card = card_of(store, tmp_path / "out")
    assert "temperature': 0.25" in card and "temperature': 0.75" in card
    one = CheckSettings(rounds=1)
    rule = SplitRule.parse("test")
    annotated(paths[1], store, Stops(0.75), splits=rule, verify_splits=("test",), check=one)
    with pytest.raises(ValueError, match="1 of 2 finished images"):
        export_dataset(store, tmp_path / "out", progress=False)


def test_images_of_an_older_store_are_of_one_kind_until_a_run_knows_them(tmp_path):
    photos, store, out = tmp_path / "photos", tmp_path / "s.db", tmp_path / "out"
    paths = write_images(photos, 2)
    annotated(paths[0], store)
    with Store(store) as opened:
        (row,) = opened.images()
        finish_again(opened, replace(row, made_with=None))
    card = card_of(store, out)
    annotated(paths[1], store)
    with pytest.raises(ValueError, match="1 of 2 finished images"):
        export_dataset(store, out, progress=False)
    assert "not known" in card_of(store, out, mixed=True)
    annotator = Stops(0.0)
    assert annotated(photos, store, annotator).complete and annotator.calls == []
    assert card[card.index("Settings of") :].split("##")[0] in card_of(store, out)


def test_the_command(tmp_path, write_store, finals):
    path = write_store(tmp_path, {"photos/a.json": all_states(finals)})
    options = ["--include", "unresolved", "--title", "Mine", "--image-license", "CC0"]
    result = CliRunner().invoke(
        app, ["export", str(path), "--out", str(tmp_path / "out"), *options]
    )
    assert result.exit_code == 0, result.output
    assert "train: 3 captions" in result.output
    assert len(list(read_jsonl(tmp_path / "out/train.jsonl"))) == 3
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "\n---\n\n# Mine\n" in card and "- photos: CC0" in card


@pytest.mark.parametrize(
    ("store", "options", "said"),
    [
        ("gone.db", [], "there is no store"),
        ("photos/a.json", [], "a.json"),
        ("hand.db", ["--include", "skipped"], "states are some of"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, write_store, finals, store, options, said):
    write_store(tmp_path, {"photos/a.json": finals()})
    result = CliRunner().invoke(
        app, ["export", str(tmp_path / store), "-o", str(tmp_path / "out"), *options]
    )
    assert result.exit_code == 2 and said in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("most", [3, 7, 14, 100])
def test_row_groups_do_not_matter_to_who_reads(tmp_path, write_store, finals, monkeypatch, most):
    monkeypatch.setattr(exporting, "_ROW_GROUP", most)
    names = [f"photos/{letter}.json" for letter in "abc"]
    path = write_store(tmp_path, {name: finals() for name in names})
    out = export_dataset(path, tmp_path / "out", progress=False).folder / "parquet/train.parquet"
    assert ParquetFile(out).num_row_groups == -(-21 // most)
    images = parquet_rows(out)
    assert list(images) == ["a", "b", "c"]
    assert [captions_in(rows) for rows in images.values()] == 3 * [finals()]
