"""References from files, and a predictions file scored and compared from the files alone."""

from __future__ import annotations

import json

import pytest
from fake_annotators import write_images

from ureca_lib.annotate.export import conversation, write_jsonl
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.datasets.references import read_references
from ureca_lib.evaluate.evaluation import (
    compare,
    evaluate,
    write_scores,
)
from ureca_lib.evaluate.metrics import MetricSettings, score_captions
from ureca_lib.evaluate.predictions import meta_path

QUICK = MetricSettings(samples=30, progress=False)
REFS = {"a/1": ["the red cat", "a cat"], "a/2": ["the blue dog"], "b/1": ["a green tree"]}


def predictions(path, captions, **more):
    rows = [{"id": key, "caption": text} | more for key, text in captions.items()]
    write_jsonl(path, rows)
    return path


def published(image, mask_id, text, **more):
    return {"id": 5, "image": image, "mask_id": mask_id, "conversations": conversation(text)} | more


def test_references_are_read_from_every_layout(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(REFS | {"b/1": "a green tree"}))
    write_jsonl(tmp_path / "b.jsonl", ({"id": k, "references": v} for k, v in REFS.items()))
    rows = [published("a.jpg", 1, "the red cat"), published("b.jpg", 1, "a green tree")]
    rows += [published("x/a.png", 2, "the blue dog", masks="a.json")]
    rows += [published("a.jpg", 1, "a cat")]
    write_jsonl(tmp_path / "c.jsonl", rows)
    assert read_references(tmp_path / "a.json") == REFS
    assert read_references(tmp_path / "b.jsonl") == REFS
    renamed = read_references(tmp_path / "c.jsonl")
    # two photos of one name keep their folders, as predictions have them
    assert renamed == {"a/1": ["the red cat", "a cat"], "b/1": ["a green tree"]} | {
        "x/a/2": ["the blue dog"]
    }
    found = read_references("scenes:test:2")
    images = list(open_captioned("scenes:test:2"))
    assert len(found) == sum(len(image.regions) for image in images)
    assert found[f"scene_2000001/{images[1].regions[0].id}"] == images[1].captions[1]


def test_ids_of_references_are_those_that_predict_gives(tmp_path):
    write_images(tmp_path, 2)
    rows = [published("image_1.jpg", 1, "x"), published("image_0.jpg", "six", "y")]
    write_jsonl(tmp_path / "t.jsonl", rows)
    ids = {
        f"{image.image_id}/{region.id}"
        for image in open_captioned(tmp_path / "t.jsonl")
        for region in image.targets
    }
    assert set(read_references(tmp_path / "t.jsonl")) == ids == {"image_1/1", "image_0/six"}


BAD = [
    ("r.json", "{", "truncated or is not JSON"),
    ("r.json", "[1]", "holds a list, not an object"),
    ("r.json", "{}", "there are no references"),
    ("r.json", '{"a/1": 3}', "id a/1: references are texts"),
    ("r.json", '{"a/1": ["", " "]}', "id a/1: references are texts that are not all empty"),
    ("r.json", '{"a1": "x"}', "an id is IMAGE/REGION, not 'a1'"),
    ("r.jsonl", '{"id": 7, "references": ["x"]}', "row 1: id 7: an id is a text IMAGE/REGION"),
    ("r.jsonl", '{"id": "a/1"}', "id a/1: references are texts"),
    ("r.jsonl", '{"image": "a.jpg", "conversations": []}', "row 1: .*id: Field required"),
    (
        "r.jsonl",
        '{"id": 1, "image": "a.jpg", "mask_id": 1, "conversations": []}',
        "row 1: .*one text from gpt",
    ),
    ("r.jsonl", "{", "line 1 is not JSON"),
    ("r.jsonl", "", "there are no references"),
]


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
def test_bad_references_are_named(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{reason}"):
        read_references(tmp_path / name)


def test_missing_and_surplus_ids_are_counted_and_shown(tmp_path):
    path = predictions(tmp_path / "p.jsonl", {"a/1": "the red cat", "z/9": "what", "b/1": ""})
    found = evaluate(path, REFS, (), QUICK)
    assert (found.missing, found.surplus) == (["a/2"], ["z/9"])
    coverage = found.to_dict()["coverage"]
    assert coverage["scored"] == 2 and coverage["first_missing"] == ["a/2"]
    first, second = found.messages()
    assert first.startswith("1 references have no prediction") and first.endswith(": a/2")
    assert second.startswith("1 predictions have no reference") and second.endswith(": z/9")
    assert {row.id: row.caption for row in found.rows}["a/2"] == ""
    with pytest.raises(ValueError, match="there are no references"):
        read_references(write_images(tmp_path / "bare", 1)[0].with_suffix(".png"))


def test_a_missing_prediction_is_a_wrong_one(tmp_path):
    path = predictions(tmp_path / "p.jsonl", {"a/1": "A cat.", "z/9": "what"})
    found = evaluate(path, REFS, ("bleu",), QUICK)
    exact = found.exact.overall["exact_match"]
    assert exact.count == 3 and exact.value == pytest.approx(1 / 3)
    assert found.metrics["bleu_1"].count == 3 and found.metrics["bleu_1"].missing == 2


def test_metrics_are_those_of_score_captions_grouped_by_image(tmp_path):
    captions = {"a/1": "the red cat", "a/2": "a blue cat", "b/1": "green tree"}
    path = predictions(tmp_path / "p.jsonl", captions, system="mine")
    found = evaluate(path, REFS, ("bleu", "rouge_l", "cider"), QUICK)
    groups = {key: key[0] for key in REFS}
    expected = score_captions(captions, REFS, ("bleu", "rouge_l", "cider"), groups, QUICK)
    assert {k: s.as_record() for k, s in found.metrics.items()} == {
        k: s.as_record() for k, s in expected.items()
    }
    assert found.system == "mine" and found.metrics["cider"].units == 2
    text = str(found)
    assert "mine: 3 captions" in text and str(expected["rouge_l"]) in text


def test_a_score_is_computed_again_from_the_file_alone(tmp_path):
    captions = {"a/1": "the red cat", "b/1": "tree"}
    path = predictions(tmp_path / "p.jsonl", captions, references=["the red cat"])
    for name in ("one.json", "two.json"):
        write_scores(tmp_path / name, evaluate(path, None, ("rouge_l",), QUICK))
    one = (tmp_path / "one.json").read_text()
    assert one == (tmp_path / "two.json").read_text()
    assert json.loads(one)["metrics"]["rouge_l"]["value"] == pytest.approx(0.5)
    assert json.loads(one)["sha256"]


def test_two_files_are_compared_on_what_both_have(tmp_path):
    keys = [f"i{n}/1" for n in range(12)]
    refs = {key: ["a cat"] for key in keys}
    good = predictions(tmp_path / "good.jsonl", dict.fromkeys(keys, "a cat"))
    half = {key: "a cat" if n % 2 else "dog" for n, key in enumerate(reversed(keys[2:]))}
    bad = predictions(tmp_path / "bad.jsonl", half | {"extra/1": "x"})
    first = evaluate(good, refs, ("rouge_l",), QUICK)
    compared = compare(first, bad, refs, ("rouge_l",), QUICK)
    found = compared.differences
    assert len(first.rows) == 12 and len(compared.second.rows) == 10
    assert found["exact_match"].difference == pytest.approx(0.5) and found["exact_match"].apart
    assert found["rouge_l"].first == pytest.approx(1.0)
    record = json.loads(json.dumps(compared.to_dict()))
    assert record["differences"]["rouge_l"]["apart"] is True and record["captions"] == 10
    assert "exact match: +50.00" in str(compared)
    assert "on the 10 captions that both have" in str(compared)
    same = compare(first, good, refs, ("rouge_l",), QUICK).differences
    assert same["rouge_l"].difference == 0 and not same["rouge_l"].apart


def test_what_a_stopped_run_left_out_is_said(tmp_path):
    path = predictions(tmp_path / "p.jsonl", {"a/1": "x", "a/2": ""}, references=["x"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [rows[0], rows[1] | {"error": "the server was gone"}])
    meta_path(path).write_text('{"images": 3}')
    first, second = evaluate(path, None, (), QUICK).messages()
    assert first.startswith("2 of 3 images have no captions")
    assert second.startswith("1 captions failed") and "--retry-failed" in second
    meta_path(path).write_text('{"images": 1}')
    write_jsonl(path, rows)
    assert evaluate(path, None, (), QUICK).messages() == []


def test_references_of_other_names_are_refused_with_one_of_each(tmp_path):
    path = predictions(tmp_path / "p.jsonl", {"sa_1.jpg/1": "x"})
    match = r"'sa_1.jpg/1' is one of the predictions, 'sa_1/1' of the references"
    with pytest.raises(ValueError, match=match):
        evaluate(path, {"sa_1/1": ["x"]}, (), QUICK)


def test_a_published_file_names_its_images_as_predictions_do(tmp_path):
    write_images(tmp_path / "sa1b", 2)
    (tmp_path / "sa1b" / "image_0.json").rename(tmp_path / "sa1b" / "masks.json")
    rows = [
        {"id": "a", "image": "image_0.png", "masks": "masks.json", "mask_id": 1},
        {"id": "b", "image": "image_1.png", "mask_id": 1},
    ]
    write_jsonl(tmp_path / "t.jsonl", [row | {"conversations": conversation("x")} for row in rows])
    text = f"{tmp_path}/t.jsonl@{tmp_path}/sa1b"
    assert list(read_references(tmp_path / "t.jsonl")) == list(read_references(text))
    assert list(read_references(text)) == ["image_0/1", "image_1/1"]


def test_sizes_are_compared_where_both_have_the_same_regions(tmp_path):
    keys = [f"i{n}/{part}" for n in range(12) for part in (1, 2)]
    areas = {"1": 5, "2": 5000}  # of 10,000 pixels

    def write(name, captions, **known):
        rows = [
            {"id": key, "caption": caption, "references": ["a cat"]}
            | {"area": areas[key[-1]], "image_size": [100, 100]}
            | known
            for key, caption in captions.items()
        ]
        write_jsonl(tmp_path / name, rows)
        return tmp_path / name

    good = write("good.jsonl", dict.fromkeys(keys, "a cat"))
    bad = write("bad.jsonl", {k: "a cat" if k.endswith("2") else "dog" for k in keys})
    first = evaluate(good, None, (), QUICK)
    compared = compare(first, bad, None, (), QUICK)
    sizes = compared.by_size
    small, large = (each["exact_match"] for each in sizes.values())
    assert list(sizes) == list(first.exact.by_size)
    assert (small.difference, large.difference) == (1.0, 0.0)
    assert small.apart and not large.apart
    record = json.loads(json.dumps(compared.to_dict()))
    assert record["differences_by_size"][next(iter(sizes))]["exact_match"]["difference"] == 1.0
    assert list(record["differences_by_level"]) == list(first.exact.by_level)
    assert f"{next(iter(sizes))}: exact match: +100.00" in str(compared)
    unknown = write("unknown.jsonl", dict.fromkeys(keys, "a cat"), area=None)
    assert compare(first, unknown, None, (), QUICK).by_size == {}


def test_files_that_cannot_be_compared_are_refused(tmp_path):
    one = predictions(tmp_path / "a.jsonl", {"a/1": "x"}, references=["x"])
    two = predictions(tmp_path / "b.jsonl", {"b/1": "x"}, references=["x"])
    other = predictions(tmp_path / "c.jsonl", {"a/1": "x"}, references=["y"])
    with pytest.raises(ValueError, match="no region in common"):
        compare(evaluate(one, None, (), QUICK), two, None, (), QUICK)
    with pytest.raises(ValueError, match="other references for a/1"):
        compare(evaluate(one, None, (), QUICK), other, None, (), QUICK)
    mixed = tmp_path / "m.jsonl"
    rows = [{"id": f"a/{n}", "caption": "x", "system": f"s{n}"} for n in (1, 2)]
    write_jsonl(mixed, rows)
    with pytest.raises(ValueError, match="several systems: s1, s2"):
        evaluate(mixed, None, (), QUICK)
    with pytest.raises(ValueError, match="metrics are bleu"):
        evaluate(one, None, ("spice",), QUICK)
