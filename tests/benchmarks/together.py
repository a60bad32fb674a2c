"""What it costs that no two regions say the same, and a figure of two look-alikes.

The committed tiny model captions test scenes, and 128 regions of one large image: greedily, chosen
together, and with beams for all regions, which is the most that choosing together can cost. Time
is that of the processor, in one thread, so that other programs disturb it little.

    OMP_NUM_THREADS=1 python tests/benchmarks/together.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.caption_regions import scene
from benchmarks.record import record

from ureca_lib.captioner import Caption, RegionCaptioner
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.figures import caption_figure, save_figure
from ureca_lib.regions import Region, RegionImage

ROOT = Path(__file__).resolve().parents[2]
WAYS = {"greedy": {}, "chosen together": {"together": True}, "eight beams": {"beams": 8}}
FIGURE = ROOT / "papermill_runs" / "together" / "look_alikes.png"
DRAWN = "scenes:test:1-2"


def timed(
    captioner: RegionCaptioner, pixels: np.ndarray, regions: list[Region], way: str
) -> tuple[float, list[Caption]]:
    """Seconds of the processor per region, and the captions."""
    start = time.process_time()
    captions = captioner.caption(pixels, regions, progress=False, **WAYS[way])
    return (time.process_time() - start) / len(regions), captions


def rows_of(captioner: RegionCaptioner, name: str, images: list[tuple]) -> list[str]:
    """A row of the table per way; medians over images, and of the ratios to greedy."""
    timed(captioner, *images[0], "greedy")  # warm up
    found = {way: [timed(captioner, *image, way) for image in images] for way in WAYS}
    greedy = [seconds for seconds, _ in found["greedy"]]
    rows = []
    for way, runs in found.items():
        seconds = [value for value, _ in runs]
        ratio = statistics.median(one / base for one, base in zip(seconds, greedy, strict=True))
        captions = [caption for _, captions in runs for caption in captions]
        changed = sum(caption.instead_of is not None for caption in captions)
        cells = [name, way, f"{1000 * statistics.median(seconds):.1f}", f"{ratio:.2f}"]
        cells.append(f"{changed / len(captions):.0%}" if way == "chosen together" else "-")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def draw(captioner: RegionCaptioner, image: RegionImage) -> None:
    """Draw the largest region whose caption changed, and those that said the same."""
    options = {"image": image.pixels, "regions": image.regions, "progress": False}
    before = {each.region_id: each.text for each in captioner.caption(**options)}
    after = {each.region_id: each for each in captioner.caption(**options, together=True)}
    changed = [region for region in image if after[region.id].instead_of is not None]
    largest = max(changed, key=lambda region: region.area)
    same = [key for key, text in before.items() if text == before[largest.id]]
    texts = {key: f"together: {after[key].text}" for key in same}
    save_figure(caption_figure(image, texts, same, others={"alone": before}), FIGURE)


def main() -> None:
    """Measure, draw and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=12)
    count = parser.parse_args().scenes
    captioner = RegionCaptioner.from_pretrained(ROOT / "data_samples" / "tiny_ureca")
    draw(captioner, open_captioned(DRAWN)[0].image)
    scenes = [(image.pixels, image.regions) for image in open_captioned(f"scenes:test:{count}")]
    lines = [
        "| images | way | processor ms per region | times greedy | captions changed |",
        "|---|---|---:|---:|---:|",
        *rows_of(captioner, f"{count} test scenes", scenes),
        *rows_of(captioner, "128 regions, 2250 x 1500", [scene(128)]),
    ]
    command = " ".join(["OMP_NUM_THREADS=1 python tests/benchmarks/together.py", *sys.argv[1:]])
    record("Captions that agree: cost with the tiny model", "\n".join(lines), command)


if __name__ == "__main__":
    main()
