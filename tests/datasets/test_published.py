"""The published layout, read with the masks of SA-1B files."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from fake_annotators import small_image, write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.annotate.export import conversation, write_jsonl
from ureca_lib.datasets import load_published
from ureca_lib.datasets.captioned import CaptionedError
from ureca_lib.regions import load_sa1b, save_sa1b


def row(image, mask_id, text="a caption", **more):
    return {"id": f"{image}/{mask_id}", "image": image, "mask_id": mask_id} | {
        "conversations": conversation(text, "<image>\nWhat?"),
        **more,
    }


@pytest.fixture
def sa1b(tmp_path):
    """Three images as SA-1B has them, in two of its folders."""
    folder = tmp_path / "sa1b"
    write_images(folder / "sa_000000", 2)
    write_images(folder / "other", 3)
    (folder / "sa_000020").mkdir()
    for end in ("json", "png"):
        (folder / "other" / f"image_2.{end}").rename(folder / "sa_000020" / f"image_2.{end}")
    for path in (folder / "other").iterdir():
        path.unlink()
    return folder


def published(tmp_path, rows, sa1b, strict=True):
    write_jsonl(tmp_path / "x.jsonl", rows)
    return load_published(tmp_path / "x.jsonl", sa1b, strict)


def test_captions_and_masks_come_together_image_by_image(tmp_path, sa1b):
    rows = [
        row("image_2.jpg", 3, "an eye"),
        row("image_0.jpg", 1, "größe 樹"),
        row("image_2.jpg", "six", "a\nlist"),
        row("image_2.jpg", 3, "said again"),
        row("image_0.jpg", 5),
    ]
    found = list(published(tmp_path, rows, sa1b))
    assert [image.image_id for image in found] == ["image_2", "image_0"]
    two, zero = found
    # all masks of the photo, with a caption or without one
    assert two.regions == small_image(2).regions
    assert zero.regions == small_image(0).regions
    assert two.captions == {3: ["an eye", "said again"], "six": ["a\nlist"]}
    assert zero.captions == {1: ["größe 樹"], 5: ["a caption"]}
    assert zero.questions == {1: ["What?"], 5: ["What?"]}  # without the place of the image
    expected = small_image(2)
    assert np.array_equal(two.image["six"].mask, expected["six"].mask)
    assert np.array_equal(two.pixels, expected.pixels)
    assert two.size == (48, 48)


def test_it_can_be_read_again_and_says_how_much_there_is(tmp_path, sa1b):
    data = published(tmp_path, [row("image_0.jpg", 1), row("image_1.jpg", 2)], sa1b)
    assert (len(data), data.counts["captions"]) == (2, 2)
    first = [(image.image_id, image.captions) for image in data]
    assert first == [(image.image_id, image.captions) for image in data]


@pytest.mark.parametrize(("mask_id", "found"), [("3", 3), (7, "7"), ("7", "7"), (3, 3)])
def test_a_number_may_be_written_as_text_and_the_other_way_round(tmp_path, sa1b, mask_id, found):
    (image,) = published(tmp_path, [row("image_0.jpg", mask_id)], sa1b)
    assert list(image.captions) == [found] and type(next(iter(image.captions))) is type(found)
    assert found in [region.id for region in image.regions]


@pytest.mark.parametrize("mask_id", [99, "99", "9" * 5000, "٣", "", "3 ", "-3", "Six"])
def test_an_unknown_mask_is_named(tmp_path, sa1b, mask_id):
    data = published(tmp_path, [row("image_0.jpg", 1), row("image_0.jpg", mask_id)], sa1b)
    with pytest.raises(CaptionedError, match=r"x.jsonl: line 2: id .*image_0.json has no mask"):
        list(data)


def broken(**changes):
    return {key: value for key, value in (row("image_0.jpg", 1) | changes).items() if value != ...}


BAD = [
    (broken(id=...), "id: "),
    (broken(id=1.5), "id.*1.5"),
    (broken(id=True), "id.*True"),
    (broken(mask_id=...), "mask_id: "),
    (broken(mask_id=[1]), "mask_id.*list"),
    (broken(image=...), "image: "),
    (broken(image=7), "image: .*7"),
    (broken(image=""), "'image' is a file name"),
    (broken(image="/"), "'image' is a file name"),
    (broken(masks=5), "masks: .*5"),
    (broken(masks="x.txt"), "masks: .*x.txt"),
    (broken(conversations=...), "conversations: "),
    (broken(conversations="text"), "conversations: "),
    (broken(conversations=["a", "b"]), "conversations.0: "),
    (broken(conversations=[]), "'conversations' has one text from gpt, not 0"),
    (broken(conversations=conversation("a")[:1]), "has one text from gpt, not 0"),
    (broken(conversations=conversation("a")[1:]), "has one text from human, not 0"),
    (broken(conversations=conversation("a") * 2), "has one text from gpt, not 2"),
    (
        broken(conversations=[{"from": "human", "value": 1}, *conversation("a")[1:]]),
        "one text from human",
    ),
    (broken(conversations=conversation("  \n ")), "the caption is empty"),
    (broken(image="gone.jpg"), "there is no gone.json in .*sa1b"),
    (broken(image="../../image_0.jpg"), "there is no ../../image_0.json in"),
    (broken(image="/image_0.jpg"), "there is no /image_0.json in"),
    (broken(image="folder/image_0.jpg"), "there is no folder/image_0.json in"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_bad_row_is_named_before_anything_is_read_or_left_out(tmp_path, sa1b, bad, reason):
    rows = [row("image_1.jpg", 1), bad, row("image_0.jpg", 2)]
    with pytest.raises(CaptionedError, match=f"x.jsonl: line 2.*{reason}") as caught:
        published(tmp_path, rows, sa1b)
    assert str(caught.value).startswith(f"{tmp_path / 'x.jsonl'}: line 2: ")
    data = published(tmp_path, rows, sa1b, strict=False)
    assert [str(error) for error in data.left_out] == [str(caught.value)]
    assert [list(image.captions) for image in data] == [[1], [2]] and data.counts["captions"] == 2


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_line_that_is_no_json_object_is_named_or_left_out(tmp_path, sa1b, line):
    good = json.dumps(row("image_0.jpg", 1)).encode()
    (tmp_path / "x.jsonl").write_bytes(good + b"\n\n" + line + b"\n" + good)
    with pytest.raises(CaptionedError, match=r"x.jsonl: line 3: the line is not"):
        load_published(tmp_path / "x.jsonl", sa1b)
    data = load_published(tmp_path / "x.jsonl", sa1b, strict=False)
    assert ["x.jsonl: line 3: " in str(error) for error in data.left_out] == [True]
    assert [image.captions for image in data] == [{1: ["a caption"] * 2}]


def test_faulty_masks_matter_only_where_they_are_asked_for(tmp_path, sa1b):
    path = sa1b / "sa_000000" / "image_0.json"
    document = json.loads(path.read_text())
    document["annotations"][1]["segmentation"]["counts"] = "!!"
    document["annotations"].append(document["annotations"][3])  # id 4 twice
    path.write_text(json.dumps(document))
    (image,) = published(tmp_path, [row("image_0.jpg", 1)], sa1b)
    assert [region.id for region in image.regions] == [1, 3, 4, 5, "six", "7"]
    for mask_id, reason in ((2, "region 2: the encoding"), (4, "region 4: a region before it")):
        rows = [row("image_0.jpg", mask_id), row("image_0.jpg", 3)]
        with pytest.raises(CaptionedError, match=f"line 1: id image_0.jpg/{mask_id}: .*{reason}"):
            list(published(tmp_path, rows, sa1b))
        data = published(tmp_path, rows, sa1b, strict=False)
        assert [list(image.captions) for image in data] == [[3]]
        assert [f": id image_0.jpg/{mask_id}: " in str(one) for one in data.left_out] == [True]
        list(data)
        assert len(data.left_out) == 1  # the second reading lists it once too


def test_a_faulty_mask_says_why_however_its_id_is_written(tmp_path, sa1b):
    path = sa1b / "sa_000000" / "image_0.json"
    document = json.loads(path.read_text())
    document["annotations"][1]["area"] = "large"
    path.write_text(json.dumps(document))
    for mask_id in (2, "2"):
        with pytest.raises(CaptionedError, match="region 2: an area is a number"):
            list(published(tmp_path, [row("image_0.jpg", mask_id)], sa1b))


def test_a_json_that_cannot_be_read_is_named_or_left_out(tmp_path, sa1b):
    (sa1b / "sa_000000" / "image_0.json").write_text("{")
    rows = [row("image_0.jpg", 1), row("image_1.jpg", 1)]
    with pytest.raises(CaptionedError, match=r"line 1: .*image_0.json.*truncated"):
        list(published(tmp_path, rows, sa1b))
    data = published(tmp_path, rows, sa1b, strict=False)
    assert data.ids == ["image_1"] and len(data.left_out) == 1


def test_files_of_one_name_are_told_apart_by_their_folder_or_refused(tmp_path, sa1b):
    (sa1b / "copy").mkdir()
    save_sa1b(small_image(9), sa1b / "copy" / "image_0.json")
    with pytest.raises(CaptionedError, match=r"image_0.json is there twice: .*copy.*sa_000000"):
        published(tmp_path, [row("image_0.jpg", 1)], sa1b)
    data = published(tmp_path, [row("image_0.jpg", 1), row("image_1.jpg", 1)], sa1b, strict=False)
    assert (len(data), len(data.left_out)) == (1, 1)
    (image,) = published(tmp_path, [row("copy/image_0.jpg", 1)], sa1b)
    assert image.image.path == sa1b / "copy" / "image_0.json"
    save_sa1b(small_image(8), sa1b / "image_0.json")
    (image,) = published(tmp_path, [row("image_0.jpg", 1)], sa1b)
    assert image.image.path == sa1b / "image_0.json"  # just that path, before deeper ones


def test_masks_of_another_name_than_the_photos(tmp_path, sa1b):
    (image,) = published(tmp_path, [row("photo.png", 1, masks="image_1.json")], sa1b)
    assert image.image_id == "photo" and image.image.path.name == "image_1.json"


def test_missing_files_are_missing_files(tmp_path, sa1b):
    with pytest.raises(FileNotFoundError, match=r"gone.jsonl"):
        load_published(tmp_path / "gone.jsonl", sa1b)
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such folder"):
        load_published(tmp_path / "x.jsonl", tmp_path / "nowhere")
    assert list(load_published(tmp_path / "x.jsonl", sa1b)) == []


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["image_0.jpg", "image_1.jpg"]),
            st.sampled_from([1, 2, "six", "7"]),
            st.text(min_size=1).filter(str.strip),
        ),
        max_size=8,
    )
)
def test_any_captions_in_any_order_are_those_written(tmp_path_factory, triples):
    folder = tmp_path_factory.mktemp("published")
    write_images(folder, 2)
    data = published(folder, [row(*triple) for triple in triples], folder)
    found = {
        (f"{image.image_id}.jpg", region_id): texts
        for image in data
        for region_id, texts in image.captions.items()
    }
    expected: dict = {}
    for name, region_id, text in triples:
        expected.setdefault((name, region_id), []).append(text)
    assert found == expected


def test_the_genuine_excerpts_of_sa1b(tmp_path, peer):
    rows, expected = [], {}
    for number, document in enumerate(json.loads((peer / "sa1b_excerpts.json").read_text())):
        path = tmp_path / f"sa_00000{number}" / f"sa_{number}.json"
        path.parent.mkdir()
        path.write_text(json.dumps(document))
        expected[f"sa_{number}"] = load_sa1b(path).regions
        rows += [row(f"sa_{number}.jpg", a["id"]) for a in document["annotations"]]
    found = {image.image_id: image for image in published(tmp_path, rows, tmp_path)}
    assert {name: image.regions for name, image in found.items()} == expected
    assert len(expected) == 3 and all(image.image.image is None for image in found.values())


def test_the_captions_are_not_held_in_memory(tmp_path, sa1b):
    text = "word " * 400
    rows = (row(f"image_{n % 3}.jpg", 1 + n % 5, text) for n in range(6000))
    write_jsonl(tmp_path / "x.jsonl", rows)
    size = (tmp_path / "x.jsonl").stat().st_size
    tracemalloc.start()
    data = load_published(tmp_path / "x.jsonl", sa1b)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.counts["captions"] == 6000 and size > 12e6
    assert held < 1e6 and peak < 2e6
