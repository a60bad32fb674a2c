"""Grouped training: an image is run once, and its regions reuse its keys and values.

With the mask after the image (`mask_position="after_image"`, as published), a sample is an image's
part of the prompt, which no mask changes, and a region's part. Of K regions of an image, the first
is the same K times, and most of the tokens. Its keys and values are computed once and given to
each region. The loss and its gradients are those of K separate samples, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch.nn import functional
from transformers import DynamicCache

from ureca_lib.configuration import CACHE
from ureca_lib.conversation import IGNORED
from ureca_lib.model import UrecaForConditionalGeneration, positions


@dataclass(frozen=True)
class GroupedBatch:
    """B images and R regions of them.

    Attributes:
        image_ids: (B, P) ids of the prompt up to the end of the image, padded on the left.
        image_attention: (B, P), 0 at padding.
        region_ids: (R, L) ids of the rest: mask, question, answer; padded on the right.
        region_attention: (R, L), 0 at padding.
        labels: (R, L) ids to learn, `IGNORED` elsewhere.
        image_of: (R,) which of the B images each region is of.
        pixel_values: (T, 3, S, S), or None where `image_features` are given.
        image_features: (T, tokens, D), or None.
        mask_values: (M, 1, S, S), or None for a model that is shown no masks.
        mask_places: (M, 2) for a model with a tile embedding, or None.
        gaps: (R,) positions left free between an image and its region, or None. A base trained
            with random gaps accepts any number of mask tokens in between.
    """

    image_ids: torch.Tensor
    image_attention: torch.Tensor
    region_ids: torch.Tensor
    region_attention: torch.Tensor
    labels: torch.Tensor
    image_of: torch.Tensor
    pixel_values: torch.Tensor | None = None
    image_features: torch.Tensor | None = None
    mask_values: torch.Tensor | None = None
    mask_places: torch.Tensor | None = None
    gaps: torch.Tensor | None = None

    def to(self, device: str | torch.device) -> GroupedBatch:
        """The same on another device."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in named.items() if v is not None})

    @property
    def tokens(self) -> int:
        """Number of labelled tokens."""
        return int((self.labels != IGNORED).sum())


@dataclass(frozen=True)
class GroupedOutput:
    """Result of a grouped step.

    Attributes:
        loss: sum of the answers' token losses over their number.
        correct: (R,) bool, whether every token of a region's answer is the likeliest one given
            those before it; greedy decoding then writes exactly this answer.
    """

    loss: torch.Tensor
    correct: torch.Tensor


def split_prompt(ids: list[int], image_token_id: int) -> tuple[list[int], list[int]]:
    """Split a sample's ids after the token that ends the image.

    Raises:
        ValueError: no image placeholder.
    """
    places = [i for i, token in enumerate(ids) if token == image_token_id]
    if not places:
        raise ValueError("the sample has no image placeholder")
    return ids[: places[-1] + 2], ids[places[-1] + 2 :]


def pad_rows(rows: list[list[int]], filler: int, left: bool = False) -> torch.Tensor:
    """Rows of different lengths as (rows, longest), filled up on one side."""
    longest = max(map(len, rows))
    gaps = [[filler] * (longest - len(row)) for row in rows]
    pairs = zip(gaps, rows, strict=True)
    return torch.tensor([gap + row if left else row + gap for gap, row in pairs])


def grouped_forward(
    model: UrecaForConditionalGeneration,
    batch: GroupedBatch,
    tokens: int | torch.Tensor | None = None,
) -> GroupedOutput:
    """Loss of R regions of B images that share prefixes.

    Args:
        model: with its masks after the image.
        batch: see `GroupedBatch`.
        tokens: what the summed loss is divided by, for gradient accumulation over batches; by
            default the batch's own tokens.

    Raises:
        ValueError: the numbers of features and placeholders differ.
    """
    inner = model.model
    features = batch.image_features
    if features is None:
        features = inner.get_image_features(batch.pixel_values, return_dict=True).pooler_output
    cache = run_images(model, batch, features)
    for layer in cache.layers:
        layer.keys = _given_to_regions(layer.keys, batch.image_of)
        layer.values = _given_to_regions(layer.values, batch.image_of)
    masks = None
    if batch.mask_values is not None:
        masks = model.get_mask_features(batch.mask_values, batch.mask_places)
    embeds = inner.embed_inputs(batch.region_ids, mask_features=masks)
    seen = torch.cat([batch.image_attention[batch.image_of], batch.region_attention], dim=1)
    places = positions(seen, embeds.shape[1])
    if batch.gaps is not None:
        places = places + batch.gaps[:, None]
    hidden = inner.language_model(
        inputs_embeds=embeds,
        attention_mask=seen,  # (R, P + L)
        position_ids=places,
        use_cache=True,
        **{CACHE: cache},
    ).last_hidden_state
    return _score(model, hidden, batch.labels, tokens)


def run_images(
    model: UrecaForConditionalGeneration, batch: GroupedBatch, features: torch.Tensor
) -> DynamicCache:
    """The images' keys and values, (B, heads, P, head size) a layer."""
    inner = model.model
    embeds = inner.embed_inputs(batch.image_ids, image_features=features)
    cache = DynamicCache()
    inner.language_model(
        inputs_embeds=embeds,
        attention_mask=batch.image_attention,
        position_ids=positions(batch.image_attention, embeds.shape[1]),
        use_cache=True,
        **{CACHE: cache},
    )
    return cache


def _given_to_regions(states: torch.Tensor, image_of: torch.Tensor) -> torch.Tensor:
    """(B, heads, P, size) -> (R, heads, P, size)."""
    images, regions = len(states), len(image_of)
    if images and regions % images == 0:
        each = torch.arange(images, device=image_of.device).repeat_interleave(regions // images)
        if torch.equal(each, image_of):  # its gradient is a plain sum, several times faster
            return states.unsqueeze(1).expand(-1, regions // images, -1, -1, -1).flatten(0, 1)
    return states.index_select(0, image_of)


def _score(
    model: UrecaForConditionalGeneration,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    tokens: int | torch.Tensor | None,
) -> GroupedOutput:
    """Run the head at labelled positions only: most tokens are of mask and question."""
    wanted = labels[:, 1:]  # a position's hidden state predicts the next token
    where = wanted != IGNORED
    targets = wanted[where]
    logits = model.lm_head(hidden[:, :-1][where]).float()  # (answer tokens, vocabulary)
    loss = functional.cross_entropy(logits, targets, reduction="sum")
    wrong = torch.zeros_like(wanted, dtype=torch.bool)
    wrong[where] = logits.detach().argmax(-1) != targets
    return GroupedOutput(loss / (len(targets) if tokens is None else tokens), ~wrong.any(1))
