"""Parameters of a notebook: names, types, defaults and help; values are checked against them.

papermill only warns about an unknown name and passes `3e-4` as a string. Here a wrong name or type
stops the run before anything is executed.
"""

from __future__ import annotations

import ast
import json
import os
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import nbformat
from pydantic import ConfigDict, TypeAdapter, ValidationError

_TYPES = {name: getattr(typing, name) for name in ("Any", "Optional", "Union")}
_TYPES |= {kind.__name__: kind for kind in (bool, dict, float, int, list, str)}


@dataclass(frozen=True)
class Parameter:
    """One line `name: type = default  # help` of a notebook's parameters cell."""

    name: str
    type_name: str
    default: Any
    help: str

    def check(self, value: Any, strict: bool = True) -> Any:
        """Return `value` as this parameter's type; an int for a float becomes a float.

        Args:
            value: of Python.
            strict: do not convert texts.

        Raises:
            ValueError: the value is of another type.
        """
        try:
            return _adapter(self.type_name).validate_python(value, strict=strict)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(
                f"parameter {self.name}: {value!r} is not of type {self.type_name} ({reason})"
            ) from None

    def parse(self, text: Any) -> Any:
        """Return the value of a text from a command line or a YAML file.

        A text is JSON, such as `3e-4`, `true`, `[1, 2]` and `null`, if the type takes that value.
        Else it counts as it is: `12` for `str | None`, `inf` for a float, `yes` for a bool.

        Args:
            text: or lists and dictionaries of texts.

        Raises:
            ValueError: the text is no value of this type.
        """
        if self.type_name != "str":
            with suppress(ValueError):
                return self.check(json_value(text))
        # only a bool or a float in words is not JSON
        return self.check(text, strict=self.type_name not in ("bool", "float"))


def json_value(text: Any) -> Any:
    """Return the JSON value of a text, or the text if it is no JSON; also inside lists and dicts.

    Numbers are those of JSON, so that `012` and `1:30` are texts, and not 10 and 90 as in YAML 1.1.
    """
    if isinstance(text, list):
        return [json_value(item) for item in text]
    if isinstance(text, dict):
        return {name: json_value(item) for name, item in text.items()}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def notebook_parameters(notebook: str | Path) -> dict[str, Parameter]:
    """Read the parameters of a notebook from its cell tagged `parameters`; nothing is executed.

    Args:
        notebook: path of the notebook.

    Returns:
        Parameters by name, in the cell's order; empty if there is no such cell.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: the file is not a notebook, its parameters cell is not Python or has a line
            that is not `name: type = literal`, or a default is of another type.
    """
    path = Path(notebook)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such notebook")
    try:
        cells = nbformat.read(path, as_version=4).cells
        tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        source = str(tagged[0].source) if tagged else ""
    except Exception as error:  # nbformat stumbles over a file of another kind in many ways
        raise ValueError(f"{path}: the file is not a notebook") from error
    try:
        body, lines = ast.parse(source).body, source.splitlines()
    except Exception as error:  # not only SyntaxError: null bytes, lines nested too deeply
        line = (getattr(error, "text", None) or "").strip()
        raise ValueError(
            f"{path}: the parameters cell is not Python ({error}): {line!r}; magics and shell "
            "lines have no place there"
        ) from None
    found = {}
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            line = lines[node.lineno - 1]
            raise ValueError(f"{path}: parameters are 'name: type = default', not {line!r}")
        # the help is what follows the value in its last line; columns are of UTF-8
        rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        name, text = node.target.id, rest.strip(" #")
        try:
            default = ast.literal_eval(node.value) if node.value is not None else None
            found[name] = Parameter(name, ast.unparse(node.annotation), default, text)
            found[name].check(default)
        except Exception as error:  # of literals, annotations, and pydantic for odd types
            raise ValueError(f"{path}: parameter {name}: {error}") from None
    return found


def check_parameters(
    known: Mapping[str, Parameter], values: Mapping[str, Any], texts: bool = False
) -> dict[str, Any]:
    """Return all parameters of a notebook: `values`, checked, and defaults for the others.

    Args:
        known: parameters of the notebook.
        values: values to set, by name.
        texts: the values are texts, from a command line or a YAML file.

    Raises:
        ValueError: an unknown name or a wrong type; also a value that JSON changes, such as a
            dictionary with numbers for keys, because the record would hold another value.
    """
    result = {name: parameter.default for name, parameter in known.items()}
    for name, value in values.items():
        if name not in known:
            there = ", ".join(known) or "none"
            raise ValueError(f"the notebook has no parameter '{name}'; it has: {there}")
        result[name] = known[name].parse(value) if texts else known[name].check(value)
    for name, value in result.items():
        try:
            kept = json.loads(json.dumps(value))
        except (TypeError, ValueError, RecursionError) as error:
            kept = error
        if not same_value(value, kept):
            raise ValueError(
                f"parameter {name}: {value!r} would be {kept!r} in the notebook and its record; "
                "dictionaries have strings for keys, and there are lists only"
            )
    return result


def same_parameters(
    known: Mapping[str, Parameter], then: Mapping[str, Any], now: Mapping[str, Any]
) -> bool:
    """Compare the parameters of an earlier run with those of today, except for `output_dir`.

    A parameter that the notebook did not have then counts with its default of now, because new
    parameters get the default that leaves results unchanged.

    Args:
        known: parameters of the notebook now.
        then: values of the earlier run, from its record.
        now: all values of today.
    """
    before = {name: parameter.default for name, parameter in known.items()} | dict(then)
    names = (before.keys() | now.keys()) - {"output_dir"}
    return all(same_value(before.get(name, KeyError), now.get(name, KeyError)) for name in names)


def same_value(one: Any, other: Any) -> bool:
    """Compare two JSON values; not-a-number, also inside of lists, equals itself."""
    return one == other or repr(one) == repr(other)


def paths_from_here(
    known: Mapping[str, Parameter], texts: Mapping[str, str], notebook: Path
) -> dict[str, str]:
    """Rewrite paths that a shell completed so that they hold in the notebook's folder.

    Notebooks run in their own folder. A text is rewritten if its parameter is a `str`, it looks
    like a path, and the file or folder exists from here but not from the notebook's folder.

    Args:
        known: parameters of the notebook.
        texts: values from a command line, by name.
        notebook: path of the notebook.
    """
    folder = notebook.resolve().parent
    result = dict(texts)
    for name, text in texts.items():
        path = Path(text)
        is_text = name in known and known[name].type_name.startswith("str")
        # `-p preset tiny` is not a path, even if there is a folder `tiny` here
        like_path = not path.is_absolute() and (os.sep in text or path.suffix)
        if is_text and like_path and os.path.exists(path) and not os.path.exists(folder / path):
            result[name] = os.path.relpath(path, folder)
    return result


@cache
def _adapter(type_name: str) -> TypeAdapter[Any]:
    annotation = _type_of(ast.parse(type_name, mode="eval").body)
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=True))


def _type_of(node: ast.expr) -> Any:
    """Build a type from the syntax tree of an annotation, without evaluating the annotation.

    A notebook is only executed on purpose; reading its parameters must not run code of it.

    Raises:
        TypeError: the annotation has parts other than `int | None`, `list[float]` and the like.
    """
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[_type_of(left), _type_of(right)]  # noqa: UP007 - None | None fails
        case ast.Subscript(value=ast.Name() as outer, slice=inside):
            items = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            if outer.id == "Literal":
                return Literal[tuple(map(ast.literal_eval, items))]
            types = tuple(map(_type_of, items))
            return _type_of(outer)[types[0] if len(types) == 1 else types]
    raise TypeError(
        f"{ast.unparse(node)!r} is not a type for parameters; use {', '.join(_TYPES)} and Literal"
    )
