"""What the READMEs tell people to type: every command is run, or at least parsed."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ureca_lib.cli import app

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "notebooks/README.md")
RUNNABLE = ("caption photo.jpg --figure", "caption photo.jpg --point", "caption data_samples")
RUNNABLE += ("presets", "sweep papermill_runs/mask_tiles.yaml")

# a request by curl is sent in test_server, the wheel is tried in test_wheel
SHELL = ("make ", "echo ", "curl ", "pip ")


def blocks(readme: str, language: str) -> list[str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(readme: str) -> list[str]:
    """Command lines of the bash blocks, continued ones joined, without comments."""
    lines = "\n".join(blocks(readme, "bash")).replace("\\\n", " ").splitlines()
    stripped = (" ".join(shlex.split(line, comments=True)) for line in lines)
    return [line for line in stripped if line]


LINES = sorted({line for readme in READMES for line in commands(readme)})
URECA = [line for line in LINES if re.search(r"\bureca(_lib\.cli)? ", line)]


def words(line: str) -> list[str]:
    """A command's words after `ureca`, or after `-m ureca_lib.cli`."""
    return shlex.split(re.split(r"\bureca(?:_lib\.cli)? ", line, maxsplit=1)[1])


def is_run(line: str) -> bool:
    return " ".join(words(line)).startswith(RUNNABLE)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a clone with a photo in it."""
    for name in ("data_samples", "notebooks", "papermill_runs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "data_samples" / "photos" / "rocket.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", URECA)
def test_every_ureca_command_is_understood(line):
    name, *rest = words(line)
    command = typer.main.get_command(app).get_command(None, name)
    command.make_context(name, rest)  # raises where an option or an argument is unknown or missing


@pytest.mark.parametrize(
    "line", [line for line in URECA if " ".join(words(line)).startswith(RUNNABLE)]
)
def test_commands_that_need_no_download_run(line, workplace):
    result = CliRunner().invoke(app, words(line))
    assert result.exit_code == 0, result.output


def test_enough_commands_are_run():
    assert len(URECA) > 25
    assert sum(map(is_run, URECA)) == 5


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for line in LINES if line.startswith("make ")}
    assert {"install", "lab", "run", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    others = [line for line in LINES if line not in URECA and not line.startswith(SHELL)]
    assert others == []


def test_the_python_of_the_readme_runs(workplace, capsys):
    (script,) = blocks("README.md", "python")
    exec(compile(script, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "the coffee" in shown and len(shown.splitlines()) > 60
    for script in blocks("notebooks/README.md", "python"):  # needs weights that are not here
        for statement in re.findall(r"^from .*|^import .*", script, re.MULTILINE):
            exec(statement, {})


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / readme).parent / path if path else ROOT / readme
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads}
    for name in ("notebooks/" + path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))):
        assert readme != "README.md" or f"]({name})" in text


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 1400 and len(text.splitlines()) <= 180


def test_results_follow_the_records(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    import results

    assert results.readme_table() in (ROOT / "README.md").read_text(encoding="utf-8")
    written = (ROOT / "papermill_runs" / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    assert written.startswith(results.results_text() + "\n\n# Benchmarks\n")
    sys.modules.pop("results"), sys.modules.pop("record", None)
