"""Options of commands, derived from the dataclasses that declare the settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, field, fields
from typing import Annotated, Any, get_type_hints

import typer


def setting(default: Any, explanation: str, *flags: str, **limits: Any) -> Any:
    """A field of settings with its help text, from which options of commands are derived.

    Args:
        default: of the field.
        explanation: what it does, for the command's help.
        flags: names of the option, such as "-j" and "--jobs"; by default the field's.
        limits: other arguments of `typer.Option`, such as `min`.
    """
    return field(default=default, metadata={"help": explanation, "flags": flags, "limits": limits})


def at_least(settings: Any, **least: float) -> None:
    """Check lower bounds of settings.

    Raises:
        ValueError: naming the setting that is below its bound, or not a number.
    """
    for name, value in least.items():
        if not getattr(settings, name) >= value:
            raise ValueError(f"{name} is at least {value}, not {getattr(settings, name)}")


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

        def option(each: Any) -> Any:
            flags, limits = (each.metadata.get(name, ()) for name in ("flags", "limits"))
            return typer.Option(*flags, help=texts[each.name], **dict(limits))

        options = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(
                    each.name, inspect.Parameter.empty if each.default is MISSING else each.default
                ),
                annotation=Annotated[hints[each.name], option(each)],
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
