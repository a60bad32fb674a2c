"""Agreement of reviewers: against scikit-learn's kappa, from files, and from a store."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ureca_lib.annotate.export import write_jsonl
from ureca_lib.annotate.records import Answer, FinalCaption, ImageRow, Step
from ureca_lib.annotate.reviews import Review
from ureca_lib.annotate.store import Store
from ureca_lib.cli import app
from ureca_lib.evaluate.agreement import kappa, measure_agreement, read_judgments
from ureca_lib.journal import JournalError

cohen_kappa_score = pytest.importorskip("sklearn.metrics").cohen_kappa_score


def run(*words):
    return CliRunner().invoke(app, ["agreement", *map(str, words)])


def judgments(path, decisions, **more):
    rows = [{"id": key, "decision": each} | more for key, each in decisions.items()]
    write_jsonl(path, rows)
    return path


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(0, 2, (2, 30))
        cells = np.bincount(2 * first + second, minlength=4).astype(float)
        assert kappa(cells) == pytest.approx(cohen_kappa_score(first, second))
    assert np.isnan(kappa(np.array([0.0, 0, 0, 9])))
    assert kappa(np.array([[5.0, 0, 0, 5], [0, 5, 5, 0]])).tolist() == [1, -1]


def test_two_files_are_compared_with_intervals_over_images(tmp_path):
    rng = np.random.default_rng(1)
    keys = [f"image_{n // 4}/{n % 4}" for n in range(80)]
    first = {key: "accept" if rng.random() < 0.6 else "reject" for key in keys}
    second = {key: each if rng.random() < 0.8 else "edit" for key, each in first.items()}
    one, two = (judgments(tmp_path / f"{n}.jsonl", d) for n, d in (("ann", first), ("ben", second)))
    (found,) = measure_agreement(read_judgments([one, two]))
    votes = [[each[key] == "accept" for key in keys] for each in (first, second)]
    assert found.scores["share"].value == pytest.approx(np.mean(np.equal(*votes)))
    score = found.scores["kappa"]
    assert score.value == pytest.approx(cohen_kappa_score(*votes))
    assert score.low < score.value < score.high and score.units == 20
    apart = [key for key, a, b in zip(keys, *votes, strict=True) if a != b]
    assert sorted(row["id"] for row in found.disagreements) == sorted(apart)
    done = run(one, two, "-o", tmp_path / "out.json")
    assert done.exit_code == 0 and "ann and ben: 80 captions of 20 images" in done.output
    (record,) = json.loads((tmp_path / "out.json").read_text())
    assert len(record["disagreements"]) == len(apart)
    assert record["kappa"]["value"] == pytest.approx(score.value)


def test_reviewers_of_a_store_are_compared_with_each_other_and_the_verifier(tmp_path):
    with Store(tmp_path / "s.db") as store:
        store.register([("a", "train")])
        captions = [FinalCaption(n, f"caption {n}", "unique") for n in (1, 2, 3)]
        captions.append(FinalCaption(4, "caption 4", "dropped"))
        answers = [Answer(Step("verify", 0, each.region_id), "KEEP") for each in captions]
        row = ImageRow("a", "train", "done", None, None, None, 4, 3, (), None)
        for answer in answers:
            store.save("a", answer)
        store.finish(row, answers, captions)
        for person, region, decision in (
            ("Ann", 1, "reject"),  # taken back below
            ("Ann", 1, "accept"),
            ("Ann", 2, "reject"),
            ("Ann", 4, "reject"),
            ("Ben", 1, "accept"),
            ("Ben", 2, "accept"),
        ):
            text = f"caption {region}"
            store.add_review("a", Review(region, decision, text, text, person))
        store.add_review("a", Review(3, "edit", "a better caption", "caption 3", "Ann"))
        store.add_review("a", Review(3, "accept", "a better caption", "a better caption", "Ben"))
    found = {each.raters: each for each in measure_agreement(read_judgments([tmp_path / "s.db"]))}
    ann, ben = found["Ann", "verifier"], found["Ben", "verifier"]
    assert ann.scores["share"].value == 0.5 and ann.scores["share"].count == 4
    assert {row["id"] for row in ann.disagreements} == {"a/2", "a/3"}
    # Ben judged another caption of region 3 than the verifier
    assert ben.scores["share"].value == 1 and ben.scores["share"].count == 2 and ben.left_out == 1
    assert ben.scores["kappa"].value is None and "chance" in ben.scores["kappa"].reason
    assert found["Ann", "Ben"].scores["share"].value == 0.5
    done = run(tmp_path / "s.db")
    assert "Ann accept" not in done.output and "'caption 2': Ann reject, Ben accept" in done.output


def test_what_cannot_be_compared_is_told(tmp_path):
    one = judgments(tmp_path / "a.jsonl", {"x/1": "accept"}, caption="a cup")
    two = judgments(tmp_path / "b.jsonl", {"x/2": "accept"}, caption="a cup")
    other = judgments(tmp_path / "c.jsonl", {"x/1": "accept"}, caption="a dog")
    for files in ((one,), (one, two), (one, other)):
        done = run(*files)
        assert done.exit_code == 1 and "no caption was judged by two" in done.output
    same = judgments(tmp_path / "d.jsonl", {"x/1": "accept"}, reviewer="a")
    done = run(one, same)
    assert done.exit_code == 2 and "a has judgments in another file too" in done.output
    bad = judgments(tmp_path / "e.jsonl", {"x/1": "like"})
    with pytest.raises(JournalError, match=r"e.jsonl: line 1: 'decision' is accept"):
        read_judgments([bad])
    assert run(tmp_path / "gone.db").exit_code == 2
