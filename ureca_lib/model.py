"""The URECA model: transformers' InternVL with a mask encoder (Sec. 4, Fig. 3).

The image goes through InternVL's own vision tower and projector, untouched. Masks go through
`MaskEncoder`; its tokens take the place of the mask placeholders in the language model's input, as
image features take the place of the image placeholders.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    Cache,
    InternVLForConditionalGeneration,
    InternVLModel,
    InternVLPreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.internvl.modeling_internvl import InternVLVisionRMSNorm
from transformers.utils import torch_compilable_check
from transformers.utils.generic import can_return_tuple

from ureca_lib.configuration import CACHE, UrecaConfig
from ureca_lib.mask_encoder import MaskEncoder

__all__ = ["UrecaConfig", "UrecaForConditionalGeneration", "UrecaModel"]

_KINDS: dict[str, Literal["image", "mask"]] = {
    "pixel_values": "image",
    "image_features": "image",
    "mask_values": "mask",
    "mask_features": "mask",
    "mask_places": "mask",
}
_FIRST_STEP_ONLY = tuple(_KINDS)


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
        if not encoder or module not in encoder.modules():
            return
        if isinstance(module, nn.Linear | nn.Conv2d):
            initialization.xavier_normal_(module.weight)  # App. A.1
            initialization.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            initialization.zeros_(module.weight)

    def pixel_shuffle(self, vision_features: torch.Tensor, scale_factor: float = 0.5):
        """InternVL's pixel shuffle: (T, H, W, C) -> (T, H * s, W * s, C / s^2), s the factor."""
        features = super().pixel_shuffle(vision_features, scale_factor)
        if self.config.pixel_shuffle == "v1":
            features = features.transpose(1, 2).contiguous()
        return features

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
        return self.mask_encoder(mask_values, mask_places, mask_index)

    def embed_inputs(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        mask_features: torch.Tensor | None = None,
        check: bool = True,
    ) -> torch.Tensor:
        """Token embeddings with features in place of placeholders, (B, L, D).

        Args:
            input_ids: (B, L); one of `input_ids` and `inputs_embeds`.
            inputs_embeds: (B, L, D).
            image_features: (T, tokens, D), the batch's image tiles in order.
            mask_features: (M, N, D), the batch's mask tiles in order.
            check: false lets placeholders stand without features, as when decoding from a cache.

        Raises:
            ValueError: neither or both inputs, or the numbers of features and placeholders differ.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        embedding = self.get_input_embeddings()
        source = embedding(input_ids) if inputs_embeds is None else inputs_embeds
        embeds = source
        for kind, features in (("image", image_features), ("mask", mask_features)):
            if features is None and (not check or input_ids is None):
                continue
            token_id = self._token_id(kind, input_ids, features)
            where = placeholder_mask(token_id, input_ids, source, embedding)
            if features is None:
                features = embeds.new_empty(0, embeds.shape[-1])
            embeds = scatter_features(embeds, where, features, kind)
        return embeds

    def _token_id(
        self, kind: str, input_ids: torch.Tensor | None, features: torch.Tensor | None
    ) -> int | None:
        """The placeholder's id as the config has it now; counted out where the config has none."""
        token_id = getattr(self.config, f"{kind}_token_id")
        if token_id is None and features is not None and input_ids is not None:
            known = (self.config.image_token_id, self.config.mask_token_id)
            taken = {i for i in known if i is not None}
            # images are looked for first; which stands first is what mask_position says
            first = self.config.mask_position == "after_image"
            token_id = find_token_id(input_ids, features, taken, kind, first)
            setattr(self.config, f"{kind}_token_id", token_id)
        return token_id

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        mask_values: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        mask_features: torch.Tensor | None = None,
        mask_places: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """See `UrecaForConditionalGeneration.forward`; returns hidden states instead of logits."""
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values, return_dict=True).pooler_output
        if mask_values is not None:
            mask_features = self.get_mask_features(mask_values, mask_places)
        cache = past_key_values if cache is None else cache
        cached = 0 if cache is None else cache.get_seq_length()
        embeds = self.embed_inputs(
            input_ids, inputs_embeds, image_features, mask_features, check=cached == 0
        )
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = positions(attention_mask, embeds.shape[1])
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=embeds,
            **{CACHE: cache},
            **kwargs,
        )
        return BaseModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
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
        """See `UrecaModel.get_mask_features`."""
        return self.model.get_mask_features(mask_values, mask_places, mask_index)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        mask_values: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        mask_features: torch.Tensor | None = None,
        mask_places: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Logits, and the loss where there are labels.

        Args:
            input_ids: (B, L) with an image placeholder for each image feature and a mask
                placeholder for each mask token.
            attention_mask: (B, L), or (B, past + L) with a cache; 0 at padding, on either side.
            pixel_values: (T, 3, S, S), the image tiles of the whole batch in order.
            mask_values: (M, 1, S, S), the mask tiles of the whole batch in order, used as given:
                the processor has applied `config.mask_scale`.
            labels: (B, L), -100 where there is nothing to learn.
            position_ids: (B, L); by default counted from `attention_mask`.
            past_key_values: keys and values of earlier tokens; pixels and masks belong to the
                first step only.
            cache: the same, as transformers names it since 5.24.
            inputs_embeds: (B, L, D) instead of `input_ids`.
            image_features: (T, tokens, D) instead of `pixel_values`.
            mask_features: (M, N, D) instead of `mask_values`.
            mask_places: (M, 2), row and column of each mask tile, for a model with
                `mask_tile_embedding`; the processor of such a model gives them.
            logits_to_keep: how many last positions, or which, get logits; 0 is all.

        Raises:
            ValueError: the numbers of features and placeholders differ; the message has both.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            mask_values=mask_values,
            position_ids=position_ids,
            past_key_values=past_key_values,
            cache=cache,
            inputs_embeds=inputs_embeds,
            image_features=image_features,
            mask_features=mask_features,
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
        """Inputs of one generation step: pixels and masks enter once, with the prompt."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in _FIRST_STEP_ONLY:
                inputs.pop(name, None)
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, input_ids: torch.LongTensor | None = None, **kwargs
    ) -> tuple[torch.LongTensor, dict]:
        """Repeat each sample for beams; its tiles stay together (a tile is not a sample)."""
        features = {name: kwargs.pop(name) for name in _FIRST_STEP_ONLY if name in kwargs}
        if expand_size > 1:
            for kind in ("image", "mask"):
                named = {name for name in features if _KINDS[name] == kind}
                given = {name: features[name] for name in named if features[name] is not None}
                if given:
                    tiles = len(next(iter(given.values())))
                    embeds = kwargs.get("inputs_embeds")
                    where = self._placeholders(kind, tiles, input_ids, embeds)
                    for name, value in given.items():
                        features[name] = repeat_tiles(value, where, expand_size)
        input_ids, kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, input_ids=input_ids, **kwargs
        )
        return input_ids, kwargs | features

    def _placeholders(
        self,
        kind: Literal["image", "mask"],
        tiles: int,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
    ) -> torch.Tensor:
        """(B, L) bool, where the features of a prompt will stand that no pass has seen yet."""
        config = self.config
        tokens = config.image_seq_length if kind == "image" else config.num_mask_tokens
        if inputs_embeds is not None:  # transformers adds ids without length
            token_id, embedding = getattr(config, f"{kind}_token_id"), self.get_input_embeddings()
            return placeholder_mask(token_id, None, inputs_embeds, embedding)
        features = torch.empty(tiles, tokens, 0)
        return input_ids == self.model._token_id(kind, input_ids, features)


def positions(attention_mask: torch.Tensor, length: int) -> torch.Tensor:
    """Positions of the last `length` tokens, padding not counted: (B, L_all) -> (B, length)."""
    counted = attention_mask.long().cumsum(dim=-1) - 1
    return counted.clamp_(min=0)[:, -length:]


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


AutoModel.register(UrecaConfig, UrecaModel)
AutoModelForImageTextToText.register(UrecaConfig, UrecaForConditionalGeneration)
