"""Building a mask tree against the one pycocotools call that compares the same masks.

100 and 600 masks of 1500 x 2250 px. The baseline is `pycocotools.mask.iou(rles, rles, iscrowd)`,
which gives the containment of every pair but no tree.

    python tests/benchmarks/mask_tree.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from pycocotools import mask as coco_mask
from record import record

from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import Region

HEIGHT, WIDTH, REPEATS = 2250, 1500, 7


def blobs(count: int, seed: int = 0) -> list[Region]:
    """Ellipses with wavy edges, from 20 to 500 px in radius."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    wave = 0.1 * np.sin(columns / 7) * np.sin(rows / 5)
    regions = []
    for number in range(count):
        x, y = generator.uniform(0, WIDTH), generator.uniform(0, HEIGHT)
        a, b = generator.uniform(20, 500, 2)
        inside = ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 + wave < 1
        regions.append(Region.from_mask(number, inside))
    return regions


def seconds(call) -> float:
    """Wall-clock seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measure and record."""
    rows = ["| masks | pycocotools iou, ms | mask tree, ms | ratio |", "|---|---|---|---|"]
    for count in (100, 600):
        regions = blobs(count)
        rles = [region.rle for region in regions]
        pairs = []
        for _ in range(REPEATS):
            base = seconds(lambda rles=rles: coco_mask.iou(rles, rles, [1] * len(rles)))
            pairs.append((base, seconds(lambda regions=regions: build_mask_tree(regions))))
        base, tree = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(tree / base for base, tree in pairs)
        rows.append(f"| {count} | {1000 * base:.0f} | {1000 * tree:.0f} | {ratio:.2f} |")
    record("Mask tree", "\n".join(rows), "python tests/benchmarks/mask_tree.py")


if __name__ == "__main__":
    main()
