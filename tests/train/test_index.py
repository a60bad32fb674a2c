"""The index of training data: made once, noticed when it is stale, and equal to the data."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from fake_annotators import write_images
from PIL import Image
from tiny_models import tiny_model, tiny_tokenizer
from tiny_runs import SCENES, small

from ureca_lib.annotate.export import conversation, write_jsonl
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.processor import UrecaProcessor
from ureca_lib.train import index as index_module
from ureca_lib.train.data import RegionCaptionDataset
from ureca_lib.train.index import open_index


def rows(captions: dict[int, str]) -> list[dict]:
    return [
        {"id": f"r{number}", "image": f"image_{number}.png", "mask_id": 1}
        | {"conversations": conversation(text)}
        for number, text in captions.items()
    ]


@pytest.fixture
def source(tmp_path):
    """A JSONL with captions of one region of two photos each, and their masks elsewhere."""
    write_images(tmp_path / "sa1b", 2)
    write_jsonl(tmp_path / "train.jsonl", rows({0: "an eye", 1: "a door"}))
    return f"{tmp_path / 'train.jsonl'}@{tmp_path / 'sa1b'}"


def captions(index) -> list[str]:
    return index.texts("captions").to_pylist()


def unread(*_):
    raise AssertionError("the data was read")


def test_a_row_is_what_the_image_is():
    index = open_index(str(SCENES), 3, progress=False)
    images = open_captioned(SCENES, 3)
    assert list(index.counts) == [len(image.captions) for image in images]
    for number, image in enumerate(images):
        assert index.size(number) == image.size
        captioned = [region for region in image.regions if image.captions.get(region.id)]
        found = index.regions(number)
        assert [region.id for region in found] == [region.id for region in captioned]
        assert [region.rle for region in found] == [region.rle for region in captioned]
        assert index.row(number)["captions"] == [image.captions[r.id] for r in captioned]
        assert np.array_equal(index.pixels(number), image.pixels)
        assert index.scene(number).seed == image.scene.seed
    last = index.part(2, 3)
    assert len(last) == 1 and last.row(0)["image_id"] == images[2].image_id
    assert np.array_equal(last.pixels(0), images[2].pixels)


def test_a_caption_is_asked_for_with_its_own_question(source, tmp_path):
    lines = rows({0: "an eye", 1: "a door"})
    for line, question in zip(lines, ("Name it.", "Describe it in detail."), strict=True):
        line["conversations"][0]["value"] = question
    write_jsonl(tmp_path / "train.jsonl", lines)
    index = open_index(source, progress=False)
    assert index.texts("questions").to_pylist() == ["Name it.", "Describe it in detail."]
    model = tiny_model()
    processor = UrecaProcessor.from_config(model.config, tiny_tokenizer())
    settings = small(tmp_path, regions_per_image=1)
    dataset = RegionCaptionDataset(index, processor, settings)
    texts = [processor.tokenizer.decode(dataset.of_image(n).rows[0][0]) for n in range(2)]
    assert "Name it." in texts[0] and "Describe it in detail." in texts[1]
    assert settings.question not in texts[0] + texts[1]


def test_it_is_made_once_beside_the_data(source, tmp_path, monkeypatch):
    first = open_index(source, folder=tmp_path / "run", progress=False)
    assert first.path.parent == tmp_path and not (tmp_path / "run").exists()
    monkeypatch.setattr(index_module, "open_captioned", unread)
    again = open_index(source, progress=False)
    assert again.table.equals(first.table) and again.content == first.content
    assert np.array_equal(again.pixels(1), first.pixels(1))


def test_of_generated_scenes_it_is_in_the_run(tmp_path, monkeypatch):
    index = open_index("scenes:train:2", folder=tmp_path, progress=False)
    assert index.path.parent == tmp_path
    monkeypatch.setattr(index_module, "open_captioned", unread)
    assert open_index("scenes:train:2", folder=tmp_path, progress=False).content == index.content


def test_a_changed_file_of_captions_is_indexed_anew(source, tmp_path):
    before = open_index(source, progress=False)
    write_jsonl(tmp_path / "train.jsonl", rows({0: "an eye", 1: "a window"}))
    after = open_index(source, progress=False)
    assert captions(before) == ["an eye", "a door"] and captions(after) == ["an eye", "a window"]
    assert before.content != after.content and before.path == after.path


def test_a_folder_with_another_annotation_is_indexed_anew(tmp_path):
    files = sorted(SCENES.glob("scene_*"))
    for file in files[:2]:
        shutil.copy(file, tmp_path)
    assert len(open_index(str(tmp_path), progress=False)) == 1
    for file in files[2:4]:
        shutil.copy(file, tmp_path)
    assert len(open_index(str(tmp_path), progress=False)) == 2


@pytest.mark.parametrize("kind", ["image_1.png", "image_1.json"])
def test_a_photo_or_mask_that_has_changed_is_noticed_at_its_use(source, tmp_path, kind):
    index = open_index(source, progress=False)
    index.check_files()
    os.utime(tmp_path / "sa1b" / kind, (1, 1))
    assert index.pixels(0) is not None
    with pytest.raises(ValueError, match=rf"{kind}: changed or gone since"):
        index.pixels(1)
    again = open_index(source, progress=False)  # the stale one was removed
    assert again.pixels(1) is not None
    (tmp_path / "sa1b" / kind).unlink()
    with pytest.raises(ValueError, match="changed or gone"):
        again.check_files()


def test_a_fault_is_looked_at_again_until_it_is_mended(source, tmp_path):
    photo = tmp_path / "sa1b" / "image_1.png"
    good = photo.read_bytes()
    Image.new("RGB", (20, 30)).save(photo)
    assert "20 x 30" in open_index(source, progress=False).table["fault"][1].as_py()
    photo.write_bytes(good)
    assert open_index(source, progress=False).table["fault"].null_count == 2


def test_a_damaged_index_is_made_again(source):
    index = open_index(source, progress=False)
    index.path.write_bytes(b"ARROW1 cut")
    assert captions(open_index(source, progress=False)) == ["an eye", "a door"]


def test_several_processes_read_the_same(monkeypatch):
    monkeypatch.setattr(index_module, "ROWS_AT_ONCE", 2)
    alone = open_index(str(SCENES), 4, progress=False)
    alone.path.unlink()
    assert open_index(str(SCENES), 4, workers=2, progress=False).content == alone.content
