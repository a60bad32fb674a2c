"""Settings of a training stage: a dataclass, a file for each preset and stage, and overrides.

`settings_files/` holds `tiny_stage1.toml` to `8b_stage2.toml`, the paper's recipe (App. A) with the
published scripts' numbers where the paper has none. A file of one's own starts from one of them:
its keys, and those set on the command line, take the place of the preset's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError

from ureca_lib.configuration import UrecaConfig
from ureca_lib.conversation import QUESTION
from ureca_lib.presets import PRESETS, get_preset

FOLDER = Path(__file__).parent / "settings_files"
STAGES = (1, 2)

# fields that set the model's configuration, where they are not None
MODEL_FIELDS = {
    "mask_tokens": "num_mask_tokens",
    "mask_position": "mask_position",
    "mask_size": "mask_size",
    "mask_projector": "mask_projector",
    "mask_dynamic": "mask_dynamic",
    "mask_thumbnail": "mask_thumbnail",
    "mask_tile_embedding": "mask_tile_embedding",
    "max_tiles": "max_tiles_train",
    "inference_tiles": "max_tiles",
}


RENAMED = {"blind": "no_mask"}  # settings of earlier versions


class SettingsError(ValueError):
    """Settings that are unknown, of a wrong type, or that do not go together."""


def _of(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainSettings:
    """Settings that determine the result of a training stage, given its data and base.

    Raises:
        SettingsError: a number out of range, or settings that do not go together; names them.
    """

    preset: str = _of("tiny", "size of the model: tiny, 1b, 2b, 4b or 8b")
    stage: Literal[1, 2] = _of(1, "1 trains the mask encoder, 2 trains LoRA with it frozen")
    model: str | None = _of(None, "folder of the model to start from; not needed for a dry run")
    data: str = _of("scenes:train:2000", "training data, see ureca_lib.datasets.captioned")
    masks: str | None = _of(None, "folder of a JSONL's masks and photos; default: the JSONL's own")
    limit: int | None = _of(None, "use only this many images, the first ones")
    style: Literal["phrase", "minimal", "sentence"] = _of("phrase", "style of scenes' captions")
    question: str = _of(QUESTION, "question about each region that has none of its own")

    mask_tokens: int | None = _of(None, "mask tokens per tile; None is the model's (App. A: 8)")
    mask_position: Literal["before_image", "after_image"] | None = _of(
        None, "where mask tokens stand; None is the model's"
    )
    mask_size: int | None = _of(None, "side of a mask tile in pixels; None is the model's")
    mask_projector: Literal["mlp", "linear"] | None = _of(
        None, "layers behind the mask encoder's convolutions; None is the model's"
    )
    mask_dynamic: bool | None = _of(None, "cut masks into tiles; None is the model's")
    mask_thumbnail: bool | None = _of(None, "add the whole mask as a tile; None is the model's")
    mask_tile_embedding: bool | None = _of(
        None, "ours: tell mask tokens the row and column of their tile; None is the model's"
    )
    max_tiles: int | None = _of(None, "maximum tiles per image in training; None is the model's")
    inference_tiles: int | None = _of(None, "maximum tiles at inference; None is the model's")
    attention: Literal["sdpa", "eager"] = _of(
        "sdpa", "how attention is computed; eager learns faster on a CPU at tiny's size"
    )
    fresh_mask_encoder: bool = _of(True, "stage 1 starts with random mask encoder weights")
    no_mask: bool = _of(False, "all masks are zeros: the baseline without region input")

    learning_rate: float = _of(2e-4, "peak learning rate (published: 2e-4, then 4e-5)")
    epochs: float = _of(2.0, "passes over all regions (published: 2); unused if steps is set")
    steps: int | None = _of(None, "optimizer steps, instead of epochs")
    batch_size: int = _of(16, "images per step over all devices, with their regions (App. A: 16)")
    regions_per_image: int = _of(1, "K, regions per image in a step; the image is run once")
    micro_batch: int | None = _of(
        None, "images a device runs at once, the rest accumulates; None is all of its share"
    )
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = _of(
        "cosine", "how the learning rate falls (published: cosine)"
    )
    warmup: float = _of(0.03, "share of the steps in which the rate rises (published: 0.03)")
    weight_decay: float = _of(0.01, "AdamW's weight decay (published: 0.01)")
    max_grad_norm: float = _of(1.0, "gradients are scaled down to this norm")
    precision: Literal["float32", "bfloat16", "mixed"] = _of(
        "bfloat16",
        "of frozen weights and of computing; what learns is kept in float32. mixed: weights in "
        "float32, computing in bfloat16 where the device does so itself",
    )
    gradient_checkpointing: bool = _of(True, "recompute in the backward pass to save memory")

    lora_rank: int = _of(16, "rank of stage 2's adapters (published: 128 for 8B, 16 for 1B)")
    lora_alpha: int | None = _of(None, "their scale; None is twice the rank, as published")
    lora_dropout: float = _of(0.05, "dropout before the adapters (published: 0.05)")

    resize_share: float = _of(
        0.0, "share of samples resized with their masks, each side by 0.5 to 1; published: none"
    )

    eval_data: str | None = _of(
        None, "what is evaluated while training; None holds out the data's last images"
    )
    eval_every: int = _of(0, "steps between evaluations; 0 is never")
    eval_images: int = _of(32, "images per evaluation")
    eval_regions: int = _of(8, "regions per image, the first ones that have a caption")
    eval_tokens: int = _of(64, "maximum length of a generated caption, in tokens")
    best_metric: Literal["exact_match", "unique", "loss"] = _of(
        "exact_match", "what the best checkpoint is best at; unique is for scenes"
    )
    keep: Literal["best", "last"] = _of("best", "weights that an evaluated run ends with")
    save_every: int = _of(100, "steps between checkpoints; 0 writes one at the end only")
    keep_checkpoints: int = _of(2, "number of checkpoints to keep")
    log_every: int = _of(10, "steps between lines of the log")

    cache: str | None = _of(None, "folder of cached vision features; None for none")
    cache_gib: float = _of(20.0, "maximum size of that folder, in GiB")
    memory_gib: float = _of(2.0, "maximum size of features held in memory, in GiB")
    workers: int = _of(0, "processes that prepare samples")
    seed: int = _of(0, "seed of new weights, order, dropout and resizing")
    export: bool = _of(True, "write the whole trained model at the end")

    def __post_init__(self) -> None:
        get_preset(self.preset)
        sizes = ("batch_size", "regions_per_image", "eval_images", "eval_regions", "eval_tokens")
        for name in (*sizes, "keep_checkpoints", "log_every", "lora_rank"):
            _need(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("eval_every", "save_every", "workers", "weight_decay", "cache_gib"):
            _need(getattr(self, name) >= 0, f"{name} must not be negative")
        optional = ("steps", "limit", "micro_batch", "mask_tokens", "mask_size", "max_tiles")
        for name in (*optional, "inference_tiles", "lora_alpha"):
            value = getattr(self, name)
            _need(value is None or value >= 1, f"{name} must be at least 1")
        for name in ("learning_rate", "epochs", "max_grad_norm"):
            _need(getattr(self, name) > 0, f"{name} must be above 0")
        for name in ("warmup", "lora_dropout", "resize_share"):
            _need(0 <= getattr(self, name) <= 1, f"{name} must be from 0 to 1")
        _need(
            not (self.resize_share and self.cache),
            "resize_share changes the images, so that cache would keep features that are never "
            "asked for again: set one of them",
        )
        # a group's image is run into a cache of keys and values, which checkpointing leaves out
        _need(
            not (self.regions_per_image > 1 and self.gradient_checkpointing),
            "regions_per_image above 1 needs gradient_checkpointing = false",
        )

    @property
    def alpha(self) -> int:
        """Scale of stage 2's adapters."""
        return self.lora_alpha or 2 * self.lora_rank

    @property
    def model_settings(self) -> dict[str, Any]:
        """Fields of `UrecaConfig` that these settings set."""
        named = {theirs: getattr(self, ours) for ours, theirs in MODEL_FIELDS.items()}
        return {name: value for name, value in named.items() if value is not None}

    def configure(self, config: UrecaConfig) -> UrecaConfig:
        """A model's configuration with what these settings set in it.

        Raises:
            ValueError: they do not fit the model.
        """
        return UrecaConfig.from_dict(config.to_dict() | self.model_settings)

    def accumulation(self, processes: int) -> tuple[int, int]:
        """Images that a device runs at once, and how many such runs a step accumulates.

        Raises:
            SettingsError: the batch cannot be shared out evenly; says what could be.
        """
        share, rest = divmod(self.batch_size, processes)
        _need(not rest and share, f"batch_size {self.batch_size} is not {processes} equal shares")
        micro = min(self.micro_batch or share, share)
        _need(share % micro == 0, f"micro_batch {micro} does not divide a device's {share} images")
        return micro, share // micro

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON can hold."""
        return asdict(self)

    @classmethod
    def help(cls) -> dict[str, str]:
        """What each setting means."""
        return {each.name: each.metadata["help"] for each in fields(cls)}


def _need(true: bool, message: str) -> None:
    if not true:
        raise SettingsError(message)


def load_settings(
    preset: str = "tiny",
    stage: int = 1,
    overrides: Mapping[str, Any] | None = None,
    file: str | Path | None = None,
) -> TrainSettings:
    """The settings of a preset's stage, with those of a file and of a mapping in their place.

    Where one of them sets `data` and no `masks`, masks lie beside that data.

    Args:
        preset, stage: which of `settings_files/` to start from.
        overrides: settings by name, of their own types.
        file: a TOML file of one's own; its `preset` and `stage` must be those given.

    Raises:
        SettingsError: no such setting, a wrong type or range, naming the file and the setting.
        FileNotFoundError: no such file. ValueError: no such preset.
    """
    get_preset(preset)
    _need(stage in STAGES, f"stage must be 1 or 2, not {stage}")
    values = _read(FOLDER / f"{preset}_stage{stage}.toml")
    if file is not None:
        own = _read(Path(file))
        for name, given in (("preset", preset), ("stage", stage)):
            there = own.get(name, given)
            _need(there == given, f"{file}: is for {name} {there}, not {given}")
        values = _over(values, own)
    return checked(_over(values, overrides or {}), str(file or "settings"))


def _over(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Override settings; masks and held-out scenes belong to the data that they were set for."""
    if "data" in given:
        values = values | {"masks": None}
        if not str(given["data"]).startswith("scenes:"):
            values["eval_data"] = None  # images of one's own are judged on images of one's own
    return values | dict(given)


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their present names, from a file of this or an earlier version."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def checked(values: Mapping[str, Any], where: str) -> TrainSettings:
    """Settings from plain data.

    Raises:
        SettingsError: an unknown name, a wrong type or range; names `where` and the setting.
    """
    values = renamed(values)
    known = TrainSettings.help()
    if unknown := sorted(set(values) - set(known)):
        raise SettingsError(f"{where}: there is no setting {', '.join(unknown)}")
    try:
        return TypeAdapter(TrainSettings).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise SettingsError(f"{where}: {name + ': ' if name else ''}{reason}") from None


def parse_override(text: str) -> tuple[str, Any]:
    """`name=value` from a command line; the value as TOML has it, else a text.

    Raises:
        SettingsError: no name or no value.
    """
    name, separator, value = text.partition("=")
    _need(bool(separator and name.strip()), f"a setting is NAME=VALUE, not {text!r}")
    if value.strip().lower() == "none":
        return name.strip(), None
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML ({error})") from None


def settings_files() -> list[Path]:
    """The files of all presets and stages."""
    return [FOLDER / f"{preset}_stage{stage}.toml" for preset in PRESETS for stage in STAGES]


def computes_in_bf16(precision: str, device: str) -> bool:
    """Whether a run autocasts to bfloat16.

    Args:
        precision: of `TrainSettings`: "bfloat16" always, "float32" never, "mixed" where the device
            multiplies bfloat16 itself.
        device: type of the device, such as "cpu" or "cuda".
    """
    if precision != "mixed":
        return precision == "bfloat16"
    if device == "cpu":  # without these instructions, autocast would make it slower
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device == "cuda" and torch.cuda.is_bf16_supported()
