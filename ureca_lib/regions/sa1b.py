"""SA-1B JSON, read and written: one file per image, masks as RLE (Kirillov et al. 2023).

The checked access to JSON that the COCO reader and the data sets share is here too.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ureca_lib.journal import write_text
from ureca_lib.regions.errors import (
    AnnotationFormatError,
    FileMissingError,
    RegionError,
)
from ureca_lib.regions.photo import Photo, find_photo
from ureca_lib.regions.region import LeftOut, Region, RegionImage
from ureca_lib.regions.rle import check_size, is_whole

_NOTES_SHOWN = 5


def load_sa1b(
    json_path: str | Path,
    image: Photo | None = None,
    strict: bool = True,
) -> RegionImage:
    """Read the masks of one image from SA-1B JSON (Kirillov et al. 2023).

    Needed keys: the image's `width` and `height`; each annotation's `id` and `segmentation`.

    Args:
        json_path: the annotation file.
        image: the photo; None takes the file beside the JSON that it names, or that has its
            stem, and does without where there is none.
        strict: False keeps the good annotations and lists the others in `.left_out`.

    Returns:
        The image with its regions in file order.

    Raises:
        RegionError: naming the file, the region's id and the fault. A given photo is read at once,
            a photo beside the JSON when it is needed.
    """
    path = Path(json_path)
    result = sa1b_regions(read_json(path), path, image, strict)
    if image is not None:
        _ = result.image  # a photo that was asked for must be readable and of the right size
    return result


def sa1b_regions(
    document: Mapping[str, Any], path: Path, image: Photo | None, strict: bool
) -> RegionImage:
    """Build the image of an SA-1B document; see `load_sa1b`. No photo is read."""
    try:
        info = get(document, "image", Mapping)
        annotations = get(document, "annotations", list)
        width, height = image_size(info)
        file_name = optional(info, "file_name", str)
        image_id = optional(info, "image_id", (int, str))
    except RegionError as error:
        raise error.located(path) from None
    build = partial(region_from, size=(height, width))
    regions, left_out = build_entries(enumerate(annotations), build, path, strict)
    photo = find_photo(path.parent, file_name, path.stem) if image is None else image
    return RegionImage(regions, width, height, photo, image_id, file_name, path, left_out)


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
    size: tuple[int, int] | None = None,
    name: str | None = None,
    note: Callable[[str], None] = warnings.warn,
) -> Region:
    """Build the region of an SA-1B or COCO annotation; `note` as in `Region`.

    Args:
        annotation: `id` and `segmentation` (RLE, or with `size` polygons), perhaps `bbox`, `area`,
            `name` and `iscrowd`.
        size: (H, W) of the image, which the mask must have.
        name: used instead of the annotation's.

    Raises:
        RegionError: as in `load_sa1b`, naming the region's id.
    """
    need_object(annotation)
    region_id = get(annotation, "id", (int, str))
    segmentation = get(annotation, "segmentation", Mapping if size is None else (Mapping, list))
    crowd, caption = annotation.get("iscrowd"), annotation.get("caption")
    if crowd not in (None, 0, 1):
        raise AnnotationFormatError(f"'iscrowd' is 0 or 1, not {reprlib.repr(crowd)}")
    fields = {
        "bbox": annotation.get("bbox"),
        "name": annotation.get("name") if name is None else name,
        "crowd": crowd,
        "note": note,
        "caption": caption if isinstance(caption, str) else None,
    }
    if isinstance(segmentation, list):
        # a stated area is the polygon's, not that of its pixels
        return Region.from_polygons(region_id, segmentation, *size, **fields)
    region = Region(region_id, segmentation, area=annotation.get("area"), **fields)
    if size is not None:
        region.check_size(*size)
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
        for name in names:
            path = place / name
            beside = f"{Path(path.stem).stem}.jsonl" if "." in path.stem else None
            if path.suffix == ".json" and name[0] != "." and beside not in names:
                found.append(path)
    return sorted(found)


def parse_file(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileMissingError("the annotation file does not exist", path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationFormatError(
            f"the file is truncated or is not JSON ({error})", path
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    document = parse_file(path)
    if not isinstance(document, dict):
        kind = type(document).__name__
        raise AnnotationFormatError(f"the file holds a {kind}, not an object", path)
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
        self._by_number: dict[int | str, list[int | str]] = {}
        for one in self._ids:
            self._by_number.setdefault(_as_number(one), []).append(one)

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


def _as_number(value: int | str) -> int | str:
    digits = isinstance(value, str) and re.fullmatch(r"[0-9]{1,40}", value)
    return int(value) if digits else value


def optional(holder: Mapping[str, Any], key: str, kinds: type | tuple[type, ...]) -> Any:
    """`get`, or None where the key is missing or null."""
    return None if holder.get(key) is None else get(holder, key, kinds)


def need_object(value: Any) -> None:
    """Raise unless the value is a JSON object."""
    if not isinstance(value, Mapping):
        raise AnnotationFormatError(f"the entry is {type(value).__name__}, not an object")


def image_size(info: Any) -> tuple[int, int]:
    """(width, height) in pixels of an image entry."""
    need_object(info)
    width, height = get(info, "width", int), get(info, "height", int)
    check_size(height, width)
    return width, height


def build_entries(
    entries: Iterable[tuple[int, Any]],
    build: Callable[..., Region],
    path: Path | None,
    strict: bool,
) -> tuple[list[Region], list[LeftOut]]:
    """Build the regions of an image, and warn of corrections that were made.

    Args:
        entries: as parsed from the file, with their places in it.
        build: makes the region of an entry, or raises a `RegionError`; it is called with the entry
            and `note`, which takes a sentence about each correction.
        path: the file, for the errors.
        strict: True raises the first error; False lists them.

    Returns:
        The regions in order, and the entries that were left out.
    """
    good: dict[int | str, Region] = {}
    left_out: list[LeftOut] = []
    notes: list[str] = []
    for index, entry in entries:
        try:
            region = build(entry, note=notes.append)
            if region.id in good:
                raise AnnotationFormatError("a region before it in the same image has this id")
            good[region.id] = region
        except RegionError as error:
            stated = entry.get("id") if isinstance(entry, Mapping) else None
            region_id = stated if is_whole(stated) or isinstance(stated, str) else None
            placed = error.located(path, f"number {index}" if region_id is None else region_id)
            if strict:
                raise placed from None
            left_out.append(LeftOut(index, region_id, placed))
    if len(notes) > _NOTES_SHOWN:
        notes[_NOTES_SHOWN:] = [f"{len(notes) - _NOTES_SHOWN} more corrections like these"]
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=3)
    return list(good.values()), left_out
