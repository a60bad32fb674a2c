"""The URECA model: transformers' InternVL with a mask encoder (Sec. 4, Fig. 3).

The image goes through InternVL's own vision tower and projector, untouched. Masks go through
`MaskEncoder`; its tokens take the place of the mask placeholders in the language model's input, as
image features take the place of the image placeholders.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    Cache,
    InternVLForConditionalGeneration,
    InternVLModel,
    InternVLPreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.internvl.modeling_internvl import InternVLVisionRMSNorm
from transformers.utils import torch_compilable_check
from transformers.utils.generic import can_return_tuple

from ureca_lib.configuration import CACHE, UrecaConfig
from ureca_lib.mask_encoder import MaskEncoder, init_layer

__all__ = ["UrecaConfig", "UrecaForConditionalGeneration", "UrecaModel"]

# inputs that `embed_inputs` puts in place of placeholders, in the prompt only
_VISUAL = ("pixel_values", "mask_values", "image_features", "mask_features", "mask_places")


class UrecaModel(InternVLModel):
    """InternVL without its language head, plus a mask encoder."""

    config: UrecaConfig
    config_class = UrecaConfig

    def __init__(self, config: UrecaConfig):
        super().__init__(config)
        self.mask_encoder = MaskEncoder(
            num_tokens=config.num_mask_tokens,
            hidden_size=config.text_config.hidden_size,
            mask_size=config.mask_size,
            projector=config.mask_projector,
            tile_embedding=config.mask_tile_embedding,
        )
        for module in self.vision_tower.modules():
            # transformers leaves the query and key norms of the 6B tower at 1e-6
            if isinstance(module, InternVLVisionRMSNorm):
                module.variance_epsilon = config.vision_config.layer_norm_eps
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        encoder = getattr(self, "mask_encoder", None)
        # layer by layer: transformers passes over modules that own no parameter themselves
        if encoder and module in encoder.modules():
            init_layer(module)

    def pixel_shuffle(self, vision_features: torch.Tensor, scale_factor: float = 0.5):
        """InternVL's pixel shuffle: (T, H, W, C) -> (T, H * s, W * s, C / s^2), s the factor."""
        features = super().pixel_shuffle(vision_features, scale_factor)
        if self.config.pixel_shuffle == "v1":
            features = features.transpose(1, 2).contiguous()
        return features

    def embed_inputs(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        mask_values: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        mask_features: torch.Tensor | None = None,
        mask_places: torch.Tensor | None = None,
        check: bool = True,
    ) -> torch.Tensor:
        """Token embeddings with features in place of placeholders, (B, L, D).

        Args:
            input_ids: (B, L).
            pixel_values, mask_values, mask_places: see `UrecaForConditionalGeneration.forward`.
            image_features: (T, tokens, D) instead of `pixel_values`.
            mask_features: (M, N, D) instead of `mask_values`.
            check: false lets placeholders stand without features, as when decoding from a cache.

        Raises:
            ValueError: the numbers of features and placeholders differ; the message has both.
        """
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values, return_dict=True).pooler_output
        if mask_values is not None:
            mask_features = self.mask_encoder(mask_values, mask_places)
        embeds = self.get_input_embeddings()(input_ids)
        for kind, features in (("image", image_features), ("mask", mask_features)):
            if features is None:
                if not check:
                    continue
                features = embeds.new_empty(0, 0, embeds.shape[-1])
            where = input_ids == self._token_id(kind, input_ids, features)
            found, given = where.sum(), features.shape[:2].numel()
            torch_compilable_check(
                found == given,
                lambda: f"{given} {kind} features for {int(found)} {kind} placeholder tokens",  # noqa: B023
            )
            features = features.to(embeds.device, embeds.dtype)
            embeds = embeds.masked_scatter(where.unsqueeze(-1).to(embeds.device), features)
        return embeds

    def _token_id(self, kind: str, input_ids: torch.Tensor, features: torch.Tensor) -> int:
        """The placeholder's id in the config, inferred if the config has none.

        A checkpoint may come without its tokenizer, so that the ids are unknown. A placeholder
        stands once for each of the (tiles, tokens, D) features, in at most one run per tile.

        Returns:
            The id; -1, which no token has, if there are no features.

        Raises:
            ValueError: no id, or more than one, fits.
        """
        config = self.config
        known = getattr(config, f"{kind}_token_id")
        if known is not None or not len(features):
            return -1 if known is None else known
        tiles, tokens = features.shape[:2]
        ids, counts = input_ids.unique(return_counts=True)
        taken = (config.image_token_id, config.mask_token_id)
        fitting: dict[int, int] = {}  # id: its first place
        for token in ids[counts == tiles * tokens].tolist():
            where = (input_ids == token).int()
            runs = (nn.functional.pad(where, (1, 0)).diff(dim=1) == 1).sum()
            if token not in taken and runs <= tiles:
                fitting[token] = int(where.flatten().argmax())
        both = len(fitting) == 2 and taken == (None, None)
        if len(fitting) != 1 and not both:
            raise ValueError(
                f"config.{kind}_token_id is not set, and {len(fitting)} token ids occur "
                f"{tiles * tokens} times, once for each {kind} feature, so it cannot be inferred: "
                f"set config.{kind}_token_id"
            )
        # Image and mask may have equally many tokens. Then `mask_position` decides which id comes
        # first; the image's id is inferred before the mask's.
        first = config.mask_position == "after_image"
        token_id = (min if first else max)(fitting, key=fitting.__getitem__)
        setattr(config, f"{kind}_token_id", token_id)
        return token_id

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """See `UrecaForConditionalGeneration.forward`; returns hidden states instead of logits."""
        cache = kwargs.pop("cache", past_key_values)
        starts = cache is None or cache.get_seq_length() == 0
        visual = {name: kwargs.pop(name, None) for name in _VISUAL}
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_inputs(input_ids, **visual, check=starts)
        elif any(value is not None for value in visual.values()):
            raise ValueError("pixels, masks and their features take input_ids, not inputs_embeds")
        if attention_mask is None and starts and self.config.mask_tile_positions:
            # without a mask, transformers takes positions that go back for packed sequences
            attention_mask = inputs_embeds.new_ones(inputs_embeds.shape[:2], dtype=torch.long)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            if input_ids is None:
                position_ids = positions(attention_mask, inputs_embeds.shape[1])
            else:
                position_ids = prompt_positions(self.config, input_ids, attention_mask)
        return self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **{CACHE: cache},
            **kwargs,
        )


class UrecaForConditionalGeneration(InternVLForConditionalGeneration):
    """The URECA model with its language head: `forward`, `generate`, `from_pretrained`."""

    config: UrecaConfig
    config_class = UrecaConfig

    def __init__(self, config: UrecaConfig):
        # InternVL's own __init__ would build an InternVLModel first
        InternVLPreTrainedModel.__init__(self, config)
        self.model = UrecaModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_mask_features(
        self,
        mask_values: torch.Tensor,
        mask_places: torch.Tensor | None = None,
        mask_index: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mask tiles to mask tokens (Eq. 1): (M, 1, S, S) -> (M, N, D).

        `mask_places`, (M, 2), is for a model with `mask_tile_embedding`; `mask_index`, (M,), for
        distinct tiles; see `MaskEncoder.forward`.
        """
        return self.model.mask_encoder(mask_values, mask_places, mask_index)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        mask_values: torch.Tensor | None = None,
        mask_places: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Logits, and the loss if there are labels.

        Args:
            input_ids: (B, L) with an image placeholder for each image feature and a mask
                placeholder for each mask token.
            attention_mask: (B, L), or (B, past + L) with a cache; 0 at padding, on either side.
            pixel_values: (T, 3, S, S), the image tiles of the whole batch in order.
            mask_values: (M, 1, S, S), the mask tiles of the whole batch in order, used as given:
                the processor has applied `config.mask_scale`.
            mask_places: (M, 2), row and column of each mask tile, for a model with
                `mask_tile_embedding`; the processor of such a model gives them.
            labels: (B, L), -100 at positions without loss.
            logits_to_keep: number or indices of the last positions that get logits; 0 is all.
            kwargs: `image_features` (T, tokens, D) and `mask_features` (M, N, D) instead of
                `pixel_values` and `mask_values`; `inputs_embeds` (B, L, D) instead of all of these;
                `position_ids` (B, L), by default counted from `attention_mask`; and
                `past_key_values`, or `cache` as transformers names it since 5.24: keys and values
                of earlier tokens, after which there are no more pixels and masks.

        Raises:
            ValueError: the numbers of features and placeholders differ; the message has both.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            mask_values=mask_values,
            mask_places=mask_places,
            return_dict=True,
            **kwargs,
        )
        last = isinstance(logits_to_keep, int)
        chosen = slice(-logits_to_keep, None) if last else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, chosen])
        loss = None
        if labels is not None:
            vocab_size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs,
    ) -> dict:
        """Inputs of one generation step; pixels and masks enter with the prompt only."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in _VISUAL:
                inputs.pop(name, None)
        elif not is_first_iteration and inputs_embeds is not None:
            # without a cache the whole sequence runs again
            new = self.get_input_embeddings()(input_ids[:, inputs_embeds.shape[1] :])
            inputs |= {"input_ids": None, "inputs_embeds": torch.cat([inputs_embeds, new], dim=1)}
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, input_ids: torch.LongTensor | None = None, **kwargs
    ) -> tuple[torch.LongTensor, dict]:
        """Repeat each sample for beams, with its features in place: a tile is not a sample."""
        if expand_size > 1 and kwargs.get("inputs_embeds") is None:
            visual = {name: kwargs.pop(name, None) for name in _VISUAL}
            kwargs["inputs_embeds"] = self.model.embed_inputs(input_ids, **visual)
            if self.config.mask_tile_positions:  # the embeddings do not tell where masks are
                seen = kwargs.get("attention_mask")
                seen = torch.ones_like(input_ids) if seen is None else seen
                kwargs["position_ids"] = prompt_positions(self.config, input_ids, seen)
        return super()._expand_inputs_for_generation(
            expand_size=expand_size, input_ids=input_ids, **kwargs
        )


def positions(attention_mask: torch.Tensor, length: int) -> torch.Tensor:
    """Positions of the last `length` tokens, padding not counted: (B, L_all) -> (B, length)."""
    counted = attention_mask.long().cumsum(dim=-1) - 1
    return counted.clamp_(min=0)[:, -length:]


def prompt_positions(
    config: UrecaConfig, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Positions of a prompt's tokens, padding not counted: (B, L) ids and attention -> (B, L).

    With `config.mask_tile_positions`, the N tokens of mask tile k are spread evenly over the
    positions of image tile k; they keep their order in the sequence, and all other tokens their
    positions. So rotary attention tells which tile a mask token is of, without a parameter more.
    """
    counted = positions(attention_mask, input_ids.shape[1])
    if not config.mask_tile_positions:
        return counted
    is_mask, is_image = input_ids == config.mask_token_id, input_ids == config.image_token_id
    numbers = is_mask.long().cumsum(dim=1) - 1  # of each mask token in its row
    tile, token = numbers // config.num_mask_tokens, numbers % config.num_mask_tokens
    first = counted.masked_fill(~is_image, counted.shape[1]).amin(dim=1, keepdim=True)
    step = config.image_seq_length
    inside = first + tile * step + token * step // config.num_mask_tokens
    return torch.where(is_mask, inside, counted)


AutoModel.register(UrecaConfig, UrecaModel)
AutoModelForImageTextToText.register(UrecaConfig, UrecaForConditionalGeneration)
