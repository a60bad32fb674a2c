"""A click in the explorer against drawing the photo anew, as a plain image widget would.

2000 x 1500 px, 150 nested regions. The baseline is what a click costs where the picture is made
again: the region's outline drawn on a copy of the photo, and that encoded as JPEG. A click in the
explorer is one look into the label map and a new view of a few kilobytes; captions are known, as
they are from the second click on. Processor time; what the browser and the connection take is
not in it.

    OMP_NUM_THREADS=1 python tests/benchmarks/explorer.py
"""

from __future__ import annotations

import io
import json
import statistics
import time

import numpy as np
from PIL import Image
from record import record

from ureca_lib.explorer import RegionExplorer
from ureca_lib.explorer.geometry import LabelMap, outline_path, photo_jpeg
from ureca_lib.regions import Region

HEIGHT, WIDTH, REPEATS, CLICKS = 1500, 2000, 5, 200


def blobs(count: int, seed: int = 0) -> list[Region]:
    """Ellipses with wavy edges, from large to small, so that many lie in one another."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    wave = 0.1 * np.sin(columns / 7) * np.sin(rows / 5)
    regions = []
    for number, size in enumerate(np.geomspace(700, 12, count)):
        x, y = generator.uniform(0, WIDTH), generator.uniform(0, HEIGHT)
        a, b = size * generator.uniform(0.6, 1.0, 2)
        inside = ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 + wave < 1
        regions.append(Region.from_mask(number, inside))
    return regions


def photo(seed: int = 0) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: smooth noise, which compresses like a photo."""
    small = np.random.default_rng(seed).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def redrawn(pixels: np.ndarray, region: Region) -> bytes:
    """The photo with a region marked, encoded."""
    mask = region.mask
    edge = mask ^ np.roll(mask, 2, 0) | mask ^ np.roll(mask, 2, 1)
    shown = pixels.copy()
    shown[edge] = (255, 215, 0)
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def milliseconds(call) -> float:
    """Processor time of a call."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)


def main() -> None:
    """Measure and record."""
    regions, pixels = blobs(150), photo()
    captions = {region.id: f"the thing numbered {region.id}" for region in regions}
    explorer = RegionExplorer(pixels, regions, captions=captions)
    views: list[int] = []
    explorer.widget.observe(lambda change: views.append(len(json.dumps(change["new"]))), "view")
    for region in regions:
        explorer.judge(region.id)  # look-alikes are found once
    places = np.random.default_rng(1).uniform((0, 0), (WIDTH, HEIGHT), (CLICKS, 2))

    def click(place: np.ndarray) -> None:
        explorer.handle({"kind": "click", "x": place[0], "y": place[1]})

    clicks = [milliseconds(lambda place=place: click(place)) for place in places]
    base = [milliseconds(lambda r=r: redrawn(pixels, r)) for r in regions[:: 150 // 15]]
    labels = [milliseconds(lambda: LabelMap(regions)) for _ in range(REPEATS)]
    outlines = [milliseconds(lambda: [outline_path(r) for r in regions]) for _ in range(REPEATS)]
    jpeg = [milliseconds(lambda: photo_jpeg(pixels)) for _ in range(REPEATS)]
    explorer.close()
    slow = sorted(clicks)[int(0.95 * CLICKS)]
    redraw, median = statistics.median(base), statistics.median(clicks)
    whole = len(redrawn(pixels, regions[0]))
    sizes = sum(len(outline_path(region)) for region in regions)
    rows = [
        "| | CPU ms | ratio to redrawing | bytes sent |",
        "|---|---|---|---|",
        f"| redrawing the photo (baseline) | {redraw:.1f} | 1 | {whole:,} |",
        f"| a click, median | {median:.2f} | {median / redraw:.3f} | {max(views):,} at most |",
        f"| a click, 95th percentile | {slow:.2f} | {slow / redraw:.3f} | |",
        f"| once: label map | {statistics.median(labels):.0f} | | |",
        f"| once: outlines | {statistics.median(outlines):.0f} | | {sizes:,} |",
        f"| once: photo | {statistics.median(jpeg):.0f} | | {len(photo_jpeg(pixels)):,} |",
    ]
    note = f"\n{len(regions)} regions, {WIDTH} x {HEIGHT} px; {CLICKS} clicks anywhere."
    command = "OMP_NUM_THREADS=1 python tests/benchmarks/explorer.py"
    record("Explorer", "\n".join([*rows, note]), command)


if __name__ == "__main__":
    main()
