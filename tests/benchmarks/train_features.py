"""A stage-1 step of preset tiny with vision features from the cache, and with the tower run anew.

Random weights, 8 sample scenes, float32: grouped as tiny trains (8 images, 16 regions of each on
one image prefix) and as the paper has it (16 images, one region of each, a row of its own).

    python tests/benchmarks/train_features.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from record import record

from ureca_lib.train.loop import train_stage
from ureca_lib.train.settings import load_settings
from ureca_lib.train.tiny_base.model import as_internvl, new_base, scene_tokenizer

SCENES = Path(__file__).resolve().parents[2] / "data_samples" / "scenes"
WAYS = {
    "8 images x 16 regions, shared prefix": {},
    "16 images x 1 region, rows": {"batch_size": 16, "regions_per_image": 1},
}


def step_seconds(base: Path, out: Path, steps: int, **changes) -> float:
    """Median seconds of a step, the first two left out."""
    fixed = {"model": str(base), "data": str(SCENES), "limit": 8, "steps": steps}
    fixed |= {"eval_every": 0, "save_every": 0, "log_every": 1, "export": False}
    result = train_stage(load_settings("tiny", 1, fixed | changes), out, progress=False)
    ends = [row["seconds"] for row in result.log]
    return statistics.median(later - earlier for earlier, later in pairwise(ends[1:]))


def main(steps: int = 10) -> None:
    """Measure and record."""
    rows = ["| a step of | tower, s | cached, s | times faster |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        as_internvl(new_base(0)).save_pretrained(base)
        scene_tokenizer().save_pretrained(base)
        for name, changes in WAYS.items():
            runs = {"tower": {"memory_gib": 0.0}, "cached": {}}
            took = {
                which: step_seconds(base, Path(folder) / f"{name} {which}", steps, **changes, **own)
                for which, own in runs.items()
            }
            ratio = took["tower"] / took["cached"]
            rows.append(f"| {name} | {took['tower']:.2f} | {took['cached']:.2f} | {ratio:.1f} |")
    note = "Without the cache, mask tiles are made anew as well: nothing is held in memory."
    command = "OMP_NUM_THREADS=1 python tests/benchmarks/train_features.py"
    record("Training: vision features from the cache", "\n".join([*rows, "", note]), command)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:]))
