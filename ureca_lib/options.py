"""Options of commands, derived from the dataclasses that declare the settings."""

from __future__ import annotations

import functools
import inspect
import json
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
    settings: type, *names: str, into: str = "", only_given: bool = False, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a dataclass.

    Args:
        names: of the fields; none takes all.
        into: parameter of the command that takes the settings; by default they are passed on
            field by field.
        only_given: that parameter takes a dictionary of the options that were given.
        defaults: instead of those of the dataclass.
    """
    chosen = [each for each in fields(settings) if not names or each.name in names]
    hints, texts = get_type_hints(settings), help_of(settings)

    def option(each: Any) -> inspect.Parameter:
        flags, limits = (each.metadata.get(name, ()) for name in ("flags", "limits"))
        limits, kind = dict(limits), hints[each.name]
        default = inspect.Parameter.empty if each.default is MISSING else each.default
        default = None if only_given else defaults.get(each.name, default)
        kind = dict if "parser" in limits else kind
        annotation = Annotated[
            kind | None if only_given else kind,
            typer.Option(*flags, help=texts[each.name], **limits),
        ]
        keyword = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(each.name, keyword, default=default, annotation=annotation)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters.values()
        own = [p for p in own if p.kind is not p.VAR_KEYWORD and p.name != into]
        parameters = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
        parameters += map(option, chosen)

        @functools.wraps(command)
        def run(**values: Any) -> None:
            if into:
                given = {each.name: values.pop(each.name) for each in chosen}
                some = {name: value for name, value in given.items() if value is not None}
                values[into] = some if only_given else settings(**given)
            command(**values)

        run.__signature__ = inspect.Signature(parameters)
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def json_object(text: str) -> dict[str, Any]:
    """Parse an option that is an object in JSON."""
    try:
        return {**json.loads(text)}
    except (ValueError, TypeError) as error:
        reason = f'no JSON object, as {{"top_p": 0.9}} ({error})'
        raise typer.BadParameter(reason) from None
