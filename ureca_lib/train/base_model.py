"""The tiny base before it has learnt: its first weights, and heads that help its eyes open."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import InternVLConfig, InternVLForConditionalGeneration

from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import preset_config
from ureca_lib.scenes.lexicon import KINDS, SURFACES
from ureca_lib.train.scene_shards import KINDS_A_PATCH, NOTHING
from ureca_lib.train.tokenizer import scene_tokenizer

EMBEDDING_STD = 0.05
_SHARED = ("vision_config", "text_config", "image_token_id", "tie_word_embeddings")


def new_base(seed: int) -> UrecaForConditionalGeneration:
    """Preset tiny with the scenes' vocabulary and first weights that learn fast at this width.

    Xavier for linear layers, sines and cosines for the vision tower's positions, residual scales of
    1 (InternVL's 0.1 is for towers of 24 layers).

    Returns:
        A URECA model whose mask encoder is not to be used: its base alone is trained and saved.
    """
    torch.manual_seed(seed)
    vocab_size = len(scene_tokenizer())
    config = preset_config("tiny", vocab_size=vocab_size, mask_position="after_image")
    # eager attention: its gradient is twice as fast as the fused one on a CPU at this size
    config._attn_implementation = "eager"
    model = UrecaForConditionalGeneration(config)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_STD)
    model.tie_weights()
    tower = model.model.vision_tower
    with torch.no_grad():
        tower.embeddings.position_embeddings.copy_(_grid_positions(tower.embeddings))
        for layer in tower.encoder.layer:
            layer.lambda_1.fill_(1.0)
            layer.lambda_2.fill_(1.0)
    for parameter in model.model.mask_encoder.parameters():
        parameter.requires_grad_(False)
    return model


def _grid_positions(embeddings: nn.Module) -> torch.Tensor:
    """(1, 1 + n * n, D): a quarter of the channels each for sine and cosine of row and column."""
    count, size = embeddings.position_embeddings.shape[1:]
    side = round((count - 1) ** 0.5)
    rates = 100 ** (-torch.arange(size // 4) / (size // 4))
    at = torch.arange(side)[:, None] * rates  # (n, D / 4)
    waves = torch.cat([at.sin(), at.cos()], dim=1)  # (n, D / 2)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    grid = torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (n, n, D) -> (n * n, D)
    return torch.cat([torch.zeros(1, size), grid * 0.2])[None]


class PatchHeads(nn.Module):
    """What is seen in a patch, told by the vision tower alone: a second loss of the tiny base.

    Small, dense and direct: without it the tower learns to see only through the few words of the
    captions. Thrown away after training.

    Args:
        hidden_size: of the vision tower.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.sizes = (len(KINDS), len(KINDS), len(SURFACES), len(SURFACES))
        self.head = nn.Linear(hidden_size, sum(self.sizes))

    def forward(self, patches: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A loss.

        Args:
            patches: (T, patches, hidden) of the vision tower.
            labels: (T, patches, 6) uint8, see `SceneArrays.patches`.
        """
        kinds, *others = self.head(patches).float().flatten(0, 1).split(self.sizes, dim=-1)
        labels = labels.flatten(0, 1).long()  # (T, patches, 6) -> (T * patches, 6)
        seen = torch.zeros(len(labels), NOTHING + 1)
        seen.scatter_(1, labels[:, :KINDS_A_PATCH], 1.0)
        loss = functional.binary_cross_entropy_with_logits(kinds, seen[:, : len(KINDS)]) * 10
        for logits, wanted in zip(others, labels[:, KINDS_A_PATCH:].unbind(1), strict=True):
            loss = loss + functional.cross_entropy(
                logits, wanted.masked_fill(wanted == NOTHING, -100)
            )
        return loss


def as_internvl(model: UrecaForConditionalGeneration) -> InternVLForConditionalGeneration:
    """The base as transformers' own class, without a mask encoder: an MLLM that sees no masks."""
    carried = {name: getattr(model.config, name) for name in _SHARED}
    base = InternVLForConditionalGeneration(InternVLConfig(**carried))
    weights = {k: v for k, v in model.state_dict().items() if ".mask_encoder." not in k}
    base.load_state_dict(weights)
    return base.eval()
