"""Annotators, which write the captions: chat models, and one that needs no model and no network.

`ModelAnnotator` asks a chat model and checks its replies. `AttributeAnnotator` composes referring
expressions; see `ureca_lib.annotate.referring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ureca_lib.annotate.protocol import Annotator, Reply, Request
from ureca_lib.annotate.referring import AttributeAnnotator
from ureca_lib.annotate.replies import answer_checked
from ureca_lib.chat import ChatModel, ChatReply, Turn, make_chat
from ureca_lib.event_loop import run_coroutine
from ureca_lib.options import at_least


@dataclass(eq=False)
class ModelAnnotator:
    """An annotator that asks a chat model, checks its replies and sends bad ones back.

    Args:
        chat: the model.
        max_corrections: most times that a bad reply is sent back.
    """

    chat: ChatModel
    max_corrections: int = 2

    def __post_init__(self) -> None:
        at_least(self, max_corrections=0)
        self.name, self.max_in_flight = self.chat.name, self.chat.max_in_flight
        self.answer_settings = self.chat.answer_settings

    def answer(self, request: Request) -> Reply:
        """Answer one question; may be called from many threads. See `answer_async`."""
        return run_coroutine(self.answer_async(request))

    async def answer_async(self, request: Request) -> Reply:
        """Answer one question.

        Returns:
            The checked reply, or a failed one with the reason.

        Raises:
            BudgetSpentError: the next call may exceed the budget.
            AnnotatorUnavailableError: the model answers no question.
        """
        image, prompt = request.image, request.prompt
        shown = (image.path, image.image_id, image.file_name)
        photo = id(image) if shown == (None,) * 3 else shown

        async def ask(turns: Sequence[Turn]) -> ChatReply:
            return await self.chat.complete([Turn("user", prompt), *turns], request.views, photo)

        return await answer_checked(request.stage, ask, prompt, self.max_corrections)


def make_annotator(
    kind: str,
    model: str | None = None,
    base_url: str | None = None,
    device: str | None = "cpu",
    api_key_env: str | None = None,
    in_flight: int | None = None,
    **settings: Any,
) -> Annotator:
    """An annotator by name, for commands and notebooks.

    Args:
        kind: "attributes" (no model), or a kind of `make_chat`.
        model, base_url, device, api_key_env, settings: as `make_chat` takes them.
        in_flight: most calls of a server at a time; the other kinds have limits of their own.

    Raises:
        ValueError: no such kind, device or key, or options that do not go together.
        ImportError: "openai" without the extra of that name.
        AnnotatorUnavailableError: the model cannot be loaded.
    """
    if kind not in ("attributes", "openai", "transformers"):
        raise ValueError(f"an annotator is attributes, openai or transformers, not {kind!r}")
    if kind == "attributes":
        if model or base_url or api_key_env or settings:
            raise ValueError(
                "the annotator attributes needs no key, model, address or settings: these go with "
                "--annotator openai or transformers"
            )
        return AttributeAnnotator()
    if kind == "openai" and in_flight is not None:
        settings["max_in_flight"] = in_flight
    return ModelAnnotator(make_chat(kind, model, base_url, device, api_key_env, **settings))
