"""Settings of predictions and scores, from which the options of the commands are derived.

The module imports nothing heavy: `ureca evaluate --help` stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ureca_lib.chat import KEY_HELP
from ureca_lib.evaluate.tokenizers import tokenizer

Calibration = Literal["none", "pmi"]
NEAR = 0.8  # share of words and pairs of words
PROMPTED = ("none", "contour", "crop", "box")
NATIVE = ("vip-llava", "kosmos-2")
MODEL_FREE = ("attributes", "oracle", "shuffled", "class-name")
SYSTEMS = ("ureca", "blind", *PROMPTED, *NATIVE, *MODEL_FREE)
_SERVED = PROMPTED[:3]  # systems that may ask a server


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
    batch_size: int = field(default=4, metadata={"help": "regions per batch of a baseline"})
    device: str | None = field(
        default="cpu",
        metadata={"help": "where the model runs: cpu, cuda, cuda:1; None is CUDA if any"},
    )
    dtype: str = field(default="auto", metadata={"help": "of a baseline's weights"})
    seed: int = field(default=0, metadata={"help": "of the system 'shuffled'"})
    name: str | None = field(default=None, metadata={"help": "its name in tables"})
    api_key_env: str | None = field(default=None, metadata={"help": KEY_HELP})
    server: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "more settings of `OpenAIChat`, by name"}
    )

    def __post_init__(self) -> None:
        name, free = self.system, self.system in MODEL_FREE
        faults = {
            f"a system is {', '.join(SYSTEMS)}, not {name!r}": name not in SYSTEMS,
            f"the system {name} has no model": free and (self.model or self.base_url),
            f"the system {name} needs a --model": not free and not self.model,
            f"--base-url is for {', '.join(_SERVED)}": self.base_url and name not in _SERVED,
            "--api-key-env goes with a --base-url": self.api_key_env and not self.base_url,
            f"{min(self.server, default='')} goes with a --base-url": self.server
            and not self.base_url,
            f"the system {name} takes no question": self.question and free,
            f"max_new_tokens is at least 1, not {self.max_new_tokens}": self.max_new_tokens < 1,
            f"batch_size is at least 1, not {self.batch_size}": self.batch_size < 1,
        }
        if found := [fault for fault, true in faults.items() if true]:
            raise ValueError(found[0])


@dataclass(frozen=True)
class BootstrapSettings:
    """Settings of the intervals."""

    samples: int = field(default=1000, metadata={"help": "resamples; 0 gives no intervals"})
    confidence: float = field(default=0.95, metadata={"help": "share that an interval covers"})
    seed: int = field(default=0, metadata={"help": "of the draws"})

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ValueError(f"samples is at least 0, not {self.samples}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, not {self.confidence}")


@dataclass(frozen=True)
class MetricSettings:
    """Settings that scores depend on."""

    tokenizer: str = field(
        default="ptb",
        metadata={"help": "ptb, as COCO's evaluation has it, or whitespace"},
    )
    meteor: Literal["nltk", "java"] = field(
        default="nltk", metadata={"help": "nltk, or java: METEOR 1.5 by the extra of that name"}
    )
    wordnet: str | None = field(
        default=None, metadata={"help": "folder of WordNet's files; None looks for them"}
    )
    download: bool = field(default=True, metadata={"help": "fetch nltk's WordNet if there is none"})
    bertscore_model: str = field(
        default="auto",
        metadata={"help": "auto (roberta-large, else minilm), minilm, hub id or folder"},
    )
    device: str | None = field(
        default="cpu", metadata={"help": "where BERTScore's model runs; None is CUDA if any"}
    )
    bootstrap: BootstrapSettings = field(
        default_factory=BootstrapSettings, metadata={"help": "settings of the intervals"}
    )
    progress: bool = field(default=True, metadata={"help": "show a bar for BERTScore"})

    def __post_init__(self) -> None:
        tokenizer(self.tokenizer)
        if self.meteor not in ("nltk", "java"):
            raise ValueError(f"meteor is nltk or java, not {self.meteor!r}")


@dataclass(frozen=True)
class UniquenessSettings:
    """Settings of the measures."""

    calibrate: Calibration = field(
        default="none", metadata={"help": "'none', or 'pmi' to examine a listener (`calibrated`)"}
    )
    near: float = field(
        default=NEAR, metadata={"help": "share of words and word pairs that is nearly equal"}
    )
    bootstrap: BootstrapSettings = field(
        default_factory=BootstrapSettings, metadata={"help": "of the intervals over images"}
    )

    def __post_init__(self) -> None:
        if self.calibrate not in get_args(Calibration):
            raise ValueError(f"calibrate is none or pmi, not {self.calibrate!r}")
        if not 0 < self.near <= 1:
            raise ValueError(f"near must be above 0 and at most 1, not {self.near}")


@dataclass(frozen=True)
class ClairSettings:
    """Settings of a judgment."""

    tries: int = field(
        default=3, metadata={"help": "most replies to one question until one has a score"}
    )
    bootstrap: BootstrapSettings = field(
        default_factory=BootstrapSettings, metadata={"help": "settings of the intervals"}
    )
    progress: bool = field(default=True, metadata={"help": "show a bar"})

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries is at least 1, not {self.tries}")
