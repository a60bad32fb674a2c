"""Listener scores come back from the disk, and faults are named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ureca_lib.journal import Journal, JournalError, read_journal
from ureca_lib.listeners import ListenerScores, ScoredRegion, score_images


def listener_scores(image_id="a", scores=((-1.5, -np.inf), (-0.25, -np.inf), (-7.0, -np.inf))):
    regions = (ScoredRegion(1, 10, 1, ("x",)), ScoredRegion("x", 4, None, (1,)), ScoredRegion(3, 9))
    captions, said = ("the “red” car", "<mask>"), {"x": 0, 1: 0, 3: 1}
    parts = (regions, captions, said, np.array(scores), {1: "a special token"})
    return ListenerScores(image_id, "exact", "ours", (4, 5), *parts)


def written(path, *images):
    with Journal(path) as journal:
        journal.append(*(image.row() for image in images))
    return path


def read(path):
    """The scores of a file, without images or listener."""
    rows = [row["image_id"] for row in read_journal(path)]
    captions = {name: {"x": "the “red” car", "1": "the “red” car", "3": "<mask>"} for name in rows}
    return score_images(None, captions, None, "exact", path, progress=False)


def test_images_come_back_as_they_were(tmp_path):
    path = written(tmp_path / "heard.jsonl", listener_scores("a"), listener_scores("b"))
    found = read(path)
    assert [one.image_id for one in found] == ["a", "b"]
    one, other = found[0], listener_scores("a")
    assert np.array_equal(one.scores, other.scores)
    assert replace(one, scores=other.scores).__dict__ | {"scores": 0} == other.__dict__ | {
        "scores": 0
    }
    assert one.said == {"x": 0, 1: 0, 3: 1}


def test_scores_are_kept_to_four_decimals(tmp_path):
    scores = np.random.default_rng(0).normal(-20, 9, (3, 2))
    (found,) = read(written(tmp_path / "heard.jsonl", listener_scores(scores=scores)))
    assert found.scores == pytest.approx(scores, abs=0.5e-4)


def broken(change):
    row = json.loads(json.dumps(listener_scores("b").row()))
    change(row)
    return row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("said"), "said: Field required"),
        (lambda row: row["scores"].pop(), "another shape"),
        (lambda row: row.update(said=[[9, 0]]), "a region or caption is not there"),
        (lambda row: row.update(said=[[1, 5]]), "a region or caption is not there"),
        (lambda row: row.update(image_id="a"), "image_id a is there twice"),
        (lambda row: row["regions"][0].update(look_alikes=[77]), "a region or caption"),
        (lambda row: row["regions"][0].update(id=3), "a region is there twice"),
        (lambda row: row.update(regions=4), "not scores of a listener"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, change, message):
    path = written(tmp_path / "heard.jsonl", listener_scores("a"))
    with path.open("a") as file:
        file.write(json.dumps(broken(change)) + "\n")
    with pytest.raises(JournalError, match=message) as caught:
        read(path)
    assert f"{path}: line 2" in str(caught.value)
