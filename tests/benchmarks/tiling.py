"""Cutting 64 masks of 1500 x 2250 px into tiles, against Pillow mask after mask.

At most 12 tiles of 448 px and the thumbnail. The baseline is the published way: a float image of 0
and 255, resized and cropped by Pillow, cast to bytes, stacked, divided by 255; from encodings it
decodes with pycocotools first. Both give the same tiles, which is checked.

    python tests/benchmarks/tiling.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from record import record

from ureca_lib.tiling import best_grid, tile_masks

HEIGHT, WIDTH, COUNT, TILE, MAX_TILES, REPEATS = 1500, 2250, 64, 448, 12, 9


def outlines(count: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    """(R, H, W) bool: wavy discs, their radii in pixels spread evenly in the logarithm."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    masks = []
    for radius in np.exp(generator.uniform(np.log(low), np.log(high), count)):
        y, x = rows - generator.uniform(0, HEIGHT), columns - generator.uniform(0, WIDTH)
        angle = np.arctan2(y, x)
        wave = 1 + 0.25 * np.sin(5 * angle + generator.uniform(0, 6)) + 0.05 * np.sin(41 * angle)
        masks.append(np.hypot(y, x) < radius * wave)
    return np.stack(masks)


def with_pillow(masks: np.ndarray | list[np.ndarray]) -> torch.Tensor:
    """The baseline, (R, T, S, S) float32."""
    columns, rows = best_grid(WIDTH, HEIGHT, MAX_TILES, tile_size=TILE)
    cut = []
    for mask in masks:
        image = Image.fromarray(mask.astype(np.float32) * 255)
        canvas = image.resize((columns * TILE, rows * TILE), Image.NEAREST)
        corners = [(c * TILE, r * TILE) for r in range(rows) for c in range(columns)]
        tiles = [canvas.crop((x, y, x + TILE, y + TILE)) for x, y in corners]
        tiles.append(image.resize((TILE, TILE), Image.BICUBIC))
        cut.append(np.stack([np.asarray(tile).astype(np.int64).astype(np.uint8) for tile in tiles]))
    return torch.from_numpy(np.stack(cut)).float() / 255


def seconds(call: Callable[[], torch.Tensor]) -> float:
    """Wall-clock seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(name: str, base: Callable[[], torch.Tensor], ours: Callable[[], torch.Tensor]) -> str:
    """One row of the table: medians of interleaved runs, fastest ones, median of the ratios."""
    if not torch.equal(base(), ours()):
        raise AssertionError(f"{name}: the tiles differ")
    pairs = [(seconds(base), seconds(ours)) for _ in range(REPEATS)]
    columns = zip(*pairs, strict=True)
    times = [f"{1000 * statistics.median(c):.0f} ({1000 * min(c):.0f})" for c in columns]
    ratio = statistics.median(one / other for one, other in pairs)
    return f"| {name} | {times[0]} | {times[1]} | {ratio:.1f} |"


def main() -> None:
    """Measure and record."""
    rows = [
        "| 64 masks | Pillow, ms (fastest) | tile_masks, ms (fastest) | times faster |",
        "|---|---|---|---|",
    ]
    for what, low, high in (("sizes as in SA-1B", 15, 600), ("large", 500, 700)):
        masks = outlines(COUNT, low, high)
        rles = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        share = f"{what} ({masks.mean():.0%} of the image on average)"

        def call(source):
            return tile_masks(source, MAX_TILES, TILE, thumbnail=True)

        rows.append(
            compare(
                f"{share}, encodings",
                lambda r=rles: with_pillow([coco_mask.decode(rle) for rle in r]),
                lambda r=rles: call(r),
            )
        )
        rows.append(
            compare(f"{share}, arrays", lambda m=masks: with_pillow(m), lambda m=masks: call(m))
        )
    rows.append(
        "\nThe result takes 360 MB; how fast the system hands out memory "
        "decides most of the spread."
    )
    record("Mask tiling", "\n".join(rows), "python tests/benchmarks/tiling.py")


if __name__ == "__main__":
    main()
