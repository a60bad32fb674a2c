"""Systems by name, for commands and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ureca_lib.chat import OpenAIChat, TransformersChat
from ureca_lib.devices import chosen_device
from ureca_lib.evaluate.systems import (
    AttributesSystem,
    ClassNameSystem,
    OracleSystem,
    ShuffledSystem,
    System,
    UnusableSystemError,
    UrecaSystem,
)

PROMPTED = ("none", "contour", "crop", "box")
NATIVE = ("vip-llava", "kosmos-2")
MODEL_FREE = ("attributes", "oracle", "shuffled", "class-name")
SYSTEMS = ("ureca", "blind", *PROMPTED, *NATIVE, *MODEL_FREE)
_OURS = ("internvl", "ureca")  # model types that this package reads itself


@dataclass(frozen=True)
class SystemOptions:
    """Name and options of a captioning system."""

    system: str = field(metadata={"help": f"one of {', '.join(SYSTEMS)}"})
    model: str | None = field(
        default=None, metadata={"help": "folder, hub id, or name on the server"}
    )
    base_url: str | None = field(
        default=None, metadata={"help": "of an OpenAI-compatible server; 'openai' is OpenAI's own"}
    )
    question: str | None = field(
        default=None, metadata={"help": "instead of the data set's or the system's own"}
    )
    max_new_tokens: int = field(default=256, metadata={"help": "longest caption in tokens"})
    max_tiles: int | None = field(
        default=None, metadata={"help": "of an image's grid; None is the model's"}
    )
    batch_size: int = field(default=4, metadata={"help": "regions that a baseline sees together"})
    device: str | None = field(
        default="cpu", metadata={"help": "where the model runs; None is CUDA if any"}
    )
    dtype: str = field(default="auto", metadata={"help": "of a baseline's weights"})
    seed: int = field(default=0, metadata={"help": "of the system 'shuffled'"})
    name: str | None = field(default=None, metadata={"help": "what tables call it"})
    api_key_env: str | None = field(
        default=None, metadata={"help": "environment variable with the server's key"}
    )
    server: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "more settings of `OpenAIChat`, by name"}
    )

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise UnusableSystemError(f"a system is {', '.join(SYSTEMS)}, not {self.system!r}")
        if self.system in MODEL_FREE and (self.model or self.base_url):
            raise UnusableSystemError(f"the system {self.system} has no model")
        if self.system not in MODEL_FREE and not self.model:
            raise UnusableSystemError(f"the system {self.system} needs a --model")
        if self.base_url and self.system not in PROMPTED[:3]:
            raise UnusableSystemError(f"--base-url is for {', '.join(PROMPTED[:3])}")
        if self.api_key_env and not self.base_url:
            raise UnusableSystemError("--api-key-env goes with a --base-url")
        if self.server and not self.base_url:
            raise UnusableSystemError(f"{min(self.server)} goes with a --base-url")
        if self.question and (self.system in MODEL_FREE):
            raise UnusableSystemError(f"the system {self.system} is not asked anything")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")


def make_system(options: SystemOptions) -> System:
    """The system that the options name.

    Raises:
        UnusableSystemError, CheckpointError, AnnotatorUnavailableError: it cannot be made.
        ImportError: a server without the extra "openai".
    """
    system = _make(options)
    if options.name:
        system.name = options.name
    return system


def _make(options: SystemOptions) -> System:
    name = options.system
    if name in ("ureca", "blind"):
        asked = (options.question, options.max_new_tokens, options.max_tiles, name == "blind")
        return UrecaSystem(options.model or "", chosen_device(options.device), *asked)
    if name == "shuffled":
        return ShuffledSystem(options.seed)
    free = {"attributes": AttributesSystem, "oracle": OracleSystem, "class-name": ClassNameSystem}
    if name in free:
        return free[name]()
    if name in NATIVE:
        return _native(options)
    from ureca_lib.evaluate.baselines import PromptedSystem, PromptSettings

    settings = PromptSettings(name, options.question)  # type: ignore[arg-type]
    return PromptedSystem(make_reader(options), settings)


def make_reader(options: SystemOptions) -> Any:
    """The model that a prompted baseline asks: a server's, this package's, or transformers'."""
    from ureca_lib.evaluate import baseline_models as models

    model, limit = options.model or "", options.max_new_tokens
    if options.base_url:
        url = None if options.base_url == "openai" else options.base_url
        settings = {"api_key_env": options.api_key_env, "max_reply_tokens": limit}
        return models.ChatReader(OpenAIChat(model, url, **settings, **options.server))
    device = chosen_device(options.device)
    if _is_ours(model):
        return models.OwnReader(model, device, limit, options.max_tiles, options.batch_size)
    if options.system == "box":
        raise UnusableSystemError("the system box needs an InternVL that was taught boxes in text")
    return models.ChatReader(
        TransformersChat(model, device, options.dtype, options.batch_size, limit, with_scores=True)
    )


def _native(options: SystemOptions) -> System:
    from ureca_lib.evaluate.native_baselines import Kosmos2System, VipLlavaSystem

    kind = VipLlavaSystem if options.system == "vip-llava" else Kosmos2System
    return kind(
        options.model or "",
        chosen_device(options.device),
        options.dtype,
        options.question,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
    )


def _is_ours(model: str) -> bool:
    """Whether a folder holds a checkpoint that this package's own classes read."""
    from ureca_lib.checkpoints.tensors import read_json

    config = Path(model).expanduser() / "config.json"
    if not config.is_file():
        return False
    document = read_json(config)
    return document.get("model_type") in _OURS or "llm_config" in document
