"""Settings of predictions and scores, from which the options of the commands are derived.

The module imports nothing heavy: `ureca evaluate --help` stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ureca_lib.chat import KEY_HELP
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
        "cpu", "where the model runs: cpu, cuda, cuda:1; default: CUDA if any"
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
        faults = {
            f"a system is {', '.join(SYSTEMS)}, not {name!r}": name not in SYSTEMS,
            f"the system {name} takes no question, has no model, and no server": free
            and (self.model or self.base_url or self.question),
            f"the system {name} needs a --model": not free and not self.model,
            f"--together and --beams are for the system ureca, not {name}": name != "ureca"
            and (self.together or self.beams > 1),
            f"--base-url is for {', '.join(_SERVED)}": self.base_url and name not in _SERVED,
            f"{' '.join(for_server[:1])} goes with a --base-url": for_server and not self.base_url,
        }
        for reason, found in faults.items():
            if found:
                raise ValueError(reason)


@dataclass(frozen=True, kw_only=True)
class BootstrapSettings:
    """Settings of the intervals, which cover 95%."""

    samples: int = setting(1000, "resamples of the intervals; 0 gives none")
    seed: int = setting(0, "of the resamples")

    def __post_init__(self) -> None:
        at_least(self, samples=0)


@dataclass(frozen=True, kw_only=True)
class MetricSettings(BootstrapSettings):
    """Settings that scores depend on."""

    tokenizer: Literal["ptb", "whitespace"] = setting(
        "ptb", "ptb, as COCO's evaluation has it, or whitespace"
    )
    meteor: Literal["nltk", "java"] = setting(
        "nltk", "nltk, or java: METEOR 1.5 by the extra of that name"
    )
    wordnet: str | None = setting(None, "folder of WordNet's files; None looks for them")
    bertscore_model: str = setting(
        "auto", "auto (roberta-large, else minilm), minilm, hub id or folder"
    )
    device: str | None = setting("cpu", "where BERTScore's model runs; default: CUDA if any")
    progress: bool = setting(True, "show a bar for BERTScore")


@dataclass(frozen=True, kw_only=True)
class UniquenessSettings(BootstrapSettings):
    """Settings of the measures."""

    calibrate: Literal["none", "pmi"] = setting(
        "none", "'none', or 'pmi' to examine a listener (`calibrated`)"
    )
    near: Annotated[float, Field(gt=0, le=1)] = setting(
        NEAR, "share of words and word pairs that is nearly equal"
    )


@dataclass(frozen=True, kw_only=True)
class ClairSettings(BootstrapSettings):
    """Settings of a judgment."""

    tries: int = setting(3, "most replies to one question until one has a score")
    progress: bool = setting(True, "show a bar")

    def __post_init__(self) -> None:
        at_least(self, samples=0, tries=1)


@dataclass(frozen=True)
class ReproductionSettings:
    """Settings of a reproduction of Table 2."""

    limit: int | None = setting(None, "With --models: number of images.")
    listener: str = setting("exact", "With --models: a listener, as `ureca uniqueness` takes it.")
    bertscore_model: str = setting("auto", "With --models: auto, minilm, hub id or folder.")
    max_new_tokens: int = setting(256, "With --models: longest caption in tokens.")
    device: str | None = setting(None, "With --models: cpu, cuda, ...; default: cuda if any.")
