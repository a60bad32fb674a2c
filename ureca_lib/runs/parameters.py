"""A notebook's parameters: their names, types, defaults and help, and values checked by them.

papermill only warns about a name it does not know and passes `3e-4` as a string. Here a wrong
name or type stops the run before anything is executed.
"""

from __future__ import annotations

import ast
import io
import json
import tokenize
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ureca_lib.runs.yaml_values import ValueLoader

_TYPES = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}
_TYPES |= {kind.__name__: kind for kind in (bool, dict, float, int, list, str)}


class NotebookError(ValueError):
    """A file that is not a notebook."""


class ParameterError(ValueError):
    """A parameter that the notebook does not have, or a value that is not of its type."""


@dataclass(frozen=True)
class Parameter:
    """One line `name: type = default  # help` of a notebook's parameters cell."""

    name: str
    type_name: str
    default: Any
    help: str

    def check(self, value: Any) -> Any:
        """`value` as this parameter's type; an int where a float is wanted becomes a float.

        Raises:
            ParameterError: the value is of another type.
        """
        return self._validate(value, strict=True)

    def parse(self, text: str) -> Any:
        """The value that `text`, from a command line, stands for: `3e-4`, `true`, `[1, 2]`.

        Raises:
            ParameterError: the text is no value of this type.
        """
        if self.type_name == "str":
            return text
        try:
            value = yaml.load(text, Loader=ValueLoader)
        except yaml.YAMLError as error:
            raise ParameterError(f"parameter {self.name}: cannot read {text!r}") from error
        if self.type_name == "float" and isinstance(value, str):
            return self._validate(value, strict=False)  # inf and nan: YAML's have a dot
        return self._validate(value, strict=True)

    def _validate(self, value: Any, strict: bool) -> Any:
        try:
            return _adapter(self.type_name).validate_python(value, strict=strict)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ParameterError(
                f"parameter {self.name}: {value!r} is not of type {self.type_name} ({reason})"
            ) from None


def notebook_parameters(notebook: str | Path) -> dict[str, Parameter]:
    """The parameters of a notebook, from its cell tagged `parameters`.

    Args:
        notebook: path of the notebook.

    Returns:
        By name, in the cell's order; empty where there is no such cell.

    Raises:
        FileNotFoundError: no notebook there.
        NotebookError: the file is not a notebook.
        ParameterError: a cell that is not Python, a line that is not `name: type = literal`, or a
            default of another type.
    """
    path = Path(notebook)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such notebook")
    try:
        cells = nbformat.read(path, as_version=4).cells
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError) as error:
        raise NotebookError(f"{path}: the file is not a notebook") from error
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        return {}
    source = tagged[0].source
    try:
        body, comments = ast.parse(source).body, _comments(source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise ParameterError(
            f"{path}: the parameters cell is not Python: {error.msg} in {line!r}; magics and "
            "shell lines have no place there"
        ) from None
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
    """All parameters of a notebook: defaults, with `values` in their place, checked.

    Args:
        known: of the notebook.
        values: those that are set.
        texts: the values are texts from a command line.

    Raises:
        ParameterError: naming the parameter, and what there is instead; also for a value that does
            not come back from JSON as it was, such as a dictionary with numbers for keys: records
            and notebooks would hold another.
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
    """Whether a run of earlier was one with today's parameters, wherever it wrote to.

    A parameter that the notebook did not have then counts as what is its default now: one is added
    with the default that leaves everything as it was.

    Args:
        known: of the notebook now.
        then: the earlier run's, from its record.
        now: all of today's.
    """
    before = {name: parameter.default for name, parameter in known.items()} | dict(then)
    return same_value(_placeless(before), _placeless(now))


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are equal, where not a number is itself.

    Args:
        one: a value that JSON can hold.
        other: another.
    """
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
            f"parameter {name}: {value!r} is nothing that a record can hold ({error})"
        ) from None
    if not same_value(value, kept):
        raise ParameterError(
            f"parameter {name}: {value!r} would be {kept!r} in the notebook and its record; "
            "dictionaries have strings for keys, and there are lists only"
        )


def _placeless(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "output_dir"}


def _from_node(node: ast.AnnAssign, comments: Mapping[int, str], path: Path) -> Parameter:
    name = node.target.id  # type: ignore[union-attr]
    type_name = ast.unparse(node.annotation)
    try:
        default = ast.literal_eval(node.value) if node.value is not None else None
        _adapter(type_name)
    except (ValueError, NameError, TypeError, SyntaxError) as error:
        raise ParameterError(f"{path}: parameter {name}: {error}") from None
    parameter = Parameter(name, type_name, default, comments.get(node.end_lineno or 0, ""))
    try:
        parameter.check(default)
    except ParameterError as error:
        raise ParameterError(f"{path}: {error}") from None
    return parameter


def _adapter(type_name: str) -> TypeAdapter[Any]:
    # the annotation comes from a notebook that will be executed anyway; no builtins all the same
    annotation = eval(type_name, {"__builtins__": {}}, _TYPES)
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=True))


def _comments(source: str) -> dict[int, str]:
    """Text of the comment at the end of each line, by line number from 1."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }
