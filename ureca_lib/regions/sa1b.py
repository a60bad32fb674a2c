"""SA-1B JSON, read and written: one file per image, masks as RLE (Kirillov et al. 2023).

The checked access to JSON that the COCO reader and the data sets share is here too.
"""

from __future__ import annotations

import json
import os
import reprlib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ureca_lib.journal import write_text
from ureca_lib.regions.errors import (
    AnnotationFormatError,
    FileMissingError,
    RegionError,
)
from ureca_lib.regions.photo import Photo, find_photo
from ureca_lib.regions.region import LeftOut, Region, RegionImage
from ureca_lib.regions.rle import MAX_PIXELS, check_size, is_whole

Built = TypeVar("Built")
_NOTES_SHOWN = 5


def load_sa1b(
    json_path: str | Path,
    image: Photo | None = None,
    strict: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> RegionImage:
    """Read the masks of one image from SA-1B JSON (Kirillov et al. 2023).

    Needed keys: the image's `width` and `height`; each annotation's `id` and `segmentation`.

    Args:
        json_path: the annotation file.
        image: the photo; None takes the file beside the JSON that it names, or that has its
            stem, and does without where there is none.
        strict: False keeps the good annotations and lists the others in `.left_out`.
        max_pixels: the largest image allowed.

    Returns:
        The image with its regions in file order.

    Raises:
        RegionError: naming the file, the region's id and the fault. A given photo is read at once,
            a photo beside the JSON when it is needed.
    """
    path = Path(json_path)
    head, annotations = _head_and_annotations(path, max_pixels)
    notes: list[str] = []
    regions, left_out = build_entries(
        annotations,
        lambda entry: _region(entry, head["height"], head["width"], max_pixels, notes.append),
        lambda region: region.id,
        path,
        strict,
    )
    warn_of(notes, path)
    photo = find_photo(path.parent, head["file_name"], path.stem) if image is None else image
    result = RegionImage(regions, photo=photo, path=path, left_out=left_out, **head)
    if image is not None:
        _ = result.image  # a photo that was asked for must be readable and of the right size
    return result


def _head_and_annotations(path: Path, max_pixels: int) -> tuple[dict[str, Any], list[Any]]:
    """Read the fields of the image, under `RegionImage`'s names, and the annotations."""
    document = read_json(path)
    try:
        info = get(document, "image", Mapping)
        annotations = get(document, "annotations", list)
        width, height = image_size(info, max_pixels)
        file_name = optional(info, "file_name", str)
        image_id = optional(info, "image_id", (int, str))
    except RegionError as error:
        raise error.located(path) from None
    head = {"width": width, "height": height, "file_name": file_name, "image_id": image_id}
    return head, annotations


def save_sa1b(regions: RegionImage, json_path: str | Path, file_name: str | None = None) -> None:
    """Write SA-1B JSON for `load_sa1b` and other tools.

    Names, which SA-1B does not have, go into a key `name`, and COCO's crowds into `iscrowd`. The
    file is replaced as a whole, so that a stop in between leaves the old one.

    Args:
        regions: the image and its regions.
        json_path: where to write.
        file_name: the photo's file name; None keeps the one known.
    """
    photo = regions.photo.name if regions.photo else None
    image = {
        "image_id": regions.image_id if regions.image_id is not None else 0,
        "width": regions.width,
        "height": regions.height,
        "file_name": file_name or regions.file_name or photo,
    }
    annotations = [annotation_from(region) for region in regions]
    lines = ",\n".join(json.dumps(annotation) for annotation in annotations)
    text = f'{{"image": {json.dumps(image)},\n"annotations": [\n{lines}\n]}}\n'
    write_text(json_path, text)


def annotation_from(region: Region) -> dict[str, Any]:
    """Convert a region to an SA-1B annotation: plain data for JSON."""
    counts = region.rle["counts"].decode("ascii")
    row: dict[str, Any] = {"id": region.id}
    if region.name is not None:
        row["name"] = region.name
    if region.crowd:
        row["iscrowd"] = 1
    row |= {"area": region.area, "bbox": list(region.bbox)}
    return row | {"segmentation": {"size": list(region.size), "counts": counts}}


def region_from(
    annotation: Any,
    max_pixels: int = MAX_PIXELS,
    note: Callable[[str], None] = warnings.warn,
) -> Region:
    """Build the region of an SA-1B annotation; `max_pixels` and `note` are as in `Region`.

    Raises:
        RegionError: as in `load_sa1b`, naming the region's id.
    """
    need_object(annotation)
    region_id = get(annotation, "id", (int, str))
    rle = get(annotation, "segmentation", Mapping)
    stated = (annotation.get(key) for key in ("bbox", "area", "name"))
    return Region(region_id, rle, *stated, is_crowd(annotation), max_pixels, note)


def _region(
    annotation: Any, height: int, width: int, max_pixels: int, note: Callable[[str], None]
) -> Region:
    region = region_from(annotation, max_pixels, note)
    region.check_size(height, width)
    return region


def walk_linked(folder: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Walk `folder` and the folders below it, each with the sorted names of its files.

    Symbolic links are followed, last and each once: a collection like SA-1B is often spread over
    disks, and a link may lead back to a folder above it.
    """
    seen: set[tuple[int, int]] = set()
    starts = deque([str(folder)])
    while starts:
        for place, folders, files in os.walk(starts.popleft()):
            found = os.stat(place)
            if (found.st_dev, found.st_ino) in seen:
                folders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            folders.sort()
            joined = (os.path.join(place, name) for name in folders)
            starts.extend(path for path in joined if os.path.islink(path))
            yield Path(place), sorted(files)


def annotation_files(folder: str | Path) -> list[Path]:
    """List the JSON files at and below `folder` that may be SA-1B's, sorted.

    Hidden files are left out, and so are files that commands write beside a JSONL, such as
    `P.meta.json` beside the predictions `P.jsonl`.
    """
    found = []
    for place, names in walk_linked(folder):
        beside = {name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl")}
        for name in names:
            stem, kind = os.path.splitext(name)
            written_with = stem.rpartition(".")[0]
            if kind == ".json" and name[0] != "." and written_with not in beside:
                found.append(place / name)
    return sorted(found)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
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
    """Ids of a file, looked up in every spelling that files use.

    An equal id comes first. Otherwise a text of digits stands for its number and a number for the
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
        """Return the id of the file that `value` means, or None.

        Raises:
            AnnotationFormatError: several ids fit.
        """
        fitting = self.fitting(value)
        if len(fitting) > 1:
            listed = " or ".join(sorted(map(repr, fitting)))
            raise AnnotationFormatError(f"the id {value!r} may mean {listed}: write it as that")
        return fitting[0] if fitting else None

    def fitting(self, value: int | str) -> list[int | str]:
        """Return the ids of the file that `value` may mean."""
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
    """Read COCO's mark for a group of objects in one mask: 0, 1 or absent."""
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
        The results in order, and the entries that were left out.
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


def warn_of(notes: Sequence[str], path: Path) -> None:
    """Warn of corrections that a reader made; of many, the first few and their number."""
    for note in notes[:_NOTES_SHOWN]:
        warnings.warn(f"{path}: {note}", stacklevel=3)
    if len(notes) > _NOTES_SHOWN:
        more = len(notes) - _NOTES_SHOWN
        warnings.warn(f"{path}: {more} more corrections like these", stacklevel=3)


def claimed_id(entry: Any) -> int | str | None:
    """Return the id that an entry states, or None if that cannot be an id."""
    value = entry.get("id") if isinstance(entry, Mapping) else None
    return value if is_whole(value) or isinstance(value, str) else None
