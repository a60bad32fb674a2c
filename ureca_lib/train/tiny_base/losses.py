"""Auxiliary losses of the tiny base: contents of patches, positions of tokens, attention on boxes.

Captions alone train a small model from scratch slowly: few of their words depend on the picture,
and an object fills a twelfth of it. These losses are dense and direct. Their heads are discarded
after training; the base that remains is a plain InternVL.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ureca_lib.scenes.lexicon import BACKGROUNDS, KINDS, SURFACES
from ureca_lib.train.tiny_base.data import KINDS_PER_PATCH, NOTHING

BACKGROUND_WEIGHT = 0.05  # nine patches in ten are sky, grass, wall and the like
MIXED_WEIGHT = 0.3  # of a background's patch that something else is seen in, too
PLACES = 24  # bins of the image's width, and of its height
MERGED = 2  # a token is a square of 2 x 2 patches
OWN, PARENT, WHOLE = range(3)  # boxes to attend to: the region's, its parent's, the object's
# layer, head and box: a part of one of two equal objects is identified by its whole only
LOOKING = (
    (1, 0, OWN),
    (1, 1, OWN),
    (2, 0, OWN),
    (2, 1, OWN),
    (2, 2, PARENT),
    (3, 0, PARENT),
    (3, 1, WHOLE),
)
WATCHED_LAYER = 0  # its image tokens are trained on their contents and positions

_SIZES = (len(KINDS), len(KINDS), len(SURFACES), len(SURFACES))
SEEN = sum(_SIZES)  # outputs that tell the contents of a patch
_IS_BACKGROUND = torch.tensor([kind in BACKGROUNDS for kind in KINDS] + [True] * 256)


def seen_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of predicting the contents of patches.

    Args:
        logits: (patches, SEEN): kinds seen, kind of the whole, surface, whole's surface.
        labels: (patches, 6) uint8, see `SceneArrays.patches`.
    """
    kinds, *others = logits.float().split(_SIZES, dim=-1)
    labels = labels.long()
    background = _IS_BACKGROUND.to(labels.device)[labels[:, KINDS_PER_PATCH]]
    weight = torch.where(background, BACKGROUND_WEIGHT, 1.0)
    weight = torch.where(background & (labels[:, 1] != NOTHING), MIXED_WEIGHT, weight)
    weight = weight / weight.sum()
    seen = torch.zeros(len(labels), NOTHING + 1, device=labels.device)
    seen.scatter_(1, labels[:, :KINDS_PER_PATCH], 1.0)
    each = functional.binary_cross_entropy_with_logits(
        kinds, seen[:, : len(KINDS)], reduction="none"
    ).sum(1)
    for told, wanted in zip(others, labels[:, KINDS_PER_PATCH:].unbind(1), strict=True):
        wanted = wanted.masked_fill(wanted == NOTHING, -100)
        each = each + functional.cross_entropy(told, wanted, reduction="none")
    return (each * weight).sum()


class TokenHeads(nn.Module):
    """Predicts contents and position of each image token from a layer of the language model.

    Args:
        hidden_size: of the language model.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.seen = nn.Linear(hidden_size, MERGED**2 * SEEN)
        self.place = nn.Linear(hidden_size, 2 * PLACES)

    def forward(
        self, tokens: torch.Tensor, labels: torch.Tensor, extents: torch.Tensor
    ) -> torch.Tensor:
        """The loss.

        Args:
            tokens: (B, tokens, D), all image tokens of each image.
            labels: (T, patches, 6), of their tiles.
            extents: (B, tokens, 4), see `token_extents`.
        """
        tokens = tokens.float()
        side = round(labels.shape[1] ** 0.5) // MERGED
        # (T, patches, 6) -> (T, side, 2, side, 2, 6) -> (T * side * side * 4, 6)
        labels = labels.view(-1, side, MERGED, side, MERGED, labels.shape[-1])
        labels = labels.permute(0, 1, 3, 2, 4, 5).flatten(0, 4)
        # (B, tokens, 4 * sizes) -> (B * tokens * 4, sizes)
        seen = self.seen(tokens).view(-1, SEEN)
        centres = (extents[..., :2] + extents[..., 2:]) / 2  # (B, tokens, 2)
        bins = (centres * PLACES).long().clamp(max=PLACES - 1)
        place = self.place(tokens).unflatten(-1, (2, PLACES)).flatten(0, 2)
        return seen_loss(seen, labels) + functional.cross_entropy(place, bins.flatten())


def attention_loss(
    attentions: Sequence[torch.Tensor], first: int, wanted: torch.Tensor, asking: torch.Tensor
) -> torch.Tensor:
    """Negative logarithm of the attention that the trained heads pay to their boxes.

    Args:
        attentions: of each layer, (R, heads, L, P + L), of the regions' part.
        first: place of the first image token among the keys.
        wanted: (3, R, tokens) bool, of the region's own box, its parent's and its object's, see
            `inside`; a region without a box of a kind does not count for it.
        asking: (R, L) bool, the positions whose attention counts: those after the box.
    """
    losses = []
    for layer, head, kind in LOOKING:
        judged = asking & wanted[kind].any(1, keepdim=True)  # (R, L)
        if layer >= len(attentions) or not judged.any():  # of a model of two layers; no parts
            continue
        given = attentions[layer][:, head, :, first : first + wanted.shape[2]].float()
        mass = (given * wanted[kind][:, None]).sum(-1)  # (R, L, tokens) -> (R, L)
        losses.append(-(mass[judged] + 1e-6).log().mean())
    # a model of a single layer has no trained head
    return torch.stack(losses).mean() if losses else torch.zeros((), device=asking.device)
