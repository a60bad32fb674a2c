"""Which regions of an image look alike: features of their crops, compared by cosine similarity.

The paper compares DINOv2 features (Sec. 3, stage 4; App. F), the published code above 0.8. That is
`Dinov2Features`; `ColorTextureFeatures` needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import RegionImage


class RegionFeatures(Protocol):
    """Anything that gives a vector for each region."""

    name: str  # kind, model and settings, as it goes into the record
    threshold: float  # cosine similarity from which regions look alike

    def __call__(
        self, image: RegionImage, region_ids: Sequence[RegionId]
    ) -> dict[RegionId, np.ndarray]:
        """For each region its vector, (F,) float32, all of one length."""
        ...


@dataclass(frozen=True)
class LookAlikeSettings:
    """Stage 4: which regions count as look-alikes."""

    threshold: float | None = field(
        default=None, metadata={"help": "cosine similarity; None takes the features' own"}
    )
    family: bool = field(
        default=False, metadata={"help": "whether ancestors and descendants may be look-alikes"}
    )
    most: int = field(default=8, metadata={"help": "look-alikes of a region, the most similar"})

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most must be at least 1, not {self.most}")


def find_look_alikes(
    features: Mapping[RegionId, np.ndarray],
    tree: MaskTree,
    settings: LookAlikeSettings,
    threshold: float,
) -> dict[RegionId, list[RegionId]]:
    """For each region its look-alikes, most similar first, ties in the order of `features`.

    Regions with the same mask are look-alikes whatever their features and their place in the
    tree.

    Args:
        features: for each region a vector (F,); a vector of zeros resembles nothing.
        tree: that holds the regions.
        settings: family and most are read from them.
        threshold: cosine similarity from which on two regions look alike.

    Raises:
        ValueError: a vector that is not finite, or vectors of different lengths.
    """
    ids = list(features)
    similar = cosine_similarity(features)
    np.fill_diagonal(similar, -np.inf)
    rank = {region_id: place for place, region_id in enumerate(ids)}
    if not settings.family:
        for region_id in ids:
            above = [rank[other] for other in tree.ancestors(region_id) if other in rank]
            similar[rank[region_id], above] = similar[above, rank[region_id]] = -np.inf
    masks: dict[bytes, list[int]] = {}
    for region_id in ids:
        masks.setdefault(tree[region_id].rle["counts"], []).append(rank[region_id])
    for same in masks.values():
        similar[np.ix_(same, same)] = np.inf
    similar[np.arange(len(ids)), np.arange(len(ids))] = -np.inf
    found = {}
    for region_id in ids:
        row = similar[rank[region_id]]
        order = np.argsort(-row, kind="stable")[: settings.most]
        found[region_id] = [ids[place] for place in order if row[place] >= threshold]
    return found


def cosine_similarity(features: Mapping[RegionId, np.ndarray]) -> np.ndarray:
    """(R, R) float64 cosine similarity of the vectors, in the order of the mapping.

    Raises:
        ValueError: a vector that is not finite, or vectors of different lengths.
    """
    if not features:
        return np.zeros((0, 0))
    lengths = {np.shape(vector) for vector in features.values()}
    if len(lengths) > 1 or len(next(iter(lengths))) != 1:
        raise ValueError(f"features are vectors of one length, not of the shapes {lengths}")
    for region_id, vector in features.items():
        if not np.isfinite(vector).all():
            raise ValueError(f"the features of region {region_id} are not finite")
    rows = np.stack([np.asarray(vector, np.float64) for vector in features.values()])  # (R, F)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms == 0, 1, norms)
    return np.clip(unit @ unit.T, -1, 1)  # (R, F) @ (F, R) -> (R, R)
