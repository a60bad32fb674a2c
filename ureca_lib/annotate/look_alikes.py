"""Which regions of an image look alike, and which captions read alike (Sec. 3, stage 4).

The paper compares DINOv2 features of the regions' crops by cosine similarity (App. F); that is
`DinoFeatures`. `ColorTextureFeatures` needs no model. Regions whose captions read the same
clash: `find_clashes`.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from PIL import Image
from scipy import sparse
from scipy.ndimage import binary_erosion
from scipy.sparse.csgraph import connected_components
from skimage.feature import local_binary_pattern

from ureca_lib.annotate.cuts import Cut
from ureca_lib.annotate.referring.attributes import measure_outline
from ureca_lib.annotate.referring.colors import cell_colors, color_bins, sample_cells
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.options import at_least, setting
from ureca_lib.regions import RegionImage
from ureca_lib.together import normalized

if TYPE_CHECKING:
    import torch

DINO_MODEL = "facebook/dinov2-base"
DINO_KINDS = ("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext")
Pair = tuple[RegionId, RegionId]

_WEIGHTS = {"color": 2.0, "texture": 1.0, "shape": 2.0, "size": 1.0}
_LIGHTNESS = np.arange(0.0, 101.0, 12.5)  # centers of the color histogram, CIELAB
_CHROMA = np.arange(-90.0, 91.0, 15.0)
_SIDE = 64  # pixels per side at which texture is measured
_SLOPES = (0, 2, 4, 8, 16, 32, 64, 1e9)  # gray levels per pixel


class RegionFeatures(Protocol):
    """Anything that computes a vector for each region."""

    name: str  # kind, model and settings, for the record
    threshold: float  # cosine similarity from which regions look alike

    def __call__(
        self, image: RegionImage, region_ids: Sequence[RegionId]
    ) -> dict[RegionId, np.ndarray]:
        """The vector of each region, (F,) float32, all of one length."""
        ...


@dataclass(frozen=True)
class LookAlikeSettings:
    """Stage 4: which regions count as look-alikes."""

    threshold: float | None = setting(None, "cosine similarity; None takes the features' own")
    family: bool = setting(False, "whether ancestors and descendants may be look-alikes")
    most: int | None = setting(8, "most look-alikes of a region, the most similar; None: all")

    def __post_init__(self) -> None:
        if self.most is not None:
            at_least(self, most=1)

    @classmethod
    def paper(cls) -> LookAlikeSettings:
        """The published rule: all regions above the threshold, ancestors and descendants too."""
        return cls(family=True, most=None)


def find_look_alikes(
    features: Mapping[RegionId, np.ndarray],
    tree: MaskTree,
    settings: LookAlikeSettings,
    threshold: float,
) -> dict[RegionId, list[RegionId]]:
    """The look-alikes of each region, most similar first, ties in the order of `features`.

    Regions with the same mask are look-alikes whatever their features and their place in the
    tree.

    Args:
        features: vector (F,) of each region; a vector of zeros resembles nothing.
        tree: that holds the regions.
        settings: family and most are read from them.
        threshold: cosine similarity from which two regions look alike.

    Raises:
        ValueError: a vector that is not finite, or vectors of different lengths.
    """
    ids, similar = list(features), cosine_similarity(features)
    if not settings.family:
        _leave_out_family(similar, ids, tree)
    masks: dict[bytes, list[int]] = defaultdict(list)
    for place, region_id in enumerate(ids):
        masks[tree[region_id].rle["counts"]].append(place)
    for same in masks.values():
        similar[np.ix_(same, same)] = np.inf
    np.fill_diagonal(similar, -np.inf)
    order = np.argsort(-similar, axis=1, kind="stable")[:, : settings.most]
    return {
        region_id: [ids[place] for place in nearest if row[place] >= threshold]
        for region_id, row, nearest in zip(ids, similar, order, strict=True)
    }


def _leave_out_family(similar: np.ndarray, ids: Sequence[RegionId], tree: MaskTree) -> None:
    """Set the similarity of regions of which one holds the other to minus infinity, in place."""
    places = {region_id: place for place, region_id in enumerate(ids)}
    for region_id, place in places.items():
        above = [places[other] for other in tree.ancestors(region_id) if other in places]
        similar[place, above] = similar[above, place] = -np.inf


def cosine_similarity(features: Mapping[RegionId, np.ndarray]) -> np.ndarray:
    """(R, R) float64 cosine similarity of the vectors, in the order of the mapping.

    Raises:
        ValueError: a vector that is not finite, or vectors of different lengths.
    """
    if not features:
        return np.zeros((0, 0))
    for region_id, vector in features.items():
        if not np.isfinite(vector).all():
            raise ValueError(f"the features of region {region_id} are not finite")
    rows = np.stack([np.asarray(vector, np.float64) for vector in features.values()])  # (R, F)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms == 0, 1, norms)
    return np.clip(unit @ unit.T, -1, 1)  # (R, F) @ (F, R) -> (R, R)


class NearPair(NamedTuple):
    """Two regions whose similarity is near the threshold, with their crops."""

    similarity: float
    name: str  # of the image
    region_ids: tuple[RegionId, RegionId]
    crops: tuple[np.ndarray, np.ndarray]  # (h, w, 3) uint8 each


def survey_similarities(
    images: Iterable[tuple[str, RegionImage, MaskTree]],
    features: RegionFeatures,
    threshold: float,
    family: bool = False,
    shown: int = 12,
) -> tuple[np.ndarray, list[NearPair]]:
    """Similarities of all pairs of regions within each image, to choose a threshold by.

    Args:
        images: name, regions with their photo, and tree of each; one is in memory at a time.
        features: that are compared.
        threshold: cosine similarity from which two regions look alike.
        family: include pairs of which one holds the other.
        shown: number of pairs to return that are nearest to the threshold.

    Returns:
        (P,) similarities, and the nearest pairs, the most similar first.
    """
    everything = [np.zeros(0)]
    near: list[NearPair] = []
    for name, image, tree in images:
        ids = [region.id for region in image]
        similar = cosine_similarity(features(image, ids))
        if not family:
            _leave_out_family(similar, ids, tree)
        first, second = np.nonzero(np.triu(similar > -np.inf, 1))
        values = similar[first, second]
        everything.append(values)
        for place in np.argsort(abs(values - threshold), kind="stable")[:shown]:
            pair = ids[first[place]], ids[second[place]]
            crops = (_photo_crop(image, pair[0]), _photo_crop(image, pair[1]))
            near.append(NearPair(float(values[place]), name, pair, crops))
        near = heapq.nsmallest(shown, near, key=lambda item: abs(item.similarity - threshold))
    return np.concatenate(everything), sorted(near, key=lambda item: -item.similarity)


def _photo_crop(image: RegionImage, region_id: RegionId) -> np.ndarray:
    """A region's box in the photo, with everything else in it grayed."""
    cut = Cut.of(image[region_id])
    crop = image.pixels[cut.box.window]
    return np.where(cut.mask[..., None], crop, crop // 3 + 130).astype(np.uint8)


class DinoFeatures:
    """The class token of a DINO model for each region's crop: DINOv2, with registers, or DINOv3.

    A crop is the region's box with a margin. The processor's mean color replaces everything else
    in it, so that it carries no information for the model.

    The threshold is not calibrated. The published code has 0.8 for DINO v1 (ViT-B/16) on crops
    with a blurred background; the paper names DINOv2 and no value. Similarities of other models
    and crops are distributed differently: see `ureca look-alikes`.

    Args:
        model: hub id or local folder of a checkpoint in safetensors, with its processor.
        device: of the model.
        batch_size: crops at a time.
        margin: around the box, as a share of its longer side.

    Raises:
        OSError: the checkpoint does not exist; transformers says what is missing.
        ValueError: it is a model of another kind.
    """

    threshold = 0.8

    def __init__(
        self,
        model: str | Path = DINO_MODEL,
        device: str | torch.device = "cpu",
        batch_size: int = 16,
        margin: float = 0.1,
    ):
        import torch  # seconds to import, and only these features need it
        from transformers import AutoConfig, AutoModel, BitImageProcessorPil

        kind = AutoConfig.from_pretrained(model, trust_remote_code=False).model_type
        if kind not in DINO_KINDS:
            raise ValueError(f"{model} is a {kind} model; --dino takes {', '.join(DINO_KINDS)}")
        self.name = f"{kind}:{Path(model).name}:margin={margin:g}"
        self._device, self._batch, self._margin = torch.device(device), batch_size, margin
        self._model = AutoModel.from_pretrained(
            model, use_safetensors=True, trust_remote_code=False
        )
        self._model.to(self._device).eval()
        # DINOv3's own processor needs torchvision; crops are square, so that this one does the
        # same: resize, normalize, and crop the center only if the checkpoint says so
        settings = {} if kind.startswith("dinov2") else {"do_center_crop": False}
        self._processor = BitImageProcessorPil.from_pretrained(model, **settings)
        mean = np.asarray(self._processor.image_mean) * 255
        self._mean = np.rint(mean).astype(np.uint8)
        self._one_at_a_time = threading.Lock()  # images are opened in several threads

    def __call__(
        self, image: RegionImage, region_ids: Sequence[RegionId]
    ) -> dict[RegionId, np.ndarray]:
        """The vector of each region, (D,) float32.

        Raises:
            FileMissingError: there is no photo.
        """
        import torch

        features: dict[RegionId, np.ndarray] = {}
        for start in range(0, len(region_ids), self._batch):
            ids = region_ids[start : start + self._batch]
            crops = [self._crop(image, region_id) for region_id in ids]
            pixels = self._processor(crops, return_tensors="pt")["pixel_values"]  # (B, 3, S, S)
            with self._one_at_a_time, torch.inference_mode():
                output = self._model(pixels.to(self._device))
            vectors = output.pooler_output.float().cpu().numpy()  # (B, D)
            features.update(zip(ids, vectors, strict=True))
        return features

    def _crop(self, image: RegionImage, region_id: RegionId) -> np.ndarray:
        cut = Cut.of(image[region_id])
        rows, columns = cut.mask.shape
        margin = math.ceil(self._margin * max(columns, rows))
        # square: the processor's center crop removes 6% on each side, which is in the margin
        side = max(columns, rows) + 2 * margin
        crop = np.broadcast_to(self._mean, (side, side, 3)).copy()
        top, left = (side - rows) // 2, (side - columns) // 2
        inside = crop[top : top + rows, left : left + columns]
        inside[cut.mask] = image.pixels[cut.box.window][cut.mask]
        return crop


class ColorTextureFeatures:
    """CIELAB histogram, local binary patterns and slopes, outline, and area of each region.

    Deterministic, and needs no weights. Each of the four blocks has length 1 before it is
    weighted, so that the cosine similarity of two regions is the weighted mean of the cosine
    similarities of their blocks. Histograms are compared by the root of their shares.

    Among the regions of the data samples' photos that do not hold one another, 70% of the pairs
    with one name (the two eyes, the coins, the stripes) reach the threshold. So do 16% of all
    pairs; nearly half of these have one name, and most others look alike to a person too (an iris
    and an eye, a coin and the head on it).
    """

    name = "color-texture-1"
    threshold = 0.85

    def __call__(
        self, image: RegionImage, region_ids: Sequence[RegionId]
    ) -> dict[RegionId, np.ndarray]:
        """The vector of each region, (F,) float32.

        Raises:
            FileMissingError: there is no photo.
        """
        gray = np.asarray(Image.fromarray(image.pixels).convert("L"))
        bins = color_bins(image.pixels)
        features = {}
        for region_id in region_ids:
            cut = Cut.of(image[region_id])
            share = np.count_nonzero(cut.mask) / bins.size
            blocks = {
                "color": _color(sample_cells(bins[cut.box.window], cut.mask)),
                "texture": _texture(gray[cut.box.window], cut.mask),
                "shape": _shape(cut.mask),
                "size": _bump(np.log2(share), -20, 0, 11),
            }
            weighted = [np.sqrt(_WEIGHTS[name]) * _unit(block) for name, block in blocks.items()]
            features[region_id] = np.concatenate(weighted).astype(np.float32)
        return features


def _color(cells: np.ndarray) -> np.ndarray:
    used, counts = np.unique(cells, return_counts=True)
    colors, weights = _soft_cells()
    shares = (counts / cells.size)[:, None] * weights[used]
    number = len(_LIGHTNESS) * len(_CHROMA) ** 2
    return np.sqrt(np.bincount(colors[used].ravel(), shares.ravel(), number))


@cache
def _soft_cells() -> tuple[np.ndarray, np.ndarray]:
    """The colors of the histogram near each cell of `color_bins`, and its weight in each.

    A cell counts for all colors near it, so that a little more light does not make another color.

    Returns:
        (32 ** 3, 27) places, and weights.
    """
    lab = cell_colors()
    colors, weights = np.zeros((len(lab), 1), np.intp), np.ones((len(lab), 1))
    for axis, centers in enumerate((_LIGHTNESS, _CHROMA, _CHROMA)):
        places, shares = _nearest(lab[:, axis], centers)
        # (cells, K, 1) with (cells, 1, 3) -> (cells, 3 * K)
        colors = (colors[..., None] * len(centers) + places[:, None]).reshape(len(lab), -1)
        weights = (weights[..., None] * shares[:, None]).reshape(len(lab), -1)
    return colors, weights


def _nearest(values: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) -> the three nearest centers and their weights, both (N, 3)."""
    distances = np.abs(values[:, None] - centers)
    places = np.argsort(distances, axis=1, kind="stable")[:, :3]
    width = 0.8 * (centers[1] - centers[0])
    near = np.exp(-0.5 * (np.take_along_axis(distances, places, axis=1) / width) ** 2)
    return places, near / near.sum(1, keepdims=True)


def _texture(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    size, filtering = (_SIDE, _SIDE), Image.Resampling.BILINEAR
    levels = np.asarray(Image.fromarray(gray).resize(size, filtering))
    shown = np.asarray(Image.fromarray(mask.view(np.uint8) * 255).resize(size, filtering))
    inside = shown == 255
    core = binary_erosion(inside)  # patterns and slopes look one pixel around
    if core.any():
        inside = core
    elif not inside.any():
        inside = shown >= max(1, int(shown.max()))
    patterns = local_binary_pattern(levels, 8, 1, "uniform")[inside].astype(int)
    slopes = np.hypot(*np.gradient(levels.astype(np.float32)))[inside]
    counts = np.concatenate([np.bincount(patterns, minlength=10), np.histogram(slopes, _SLOPES)[0]])
    return np.sqrt(counts / len(slopes))


def _shape(mask: np.ndarray) -> np.ndarray:
    outline = measure_outline(mask)
    bumps = [
        _bump(np.log2(outline.ratio), 0, 4, 9),
        _bump(outline.solid, 0.3, 1, 8),
        _bump(outline.fill, 0, 1, 6),
        _bump(abs(np.log2(outline.aspect)), 0, 4, 9),
        _bump(outline.hole, 0, 0.5, 6),
    ]
    return np.concatenate([_unit(bump) for bump in bumps])


def _bump(value: float, low: float, high: float, count: int) -> np.ndarray:
    """A number as a bump on an axis of `count` places: near numbers have similar bumps."""
    centers = np.linspace(low, high, count)
    return np.exp(-0.5 * ((np.clip(value, low, high) - centers) / (centers[1] - centers[0])) ** 2)


def _unit(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector)
    return vector / norm if norm else vector


def word_overlaps(captions: Sequence[str]) -> np.ndarray:
    """(C, C) float64: share of words and pairs of neighboring words that two captions share.

    Pairs of words are counted because order matters: the right leaf of the left flower is not the
    left leaf of the right flower. Two captions without a word overlap completely.

    Args:
        captions: `normalized`.
    """
    number: dict[tuple, int] = {}
    rows, columns = [], []
    for row, caption in enumerate(captions):
        words = caption.split()
        # the k-th occurrence of a word is an entry of its own, so that sets replace multisets
        seen: Counter[str | tuple[str, str]] = Counter()
        for piece in (*words, *pairwise(words)):
            seen[piece] += 1
            rows.append(row)
            columns.append(number.setdefault((piece, seen[piece]), len(number)))
    shape = (len(captions), max(1, len(number)))
    pieces = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    shared = (pieces @ pieces.T).toarray()  # (C, P) @ (P, C) -> (C, C)
    sizes = pieces.sum(axis=1)
    union = sizes[:, None] + sizes[None, :] - shared
    return np.divide(shared, union, out=np.ones_like(shared), where=union > 0)


def find_clashes(captions: Mapping[RegionId, str]) -> list[Pair]:
    """Pairs of regions of an image whose captions are equal once normalized.

    Args:
        captions: of the regions; regions without a caption are left out.

    Returns:
        Each pair once, in the order of `captions`.
    """
    texts = [(region_id, normalized(caption)) for region_id, caption in captions.items()]
    return [(one, other) for (one, text), (other, same) in combinations(texts, 2) if text == same]


def groups(pairs: Iterable[Pair], order: Sequence[RegionId]) -> list[list[RegionId]]:
    """The connected sets of regions that the pairs form, each and all in the given order."""
    rank = {region_id: place for place, region_id in enumerate(order)}
    places = np.array([(rank[first], rank[second]) for first, second in pairs], int).reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(places)), places.T), shape=(len(order), len(order)))
    labels = connected_components(graph, directed=False)[1] if len(order) else []
    members: dict[int, list[RegionId]] = defaultdict(list)
    for place in np.unique(places):
        members[labels[place]].append(order[place])
    return list(members.values())
