"""The tiny base, trained from scratch on procedural scenes: a small MLLM that sees no masks.

It learns to describe scenes, and regions that are given as boxes in text. Stage 1 then teaches a
mask encoder to say to it what a box says, and more. Run as

    ureca train-base --out data_samples/tiny_base

which is what `make tiny-base` does. A killed run goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import multiprocessing

from ureca_lib.scenes import SceneSpecification
from ureca_lib.train.base_batches import BaseBatches
from ureca_lib.train.base_model import PatchHeads, as_internvl, new_base
from ureca_lib.train.grouped import grouped_forward
from ureca_lib.train.scene_shards import SceneShards, make_shards
from ureca_lib.train.tokenizer import scene_tokenizer


@dataclass(frozen=True)
class BaseSettings:
    """How the tiny base is trained."""

    scenes: int = field(default=12_000, metadata={"help": "of the training split, seen in turn"})
    validation_scenes: int = field(default=100, metadata={"help": "of the validation split"})
    steps: int = field(default=3600, metadata={"help": "steps of the optimizer"})
    patch_steps: int = field(default=300, metadata={"help": "first steps, by patch labels alone"})
    patch_weight: float = field(default=0.2, metadata={"help": "of the patch loss after them"})
    scenes_a_step: int = field(default=16, metadata={"help": "of all processes together"})
    regions_a_scene: int = field(default=16, metadata={"help": "drawn from a scene each time"})
    learning_rate: float = field(default=1.2e-3, metadata={"help": "highest, then a cosine"})
    warmup_steps: int = field(default=100, metadata={"help": "of each of the two parts"})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's"})
    processes: int = field(default=2, metadata={"help": "one thread each, gradients averaged"})
    bf16: bool | None = field(
        default=None, metadata={"help": "autocast; by default where the CPU multiplies bfloat16"}
    )
    seed: int = field(default=0, metadata={"help": "of weights, regions and gaps"})
    save_every: int = field(default=200, metadata={"help": "steps between checkpoints"})


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; elsewhere autocast would make it slower."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


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


class _Run:
    """One process's part of the training."""

    def __init__(
        self, rank: int, settings: BaseSettings, work: Path, files: list[Path], held_out: list[Path]
    ):
        self.rank, self.settings, self.work = rank, settings, work
        self.model = new_base(settings.seed)
        self.heads = PatchHeads(self.model.config.vision_config.hidden_size)
        self.batches = BaseBatches(scene_tokenizer(), self.model.config.image_seq_length)
        self.scenes, self.held_out = SceneShards(files), SceneShards(held_out)
        modules = {"model": self.model, "heads": self.heads}
        self.named = {
            f"{name}.{key}": value
            for name, module in modules.items()
            for key, value in module.named_parameters()
            if value.requires_grad
        }
        parameters = list(self.named.values())
        decayed = [p for p in parameters if p.ndim > 1]
        groups = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
        self.step, self.seconds = 0, 0.0
        bf16 = cpu_has_bf16() if settings.bf16 is None else settings.bf16
        self.autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()

    def learning_rate(self, step: int) -> float:
        """Two cosines with warm-up: one for the patches alone, one for the captions."""
        s = self.settings
        start, length = (0, s.patch_steps) if step < s.patch_steps else (
            s.patch_steps, s.steps - s.patch_steps
        )  # fmt: skip
        at = step - start
        floor = 0.3 if start == 0 and s.patch_steps else 0.01
        warm = min(1.0, (at + 1) / s.warmup_steps)
        wave = floor + (1 - floor) * (1 + math.cos(math.pi * at / length)) / 2
        return s.learning_rate * warm * wave

    def train(self) -> None:
        s = self.settings
        log = self.work / "log.jsonl"
        began = time.monotonic() - self.seconds
        while self.step < s.steps:
            row = self._step()
            self.seconds = time.monotonic() - began
            if self.rank == 0 and self.step % 10 == 0:
                row |= {"seconds": round(self.seconds, 1)}
                if self.step % (2 * s.save_every) == 0 or self.step == s.steps:
                    row["validation_exact"] = self.validate()
                with log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if self.step % s.save_every == 0 or self.step == s.steps:
                self.save()

    def _step(self) -> dict[str, Any]:
        s, share = self.settings, self.settings.scenes_a_step // self.settings.processes
        random = np.random.default_rng((s.seed, self.step, self.rank))
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = _order(len(self.scenes), s.seed, self.step * s.scenes_a_step, s.scenes_a_step)
        chosen = [self.scenes[i] for i in order[self.rank * share : (self.rank + 1) * share]]
        batch, patches = self.batches.batch(chosen, s.regions_a_scene, random)
        captions = self.step >= s.patch_steps
        row: dict[str, Any] = {"step": self.step + 1, "learning_rate": round(rate, 7)}
        with self.autocast:
            seen = self.model.model.get_image_features(batch.pixel_values, return_dict=True)
            loss = self.heads(seen.last_hidden_state[:, 1:], patches)
            row["patch_loss"] = round(loss.item(), 4)
            if captions:
                told = grouped_forward(
                    self.model, replace(batch, pixel_values=None, image_features=seen.pooler_output)
                )
                row["loss"] = round(told.loss.item(), 4)
                row["exact"] = round(told.correct.float().mean().item(), 4)
                loss = told.loss + s.patch_weight * loss
        loss.backward()
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return row

    def _average_gradients(self) -> None:
        if self.settings.processes == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.named.values()]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.settings.processes).split([g.numel() for g in gradients])
        for parameter, part in zip(self.named.values(), parts, strict=True):
            parameter.grad = part.view_as(parameter)

    @torch.inference_mode()
    def validate(self) -> float:
        """Share of held-out regions whose caption greedy decoding gives exactly."""
        correct = []
        for i in range(len(self.held_out)):
            batch, _ = self.batches.batch([self.held_out[i]])
            with self.autocast:
                correct.append(grouped_forward(self.model, batch).correct)
        return round(torch.cat(correct).float().mean().item(), 4)

    def save(self) -> None:
        if self.rank != 0:
            return
        last = self.work / "last"
        last.mkdir(exist_ok=True)
        state = self.optimizer.state_dict()["state"]
        tensors = {name: value.detach() for name, value in self.named.items()}
        for number, moments in state.items():
            tensors |= {f"optimizer.{number}.{key}": value for key, value in moments.items()}
        at = {"step": str(self.step), "seconds": str(self.seconds)}
        unfinished = last / "state.part"
        save_file(tensors, unfinished, metadata=at)
        unfinished.replace(last / "state.safetensors")

    def resume(self) -> None:
        file = self.work / "last" / "state.safetensors"
        if not file.exists():
            return
        with safe_open(file, "pt") as opened:
            at = opened.metadata()
        tensors = load_file(file)
        with torch.no_grad():
            for name, value in self.named.items():
                value.copy_(tensors[name])
        state = self.optimizer.state_dict()
        for key in (key for key in tensors if key.startswith("optimizer.")):
            _, number, name = key.split(".")
            state["state"].setdefault(int(number), {})[name] = tensors[key]
        self.optimizer.load_state_dict(state)
        self.step, self.seconds = int(at["step"]), float(at["seconds"])


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
    run = _Run(rank, settings, work, files, held_out)
    run.resume()
    run.train()
    if settings.processes > 1:
        dist.destroy_process_group()


def _order(count: int, seed: int, first: int, length: int) -> np.ndarray:
    """Which scenes the step takes: shuffled anew each time that all were seen."""
    at = np.arange(first, first + length)
    epochs = {int(e): np.random.default_rng((seed, int(e))).permutation(count)
              for e in np.unique(at // count)}  # fmt: skip
    return np.array([epochs[int(i // count)][i % count] for i in at])


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
    run = _Run(0, settings, work, [], [])
    run.resume()
    as_internvl(run.model).save_pretrained(out)
    scene_tokenizer().save_pretrained(out)
    (out / "training_log.jsonl").write_bytes((work / "log.jsonl").read_bytes())
    (out / "training_settings.json").write_bytes((work / "settings.json").read_bytes())
    return out
