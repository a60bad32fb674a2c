"""Making procedural scenes: one process, two processes, and what a scene's time is spent on.

Scenes are made and written as JPEG and JSON into an empty folder. The baseline is one process.
The two runs take turns on different seeds, and the share of each step is of one process's time.

    python tests/benchmarks/scenes.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from record import record

from ureca_lib.regions import load_sa1b
from ureca_lib.scenes import generate_scene, load_scene, resolve, save_scene, write_scenes

COUNT, REPEATS, START = 480, 3, 900_000
WANTED = 8000  # scenes, in two minutes on two cores


def seconds(call) -> float:
    """Wall-clock seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def write(jobs: int, seeds: range) -> float:
    """Seconds to write scenes into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        return seconds(lambda: write_scenes(seeds, folder, jobs=jobs, progress=False))


def steps(count: int = 60) -> dict[str, float]:
    """Median milliseconds of each step for one scene."""
    taken: dict[str, list[float]] = {}

    def note(name, call):
        start = time.perf_counter()
        result = call()
        taken.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        return result

    with tempfile.TemporaryDirectory() as folder:
        for seed in range(START, START + count):
            scene = note("generate: image, masks, facts", lambda seed=seed: generate_scene(seed))
            captions = note("captions, phrase style", lambda scene=scene: scene.captions)
            note(
                "resolve all captions",
                lambda s=scene, c=captions: [resolve(t, s) for t in c.values()],
            )
            note("save, PNG", lambda scene=scene: save_scene(scene, folder))
            path = note("save, JPEG", lambda scene=scene: save_scene(scene, folder, "jpg"))
            note("load, without the image", lambda path=path: load_scene(path))
            note("load_sa1b alone", lambda path=path: load_sa1b(Path(path)))
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Measure and record."""
    runs: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(REPEATS):
        for jobs in runs:
            first = START + (2 * repeat + jobs) * COUNT
            runs[jobs].append(write(jobs, range(first, first + COUNT)))
    medians = {jobs: statistics.median(times) for jobs, times in runs.items()}
    rows = ["| processes | scenes/s | ms a scene | against one | 8,000 scenes, s |"]
    rows.append("|---|---|---|---|---|")
    for jobs, time_taken in medians.items():
        rate = COUNT / time_taken
        against = medians[1] / time_taken
        rows.append(
            f"| {jobs} | {rate:.1f} | {1000 / rate:.1f} | {against:.2f} | {WANTED / rate:.0f} |"
        )
    rows += ["", "| step | ms, median |", "|---|---|"]
    rows += [f"| {name} | {value:.1f} |" for name, value in steps().items()]
    record("Scenes", "\n".join(rows), "python tests/benchmarks/scenes.py")


if __name__ == "__main__":
    main()
