"""Encoding the mask tiles of 64 regions, with tiles of one value encoded once and without.

64 regions of a 1500 x 2250 px image as 6 tiles of 448 px and the thumbnail each, 8 tokens. The
baseline is the same encoder's `encode`, which takes every tile; values are checked to agree.

    python tests/benchmarks/mask_encoder.py
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from record import record
from tiling import outlines, seconds

from ureca_lib.mask_encoder import MaskEncoder, distinct_tiles
from ureca_lib.tiling import tile_masks

HIDDEN_SIZE, REPEATS = 896, 5  # hidden size of InternVL2.5-1B


def forward(encode: Callable, tiles: torch.Tensor) -> None:
    """Encode without gradients."""
    with torch.inference_mode():
        encode(tiles)


def learn(encode: Callable, tiles: torch.Tensor) -> None:
    """Encode and take the gradient."""
    encode(tiles).square().mean().backward()


def compare(name: str, call: Callable, encoder: MaskEncoder, tiles: torch.Tensor) -> str:
    """One row of the table: medians of interleaved runs, and the median of their ratios."""
    call(encoder, tiles)
    pairs = [
        (seconds(lambda: call(encoder.encode, tiles)), seconds(lambda: call(encoder, tiles)))
        for _ in range(REPEATS)
    ]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    return f"| {name} | {slow:.2f} | {fast:.2f} | {ratio:.1f} |"


def main() -> None:
    """Measure and record."""
    tiles = tile_masks(outlines(64, 15, 600), thumbnail=True).flatten(0, 1)[:, None]
    different = len(distinct_tiles(tiles)[0])
    rows = ["| | each tile, s | shared, s | times faster |", "|---|---|---|---|"]
    for projector in ("mlp", "linear"):
        encoder = MaskEncoder(8, HIDDEN_SIZE, projector=projector)
        with torch.inference_mode():
            expected = encoder.encode(tiles)
            torch.testing.assert_close(encoder(tiles), expected, rtol=1e-5, atol=1e-5)
        for name, call in (("forward", forward), ("forward and backward", learn)):
            rows.append(compare(f"{projector}, {name}", call, encoder, tiles))
    rows.append(f"\n{len(tiles)} tiles, {different} of them different.")
    record("Mask encoder", "\n".join(rows), "python tests/benchmarks/mask_encoder.py")


if __name__ == "__main__":
    main()
