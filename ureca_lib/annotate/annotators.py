"""Annotators by name: the embedded one, an OpenAI-compatible server, a model in this process."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ureca_lib.annotate.protocol import Annotator
from ureca_lib.annotate.referring import AttributeAnnotator
from ureca_lib.devices import chosen_device

_ELSEWHERE = {
    "OpenAIAnnotator": "ureca_lib.annotate.openai_annotator",
    "TransformersAnnotator": "ureca_lib.annotate.transformers_annotator",
}


def make_annotator(
    kind: str,
    model: str | None = None,
    base_url: str | None = None,
    device: str | None = "cpu",
    api_key_env: str | None = None,
    in_flight: int | None = None,
) -> Annotator:
    """An annotator by name, for commands and notebooks.

    Args:
        kind: "attributes" (no model), "openai" (any OpenAI-compatible server) or "transformers"
            (in this process).
        model: its name on the server, hub id or folder; not for "attributes".
        base_url: address of the server; None is OpenAI's.
        device: where "transformers" runs; None for CUDA where there is one.
        api_key_env: environment variable that holds the server's key; None is OPENAI_API_KEY at
            OpenAI, and no key at other servers.
        in_flight: most calls of a server at a time; the others know their own best.

    Raises:
        ValueError: no such kind, device or key, or options that do not go together.
        ImportError: "openai" without the extra of that name.
    """
    if kind not in ("attributes", "openai", "transformers"):
        raise ValueError(f"an annotator is attributes, openai or transformers, not {kind!r}")
    if kind == "attributes" and (model or base_url):
        raise ValueError("a model or an address goes with --annotator openai or transformers")
    if kind != "attributes" and not model:
        raise ValueError(f"the annotator {kind} needs a --model")
    if kind == "transformers" and base_url:
        raise ValueError("the annotator transformers runs here; --base-url is for openai")
    if kind != "openai" and api_key_env:
        raise ValueError(f"the annotator {kind} needs no key; it is for openai")
    if kind == "openai":
        more = {} if in_flight is None else {"max_in_flight": in_flight}
        more |= {"base_url": base_url, "api_key_env": api_key_env}
        return __getattr__("OpenAIAnnotator")(model, **more)
    if kind == "attributes":
        return AttributeAnnotator()
    return __getattr__("TransformersAnnotator")(model, device=chosen_device(device))


def __getattr__(name: str) -> Any:
    """The annotators with a model, imported when they are asked for: they take seconds to."""
    if name in _ELSEWHERE:
        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
