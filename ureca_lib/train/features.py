"""Frozen vision features kept on disk, so that the vision tower runs once for each image.

Neither stage trains the vision tower or its projector, so an image's features are the same in
every epoch, stage and run. Each image is one safetensors file whose name is a hash of its pixels,
of the frozen weights and of how images are tiled: another image, other weights or other tiles are
other files. Files appear whole or not at all, so a kill leaves nothing half-written, and several
processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor

GIB = 2**30
EVICTED_SHARE = 0.1  # room made at once, so that a full folder is not listed for every file
_NAME = "features"
_TILING = ("tile_size", "min_tiles", "use_thumbnail", "image_seq_length")


class FeatureCache:
    """Features by key, in memory and in a folder, both bounded.

    Args:
        folder: where files are; None keeps features in memory only.
        max_bytes: of the folder; the files that were used longest ago go first.
        memory_bytes: of what is held in memory.

    Raises:
        NotADirectoryError: `folder` is a file.
    """

    def __init__(
        self, folder: str | Path | None, max_bytes: int = 20 * GIB, memory_bytes: int = 2 * GIB
    ):
        self.folder = None if folder is None else Path(folder)
        self.max_bytes, self.memory_bytes = max_bytes, memory_bytes
        self._held: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._held_bytes = 0
        self._bytes: int | None = None  # of the folder, as far as this process knows
        if self.folder is not None:
            if self.folder.exists() and not self.folder.is_dir():
                raise NotADirectoryError(f"{self.folder}: the feature cache is not a folder")
            self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> torch.Tensor | None:
        """The (T, tokens, D) features of a key on the CPU, or None where there are none."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        features = self._read(key)
        if features is not None:
            self._hold(key, features)
        return features

    def put(self, key: str, features: torch.Tensor) -> None:
        """Keep the (T, tokens, D) features of a key; those of an old key may go for them."""
        features = features.detach().cpu().contiguous()
        self._hold(key, features)
        size = features.numel() * features.element_size()
        if self.folder is None or size > self.max_bytes:
            return
        if not self._write(self._path(key), features):
            return
        self._bytes = self.folder_bytes() if self._bytes is None else self._bytes + size
        if self._bytes > self.max_bytes:
            self._evict()

    def _write(self, path: Path, features: torch.Tensor) -> bool:
        """Whether the file could be written; a run goes on without it where it could not."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)
            save_file({_NAME: features}, partial)
            partial.replace(path)
        except (OSError, SafetensorError) as error:  # safetensors' own of a full disk
            warnings.warn(
                f"{self.folder}: the feature cache cannot be written ({error}); features are "
                "computed each time that memory does not hold them",
                stacklevel=3,
            )
            return False
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return True

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes fit without taking another's place, in folder or memory."""
        if self.folder is None:
            return self._held_bytes + size <= self.memory_bytes
        if self._bytes is None:
            self._bytes = self.folder_bytes()
        return self._bytes + size <= self.max_bytes

    def folder_bytes(self) -> int:
        """What the folder's files take now."""
        return sum(size for _, size, _ in self._files())

    def _hold(self, key: str, features: torch.Tensor) -> None:
        size = features.numel() * features.element_size()
        if key in self._held or size > self.memory_bytes:
            return
        self._held[key] = features
        self._held_bytes += size
        while self._held_bytes > self.memory_bytes:
            _, old = self._held.popitem(last=False)
            self._held_bytes -= old.numel() * old.element_size()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> torch.Tensor | None:
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            features = load_file(path)[_NAME]
        except (SafetensorError, KeyError):
            with suppress(OSError):
                path.unlink(missing_ok=True)  # damaged: made again
            return None
        except OSError:  # not there, or not for us to read
            return None
        with suppress(OSError):  # another user's file
            os.utime(path)  # used now: others go before it
        return features

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self.folder.glob("*/*.safetensors"):
            with suppress(FileNotFoundError):  # another process has evicted it
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        return found

    def _evict(self) -> None:
        """Delete what was used longest ago, until there is some room again."""
        with FileLock(self.folder / ".lock"):
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            if total > self.max_bytes:
                goal = self.max_bytes * (1 - EVICTED_SHARE)
                for _, size, path in files[:-1]:
                    if total <= goal:
                        break
                    path.unlink(missing_ok=True)
                    total -= size
            self._bytes = total


def feature_key(pixels: np.ndarray, fingerprint: str) -> str:
    """The key of an image: (H, W, 3) uint8 pixels and what turns them into features."""
    digest = hashlib.sha256(fingerprint.encode())
    digest.update(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def vision_fingerprint(
    model: UrecaForConditionalGeneration, processor: UrecaProcessor, max_tiles: int
) -> str:
    """Hash of all that turns an image into features: weights, their type, the way of tiling."""
    config = model.config
    told = {name: getattr(processor, name) for name in _TILING}
    told |= {"max_tiles": max_tiles, "pixel_shuffle": config.pixel_shuffle}
    told |= {"layer": config.vision_feature_layer, "ratio": config.downsample_ratio}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for part in (model.model.vision_tower, model.model.multi_modal_projector):
        _add_weights(digest, part)
    return digest.hexdigest()


def _add_weights(digest: hashlib._Hash, module: nn.Module) -> None:
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
