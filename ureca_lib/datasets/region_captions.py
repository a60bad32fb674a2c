"""Boxes with captions in a COCO-like file, and what their readers share.

GRiT (Wu et al. 2022) publishes Visual Genome's `train.json` and `test.json` so, and others after it
their subsets and RefCOCOg's expressions: images with `id`, `file_name`, `width`, `height`, and
annotations with `id`, `image_id`, `bbox` and `caption`. Where each region has an image entry of its
own, entries of the same file are taken as one image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ureca_lib.datasets.described import DescribedImage, DescribedRegion, check_box
from ureca_lib.datasets.json_stream import stream_json
from ureca_lib.regions import (
    AnnotationFormatError,
    DuplicateIdError,
    EmptyMaskError,
    FileMissingError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.parsing import get, image_size, need_object
from ureca_lib.regions.photo import find_photo
from ureca_lib.regions.rle import MAX_PIXELS

# where photos are looked for, seen from the folder of the annotations
_PHOTOS = (".", "images", "../images", "../photos", "../../photos")


class Notes:
    """What is left out. By the protocol always; what is malformed only where not strict."""

    def __init__(self, strict: bool):
        self.strict = strict
        self.left_out: list[RegionError] = []

    def malformed(self, error: RegionError) -> None:
        if self.strict:
            raise error
        self.left_out.append(error)


class LeftOutError(RegionError):
    """A region that the protocol leaves out."""


def add_region(
    image: DescribedImage,
    item: Any,
    path: Path,
    notes: Notes,
    build: Callable[[Any], DescribedRegion],
) -> None:
    """Put a region into its image, or a note of why it is left out."""
    try:
        region = build(item)
        if not region.texts[0]:
            raise LeftOutError("the phrase is empty")
        if any(other.id == region.id for other in image.regions):
            raise DuplicateIdError(f"image {image.key} has this region twice")
        check_box(region.box, image.height, image.width)
        image.regions.append(region)
    except (LeftOutError, EmptyMaskError) as error:
        notes.left_out.append(error.located(path, stated_id(item)))
    except RegionError as error:
        notes.malformed(error.located(path, stated_id(item)))


def photo_finder(folder: Path, images: str | Path | None) -> Callable[[str], Path | None]:
    """Looks a photo up by its name, in `images` or in and beside the annotations' folder.

    Raises:
        FileMissingError: `images` is given and is no folder.
    """
    if images is not None and not Path(images).is_dir():
        raise FileMissingError("the folder of the photos does not exist", images)
    folders = [folder / place for place in _PHOTOS] if images is None else [Path(images)]
    folders += [each / part for each in folders for part in ("VG_100K", "VG_100K_2")]

    def find(name: str) -> Path | None:
        return next((photo for each in folders if (photo := find_photo(each, name))), None)

    return find


def coco_like(path: Path, find: Callable[[str], Path | None], notes: Notes) -> list[DescribedImage]:
    """The images of a file in file order, entries of the same photo as one.

    Args:
        path: the file.
        find: the photo of a file name, see `photo_finder`.
        notes: takes what is left out.

    Raises:
        RegionError: a file or an entry at fault.
    """
    images: dict[int, DescribedImage] = {}
    by_file: dict[str, DescribedImage] = {}
    captions: list[Mapping[str, Any]] = []
    for key, item in stream_json(path):
        try:
            if key == "images":
                _add_image(item, images, by_file, find)
            elif key == "annotations":
                need_object(item)
                get(item, "image_id", int)
                captions.append(item)
        except RegionError as error:
            notes.malformed(error.located(path, stated_id(item)))
    if not images:
        raise AnnotationFormatError("there are no images with captions", path)
    for item in captions:
        if item["image_id"] in images:
            add_region(images[item["image_id"]], item, path, notes, _coco_region)
        else:
            what = f"there is no image {item['image_id']}"
            notes.malformed(AnnotationFormatError(what, path, stated_id(item)))
    return list(by_file.values())


def _add_image(
    item: Any,
    images: dict[int, DescribedImage],
    by_file: dict[str, DescribedImage],
    find: Callable[[str], Path | None],
) -> None:
    width, height = image_size(item, MAX_PIXELS)
    image_id, name = get(item, "id", int), get(item, "file_name", str)
    if image_id in images and images[image_id].file_name != name:
        raise DuplicateIdError(f"an image before it, {images[image_id].file_name}, has this id")
    if name not in by_file:
        by_file[name] = DescribedImage(str(image_id), width, height, name, find(name))
    image = by_file[name]
    if (image.width, image.height) != (width, height):
        raise SizeMismatchError(
            f"{name} is {width} x {height} here and {image.width} x {image.height} before"
        )
    images[image_id] = image


def _coco_region(item: Mapping[str, Any]) -> DescribedRegion:
    caption = get(item, "caption", str).strip()
    return DescribedRegion(get(item, "id", int), [caption], get(item, "bbox", list))


def stated_id(item: Any) -> int | None:
    """The id that an entry states, for errors."""
    if not isinstance(item, Mapping):
        return None
    value = item.get("region_id", item.get("id"))
    return value if isinstance(value, int) else None
