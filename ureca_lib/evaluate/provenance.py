"""What records say of where a figure comes from: the command, the files, the training data.

Tables are published, so folders of the machine that made them have no place there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NOTEBOOK = "a notebook"
NO_MODEL = "nothing"  # what a system without weights was trained on
_PROJECT = (".git", "pyproject.toml")  # one of these lies in a project's folder
# an absolute path within an argument, such as refcocog:umd:val:/data/refcocog; never an address
_ABSOLUTE = re.compile(r"(?<![^:=@,])/(?!/)[^:=@,]+")


def command_line(argv: Sequence[str]) -> list[str] | str:
    """A process's arguments for a record: the program by its name, paths as `shown_path` has them.

    Args:
        argv: as `sys.argv`.

    Returns:
        The arguments, or "a notebook" for the process behind one, whose arguments say nothing.
    """
    if not argv:
        return []
    program = Path(argv[0])
    if "kernel_launcher" in program.name or program.parts[-2:] == ("ipykernel", "__main__.py"):
        return NOTEBOOK
    shown = [_ABSOLUTE.sub(lambda found: shown_path(found[0]), each) for each in argv[1:]]
    return [program.name, *shown]


def command_text(command: Any) -> str | None:
    """A recorded command in one line, `command_line` of it where it is a list; None where none."""
    if isinstance(command, Sequence) and not isinstance(command, str):
        command = command_line([str(each) for each in command])
    return shlex.join(command) if isinstance(command, list) else command


def shown_path(path: str | Path) -> str:
    """A path as others may read it: from the project's folder on, or the file's name alone.

    The project is the nearest folder above the working one that has a `.git` or `pyproject.toml`.
    A path that climbs out of a folder, as `../data` from a notebook, is shown without the climb.
    """
    given = Path(path)
    if not given.is_absolute():
        return Path(*(part for part in given.parts if part != "..")).as_posix()
    root = _project()
    if root is not None and given.is_relative_to(root):
        return given.relative_to(root).as_posix()
    return given.name


def trained_on(model: Mapping[str, Any] | None) -> str | None:
    """What a system's weights were trained on, as the files beside them say.

    Args:
        model: of a system: None where there are no weights, else its folder as `path`.

    Returns:
        Of a checkpoint of `ureca train-recipe` its steps and data and those of its base, of one of
        `ureca train-base` its scenes; None where the folder does not say.

    Raises:
        CheckpointError: a file there that is no JSON.
    """
    from ureca_lib.checkpoints.tensors import read_json

    if model is None:
        return NO_MODEL
    folder = Path(str(model.get("path") or "nowhere")).expanduser()
    if (folder / "results.json").is_file():
        return _of_recipe(folder, read_json(folder / "results.json"))
    if (folder / "training_settings.json").is_file():
        told = read_json(folder / "training_settings.json")
        if {"steps", "scenes"} <= told.keys():
            return f"{told['steps']:,} steps on scenes:train:{told['scenes']}"
    return None


def _of_recipe(folder: Path, results: Mapping[str, Any]) -> str | None:
    from ureca_lib.train.settings import load_settings

    recipe = results.get("recipe")
    if not isinstance(recipe, Mapping):
        return None
    steps = " + ".join(f"{stage['steps']:,}" for stage in results.get("stages", ()))
    data = recipe.get("data") or load_settings(recipe["preset"], 2, {"model": "any"}).data
    base = Path(recipe["base"])
    # the base lies where it was then, or beside the model
    places = ({"path": str(place)} for place in (base, folder.parent / base.name))
    told = next(filter(None, map(trained_on, places)), "not recorded")
    return f"{steps or 'no'} steps on {data}, its base {told}"


def _project() -> Path | None:
    here = Path.cwd()
    return next((f for f in (here, *here.parents) if any((f / n).exists() for n in _PROJECT)), None)
