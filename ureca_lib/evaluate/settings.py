"""Settings of predictions and scores, from which the options of the commands are derived.

The module imports nothing heavy: `ureca evaluate --help` stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ureca_lib.chat import KEY_HELP
from ureca_lib.devices import DEVICE_HELP
from ureca_lib.options import at_least, setting

NEAR = 0.8  # share of words and pairs of words
PROMPTED = ("none", "contour", "crop", "box")
NATIVE = ("vip-llava", "kosmos-2")
MODEL_FREE = ("attributes", "oracle", "shuffled", "class-name")
SYSTEMS = ("ureca", "no_mask", *PROMPTED, *NATIVE, *MODEL_FREE)
_SERVED = PROMPTED[:3]  # systems that may ask a server


@dataclass(frozen=True)
class SystemOptions:
    """Name and options of a captioning system."""

    system: str = field(metadata={"help": f"one of {', '.join(SYSTEMS)}"})
    model: str | None = setting(None, "folder, hub id, or name on the server")
    base_url: str | None = setting(None, "of an OpenAI-compatible server; 'openai' is OpenAI's own")
    question: str | None = setting(None, "instead of the data set's or the system's own")
    max_new_tokens: int = setting(256, "longest caption in tokens")
    max_tiles: int | None = setting(None, "of an image's grid; None is the model's")
    beams: int = setting(1, "width of the search of 'ureca'; 1 is greedy, as in the paper")
    together: bool = setting(
        False, "regions of 'ureca' that say the same choose again: ours, not the paper's"
    )
    batch_size: int = setting(4, "regions per batch of a baseline")
    device: str | None = setting(
        "cpu", "where the model runs: cpu, cuda, cuda:1; None is CUDA if any"
    )
    dtype: str = setting("auto", "of a baseline's weights")
    seed: int = setting(0, "of the system 'shuffled'")
    name: str | None = setting(None, "its name in tables")
    api_key_env: str | None = setting(None, KEY_HELP)
    server: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "more settings of `OpenAIChat`, by name"}
    )

    def __post_init__(self) -> None:
        if self.system == "blind":  # its name in earlier versions
            object.__setattr__(self, "system", "no_mask")
        name, free = self.system, self.system in MODEL_FREE
        for_server = [*self.server, *(["--api-key-env"] if self.api_key_env else [])]
        at_least(self, max_new_tokens=1, batch_size=1, beams=1)
        if name not in SYSTEMS:
            raise ValueError(f"a system is {', '.join(SYSTEMS)}, not {name!r}")
        if free and (self.model or self.base_url or self.question):
            raise ValueError(f"the system {name} takes no question, has no model, and no server")
        if not free and not self.model:
            raise ValueError(f"the system {name} needs a --model")
        if (self.together or self.beams > 1) and name != "ureca":
            raise ValueError(f"--together and --beams are for the system ureca, not {name}")
        if self.base_url and name not in _SERVED:
            raise ValueError(f"--base-url is for {', '.join(_SERVED)}")
        if for_server and not self.base_url:
            raise ValueError(f"{min(for_server)} goes with a --base-url")


@dataclass(frozen=True)
class BootstrapSettings:
    """Settings of the intervals."""

    samples: int = setting(1000, "resamples; 0 gives no intervals")
    confidence: float = setting(0.95, "share that an interval covers")
    seed: int = setting(0, "of the draws")

    def __post_init__(self) -> None:
        at_least(self, samples=0)
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, not {self.confidence}")


@dataclass(frozen=True)
class MetricSettings:
    """Settings that scores depend on."""

    tokenizer: Literal["ptb", "whitespace"] = setting(
        "ptb", "ptb, as COCO's evaluation has it, or whitespace"
    )
    meteor: Literal["nltk", "java"] = setting(
        "nltk", "nltk, or java: METEOR 1.5 by the extra of that name"
    )
    wordnet: str | None = setting(None, "folder of WordNet's files; None looks for them")
    download: bool = setting(True, "fetch nltk's WordNet if there is none")
    bertscore_model: str = setting(
        "auto", "auto (roberta-large, else minilm), minilm, hub id or folder"
    )
    device: str | None = setting("cpu", "where BERTScore's model runs; None is CUDA if any")
    bootstrap: BootstrapSettings = field(default_factory=BootstrapSettings)
    progress: bool = setting(True, "show a bar for BERTScore")

    def __post_init__(self) -> None:
        _check_choices(self)


@dataclass(frozen=True)
class UniquenessSettings:
    """Settings of the measures."""

    calibrate: Literal["none", "pmi"] = setting(
        "none", "'none', or 'pmi' to examine a listener (`calibrated`)"
    )
    near: float = setting(NEAR, "share of words and word pairs that is nearly equal")
    bootstrap: BootstrapSettings = field(default_factory=BootstrapSettings)

    def __post_init__(self) -> None:
        _check_choices(self)
        if not 0 < self.near <= 1:
            raise ValueError(f"near must be above 0 and at most 1, not {self.near}")


@dataclass(frozen=True)
class ClairSettings:
    """Settings of a judgment."""

    tries: int = setting(3, "most replies to one question until one has a score")
    bootstrap: BootstrapSettings = field(default_factory=BootstrapSettings)
    progress: bool = setting(True, "show a bar")

    def __post_init__(self) -> None:
        at_least(self, tries=1)


@dataclass(frozen=True)
class ReproductionSettings:
    """Settings of a reproduction of Table 2."""

    limit: int | None = setting(None, "With --models: number of images.")
    listener: str = setting(
        "exact", "With --models: exact (scenes), or the folder of a checkpoint."
    )
    bertscore_model: str = setting("auto", "With --models: auto, minilm, hub id or folder.")
    max_new_tokens: int = setting(256, "With --models: longest caption in tokens.")
    device: str | None = setting(None, DEVICE_HELP)


def _check_choices(settings: Any) -> None:
    """Raise ValueError for a value that is none of its field's choices."""
    for name, kind in get_type_hints(type(settings)).items():
        choices, value = get_args(kind), getattr(settings, name)
        if get_origin(kind) is Literal and value not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}, not {value!r}")
