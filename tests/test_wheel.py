"""The package as people install it: what is in its wheel, and what works without a clone."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ureca_lib
from ureca_lib.runs.parameters import notebook_parameters

pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def course(installed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    assert ureca(installed, folder, "notebooks", "course").returncode == 0
    return folder / "course"


def ureca(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ureca_lib.cli", *words]
    settings = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)


def test_the_wheel_has_every_committed_file_of_the_package(root, wheel):
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "ureca_lib"], capture_output=True, text=True
    )
    committed = {path for path in listed.stdout.splitlines() if (root / path).exists()}
    assert len(committed) > 100 and committed <= set(wheel.namelist())


def test_the_wheel_is_small_and_has_no_results(wheel):
    assert sum(info.compress_size for info in wheel.infolist()) < 20e6
    assert not [name for name in wheel.namelist() if re.search("/(reference|latest)/", name)]


def test_metadata_has_the_version_and_the_dependencies(root, wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    metadata = wheel.read(name).decode()
    assert f"Version: {ureca_lib.__version__}\n" in metadata
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert f"Requires-Dist: {requirement}\n" in metadata
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert str(citation["version"]) == ureca_lib.__version__


def test_everything_that_is_imported_is_declared(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    texts = [*project["dependencies"], *chain.from_iterable(extras)]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    homes = packages_distributions()
    for path in (root / "ureca_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                if name in sys.stdlib_module_names or name == "ureca_lib":
                    continue
                owners = {canonicalize_name(owner) for owner in homes.get(name, [name])}
                assert owners & declared, f"{path}: {name}"


def test_the_course_has_all_that_its_notebooks_read(root, course):
    notebooks = sorted((course / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == len(list((root / "notebooks").glob("*.ipynb")))
    read = set()
    for notebook in notebooks:
        for parameter in notebook_parameters(notebook).values():
            if str(parameter.default).startswith("../"):
                read.add(parameter.default)
    kept = {path for path in read if "/latest/" not in path}
    assert len(kept) > 8
    assert all((course / "notebooks" / path).exists() for path in kept)


def test_a_copy_is_never_overwritten(installed, course):
    first = course / "notebooks" / "00_quickstart.ipynb"
    before = first.read_bytes()
    first.write_bytes(before + b"\n")
    again = ureca(installed, course.parent, "notebooks", "course")
    assert again.returncode == 2 and "exists" in again.stderr
    assert first.read_bytes() == before + b"\n"


def test_the_tiny_model_captions_without_a_clone(installed, course, tmp_path):
    photo = course / "data_samples" / "scenes" / "scene_1000003.png"
    (tmp_path / "photo.png").write_bytes(photo.read_bytes())
    done = ureca(installed, tmp_path, "caption", "photo.png", "--model", "tiny", "-o", "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) > 5
