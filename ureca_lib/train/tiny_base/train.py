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
import shutil
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import send_to_device
from torch import multiprocessing, nn
from transformers import GotOcr2ImageProcessorPil

from ureca_lib.checkpoints.loading import save_float16
from ureca_lib.configuration import MAX_TILES_TRAIN
from ureca_lib.journal import check_same_run, write_json
from ureca_lib.options import help_of
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD
from ureca_lib.scenes import SceneSpecification
from ureca_lib.train.export import write_card
from ureca_lib.train.grouped import grouped_forward, run_images
from ureca_lib.train.loop import computes_in_bf16
from ureca_lib.train.run_folder import (
    Log,
    Position,
    latest_checkpoint,
    load_checkpoint,
    read_log,
    save_checkpoint,
)
from ureca_lib.train.settings import BaseSettings, option_words
from ureca_lib.train.tiny_base.data import (
    BaseBatch,
    BaseBatches,
    SceneArrays,
    inside,
    make_scenes,
    read_scene,
)
from ureca_lib.train.tiny_base.losses import (
    SEEN,
    WATCHED_LAYER,
    TokenHeads,
    attention_loss,
    seen_loss,
)
from ureca_lib.train.tiny_base.model import as_internvl, new_base, scene_tokenizer

FLOOR = 0.01  # share of the peak learning rate that a cosine ends with
FIRST_FLOOR = 0.3  # of the first cosine, which another follows


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
    out, work, spec, jobs = Path(out), Path(work), SceneSpecification(), settings.processes
    if jobs > 1 and torch.device(device).type != "cpu":
        raise ValueError(f"device {device} takes one process: set processes to 1")
    file, stated = work / "settings.json", asdict(settings) | {"scenes_version": spec.version}
    if file.is_file():
        check_same_run(file, json.loads(file.read_text()), stated)
    write_json(file, stated)
    folder = work / f"scenes_{spec.version}"
    first, second = spec.train_seeds[0], spec.validation_seeds[0]
    training = make_scenes(range(first, first + settings.scenes), folder, jobs)
    held_out = make_scenes(range(second, second + settings.validation_scenes), folder, jobs)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    args = (settings, out, work, training, held_out, device)
    if jobs == 1:
        _worker(0, *args)
    else:
        multiprocessing.spawn(_worker, args, nprocs=jobs)
    return out


def _worker(
    rank: int,
    settings: BaseSettings,
    out: Path,
    work: Path,
    files: list[Path],
    held_out: list[Path],
    device: str,
) -> None:
    if settings.processes > 1:
        # as a launcher of accelerate tells it
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ["WORLD_SIZE"] = str(settings.processes)
    run = BaseRun(settings, work, files, held_out, device)
    torch.set_num_threads(1)  # after accelerate, which shares the cores out
    run.train()
    if rank == 0:
        run.write(out)
    run.accelerator.end_training()


class BaseRun:
    """One process's part of the training.

    Args:
        settings: see `BaseSettings`.
        work: folder of the log and of the checkpoint, from which a run that was killed resumes.
        files, held_out: scenes to train and to validate on, see `make_scenes`.
        device: where it computes.
    """

    def __init__(
        self,
        settings: BaseSettings,
        work: Path,
        files: list[Path],
        held_out: list[Path],
        device: str = "cpu",
    ):
        AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = Accelerator(cpu=torch.device(device).type == "cpu")
        self.settings, self.work, self.device = settings, work, device
        self.model = new_base(settings.seed, settings.width, settings.depth).to(device)
        config = self.model.config
        self.heads = nn.Linear(config.vision_config.hidden_size, SEEN).to(device)
        self.token_heads = TokenHeads(config.text_config.hidden_size).to(device)
        self.batches = BaseBatches(scene_tokenizer(), config.image_seq_length)
        self.scenes, self.held_out = files, held_out
        modules = nn.ModuleDict(
            {"model": self.model, "heads": self.heads, "token_heads": self.token_heads}
        )
        self.named = {name: p for name, p in modules.named_parameters() if p.requires_grad}
        groups = [
            {
                "params": [p for p in self.named.values() if (p.ndim > 1) == decayed],
                "weight_decay": settings.weight_decay if decayed else 0.0,
            }
            for decayed in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
        last, (self.step, *_) = latest_checkpoint(work)
        if last is not None:
            load_checkpoint(last, self.accelerator, self.named, self.optimizer)
        self.log = Log(work, self.step, self.accelerator.is_main_process)
        kind, bf16 = torch.device(device).type, settings.bf16
        bf16 = computes_in_bf16("mixed", kind) if bf16 is None else bf16
        self.autocast = torch.autocast(kind, torch.bfloat16, enabled=bf16)

    def learning_rate(self, step: int) -> float:
        """A cosine with warm-up of each part: patches alone, then captions once or twice."""
        s = self.settings
        peaks = {0: s.patch_learning_rate, s.patch_steps: s.learning_rate}
        if s.patch_steps < s.restart < s.steps:
            peaks[s.restart] = s.restart_learning_rate
        start = max(first for first in peaks if first <= step)
        end = min((first for first in peaks if first > step), default=s.steps)
        floor = FIRST_FLOOR if start < s.patch_steps else FLOOR
        warm = min(1.0, (step - start + 1) / s.warmup_steps)
        wave = floor + (1 - floor) * (1 + math.cos(math.pi * (step - start) / (end - start))) / 2
        return peaks[start] * warm * wave

    def train(self, until: int | None = None) -> None:
        """Train to the last step, or to `until`, logging and saving on the way."""
        s, main = self.settings, self.accelerator.is_main_process
        while self.step < (s.steps if until is None else until):
            row = self._step()
            ends = self.step == s.steps
            if main and (self.step % (2 * s.save_every) == 0 or ends):
                row["validation_exact"] = self.validate()
            if self.step % 10 == 0 or ends:
                self.log.add(self.step, **row)
            if self.step % s.save_every == 0 or ends:
                state = self.named, self.optimizer, Position(self.step)
                save_checkpoint(self.work, self.accelerator, *state, keep=1)

    def _step(self) -> dict[str, Any]:
        s, share = self.settings, self.settings.scenes_a_step // self.settings.processes
        rank = self.accelerator.process_index
        rng = np.random.default_rng((s.seed, self.step, rank))
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        first = self.step * s.scenes_a_step + rank * share
        chosen = [self._scene(place) for place in range(first, first + share)]
        batch = self.batches.batch(chosen, s.regions_a_scene, rng)
        with self.autocast:
            loss, parts = self._losses(send_to_device(batch, self.device))
        loss.backward()
        self._average_gradients()
        nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        values = {name: round(value.item(), 4) for name, value in parts.items()}
        return {"learning_rate": round(rate, 7)} | values

    def _scene(self, place: int) -> SceneArrays:
        """The scene at a place of the run: shuffled anew each time that all were seen."""
        epoch, place = divmod(place, len(self.scenes))
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.scenes))
        return read_scene(self.scenes[order[place]])

    def _losses(self, batch: BaseBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The step's loss, and its parts."""
        s, inner, grouped = self.settings, self.model.model, batch.grouped
        vision = inner.get_image_features(batch.pixel_values, return_dict=True)
        # the first place of a tile is no patch
        seen = self.heads(vision.last_hidden_state[:, 1:]).flatten(0, 1)
        patches = seen_loss(seen, batch.patches.flatten(0, 1))
        image = grouped["image_ids"], grouped["image_attention"], vision.pooler_output
        first = int((image[0][0] == self.batches.image_token_id).int().argmax())
        outputs = []  # of the language model, on images and on regions
        if self.step < s.patch_steps:
            outputs.append(run_images(self.model, *image, output_hidden_states=True))
        else:
            loss, correct = grouped_forward(
                self.model, **grouped, image_features=vision.pooler_output, seen=outputs
            )
        hidden = outputs[0].hidden_states[WATCHED_LAYER + 1]  # the first are the embeddings
        tokens = hidden[:, first : first + batch.extents.shape[1]]
        aids = patches + self.token_heads(tokens, batch.patches, batch.extents)
        if self.step < s.patch_steps:
            return aids, {"patch_loss": patches, "aids": aids}
        extents = batch.extents[grouped["image_of"]]
        wanted = torch.stack([inside(extents, boxes) for boxes in batch.boxes])
        look = attention_loss(outputs[1].attentions, first, wanted, batch.asking)
        parts = {"loss": loss, "aids": aids, "patch_loss": patches, "look_loss": look}
        whole = loss + s.aid_weight * aids + s.look_weight * look
        return whole, parts | {"exact": correct.float().mean()}

    def _average_gradients(self) -> None:
        if self.settings.processes == 1:
            return
        for parameter in self.named.values():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(gradient, "mean")

    @torch.inference_mode()
    def validate(self) -> float:
        """Share of held-out regions whose caption greedy decoding reproduces exactly."""
        found = []
        for file in self.held_out:
            batch = send_to_device(self.batches.batch([read_scene(file)]), self.device)
            with self.autocast:
                features = self.model.get_image_features(batch.pixel_values, return_dict=True)
                _, correct = grouped_forward(
                    self.model, **batch.grouped, image_features=features.pooler_output
                )
            found.append(correct)
        return round(torch.cat(found).float().mean().item(), 4)

    def write(self, out: Path) -> None:
        """Write the base: weights, tokenizer, image processor, settings, loss curve and card."""
        s, side = self.settings, self.model.config.tile_size
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        save_float16(as_internvl(self.model), out)
        scene_tokenizer().save_pretrained(out)
        # how InternVL checkpoints describe the tiling of images
        GotOcr2ImageProcessorPil(
            size={"height": side, "width": side},
            crop_to_patches=True,
            max_patches=MAX_TILES_TRAIN,
            image_mean=IMAGENET_MEAN,
            image_std=IMAGENET_STD,
        ).save_pretrained(out)
        shutil.copyfile(self.work / "log.jsonl", out / "training_log.jsonl")
        shutil.copyfile(self.work / "settings.json", out / "training_settings.json")
        rows = read_log(self.work)
        exact = [row["validation_exact"] for row in rows if "validation_exact" in row]
        write_card(
            out,
            "base",
            parameters=parameters,
            scenes_version=SceneSpecification().version,
            exact=exact[-1],
            validation_scenes=s.validation_scenes,
            minutes=rows[-1]["seconds"] / 60,
            machine=f"{platform.machine()} {platform.system()}",
            torch=torch.__version__,
            settings="\n".join(
                f"| {text} | {getattr(s, name)} |" for name, text in help_of(BaseSettings).items()
            ),
            command=shlex.join(["ureca", "train-base", "--out", "FOLDER", *option_words(s)]),
        )
