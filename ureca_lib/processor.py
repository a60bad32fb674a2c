"""From an image, masks and a question to the model's inputs."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from ureca_lib.configuration import MAX_TILES, MAX_TILES_TRAIN, NUM_MASK_TOKENS, UrecaConfig
from ureca_lib.conversation import (
    IGNORED,
    IMAGE_CONTEXT,
    MASK_CONTEXT,
    QUESTION,
    Conversation,
    require_tokens,
)
from ureca_lib.mask_encoder import MAX_PLACES
from ureca_lib.regions import Region, SizeMismatchError, load_image
from ureca_lib.tiling import (
    MaskLike,
    MaskTiles,
    as_region,
    best_grid,
    distinct_mask_tiles,
    tile_image,
    tile_places,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Photo = str | Path | Image.Image | np.ndarray


class UrecaProcessor(ProcessorMixin):
    """Tokenizer, tiling and chat format of a URECA model; saved and loaded beside it.

    Args:
        tokenizer: with the chat's and the placeholders' special tokens.
        tile_size, mask_size: S, sides of image and mask tiles in pixels; `mask_size` is by default
            `tile_size`.
        image_seq_length: image tokens per tile.
        The rest: see the fields of `UrecaConfig` of the same names.

    Raises:
        ValueError: the tokenizer lacks a special token.
    """

    _no_masks = False  # see `without_masks`

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tile_size: int = 448,
        mask_size: int | None = None,
        image_seq_length: int = 256,
        num_mask_tokens: int = NUM_MASK_TOKENS,
        mask_position: str = "before_image",
        mask_scale: float = 1,
        mask_dynamic: bool = True,
        mask_thumbnail: bool = True,
        mask_overshoot: str = "clip",
        mask_tile_embedding: bool = False,
        min_tiles: int = 1,
        max_tiles: int = MAX_TILES,
        max_tiles_train: int = MAX_TILES_TRAIN,
        use_thumbnail: bool = True,
        system_message: str = "",
        chat_template: str | None = None,
    ):
        require_tokens(tokenizer)
        super().__init__(tokenizer, chat_template=chat_template)
        self.tile_size, self.mask_size = tile_size, mask_size or tile_size
        self.image_seq_length, self.num_mask_tokens = image_seq_length, num_mask_tokens
        self.mask_position, self.mask_scale = mask_position, mask_scale
        self.mask_dynamic, self.mask_thumbnail = mask_dynamic, mask_thumbnail
        self.mask_overshoot, self.mask_tile_embedding = mask_overshoot, mask_tile_embedding
        self.min_tiles, self.max_tiles, self.max_tiles_train = min_tiles, max_tiles, max_tiles_train
        self.use_thumbnail, self.system_message = use_thumbnail, system_message

    @classmethod
    def from_config(cls, config: UrecaConfig, tokenizer: PreTrainedTokenizerBase) -> UrecaProcessor:
        """The processor of a model.

        Raises:
            ValueError: the tokenizer lacks a special token, or numbers a placeholder otherwise.
        """
        names = set(inspect.signature(cls).parameters) - {"tokenizer", "chat_template"}
        processor = cls(tokenizer, **{name: getattr(config, name) for name in names})
        processor.match(config)
        return processor

    def match(self, config: UrecaConfig) -> None:
        """Set the placeholder ids in a model's configuration, or check them if it has them.

        Raises:
            ValueError: it has other ids.
        """
        for name in ("image_token_id", "mask_token_id"):
            ours, theirs = getattr(self, name), getattr(config, name)
            if theirs not in (None, ours):
                raise ValueError(
                    f"the tokenizer's {name} is {ours}, the model's is {theirs}: model and "
                    "tokenizer do not belong together"
                )
            setattr(config, name, ours)

    @property
    def image_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)

    @property
    def mask_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(MASK_CONTEXT)

    @property
    def conversation(self) -> Conversation:
        return Conversation(self.tokenizer, self.mask_position, self.system_message)

    def __call__(
        self,
        image: Photo | Sequence[Photo],
        masks: MaskLike | Sequence[MaskLike],
        question: str | Sequence[str] = QUESTION,
        answer: str | Sequence[str] | None = None,
        train: bool = False,
        max_tiles: int | None = None,
    ) -> BatchFeature:
        """Make one sample per mask.

        Args:
            image: one image for all masks, or as many as masks. A path, a PIL image or an array,
                RGB, RGBA, grey, 16-bit or CMYK; see `ureca_lib.regions.load_image`.
            masks: a (H, W) array, a COCO run-length encoding or a `Region`; one or several.
            question: one for all, or one per mask. It may place `<image>` and `<mask>` itself.
            answer: as `question`; adds `labels`.
            train: use `max_tiles_train` instead of `max_tiles`.
            max_tiles: use this instead of either.

        Returns:
            `input_ids`, `attention_mask` and, with an answer, `labels`: (B, L), padded on the left;
            `pixel_values` (sum of image tiles, 3, S, S) and `mask_values` (sum of mask tiles, 1,
            S, S) float32, in the samples' order; with a tile embedding also `mask_places` (sum of
            mask tiles, 2).

        Raises:
            RegionError: an unreadable image, a mask that is empty or has another size than its
                image.
            ValueError: no masks, numbers that do not fit, a special token in a question or answer.
        """
        one = isinstance(masks, Region | Mapping) or getattr(masks, "ndim", None) == 2
        regions = [as_region(mask, i) for i, mask in enumerate([masks] if one else masks)]
        count = len(regions)
        if count == 0:
            raise ValueError("no masks: one sample is made of each")
        most = max_tiles or (self.max_tiles_train if train else self.max_tiles)
        questions = _as_many(question, count, "questions")
        answers = _as_many(answer, count, "answers")
        shared = isinstance(image, Photo)
        images = [image] if shared else _as_many(image, count, "images")
        pairs = zip(images, regions, strict=not shared)
        photos = [load_photo(photo, region.size) for photo, region in pairs]
        tiles = [self.image_tiles(photo, most) for photo in photos]
        if shared:
            photos, tiles = photos * count, tiles * count
        mask_tiles = [
            self.mask_tiles([region], photo.shape[:2], most)[0]
            for region, photo in zip(regions, photos, strict=True)
        ]
        rows = [
            self.token_ids(q, a, len(t), len(m))
            for q, a, t, m in zip(questions, answers, tiles, mask_tiles, strict=True)
        ]
        batch = self.pad([ids for ids, _ in rows], [labels for _, labels in rows])
        if answer is None:
            del batch["labels"]
        batch["pixel_values"], batch["mask_values"] = torch.cat(tiles), torch.cat(mask_tiles)
        if self.mask_tile_embedding:
            places = [self.mask_places(photo.shape[:2], most) for photo in photos]
            batch["mask_places"] = torch.cat(places)
        return BatchFeature(batch)

    def image_tiles(self, image: np.ndarray, max_tiles: int | None = None) -> torch.Tensor:
        """(H, W, 3) uint8 -> (T, 3, S, S) float32, normalized as ImageNet's images."""
        tiles = tile_image(
            image,
            max_tiles=max_tiles or self.max_tiles,
            min_tiles=self.min_tiles,
            tile_size=self.tile_size,
            thumbnail=self.use_thumbnail,
        )
        mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
        tiles = tiles.permute(0, 3, 1, 2)  # (T, S, S, 3) -> (T, 3, S, S)
        return ((tiles / 255 - mean) / std).contiguous()

    def mask_tiles(
        self, regions: Sequence[Region], size: tuple[int, int], max_tiles: int | None = None
    ) -> torch.Tensor:
        """(R, T, 1, S, S) float32, values 0 to `mask_scale`; see `distinct_mask_tiles`."""
        tiles = self.distinct_mask_tiles(regions, size, max_tiles)
        values = tiles.values(self.mask_scale)[tiles.index]
        return values.unsqueeze(2)  # (R, T, S, S) -> (R, T, 1, S, S)

    def distinct_mask_tiles(
        self, regions: Sequence[Region], size: tuple[int, int], max_tiles: int | None = None
    ) -> MaskTiles:
        """The mask tiles of R regions, each distinct tile once, values 0 to 1 or levels 0 to 255.

        Args:
            regions: R regions of one image.
            size: (H, W) of the image.
            max_tiles: by default `self.max_tiles`; one where masks are not tiled.

        Raises:
            SizeMismatchError: a region of another size than the image.
        """
        for region in regions:
            region.check_size(*size)
        most = (max_tiles or self.max_tiles) if self.mask_dynamic else 1
        tiles = distinct_mask_tiles(
            regions,
            max_tiles=most,
            min_tiles=min(self.min_tiles, most),
            tile_size=self.mask_size,
            thumbnail=self.mask_thumbnail and self.mask_dynamic,
            overshoot=self.mask_overshoot,
        )
        if self._no_masks:
            return tiles._replace(index=torch.zeros_like(tiles.index))
        for region, seen in zip(regions, tiles.index.any(1).tolist(), strict=True):
            if not seen:
                warnings.warn(
                    f"region {region.id}, {region.area} pixels, vanishes when its mask is resized "
                    f"to tiles of {self.mask_size}: the model sees no mask",
                    stacklevel=2,
                )
        return tiles

    def without_masks(self) -> UrecaProcessor:
        """The same processor with blank mask tiles, for a model that was trained without masks."""
        processor = copy.copy(self)
        processor._no_masks = True
        return processor

    def count_mask_tiles(self, size: tuple[int, int], max_tiles: int | None = None) -> int:
        """T, the mask tiles of an image of `size` (H, W); see `mask_tiles`."""
        return len(tile_places(self._mask_grid(size, max_tiles), self.mask_thumbnail))

    def mask_places(
        self, size: tuple[int, int], max_tiles: int | None = None
    ) -> torch.Tensor | None:
        """(T, 2) int64, row and column of each mask tile; None for a model without tile embedding.

        Args:
            size, max_tiles: as `mask_tiles` has them.

        Raises:
            ValueError: a grid of more rows or columns than the embedding has.
        """
        if not self.mask_tile_embedding:
            return None
        grid = self._mask_grid(size, max_tiles)
        if max(grid) > MAX_PLACES:
            raise ValueError(
                f"a grid of {grid[0]} x {grid[1]} tiles, and the tile embedding knows "
                f"{MAX_PLACES} columns and rows: lower max_tiles"
            )
        return tile_places(grid, self.mask_thumbnail)

    def _mask_grid(self, size: tuple[int, int], max_tiles: int | None) -> tuple[int, int]:
        """(columns, rows) of the mask tiles of an image of `size` (H, W)."""
        if not self.mask_dynamic:
            return 1, 1
        most = max_tiles or self.max_tiles
        return best_grid(size[1], size[0], most, min(self.min_tiles, most), self.mask_size)

    def token_ids(
        self, question: str, answer: str | None, image_tiles: int, mask_tiles: int
    ) -> tuple[list[int], list[int]]:
        """Ids and labels of one sample, placeholders repeated for its tiles."""
        repeats = {
            self.image_token_id: self.image_seq_length * image_tiles,
            self.mask_token_id: self.num_mask_tokens * mask_tiles,
        }
        return self.conversation.tokenize(question, answer, repeats)

    def pad(self, rows: list[list[int]], labels: list[list[int]]) -> dict[str, torch.Tensor]:
        """Pad on the left: `input_ids`, `attention_mask`, `labels`, each (B, L)."""
        filler = self.tokenizer.pad_token_id
        if filler is None:
            filler = self.tokenizer.eos_token_id or 0  # hidden by the attention mask
        length = max(len(row) for row in rows)
        gaps = [length - len(row) for row in rows]
        return {
            "input_ids": torch.tensor([[filler] * g + r for g, r in zip(gaps, rows, strict=True)]),
            "attention_mask": torch.tensor([[0] * g + [1] * (length - g) for g in gaps]),
            "labels": torch.tensor([[IGNORED] * g + r for g, r in zip(gaps, labels, strict=True)]),
        }


def load_photo(photo: Photo, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8, in the orientation that fits its masks, if one does."""
    try:
        return load_image(photo, expected=size)
    except SizeMismatchError:
        return load_image(photo)  # the mask's own check will name the region


def _as_many(value: Any, count: int, what: str) -> list:
    if value is None or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{len(value)} {what} for {count} masks")
    return list(value)


AutoProcessor.register(UrecaConfig, UrecaProcessor)
