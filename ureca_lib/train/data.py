"""Data of a run: images to train on, those held out, and how regions become batches.

A group is an image and up to K of its regions. In each epoch every captioned region is in one
group; groups come in an order drawn for the epoch. A group is a function of the seed and its place
in the run alone, so a resumed run needs nothing but its step.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from PIL import Image
from torch.utils.data import Dataset

from ureca_lib.conversation import IGNORED, Conversation
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region
from ureca_lib.train.features import FeatureCache
from ureca_lib.train.grouped import pad_rows, split_prompt
from ureca_lib.train.index import RegionIndex, Source, open_index
from ureca_lib.train.settings import SettingsError, TrainSettings

RESIZED = (0.5, 1.0)  # bounds of each side's factor in the authors' code, which leaves it off


def open_data(
    settings: TrainSettings, folder: Path | None = None, progress: bool = False
) -> tuple[RegionIndex, RegionIndex | None]:
    """Indexes of the training images and of the held-out images, which have none in common.

    The held-out images are the first ones of `eval_data`, or by default the last ones of the data;
    None if nothing is evaluated.

    Args:
        settings: of the run.
        folder: of the run, for indexes of data that has no folder.
        progress: show a bar while an index is made.

    Raises:
        SettingsError: no caption, too few images to hold some out, the same images in both, or
            nothing that `best_metric` could be measured on.
        CaptionedError, FileNotFoundError, RegionError: the data cannot be read.
    """
    s = settings
    source = Source(s.data, s.limit, s.style, s.masks)
    images, held_out = open_index(source, folder, s.workers, progress), None
    if s.eval_every and s.eval_data is not None:
        # a JSONL's masks are beside those of the data, unless it names a folder with @
        masks = s.masks if s.eval_data.endswith(".jsonl") else None
        source = Source(s.eval_data, s.eval_images, s.style, masks)
        held_out = open_index(source, folder, s.workers, progress)
        own = pc.is_in(held_out.table["image_id"], images.table["image_id"].combine_chunks())
        shared = held_out.table.filter(own)["image_id"].to_pylist()
        if shared:
            raise SettingsError(
                f"{len(shared)} images, such as {min(shared)}, are in both data and eval_data"
            )
    elif s.eval_every:
        if len(images) <= s.eval_images:
            raise SettingsError(
                f"{s.data} has {len(images)} images, and eval_images would hold {s.eval_images} "
                "of them out: name others with eval_data"
            )
        images, held_out = images[: -s.eval_images], images[-s.eval_images :]
    if held_out is not None and s.best_metric == "unique" and not held_out.row(0)["scene"]:
        raise SettingsError(
            "best_metric unique is for scenes, and the images held out are none: choose loss or "
            "exact_match"
        )
    if not images.counts.any():
        raise SettingsError(f"{s.data}: no region has a caption to learn from")
    return images, held_out


def faults_of(index: RegionIndex, settings: TrainSettings, words: Conversation | None) -> list[str]:
    """Faults of photos, captions and questions, each naming its file, or its image and region.

    Args:
        index: of the images.
        settings: of the run.
        words: of the model's tokenizer; None leaves texts unchecked.
    """
    faults = list(index.faults)
    if words is None:
        return faults
    texts = index.texts("captions")
    suspects = [pc.any(pc.match_substring(texts, token)).as_py() for token in words.special_tokens]
    for number in range(len(index)) if any(suspects) else ():
        row = index.row(number)
        for region, captions in zip(row["ids"], row["captions"], strict=True):
            for text in captions:
                try:
                    words.check_answer(text)
                except ValueError as error:
                    faults.append(f"{row['image_id']}: region {region}: {error}")
    for question in [settings.question, *pc.unique(index.texts("questions")).to_pylist()]:
        try:
            words.prompt(question)
        except ValueError as error:
            faults.append(f"{settings.data}: question {question!r}: {error}")
    return faults


@dataclass(frozen=True)
class GroupSample:
    """An image and K of its regions, ready to be put into a batch.

    Attributes:
        rows: of each region the ids and labels of question and caption, placeholders repeated.
        mask_values: (K, T, 1, S, S) float32.
        mask_places: (T, 2), row and column of each mask tile; None without a tile embedding.
        pixel_values: (T, 3, S, S) float32, or None where there are features.
        features: (T, tokens, D), or None.
        key: under which the cache keeps the image's features, or None.
    """

    rows: list[tuple[list[int], list[int]]]
    mask_values: torch.Tensor
    mask_places: torch.Tensor | None
    pixel_values: torch.Tensor | None
    features: torch.Tensor | None
    key: str | None


class GroupOrder:
    """Image and regions of each group of a run.

    Args:
        counts: captioned regions of each image.
        size: K, maximum number of regions per group.
        seed: of the order.
    """

    def __init__(self, counts: Sequence[int], size: int, seed: int):
        self.counts, self.size, self.seed = np.asarray(counts), size, seed
        self._ends = np.cumsum(-(-self.counts // size), dtype=np.int64)

    def __len__(self) -> int:
        """Groups of an epoch."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __call__(self, position: int) -> tuple[int, list[int]]:
        """The image's number and the places of the regions of a group; positions never end."""
        epoch, place = divmod(position, len(self))
        group = int(self._epoch(epoch)[place])
        image = int(np.searchsorted(self._ends, group, side="right"))
        part = group - (int(self._ends[image - 1]) if image else 0)
        regions = np.random.default_rng([self.seed, epoch, image]).permutation(self.counts[image])
        return image, regions[part * self.size : (part + 1) * self.size].tolist()

    @lru_cache(maxsize=2)  # noqa: B019, an order lives as long as its run
    def _epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self))


def total_steps(settings: TrainSettings, groups: int) -> int:
    """Optimizer steps of a run whose epoch has so many groups."""
    if settings.steps is not None:
        return settings.steps
    return max(1, -int(-groups * settings.epochs // settings.batch_size))


class RegionCaptionDataset(Dataset):
    """The groups of a whole run.

    Args:
        index: of the images.
        processor: of the model.
        settings: of the run.
        max_tiles: of the grid of an image and of its masks.
        cache: of vision features, or None.
        fingerprint: of the frozen weights, for the cache's keys.
    """

    def __init__(
        self,
        index: RegionIndex,
        processor: UrecaProcessor,
        settings: TrainSettings,
        max_tiles: int,
        cache: FeatureCache | None = None,
        fingerprint: str = "",
    ):
        self.index, self.processor, self.settings = index, processor, settings
        self.max_tiles, self.cache, self.fingerprint = max_tiles, cache, fingerprint
        self.order = GroupOrder(index.counts, settings.regions_per_image, settings.seed)
        self.steps = total_steps(settings, len(self.order))

    def __len__(self) -> int:
        """Groups of the whole run."""
        return self.steps * self.settings.batch_size

    def __getitem__(self, position: int) -> GroupSample:
        return self._group(*self.order(position), position)

    def of_image(self, number: int) -> GroupSample:
        """The first regions of an image, in their own order."""
        count = min(self.index.counts[number], self.settings.regions_per_image)
        return self._group(number, list(range(count)), number)

    def _group(self, number: int, chosen: list[int], position: int) -> GroupSample:
        rng = np.random.default_rng([self.settings.seed, 1, position])
        row, size = self.index.row(number), self.index.size(number)
        regions, texts = self.index.regions(number), []
        regions = [regions[place] for place in chosen]
        for place in chosen:
            captions, asked = row["captions"][place], row["questions"][place]
            pick = int(rng.integers(len(captions))) if len(captions) > 1 else 0
            texts.append((asked[pick] if asked else self.settings.question, captions[pick]))
        resized = rng.random() < self.settings.resize_share
        key = photo = features = pixels = None
        if resized:
            factors = rng.uniform(*RESIZED, size=2)
            photo, regions = resize_together(self.index.pixels(number), regions, factors)
            size = photo.shape[:2]
        elif self.cache is not None:
            self.index.check_files(number)
            key = self.cache.key(self.index.pixels_name(number), self.fingerprint)
            features = self.cache.get(key)
        if features is None:
            photo = self.index.pixels(number) if photo is None else photo
            pixels = self.processor.image_tiles(photo, self.max_tiles)
        with warnings.catch_warnings():  # of which an epoch would give thousands
            warnings.filterwarnings("ignore", message=r".*vanishes when its mask is resized.*")
            masks = self.processor.mask_tiles(regions, size, self.max_tiles)
        if self.settings.no_mask:
            masks = torch.zeros_like(masks)
        tiles = len(pixels if features is None else features)
        rows = [
            self.processor.token_ids(question, text, tiles, masks.shape[1])
            for question, text in texts
        ]
        places = self.processor.mask_places(size, self.max_tiles)
        return GroupSample(rows, masks, places, pixels, features, key)


def resize_together(
    pixels: np.ndarray, regions: Sequence[Region], factors: Sequence[float]
) -> tuple[np.ndarray, list[Region]]:
    """An image and its regions with height and width multiplied by `factors`.

    Args:
        pixels: (H, W, 3) uint8, resized bicubically.
        regions: resized to the nearest neighbor. If one of them would vanish, nothing is resized:
            a sample with an empty mask teaches nothing.
        factors: of height and width, each above 0.

    Returns:
        The new pixels and regions, with the same ids and names.
    """
    height, width = (
        max(1, round(side * factor)) for side, factor in zip(pixels.shape[:2], factors, strict=True)
    )
    images = (Image.fromarray(region.mask.astype(np.uint8)) for region in regions)
    masks = [np.asarray(image.resize((width, height), Image.NEAREST)) for image in images]
    if not all(mask.any() for mask in masks):
        return pixels, list(regions)
    resized = [
        Region.from_mask(region.id, mask, region.name)
        for region, mask in zip(regions, masks, strict=True)
    ]
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.BICUBIC)), resized


class RegionCollator:
    """Groups to a batch.

    Args:
        processor: of the model; its tokenizer has every special token.
        grouped: one prefix for the regions of an image, else a row for each.
    """

    def __init__(self, processor: UrecaProcessor, grouped: bool):
        self.processor, self.grouped = processor, grouped

    def __call__(self, groups: Sequence[GroupSample]) -> dict[str, Any]:
        """A batch of B images and R regions of them.

        Returns:
            `labels` (R, L); `mask_values` (M, 1, S, S), and `mask_places` (M, 2) for a model with
            a tile embedding; `image_of` (R,), which image each region is of; `image_tiles`, the
            tiles of each image; `image_keys`, the cache's keys of the images that come as
            `pixel_values` (tiles, 3, S, S), None for those not to be kept; `has_features`, whether
            each image comes in `image_features` (tiles, tokens, D) instead. In
            one row each: `input_ids` and `attention_mask`, (R, L), padded on the left; grouped: the
            ids of `GroupedBatch`.
        """
        counts = torch.tensor([len(group.rows) for group in groups])
        pixels = [group.pixel_values for group in groups if group.features is None]
        features = [group.features for group in groups if group.features is not None]
        batch: dict[str, Any] = {
            "mask_values": torch.cat([group.mask_values.flatten(0, 1) for group in groups]),
            "image_of": torch.arange(len(groups)).repeat_interleave(counts),
            "image_tiles": [
                len(g.features if g.features is not None else g.pixel_values) for g in groups
            ],
            "has_features": [group.features is not None for group in groups],
            "image_keys": [group.key for group in groups if group.features is None],
        }
        places = [g.mask_places.repeat(len(g.rows), 1) for g in groups if g.mask_places is not None]
        if places:
            batch["mask_places"] = torch.cat(places)
        if pixels:
            batch["pixel_values"] = torch.cat(pixels)
        if features:
            batch["image_features"] = torch.cat(features)
        return batch | (self._grouped(groups) if self.grouped else self._rows(groups))

    def _rows(self, groups: Sequence[GroupSample]) -> dict[str, torch.Tensor]:
        rows = [row for group in groups for row in group.rows]
        return self.processor.pad([ids for ids, _ in rows], [labels for _, labels in rows])

    def _grouped(self, groups: Sequence[GroupSample]) -> dict[str, torch.Tensor]:
        token, filler = self.processor.image_token_id, self.processor.tokenizer.pad_token_id or 0
        images, regions, labels = [], [], []
        for group in groups:
            for ids, wanted in group.rows:
                image, region = split_prompt(ids, token)
                regions.append(region)
                labels.append(wanted[len(image) :])
            images.append(image)  # the same for every region of an image
        return {
            "image_ids": pad_rows(images, filler, left=True),
            "image_attention": pad_rows([[1] * len(row) for row in images], 0, left=True),
            "region_ids": pad_rows(regions, filler),
            "region_attention": pad_rows([[1] * len(row) for row in regions], 0),
            "labels": pad_rows(labels, IGNORED),
        }
