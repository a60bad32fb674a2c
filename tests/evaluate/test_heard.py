"""What was heard comes back from the disk, and faults are named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ureca_lib.evaluate.heard import (
    Heard,
    HeardError,
    HeardRegion,
    append_heard,
    drop_cut_line,
    read_heard,
)


def heard(image_id="a", scores=((-1.5, -np.inf), (-0.25, -np.inf), (-7.0, -np.inf))):
    regions = (HeardRegion(1, 10, 1, ("x",)), HeardRegion("x", 4, None, (1,)), HeardRegion(3, 9))
    captions, said = ("the “red” car", "<mask>"), {"x": 0, 1: 0, 3: 1}
    parts = (regions, captions, said, np.array(scores), {1: "a special token"})
    return Heard(image_id, "exact", "ours", (4, 5), *parts)


def test_images_come_back_as_they_were(tmp_path):
    path = tmp_path / "heard.jsonl"
    for name in ("a", "b"):
        append_heard(path, heard(name))
    found = list(read_heard(path))
    assert [one.image_id for one in found] == ["a", "b"]
    one, other = found[0], heard("a")
    assert np.array_equal(one.scores, other.scores)
    assert replace(one, scores=other.scores).__dict__ | {"scores": 0} == other.__dict__ | {
        "scores": 0
    }
    assert one.texts == {"x": "the “red” car", 1: "the “red” car", 3: "<mask>"}


def test_scores_are_kept_to_four_decimals(tmp_path):
    scores = np.random.default_rng(0).normal(-20, 9, (3, 2))
    append_heard(tmp_path / "heard.jsonl", heard(scores=scores))
    (found,) = read_heard(tmp_path / "heard.jsonl")
    assert found.scores == pytest.approx(scores, abs=0.5e-4)


def test_a_line_that_was_cut_off_is_dropped_and_the_rest_stays(tmp_path):
    path = tmp_path / "heard.jsonl"
    append_heard(path, heard("a"))
    whole = path.read_bytes()
    assert not drop_cut_line(path)
    for length in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole.replace(b'"a"', b'"b"')[:length])
        assert [one.image_id for one in read_heard(path)] == ["a"]
        assert drop_cut_line(path)
        assert path.read_bytes() == whole
    path.write_bytes(b"x" * 200_000)
    assert drop_cut_line(path)
    assert path.read_bytes() == b""
    assert not drop_cut_line(tmp_path / "none.jsonl")


def broken(change):
    row = json.loads(json.dumps(heard("b").row()))
    change(row)
    return row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("said"), "'said' is missing"),
        (lambda row: row["scores"].pop(), "reshape"),
        (lambda row: row.update(said=[[9, 0]]), "region 9, which is not there"),
        (lambda row: row.update(said=[[1, 5]]), "caption 5, which is not there"),
        (lambda row: row.update(image_id="a"), "a stands twice"),
        (lambda row: row["regions"][0].update(look_alikes=[77]), "77"),
        (lambda row: row["regions"][0].update(id=3), "two regions have one id"),
        (lambda row: row.update(regions=4), "of another kind"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, change, message):
    path = tmp_path / "heard.jsonl"
    append_heard(path, heard("a"))
    with path.open("a") as file:
        file.write(json.dumps(broken(change)) + "\n")
    with pytest.raises(HeardError, match=message) as caught:
        list(read_heard(path))
    assert f"{path}: line 2" in str(caught.value)


def test_a_line_that_is_not_json_is_named(tmp_path):
    (tmp_path / "heard.jsonl").write_text("{]\n")
    with pytest.raises(HeardError, match="line 1 is not JSON"):
        list(read_heard(tmp_path / "heard.jsonl"))
