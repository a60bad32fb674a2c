"""Grouped training: an image is run once, and its regions reuse its keys and values.

With the mask after the image (`mask_position="after_image"`, as published), a sample is an image's
part of the prompt, which no mask changes, and a region's part. Of K regions of an image, the first
is the same K times, and most of the tokens. Its keys and values are computed once and given to
each region. The loss and its gradients are those of K separate samples, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from ureca_lib.configuration import CACHE
from ureca_lib.conversation import IGNORED
from ureca_lib.model import UrecaForConditionalGeneration, positions, prompt_positions

Row = tuple[list[int], list[int]]  # ids and labels of a sample


def group_rows(
    groups: Sequence[Sequence[Row]], image_token_id: int, filler: int
) -> dict[str, torch.Tensor]:
    """The samples of B images and R regions of them as tensors for `grouped_forward`.

    Args:
        groups: of each image the samples of its regions, which are the same up to the end of the
            image.
        image_token_id: of the image placeholder.
        filler: id at padding.

    Raises:
        ValueError: a sample without an image placeholder.
    """
    images, regions, labels, image_of = [], [], [], []
    for number, rows in enumerate(groups):
        for ids, wanted in rows:
            # one more token ends the image
            end = len(ids) - ids[::-1].index(image_token_id) + 1
            regions.append(ids[end:])
            labels.append(wanted[end:])
            image_of.append(number)
        images.append(ids[:end])
    return {
        "image_ids": _padded(images, filler, "left"),
        "image_attention": _padded([[1] * len(row) for row in images], 0, "left"),
        "region_ids": _padded(regions, filler, "right"),
        "region_attention": _padded([[1] * len(row) for row in regions], 0, "right"),
        "labels": _padded(labels, IGNORED, "right"),
        "image_of": torch.tensor(image_of),
    }


def _padded(rows: list[list[int]], filler: int, side: str) -> torch.Tensor:
    """Rows of different lengths as (rows, longest)."""
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, True, padding_value=filler, padding_side=side)


def grouped_forward(
    model: UrecaForConditionalGeneration,
    image_ids: torch.Tensor,
    image_attention: torch.Tensor,
    region_ids: torch.Tensor,
    region_attention: torch.Tensor,
    labels: torch.Tensor,
    image_of: torch.Tensor,
    image_features: torch.Tensor,
    mask_values: torch.Tensor | None = None,
    mask_places: torch.Tensor | None = None,
    gaps: torch.Tensor | None = None,
    tokens: int | torch.Tensor | None = None,
    seen: list[BaseModelOutputWithPast] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of R regions of B images that share prefixes.

    Args:
        model: with its masks after the image.
        image_ids: (B, P) ids of the prompt up to the end of the image, padded on the left.
        image_attention: (B, P), 0 at padding.
        region_ids: (R, L) ids of the rest: mask, question, answer; padded on the right.
        region_attention: (R, L), 0 at padding.
        labels: (R, L) ids to learn, `IGNORED` elsewhere.
        image_of: (R,) which of the B images each region is of.
        image_features: (T, tokens, D).
        mask_values: (M, 1, S, S), or None for a model that is shown no masks.
        mask_places: (M, 2) for a model with a tile embedding, or None.
        gaps: (R,) positions left free between an image and its region, or None. A base trained
            with random gaps accepts any number of mask tokens in between.
        tokens: see `answer_loss`.
        seen: gets the language model's outputs on images and on regions, with hidden states and
            attention weights; None saves their memory.

    Returns:
        See `answer_loss`.

    Raises:
        ValueError: the numbers of features and placeholders differ.
    """
    inner = model.model
    watch = {} if seen is None else {"output_hidden_states": True, "output_attentions": True}
    images = run_images(model, image_ids, image_attention, image_features, **watch)
    cache = images[CACHE]
    for layer in cache.layers:
        layer.keys = _given_to_regions(layer.keys, image_of)
        layer.values = _given_to_regions(layer.values, image_of)
    masks = None if mask_values is None else model.get_mask_features(mask_values, mask_places)
    embeds = inner.embed_inputs(region_ids, mask_features=masks)
    attended = torch.cat([image_attention[image_of], region_attention], dim=1)  # (R, P + L)
    ids = torch.cat([image_ids[image_of], region_ids], dim=1)
    # (R, P + L) -> (R, L)
    places = prompt_positions(model.config, ids, attended)[:, image_ids.shape[1] :]
    regions = inner.language_model(
        inputs_embeds=embeds,
        attention_mask=attended,
        position_ids=places if gaps is None else places + gaps[:, None],
        use_cache=True,
        **{CACHE: cache},
        **watch,
    )
    if seen is not None:
        seen += [images, regions]
    return answer_loss(model.lm_head, regions.last_hidden_state, labels, tokens)


def run_images(
    model: UrecaForConditionalGeneration,
    image_ids: torch.Tensor,
    image_attention: torch.Tensor,
    image_features: torch.Tensor,
    **watch: bool,
) -> BaseModelOutputWithPast:
    """The language model's outputs on images, with keys and values (B, heads, P, head size).

    Args:
        watch: `output_hidden_states` and `output_attentions`.
        The rest: see `grouped_forward`.
    """
    inner = model.model
    embeds = inner.embed_inputs(image_ids, image_features=image_features)
    return inner.language_model(
        inputs_embeds=embeds,
        attention_mask=image_attention,
        position_ids=positions(image_attention, embeds.shape[1]),
        use_cache=True,
        **{CACHE: DynamicCache()},
        **watch,
    )


def _given_to_regions(states: torch.Tensor, image_of: torch.Tensor) -> torch.Tensor:
    """(B, heads, P, size) -> (R, heads, P, size)."""
    images, regions = len(states), len(image_of)
    if images and regions % images == 0:
        each = torch.arange(images, device=image_of.device).repeat_interleave(regions // images)
        if torch.equal(each, image_of):  # its gradient is a plain sum, several times faster
            return states.unsqueeze(1).expand(-1, regions // images, -1, -1, -1).flatten(0, 1)
    return states.index_select(0, image_of)


def answer_loss(
    head: nn.Module,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    tokens: torch.Tensor | int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the labelled tokens, summed and divided by `tokens`.

    The head runs at labelled positions only, a small part of a prompt: logits of a large
    vocabulary would take most of a step's memory.

    Args:
        head: (A, D) -> (A, V).
        hidden: (R, L, D); a position's state predicts the next token.
        labels: (R, L), `IGNORED` at positions without a label.
        tokens: divides the sum, for gradient accumulation over batches; default: A, the number of
            labelled tokens.

    Returns:
        The loss; and (R,) bool, whether every token of a region's answer is the likeliest one
        given those before it: greedy decoding then writes exactly this answer.
    """
    wanted = labels[:, 1:]
    where = wanted != IGNORED
    targets = wanted[where]
    logits = head(hidden[:, :-1][where]).float()  # (R, L, D) -> (A, D) -> (A, V)
    loss = functional.cross_entropy(logits, targets, reduction="sum")
    wrong = torch.zeros_like(where)
    wrong[where] = logits.detach().argmax(-1) != targets
    return loss / (max(1, len(targets)) if tokens is None else tokens), ~wrong.any(1)
