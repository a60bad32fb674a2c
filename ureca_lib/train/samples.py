"""Which regions are learnt in which step: a pure function of the seed and the place in the run.

A group is an image and up to K of its regions. In each epoch every captioned region stands in one
group; groups come in an order drawn for the epoch. The dataset is the whole run, group after
group, so that a run which is resumed goes on by skipping, and nothing needs to be remembered.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch.utils.data import Dataset

from ureca_lib.train.augment import draw_scale, resize_together
from ureca_lib.train.images import TrainingImages, mask_tiles
from ureca_lib.train.settings import TrainSettings


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
    """Which image and which of its regions stand at each place of a run.

    Args:
        counts: captioned regions of each image.
        size: K, regions of a group at most.
        seed: of the order.
    """

    def __init__(self, counts: list[int], size: int, seed: int):
        self.counts, self.size, self.seed = counts, size, seed
        self._ends = list(accumulate(-(-count // size) for count in counts))

    def __len__(self) -> int:
        """Groups of an epoch."""
        return self._ends[-1] if self._ends else 0

    def __call__(self, position: int) -> tuple[int, list[int]]:
        """The image's number and the places of the regions of a group; positions never end."""
        epoch, place = divmod(position, len(self))
        group = int(self._epoch(epoch)[place])
        image = bisect_right(self._ends, group)
        part = group - (self._ends[image - 1] if image else 0)
        chance = np.random.default_rng([self.seed, epoch, image])
        regions = chance.permutation(self.counts[image])
        return image, regions[part * self.size : (part + 1) * self.size].tolist()

    @lru_cache(maxsize=2)  # noqa: B019, an order lives as long as its run
    def _epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self))


def total_steps(settings: TrainSettings, groups: int) -> int:
    """Optimizer steps of a run whose epoch has so many groups."""
    if settings.steps is not None:
        return settings.steps
    return max(1, -int(-groups * settings.epochs // settings.batch_size))


class GroupDataset(Dataset):
    """The groups of a whole run.

    Args:
        images: read to the end.
        settings: of the run.
        length: groups of the whole run.
    """

    def __init__(self, images: TrainingImages, settings: TrainSettings, length: int):
        self.images, self.settings, self.length = images, settings, length
        self.order = GroupOrder(images.counts(), settings.regions_per_image, settings.seed)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> GroupSample:
        return self._group(*self.order(position), position)

    def of_image(self, number: int) -> GroupSample:
        """The first regions of an image, in their own order."""
        count = min(len(self.images.records[number].regions), self.settings.regions_per_image)
        return self._group(number, list(range(count)), number)

    def _group(self, number: int, chosen: list[int], position: int) -> GroupSample:
        record, processor = self.images.records[number], self.images.processor
        chance = np.random.default_rng([self.settings.seed, 1, position])
        texts = [record.captions[place] for place in chosen]
        texts = [each[chance.integers(len(each))] if len(each) > 1 else each[0] for each in texts]
        pixels = features = None
        size = record.size
        scale = draw_scale(self.settings, chance)
        if scale != 1:
            regions = [record.regions[place] for place in chosen]
            photo, regions = resize_together(self.images.pixels(number), regions, scale)
            size = photo.shape[:2]
            masks = mask_tiles(processor, regions, size, self.images.max_tiles)
        else:
            features = self.images.features(number)
            photo = None if features is not None else self.images.pixels(number)
            masks = self.images.mask_tiles(number, chosen)
        if features is None:
            pixels = processor.image_tiles(photo, self.images.max_tiles)
        if self.settings.blind:
            masks = torch.zeros_like(masks)
        tiles = len(pixels if features is None else features)
        rows = [self._row(text, tiles, masks.shape[1]) for text in texts]
        places = processor.mask_places(size, self.images.max_tiles)
        key = record.key if scale == 1 else None
        return GroupSample(rows, masks, places, pixels, features, key)

    def _row(self, text: str, tiles: int, masks: int) -> tuple[list[int], list[int]]:
        return self.images.processor.token_ids(self.settings.question, text, tiles, masks)
