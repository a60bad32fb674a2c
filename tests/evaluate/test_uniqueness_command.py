"""`ureca uniqueness` and `ureca table`, from predictions to a table."""

from __future__ import annotations

import json

import pytest
from faults.server import FaultyServer, say
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.evaluation import evaluate, write_scores
from ureca_lib.evaluate.tables import read_record, read_tables
from ureca_lib.evaluate.uniqueness import score_uniqueness
from ureca_lib.listeners import ExactListener

DATA = "scenes:test:3"


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """A predictions file of oracle captions, with its record."""
    path = tmp_path_factory.mktemp("predictions") / "oracle.jsonl"
    rows = [
        {"id": f"{image.image_id}/{key}", "caption": texts[0], "references": texts}
        for image in open_captioned(DATA)
        for key, texts in image.captions.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    meta = {"system": "oracle", "data": DATA, "trained_on": "nothing", "command": ["ureca", "x"]}
    path.with_suffix(".meta.json").write_text(json.dumps(meta))
    return path


def test_predictions_become_a_table_with_both_kinds_of_scores(oracle, tmp_path):
    result = run("uniqueness", oracle, "--no-progress")
    assert result.exit_code == 0, result.output
    assert "oracle, heard by exact" in result.output and "| level 1 |" in result.output
    record = json.loads(oracle.with_suffix(".uniqueness.json").read_text())
    assert record["overall"]["recall_at_1"]["value"] == 1
    assert record["meta"]["trained_on"] == "nothing"
    write_scores(oracle.with_suffix(".scores.json"), evaluate(oracle, metrics=("bleu", "rouge_l")))
    files = [oracle.with_suffix(f".{kind}.json") for kind in ("scores", "uniqueness")]
    table = read_tables(2, list(map(str, files)))
    ours = table.rows[-1]
    assert (ours.system, ours.trained_on, ours.data) == ("oracle", "nothing", DATA)
    assert ours.cells["recall_at_1"]["value"] == ours.cells["unique"]["value"] == 100
    assert ours.cells["bleu_4"]["value"] > 99 and ours.cells["collision_equal"]["value"] == 0
    assert ours.cells["clair"]["value"] is None
    for form in ("markdown", "latex", "html", "csv"):
        out = tmp_path / f"table.{form}"
        assert run("table", 2, *files, "--format", form, "-o", out).exit_code == 0
        assert "oracle" in out.read_text() and "17.06" in out.read_text()


def test_a_chat_model_listens_and_its_figures_stand_beside_a_guess(oracle, tmp_path):
    out, part = tmp_path / "u.json", tmp_path / "oracle.jsonl"
    lines = oracle.read_text().splitlines(keepends=True)
    part.write_text("".join(line for line in lines if "scene_2000000" in line))
    part.with_suffix(".meta.json").write_text(oracle.with_suffix(".meta.json").read_text())
    with FaultyServer(then=say("0")) as server:
        options = ("--listener", "openai:some/model", "--base-url", server.url, "-o", out)
        result = run("uniqueness", part, *options, "--no-progress", "--extra", '{"top_p": 0.5}')
    assert result.exit_code == 0, result.output
    assert "heard by openai:some/model" in result.output and "; guess" in result.output
    assert server.seen[0].body["top_p"] == 0.5
    record = json.loads(out.read_text())
    assert record["listener"] == "openai:some/model"
    assert record["candidates"]["recall_at_1"] > 30 and 0 < record["chance"]["recall_at_1"] < 0.04
    assert record["overall"]["recall_at_1"]["value"] < 0.1
    assert record["heard"].endswith("oracle.heard.openai-some-model.jsonl")
    # all was heard, so the server is not needed
    assert run("uniqueness", part, *options, "--no-progress").exit_code == 0
    result = run("uniqueness", part, "--base-url", "http://localhost/v1")
    assert result.exit_code == 2 and "goes with a listener openai:NAME" in result.output


def test_scores_are_made_again_from_what_was_heard(oracle, tmp_path, monkeypatch):
    heard = tmp_path / "heard.jsonl"
    first, _ = score_uniqueness(oracle, heard=heard, progress=False)

    def gone(*arguments, **options):
        raise AssertionError("nothing is left to hear")

    monkeypatch.setattr(ExactListener, "score", gone)
    monkeypatch.setattr("ureca_lib.evaluate.uniqueness.open_captioned", gone)
    again, _ = score_uniqueness(oracle, heard=heard, progress=False)
    assert again.as_record() == first.as_record()


def test_faults_are_named_and_nothing_is_written(oracle, tmp_path):
    alone = tmp_path / "alone.jsonl"
    alone.write_text(oracle.read_text())
    result = run("uniqueness", alone)
    assert result.exit_code == 2 and "give --data" in result.output
    assert not alone.with_suffix(".uniqueness.json").exists()
    assert run("uniqueness", alone, "--data", "scenes:test:1").exit_code == 2
    assert run("uniqueness", oracle, "--listener", tmp_path / "none").exit_code == 2
    assert run("uniqueness", oracle, "--calibrate", "both").exit_code == 2
    two = tmp_path / "two.jsonl"
    rows = [{"id": f"a/{n}", "caption": "a car", "system": f"s{n}"} for n in (1, 2)]
    two.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("uniqueness", two, "--data", DATA)
    assert result.exit_code == 2 and "several systems: s1, s2" in result.output


def test_tables_without_records_are_the_papers_and_bad_records_are_named(tmp_path):
    result = run("table", 6)
    assert result.exit_code == 0 and "Draw-and-Understand" in result.output
    assert run("table", 1).exit_code == 2
    assert run("table", 2, "--format", "pdf").exit_code == 2
    for text, message in (
        ("{]", "not JSON"),
        ("[]", "names no system"),
        ('{"system": "s"}', "none"),
    ):
        path = tmp_path / "record.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            read_record(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="for Table 6 say refcocog or visual_genome=FILE"):
        read_tables(6, ["record.json"])


def test_table_6_is_read_from_a_record_of_each_benchmark(tmp_path):
    def record(name, system, value):
        path = tmp_path / name
        score = {"value": value, "label": "METEOR", "backend": "nltk", "version": "3"}
        path.write_text(json.dumps({"system": system, "metrics": {"meteor": score}}))
        return path

    refer, genome = record("r.json", "ours", 0.16), record("v.json", "ours", 0.18)
    other = record("o.json", "theirs", 0.1)
    files = [f"refcocog={refer}", f"visual_genome={genome}", f"visual_genome={other}"]
    ours, theirs = read_tables(6, files).rows[-2:]
    assert [ours.cells[key]["value"] for key in ("refcocog", "visual_genome")] == [16, 18]
    assert (theirs.cells["refcocog"]["reason"], theirs.cells["visual_genome"]["value"]) == (
        "not measured",
        10,
    )
    with pytest.raises(ValueError, match="a second record of ours on refcocog"):
        read_tables(6, [files[0], f"refcocog={genome}"])


def test_images_without_captions_are_counted_and_said(oracle, tmp_path):
    part = tmp_path / "part.jsonl"
    lines = oracle.read_text().splitlines(keepends=True)
    part.write_text("".join(line for line in lines if "scene_2000002" not in line))
    meta = json.loads(oracle.with_suffix(".meta.json").read_text()) | {"images": 3}
    part.with_suffix(".meta.json").write_text(json.dumps(meta))
    with pytest.warns(UserWarning, match="1 of 3 images have no captions and do not count"):
        score_uniqueness(part, progress=False)
