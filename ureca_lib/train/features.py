"""Cache of frozen vision features, so that the vision tower runs once per image.

Neither stage trains the vision tower or its projector, so an image's features are the same in
every epoch, stage and run. Each image is one safetensors file whose name is a hash of its photo's
path, size and time, of the frozen weights and of the tiling: another image, other weights or other
tiles are other files. A file is written whole or not at all, so a kill leaves nothing half-written,
and several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ureca_lib.journal import replacing
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor

GIB = 2**30
_NAME = "features"
_TILING = ("tile_size", "min_tiles", "use_thumbnail", "image_seq_length")


class FeatureCache:
    """Features by key, in memory and in a folder. What is full takes no more.

    Args:
        folder: of the files; None keeps features in memory only.
        max_bytes: of the folder.
        memory_bytes: of the features held in memory.
        fingerprint: see `vision_fingerprint`.

    Raises:
        FileExistsError: `folder` is a file.
    """

    def __init__(
        self,
        folder: str | Path | None,
        max_bytes: int = 20 * GIB,
        memory_bytes: int = 2 * GIB,
        fingerprint: str = "",
    ):
        self.folder = None if folder is None else Path(folder)
        self.fingerprint = fingerprint
        self._room, self._memory_room = max_bytes, memory_bytes
        self._held: dict[str, torch.Tensor] = {}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = self.folder.glob("*/*.safetensors")
            self._room -= sum(file.stat().st_size for file in files)

    def key(self, name: str) -> str:
        """The key of an image, from a name that changes with its pixels."""
        return hashlib.sha256(f"{self.fingerprint}:{name}".encode()).hexdigest()

    def get(self, key: str) -> torch.Tensor | None:
        """The (T, tokens, D) features of a key on the CPU, or None if there are none."""
        if key in self._held or self.folder is None:
            return self._held.get(key)
        try:
            features = load_file(self._path(key))[_NAME]
        except (SafetensorError, OSError):  # damaged, or not there: made again
            return None
        self._hold(key, features)
        return features

    def put(self, key: str, features: torch.Tensor) -> None:
        """Keep the (T, tokens, D) features of a key, as far as there is room."""
        features = features.detach().cpu().contiguous()
        self._hold(key, features)
        if self.folder is None or features.nbytes > self._room:
            return
        try:
            with replacing(self._path(key), "wb") as file:
                save_file({_NAME: features}, file.name)
            self._room -= features.nbytes
        except (OSError, SafetensorError) as error:  # safetensors' own error for a full disk
            warnings.warn(
                f"{self.folder}: the feature cache cannot be written ({error}); features that do "
                "not fit into memory are computed again each time",
                stacklevel=2,
            )

    def _hold(self, key: str, features: torch.Tensor) -> None:
        if key not in self._held and features.nbytes <= self._memory_room:
            self._held[key] = features
            self._memory_room -= features.nbytes

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def vision_fingerprint(model: UrecaForConditionalGeneration, processor: UrecaProcessor) -> str:
    """Hash of everything that turns an image into features: weights, their type, the tiling."""
    config = model.config
    values = {name: getattr(processor, name) for name in _TILING}
    values |= {"max_tiles": processor.max_tiles_train, "pixel_shuffle": config.pixel_shuffle}
    values |= {"layer": config.vision_feature_layer, "ratio": config.downsample_ratio}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for part in (model.model.vision_tower, model.model.multi_modal_projector):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
