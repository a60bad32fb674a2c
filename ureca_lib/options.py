"""Options of commands, derived from the dataclasses that declare the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

import typer


def options_of(
    settings: type, *names: str, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a dataclass, passed on as `**given`.

    Args:
        names: of the fields; none takes all.
        defaults: instead of those of the dataclass.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(settings)
        options = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(
                    each.name, inspect.Parameter.empty if each.default is MISSING else each.default
                ),
                annotation=Annotated[hints[each.name], typer.Option(help=each.metadata["help"])],
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
