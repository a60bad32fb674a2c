"""Batches for the tiny base: regions given as boxes in text, and whole scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ureca_lib.conversation import Conversation, expand
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD
from ureca_lib.train.base_aids import token_extents
from ureca_lib.train.boxes import BOX_MARKS, SCENE_QUESTION, told_box
from ureca_lib.train.grouped import GroupedBatch, pad_rows, split_prompt
from ureca_lib.train.scene_shards import SceneArrays

MAX_GAP = 120  # free positions between image and region: 7 tiles of 16 mask tokens fit in
_NO_BOX = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class BaseBatch:
    """A grouped batch and what the second losses need.

    Attributes:
        grouped: see `GroupedBatch`.
        patches: (T, patches, 6) uint8, labels of the tiles' patches.
        extents: (B, tokens, 4), see `token_extents`.
        boxes: (3, R, 4) in shares of the image, left, top, right, bottom: the region's own, its
            parent's, and that of the object it is part of; zeros where there is none.
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
        heads, rows, image_of, boxes = [], [], [], []
        for i, scene in enumerate(scenes):
            places = self._places(scene, regions, random)
            parts = [self._split(*_turn(scene, place), len(scene.tiles)) for place in places]
            heads.append(parts[0][0])
            rows += [part[1:] for part in parts]
            image_of += [i] * len(parts)
            boxes += [_boxes(scene, place) for place in places]
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
        boxes = torch.tensor(boxes).transpose(0, 1)  # (R, 3, 4) -> (3, R, 4)
        return BaseBatch(grouped, patches, extents, boxes, self._asking(grouped))

    def _asking(self, grouped: GroupedBatch) -> torch.Tensor:
        """(R, L) bool: from the mark that ends the box on."""
        ends = grouped.region_ids == self.tokenizer.convert_tokens_to_ids(BOX_MARKS[1])
        return (ends.cumsum(1) > 0) & (grouped.region_attention > 0)

    def _places(
        self, scene: SceneArrays, regions: int | None, random: np.random.Generator | None
    ) -> list[int | None]:
        """Which regions are asked for; None is the scene as a whole."""
        count = len(scene.captions)
        if regions is None or random is None:
            return list(range(count))
        return [*random.permutation(count)[np.arange(regions) % count].tolist(), None]

    def _split(
        self, question: str, answer: str, tiles: int
    ) -> tuple[list[int], list[int], list[int]]:
        turn = self.conversation.tokenize(question, answer)
        repeats = {self.image_token_id: tiles * self.tokens_a_tile}
        ids, labels = expand(turn.input_ids, turn.labels, repeats)
        image, region = split_prompt(ids, self.image_token_id)
        return image, region, labels[len(image) :]


def _turn(scene: SceneArrays, place: int | None) -> tuple[str, str]:
    """Question and answer."""
    if place is None:
        return SCENE_QUESTION, " ".join(scene.kinds)
    return scene.questions[place], scene.captions[place]


def _boxes(scene: SceneArrays, place: int | None) -> list[tuple[float, ...]]:
    """Boxes of a region, of its parent, and of the object at the top of it; zeros for none."""
    if place is None:
        return [_NO_BOX] * 3
    parent = whole = scene.parents[place]
    while whole >= 0 and scene.parents[whole] >= 0:
        whole = scene.parents[whole]
    return [told_box(scene.questions[p]) or _NO_BOX if p >= 0 else _NO_BOX
            for p in (place, parent, whole)]  # fmt: skip


def as_pixel_values(tiles: torch.Tensor) -> torch.Tensor:
    """(T, S, S, 3) uint8 -> (T, 3, S, S) float32 with ImageNet's mean and deviation taken off."""
    mean = torch.tensor(IMAGENET_MEAN) * 255
    std = torch.tensor(IMAGENET_STD) * 255
    return ((tiles - mean) / std).permute(0, 3, 1, 2).contiguous()
