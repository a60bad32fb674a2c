"""What the JSON readers share: checked access, and entries that are refused or left out."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    FileMissingError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.region import LeftOut, Region
from ureca_lib.regions.rle import check_size, is_whole

Built = TypeVar("Built")


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileMissingError("the annotation file does not exist", path) from None
    except OSError as error:
        raise AnnotationFormatError(f"the file cannot be read ({error})", path) from None
    except UnicodeDecodeError:
        raise AnnotationFormatError("the file is not text", path) from None
    except (ValueError, RecursionError) as error:  # a ValueError, too, for endless numbers
        raise AnnotationFormatError(
            f"the file is truncated or is not JSON ({error})", path
        ) from None
    if not isinstance(document, dict):
        kind = type(document).__name__
        raise AnnotationFormatError(f"the file holds a {kind}, not an object with masks", path)
    return document


def get(holder: Mapping[str, Any], key: str, kinds: type | tuple[type, ...]) -> Any:
    """`holder[key]`, which must be there and of one of the kinds.

    A bool is no int, and a whole float is one: pandas writes a column of numbers with a gap so.
    """
    if key not in holder:
        raise AnnotationFormatError(f"there is no '{key}'")
    value = holder[key]
    expects = kinds if isinstance(kinds, tuple) else (kinds,)
    if isinstance(value, float) and value.is_integer() and int in expects and float not in expects:
        value = int(value)
    if not isinstance(value, kinds) or isinstance(value, bool):
        names = " or ".join(kind.__name__ for kind in expects)
        raise AnnotationFormatError(f"'{key}' is {type(value).__name__}, not {names}")
    return value


class IdIndex:
    """Ids of a file, found under each way in which files spell them.

    An id is found as it is. Otherwise a text of digits stands for its number and a number for the
    text, where only one id of the file fits: JSON written by hand or by a data frame mixes them.

    Args:
        ids: all different.
    """

    def __init__(self, ids: Iterable[int | str]):
        self._ids = set(ids)
        self._by_number: dict[int, list[int | str]] = {}
        for one in self._ids:
            if (number := _as_number(one)) is not None:
                self._by_number.setdefault(number, []).append(one)

    def find(self, value: int | str) -> int | str | None:
        """The id of the file that `value` means, or None.

        Raises:
            AnnotationFormatError: several ids fit.
        """
        fitting = self.fitting(value)
        if len(fitting) > 1:
            listed = " or ".join(sorted(map(repr, fitting)))
            raise AnnotationFormatError(f"the id {value!r} may mean {listed}: write it as that")
        return fitting[0] if fitting else None

    def fitting(self, value: int | str) -> list[int | str]:
        """The ids of the file that `value` may mean."""
        return [value] if value in self._ids else self._by_number.get(_as_number(value), [])


def _as_number(value: int | str) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 40 else None
    return value


def optional(holder: Mapping[str, Any], key: str, kinds: type | tuple[type, ...]) -> Any:
    """`get`, or None where the key is missing or null."""
    return None if holder.get(key) is None else get(holder, key, kinds)


def need_object(value: Any) -> None:
    """Raise unless the value is a JSON object."""
    if not isinstance(value, Mapping):
        raise AnnotationFormatError(f"the entry is {type(value).__name__}, not an object")


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """COCO's mark for a group that was not told apart: 0 or 1, or not there."""
    stated = annotation.get("iscrowd")
    if stated is not None and stated not in (0, 1):
        raise AnnotationFormatError(f"'iscrowd' is 0 or 1, not {reprlib.repr(stated)}")
    return bool(stated)


def image_size(info: Any, max_pixels: int) -> tuple[int, int]:
    """(width, height) in pixels of an image entry."""
    need_object(info)
    width, height = get(info, "width", int), get(info, "height", int)
    check_size(height, width, max_pixels)
    return width, height


def check_fits(region: Region, height: int, width: int) -> None:
    """Raise unless the region's mask has the image's size."""
    if region.size != (height, width):
        raise SizeMismatchError(
            f"the mask is {region.size[1]} x {region.size[0]} but the image is "
            f"{width} x {height} (width x height)",
            None,
            region.id,
        )


def build_entries(
    entries: Sequence[Any],
    build: Callable[[Any], Built],
    key: Callable[[Built], Any],
    path: Path,
    strict: bool,
    wanted: Callable[[Any], bool] = lambda entry: True,
) -> tuple[list[Built], list[LeftOut]]:
    """Build every entry of an annotation file.

    Args:
        entries: as parsed from the file.
        build: makes the result for one entry, or raises a `RegionError`.
        key: of a result; two results of one key are a `AnnotationFormatError`.
        path: the file, for the errors.
        strict: True raises the first error; False lists them.
        wanted: says of an entry whether it is looked at.

    Returns:
        The results in order, and what was left out.
    """
    good: list[Built] = []
    left_out: list[LeftOut] = []
    seen: set[Any] = set()
    for index, entry in enumerate(entries):
        if not wanted(entry):
            continue
        try:
            built = build(entry)
            if key(built) in seen:
                raise AnnotationFormatError("a region before it in the same image has this id")
            seen.add(key(built))
            good.append(built)
        except RegionError as error:
            region_id = claimed_id(entry)
            placed = error.located(path, f"number {index}" if region_id is None else region_id)
            if strict:
                raise placed from None
            left_out.append(LeftOut(index, region_id, placed))
    return good, left_out


def claimed_id(entry: Any) -> int | str | None:
    """The id that an entry states, if it states one that could be an id."""
    value = entry.get("id") if isinstance(entry, Mapping) else None
    return value if is_whole(value) or isinstance(value, str) else None
