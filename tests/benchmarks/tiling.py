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

from ureca_lib.regions import Region
from ureca_lib.tiling import best_grid, distinct_mask_tiles, tile_masks

HEIGHT, WIDTH, COUNT, TILE, MAX_TILES, REPEATS = 1500, 2250, 64, 448, 12, 9


def outlines(count: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    """(R, H, W) bool: wavy discs, their radii in pixels spread evenly in the logarithm."""
    rng = np.random.default_rng(seed)
    return wavy_discs(np.exp(rng.uniform(np.log(low), np.log(high), count)), rng)


def of_areas(shares: np.ndarray, seed: int = 0) -> np.ndarray:
    """(R, H, W) bool: wavy discs of about these shares of the image."""
    return wavy_discs(np.sqrt(shares * HEIGHT * WIDTH / np.pi), np.random.default_rng(seed))


def wavy_discs(radii: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(R, H, W) bool, anywhere in the image."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    masks = []
    for radius in radii:
        y, x = rows - rng.uniform(0, HEIGHT), columns - rng.uniform(0, WIDTH)
        angle = np.arctan2(y, x)
        wave = 1 + 0.25 * np.sin(5 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(41 * angle)
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


def compare(name: str, calls: list[Callable[[], torch.Tensor]]) -> str:
    """One row of the table: medians of interleaved runs, medians of the ratios to the first."""
    runs = [[seconds(call) for call in calls] for _ in range(REPEATS)]
    columns = list(zip(*runs, strict=True))
    times = [f"{1000 * statistics.median(column):.0f}" for column in columns]
    ratios = [
        f"{statistics.median(b / o for b, o in zip(columns[0], column, strict=True)):.0f}x"
        for column in columns[1:]
    ]
    return f"| {name} | {' | '.join(times)} | {' | '.join(ratios)} |"


def main() -> None:
    """Measure and record."""
    rows = [
        "| 64 masks | Pillow, ms | float32, ms | distinct bytes, ms | float32 | distinct bytes |",
        "|---|---|---|---|---|---|",
    ]
    mix = np.exp(np.random.default_rng(1).normal(np.log(0.003), 1.6, COUNT)).clip(1e-5, 0.6)
    kinds = {
        "small (0.1% of the image)": of_areas(np.full(COUNT, 0.001)),
        f"SA-1B's mix (median {np.median(mix):.1%})": of_areas(mix),
        "medium (2%)": of_areas(np.full(COUNT, 0.02)),
        "large (33%)": of_areas(np.full(COUNT, 0.33)),
    }
    for name, masks in kinds.items():
        rles = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        regions = [Region(number, rle) for number, rle in enumerate(rles)]

        def base(rles=rles):
            return with_pillow([coco_mask.decode(rle) for rle in rles])

        def ours(regions=regions):
            return tile_masks(regions, MAX_TILES, TILE, thumbnail=True)

        def distinct(regions=regions):
            return distinct_mask_tiles(regions, MAX_TILES, TILE, thumbnail=True)

        expected, tiles = base(), distinct()
        stored = tiles.values()[tiles.index]
        if not (torch.equal(expected, ours()) and torch.equal(expected, stored)):
            raise AssertionError(f"{name}: the tiles differ")
        size = f"{tiles.distinct.nbytes / 1e6:.0f} MB for {expected.nbytes / 1e6:.0f}"
        del expected, tiles, stored
        rows.append(compare(f"{name}; {size}", [base, ours, distinct]))
    record("Mask tiling", "\n".join(rows), "python tests/benchmarks/tiling.py")


if __name__ == "__main__":
    main()
