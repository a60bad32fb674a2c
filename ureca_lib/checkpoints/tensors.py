"""Safetensors of a checkpoint folder: read a few at a time, or strictly into a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

_SHOWN = 200  # enough for every key of a mistaken prefix in one layer, short of a flood


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; says which file and why."""

    def __init__(self, path: Path | str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)


class CheckpointKeysError(CheckpointError):
    """A checkpoint whose tensors are not those of its configuration.

    Attributes:
        missing: keys that the configuration asks for and the files lack.
        unexpected: keys that the files hold and the configuration has no place for.
        mismatched: lines "key: shape in the file, what is wrong with it".
    """

    def __init__(
        self, path: Path | str, missing: list[str], unexpected: list[str], mismatched: list[str]
    ):
        self.missing, self.unexpected, self.mismatched = missing, unexpected, mismatched
        parts = [
            _listing("missing", missing),
            _listing("unexpected", unexpected),
            _listing("of the wrong shape", mismatched),
        ]
        super().__init__(path, "; ".join(part for part in parts if part))


def _listing(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} tensors {what}: {', '.join(keys[:_SHOWN])}{more}"


SINGLE, INDEX, SHARDS = "model.safetensors", "model.safetensors.index.json", "model-*.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

# a mapped file's pages count as ours until it is closed
_BYTES_A_MAPPING = 32 * 2**20


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, from its file's header alone."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    bytes: int


def read_json(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
        CheckpointError: no such file, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(path, "not a JSON object")
    return content


def tensor_index(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint folder: one file, or shards with or without their index.

    Raises:
        CheckpointError: no safetensors (a pickle is refused by name), a shard of the index is
            missing or unreadable, or two files hold the same key.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in tensor_files(folder):
        for key, stored in _header(file):
            if key in tensors:
                raise CheckpointError(file, f"{key} is in {tensors[key].file.name} too")
            tensors[key] = stored
    return tensors


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a checkpoint; see `tensor_index`."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent or not names:
            reason = f"names files that are not here: {', '.join(absent)}" if names else "empty"
            raise CheckpointError(index, reason)
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


def read_tensors(tensors: dict[str, StoredTensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in the given order; each is valid until the next is asked for.

    Consecutive tensors of one file share a mapping, which is closed now and then so that what has
    been read does not stay in memory.
    """
    for file, keys in _runs(tensors):
        with _open(file) as handle:
            for key in keys:
                yield key, handle.get_tensor(key)


def _runs(tensors: dict[str, StoredTensor]) -> Iterator[tuple[Path, list[str]]]:
    run: list[str] = []
    size, file = 0, None
    for key, stored in tensors.items():
        if run and (stored.file != file or size + stored.bytes > _BYTES_A_MAPPING):
            yield file, run
            run, size = [], 0
        run.append(key)
        size, file = size + stored.bytes, stored.file
    if run:
        yield file, run


def _header(file: Path) -> Iterable[tuple[str, StoredTensor]]:
    with _open(file) as handle:
        for key in handle.keys():  # noqa: SIM118, a file handle and no dict
            part = handle.get_slice(key)
            shape, dtype = tuple(part.get_shape()), part.get_dtype()
            count = torch.Size(shape).numel()
            yield key, StoredTensor(file, shape, dtype, count * _item_bytes(dtype))


def _item_bytes(dtype: str) -> int:
    digits = "".join(char for char in dtype.split("_")[0] if char.isdigit())
    return max(1, int(digits or 8) // 8)


def _open(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        with file.open("rb") as stream:
            pointer = stream.read(24).startswith(b"version https://git-lfs")
        reason = "a Git LFS pointer, not the file itself: run git lfs pull" if pointer else error
        raise CheckpointError(file, f"not a readable safetensors file ({reason})") from error


Model = TypeVar("Model", bound=PreTrainedModel)


def load_whole(kind: type[Model], path: str | Path, fresh: str = "", **options) -> Model:
    """`kind.from_pretrained`, from safetensors, refused unless every tensor is stored.

    Args:
        kind: the model's class.
        path: a folder, or a hub id.
        fresh: tensors whose names start so may be missing or of another shape, because they are
            drawn anew afterwards; empty for none.
        options: of `from_pretrained`.

    Raises:
        CheckpointKeysError: tensors that the configuration asks for are missing, or of another
            shape; lists them all.
        CheckpointError: a folder whose files are damaged, missing or pickles.
    """
    if Path(path).is_dir():
        tensor_index(Path(path))  # a damaged file is named before any weights are read
    model, found = kind.from_pretrained(
        path,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # told below, with the file's name
        **options,
    )

    def needed(name: str) -> bool:
        return not (fresh and name.startswith(fresh))

    missing = sorted(filter(needed, found["missing_keys"]))
    other = [each for each in sorted(found["mismatched_keys"]) if needed(each[0])]
    if missing or other:
        wrong = [f"{name}: {tuple(stored)}, not {tuple(ours)}" for name, stored, ours in other]
        raise CheckpointKeysError(path, missing, sorted(found["unexpected_keys"]), wrong)
    return model
