"""Tiny SAM checkpoints with random weights of the real architectures."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    PreTrainedModel,
    Sam2Config,
    Sam2Model,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamImageProcessorPil,
    SamModel,
)
from transformers.image_processing_base import ImageProcessingMixin

_IOU = {"iou_head_hidden_dim": 16, "iou_head_depth": 2}
_DECODER = {"hidden_size": 32, "mlp_dim": 16, "num_attention_heads": 2} | _IOU
_FEATURES = [[16, 16], [8, 8], [4, 4]]
MEANS = {"sam2": [0.485, 0.456, 0.406], "sam3_tracker": [0.5, 0.5, 0.5]}


def save_sam(kind: str, folder: Path, seed: int = 1) -> Path:
    """Save a checkpoint with weights so large that the masks differ from point to point.

    Args:
        kind: "sam", "sam_hq", "sam2" or "sam3_tracker".
        folder: new.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    model = _MODELS[kind]()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(generator=generator)
    model.save_pretrained(folder)
    if kind in MEANS:
        sizes = {"size": {"height": 64, "width": 64}}
        statistics = {"image_mean": MEANS[kind], "image_std": [0.25, 0.5, 0.5]}
        ImageProcessingMixin(**sizes, **statistics).save_pretrained(folder)
    else:
        SamImageProcessorPil(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        ).save_pretrained(folder)
    return folder


def _sam(hq: bool = False) -> PreTrainedModel:
    sizes = {"hidden_size": 16, "image_size": 64, "patch_size": 8}
    vision = {"output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"global_attn_indexes": [0, 1], "mlp_dim": 16, "num_pos_feats": 8, "window_size": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2} | _IOU
    parts = {
        "vision_config": sizes | vision,
        "prompt_encoder_config": sizes | {"mask_input_channels": 4},
        "mask_decoder_config": decoder | ({"vit_dim": 16} if hq else {}),
    }
    return SamHQModel(SamHQConfig(**parts)) if hq else SamModel(SamConfig(**parts))


def _sam2() -> PreTrainedModel:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [2, 2],
    }
    vision = {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8]}
    vision |= {"backbone_feature_sizes": _FEATURES, "fpn_hidden_size": 32}
    parts = {"vision_config": vision, "prompt_encoder_config": _prompts(64, 16)}
    return Sam2Model(Sam2Config(**parts, mask_decoder_config=_DECODER))


def _sam3() -> PreTrainedModel:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "pretrain_image_size": 28,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    vision = {"backbone_config": backbone, "fpn_hidden_size": 32}
    vision["backbone_feature_sizes"] = _FEATURES
    parts = {"vision_config": vision, "prompt_encoder_config": _prompts(56, 14)}
    return Sam3TrackerModel(Sam3TrackerConfig(**parts, mask_decoder_config=_DECODER))


def _prompts(side: int, patch: int) -> dict[str, int]:
    sizes = {"image_size": side, "patch_size": patch}
    return {"hidden_size": 32, "mask_input_channels": 4} | sizes


_MODELS = {
    "sam": _sam,
    "sam_hq": lambda: _sam(hq=True),
    "sam2": _sam2,
    "sam3_tracker": _sam3,
}
