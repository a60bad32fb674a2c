"""A stage's starting model, its trainable parameters, and its loss.

Stage 1 trains the mask encoder, its projection included, and nothing else; stage 2 trains LoRA
adapters on the language model with the mask encoder frozen (App. A). The vision tower and its
projector are frozen in both, so image features are computed without gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from ureca_lib.checkpoints import CheckpointError
from ureca_lib.checkpoints.internvl import MASK_ENCODER, draw_mask_encoder, internvl_reader
from ureca_lib.checkpoints.tensors import load_strict, read_json
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.configuration import UrecaConfig
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import LORA_LAYERS
from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.grouped import answer_loss, grouped_forward
from ureca_lib.train.settings import TrainSettings

LORA_TARGETS = rf".*language_model.*\.({'|'.join(LORA_LAYERS)})"


def load_start(
    settings: TrainSettings, meta: bool = False
) -> tuple[UrecaForConditionalGeneration, UrecaProcessor]:
    """Load the model that a stage starts from, configured by its settings, and its processor.

    `settings.model` is a checkpoint of ours, such as stage 1 writes for stage 2, or for stage 1 an
    InternVL checkpoint, in transformers' layout or its own. In stage 1 the mask encoder's weights
    are drawn from the seed, unless `fresh_mask_encoder` is false.

    Args:
        settings: of the stage.
        meta: read no weights: names and shapes of the files' tensors are compared with the model,
            which is built on the meta device.

    Raises:
        CheckpointError: no such folder, another layout, no tokenizer, no safetensors, or some
            that are damaged or lack tensors.
        ValueError: no model is named, or stage 2 would start without a trained mask encoder,
            or with one of other shapes.
    """
    if settings.model is None:
        raise ValueError("settings: model: name the folder of the model to start from")
    folder = Path(settings.model).expanduser()
    raw = read_json(folder / "config.json")
    if (tokenizer := load_tokenizer(folder)) is None:
        raise CheckpointError(folder, "no tokenizer: copy the base's tokenizer files into it")
    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    device = "meta" if meta else "cpu"
    if start := internvl_reader(folder):
        if settings.stage == 2:
            raise ValueError(f"{folder} has no mask encoder: stage 2 starts from what stage 1 left")
        model = start(folder, dtype, device, settings.seed, **settings.model_settings)
    elif raw.get("model_type") == UrecaConfig.model_type:
        model = _ours(folder, settings, dtype, device)
    else:
        raise CheckpointError(folder, "not a checkpoint of ours: run ureca convert on it first")
    model.set_attn_implementation(settings.attention)
    return model, UrecaProcessor.from_config(model.config, tokenizer)


def _ours(
    folder: Path, settings: TrainSettings, dtype: torch.dtype, device: str
) -> UrecaForConditionalGeneration:
    stored = UrecaConfig.from_pretrained(folder)
    config = settings.configure(stored)
    fresh = settings.stage == 1 and settings.fresh_mask_encoder
    shapes = ("num_mask_tokens", "mask_size", "mask_projector", "mask_tile_embedding")
    other = [name for name in shapes if getattr(config, name) != getattr(stored, name)]
    if other and not fresh:
        raise ValueError(f"{folder}: its mask encoder has another {' and '.join(other)}")
    options = {"config": config, "dtype": dtype}
    if device == "meta":
        options["device_map"] = device
    drawn = MASK_ENCODER if fresh else ""
    model = load_strict(UrecaForConditionalGeneration, folder, drawn, **options)
    if fresh:
        draw_mask_encoder(model, settings.seed)
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
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
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
    """

    def __init__(self, model: UrecaForConditionalGeneration | PeftModel):
        super().__init__()
        self.model = model

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
        images: Sequence[torch.Tensor],
        labels: torch.Tensor,
        tokens: torch.Tensor | int | None = None,
        **batch: torch.Tensor,
    ) -> torch.Tensor:
        """The summed loss of the answers' tokens, divided by their number.

        Args:
            images: of each image its tiles, (T, 3, S, S).
            labels: (R, L).
            tokens: answer tokens of the whole step, over all devices and accumulated batches; by
                default this batch's own.
            batch: the rest of a batch of `RegionCollator`.
        """
        # each image alone, so that its features do not depend on the rest of the batch
        features = [self.encode_image(pixels) for pixels in images]
        if "image_ids" in batch:
            features = torch.cat(features)
            batch |= {"image_features": features, "labels": labels, "tokens": tokens}
            return grouped_forward(self.base, **batch)[0]
        rows = torch.cat([features[image] for image in batch.pop("image_of").tolist()])
        model, head = self.base.model, self.base.lm_head
        hidden = model(**batch, image_features=rows, use_cache=False).last_hidden_state
        return answer_loss(head, hidden, labels, tokens)[0]

    @torch.no_grad()
    def encode_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The frozen tower and projector: (T, 3, S, S) -> (T, tokens, D).

        In the weights' own type, without autocast, as when captioning.
        """
        pixels = pixel_values.to(self.base.lm_head.weight.dtype)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.base.get_image_features(pixels, return_dict=True).pooler_output
