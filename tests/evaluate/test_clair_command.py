"""`ureca clair`, from predictions to the CLAIR column of a table."""

from __future__ import annotations

import json

import pytest
from faults.server import FaultyServer, error, say
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.evaluate.tables import read_tables

GOOD = '{"score": 80, "reason": "alike"}'


def run(*arguments):
    return CliRunner().invoke(app, ["clair", *map(str, arguments), "--no-progress"])


@pytest.fixture
def predictions(tmp_path):
    path = tmp_path / "p.jsonl"
    captions = {"a/1": "a red mug", "a/2": "", "b/1": "a dog"}
    rows = [{"id": i, "caption": c, "references": ["a red cup"]} for i, c in captions.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.with_suffix(".meta.json").write_text(json.dumps({"system": "mine", "data": "photos"}))
    return path


def table_cell(predictions):
    """CLAIR in our row of Table 2."""
    return read_tables(2, [str(predictions.with_suffix(".clair.json"))]).rows[-1].cells["clair"]


def test_without_a_judge_the_table_has_a_dash_and_says_why(predictions):
    result = run(predictions)
    assert result.exit_code == 1 and "CLAIR: - (CLAIR needs a judge" in result.output
    cell = table_cell(predictions)
    assert cell["value"] is None and "needs a judge" in cell["reason"]


def test_a_judge_that_went_away_is_asked_the_rest_and_the_log_alone_gives_the_score(
    predictions, monkeypatch
):
    pytest.importorskip("openai", reason="the openai extra is not installed")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-marker-7f3a9c51d2e8")
    asks = (predictions, "--judge", "openai", "--model", "tiny")
    asks += ("--api-key-env", "OPENAI_API_KEY", "--base-url")
    with FaultyServer([say(GOOD), error(401)], say(GOOD)) as server:
        stopped = run(*asks, server.url)
        assert server.seen[0].headers["authorization"] == "Bearer sk-marker-7f3a9c51d2e8"
        assert stopped.exit_code == 1 and "run again to go on" in stopped.output
        first = len(server.seen)
        done = run(*asks, server.url)
        assert done.exit_code == 0 and len(server.seen) == first + 1
    assert "mine: 3 captions" in done.output and "CLAIR (openai:tiny): 53.33 [" in done.output
    cell = table_cell(predictions)
    assert cell["value"] == pytest.approx(100 * 1.6 / 3)
    predictions.with_suffix(".clair.json").unlink()
    assert run(predictions).exit_code == 0
    assert table_cell(predictions)["value"] == cell["value"]


def test_bad_input_is_told(predictions, tmp_path):
    assert "needs a --model" in run(predictions, "--judge", "openai").output
    assert run(tmp_path / "none.jsonl").exit_code == 2
    predictions.write_text('{"id": "a/1", "caption": "x"}\n')
    result = run(predictions)
    assert result.exit_code == 2 and "give --refs" in result.output
