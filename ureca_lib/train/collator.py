"""From groups of regions to a batch, for either way of running it.

With the mask after the image and several regions of an image, the image's part of the prompt
stands once for all of them (`ureca_lib.train.grouped`); else each region is a row of its own, as
the paper has it, and only the image's features are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ureca_lib.conversation import IGNORED
from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.grouped import pad_rows, split_prompt
from ureca_lib.train.samples import GroupSample


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
