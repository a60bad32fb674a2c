"""The annotation pipeline's own work, how much of a slow annotator it hides, and its memory.

Own work: a sample photo enlarged to 1024 px (51 regions), a zero-latency annotator; the processor's
time of all threads, shared out among the regions, against one `pycocotools.mask.decode` a region.
Hiding: an annotator that takes 200 ms, 16 calls at a time, on generated scenes; the ideal is
calls x 0.2 s / 16. Memory: generated scenes, zero latency; resident memory as the run goes on.

    OMP_NUM_THREADS=1 python tests/benchmarks/pipeline.py [--images 1000] [--only hiding]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

from pycocotools import mask as coco_mask
from record import record
from tqdm.auto import tqdm
from views import SAMPLE, enlarged

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fake_annotators import FakeAnnotator, distinct_reply

from ureca_lib.annotate import run
from ureca_lib.annotate.look_alikes import ColorTextureFeatures
from ureca_lib.annotate.protocol import Reply, Request
from ureca_lib.annotate.run import annotate_images
from ureca_lib.annotate.store import Store
from ureca_lib.regions import RegionImage, load_sa1b
from ureca_lib.scenes import generate_scene, save_scene

SIDE, REPEATS = 1024, 5
LATENCY, IN_FLIGHT, HIDING_IMAGES = 0.2, 16, 24
PARTS = ("own", "hiding", "memory")
COMMAND = "OMP_NUM_THREADS=1 python tests/benchmarks/pipeline.py"


class Forgetful(FakeAnnotator):
    """Keeps no requests, whose images would stay in memory; counts calls."""

    number = 0

    def answer(self, request: Request) -> Reply:
        """A caption at once, or after the latency."""
        self.number += 1
        if self._latency:
            time.sleep(self._latency)
        return distinct_reply(request)


@contextmanager
def timed(module: ModuleType, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Add up the thread's processor time of a function that a module calls."""
    inner = getattr(module, name)

    def outer(*arguments: object, **named: object) -> object:
        start = time.thread_time()
        result = inner(*arguments, **named)
        spent[name] = spent.get(name, 0.0) + time.thread_time() - start
        return result

    with mock.patch.object(module, name, outer):
        yield


def own_work(image: RegionImage) -> dict[str, float]:
    """Processor milliseconds a region of one run over an image, by part."""
    spent: dict[str, float] = {}
    features = ColorTextureFeatures()

    class Timed:
        name, threshold = features.name, features.threshold

        def __call__(self, *arguments: object) -> object:
            start = time.thread_time()
            result = features(*arguments)
            spent["features"] = time.thread_time() - start
            return result

    annotator = Forgetful(max_in_flight=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "s.db") as store,
        timed(run, "stage_views", spent),
        timed(run, "fill_prompt", spent),
        timed(run, "ImageViews", spent),
    ):
        start = time.process_time()
        annotate_images(image, store, annotator, features=Timed(), progress=False)
        spent["all"] = time.process_time() - start
    spent["calls"] = annotator.number
    return {name: value / len(image) * 1000 for name, value in spent.items()}


def measure_own_work() -> str:
    """A table of the processor's time a region."""
    image = enlarged(load_sa1b(SAMPLE), SIDE)
    image.file_name = SAMPLE.name
    own_work(image)  # tables that are made once
    runs, base = [], []
    for _ in range(REPEATS):
        start = time.process_time()
        for region in image:
            coco_mask.decode(region.rle)
        base.append((time.process_time() - start) / len(image) * 1000)
        runs.append(own_work(image))
    found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    decode, calls = statistics.median(base), found.pop("calls") / 1000
    views = found["stage_views"] + found["fill_prompt"] + found["ImageViews"]
    rest = found["all"] - views - found["features"]
    rows = [
        f"| part ({calls:.2f} calls a region) | ms a region | x one mask decode |",
        "|---|---|---|",
    ]
    parts = {
        "views and prompts": views,
        "look-alike features": found["features"],
        "tree, hashes, store, coroutines": rest,
        "all": found["all"],
    }
    rows += [f"| {name} | {ms:.2f} | {ms / decode:.1f} |" for name, ms in parts.items()]
    return "\n".join(rows)


def scenes(folder: Path, count: int) -> Path:
    """Generated scenes on disk."""
    for seed in tqdm(range(count), desc="scenes"):
        save_scene(generate_scene(seed), folder, "jpg")
    return folder


def measure_hiding(folder: Path) -> str:
    """A table of the ideal and the real time at 200 ms a call."""
    load = os.getloadavg()[0]
    rows = ["| in flight | calls | ideal, s | real, s | ideal / real |", "|---|---|---|---|---|"]
    for in_flight in (1, 4, IN_FLIGHT):
        # fewer images where fewer are in flight, so that each row takes about as long
        images = sorted(folder.glob("*.json"))[: max(1, HIDING_IMAGES * in_flight // IN_FLIGHT)]
        annotator = Forgetful(max_in_flight=in_flight, latency=LATENCY)
        with tempfile.TemporaryDirectory() as place:
            start = time.perf_counter()
            annotate_images(images, Path(place) / "s.db", annotator, progress=False)
            real = time.perf_counter() - start
        ideal = annotator.number * LATENCY / in_flight
        rows.append(
            f"| {in_flight} | {annotator.number} | {ideal:.1f} | {real:.1f} | {ideal / real:.0%} |"
        )
    rows.append(f"\nLoad average before and after: {load:.1f}, {os.getloadavg()[0]:.1f}.")
    return "\n".join(rows)


def resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure_memory(folder: Path, count: int) -> str:
    """A table of resident memory after each tenth of the images."""
    seen: list[tuple[int, float, float]] = []
    step, start, watch = max(1, count // 10), time.perf_counter(), threading.Lock()

    class Watching(Forgetful):
        images: set[str] = set()  # noqa: RUF012

        def answer(self, request: Request) -> Reply:
            with watch:  # threads answer side by side; a tenth is noted once
                self.images.add(str(request.image.file_name))
                if len(self.images) // step > (seen[-1][0] // step if seen else 0):
                    seen.append((len(self.images), resident(), time.perf_counter() - start))
            return super().answer(request)

    with tempfile.TemporaryDirectory() as place:
        annotator = Watching(max_in_flight=IN_FLIGHT)
        summary = annotate_images(folder, Path(place) / "s.db", annotator)
        size = (Path(place) / "s.db").stat().st_size / 2**20
    rows = ["| images begun | resident, MiB | seconds |", "|---|---|---|"]
    rows += [f"| {number} | {mib:.0f} | {seconds:.0f} |" for number, mib, seconds in seen]
    states = ", ".join(f"{number:,} {state}" for state, number in summary.states.items())
    rows.append(f"\n{summary.done} images done, regions: {states}; {summary.calls:,} calls; ")
    return "\n".join(rows) + f"the store has {size:.0f} MiB."


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000, help="scenes of the memory run")
    parser.add_argument("--only", choices=PARTS, action="append", help="may be repeated")
    options = parser.parse_args()
    parts = options.only or PARTS
    if "own" in parts:
        record("Pipeline: own work a region", measure_own_work(), f"{COMMAND} --only own")
    with tempfile.TemporaryDirectory() as place:
        if "hiding" in parts:
            table = measure_hiding(scenes(Path(place) / "few", HIDING_IMAGES))
            record("Pipeline: hiding a 200 ms annotator", table, f"{COMMAND} --only hiding")
        if "memory" in parts:
            table = measure_memory(scenes(Path(place) / "many", options.images), options.images)
            command = f"{COMMAND} --only memory --images {options.images}"
            record("Pipeline: memory of a long run", table, command)


if __name__ == "__main__":
    main()
