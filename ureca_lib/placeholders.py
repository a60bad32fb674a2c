"""Placeholder tokens: where image and mask features enter the language model's input."""

from __future__ import annotations

import torch
from torch import nn
from transformers.utils import torch_compilable_check


def find_token_id(
    input_ids: torch.Tensor, features: torch.Tensor, taken: set[int], kind: str, first: bool
) -> int:
    """The id that stands once for each feature, in runs of whole tiles.

    For a checkpoint that came without its tokenizer, so that nobody says which ids are the
    placeholders.

    Args:
        input_ids: (B, L) token ids.
        features: (tiles, tokens, D), those that wait for a place.
        taken: ids that are known to be something else.
        kind: "image" or "mask", for the message.
        first: of two such ids, as images and masks with as many tokens give, the earlier one.

    Raises:
        ValueError: no id, or more than one, fits.
    """
    tiles, tokens = features.shape[:2]
    ids, counts = input_ids.unique(return_counts=True)
    often = [i for i in ids[counts == tiles * tokens].tolist() if i not in taken]
    found = [i for i in often if _in_whole_runs(input_ids == i, tokens)]
    if len(found) == 2 and not taken:
        found.sort(key=lambda i: (input_ids == i).flatten().nonzero()[0].item(), reverse=not first)
        found = found[:1]
    if len(found) != 1:
        raise ValueError(
            f"config.{kind}_token_id is not set, and {len(found)} token ids occur "
            f"{tiles * tokens} times, once for each {kind} feature, so it cannot be inferred: "
            f"set config.{kind}_token_id"
        )
    return found[0]


def _in_whole_runs(where: torch.Tensor, tokens: int) -> bool:
    """Whether every unbroken run of true in (B, L) is a multiple of `tokens` long."""
    edges = torch.nn.functional.pad(where.int(), (1, 1)).diff(dim=1)  # (B, L) -> (B, L + 1)
    starts, ends = (edges == 1).nonzero()[:, 1], (edges == -1).nonzero()[:, 1]
    return bool(((ends - starts) % tokens == 0).all())


def placeholder_mask(
    token_id: int | None,
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor,
    embedding: nn.Module,
) -> torch.Tensor:
    """(B, L) bool, true where the placeholder stands.

    Without `input_ids` a placeholder is recognised by its embedding, as transformers does.
    """
    if token_id is None:
        return torch.zeros(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
    if input_ids is not None:
        return (input_ids == token_id).to(inputs_embeds.device)
    token = torch.full((1,), token_id, dtype=torch.long, device=inputs_embeds.device)
    return (inputs_embeds == embedding(token)).all(dim=-1)


def scatter_features(
    inputs_embeds: torch.Tensor, where: torch.Tensor, features: torch.Tensor, kind: str
) -> torch.Tensor:
    """Put features in place of placeholders, in order.

    Args:
        inputs_embeds: (B, L, D).
        where: (B, L) bool, true at placeholders.
        features: (tiles, tokens, D) or (tokens, D).
        kind: "image" or "mask", for the message.

    Returns:
        (B, L, D), a new tensor.

    Raises:
        ValueError: as many features as placeholders are needed; says how many of each there are.
    """
    features = features.reshape(-1, features.shape[-1])  # (tiles, tokens, D) -> (features, D)
    found, given = where.sum(), features.shape[0]
    torch_compilable_check(
        found == given,
        lambda: f"{given} {kind} features for {int(found)} {kind} placeholder tokens",
    )
    features = features.to(inputs_embeds.device, inputs_embeds.dtype)
    return inputs_embeds.masked_scatter(where.unsqueeze(-1), features)


def repeat_tiles(tiles: torch.Tensor, where: torch.Tensor, times: int) -> torch.Tensor:
    """Repeat each sample's tiles as a block, as the samples themselves are repeated.

    Args:
        tiles: (T, ...), the batch's tiles or their features in order.
        where: (B, L) bool, true at placeholders; a sample's share of them is its share of tiles.
        times: copies of each sample.

    Returns:
        (T * times, ...).
    """
    placeholders = where.sum(dim=1)
    per_tile = int(placeholders.sum()) // max(1, len(tiles))
    counts = (placeholders // max(1, per_tile)).tolist()
    blocks = torch.split(tiles, counts)
    return torch.cat([block for block in blocks for _ in range(times)])
