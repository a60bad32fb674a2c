"""Settings that are also command-line options: of the tiny base, and of both stages in a row.

Each is declared once, with its help text; commands and model cards derive their options from here.
The module imports nothing heavy, so that `ureca --help` stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ureca_lib.train.settings import TrainSettings


def _of(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class BaseSettings:
    """How the tiny base is trained."""

    width: int = _of(160, "hidden size of both transformers")
    depth: int = _of(4, "layers of each transformer")
    scenes: int = _of(12_000, "number of scenes of the training split, seen in turn")
    validation_scenes: int = _of(100, "number of scenes of the validation split")
    steps: int = _of(6000, "steps of the optimizer")
    patch_steps: int = _of(1000, "first steps, which train without captions")
    aid_weight: float = _of(0.1, "weight of the first steps' losses in the later steps")
    look_weight: float = _of(0.1, "weight of the loss on the attention of some heads")
    scenes_a_step: int = _of(16, "scenes per step, over all processes")
    regions_a_scene: int = _of(16, "regions drawn per scene and step")
    patch_learning_rate: float = _of(2e-3, "peak learning rate of the first steps")
    learning_rate: float = _of(1.2e-3, "peak learning rate of the later steps")
    restart: int = _of(3000, "step at which a second cosine begins; 0 for none")
    restart_learning_rate: float = _of(8e-4, "peak learning rate of the second cosine")
    warmup_steps: int = _of(100, "warm-up steps of each of these parts")
    weight_decay: float = _of(0.05, "weight decay of AdamW")
    processes: int = _of(2, "processes of one thread each, whose gradients are averaged")
    bf16: bool | None = _of(None, "autocast to bfloat16; default: if the device multiplies it")
    seed: int = _of(0, "seed of weights, regions and gaps")
    save_every: int = _of(200, "steps between checkpoints")

    @property
    def cosines(self) -> list[tuple[int, int, float]]:
        """First step, end and peak rate of each part: patches alone, then captions (twice)."""
        starts = [(0, self.patch_learning_rate)] if self.patch_steps else []
        starts.append((self.patch_steps, self.learning_rate))
        if self.patch_steps < self.restart < self.steps:
            starts.append((self.restart, self.restart_learning_rate))
        ends = [start for start, _ in starts[1:]] + [self.steps]
        return [(start, end, rate) for (start, rate), end in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class Recipe:
    """Both stages in a row, as ablations vary them. Of options that are None, the file's are used.

    Raises:
        ValueError: an unknown component, or a tile embedding without tiles.
    """

    base: str = field(metadata={"help": "folder of the frozen MLLM that training starts from"})
    preset: str = _of("tiny", "preset whose settings files are used")
    mask: Literal["none", "single", "dynamic"] = _of(
        "dynamic", "Table 3: no region input, one tile, or tiles"
    )
    mask_tokens: int = _of(8, "N, mask tokens per tile (Table 5)")
    thumbnail: bool = _of(True, "add the whole mask as a tile")
    tile_embedding: bool = _of(False, "ours: add an embedding of its tile's place to a mask token")
    mask_size: int | None = _of(None, "side of a mask tile in pixels")
    mask_position: Literal["before_image", "after_image"] | None = _of(
        None, "position of mask tokens; the paper's is before_image (Sec. 4.1)"
    )
    max_tiles: int | None = _of(None, "maximum number of tiles of image and mask")
    steps_1: int | None = _of(None, "steps of stage 1; 0 leaves it out")
    steps_2: int | None = _of(None, "steps of stage 2; 0 leaves it out")
    data: str | None = _of(None, "training data")
    seed: int = _of(0, "seed of new weights and of the order")

    def __post_init__(self) -> None:
        if self.mask not in ("none", "single", "dynamic"):
            raise ValueError(f"mask must be none, single or dynamic, not {self.mask!r}")
        if self.tile_embedding and self.mask == "single":
            raise ValueError("a tile embedding tells tiles apart: one square has nothing to tell")

    def settings(self, stage: int, model: str | Path) -> TrainSettings:
        """The stage's settings: the preset's file, overridden by the recipe.

        A stage of 0 steps, which is left out, has the file's steps here.
        """
        from ureca_lib.train.settings import load_settings

        given = {
            "model": str(model),
            "mask_tokens": self.mask_tokens,
            "mask_dynamic": self.mask == "dynamic",
            "mask_thumbnail": self.thumbnail,
            "mask_tile_embedding": self.tile_embedding,
            "mask_size": self.mask_size,
            "mask_position": self.mask_position,
            "max_tiles": self.max_tiles,
            "inference_tiles": self.max_tiles,
            "no_mask": self.mask == "none",
            "steps": (self.steps_1 if stage == 1 else self.steps_2) or None,
            "data": self.data,
            "seed": self.seed,
        }
        overrides = {name: value for name, value in given.items() if value is not None}
        return load_settings(self.preset, stage, overrides)


def option_words(settings: Any) -> list[str]:
    """The command-line words of all fields that are not at their default."""
    words = []
    for each in fields(settings):
        value, flag = getattr(settings, each.name), each.name.replace("_", "-")
        if value == each.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words
