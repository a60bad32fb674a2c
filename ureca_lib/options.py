"""Options of commands, derived from the dataclasses that declare the settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

import typer


def help_of(settings: type) -> dict[str, str]:
    """Help texts of a dataclass's fields: their metadata, or "Attributes" of its docstring."""
    named = {each.name: each for each in fields(settings)}
    listed = re.findall(r"^    (\w+): (.+(?:\n {6,}.+)*)", inspect.getdoc(settings), re.MULTILINE)
    texts = {name: " ".join(text.split()) for name, text in listed if name in named}
    return texts | {n: f.metadata["help"] for n, f in named.items() if "help" in f.metadata}


def options_of(
    settings: type, *names: str, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a dataclass, passed on as `**given`.

    Args:
        names: of the fields; none takes all.
        defaults: instead of those of the dataclass.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints, texts = get_type_hints(settings), help_of(settings)
        options = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(
                    each.name, inspect.Parameter.empty if each.default is MISSING else each.default
                ),
                annotation=Annotated[hints[each.name], typer.Option(help=texts[each.name])],
            )
            for each in fields(settings)
            if not names or each.name in names
        ]
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        own = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
        command.__signature__ = signature.replace(parameters=[*own, *options])
        return command

    return decorate
