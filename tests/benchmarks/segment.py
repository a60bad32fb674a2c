"""Nested superpixel regions against scikit-image's SLIC and Felzenszwalb at as many scales.

Found objects: of each region that was drawn by hand on the sample photos, the largest IoU with a
region found, averaged over the regions of a photo and then over the photos. Time: of the label
maps of all levels, against four runs of SLIC on the same pixels, the baseline; then of everything,
masks included, on a photo of 12 megapixels. The two others are not nested and cannot give a tree.

    python tests/benchmarks/segment.py
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image
from record import record
from skimage.segmentation import felzenszwalb, slic

from ureca_lib.regions import RegionImage, load_sa1b
from ureca_lib.segment import superpixel_regions
from ureca_lib.segment.superpixels import LEVELS, nested_labels

PHOTOS = Path(__file__).resolve().parents[2] / "data_samples" / "photos"
REPEATS = 5
SCALES = (10_000, 3_000, 1_000, 300)  # of Felzenszwalb: rather more regions than the levels give
METHODS = {
    "SLIC at 4 counts (baseline)": lambda pixels: [
        slic(pixels, count, start_label=0) for count in LEVELS
    ],
    "Felzenszwalb at 4 scales": lambda pixels: [
        felzenszwalb(pixels, scale, min_size=pixels[..., 0].size // 1000) for scale in SCALES
    ],
    "nested superpixels": nested_labels,
}


def seconds(call) -> float:
    """Wall-clock seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def best_overlap(drawn: RegionImage, masks: list[np.ndarray]) -> float:
    """Mean over the regions drawn of the largest IoU with one of the (H, W) masks found."""
    wanted = np.stack([region.mask.ravel() for region in drawn]).astype(np.float32)
    found = np.stack([mask.ravel() for mask in masks]).astype(np.float32)
    shared = wanted @ found.T  # (R, pixels) x (pixels, found) -> (R, found)
    iou = shared / (wanted.sum(1)[:, None] + found.sum(1) - shared)
    return float(iou.max(axis=1).mean())


def split(labels: list[np.ndarray]) -> list[np.ndarray]:
    """The masks of all labels of all maps."""
    return [level == label for level in labels for label in np.unique(level)]


def main() -> None:
    """Measure and record."""
    ratios: dict[str, list[float]] = {name: [] for name in METHODS}
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    counts: dict[str, list[int]] = {name: [] for name in METHODS}
    regions_name = "nested superpixels, holes filled: the regions"
    scores[regions_name], counts[regions_name] = [], []
    for path in sorted(PHOTOS.glob("*.json")):
        drawn = load_sa1b(path)
        times: dict[str, list[float]] = {name: [] for name in METHODS}
        for _ in range(REPEATS):
            for name, method in METHODS.items():
                times[name].append(seconds(lambda method=method, drawn=drawn: method(drawn.pixels)))
        base, *_ = times.values()
        for name, method in METHODS.items():
            ratios[name].append(
                statistics.median(a / b for a, b in zip(times[name], base, strict=True))
            )
            masks = split(method(drawn.pixels))
            scores[name].append(best_overlap(drawn, masks))
            counts[name].append(len(masks))
        masks = [region.mask for region in superpixel_regions(drawn.pixels)]
        scores[regions_name].append(best_overlap(drawn, masks))
        counts[regions_name].append(len(masks))
    rows = ["| method | masks a photo | mean best IoU | time, ratio |", "|---|---|---|---|"]
    for name in scores:
        ratio = f"{statistics.median(ratios[name]):.2f}" if name in ratios else ""
        mean, count = statistics.mean(scores[name]), statistics.mean(counts[name])
        rows.append(f"| {name} | {count:.0f} | {mean:.3f} | {ratio} |")
    large = np.asarray(Image.open(PHOTOS / "coffee.png").resize((4000, 3000)))
    whole = statistics.median(seconds(lambda: superpixel_regions(large)) for _ in range(REPEATS))
    rows.append(f"\n`superpixel_regions` of a photo of 4000 x 3000 px: {whole:.1f} s.")
    record("Superpixel regions", "\n".join(rows), "python tests/benchmarks/segment.py")


if __name__ == "__main__":
    main()
