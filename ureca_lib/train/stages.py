"""A stage's starting model, its trainable parameters, and its loss.

Stage 1 trains the mask encoder, its projection included, and nothing else; stage 2 trains LoRA
adapters on the language model with the mask encoder frozen (App. A). The vision tower and its
projector are frozen in both, so image features are computed without gradients, or come from a
cache.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from ureca_lib.checkpoints import CheckpointError
from ureca_lib.checkpoints.internvl import MASK_ENCODER, internvl_reader
from ureca_lib.checkpoints.tensors import load_strict, read_json
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.configuration import UrecaConfig
from ureca_lib.conversation import IGNORED
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import LORA_LAYERS
from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.features import FeatureCache
from ureca_lib.train.grouped import GroupedBatch, grouped_forward
from ureca_lib.train.settings import SettingsError, TrainSettings

LORA_TARGETS = rf".*language_model.*\.({'|'.join(LORA_LAYERS)})"
_GROUPED = (
    "image_ids",
    "image_attention",
    "region_ids",
    "region_attention",
    "image_of",
    "mask_values",
    "mask_places",
)


def load_start(settings: TrainSettings) -> tuple[UrecaForConditionalGeneration, UrecaProcessor]:
    """Load the model that a stage starts from, configured by its settings, and its processor.

    `settings.model` is a checkpoint of ours, such as stage 1 writes for stage 2, or for stage 1 an
    InternVL checkpoint, in transformers' layout or its own. In stage 1 the mask encoder's weights
    are drawn from the seed, unless `fresh_mask_encoder` is false.

    Raises:
        CheckpointError: no such folder, another layout, no tokenizer, no safetensors, or some
            that are damaged or lack tensors.
        SettingsError: no model is named, or stage 2 would start without a trained mask encoder,
            or with one of other shapes.
    """
    if settings.model is None:
        raise SettingsError("settings: model: name the folder of the model to start from")
    folder = Path(settings.model).expanduser()
    if not folder.is_dir():
        raise CheckpointError(folder, "not a folder" if folder.exists() else "no such folder")
    raw = read_json(folder / "config.json")
    if (tokenizer := load_tokenizer(folder)) is None:
        raise CheckpointError(folder, "no tokenizer: copy the base's tokenizer files into it")
    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    if start := internvl_reader(folder):
        if settings.stage == 2:
            raise SettingsError(
                f"{folder} has no mask encoder: stage 2 starts from what stage 1 left"
            )
        named = settings.model_settings
        model = start(folder, dtype=dtype, seed=settings.seed, **named)
    elif raw.get("model_type") == UrecaConfig.model_type:
        model = _ours(folder, settings, dtype)
    else:
        raise CheckpointError(folder, "not a checkpoint of ours: run ureca convert on it first")
    model.set_attn_implementation(settings.attention)
    return model, UrecaProcessor.from_config(model.config, tokenizer)


def _ours(
    folder: Path, settings: TrainSettings, dtype: torch.dtype
) -> UrecaForConditionalGeneration:
    stored = UrecaConfig.from_pretrained(folder)
    config = settings.configure(stored)
    shapes = ("num_mask_tokens", "mask_size", "mask_projector", "mask_tile_embedding")
    other = [name for name in shapes if getattr(config, name) != getattr(stored, name)]
    fresh = settings.stage == 1 and settings.fresh_mask_encoder
    if other and not fresh:
        raise SettingsError(f"{folder}: its mask encoder has another {' and '.join(other)}")
    drawn = MASK_ENCODER if fresh else ""
    model = load_strict(
        UrecaForConditionalGeneration, folder, fresh=drawn, config=config, dtype=dtype
    )
    if fresh:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model.model.mask_encoder.reset_parameters()
    return model


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass, by the name that transformers has for it.

    transformers' default is the non-reentrant kind; the reentrant kind would drop gradients where
    the inputs need none, as in stage 1.
    """
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)()  # the older name


def freeze_for_stage(
    model: UrecaForConditionalGeneration, settings: TrainSettings
) -> UrecaForConditionalGeneration | PeftModel:
    """Freeze all but the stage's trainable parameters, which become float32 whatever the rest is.

    Returns:
        Stage 1: the model itself; stage 2: the same with adapters in it, inside peft's wrapper.
    """
    model.requires_grad_(False)
    if settings.gradient_checkpointing:
        checkpoint_activations(model)
    if settings.stage == 1:
        model.model.mask_encoder.float().requires_grad_(True)
        return model
    lora = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=LORA_TARGETS,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks for it by the name that transformers had for it before
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        torch.manual_seed(settings.seed)
        return get_peft_model(model, lora)


class StageModel(nn.Module):
    """A model whose forward pass returns the loss of a batch of `RegionCollator`.

    Args:
        model: of `freeze_for_stage`.
        cache: gets the features of images that came as pixels, or None.
    """

    def __init__(
        self,
        model: UrecaForConditionalGeneration | PeftModel,
        cache: FeatureCache | None = None,
    ):
        super().__init__()
        self.model, self.cache = model, cache

    @property
    def config(self) -> UrecaConfig:
        return self.base.config

    @property
    def base(self) -> UrecaForConditionalGeneration:
        """The model, without peft's wrapper; adapters are in its layers."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def _no_split_modules(self) -> list[str]:
        """Layers that FSDP shards one by one; read by accelerate, under transformers' name."""
        return sorted(self.base._no_split_modules)

    def train(self, mode: bool = True) -> StageModel:
        """As `nn.Module.train`, but the frozen vision tower has no dropout."""
        super().train(mode)
        self.base.model.vision_tower.eval()
        return self

    def trained(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by their names in `model`."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def forward(
        self,
        labels: torch.Tensor,
        tokens: torch.Tensor | int | None = None,
        **batch: Any,
    ) -> torch.Tensor:
        """The summed loss of the answers' tokens, divided by their number.

        Args:
            labels: (R, L).
            tokens: answer tokens of the whole step, over all devices and accumulated batches; by
                default this batch's own.
            batch: see `RegionCollator`.
        """
        features = self.image_features(batch)
        if "image_ids" in batch:
            named = {name: batch[name] for name in _GROUPED if name in batch}
            grouped = GroupedBatch(**named, labels=labels, image_features=torch.cat(features))
            return grouped_forward(self.base, grouped, tokens).loss
        rows = torch.cat([features[image] for image in batch["image_of"].tolist()])
        hidden = self.base.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            image_features=rows,
            mask_values=batch["mask_values"],
            mask_places=batch.get("mask_places"),
            use_cache=False,
        ).last_hidden_state
        return answer_loss(self.base.lm_head, hidden, labels, tokens)

    def image_features(self, batch: dict[str, Any]) -> list[torch.Tensor]:
        """(T, tokens, D) per image: given features, and those of pixels, which go into the cache.

        Each image is run alone, so that its features do not depend on the rest of the batch.
        """
        counts, given = batch["image_tiles"], batch["has_features"]
        cached = [count for count, has in zip(counts, given, strict=True) if has]
        fresh = [count for count, has in zip(counts, given, strict=True) if not has]
        kept = iter(batch["image_features"].split(cached) if cached else ())
        pixels = iter(batch["pixel_values"].split(fresh) if fresh else ())
        keys = iter(batch["image_keys"])
        features = []
        for has in given:
            if has:
                features.append(next(kept))
                continue
            features.append(self.encode_image(next(pixels)))
            key = next(keys)
            if key is not None and self.cache is not None:
                self.cache.put(key, features[-1])
        return features

    @torch.no_grad()
    def encode_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The frozen tower and projector: (T, 3, S, S) -> (T, tokens, D).

        In the weights' own type, without autocast: cached features must not depend on where they
        were computed.
        """
        pixels = pixel_values.to(self.base.lm_head.weight.dtype)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.base.get_image_features(pixels, return_dict=True).pooler_output


def answer_loss(
    head: nn.Module,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    tokens: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Cross-entropy of the labelled tokens, summed and divided by `tokens`, default their number.

    The head runs at labelled positions only, a small part of a prompt: logits of a large
    vocabulary would take most of a step's memory.

    Args:
        head: (A, D) -> (A, V).
        hidden: (R, L, D); a position's state predicts the next token.
        labels: (R, L), `IGNORED` at positions without a label.
    """
    wanted = labels[:, 1:]
    where = wanted != IGNORED
    targets = wanted[where]
    logits = head(hidden[:, :-1][where]).float()  # (R, L, D) -> (A, D) -> (A, V)
    loss = functional.cross_entropy(logits, targets, reduction="sum")
    return loss / (max(1, len(targets)) if tokens is None else tokens)
