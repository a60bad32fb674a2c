"""Files of a checkpoint folder: JSON, and safetensors read one by one or strictly into a model.

Folders come from anywhere, and the libraries that read them raise whatever they like. So every read
goes through `reading`, which makes one `CheckpointError` of it, and no size that a configuration
states is allocated before the headers of the weights agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

_REASON = 500  # characters of a library's message
_SHOWN = 200  # enough for every key of a mistaken prefix in one layer, short of a flood


class CheckpointError(ValueError):
    """A checkpoint that cannot be read: the file and the reason."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)


class CheckpointKeysError(CheckpointError):
    """A checkpoint whose tensors are not those of its configuration.

    Attributes:
        missing: keys that the configuration asks for and the files lack.
        unexpected: keys that the files hold and the configuration has no place for.
        mismatched: lines "key: shape in the file, the shape needed".
    """

    def __init__(
        self, path: Path | str, missing: list[str], unexpected: list[str], mismatched: list[str]
    ):
        self.missing, self.unexpected, self.mismatched = missing, unexpected, mismatched
        named = {"missing": missing, "unexpected": unexpected, "of the wrong shape": mismatched}
        super().__init__(path, "; ".join(_listing(*each) for each in named.items() if each[1]))


@contextmanager
def reading(path: Path | str, fault: str = "cannot be read") -> Iterator[None]:
    """Turn any exception into a CheckpointError that names the file.

    Args:
        path: the file or folder that is read.
        fault: the consequence, which precedes the library's own reason.
    """
    try:
        yield
    except (CheckpointError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the Rust tokenizers is no Exception
        reason = " ".join(str(error).split())[:_REASON] or type(error).__name__
        raise CheckpointError(path, f"{fault}: {reason}") from error


def _listing(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} tensors {what}: {', '.join(keys[:_SHOWN])}{more}"


SINGLE, INDEX, SHARDS = "model.safetensors", "model.safetensors.index.json", "model-*.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class StoredTensor:
    """File, shape and type of a tensor, from the header of its file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        CheckpointError: no such file, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(path, f"not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(path, "not a JSON object")
    return content


def tensor_index(folder: Path) -> dict[str, StoredTensor]:
    """List every tensor of a checkpoint folder: one file, or shards with or without an index.

    Raises:
        CheckpointError: no safetensors (a pickle is refused by name), a shard of the index is
            missing, unreadable or outside the folder, or two files hold the same key.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in tensor_files(folder):
        for key, stored in _header(file):
            if key in tensors:
                raise CheckpointError(file, f"{key} is in {tensors[key].file.name} too")
            tensors[key] = stored
    return tensors


def tensor_files(folder: Path) -> list[Path]:
    """List the safetensors files that make up a checkpoint; see `tensor_index`."""
    index = folder / INDEX
    if index.is_file():
        with reading(index):
            names = sorted(set(read_json(index).get("weight_map", {}).values()))
            outside = [name for name in names if PurePath(name).name != name or "\\" in name]
        if outside:
            listed = ", ".join(outside[:10])
            raise CheckpointError(index, f"names files outside its folder: {listed}")
        absent = [name for name in names if not (folder / name).is_file()]
        if absent or not names:
            reason = f"names files that are not here: {', '.join(absent[:10])}"
            raise CheckpointError(index, reason if names else "empty")
        return [folder / name for name in names]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if shards := sorted(folder.glob(SHARDS)):
        return shards
    if pickles := sorted(f.name for pattern in PICKLES for f in folder.glob(pattern)):
        raise CheckpointError(
            folder,
            f"only pickle files ({', '.join(pickles)}), which can run code when read and are "
            "refused: save the checkpoint as safetensors where you trust it",
        )
    raise CheckpointError(folder, f"no {SINGLE} and no {INDEX}")


def read_tensor(key: str, stored: StoredTensor) -> torch.Tensor:
    """Read one tensor.

    Its file is opened for it alone: the pages of a mapped file count as this process's memory
    until the file is closed, and a shard has gigabytes.
    """
    with _open(stored.file) as handle, reading(stored.file):
        return handle.get_tensor(key)


def _header(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    with _open(file) as handle, reading(file):
        for key in handle.keys():  # noqa: SIM118, a file handle and no dict
            part = handle.get_slice(key)
            yield key, StoredTensor(file, tuple(part.get_shape()), part.get_dtype())


def _open(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        with file.open("rb") as stream:
            pointer = stream.read(24).startswith(b"version https://git-lfs")
        reason = "a Git LFS pointer, not the file itself: run git lfs pull" if pointer else error
        raise CheckpointError(file, f"not a readable safetensors file ({reason})") from error


def check_counts(settings: Any, most: int, path: Path) -> None:
    """Refuse a configuration with more layers or experts than the files have tensors.

    Libraries build a list entry or a module for each, even without allocating weights.

    Args:
        settings: the content of config.json, or a part of it.
        most: number of tensors in the files.
        path: of config.json.

    Raises:
        CheckpointError: naming the key.
    """
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if isinstance(value, (int, float)) and re.search("layers|experts", key) and value > most:
            raise CheckpointError(path, f"{key} is {value}, but the files have {most} tensors")
        check_counts(value, most, path)


Model = TypeVar("Model", bound=PreTrainedModel)


def load_strict(kind: type[Model], path: str | Path, fresh: str = "", **options) -> Model:
    """Load strictly: transformers initializes missing tensors at random and only logs a warning.

    A folder is first loaded without data, so that names and shapes are compared with the headers
    before anything is allocated.

    Args:
        kind: the model's class.
        path: a folder, or a hub id.
        fresh: prefix of tensors that may be missing or of another shape, because the caller
            initializes them; empty for none.
        options: of `from_pretrained`.

    Raises:
        CheckpointKeysError: tensors that the configuration asks for are missing, or of another
            shape; lists them all.
        CheckpointError: a folder whose files are damaged, missing or pickles.
    """
    folder, at_fault = Path(path), path
    if folder.is_dir():
        at_fault = folder / "config.json"
        if (adapter := folder / "adapter_config.json").is_file():
            raise CheckpointError(adapter, "an adapter beside a model: merge it into the weights")
        stored = tensor_index(folder)
        check_counts(read_json(at_fault), len(stored), at_fault)
        if options.get("device_map") != "meta":
            _load_strictly(kind, path, at_fault, fresh, options | {"device_map": "meta"})
    return _load_strictly(kind, path, at_fault, fresh, options)


def _load_strictly(
    kind: type[Model], path: str | Path, at_fault: str | Path, fresh: str, options: dict[str, Any]
) -> Model:
    with reading(at_fault, f"the model cannot be built from {path}"):
        model, report = kind.from_pretrained(
            path,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # raised below, with the name of the folder
            **options,
        )

    def needed(name: str) -> bool:
        return not (fresh and name.startswith(fresh))

    missing = sorted(filter(needed, report["missing_keys"]))
    other = [entry for entry in sorted(report["mismatched_keys"]) if needed(entry[0])]
    if missing or other:
        wrong = [f"{name}: {tuple(stored)}, not {tuple(ours)}" for name, stored, ours in other]
        raise CheckpointKeysError(path, missing, sorted(report["unexpected_keys"]), wrong)
    return model
