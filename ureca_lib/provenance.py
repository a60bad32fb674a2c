"""Provenance of results: versions, machine, commit, digests, commands and paths for records.

Records are published, so folders of the machine that made them do not appear in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

PACKAGES = (
    "ureca-lib", "torch", "transformers", "accelerate", "peft", "numpy", "pycocotools", "papermill",
)  # fmt: skip
NOTEBOOK = "a notebook"
NO_MODEL = "nothing"  # training data of a system without weights
_PROJECT = (".git", "pyproject.toml")  # the top folder of a project has one of these
# an absolute path within an argument, such as refcocog:umd:val:/data/refcocog; never an address
_ABSOLUTE = re.compile(r"(?<![^:=@,])/(?!/)[^:=@,]+")
_SAMPLED = 4096  # bytes at both ends of every tensor
_LONGEST_HEADER = 100_000_000  # bytes, the limit of safetensors itself
_CONFIGURATIONS = ("config.json", "processor_config.json", "adapter_config.json")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def show_versions() -> None:
    """Print the versions that a notebook runs with: its first code cell."""
    print(", ".join(f"{name} {number}" for name, number in package_versions().items()))
    print(f"executable {sys.executable}")


def machine() -> dict[str, Any]:
    """Platform, number of cores and accelerator of this machine."""
    import torch  # takes seconds, and most of this module does not need it

    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"platform": platform.platform(), "cores": os.cpu_count(), "device": card or "cpu"}


def git_commit(folder: str | Path) -> str | None:
    """The commit of a folder, with `+` if tracked files are changed; None outside git."""
    try:
        git = ["git", "-C", str(folder)]
        options = {"capture_output": True, "text": True, "check": True, "timeout": 10}
        commit = subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def environment_record(folder: str | Path | None = None) -> dict[str, Any]:
    """`versions`, `machine` and `commit` for the record of a run.

    Args:
        folder: of the code that runs, for its commit; None is this library.
    """
    commit = git_commit(Path(__file__).parent if folder is None else folder)
    return {"versions": package_versions(), "machine": machine(), "commit": commit}


@cache
def library_hash() -> str:
    """16 hexadecimal digits of this library's source: results of changed code are not reused."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        FileNotFoundError: no such file.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(folder: str | Path) -> str:
    """16 hexadecimal digits that identify a checkpoint without reading gigabytes.

    They depend on the configuration and on a sample of every tensor: two models trained from the
    same base differ in some tensors only, which may stand anywhere in the file.

    Args:
        folder: of the checkpoint, with safetensors files.

    Raises:
        ValueError: a file that is not a safetensors file or is cut off, naming it.
    """
    digest = hashlib.sha256()
    for name in _CONFIGURATIONS:
        path = Path(folder) / name
        if path.is_file():
            digest.update(name.encode() + path.read_bytes())
    for path in sorted(Path(folder).glob("*.safetensors")):
        digest.update(path.name.encode())
        try:
            _digest_samples(digest, path)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
    return digest.hexdigest()[:16]


def _digest_samples(digest: Any, path: Path) -> None:
    """Add the header of a safetensors file, then both ends of its tensors in the header's order."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        # a damaged length must not make us read gigabytes
        begin = 8 + min(int.from_bytes(data[:8], "little"), _LONGEST_HEADER)
        header = data[8:begin]
        entries = json.loads(header)
        entries.pop("__metadata__", None)  # the only entry that is not a tensor
        digest.update(header)
        for start, end in (entry["data_offsets"] for entry in entries.values()):
            if begin + end > len(data):
                raise ValueError("it was cut off before its last tensor")
            for place in (start, max(start, end - _SAMPLED)):
                digest.update(data[begin + place : begin + min(place + _SAMPLED, end)])


def model_record(model: str | Path) -> dict[str, Any]:
    """A model's folder or hub id as `path`, and for a folder the digest of its `weights`.

    Raises:
        ValueError: a file of weights that is damaged, naming it.
    """
    record: dict[str, Any] = {"path": str(model)}
    folder = Path(model).expanduser()
    return record | {"weights": weights_digest(folder)} if folder.is_dir() else record


def training_data_of(
    model: Mapping[str, Any] | None, preset_data: Callable[[str], str | None]
) -> str | None:
    """The data that a system's weights were trained on, from the files beside them.

    Args:
        model: of a system, with its folder as `path`; None if there are no weights.
        preset_data: the data that a preset of `ureca train-recipe` trains on, by its name.

    Returns:
        Steps and data: of `ureca train-recipe` with those of its base, of `ureca train-base` its
        scenes. None if the folder does not say.

    Raises:
        ValueError: a file there that is not a JSON object, naming it.
    """
    if model is None:
        return NO_MODEL
    folder, records = Path(str(model.get("path") or "nowhere")).expanduser(), {}
    for name in ("results", "training_settings"):
        path = folder / f"{name}.json"
        try:
            records[name] = {**json.loads(path.read_bytes())} if path.is_file() else {}
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: not a JSON object ({error})") from None
    results, settings = records.values()
    if recipe := results.get("recipe"):
        steps = " + ".join(f"{stage['steps']:,}" for stage in results.get("stages", ()))
        data = recipe.get("data") or preset_data(recipe["preset"])
        base = Path(recipe["base"])
        # the base is where it was during training, or beside the model
        places = ({"path": str(place)} for place in (base, folder.parent / base.name))
        found = (training_data_of(place, preset_data) for place in places)
        of_base = next(filter(None, found), "not recorded")
        return f"{steps or 'no'} steps on {data}, its base {of_base}"
    if {"steps", "scenes"} <= settings.keys() and not results:
        return f"{settings['steps']:,} steps on scenes:train:{settings['scenes']}"
    return None


def command_line(argv: Sequence[str]) -> list[str] | str:
    """A process's arguments for a record: the program's name, and paths as `display_path` has them.

    Args:
        argv: as `sys.argv`.

    Returns:
        The arguments; for the kernel of a notebook "a notebook", as its arguments mean nothing.
    """
    if not argv:
        return []
    program = Path(argv[0])
    if "kernel_launcher" in program.name or program.parts[-2:] == ("ipykernel", "__main__.py"):
        return NOTEBOOK
    arguments = (_ABSOLUTE.sub(lambda match: display_path(match[0]), text) for text in argv[1:])
    return [program.name, *arguments]


def command_text(command: Any) -> str | None:
    """A recorded command in one line; None if there is none.

    Records of earlier versions hold whole paths: a list goes through `command_line`.
    """
    if isinstance(command, Sequence) and not isinstance(command, str):
        command = command_line([str(argument) for argument in command])
    return shlex.join(command) if isinstance(command, list) else command


def project_root(path: str | Path) -> Path | None:
    """The nearest folder at or above a path that has `.git` or `pyproject.toml`."""
    here = Path(path).resolve()
    folders = (here, *here.parents)
    return next((f for f in folders if any((f / name).exists() for name in _PROJECT)), None)


def display_path(path: str | Path) -> str:
    """A path for other readers: relative to the project we are in, or the file's name alone.

    A path that climbs, such as `../data` from a notebook, is shown without the climb.
    """
    given = Path(path)
    if not given.is_absolute():
        return Path(*(part for part in given.parts if part != "..")).as_posix()
    root = project_root(Path.cwd())
    if root is not None and given.is_relative_to(root):
        return given.relative_to(root).as_posix()
    return given.name
