"""Looking into a model: attention of a caption's words, and what changes when the mask is hidden.

Attention is not an explanation; it shows where the model could have taken a word from. In a causal
language model a position sees only those before it, so the order of mask and image tokens decides
what can depend on the region, whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.configuration import MaskPosition, UrecaConfig
from ureca_lib.conversation import IGNORED, QUESTION
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.processor import Photo, UrecaProcessor, load_photo
from ureca_lib.tiling import MaskLike, as_region, best_grid

Kind = Literal["text", "mask", "image"]


def prompt_kinds(
    config: UrecaConfig,
    image_tiles: int,
    mask_tiles: int,
    mask_position: MaskPosition | None = None,
    lead: int = 4,
    question: int = 8,
) -> list[Kind]:
    """Kind of token at each position of a prompt.

    Args:
        config: of the model.
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
        pixel_values: (T, 3, S, S), the image's tiles; a hidden one is zero, the mean color.
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


KINDS: tuple[Kind, ...] = ("mask", "image", "text")
_HALF = "\ufffd"  # what a tokenizer reads half a character as


@dataclass(frozen=True)
class CaptionAttention:
    """How each of a caption's W words attends, averaged over its tokens, heads and layers.

    Attributes:
        caption: the text.
        words: W of them, marks kept with the word that they follow.
        shares: (W, 3), of a word's attention to mask tokens, image tokens and text; rows sum to 1.
        even: (W, 3), what they would be if every token were attended to alike.
        image: (W, rows, columns), attention to each place of the photo, the thumbnail's spread
            over it; sums to the share of image tokens.
        mask: (W, M), attention to the tokens of each mask tile; sums to the share of mask tokens.
        tiles: (columns, rows) of the grid of the image.
        mask_tiles: (M, S, S), the region's mask tiles.
    """

    caption: str
    words: tuple[str, ...]
    shares: np.ndarray
    even: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    tiles: tuple[int, int]
    mask_tiles: np.ndarray


@torch.inference_mode()
def caption_attention(
    captioner: RegionCaptioner,
    image: Photo,
    region: MaskLike,
    caption: str | None = None,
    question: str = QUESTION,
    max_tiles: int | None = None,
    layer: int | None = None,
) -> CaptionAttention:
    """Attention of a caption's words to everything before them.

    Args:
        captioner: a model and its processor.
        image, region: as `RegionCaptioner.caption` takes them.
        caption: whose words; None takes the model's own.
        question: asked about the region.
        max_tiles: of the image's grid; by default the processor's for inference.
        layer: of the language model; None averages all of them.

    Raises:
        ValueError: a caption without words, or no such layer.
        RegionError: as `RegionCaptioner.caption`.
    """
    target = as_region(region, 0)
    options = {"question": question, "max_tiles": max_tiles}
    if caption is None:
        caption = captioner.caption(image, [target], progress=False, **options)[0].text
    processor, config = captioner.processor, captioner.model.config
    inputs = processor(image, target, answer=caption, **options).to(captioner.device)
    labels = inputs["labels"][0]
    first = int((labels != IGNORED).nonzero()[0])
    words, owners = _words(processor, labels[first:-1].tolist())  # the end of the turn is no word
    if not words:
        raise ValueError(f"the caption {caption!r} has no words to look at")
    rows = _attention_rows(captioner.model, inputs, first, layer)[: len(owners)]  # (A, L)
    names = {config.image_token_id: "image", config.mask_token_id: "mask"}
    kinds = np.array([names.get(token, "text") for token in inputs["input_ids"][0].tolist()])
    height, width = load_photo(image, target.size).shape[:2]
    bounds = (max_tiles or processor.max_tiles, processor.min_tiles)
    grid = best_grid(width, height, *bounds, processor.tile_size)
    tokens = np.arange(len(words))[:, None] == owners  # (W, A)
    average = tokens / tokens.sum(1, keepdims=True)
    by_word = average @ rows.numpy()  # (W, A) @ (A, L)
    before = first + np.arange(len(owners))[:, None]  # number of positions that a token sees
    seen = average @ (np.arange(len(kinds)) < before)

    def shares(values: np.ndarray) -> np.ndarray:
        """(W, L) -> (W, 3)."""
        sums = [values[:, kinds == kind].sum(1) for kind in KINDS]
        return np.stack(sums, axis=1) / values.sum(1, keepdims=True)

    by_mask = by_word[:, kinds == "mask"].reshape(len(words), -1, processor.num_mask_tokens)
    return CaptionAttention(
        caption=caption,
        words=tuple(words),
        shares=shares(by_word),
        even=shares(seen),
        image=_photo_map(
            by_word[:, kinds == "image"],
            grid,
            processor.image_seq_length,
            config.pixel_shuffle == "v1",
        ),
        mask=by_mask.sum(2),
        tiles=grid,
        mask_tiles=inputs["mask_values"][:, 0].float().cpu().numpy(),
    )


def _attention_rows(
    model: UrecaForConditionalGeneration, inputs: dict, first: int, layer: int | None
) -> torch.Tensor:
    """(A, L) attention of the positions that predict the answer's tokens; rows sum to 1."""
    ids = inputs["input_ids"]
    language = model.model.language_model
    count = language.config.num_hidden_layers
    if layer is not None and not -count <= layer < count:
        raise ValueError(f"the language model has {count} layers; there is no layer {layer}")
    named = ("pixel_values", "mask_values", "mask_places")
    visual = {name: inputs[name] for name in named if name in inputs}
    cache = DynamicCache()
    model.model(ids[:, : first - 1], past_key_values=cache, use_cache=True, **visual)
    with _eager(language):
        found = model.model(
            ids[:, first - 1 : -1], past_key_values=cache, use_cache=True, output_attentions=True
        ).attentions  # of each layer (1, heads, A, L - 1)
    chosen = found if layer is None else [found[layer]]
    rows = torch.stack([part[0].float().mean(0) for part in chosen]).mean(0)  # (A, L - 1)
    return nn.functional.pad(rows, (0, 1)).cpu()  # nothing attends to the last token


@contextmanager
def _eager(language: nn.Module) -> Iterator[None]:
    """The one kind of attention that tells its weights, for a while."""
    before = language.config._attn_implementation
    language.set_attn_implementation("eager")
    try:
        yield
    finally:
        language.set_attn_implementation(before)


def _words(processor: UrecaProcessor, ids: list[int]) -> tuple[list[str], list[int]]:
    """Words of an answer, and for each token the word that it belongs to."""
    words: list[str] = []
    owners: list[int] = []
    before, waiting = "", 0
    for number in range(1, len(ids) + 1):
        text = processor.tokenizer.decode(ids[:number])
        waiting += 1
        if text.endswith(_HALF) and number < len(ids):
            continue  # a character of several tokens is read with its last one
        piece = text[len(before) :]
        starts = not words or piece[:1].isspace() or before[-1:].isspace()
        if starts and any(map(str.isalnum, piece)):
            words.append("")
        owners += [max(len(words) - 1, 0)] * waiting
        waiting = 0
        if words:
            words[-1] += piece
        before = text
    return [" ".join(word.split()) for word in words], owners


def _photo_map(
    rows: np.ndarray, grid: tuple[int, int], tokens: int, transposed: bool
) -> np.ndarray:
    """(W, T * g * g) attention to image tokens -> (W, rows * g, columns * g) over the photo."""
    columns, lines = grid
    words, count, side = len(rows), columns * lines, round(tokens**0.5)
    tiles = rows.reshape(words, -1, side, side)  # (W, T * g * g) -> (W, T, g, g)
    if transposed:
        tiles = tiles.swapaxes(2, 3)
    placed = tiles[:, :count].reshape(words, lines, columns, side, side)
    # (W, lines, columns, g, g) -> (W, lines * g, columns * g)
    placed = placed.transpose(0, 1, 3, 2, 4).reshape(words, lines * side, columns * side)
    if tiles.shape[1] > count:  # the thumbnail: each of its tokens sees as many places
        whole = tiles[:, count].repeat(lines, axis=1).repeat(columns, axis=2)
        placed = placed + whole / count
    return placed
