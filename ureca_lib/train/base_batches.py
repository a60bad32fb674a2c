"""Batches for the tiny base: regions given as boxes in text, and whole scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ureca_lib.conversation import Conversation, expand
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD
from ureca_lib.train.base_aids import token_extents
from ureca_lib.train.boxes import BOX_BINS, BOX_MARKS, NUMBERS, SCENE_QUESTION
from ureca_lib.train.grouped import GroupedBatch, pad_rows, split_prompt
from ureca_lib.train.scene_shards import SceneArrays

MAX_GAP = 120  # free positions between image and region: 7 tiles of 16 mask tokens fit in


@dataclass(frozen=True)
class BaseBatch:
    """A grouped batch and what the second losses need.

    Attributes:
        grouped: see `GroupedBatch`.
        patches: (T, patches, 6) uint8, labels of the tiles' patches.
        extents: (B, tokens, 4), see `token_extents`.
        boxes: (R, 4) in shares of the image, left, top, right, bottom; zeros where there is none.
        asking: (R, L) bool, positions after the box; none where there is none.
    """

    grouped: GroupedBatch
    patches: torch.Tensor
    extents: torch.Tensor
    boxes: torch.Tensor
    asking: torch.Tensor


class BaseBatches:
    """Scenes into grouped batches.

    Args:
        tokenizer: see `scene_tokenizer`.
        tokens_a_tile: image tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens_a_tile: int):
        self.tokenizer = tokenizer
        self.conversation = Conversation(tokenizer, "after_image", with_mask=False)
        self.image_token_id = self.conversation.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        self.tokens_a_tile = tokens_a_tile

    def batch(
        self,
        scenes: list[SceneArrays],
        regions: int | None = None,
        random: np.random.Generator | None = None,
    ) -> BaseBatch:
        """A batch of scenes with as many tiles each.

        Args:
            scenes: B of them.
            regions: so many of each scene, drawn by `random`, and the scene as a whole besides;
                by default all regions, and nothing else.
            random: where regions, and the gaps before them, are drawn from.
        """
        heads, rows, image_of = [], [], []
        for i, scene in enumerate(scenes):
            turns = self._turns(scene, regions, random)
            parts = [self._split(*turn, len(scene.tiles)) for turn in turns]
            heads.append(parts[0][0])
            rows += [part[1:] for part in parts]
            image_of += [i] * len(parts)
        filler = self.tokenizer.pad_token_id
        gaps = None
        if random is not None:
            gaps = torch.from_numpy(random.integers(0, MAX_GAP + 1, len(rows)))
        region_ids = [ids for ids, _ in rows]
        grouped = GroupedBatch(
            image_ids=pad_rows(heads, filler, left=True),
            image_attention=pad_rows([[1] * len(head) for head in heads], 0, left=True),
            region_ids=pad_rows(region_ids, filler),
            region_attention=pad_rows([[1] * len(ids) for ids in region_ids], 0),
            labels=pad_rows([labels for _, labels in rows], -100),
            image_of=torch.tensor(image_of),
            pixel_values=as_pixel_values(torch.cat([scene.tiles for scene in scenes])),
            gaps=gaps,
        )
        patches = torch.cat([scene.patches for scene in scenes])
        side = round(self.tokens_a_tile**0.5)
        extents = torch.stack([token_extents(scene.grid, side) for scene in scenes])
        return BaseBatch(grouped, patches, extents, *self._boxes(grouped))

    def _boxes(self, grouped: GroupedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes as they are told, (R, 4), and the positions after them, (R, L)."""
        ids = grouped.region_ids
        box, zero = self.tokenizer.convert_tokens_to_ids([BOX_MARKS[0], NUMBERS[0]])
        told = (ids == box).any(1)
        first = (ids == box).int().argmax(1) + 1
        numbers = ids.gather(1, first[:, None] + torch.arange(4)) - zero  # (R, 4)
        boxes = (numbers + torch.tensor([0, 0, 1, 1])) / BOX_BINS * told[:, None]
        after = torch.arange(ids.shape[1]) >= first[:, None] + 4  # the mark that ends it, too
        return boxes, after & told[:, None] & (grouped.region_attention > 0)

    def _turns(
        self, scene: SceneArrays, regions: int | None, random: np.random.Generator | None
    ) -> list[tuple[str, str]]:
        pairs = list(zip(scene.questions, scene.captions, strict=True))
        if regions is None or random is None:
            return pairs
        chosen = random.permutation(len(pairs))[np.arange(regions) % len(pairs)]
        return [*(pairs[i] for i in chosen), (SCENE_QUESTION, " ".join(scene.kinds))]

    def _split(
        self, question: str, answer: str, tiles: int
    ) -> tuple[list[int], list[int], list[int]]:
        turn = self.conversation.tokenize(question, answer)
        repeats = {self.image_token_id: tiles * self.tokens_a_tile}
        ids, labels = expand(turn.input_ids, turn.labels, repeats)
        image, region = split_prompt(ids, self.image_token_id)
        return image, region, labels[len(image) :]


def as_pixel_values(tiles: torch.Tensor) -> torch.Tensor:
    """(T, S, S, 3) uint8 -> (T, 3, S, S) float32 with ImageNet's mean and deviation taken off."""
    mean = torch.tensor(IMAGENET_MEAN) * 255
    std = torch.tensor(IMAGENET_STD) * 255
    return ((tiles - mean) / std).permute(0, 3, 1, 2).contiguous()
