"""What training knows of its images: regions with captions, and how they become tensors.

An image is read once; its regions and captions stay in memory, its pixels do not. Mask tiles, most
of whose pixels are zero, are kept compressed where they fit; features come from a `FeatureCache`.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm.auto import tqdm

from ureca_lib.conversation import Conversation
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region, RegionError
from ureca_lib.train.features import FeatureCache, feature_key
from ureca_lib.train.settings import SettingsError


@dataclass
class ImageRecord:
    """An image without its pixels.

    Attributes:
        image_id: unique in its data.
        size: (H, W) in pixels.
        regions: those that have a caption.
        captions: of each of them, at least one.
        key: of its features; None where they are not kept.
        tiles: mask tiles by place in `regions`, compressed.
    """

    image_id: str
    size: tuple[int, int]
    regions: list[Region]
    captions: list[list[str]]
    key: str | None = None
    tiles: dict[int, bytes] = field(default_factory=dict)


def read_record(image: CaptionedImage) -> ImageRecord:
    """What is kept of an image."""
    wanted = [region for region in image.regions if image.captions.get(region.id)]
    captions = [image.captions[region.id] for region in wanted]
    return ImageRecord(image.image_id, tuple(image.size), wanted, captions)


def _check_captions(record: ImageRecord, words: Conversation) -> None:
    for region, texts in zip(record.regions, record.captions, strict=True):
        for text in texts:
            try:
                words.check_answer(text)
            except ValueError as error:
                raise SettingsError(f"{record.image_id}: region {region.id}: {error}") from None


class TrainingImages:
    """Images to learn from, by number.

    Args:
        images: a sequence that reads an image each time it is indexed.
        processor: of the model.
        max_tiles: of the grid of an image and of its masks.
        cache: of features; None for none.
        fingerprint: of the frozen weights, for the cache's keys.
        mask_bytes: compressed mask tiles that are kept at most.
    """

    def __init__(
        self,
        images: Sequence[CaptionedImage],
        processor: UrecaProcessor,
        max_tiles: int,
        cache: FeatureCache | None = None,
        fingerprint: str = "",
        mask_bytes: int = 2**30,
    ):
        self.images, self.processor, self.max_tiles = images, processor, max_tiles
        self.cache, self.fingerprint, self.mask_bytes = cache, fingerprint, mask_bytes
        self.records: list[ImageRecord] = []

    def read(
        self, progress: bool = True, faults: list[str] | None = None
    ) -> Iterator[tuple[ImageRecord, CaptionedImage]]:
        """Read every image once; to be run to its end before anything else is asked for.

        A photo whose pixels are not needed here is looked for, and its header read.

        Args:
            progress: show a bar.
            faults: gets what is wrong with photos and captions, instead of an error; regions of
                an image with a faulty caption are then left out.

        Raises:
            SettingsError: no region has a caption, or a caption holds a special token.
            RegionError, PublishedError: a file at fault.
        """
        self.records = []
        # without a processor where a plan is made without a tokenizer
        words = None if self.processor is None else self.processor.conversation
        for image in tqdm(self.images, desc="reading images", disable=not progress):
            record = read_record(image)
            try:
                if words is not None:
                    _check_captions(record, words)
                if self.cache is None and record.regions:
                    image.image.check_photo()
            except (SettingsError, RegionError) as error:
                if faults is None:
                    raise
                if isinstance(error, SettingsError):
                    record.regions.clear()
                    record.captions.clear()
                faults.append(str(error))  # which names the file, or image and region
            if self.cache is not None:
                record.key = feature_key(image.pixels, self.fingerprint)
            self.records.append(record)
            yield record, image
        if not any(self.counts()):
            raise SettingsError(f"{self.images}: no region has a caption to learn from")

    def counts(self) -> list[int]:
        """Captioned regions of each image."""
        return [len(record.regions) for record in self.records]

    def content(self) -> str:
        """What tells this data from other: hashed from ids, sizes, masks and captions, in order.

        Photos are left out: their pixels are not read where their features are not kept.
        """
        digest = hashlib.sha256()
        for record in self.records:
            masks = [(region.id, region.rle["counts"].decode()) for region in record.regions]
            told = [record.image_id, record.size, masks, record.captions]
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()[:16]

    def pixels(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8 of an image, read again."""
        return self.images[number].pixels

    def features(self, number: int) -> torch.Tensor | None:
        """(T, tokens, D) where the cache has them."""
        key = self.records[number].key
        return None if key is None else self.cache.get(key)

    def mask_tiles(self, number: int, chosen: Sequence[int]) -> torch.Tensor:
        """(K, T, 1, S, S) float32 of chosen regions, as the processor makes them."""
        record = self.records[number]
        missing = [place for place in chosen if place not in record.tiles]
        made = {}
        if missing:
            tiles = mask_tiles(
                self.processor, [record.regions[p] for p in missing], record.size, self.max_tiles
            )
            made = dict(zip(missing, tiles, strict=True))
            for place, tile in made.items():
                self._keep(record, place, tile)
        return torch.stack([made[p] if p in made else self._unpack(record, p) for p in chosen])

    def _keep(self, record: ImageRecord, place: int, tiles: torch.Tensor) -> None:
        if self.mask_bytes <= 0:
            return
        levels = (tiles * (255 / self.processor.mask_scale)).round().to(torch.uint8)
        if not torch.equal(self._values(levels), tiles):
            return  # values that bytes cannot hold are made anew each time
        packed = zlib.compress(levels.numpy().tobytes(), 1)
        self.mask_bytes -= len(packed)
        record.tiles[place] = packed

    def _unpack(self, record: ImageRecord, place: int) -> torch.Tensor:
        levels = np.frombuffer(bytearray(zlib.decompress(record.tiles[place])), np.uint8)
        side = self.processor.mask_size
        return self._values(torch.from_numpy(levels).view(-1, 1, side, side))

    def _values(self, levels: torch.Tensor) -> torch.Tensor:
        values = levels / 255
        return values if self.processor.mask_scale == 1 else values * self.processor.mask_scale


def mask_tiles(
    processor: UrecaProcessor, regions: Sequence[Region], size: tuple[int, int], max_tiles: int
) -> torch.Tensor:
    """`UrecaProcessor.mask_tiles` without its warnings, of which an epoch would give thousands."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*vanishes when its mask is resized.*")
        return processor.mask_tiles(regions, size, max_tiles)
