"""The tiny base, trained from scratch on procedural scenes: a small MLLM that sees no masks.

It learns to describe scenes, and regions that are given as boxes in text. Stage 1 then teaches a
mask encoder to say to it what a box says, and more. Run as

    ureca train-base --out data_samples/tiny_base

which is what `make tiny-base` does. A killed run goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing
from transformers import GotOcr2ImageProcessorPil

from ureca_lib.checkpoints.loading import save_half
from ureca_lib.configuration import MAX_TILES_TRAIN
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD
from ureca_lib.scenes import SceneSpecification
from ureca_lib.train.base_card import write_card
from ureca_lib.train.base_model import as_internvl
from ureca_lib.train.base_run import BaseRun
from ureca_lib.train.base_settings import BaseSettings
from ureca_lib.train.scene_shards import make_shards
from ureca_lib.train.tokenizer import scene_tokenizer


def train_base(settings: BaseSettings, out: str | Path, work: str | Path) -> Path:
    """Train the base and write it with tokenizer, settings and loss curve.

    Args:
        settings: see `BaseSettings`.
        out: folder for the result, in transformers' InternVL layout.
        work: folder for scenes as arrays and for checkpoints; may be deleted afterwards.

    Returns:
        `out`.

    Raises:
        ValueError: `work` holds checkpoints of other settings.
    """
    out, work = Path(out), Path(work)
    work.mkdir(parents=True, exist_ok=True)
    _check_same(settings, work)
    spec = SceneSpecification()
    folder = work / f"scenes_{spec.version}"
    jobs = settings.processes
    first, second = spec.train_seeds[0], spec.validation_seeds[0]
    training = make_shards(range(first, first + settings.scenes), folder, jobs=jobs)
    held_out = make_shards(range(second, second + settings.validation_scenes), folder, jobs=jobs)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    port = _free_port()
    args = (settings, work, training, held_out, port)
    if settings.processes == 1:
        _worker(0, *args)
    else:
        multiprocessing.spawn(_worker, args, nprocs=settings.processes)
    return _write(settings, out, work)


def _worker(
    rank: int,
    settings: BaseSettings,
    work: Path,
    files: list[Path],
    held_out: list[Path],
    port: int,
) -> None:
    torch.set_num_threads(1)
    if settings.processes > 1:
        dist.init_process_group(
            "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=settings.processes
        )
    run = BaseRun(rank, settings, work, files, held_out)
    run.resume()
    run.train()
    if settings.processes > 1:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _check_same(settings: BaseSettings, work: Path) -> None:
    file = work / "settings.json"
    mine = asdict(settings) | {"scenes_version": SceneSpecification().version}
    if file.exists() and (theirs := json.loads(file.read_text())) != mine:
        changed = [name for name in mine if theirs.get(name) != mine[name]]
        raise ValueError(f"{work} was begun with other settings: {', '.join(changed)} differ")
    file.write_text(json.dumps(mine, indent=2))


def _write(settings: BaseSettings, out: Path, work: Path) -> Path:
    run = BaseRun(0, settings, work, [], [])
    run.resume()
    save_half(as_internvl(run.model), out)
    scene_tokenizer().save_pretrained(out)
    _image_processor(run.model.config.tile_size).save_pretrained(out)
    (out / "training_log.jsonl").write_bytes((work / "log.jsonl").read_bytes())
    (out / "training_settings.json").write_bytes((work / "settings.json").read_bytes())
    write_card(out)
    return out


def _image_processor(tile_size: int) -> GotOcr2ImageProcessorPil:
    """What InternVL checkpoints have: how their images are cut up."""
    return GotOcr2ImageProcessorPil(
        size={"height": tile_size, "width": tile_size},
        crop_to_patches=True,
        max_patches=MAX_TILES_TRAIN,
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )
