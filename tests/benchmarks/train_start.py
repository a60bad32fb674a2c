"""Start of a run that is resumed: data of growing size, read through its index.

The data is in the published layout: a line of JSON per caption, and SA-1B's JSON file and photo of
each image, here of 100 small regions. The index is made once. Then another process opens the data
and makes the batch that follows a step far in the run, as a resumed run does; imports and the model
are left out.

    OMP_NUM_THREADS=1 python tests/benchmarks/train_start.py [10000 100000 1000000]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from record import record

from ureca_lib.annotate.export import conversation, write_jsonl
from ureca_lib.presets import preset_config
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region
from ureca_lib.train.data import RegionCaptionDataset, RegionCollator, open_data
from ureca_lib.train.index import open_index
from ureca_lib.train.settings import load_settings
from ureca_lib.train.tiny_base.model import scene_tokenizer

SIDE, ACROSS = 120, 10  # pixels of a photo, regions along it
REGIONS = ACROSS**2
BATCH = 16


def write_data(folder: Path, rows: int) -> str:
    """Images whose regions are squares of a grid, with a caption each."""
    photo, step = folder / "sa1b" / "sa_0.jpg", SIDE // ACROSS
    photo.parent.mkdir()
    Image.new("RGB", (SIDE, SIDE)).save(photo)
    annotations = []
    for number in range(REGIONS):
        mask, (row, column) = np.zeros((SIDE, SIDE), bool), divmod(number, ACROSS)
        mask[row * step : row * step + 8, column * step : column * step + 8] = True
        region = Region.from_mask(number, mask)
        rle = {"size": [SIDE, SIDE], "counts": region.rle["counts"].decode()}
        box = list(map(int, region.bbox))
        annotations.append({"id": number, "segmentation": rle, "bbox": box, "area": region.area})
    for image in range(rows // REGIONS):
        name = f"sa_{image}"
        if image:
            photo.with_name(f"{name}.jpg").write_bytes(photo.read_bytes())
        size = {"width": SIDE, "height": SIDE, "file_name": f"{name}.jpg", "image_id": image}
        content = {"image": size, "annotations": annotations}
        photo.with_name(f"{name}.json").write_text(json.dumps(content))
    write_jsonl(
        folder / "train.jsonl",
        (
            {"id": str(row), "image": f"sa_{row // REGIONS}.jpg", "mask_id": row % REGIONS}
            | {"conversations": conversation(f"the square of row {row}")}
            for row in range(rows)
        ),
    )
    return f"{folder / 'train.jsonl'}@{photo.parent}"


def start(data: str, buffer: int) -> None:
    """Open the data as a resumed run does, and print seconds and GiB of memory."""
    tokenizer = scene_tokenizer()
    config = preset_config("tiny", len(tokenizer), mask_position="after_image")
    processor = UrecaProcessor.from_config(config, tokenizer)
    changes = {"data": data, "batch_size": BATCH, "regions_per_image": 1, "epochs": 2.0}
    changes |= {"eval_every": 0, "steps": None, "shuffle_buffer": buffer}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    images, _ = open_data(load_settings("tiny", 1, changes))
    dataset = RegionCaptionDataset(images, processor, load_settings("tiny", 1, changes))
    first = dataset.steps // 2 * BATCH
    RegionCollator(processor, False)([dataset[place] for place in range(first, first + BATCH)])
    seconds = time.perf_counter() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([seconds, grown / 2**20]))


def measured(data: str, buffer: int) -> list[float]:
    """`start` in a process of its own."""
    command = [sys.executable, __file__, "--start", data, str(buffer)]
    return json.loads(subprocess.run(command, check=True, text=True, capture_output=True).stdout)


def main(*sizes: int) -> None:
    """Measure and record."""
    rows = [
        "| captions | images | index, s | index, MB | start, s | GiB | with a shuffle buffer, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            data = write_data(Path(name), size)
            began = time.perf_counter()
            index = open_index(data, progress=False)
            made, held = time.perf_counter() - began, index.path.stat().st_size / 1e6
            seconds, grown = measured(data, 0)
            buffered, _ = measured(data, 10_000)
        rows.append(
            f"| {size:,} | {size // REGIONS:,} | {made:.0f} | {held:.0f} | {seconds:.2f} | "
            f"{grown:.2f} | {buffered:.2f} |"
        )
        print(rows[-1], flush=True)
    note = (
        f"{REGIONS} regions an image. Start: until the batch of {BATCH} regions in the middle of "
        "the run is made. GiB: growth of the process's memory. The buffer has 10,000 groups."
    )
    words = ["tests/benchmarks/train_start.py", *map(str, sizes)]
    command = f"OMP_NUM_THREADS=1 python {' '.join(words)}"
    record("Training: start of a resumed run", "\n".join([*rows, "", note]), command)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--start"]:
        start(sys.argv[2], int(sys.argv[3]))
    else:
        main(*(map(int, sys.argv[1:]) if sys.argv[1:] else (10_000, 100_000, 1_000_000)))
