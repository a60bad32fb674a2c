"""`ureca table 2 --models`: tiny checkpoints of each architecture, to the table."""

from __future__ import annotations

import json

import pytest
from evaluate.small_mllms import save_internvl, save_kosmos, save_llava
from tiny_models import tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from ureca_lib.annotate.export import write_jsonl
from ureca_lib.cli import app
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.predictions import read_predictions
from ureca_lib.evaluate.reproduction import find_systems
from ureca_lib.processor import UrecaProcessor

DATA = "scenes:test:1"
PROMPTED = ("none", "contour", "crop")


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = tiny_model()
    model.save_pretrained(folder / "our-ureca")
    UrecaProcessor.from_config(model.config, tiny_tokenizer()).save_pretrained(folder / "our-ureca")
    for name in ("internvl", "llava", "vip", "kosmos"):
        (folder / name).mkdir()
    save_internvl(folder / "internvl")
    save_llava(folder / "llava")
    save_llava(folder / "vip", vip=True)
    save_kosmos(folder / "kosmos")
    rows = [
        {"id": f"{image.image_id}/{key}", "caption": texts[0], "system": "Osprey"}
        for image in open_captioned(DATA)
        for key, texts in image.captions.items()
    ]
    write_jsonl(folder / "osprey.jsonl", rows)
    (folder / "osprey.meta.json").write_text(json.dumps({"trained_on": "URECA"}))
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text('{"model_type": "kosmos-2"}')
    return folder


def test_systems_are_found_by_their_architecture(models):
    systems = {name: system for name, (system, _) in find_systems(models).items()}
    expected = {f"{name} {way}": way for name in ("internvl", "llava") for way in PROMPTED}
    expected |= {"our-ureca": "ureca", "vip": "vip-llava", "kosmos": "kosmos-2"}
    assert systems == expected | {"broken": "kosmos-2"}


def test_table_2_is_reproduced_from_a_folder_of_models_and_resumed(models, tmp_path):
    words = ("table", 2, "--models", models, "--data", DATA, "--work", tmp_path / "work")
    words += ("--bertscore-model", tmp_path, "--max-new-tokens", 2, "--device", "cpu")
    done = run(*words)
    assert done.exit_code == 1 and "broken has no row" in done.output, done.output
    names = [*find_systems(models)]
    names.remove("broken")
    printed, measured = done.stdout.split("Measured here:")
    assert "| URECA \\(Ours\\)" in printed or "URECA (Ours)" in printed
    for name in (*names, "Osprey"):
        assert f"| {name} |" in measured, name
    regions = len(open_captioned(DATA)[0].regions)
    files = {name: tmp_path / "work" / f"{name}.jsonl" for name in names}
    assert {len(read_predictions(file)) for file in files.values()} == {regions}
    osprey = json.loads((tmp_path / "work" / "osprey.scores.json").read_text())
    assert osprey["metrics"]["bleu_4"]["value"] > 0.99
    assert json.loads((tmp_path / "work" / "osprey.uniqueness.json").read_text())["system"]
    before = {name: file.read_bytes() for name, file in files.items()}
    lost = files["vip"]
    lost.write_bytes(b"".join(lost.read_bytes().splitlines(True)[:3]))
    again = run(*words)
    assert {name: file.read_bytes() for name, file in files.items()} == before
    assert again.stdout == done.stdout


def test_what_a_reproduction_needs_is_told(tmp_path):
    (tmp_path / "models").mkdir()
    done = run("table", 2, "--models", tmp_path / "models", "--data", DATA)
    assert done.exit_code == 2 and "neither checkpoints nor predictions" in done.output
    done = run("table", 2, "--models", tmp_path / "models")
    assert done.exit_code == 2 and "needs --data" in done.output
    assert run("table", 3, "--models", tmp_path, "--data", DATA).exit_code == 2
    assert run("table", 2, "--models", tmp_path / "gone", "--data", DATA).exit_code == 2
