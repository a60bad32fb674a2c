"""One process of the tiny base's training: its steps, its checkpoints, its held-out scenes."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ureca_lib.train.base_aids import PatchHeads, TokenHeads, Watch, inside, look_loss
from ureca_lib.train.base_batches import BaseBatch, BaseBatches
from ureca_lib.train.base_model import new_base
from ureca_lib.train.base_settings import BaseSettings
from ureca_lib.train.grouped import grouped_forward, run_images
from ureca_lib.train.precision import cpu_has_bf16
from ureca_lib.train.scene_shards import SceneShards
from ureca_lib.train.tokenizer import scene_tokenizer

FLOOR = 0.01  # share of the highest learning rate that a cosine ends with
FIRST_FLOOR = 0.3  # of the first one, which another follows


class BaseRun:
    """One process's part of the training.

    Args:
        rank: of the process.
        settings: see `BaseSettings`.
        work: folder of the log and of the checkpoint.
        files, held_out: shards to learn from and to validate on.
    """

    def __init__(
        self, rank: int, settings: BaseSettings, work: Path, files: list[Path], held_out: list[Path]
    ):
        self.rank, self.settings, self.work = rank, settings, work
        self.model = new_base(settings.seed, settings.width, settings.depth)
        self.heads = PatchHeads(self.model.config.vision_config.hidden_size)
        self.token_heads = TokenHeads(self.model.config.text_config.hidden_size)
        self.batches = BaseBatches(scene_tokenizer(), self.model.config.image_seq_length)
        self.scenes, self.held_out = SceneShards(files), SceneShards(held_out)
        modules = {"model": self.model, "heads": self.heads, "token_heads": self.token_heads}
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
        """Cosines with warm-up, see `BaseSettings.cosines`."""
        s = self.settings
        start, end, highest = [part for part in s.cosines if part[0] <= step][-1]
        floor = FIRST_FLOOR if start < s.patch_steps else FLOOR
        warm = min(1.0, (step - start + 1) / s.warmup_steps)
        wave = floor + (1 - floor) * (1 + math.cos(math.pi * (step - start) / (end - start))) / 2
        return highest * warm * wave

    def train(self, until: int | None = None) -> None:
        """Go on to the last step, or to `until`, logging and saving on the way."""
        s = self.settings
        last = s.steps if until is None else until
        log = self.work / "log.jsonl"
        began = time.monotonic() - self.seconds
        while self.step < last:
            row = self._step()
            self.seconds = time.monotonic() - began
            if self.rank == 0 and (self.step % 10 == 0 or self.step == s.steps):
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
        batch = self.batches.batch(chosen, s.regions_a_scene, random)
        row: dict[str, Any] = {"step": self.step + 1, "learning_rate": round(rate, 7)}
        with self.autocast:
            loss, told = self._losses(batch)
        loss.backward()
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return row | told

    def _losses(self, batch: BaseBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """The step's loss, and its parts."""
        s, inner = self.settings, self.model.model
        seen = inner.get_image_features(batch.grouped.pixel_values, return_dict=True)
        grouped = replace(batch.grouped, pixel_values=None, image_features=seen.pooler_output)
        patches = self.heads(seen.last_hidden_state[:, 1:], batch.patches)
        first = int((grouped.image_ids[0] == self.batches.image_token_id).int().argmax())
        count = batch.extents.shape[1]
        with Watch().on(inner.language_model) as watch:
            if self.step < s.patch_steps:
                run_images(self.model, grouped, seen.pooler_output)
            else:
                output = grouped_forward(self.model, grouped)
        tokens = watch.tokens[:, first : first + count]
        aids = patches + self.token_heads(tokens, batch.patches, batch.extents)
        if self.step < s.patch_steps:
            return aids, {"patch_loss": round(patches.item(), 4), "aids": round(aids.item(), 4)}
        extents = batch.extents[grouped.image_of]
        wanted = torch.stack([inside(extents, boxes) for boxes in batch.boxes])
        look = look_loss(watch.attentions, first, wanted, batch.asking)
        told = {"loss": output.loss, "aids": aids, "patch_loss": patches, "look_loss": look}
        told["exact"] = output.correct.float().mean()
        loss = output.loss + s.aid_weight * aids + s.look_weight * look
        return loss, {name: round(value.item(), 4) for name, value in told.items()}

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
            batch = self.batches.batch([self.held_out[i]])
            with self.autocast:
                correct.append(grouped_forward(self.model, batch.grouped).correct)
        return round(torch.cat(correct).float().mean().item(), 4)

    def save(self) -> None:
        """Weights, the optimizer's moments and the step, replaced in one move; rank 0's alone."""
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
        """Go back to what `save` left, if anything."""
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


def _order(count: int, seed: int, first: int, length: int) -> np.ndarray:
    """Which scenes the step takes: shuffled anew each time that all were seen."""
    at = np.arange(first, first + length)
    epochs = {int(e): np.random.default_rng((seed, int(e))).permutation(count)
              for e in np.unique(at // count)}  # fmt: skip
    return np.array([epochs[int(i // count)][i % count] for i in at])
