"""Language models that are asked about captions: behind a server, or in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ureca_lib.annotate.openai_annotator import OpenAIAnnotator, _Question
from ureca_lib.annotate.protocol import AnnotatorUnavailableError
from ureca_lib.annotate.replies import Draft, NoAnswerError
from ureca_lib.devices import chosen_device

MAX_REPLY_TOKENS = 1024  # as clair.py of Chan et al. 2023 allows
_TOKEN_CHARACTERS = 4  # of a prompt, for the budget


class Judge(Protocol):
    """Anything that answers a question in words.

    `ask` is called from at most `max_in_flight` threads. It raises `NoAnswerError` for a question
    that gets no answer, and `BudgetSpentError` or `AnnotatorUnavailableError` where going on makes
    no sense.
    """

    name: str  # kind and model, as it goes into the record
    max_in_flight: int
    answer_settings: Mapping[str, Any]  # what else decides an answer, as JSON can hold it

    def ask(self, prompt: str) -> Draft:
        """The reply as it came."""
        ...


@dataclass(frozen=True, eq=False)
class OpenAIJudge(OpenAIAnnotator):
    """A model behind an OpenAI-compatible server; settings, key and retries of the annotator."""

    max_reply_tokens: int = field(
        default=MAX_REPLY_TOKENS, metadata={"help": "a longer reply is cut"}
    )

    def ask(self, prompt: str) -> Draft:
        """See `Judge`."""
        content = [{"type": "text", "text": prompt}]
        return self._say(_Question(content, len(prompt) // _TOKEN_CHARACTERS), ())

    @property
    def answer_settings(self) -> dict[str, Any]:
        """See `Judge`."""
        settings = super().answer_settings
        del settings["image_format"]  # it is shown none
        return settings


@dataclass(frozen=True, eq=False)
class TransformersJudge:
    """A chat model of transformers in this process, one question at a time, greedily decoded.

    For thousands of captions a server such as vLLM is faster; it is asked by `OpenAIJudge`.
    Nothing but weights is loaded: no code of a model's repository runs.

    Raises:
        AnnotatorUnavailableError: the model cannot be loaded, or has no chat template.
        ValueError: a setting out of range.
    """

    model: str = field(metadata={"help": "folder or hub id of the model"})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1, mps, ..."})
    dtype: str = field(
        default="auto", metadata={"help": "float32, bfloat16, ...; auto is that of the weights"}
    )
    max_new_tokens: int = field(
        default=MAX_REPLY_TOKENS, metadata={"help": "a longer reply is cut"}
    )
    name: str = field(init=False, repr=False)
    max_in_flight: int = field(init=False, repr=False, default=1)
    _parts: tuple[Any, Any] = field(init=False, repr=False)
    _turn: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is at least 1, not {self.max_new_tokens}")
        put = object.__setattr__
        put(self, "name", f"transformers:{self.model}")
        put(self, "_parts", _load(self.model, self.device, self.dtype))
        put(self, "_turn", threading.Lock())

    @property
    def answer_settings(self) -> dict[str, Any]:
        """See `Judge`."""
        return {"dtype": self.dtype, "max_new_tokens": self.max_new_tokens}

    def ask(self, prompt: str) -> Draft:
        """See `Judge`."""
        with self._turn:
            try:
                return self._reply(prompt)
            except Exception as error:  # of memory, of a prompt that is too long
                message = f"{self.name}: {type(error).__name__}: {error}"
                raise NoAnswerError(message) from error

    def _reply(self, prompt: str) -> Draft:
        import torch

        network, tokenizer = self._parts
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        ).to(network.device)
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            ids = network.generate(
                **inputs,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        reply = ids[0, length:]  # (1, prompt + reply) -> (reply,)
        cut = len(reply) >= self.max_new_tokens
        text = tokenizer.decode(reply, skip_special_tokens=True)
        problem = "was cut off before its end" if cut else None
        return Draft(text, length, len(reply), problem=problem)


def make_judge(
    kind: str,
    model: str | None = None,
    base_url: str | None = None,
    device: str | None = "cpu",
    api_key_env: str | None = None,
) -> Judge | None:
    """A judge by name, for commands and notebooks; None for "none".

    Args:
        kind: "none", "openai" (any OpenAI-compatible server) or "transformers" (in this process).
        model: its name on the server, hub id or folder.
        base_url: address of the server; None is OpenAI's.
        device: where "transformers" runs; None for CUDA where there is one.
        api_key_env: environment variable that holds the server's key; None is OPENAI_API_KEY at
            OpenAI, and no key at other servers.

    Raises:
        ValueError: no such kind or device, options that do not go together, or no key for OpenAI.
        ImportError: "openai" without the extra of that name.
        AnnotatorUnavailableError: the model cannot be loaded.
    """
    if kind not in ("none", "openai", "transformers"):
        raise ValueError(f"a judge is none, openai or transformers, not {kind!r}")
    if kind == "none":
        if model or base_url or api_key_env:
            raise ValueError("model, address and key go with the judge openai or transformers")
        return None
    if not model:
        raise ValueError(f"the judge {kind} needs a model")
    if kind == "openai":
        return OpenAIJudge(model, base_url=base_url, api_key_env=api_key_env)
    if base_url or api_key_env:
        raise ValueError("the judge transformers runs here; address and key are for openai")
    return TransformersJudge(model, device=chosen_device(device))


def _load(model: str, device: str, dtype: str) -> tuple[Any, Any]:
    """The model, on its device, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        network = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        network = network.to(device).eval()
    except Exception as error:  # whatever is wrong with files, hub or device
        message = f"{model} cannot be loaded on {device}: {type(error).__name__}: {error}"
        raise AnnotatorUnavailableError(message) from error
    if not tokenizer.chat_template:
        raise AnnotatorUnavailableError(f"{model}: its tokenizer has no chat template")
    return network, tokenizer
