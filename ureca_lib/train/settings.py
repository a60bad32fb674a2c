"""Settings of training: of a stage, of both stages in a row, and of the tiny base.

Each setting is declared once, with its help text; options of commands and tables of model cards
are derived from here. `settings_files/` holds `tiny_stage1.toml` to `8b_stage2.toml`, the paper's
recipe (App. A) with the published scripts' numbers where the paper has none. A file of one's own
starts from one of them: its keys, and those set on the command line, take the place of the
preset's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from ureca_lib.configuration import MaskPosition, UrecaConfig
from ureca_lib.conversation import QUESTION

FOLDER = Path(__file__).parent / "settings_files"

# settings whose field of the model's configuration has another name
CONFIG_NAMES = {
    "mask_tokens": "num_mask_tokens",
    "max_tiles": "max_tiles_train",
    "inference_tiles": "max_tiles",
}
RENAMED = {"blind": "no_mask"}  # settings of earlier versions
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class TrainSettings:
    """Settings that determine the result of a training stage, given its data and base.

    Types and ranges are checked by `checked`, where settings come from a file or a user.

    Attributes:
        preset: size of the model: tiny, 1b, 2b, 4b or 8b
        stage: 1 trains the mask encoder, 2 trains LoRA with it frozen
        model: folder of the model to start from; not needed for a dry run
        data: scenes:train:2000, a folder of scenes or of an export, JSONL@MASKS
        limit: use only this many images, the first ones
        question: question about each region that has none of its own
        mask_tokens: mask tokens per tile; None is the model's (App. A: 8)
        mask_position: where mask tokens stand; None is the model's
        mask_size: side of a mask tile in pixels; None is the model's
        mask_projector: layers behind the mask encoder's convolutions; None is the model's
        mask_dynamic: cut masks into tiles; None is the model's
        mask_thumbnail: add the whole mask as a tile; None is the model's
        mask_tile_embedding: ours: tell mask tokens the row and column of their tile; None is the
            model's
        mask_tile_positions: ours: mask tokens take the positions of the image tile that they
            cover; None is the model's
        max_tiles: maximum tiles per image in training; None is the model's
        inference_tiles: maximum tiles at inference; None is the model's
        attention: how attention is computed; eager learns faster on a CPU at tiny's size
        fresh_mask_encoder: stage 1 starts with random mask encoder weights
        no_mask: all masks are zeros: the baseline without region input
        learning_rate: peak learning rate (published: 2e-4, then 4e-5)
        epochs: passes over all regions (published: 2); unused if steps is set
        steps: optimizer steps, instead of epochs
        batch_size: images per step over all devices, with their regions (App. A: 16)
        regions_per_image: K, regions per image in a step; the image is run once
        micro_batch: images a device runs at once, the rest accumulates; None is all of its share
        shuffle_buffer: groups shuffled at once, read from shards of neighboring images in a drawn
            order, for data on slow disks; 0 shuffles all
        scheduler: how the learning rate falls (published: cosine)
        warmup: share of the steps in which the rate rises (published: 0.03)
        weight_decay: AdamW's weight decay (published: 0.01)
        max_grad_norm: gradients are scaled down to this norm
        precision: of frozen weights and of computing; what learns is kept in float32. mixed:
            weights in float32, computing in bfloat16 where the device does so itself
        gradient_checkpointing: recompute in the backward pass to save memory
        lora_rank: rank of stage 2's adapters (published: 128 for 8B, 16 for 1B)
        lora_alpha: their scale; None is twice the rank, as published
        lora_dropout: dropout before the adapters (published: 0.05)
        resize_share: share of samples resized with their masks, each side by 0.5 to 1; published:
            none
        eval_data: what is evaluated while training; None holds out the data's last images
        eval_every: steps between evaluations; 0 is never
        eval_images: images per evaluation
        eval_regions: regions per image, the first ones that have a caption
        eval_tokens: maximum length of a generated caption, in tokens
        best_metric: what the best checkpoint is best at; unique is for scenes
        keep: weights that an evaluated run ends with
        save_every: steps between checkpoints; 0 writes one at the end only
        keep_checkpoints: number of checkpoints to keep
        log_every: steps between lines of the log
        workers: processes that prepare samples
        seed: seed of new weights, order, dropout and resizing
        export: write the whole trained model at the end

    Raises:
        ValueError: settings that do not go together; names them.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    preset: str = "tiny"
    stage: Literal[1, 2] = 1
    model: str | None = None
    data: str = "scenes:train:2000"
    limit: PositiveInt | None = None
    question: str = QUESTION

    mask_tokens: PositiveInt | None = None
    mask_position: MaskPosition | None = None
    mask_size: PositiveInt | None = None
    mask_projector: Literal["mlp", "linear"] | None = None
    mask_dynamic: bool | None = None
    mask_thumbnail: bool | None = None
    mask_tile_embedding: bool | None = None
    mask_tile_positions: bool | None = None
    max_tiles: PositiveInt | None = None
    inference_tiles: PositiveInt | None = None
    attention: Literal["sdpa", "eager"] = "sdpa"
    fresh_mask_encoder: bool = True
    no_mask: bool = False

    learning_rate: PositiveFloat = 2e-4
    epochs: PositiveFloat = 2.0
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 16
    regions_per_image: PositiveInt = 1
    micro_batch: PositiveInt | None = None
    shuffle_buffer: NonNegativeInt = 0
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: Share = 0.03
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    precision: Literal["float32", "bfloat16", "mixed"] = "bfloat16"
    gradient_checkpointing: bool = True

    lora_rank: PositiveInt = 16
    lora_alpha: PositiveInt | None = None
    lora_dropout: Share = 0.05

    resize_share: Share = 0.0

    eval_data: str | None = None
    eval_every: NonNegativeInt = 0
    eval_images: PositiveInt = 32
    eval_regions: PositiveInt = 8
    eval_tokens: PositiveInt = 64
    best_metric: Literal["exact_match", "unique", "loss"] = "exact_match"
    keep: Literal["best", "last"] = "best"
    save_every: NonNegativeInt = 100
    keep_checkpoints: PositiveInt = 2
    log_every: PositiveInt = 10

    workers: NonNegativeInt = 0
    seed: int = 0
    export: bool = True

    def __post_init__(self) -> None:
        # a group's image is run into a cache of keys and values, which checkpointing leaves out
        if self.regions_per_image > 1 and self.gradient_checkpointing:
            raise ValueError("regions_per_image above 1 needs gradient_checkpointing = false")

    @property
    def model_settings(self) -> dict[str, Any]:
        """Fields of `UrecaConfig` that these settings set."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        ours = [name for name in given if name.startswith("mask_") or name in CONFIG_NAMES]
        return {CONFIG_NAMES.get(name, name): given[name] for name in ours}

    def configure(self, config: UrecaConfig) -> UrecaConfig:
        """A model's configuration with what these settings set in it.

        Raises:
            ValueError: they do not fit the model.
        """
        return UrecaConfig.from_dict(config.to_dict() | self.model_settings)

    def accumulation(self, processes: int) -> tuple[int, int]:
        """Images that a device runs at once, and how many such runs a step accumulates.

        Raises:
            ValueError: the batch cannot be shared out evenly; says what could be.
        """
        share, rest = divmod(self.batch_size, processes)
        if rest or not share:
            raise ValueError(f"batch_size {self.batch_size} is not {processes} equal shares")
        micro = min(self.micro_batch or share, share)
        if share % micro:
            raise ValueError(f"micro_batch {micro} does not divide a device's {share} images")
        return micro, share // micro


def load_settings(
    preset: str = "tiny",
    stage: int = 1,
    overrides: Mapping[str, Any] | None = None,
    file: str | Path | None = None,
) -> TrainSettings:
    """The settings of a preset's stage, with those of a file and of a mapping in their place.

    Args:
        preset, stage: which of `settings_files/` to start from.
        overrides: settings by name, of their own types or as text.
        file: a TOML file of one's own; its `preset` and `stage` must be those given.

    Raises:
        ValueError: no such preset, stage or setting, a wrong type or range; names the file.
        FileNotFoundError: no such file.
    """
    usual = FOLDER / f"{preset}_stage{stage}.toml"
    if not usual.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.toml")))
        raise ValueError(f"no settings {usual.stem}: choose from {known}")
    values = _read(usual)
    for given in (_read(Path(file)) if file else {}, overrides or {}):
        if not str(given.get("data", "scenes:")).startswith("scenes:"):
            values["eval_data"] = None  # images of one's own are judged on images of one's own
        values |= given
    settings = checked(values, str(file or "settings"))
    if (settings.preset, settings.stage) != (preset, stage):
        own = f"preset {settings.preset}, stage {settings.stage}"
        raise ValueError(f"{file or 'settings'}: for {own}, not for preset {preset}, stage {stage}")
    return settings


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their present names, from a file of this or an earlier version."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def checked(values: Mapping[str, Any], where: str) -> TrainSettings:
    """Settings from plain data.

    Raises:
        ValueError: unknown names, wrong types or ranges; names `where` and the settings.
    """
    try:
        return TypeAdapter(TrainSettings).validate_python(renamed(values))
    except ValidationError as error:
        faults = [": ".join([*map(str, each["loc"]), each["msg"]]) for each in error.errors()]
        raise ValueError(f"{where}: {'; '.join(faults)}") from None


def parse_override(text: str) -> tuple[str, str | None]:
    """`NAME=VALUE` from a command line, the value as text; `none` is None.

    Raises:
        ValueError: no name or no value.
    """
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ValueError(f"a setting is NAME=VALUE, not {text!r}")
    return name, None if value.lower() == "none" else value


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not TOML ({error})") from None


# fields of a recipe that are settings of the same name, or of one with "mask_" before it
_SAME = ("mask_tokens", "mask_size", "mask_position", "max_tiles", "micro_batch", "data", "seed")
_OF_MASKS = ("thumbnail", "tile_embedding", "tile_positions")


@dataclass(frozen=True)
class Recipe:
    """Both stages in a row, as ablations vary them. Of options that are None, the file's are used.

    Attributes:
        base: folder of the frozen MLLM that training starts from
        preset: preset whose settings files are used
        mask: Table 3: no region input, one tile, or tiles
        mask_tokens: N, mask tokens per tile (Table 5)
        thumbnail: add the whole mask as a tile
        tile_embedding: ours: add an embedding of its tile's place to a mask token
        tile_positions: ours: mask tokens take the positions of the image tile that they cover
        mask_size: side of a mask tile in pixels
        mask_position: position of mask tokens; the paper's is before_image (Sec. 4.1)
        max_tiles: maximum number of tiles of image and mask
        micro_batch: images that a device runs at once; fewer take less memory
        steps_1: steps of stage 1; 0 leaves it out
        steps_2: steps of stage 2; 0 leaves it out
        data: training data
        seed: seed of new weights and of the order

    Raises:
        ValueError: an unknown component, or a tile embedding without tiles.
    """

    base: str
    preset: str = "tiny"
    mask: Literal["none", "single", "dynamic"] = "dynamic"
    mask_tokens: int = 8
    thumbnail: bool = True
    tile_embedding: bool = False
    tile_positions: bool = False
    mask_size: int | None = None
    mask_position: MaskPosition | None = None
    max_tiles: int | None = None
    micro_batch: int | None = None
    steps_1: int | None = None
    steps_2: int | None = None
    data: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mask not in ("none", "single", "dynamic"):
            raise ValueError(f"mask must be none, single or dynamic, not {self.mask!r}")
        if self.tile_embedding and self.mask == "single":
            raise ValueError("a tile embedding tells tiles apart: one square has nothing to tell")

    def settings(self, stage: int, model: str | Path) -> TrainSettings:
        """The stage's settings: the preset's file, overridden by the recipe.

        A stage of 0 steps, which is left out, has the file's steps here.
        """
        same = {name: getattr(self, name) for name in _SAME}
        of_masks = {f"mask_{name}": getattr(self, name) for name in _OF_MASKS}
        given = (
            same
            | of_masks
            | {
                "model": str(model),
                "mask_dynamic": self.mask == "dynamic",
                "inference_tiles": self.max_tiles,
                "no_mask": self.mask == "none",
                "steps": (self.steps_1 if stage == 1 else self.steps_2) or None,
            }
        )
        overrides = {name: value for name, value in given.items() if value is not None}
        return load_settings(self.preset, stage, overrides)


@dataclass(frozen=True)
class BaseSettings:
    """How the tiny base is trained.

    Attributes:
        width: hidden size of both transformers
        depth: layers of each transformer
        scenes: number of scenes of the training split, seen in turn
        validation_scenes: number of scenes of the validation split
        steps: steps of the optimizer
        patch_steps: first steps, which train without captions
        aid_weight: weight of the first steps' losses in the later steps
        look_weight: weight of the loss on the attention of some heads
        scenes_a_step: scenes per step, over all processes
        regions_a_scene: regions drawn per scene and step
        patch_learning_rate: peak learning rate of the first steps
        learning_rate: peak learning rate of the later steps
        restart: step at which a second cosine begins; 0 for none
        restart_learning_rate: peak learning rate of the second cosine
        warmup_steps: warm-up steps of each of these parts
        weight_decay: weight decay of AdamW
        processes: processes of one thread each, whose gradients are averaged
        bf16: autocast to bfloat16; default: if the device multiplies it
        seed: seed of weights, regions and gaps
        save_every: steps between checkpoints
    """

    width: int = 160
    depth: int = 4
    scenes: int = 12_000
    validation_scenes: int = 100
    steps: int = 6000
    patch_steps: int = 1000
    aid_weight: float = 0.1
    look_weight: float = 0.1
    scenes_a_step: int = 16
    regions_a_scene: int = 16
    patch_learning_rate: float = 2e-3
    learning_rate: float = 1.2e-3
    restart: int = 3000
    restart_learning_rate: float = 8e-4
    warmup_steps: int = 100
    weight_decay: float = 0.05
    processes: int = 2
    bf16: bool | None = None
    seed: int = 0
    save_every: int = 200


def option_words(settings: Recipe | BaseSettings) -> list[str]:
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
