"""Configuration of the URECA model: an InternVL configuration plus the mask branch (Sec. 4)."""

from __future__ import annotations

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, InternVLConfig
from transformers.modeling_outputs import BaseModelOutputWithPast

MaskPosition = Literal["before_image", "after_image"]

NUM_MASK_TOKENS = 8  # App. A; the paper's headline tables used 16
MAX_TILES = 12  # at inference; training uses MAX_TILES_TRAIN
MAX_TILES_TRAIN = 6

# The keys and values of earlier tokens, as transformers names them: renamed in 5.24.
CACHE = "cache" if hasattr(BaseModelOutputWithPast, "cache") else "past_key_values"

_CHOICES = {
    "mask_position": ("before_image", "after_image"),
    "mask_projector": ("mlp", "linear"),
    "mask_overshoot": ("clip", "wrap"),
    "pixel_shuffle": ("v1", "v2"),
}


@strict
class UrecaConfig(InternVLConfig):
    """Settings of `UrecaForConditionalGeneration`.

    Everything of transformers' `InternVLConfig` (`vision_config`, `text_config`, `image_token_id`,
    `downsample_ratio`, ...) and the fields below. `image_token_id` and `mask_token_id` may be
    `None` if a checkpoint came without its tokenizer: the first forward pass then infers them from
    counts (see `ureca_lib.model`).

    Fields:
        mask_token_id: id whose embeddings are replaced by mask tokens.
        num_mask_tokens: N, mask tokens per tile (App. A).
        mask_projector: "mlp" (paper: two layers) or "linear" (released weights: one layer).
        mask_position: mask tokens "before_image" (paper, Sec. 4.1) or "after_image" (released).
        mask_scale: value of a mask's inside as the processor gives it: 1 in the paper, 255 in
            published checkpoints with dynamic masks.
        mask_dynamic: split the mask into tiles (Sec. 4.2), else resize it to one tile.
        mask_thumbnail: add the whole mask, resized to a tile, if there is more than one tile.
        mask_overshoot: "clip" keeps that thumbnail between 0 and the scale; "wrap" lets its edges
            wrap around, as in the training of the released weights (see `tile_masks`).
        mask_tile_embedding: ours, not the paper's: add the row and column of their tile to mask
            tokens (see `MaskEncoder`).
        mask_tile_positions: ours, not the paper's: the tokens of a mask tile take the positions of
            the image tile that it covers (see `ureca_lib.model.prompt_positions`).
        tile_size: S, side of an image tile in pixels; by default the vision tower's.
        mask_size: side of a mask tile in pixels (App. A: 448); by default `tile_size`.
        min_tiles, max_tiles, max_tiles_train: bounds of the tile grid; training uses fewer.
        use_thumbnail: add the whole image, resized to a tile, if there is more than one tile.
        system_message: opens the conversation; empty for none.
        pixel_shuffle: "v2", or "v1", which leaves each tile's image tokens transposed.

    Raises:
        ValueError: a field is outside its choices, or a size does not fit the patch grid.
    """

    model_type = "ureca"

    image_token_id: int | None = 151667
    mask_token_id: int | None = None
    num_mask_tokens: int = NUM_MASK_TOKENS
    mask_projector: str = "mlp"
    mask_position: str = "before_image"
    mask_scale: float | int = 1
    mask_dynamic: bool = True
    mask_thumbnail: bool = True
    mask_overshoot: str = "clip"
    mask_tile_embedding: bool = False
    mask_tile_positions: bool = False
    tile_size: int | None = None
    mask_size: int | None = None
    min_tiles: int = 1
    max_tiles: int = MAX_TILES
    max_tiles_train: int = MAX_TILES_TRAIN
    use_thumbnail: bool = True
    system_message: str = ""
    pixel_shuffle: str = "v2"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if "llm_config" in kwargs:  # else transformers would use its default of 8B
            raise ValueError(
                "this is a checkpoint in the published layout: read it with "
                "ureca_lib.checkpoints.load_official, or convert it first"
            )
        super().__post_init__(**kwargs)
        self.tile_size = self.tile_size or self.vision_config.image_size[0]
        self.mask_size = self.mask_size or self.tile_size
        self._check()
        patches = self.tile_size // self.vision_config.patch_size[0]
        self.image_seq_length = int((patches * self.downsample_ratio) ** 2)
        # one switch: the language model's copy would otherwise decide on its own
        self.text_config.tie_word_embeddings = self.tie_word_embeddings

    def _check(self) -> None:
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        patch = self.vision_config.patch_size[0]
        side = self.tile_size // patch * self.downsample_ratio
        if side != int(side) or side < 1:
            raise ValueError(
                f"tile_size {self.tile_size} with patches of {patch} pixels and downsample_ratio "
                f"{self.downsample_ratio} gives no whole number of image tokens"
            )
        if self.num_mask_tokens < 1:
            raise ValueError(f"num_mask_tokens must be at least 1, got {self.num_mask_tokens}")
        tiled_alike = self.mask_dynamic and self.mask_size == self.tile_size
        if self.mask_tile_positions and (
            not tiled_alike or (self.mask_thumbnail and not self.use_thumbnail)
        ):
            raise ValueError(
                "mask_tile_positions needs an image tile for each mask tile: mask_dynamic, "
                "mask_size equal to tile_size, and mask_thumbnail with use_thumbnail only"
            )
        if not 1 <= self.min_tiles <= min(self.max_tiles, self.max_tiles_train):
            raise ValueError(
                f"need 1 <= min_tiles <= max_tiles and max_tiles_train, got {self.min_tiles}, "
                f"{self.max_tiles}, {self.max_tiles_train}"
            )


AutoConfig.register(UrecaConfig.model_type, UrecaConfig)
