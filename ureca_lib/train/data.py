"""Data of a run: images to train on, those held out, and how regions become batches.

A group is an image and up to K of its regions. In each epoch every captioned region is in one
group; groups come in an order drawn for the epoch, of all or within a shuffle buffer. A group is a
function of the seed and its place in the run alone, so a resumed run needs nothing but its step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch
from PIL import Image
from torch.utils.data import Dataset

from ureca_lib.conversation import Conversation
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region
from ureca_lib.train.grouped import Row, group_rows
from ureca_lib.train.index import RegionIndex, open_index
from ureca_lib.train.settings import TrainSettings

RESIZED = (0.5, 1.0)  # bounds of each side's factor in the authors' code, which leaves it off
FAULTS_SHOWN = 10
SHARD = 1000  # neighboring images, which are read together


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
        ValueError: no caption, too few images to hold some out, the same images in both, nothing
            that `best_metric` could be measured on, or data that cannot be read.
        FileNotFoundError: no such data.
    """
    s = settings
    images, held_out = open_index(s.data, s.limit, folder, s.workers, progress), None
    if s.eval_every and s.eval_data is not None:
        held_out = open_index(s.eval_data, s.eval_images, folder, s.workers, progress)
        own = pc.is_in(held_out.table["image_id"], images.table["image_id"].combine_chunks())
        if shared := held_out.table.filter(own)["image_id"].to_pylist():
            raise ValueError(
                f"{len(shared)} images, such as {min(shared)}, are in both data and eval_data"
            )
    elif s.eval_every:
        first = len(images) - s.eval_images
        if first < 1:
            raise ValueError(
                f"{s.data} has {len(images)} images, and eval_images would hold {s.eval_images} "
                "of them out: name others with eval_data"
            )
        images, held_out = images.part(0, first), images.part(first, len(images))
    if held_out is not None and s.best_metric == "unique" and not held_out.row(0)["scene"]:
        raise ValueError(
            "best_metric unique is for scenes, and the images held out are none: choose loss or "
            "exact_match"
        )
    if not images.counts.any():
        raise ValueError(f"{s.data}: no region has a caption to learn from")
    return images, held_out


def check_data(
    index: RegionIndex, settings: TrainSettings, conversation: Conversation | None
) -> None:
    """Check files, photos, captions and questions before the first step.

    Args:
        index: of the images.
        settings: of the run.
        conversation: with the model's tokenizer; None leaves texts unchecked.

    Raises:
        ValueError: the first faults, each naming its file, or its image and region.
    """
    index.check_files()
    faults = pc.drop_null(index.table["fault"]).to_pylist()
    columns = ["image_id", "ids", "captions", "questions"]
    for row in index.table.select(columns).to_pylist() if conversation else ():
        for region, *texts in zip(row["ids"], row["captions"], row["questions"], strict=True):
            try:
                for caption in texts[0]:
                    conversation.check_answer(caption)
                for question in [*texts[1], settings.question]:
                    conversation.prompt(question)
            except ValueError as error:
                faults.append(f"{row['image_id']}: region {region}: {error}")
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise ValueError("; ".join(faults[:FAULTS_SHOWN]) + more)


class GroupOrder:
    """Image and regions of each group of a run.

    Args:
        counts: captioned regions of each image.
        size: K, maximum number of regions per group.
        seed: of the order.
        buffer: groups that are shuffled at once. The buffer is filled shard by shard, so that a
            run reads few places of a disk at a time, and drained before it is filled again, so
            that each of its fillings can be drawn by itself. 0 shuffles all groups.
    """

    def __init__(self, counts: Sequence[int], size: int, seed: int, buffer: int = 0):
        self.counts, self.size, self.seed, self.buffer = np.asarray(counts), size, seed, buffer
        self._ends = np.cumsum(-(-self.counts // size), dtype=np.int64)

    def __len__(self) -> int:
        """Groups of an epoch."""
        return int(self._ends[-1])

    def __call__(self, position: int) -> tuple[int, list[int]]:
        """The image's number and the places of the regions of a group; positions never end."""
        epoch, place = divmod(position, len(self))
        filling, place = divmod(place, self.buffer or len(self))
        group = int(self._groups(epoch, filling)[place])
        image = int(np.searchsorted(self._ends, group, side="right"))
        part = group - (int(self._ends[image - 1]) if image else 0)
        regions = np.random.default_rng([self.seed, epoch, image]).permutation(self.counts[image])
        return image, regions[part * self.size : (part + 1) * self.size].tolist()

    @lru_cache(maxsize=2)  # noqa: B019, an order lives as long as its run
    def _groups(self, epoch: int, filling: int) -> np.ndarray:
        """Groups in the order of a filling of the buffer; without one, of the epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        if not self.buffer:
            return rng.permutation(len(self))
        ends = np.append(self._ends[SHARD - 1 : -1 : SHARD], len(self))
        shards = rng.permutation(len(ends))
        sizes = np.diff(ends, prepend=0)[shards]
        passed = np.cumsum(sizes) - sizes  # groups of the shards before each
        first = filling * self.buffer
        read = (passed < first + self.buffer) & (passed + sizes > first)
        groups = [
            np.arange(ends[s] - n, ends[s]) for s, n in zip(shards[read], sizes[read], strict=True)
        ]
        skipped = first - passed[read][0]
        chosen = np.concatenate(groups)[skipped : skipped + self.buffer]
        return np.random.default_rng([self.seed, epoch, filling, 1]).permutation(chosen)


def total_steps(settings: TrainSettings, groups: int) -> int:
    """Optimizer steps of a run whose epoch has so many groups."""
    return settings.steps or math.ceil(groups * settings.epochs / settings.batch_size)


class GroupSample(NamedTuple):
    """An image and K of its regions, ready to be put into a batch.

    Attributes:
        rows: of each region the ids and labels of question and caption, placeholders repeated.
        mask_values: (K, T, 1, S, S) float32.
        mask_places: (T, 2), row and column of each mask tile; None without a tile embedding.
        pixel_values: (T, 3, S, S) float32.
    """

    rows: list[Row]
    mask_values: torch.Tensor
    mask_places: torch.Tensor | None
    pixel_values: torch.Tensor


class RegionCaptionDataset(Dataset):
    """The groups of a whole run.

    Args:
        index: of the images.
        processor: of the model.
        settings: of the run.
    """

    def __init__(self, index: RegionIndex, processor: UrecaProcessor, settings: TrainSettings):
        self.index, self.processor, self.settings = index, processor, settings
        self.order = GroupOrder(
            index.counts, settings.regions_per_image, settings.seed, settings.shuffle_buffer
        )
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
        row, photo = self.index.row(number), self.index.pixels(number)
        most = self.processor.max_tiles_train
        regions, texts = self.index.regions(number), []
        regions = [regions[place] for place in chosen]
        for place in chosen:
            captions, asked = row["captions"][place], row["questions"][place]
            pick = int(rng.integers(len(captions))) if len(captions) > 1 else 0
            texts.append((asked[pick] if asked else self.settings.question, captions[pick]))
        if rng.random() < self.settings.resize_share:
            photo, regions = resize_together(photo, regions, rng.uniform(*RESIZED, size=2))
        size, pixels = photo.shape[:2], self.processor.image_tiles(photo, most)
        with warnings.catch_warnings():  # of which an epoch would give thousands
            warnings.filterwarnings("ignore", message=r".*vanishes when its mask is resized.*")
            masks = self.processor.mask_tiles(regions, size, most)
        if self.settings.no_mask:
            masks = torch.zeros_like(masks)
        rows = [self.processor.token_ids(*text, len(pixels), masks.shape[1]) for text in texts]
        return GroupSample(rows, masks, self.processor.mask_places(size, most), pixels)


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
    pairs = zip(regions, masks, strict=True)
    resized = [Region.from_mask(region.id, mask, region.name) for region, mask in pairs]
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
            a tile embedding; `image_of` (R,), which image each region is of; `images`, the tiles
            of each image, (T, 3, S, S). In one row each: `input_ids`
            and `attention_mask`, (R, L), padded on the left; grouped: see `group_rows`.
        """
        batch: dict[str, Any] = {
            "mask_values": torch.cat([group.mask_values.flatten(0, 1) for group in groups]),
            "images": [group.pixel_values for group in groups],
        }
        if groups[0].mask_places is not None:
            places = [group.mask_places.repeat(len(group.rows), 1) for group in groups]
            batch["mask_places"] = torch.cat(places)
        if self.grouped:
            rows, filler = [group.rows for group in groups], self.processor.tokenizer.pad_token_id
            return batch | group_rows(rows, self.processor.image_token_id, filler or 0)
        ids, labels = zip(*(row for group in groups for row in group.rows), strict=True)
        counts = torch.tensor([len(group.rows) for group in groups])
        batch["image_of"] = torch.arange(len(groups)).repeat_interleave(counts)
        return batch | self.processor.pad(ids, labels)
