"""What depends on what: hide the mask or a tile of the image, and see which positions change.

In a causal language model a position sees only those before it, so the order of mask and image
tokens decides what can depend on the region. That is so whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ureca_lib.configuration import MaskPosition, UrecaConfig
from ureca_lib.model import UrecaForConditionalGeneration

Kind = Literal["text", "mask", "image"]


def prompt_kinds(
    config: UrecaConfig,
    image_tiles: int,
    mask_tiles: int,
    mask_position: MaskPosition | None = None,
    lead: int = 4,
    question: int = 8,
) -> list[Kind]:
    """What stands at each position of a prompt.

    Args:
        config: says how many tokens a tile has.
        image_tiles, mask_tiles: of one sample.
        mask_position: "before_image" or "after_image"; by default the configuration's.
        lead, question: text tokens before and after image and mask.
    """
    mask: list[Kind] = ["mask"] * (mask_tiles * config.num_mask_tokens)
    image: list[Kind] = ["image"] * (image_tiles * config.image_seq_length)
    last = (mask_position or config.mask_position) == "after_image"
    visual = image + mask if last else mask + image
    return ["text"] * lead + visual + ["text"] * question


def prompt_ids(config: UrecaConfig, kinds: Sequence[Kind]) -> torch.Tensor:
    """(1, L) ids with placeholders where they belong, and an arbitrary word for all text."""
    ids = {"mask": config.mask_token_id, "image": config.image_token_id, "text": 1}
    return torch.tensor([[ids[kind] for kind in kinds]])


@torch.inference_mode()
def occlusion_effect(
    model: UrecaForConditionalGeneration,
    kinds: Sequence[Kind],
    pixel_values: torch.Tensor,
    mask_values: torch.Tensor,
    mask_places: torch.Tensor | None = None,
) -> torch.Tensor:
    """How much each position's last hidden state changes when something is hidden.

    Args:
        model: any weights.
        kinds: of the L positions; see `prompt_kinds`.
        pixel_values: (T, 3, S, S), the image's tiles; a hidden one is zero, the mean colour.
        mask_values: (M, 1, S, S), the region's mask tiles; hidden, they are all zero.
        mask_places: (M, 2), where the model has a tile embedding.

    Returns:
        (1 + T, L): the change as a share of the state's length, for the mask and for each tile of
        the image; 0 where nothing changed at all.
    """
    ids = prompt_ids(model.config, kinds).to(pixel_values.device)
    image = model.model.get_image_features(pixel_values, return_dict=True).pooler_output
    blank_tile = torch.zeros_like(pixel_values[:1])
    blank = model.model.get_image_features(blank_tile, return_dict=True).pooler_output
    mask = model.get_mask_features(mask_values, mask_places)
    no_mask = model.get_mask_features(torch.zeros_like(mask_values), mask_places)

    def states(image_features: torch.Tensor, mask_features: torch.Tensor) -> torch.Tensor:
        output = model.model(ids, image_features=image_features, mask_features=mask_features)
        return output.last_hidden_state[0]

    seen = states(image, mask)
    hidden = [states(image, no_mask)]
    for tile in range(len(image)):
        hidden.append(states(torch.cat([image[:tile], blank, image[tile + 1 :]]), mask))
    return torch.stack([(state - seen).norm(dim=-1) / seen.norm(dim=-1) for state in hidden])
