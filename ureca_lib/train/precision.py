"""Where computing in bfloat16 is worth it."""

from __future__ import annotations

import torch


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; elsewhere autocast would make it slower."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def computes_in_bf16(precision: str, device: str) -> bool:
    """Whether a run autocasts to bfloat16.

    Args:
        precision: of `TrainSettings`: "bfloat16" always, "float32" never, "mixed" where the device
            multiplies bfloat16 itself.
        device: type of the device, such as "cpu" or "cuda".
    """
    if precision != "mixed":
        return precision == "bfloat16"
    if device == "cpu":
        return cpu_has_bf16()
    return device == "cuda" and torch.cuda.is_bf16_supported()
