"""The house is in order: one list of dependencies, pins for all of them, no stray folders."""

from __future__ import annotations

import re
import subprocess
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ureca_lib.runs import load_sweep

TOP_FOLDERS = {"notebooks", "ureca_lib", "data_samples", "tests", "papermill_runs"}


def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def makefile_extras(root):
    return re.search(r"^EXTRAS := (\S+)$", (root / "Makefile").read_text(), re.M).group(1)


def test_make_ablations_trains_the_bases_that_table_4_starts_from(root):
    makefile = (root / "Makefile").read_text()
    trained = set(re.search(r"^BASES := (.+)$", makefile, re.M).group(1).split())
    asked = re.search(r"grep -q '(.+)'; then \$\(MAKE\) \$\(BASES\)", makefile).group(1)
    sweep = load_sweep(root / "papermill_runs" / "table_4_model_size.yaml")
    needed = set()
    for run in sweep.runs:
        base = (sweep.notebook.parent / run.parameters["base"]).resolve().relative_to(root)
        line = f"{sweep.name}: to run: {run.label}, seed {run.seed}"
        assert bool(re.search(asked, line)) == (base.as_posix() in trained), line
        needed.add(base.as_posix())
    assert trained < needed


def test_environment_yml_is_python_and_the_package_at_the_locks_versions(root):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert pip == "pip"
    assert packages == {"pip": ["-c requirements.lock", f"-e .[{makefile_extras(root)}]"]}
    assert python.removeprefix("python=") in ("3.11", "3.12", "3.13")


def test_every_dependency_is_pinned_within_its_range(root):
    lines = (root / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pins = {canonicalize_name(name): number for name, number in pins.items()}
    listed = project(root)
    wanted = list(listed["dependencies"])
    for extra in makefile_extras(root).split(","):
        wanted += listed["optional-dependencies"][extra]
    for text in wanted:
        requirement = Requirement(text)
        number = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(number, prereleases=True), text
    assert not any("+" in number for number in pins.values())


def test_torchvision_is_never_installed_by_default(root):
    assert "torchvision" not in (root / "requirements.lock").read_text().lower()


def test_the_users_top_level_and_no_other_folder(root):
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {path.split("/")[0] for path in listed if "/" in path}
    assert folders - {".ci", ".github"} <= TOP_FOLDERS


def test_no_module_is_a_drawer_for_odds_and_ends(root):
    names = {path.stem for path in (root / "ureca_lib").rglob("*.py")}
    assert not names & {"utils", "helpers", "misc"}
