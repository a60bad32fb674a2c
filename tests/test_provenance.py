"""Records of commands, code, paths and training data, without folders of this machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.evaluation import evaluate
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import read_meta
from ureca_lib.evaluate.systems import build_system
from ureca_lib.evaluate.tables import markdown, table_with
from ureca_lib.provenance import (
    command_line,
    command_text,
    display_path,
    environment_record,
    file_sha256,
    git_commit,
    package_versions,
    show_versions,
    training_data_of,
)
from ureca_lib.train.settings import load_settings

KERNEL = "/home/ana/.venv/lib/python3.11/site-packages/ipykernel_launcher.py"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder, worked in from its notebooks."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_a_command_names_the_program_and_paths_within_the_project(project):
    argv = ["/home/ana/.venv/bin/ureca", "predict", f"--out={project}/runs/a b/p.jsonl"]
    argv += ["--data", f"refcocog:umd:val:{project}/data@/mnt/photos", "--model", "org/name"]
    argv += ["--base-url", "http://localhost:8000/v1", "--question", "left or right?"]
    assert command_line(argv) == [
        "ureca", "predict", "--out=runs/a b/p.jsonl", "--data", "refcocog:umd:val:data@photos",
        "--model", "org/name", "--base-url", "http://localhost:8000/v1", "--question",
        "left or right?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "argv",
    [
        [KERNEL, "-f", "/tmp/kernel-1.json"],
        ["/usr/lib/colab_kernel_launcher.py", "-f", "/tmp/k.json"],
        ["/usr/lib/python3/ipykernel/__main__.py"],
    ],
)
def test_the_process_behind_a_notebook_is_a_notebook(argv):
    assert command_line(argv) == command_text(argv) == "a notebook"


def test_a_command_as_text():
    assert command_text(["/bin/ureca", "predict", "/mnt/x/a b.json"]) == "ureca predict 'a b.json'"
    assert command_text("a notebook") == "a notebook" and command_text(None) is None
    assert command_text([]) == ""


def test_paths_start_at_the_project_or_are_a_name(project):
    assert display_path(project / "runs" / "p.jsonl") == "runs/p.jsonl"
    assert display_path("/somewhere/else/p.jsonl") == "p.jsonl"
    assert display_path("../runs/p.jsonl") == display_path("runs/p.jsonl") == "runs/p.jsonl"


def test_nothing_of_the_machine_is_in_a_table_made_in_a_notebook(project, monkeypatch):
    monkeypatch.setattr(sys, "argv", [KERNEL, "-f", "/tmp/kernel-1.json"])
    path = project / "runs" / "oracle.jsonl"
    predict(build_system("oracle"), open_captioned("scenes:test:1"), path, progress=False)
    meta = read_meta(path)
    assert (meta["command"], meta["trained_on"]) == ("a notebook", "nothing")
    text = markdown(table_with(2, [evaluate(path, None, ("bleu", "cider")).to_dict()]))
    assert "predictions runs/oracle.jsonl (sha256" in text.replace("\\", "")
    assert "made by a notebook" in text and "CIDEr" in text
    assert str(project) not in text and "kernel" not in text


def test_old_records_are_cleaned_where_they_are_shown(project):
    old = {"system": "x", "predictions": "/tmp/r/p.jsonl", "meta": {"command": [KERNEL, "-f", "k"]}}
    score = {"value": 0.5, "label": "ROUGE-L"}
    cell = table_with(3, [old | {"metrics": {"rouge_l": score}}]).rows[-1].cells["rouge_l"]
    assert (cell["command"], cell["place"]) == ("a notebook", "p.jsonl")


def write(folder, **files):
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return {"path": str(folder)}


def trained_on(model):
    return training_data_of(model, lambda preset: load_settings(preset, 2, {"model": "any"}).data)


def test_checkpoints_say_what_they_were_trained_on(tmp_path):
    base = write(tmp_path / "base", training_settings={"steps": 3000, "scenes": 12000})
    assert trained_on(base) == "3,000 steps on scenes:train:12000"
    stages = [{"steps": 250}, {"steps": 1450}]
    recipe = {"base": "elsewhere/base", "preset": "tiny", "data": "scenes:train:9"}
    model = write(tmp_path / "model", results={"recipe": recipe, "stages": stages})
    told = "its base 3,000 steps on scenes:train:12000"  # which was found beside the model
    assert trained_on(model) == f"250 + 1,450 steps on scenes:train:9, {told}"
    results = {"recipe": recipe | {"data": None, "base": "gone"}, "stages": []}
    of_file = load_settings("tiny", 2, {"model": "x"}).data
    silent = write(tmp_path / "silent", results=results)
    assert trained_on(silent) == f"no steps on {of_file}, its base not recorded"


def test_what_no_file_says_is_not_made_up(tmp_path):
    assert trained_on(None) == "nothing"
    assert trained_on({"path": "gpt-4o", "server": "http://x"}) is None
    assert trained_on({}) is None
    assert trained_on(write(tmp_path / "a", training_settings={"steps": 3})) is None
    assert trained_on(write(tmp_path / "b", results={"other": 1})) is None
    (tmp_path / "b" / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json: not a JSON object"):
        trained_on({"path": str(tmp_path / "b")})


def git(folder, *arguments):
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(folder), *name, *arguments], check=True, capture_output=True)


def test_a_commit_has_a_plus_where_tracked_files_are_changed(tmp_path):
    assert git_commit(tmp_path) is None
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "new.py").write_text("2")
    assert git_commit(tmp_path) == commit
    (tmp_path / "a.py").write_text("2")
    assert environment_record(tmp_path)["commit"] == f"{commit}+"


def test_versions_are_of_installed_packages(capsys):
    versions = package_versions()
    assert {"python", "ureca-lib", "torch", "transformers", "accelerate"} <= versions.keys()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    show_versions()
    shown = capsys.readouterr().out
    assert f"torch {versions['torch']}" in shown and sys.executable in shown
    record = environment_record()
    assert record["versions"] == versions and record["machine"]["cores"] > 0


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_provenance_and_journal_import_nothing_heavy_and_nothing_of_ours():
    code = (
        "import sys, ureca_lib.journal, ureca_lib.provenance\n"
        "ours = [name for name in sys.modules if name.startswith('ureca_lib.')]\n"
        "print(ours, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['ureca_lib.journal', 'ureca_lib.provenance'] False\n"
