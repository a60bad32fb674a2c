"""Parameters of a notebook: names, types, defaults and help; values are checked against them.

papermill only warns about an unknown name and passes `3e-4` as a string. Here a wrong name or type
stops the run before anything is executed.
"""

from __future__ import annotations

import ast
import io
import json
import os
import tokenize
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import nbformat
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

_TYPES = {name: getattr(typing, name) for name in ("Any", "Optional", "Union")}
_TYPES |= {kind.__name__: kind for kind in (bool, dict, float, int, list, str)}
# faults of a cell's annotations and defaults, and of the types made from them
_CELL_FAULTS = (ValueError, TypeError, SyntaxError, LookupError, RecursionError, PydanticUserError)


class NotebookError(ValueError):
    """The file is not a notebook."""


class ParameterError(ValueError):
    """The notebook has no such parameter, or the value is not of its type."""


@dataclass(frozen=True)
class Parameter:
    """One line `name: type = default  # help` of a notebook's parameters cell."""

    name: str
    type_name: str
    default: Any
    help: str

    def check(self, value: Any) -> Any:
        """Return `value` as this parameter's type; an int for a float becomes a float.

        Raises:
            ParameterError: the value is of another type.
        """
        return self._validate(value, strict=True)

    def parse(self, text: str) -> Any:
        """Return the value of a text from a command line: JSON, or the text itself.

        `3e-4`, `true`, `[1, 2]` and `null` are JSON. If the type does not take that value, the
        text counts as it is: `12` for `str | None`, `inf` for a float, `yes` for a bool.

        Raises:
            ParameterError: the text is no value of this type.
        """
        if self.type_name == "str":
            return text
        # a bool or a float in words, such as `inf`, is not JSON
        words = self.type_name in ("bool", "float")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self._validate(text, strict=not words)
        try:
            return self._validate(value, strict=True)
        except ParameterError as error:
            try:
                return self._validate(text, strict=True)
            except ParameterError:
                raise error from None

    def _validate(self, value: Any, strict: bool) -> Any:
        try:
            return _adapter(self.type_name).validate_python(value, strict=strict)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ParameterError(
                f"parameter {self.name}: {value!r} is not of type {self.type_name} ({reason})"
            ) from None


def notebook_parameters(notebook: str | Path) -> dict[str, Parameter]:
    """Read the parameters of a notebook from its cell tagged `parameters`; nothing is executed.

    Args:
        notebook: path of the notebook.

    Returns:
        Parameters by name, in the cell's order; empty if there is no such cell.

    Raises:
        FileNotFoundError: there is no such notebook.
        NotebookError: the file is not a notebook.
        ParameterError: a cell that is not Python, a line that is not `name: type = literal`, or a
            default of another type.
    """
    path = Path(notebook)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such notebook")
    try:
        cells = nbformat.read(path, as_version=4).cells
        tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        sources = [str(cell.source) for cell in tagged]
    # whatever a file that is not a notebook raises in nbformat
    except (nbformat.ValidationError, AttributeError, RecursionError, *_CELL_FAULTS) as error:
        raise NotebookError(f"{path}: the file is not a notebook") from error
    if not sources:
        return {}
    source = sources[0]
    try:
        body, comments = ast.parse(source).body, _comments(source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise ParameterError(
            f"{path}: the parameters cell is not Python: {error.msg} in {line!r}; magics and "
            "shell lines have no place there"
        ) from None
    except (ValueError, RecursionError, tokenize.TokenError) as error:
        raise ParameterError(f"{path}: the parameters cell cannot be read ({error})") from None
    found = {}
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            line = source.splitlines()[node.lineno - 1]
            raise ParameterError(f"{path}: parameters are 'name: type = default', not {line!r}")
        parameter = _from_node(node, comments, path)
        found[parameter.name] = parameter
    return found


def check_parameters(
    known: Mapping[str, Parameter], values: Mapping[str, Any], texts: bool = False
) -> dict[str, Any]:
    """Return all parameters of a notebook: `values`, checked, and defaults for the others.

    Args:
        known: parameters of the notebook.
        values: values to set, by name.
        texts: the values are texts from a command line.

    Raises:
        ParameterError: an unknown name or a wrong type; also a value that JSON changes, such as a
            dictionary with numbers for keys, because the record would hold another value.
    """
    for name in values:
        if name not in known:
            there = ", ".join(known) or "none"
            raise ParameterError(f"the notebook has no parameter '{name}'; it has: {there}")
    result = {name: parameter.default for name, parameter in known.items()}
    for name, value in values.items():
        result[name] = known[name].parse(value) if texts else known[name].check(value)
    for name, value in result.items():
        _check_kept(name, value)
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
    return same_value(_placeless(before), _placeless(now))


def same_value(one: Any, other: Any) -> bool:
    """Compare two JSON values; not-a-number equals itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        alike = one.keys() == other.keys()
        return alike and all(same_value(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        alike = len(one) == len(other)
        return alike and all(map(same_value, one, other))
    return bool(one == other or (one != one and other != other))


def _check_kept(name: str, value: Any) -> None:
    try:
        kept = json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(
            f"parameter {name}: {value!r} cannot be held by a record ({error})"
        ) from None
    if not same_value(value, kept):
        raise ParameterError(
            f"parameter {name}: {value!r} would be {kept!r} in the notebook and its record; "
            "dictionaries have strings for keys, and there are lists only"
        )


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
        here, there = os.path.exists(path), os.path.exists(folder / path)
        if is_text and like_path and here and not there:
            result[name] = os.path.relpath(path, folder)
    return result


def _placeless(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "output_dir"}


def _from_node(node: ast.AnnAssign, comments: Mapping[int, str], path: Path) -> Parameter:
    name = node.target.id  # type: ignore[union-attr]
    try:
        type_name = ast.unparse(node.annotation)
        default = ast.literal_eval(node.value) if node.value is not None else None
        parameter = Parameter(name, type_name, default, comments.get(node.end_lineno or 0, ""))
        parameter.check(default)
    except ParameterError as error:
        raise ParameterError(f"{path}: {error}") from None
    except _CELL_FAULTS as error:
        raise ParameterError(f"{path}: parameter {name}: {error}") from None
    return parameter


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
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inside):
            return Literal[tuple(ast.literal_eval(item) for item in _items(inside))]
        case ast.Subscript(value=ast.Name() as outer, slice=inside):
            types = tuple(map(_type_of, _items(inside)))
            return _type_of(outer)[types[0] if len(types) == 1 else types]
    raise TypeError(
        f"{ast.unparse(node)!r} is not a type for parameters; use {', '.join(_TYPES)} and Literal"
    )


def _items(inside: ast.expr) -> list[ast.expr]:
    return inside.elts if isinstance(inside, ast.Tuple) else [inside]


def _comments(source: str) -> dict[int, str]:
    """Return the comment at the end of each line, by line number from 1."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }
