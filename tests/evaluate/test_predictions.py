"""The format of predictions files, and writing them so that nothing is lost or mixed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.evaluate.predictions import (
    Prediction,
    PredictionWriter,
    meta_path,
    prediction_id,
    read_meta,
    read_predictions,
    split_id,
)
from ureca_lib.journal import JournalError

META = {"system": "x", "model": None, "data": "d", "settings": {"a": (1, 2)}, "seed": 0}


def one(image="scene_1", region=1, caption="a cat", **more) -> Prediction:
    return Prediction(prediction_id(image, region), image, region, caption, **more)


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_two_columns_are_enough(tmp_path):
    path = written(
        tmp_path / "p.jsonl", {"id": "a/b/7", "caption": ""}, {"id": "x/s", "caption": "c"}
    )
    first, second = read_predictions(path)
    assert (first.image_id, first.region_id, first.caption) == ("a/b", 7, "")
    assert (second.image_id, second.region_id) == ("x", "s")
    assert (
        first.references == () and first.score is first.area is first.level is first.error is None
    )


def test_image_and_region_serve_as_id_and_other_keys_are_kept(tmp_path):
    row = {"image_id": "a", "region_id": "07", "caption": "c", "mine": [1], "error": "why"}
    (found,) = read_predictions(written(tmp_path / "p.jsonl", row))
    assert found.id == "a/07" and found.region_id == "07"
    assert found.extra == {"mine": [1], "error": "why"} and found.error == "why"
    assert found.to_dict()["mine"] == [1]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
predictions = st.builds(
    one,
    image=st.sampled_from(["scene_1", "a/b", "größe"]),
    region=st.one_of(st.integers(0, 99), st.sampled_from(["x", "left eye", "01"])),
    caption=texts,
    references=st.lists(texts, max_size=3).map(tuple),
    score=st.none() | st.floats(-9, 0),
    area=st.none() | st.integers(1, 999),
    image_size=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
    level=st.none() | st.integers(1, 9),
    system=st.none() | st.just("x"),
    extra=st.just({}) | st.just({"note": None}),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(predictions, min_size=1, max_size=6, unique_by=lambda row: row.id))
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("p") / "p.jsonl"
    with PredictionWriter(path, META) as writer:
        writer.add(rows)
    assert read_predictions(path) == rows


@settings(max_examples=40)
@given(st.text(min_size=1), st.one_of(st.integers(-(10**18), 10**18), st.text("abc", min_size=1)))
def test_ids_are_taken_apart_as_they_were_put_together(image, region):
    assert split_id(prediction_id(image, region)) == (image, region)


BAD = [
    ({"id": "ab", "caption": "c"}, "an id is IMAGE/REGION, not 'ab'"),
    ({"id": "a/", "caption": "c"}, "an id is IMAGE/REGION"),
    ({"id": "/1", "caption": "c"}, "an id is IMAGE/REGION"),
    ({"id": 5, "caption": "c"}, "an id is IMAGE/REGION, not '5'"),
    ({"caption": "c"}, "an id is IMAGE/REGION, not 'None'"),
    ({"id": "a/1"}, "id a/1: 'caption': Field required"),
    ({"id": "a/1", "caption": 3}, "'caption': Input should be a valid string"),
    ({"image_id": "a", "caption": "c"}, "'region_id': Field required"),
    ({"image_id": "a", "region_id": 1.5, "caption": "c"}, "'region_id': .* valid integer"),
    ({"image_id": "a", "region_id": True, "caption": "c"}, "'region_id': .* valid integer"),
    ({"image_id": 3, "region_id": 1, "caption": "c"}, "'image_id': .* valid string"),
    ({"id": "b/1", "image_id": "a", "region_id": 1, "caption": "c"}, "not that of image_id"),
    ({"id": "a/1", "caption": "c", "references": "r"}, "'references': .* valid tuple"),
    ({"id": "a/1", "caption": "c", "references": [1]}, "'references': .* valid string"),
    ({"id": "a/1", "caption": "c", "score": "high"}, "'score': .* valid number"),
    ({"id": "a/1", "caption": "c", "score": float("nan")}, "'score': "),
    ({"id": "a/1", "caption": "c", "score": True}, "'score': .* valid number"),
    ({"id": "a/1", "caption": "c", "area": 4.0}, "'area': .* valid integer"),
    ({"id": "a/1", "caption": "c", "area": 0}, "'area': .* greater than 0"),
    ({"id": "a/1", "caption": "c", "level": 0}, "'level': .* greater than 0"),
    ({"id": "a/1", "caption": "c", "image_size": [4]}, "'image_size': "),
    ({"id": "a/1", "caption": "c", "image_size": [4, 0]}, "'image_size': .* greater than 0"),
    ({"id": "a/1", "caption": "c", "system": 1}, "'system': .* valid string"),
    ({"id": "z/1", "caption": "again"}, "id z/1 is there twice"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_bad_row_is_named(tmp_path, bad, reason):
    path = written(tmp_path / "p.jsonl", {"id": "z/1", "caption": "c"}, bad)
    with pytest.raises(JournalError, match=f"p.jsonl: line 2: .*{reason}|line 2: {reason}"):
        read_predictions(path)


@pytest.mark.parametrize("line", [b"[1]", b"{'a': 1}", b"\xff"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"id": "a/1", "caption": "c"}\n' + line + b"\n")
    with pytest.raises(JournalError, match=r"p.jsonl: line 2 is not"):
        read_predictions(path)


def test_odd_rows_of_other_systems_are_read(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"id": 7, "image_id": "a", "region_id": 1,'
        ' "caption": "half \\ud83d", "score": -Infinity}\n'
    )
    (row,) = read_predictions(path)
    assert (row.id, row.caption, row.score) == ("a/1", "half \ud83d", float("-inf"))


def test_no_predictions_are_an_error(tmp_path):
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(JournalError, match="there are no predictions"):
        read_predictions(tmp_path / "p.jsonl")
    with pytest.raises(FileNotFoundError):
        read_predictions(tmp_path / "gone.jsonl")


def test_half_a_last_line_is_no_row_and_is_replaced(tmp_path):
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path, META) as writer:
        writer.add([one(region=1), one(region=2)])
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 2, len(whole) - 2, 7):
        path.write_bytes(whole[:cut])
        assert [row.region_id for row in read_predictions(path)] == [1]
        with PredictionWriter(path, META) as writer:
            assert set(writer.errors) == {"scene_1/1"}
            writer.add([one(region=2)])
        assert path.read_bytes() == whole


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path, META) as writer:
        writer.add([one(region=1)])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with PredictionWriter(path, META) as writer:
        writer.add([one(region=2)])
    assert [row.region_id for row in read_predictions(path)] == [1, 2]


@pytest.mark.parametrize(
    "other",
    [{"system": "y"}, {"data": "e"}, {"settings": {"a": (1, 3)}}, {"model": {"path": "m"}}],
)
def test_two_runs_are_not_mixed_in_a_file(tmp_path, other):
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path, META) as writer:
        writer.add([one()])
    before = path.read_bytes(), meta_path(path).read_bytes()
    with pytest.raises(JournalError, match=f"another run: {next(iter(other))} was"):
        PredictionWriter(path, META | other)
    assert (path.read_bytes(), meta_path(path).read_bytes()) == before
    with PredictionWriter(path, META | {"command": ["again"]}) as writer:
        assert set(writer.errors) == {"scene_1/1"}
    assert read_meta(path)["command"] == ["again"]


def test_a_file_of_unknown_making_is_left_alone(tmp_path):
    path = written(tmp_path / "p.jsonl", {"id": "a/1", "caption": "c"})
    with pytest.raises(JournalError, match=r"without its p.meta.json"):
        PredictionWriter(path, META)
    with pytest.raises(JournalError, match=r"is called NAME\.jsonl"):
        PredictionWriter(tmp_path / "p.json", META)


def test_failed_rows_can_be_made_again(tmp_path):
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path, META) as writer:
        writer.add([one(region=1), one(region=2, caption="", extra={"error": "busy"})])
        assert writer.errors == {"scene_1/1": None, "scene_1/2": "busy"}
    with PredictionWriter(path, META) as writer:
        assert set(writer.errors) == {"scene_1/1", "scene_1/2"}
    with PredictionWriter(path, META, retry_failed=True) as writer:
        assert writer.errors == {"scene_1/1": None}
        writer.add([one(region=2, caption="now")])
    assert [row.caption for row in read_predictions(path)] == ["a cat", "now"]


HOLDS = """
import sys, time
from ureca_lib.evaluate.predictions import Prediction, PredictionWriter

writer = PredictionWriter(sys.argv[1], {"system": "x", "model": None})
writer.add([Prediction("scene_1/1", "scene_1", 1, "a cat")])
print("ready", flush=True)
time.sleep(60)
"""


def test_only_one_process_writes_and_a_killed_one_lets_go(tmp_path):
    path, meta = tmp_path / "p.jsonl", {"system": "x", "model": None}
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(JournalError, match="another process is writing"):
            PredictionWriter(path, meta)
        child.kill()
    with PredictionWriter(path, meta) as writer:
        assert set(writer.errors) == {"scene_1/1"}
