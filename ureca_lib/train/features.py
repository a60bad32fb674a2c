"""Frozen vision features held in memory, so that the vision tower runs once per image.

Neither stage trains the vision tower or its projector, so an image's features are the same in
every epoch of a run.
"""

from __future__ import annotations

import torch

GIB = 2**30


class FeatureCache:
    """Features by image, in the memory of this process. A full cache takes no more.

    Args:
        max_bytes: of all features together.
    """

    def __init__(self, max_bytes: int):
        self._room, self._held = max_bytes, {}

    def get(self, image_id: str) -> torch.Tensor | None:
        """The (T, tokens, D) features of an image on the CPU, or None if there are none."""
        return self._held.get(image_id)

    def put(self, image_id: str, features: torch.Tensor) -> None:
        """Keep the (T, tokens, D) features of an image if there is room."""
        if image_id not in self._held and features.nbytes <= self._room:
            self._held[image_id] = features.detach().cpu()
            self._room -= features.nbytes
