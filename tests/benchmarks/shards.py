"""Generated images annotated in shards on Ray on this machine, and exported as one data set.

The commands are those of the README, with the embedded annotator; Ray is started and stopped by
`ureca annotate`.

    OMP_NUM_THREADS=1 python tests/benchmarks/shards.py [--images 1000] [--shards 8]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

from ureca_lib.datasets import read_jsonl
from ureca_lib.scenes import generate_scene, save_scene

FIRST = 10_000  # seed


def ureca(*words: object) -> tuple[float, str]:
    """Run a command; returns its seconds and what it says."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "ureca_lib.cli", *map(str, words)]
    ended = subprocess.run(command, check=True, text=True, capture_output=True)
    return time.perf_counter() - start, ended.stdout


def main() -> None:
    """Generate, annotate, export, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(options.images):
            save_scene(generate_scene(FIRST + seed), folder / "photos")
        stores, dataset = folder / "stores", folder / "dataset"
        shards = ("--shards", options.shards, "--engine", "ray")
        annotated, said = ureca("annotate", folder / "photos", "--out", stores, *shards)
        again, _ = ureca("annotate", folder / "photos", "--out", stores, *shards)
        exported, _ = ureca("export", stores, "--out", dataset)
        captions = sum(1 for _ in read_jsonl(dataset / "train.jsonl"))
        sizes = [path.stat().st_size for path in stores.glob("*.sqlite")]
    rows = [
        f"| annotate: {said.splitlines()[0]} | {annotated:.0f} s |",
        f"| the same again, nothing left to do | {again:.0f} s |",
        f"| export of {captions:,} unique captions as one data set | {exported:.0f} s |",
    ]
    text = f"{options.images:,} generated images; {len(sizes)} stores of {sum(sizes) / 1e6:.0f} MB."
    table = "\n".join(["| step | time |", "|---|---:|", *rows])
    words = f"python tests/benchmarks/shards.py --images {options.images} --shards {options.shards}"
    record("Shards on Ray", f"{text}\n\n{table}", f"OMP_NUM_THREADS=1 {words}")


if __name__ == "__main__":
    main()
