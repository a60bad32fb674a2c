"""Options of commands that ask a chat model, derived from the settings of `OpenAIChat`."""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ureca_lib.chat import OpenAIChat

_NAMES = ("temperature", "max_reply_tokens", "sampling_seed", "timeout", "extra")


def with_chat_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options to a command: the temperature, the length of replies, and so on.

    The command takes the options that were given as a dictionary `chat`, by the names of
    `OpenAIChat`.

    Args:
        without: names that the command has options of its own for.
    """
    settings, types = OpenAIChat.__dataclass_fields__, typing.get_type_hints(OpenAIChat)
    names = [name for name in _NAMES if name not in without]

    def option(name: str) -> inspect.Parameter:
        text, default = settings[name].metadata["help"].capitalize(), settings[name].default
        # the length of replies has a default for each command
        shown = f"; default: {default:g}" if name in ("temperature", "timeout") else ""
        kind, parser = types[name] | None, None
        if name == "extra":
            kind, text, parser = dict | None, f"{text}, as JSON", _fields
        annotation = Annotated[kind, typer.Option(help=f"{text}{shown}.", parser=parser)]
        keyword = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(name, keyword, default=None, annotation=annotation)

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        parameters = [one for one in own.parameters.values() if one.name != "chat"]
        parameters += map(option, names)

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            command(**values, chat={n: value for n, value in given.items() if value is not None})

        run.__signature__ = own.replace(parameters=parameters)
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return add


def _fields(text: str) -> dict[str, Any]:
    """An object in JSON, of the command line."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"no JSON ({error})") from None
    if not isinstance(found, dict):
        raise typer.BadParameter('give an object, as {"top_p": 0.9}')
    return found
