"""Train the tiny base from scratch on procedural scenes: a small MLLM that sees no masks.

It learns to describe scenes, and regions that are given as boxes in text. Stage 1 then trains a
mask encoder on it. Run as

    ureca train-base --out data_samples/tiny_base

which is what `make tiny-base` does. An interrupted run resumes from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import socket
import time
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import multiprocessing
from transformers import GotOcr2ImageProcessorPil

from ureca_lib.checkpoints.loading import save_float16
from ureca_lib.configuration import MAX_TILES_TRAIN
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD
from ureca_lib.scenes import SceneSpecification
from ureca_lib.train.grouped import grouped_forward, run_images
from ureca_lib.train.options import BaseSettings, option_words
from ureca_lib.train.run_folder import moments, set_moments
from ureca_lib.train.settings import computes_in_bf16
from ureca_lib.train.tiny_base.data import (
    BaseBatch,
    BaseBatches,
    SceneShards,
    inside,
    make_shards,
)
from ureca_lib.train.tiny_base.losses import AttentionHook, PatchHeads, TokenHeads, attention_loss
from ureca_lib.train.tiny_base.model import as_internvl, new_base, scene_tokenizer

FLOOR = 0.01  # share of the peak learning rate that a cosine ends with
FIRST_FLOOR = 0.3  # of the first cosine, which another follows

_CARD = """# Tiny base

A small InternVL (transformers' own classes, {parameters:,} parameters) that describes the scenes of
specification {scenes_version} and regions of them that are given as boxes in text. It sees no
masks: it is the frozen MLLM that a URECA model is built on. It was trained on generated scenes
only, so it knows nothing of photographs.

| | |
|---|---|
| exact captions, held out | {exact:.1%} of all regions of {validation_scenes} validation scenes |
| time | {minutes:.0f} minutes on {machine}, torch {torch} |
{settings}

Weights are stored in float16 and computed with in float32. `training_log.jsonl` is the loss curve,
`training_settings.json` has all settings. Made by `{command}`.
"""


def train_base(
    settings: BaseSettings, out: str | Path, work: str | Path, device: str = "cpu"
) -> Path:
    """Train the base and write it with tokenizer, settings and loss curve.

    Args:
        settings: see `BaseSettings`.
        out: folder for the result, in transformers' InternVL layout.
        work: folder for scenes as arrays and for checkpoints; may be deleted afterwards.
        device: of the training; other than the CPU it takes one process.

    Returns:
        `out`.

    Raises:
        ValueError: `work` holds checkpoints of other settings, or several processes on a GPU.
    """
    out, work = Path(out), Path(work)
    if settings.processes > 1 and torch.device(device).type != "cpu":
        raise ValueError(f"device {device} takes one process: set processes to 1")
    work.mkdir(parents=True, exist_ok=True)
    _check_same(settings, work)
    spec = SceneSpecification()
    folder = work / f"scenes_{spec.version}"
    jobs = settings.processes
    first, second = spec.train_seeds[0], spec.validation_seeds[0]
    training = make_shards(range(first, first + settings.scenes), folder, jobs=jobs)
    held_out = make_shards(range(second, second + settings.validation_scenes), folder, jobs=jobs)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = (settings, work, training, held_out, device, port)
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
    device: str,
    port: int,
) -> None:
    torch.set_num_threads(1)
    if settings.processes > 1:
        dist.init_process_group(
            "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=settings.processes
        )
    run = BaseRun(rank, settings, work, files, held_out, device)
    run.resume()
    run.train()
    if settings.processes > 1:
        dist.destroy_process_group()


def _check_same(settings: BaseSettings, work: Path) -> None:
    file = work / "settings.json"
    mine = asdict(settings) | {"scenes_version": SceneSpecification().version}
    if file.exists() and (theirs := json.loads(file.read_text())) != mine:
        changed = [name for name in mine if theirs.get(name) != mine[name]]
        raise ValueError(f"{work} was begun with other settings: {', '.join(changed)} differ")
    file.write_text(json.dumps(mine, indent=2))


class BaseRun:
    """One process's part of the training.

    Args:
        rank: of the process.
        settings: see `BaseSettings`.
        work: folder of the log and of the checkpoint.
        files, held_out: shards to train and to validate on.
        device: where it computes.
    """

    def __init__(
        self,
        rank: int,
        settings: BaseSettings,
        work: Path,
        files: list[Path],
        held_out: list[Path],
        device: str = "cpu",
    ):
        self.rank, self.settings, self.work, self.device = rank, settings, work, device
        self.model = new_base(settings.seed, settings.width, settings.depth).to(device)
        self.heads = PatchHeads(self.model.config.vision_config.hidden_size).to(device)
        self.token_heads = TokenHeads(self.model.config.text_config.hidden_size).to(device)
        self.batches = BaseBatches(scene_tokenizer(), self.model.config.image_seq_length)
        self.scenes, self.held_out = SceneShards(files), SceneShards(held_out)
        modules = {"model": self.model, "heads": self.heads, "token_heads": self.token_heads}
        self.named = {
            f"{name}.{key}": value
            for name, module in modules.items()
            for key, value in module.named_parameters()
            if value.requires_grad
        }
        groups = [
            {
                "params": [p for p in self.named.values() if (p.ndim > 1) == decayed],
                "weight_decay": settings.weight_decay if decayed else 0.0,
            }
            for decayed in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
        self.step, self.seconds = 0, 0.0
        kind, bf16 = torch.device(device).type, settings.bf16
        bf16 = computes_in_bf16("mixed", kind) if bf16 is None else bf16
        self.autocast = torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext()

    def learning_rate(self, step: int) -> float:
        """Cosines with warm-up, see `BaseSettings.cosines`."""
        s = self.settings
        start, end, highest = [part for part in s.cosines if part[0] <= step][-1]
        floor = FIRST_FLOOR if start < s.patch_steps else FLOOR
        warm = min(1.0, (step - start + 1) / s.warmup_steps)
        wave = floor + (1 - floor) * (1 + math.cos(math.pi * (step - start) / (end - start))) / 2
        return highest * warm * wave

    def train(self, until: int | None = None) -> None:
        """Train to the last step, or to `until`, logging and saving on the way."""
        s = self.settings
        last = s.steps if until is None else until
        began = time.monotonic() - self.seconds
        while self.step < last:
            row = self._step()
            self.seconds = time.monotonic() - began
            ends = self.step == s.steps
            if self.rank == 0 and (self.step % 10 == 0 or ends):
                row |= {"seconds": round(self.seconds, 1)}
                if self.step % (2 * s.save_every) == 0 or ends:
                    row["validation_exact"] = self.validate()
                with (self.work / "log.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if self.rank == 0 and (self.step % s.save_every == 0 or ends):
                self.save()

    def _step(self) -> dict[str, Any]:
        s, share = self.settings, self.settings.scenes_a_step // self.settings.processes
        rng = np.random.default_rng((s.seed, self.step, self.rank))
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = _order(len(self.scenes), s.seed, self.step * s.scenes_a_step, s.scenes_a_step)
        chosen = [self.scenes[i] for i in order[self.rank * share : (self.rank + 1) * share]]
        batch = self.batches.batch(chosen, s.regions_a_scene, rng).to(self.device)
        with self.autocast:
            loss, parts = self._losses(batch)
        loss.backward()
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        values = {name: round(value.item(), 4) for name, value in parts.items()}
        return {"step": self.step, "learning_rate": round(rate, 7)} | values

    def _losses(self, batch: BaseBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The step's loss, and its parts."""
        s, inner = self.settings, self.model.model
        vision = inner.get_image_features(batch.grouped.pixel_values, return_dict=True)
        grouped = replace(batch.grouped, pixel_values=None, image_features=vision.pooler_output)
        patches = self.heads(vision.last_hidden_state[:, 1:], batch.patches)
        first = int((grouped.image_ids[0] == self.batches.image_token_id).int().argmax())
        count = batch.extents.shape[1]
        with AttentionHook().on(inner.language_model) as hook:
            if self.step < s.patch_steps:
                run_images(self.model, grouped, vision.pooler_output)
            else:
                output = grouped_forward(self.model, grouped)
        tokens = hook.tokens[:, first : first + count]
        aids = patches + self.token_heads(tokens, batch.patches, batch.extents)
        if self.step < s.patch_steps:
            return aids, {"patch_loss": patches, "aids": aids}
        extents = batch.extents[grouped.image_of]
        wanted = torch.stack([inside(extents, boxes) for boxes in batch.boxes])
        look = attention_loss(hook.attentions, first, wanted, batch.asking)
        parts = {"loss": output.loss, "aids": aids, "patch_loss": patches, "look_loss": look}
        loss = output.loss + s.aid_weight * aids + s.look_weight * look
        return loss, parts | {"exact": output.correct.float().mean()}

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
        """Share of held-out regions whose caption greedy decoding reproduces exactly."""
        correct = []
        for i in range(len(self.held_out)):
            batch = self.batches.batch([self.held_out[i]]).to(self.device)
            with self.autocast:
                correct.append(grouped_forward(self.model, batch.grouped).correct)
        return round(torch.cat(correct).float().mean().item(), 4)

    def save(self) -> None:
        """Write weights, the optimizer's moments and the step, replaced in one move."""
        last = self.work / "last"
        last.mkdir(exist_ok=True)
        tensors = {name: value.detach() for name, value in self.named.items()}
        tensors |= moments(self.optimizer, self.named)
        position = {"step": str(self.step), "seconds": str(self.seconds)}
        unfinished = last / "state.part"
        save_file(tensors, unfinished, metadata=position)
        unfinished.replace(last / "state.safetensors")

    def resume(self) -> None:
        """Return to the state that `save` wrote, if there is one.

        Raises:
            ValueError: the state was written by an earlier version of this package.
        """
        file = self.work / "last" / "state.safetensors"
        if not file.exists():
            return
        with safe_open(file, "pt") as opened:
            position = opened.metadata()
        tensors = load_file(file)
        if {name.partition(":")[0] for name in tensors} != set(self.named):
            raise ValueError(f"{file}: written by an earlier version; delete {self.work}")
        with torch.no_grad():
            for name, value in self.named.items():
                value.copy_(tensors.pop(name))
        set_moments(self.optimizer, self.named, tensors)
        self.step, self.seconds = int(position["step"]), float(position["seconds"])


def _order(count: int, seed: int, first: int, length: int) -> np.ndarray:
    """Numbers of a step's scenes: shuffled anew each time that all were seen."""
    at = np.arange(first, first + length)
    epochs = {
        int(e): np.random.default_rng((seed, int(e))).permutation(count)
        for e in np.unique(at // count)
    }
    return np.array([epochs[int(i // count)][i % count] for i in at])


def _write(settings: BaseSettings, out: Path, work: Path) -> Path:
    run = BaseRun(0, settings, work, [], [])
    run.resume()
    save_float16(as_internvl(run.model), out)
    scene_tokenizer().save_pretrained(out)
    # how InternVL checkpoints describe the tiling of images
    side = run.model.config.tile_size
    GotOcr2ImageProcessorPil(
        size={"height": side, "width": side},
        crop_to_patches=True,
        max_patches=MAX_TILES_TRAIN,
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    ).save_pretrained(out)
    log = (work / "log.jsonl").read_text()
    (out / "training_log.jsonl").write_text(log)
    (out / "training_settings.json").write_bytes((work / "settings.json").read_bytes())
    rows = [json.loads(line) for line in log.splitlines()]
    exact = [row["validation_exact"] for row in rows if "validation_exact" in row]
    values = asdict(settings)
    card = _CARD.format(
        parameters=sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        scenes_version=SceneSpecification().version,
        exact=exact[-1] if exact else float("nan"),
        validation_scenes=settings.validation_scenes,
        minutes=rows[-1]["seconds"] / 60,
        machine=f"{platform.machine()} {platform.system()}",
        torch=torch.__version__,
        settings="\n".join(
            f"| {each.metadata['help']} | {values[each.name]} |" for each in fields(settings)
        ),
        command=shlex.join(["ureca", "train-base", "--out", "FOLDER", *option_words(settings)]),
    )
    (out / "README.md").write_text(card)
    return out
