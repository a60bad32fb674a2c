"""Safetensors files of a checkpoint folder, read a few tensors at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ureca_lib.checkpoints.errors import CheckpointError

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
