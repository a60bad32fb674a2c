"""What tells one checkpoint's weights from another's without reading gigabytes."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ureca_lib.checkpoints.tensors import CheckpointError

_SAMPLED = 4096  # bytes at both ends of every tensor
_METADATA = "__metadata__"  # the one entry of a header that is no tensor
_CONFIGURATIONS = ("config.json", "processor_config.json", "adapter_config.json")


def checkpoint_digest(folder: str | Path) -> str:
    """16 hexadecimal digits of a folder's configuration and of a sample of each of its tensors.

    Every tensor is sampled: two models trained from one base differ in some of them only, which
    may lie anywhere in the file.

    Args:
        folder: with safetensors files.

    Raises:
        CheckpointError: a file that is no safetensors file, or ends too early.
    """
    digest = hashlib.sha256()
    for name in _CONFIGURATIONS:
        path = Path(folder) / name
        if path.is_file():
            digest.update(name.encode() + path.read_bytes())
    for path in sorted(Path(folder).glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            for part in _samples(file, path):
                digest.update(part)
    return digest.hexdigest()[:16]


def _samples(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The header of a file, then the ends of its tensors in the header's order."""
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        header = file.read(length) if length <= path.stat().st_size else b""
        tensors = {name: told for name, told in json.loads(header).items() if name != _METADATA}
        spans = [told["data_offsets"] for told in tensors.values()]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(path, f"not a readable safetensors file ({error})") from None
    yield header
    for start, end in spans:
        for at in (start, max(start, end - _SAMPLED)):
            wanted = min(_SAMPLED, end - start)
            file.seek(8 + length + at)
            part = file.read(wanted)
            if len(part) < wanted:
                raise CheckpointError(path, "ends before its last tensor: it was cut off")
            yield part
