"""Making procedural scenes: one process, two processes, and what a scene's time is spent on.

Scenes are made and written as JPEG and JSON into an empty folder. The baseline is one process.
The two runs take turns on different seeds. Beside the wall clock stands the processors' time, the
start of the processes apart (from two lengths of run): on a machine that others use too, only
that is the scenes' own.

    python tests/benchmarks/scenes.py
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from ureca_lib.regions import load_sa1b
from ureca_lib.scenes import generate_scene, load_scene, resolve, save_scene, write_scenes

FEW, MANY, REPEATS, START = 64, 320, 3, 900_000
WANTED = 8000  # scenes, in two minutes on two cores


def seconds(call) -> float:
    """Wall-clock seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def write(jobs: int, seeds: range) -> tuple[float, float]:
    """Seconds to write scenes into an empty folder: by the wall, and of all processors."""
    before = os.times()
    with tempfile.TemporaryDirectory() as folder:
        wall = seconds(lambda: write_scenes(seeds, folder, jobs=jobs, progress=False))
    return wall, sum(os.times()[:4]) - sum(before[:4])


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
    from record import record  # here, for each process reads this file and need not load torch

    busy, seed = os.getloadavg()[0], START
    runs: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for _ in range(REPEATS):
        for jobs in (1, 2):
            for count in (FEW, MANY):
                runs.setdefault((jobs, count), []).append(write(jobs, range(seed, seed + count)))
                seed += count
    medians = {
        key: [statistics.median(column) for column in zip(*times, strict=True)]
        for key, times in runs.items()
    }
    rows = [
        f"| processes | scenes/s, of {MANY} | against one | start, processor s | then ms a scene "
        f"| {WANTED} scenes, s |",
        "|---|---|---|---|---|---|",
    ]
    for jobs in (1, 2):
        (wall, cpu), (_, little) = medians[jobs, MANY], medians[jobs, FEW]
        each = (cpu - little) / (MANY - FEW)
        start = little - FEW * each
        cells = [f"{jobs}", f"{MANY / wall:.1f}", f"{medians[1, MANY][0] / wall:.2f}"]
        cells += [f"{start:.1f}", f"{1000 * each:.1f}", f"{(start + WANTED * each) / jobs:.0f}"]
        rows.append("| " + " | ".join(cells) + " |")
    rows += [
        "",
        f"Load average at the start, by other programs: {busy:.1f}; the first two columns and the "
        "steps below are by the wall clock and suffer from it.",
        "The last column is reckoned from processor time, for as many idle cores as processes.",
    ]
    rows += ["", "| step | ms, median |", "|---|---|"]
    rows += [f"| {name} | {value:.1f} |" for name, value in steps().items()]
    record("Scenes", "\n".join(rows), "python tests/benchmarks/scenes.py")


if __name__ == "__main__":
    main()
