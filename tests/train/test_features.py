"""Vision features that a run holds in memory."""

from __future__ import annotations

import torch

from ureca_lib.train.features import FeatureCache


def features(value: float, size: int = 64) -> torch.Tensor:
    return torch.full((1, size, 4), float(value))


def test_what_is_put_is_got_to_the_bit():
    cache = FeatureCache(10_000)
    stored = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    cache.put("a", stored)
    found = cache.get("a")
    assert found.dtype == torch.bfloat16 and torch.equal(found, stored)
    assert cache.get("b") is None


def test_memory_is_bounded():
    cache = FeatureCache(2100)
    for number in range(3):  # 1024 bytes of numbers each
        cache.put(str(number), features(number))
        cache.put(str(number), features(number))
    assert torch.equal(cache.get("1"), features(1))
    assert cache.get("2") is None
