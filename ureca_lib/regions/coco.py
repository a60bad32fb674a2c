"""COCO instance JSON: many images a file; polygons, RLE, crowd regions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    DuplicateIdError,
    FileMissingError,
    RegionError,
)
from ureca_lib.regions.parsing import (
    build_entries,
    check_fits,
    get,
    image_size,
    is_crowd,
    need_object,
    optional,
    read_json,
)
from ureca_lib.regions.photo import find_photo
from ureca_lib.regions.region import LeftOut, Region, RegionImage
from ureca_lib.regions.rle import MAX_PIXELS

ImageId = int | str


class _ImageEntry(NamedTuple):
    width: int
    height: int
    file_name: str | None


def load_coco(
    json_path: str | Path,
    image_dir: str | Path | None = None,
    strict: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> list[RegionImage]:
    """Read COCO instance JSON: polygons, compressed and uncompressed RLE, crowd regions.

    A region's name is its category's. The stated area of a polygon is the polygon's, not that of
    its pixels, so it is not compared; that of an RLE is.

    Args:
        json_path: the annotation file.
        image_dir: the folder of the photos; None is the JSON's own folder.
        strict, max_pixels: as in `load_sa1b`. An annotation that was left out is listed with its
            image; one that belongs to no image of the file, with every image.

    Returns:
        One `RegionImage` for each image of the file, in file order; photos are read when needed.

    Raises:
        RegionError: as in `load_sa1b`.
    """
    path = Path(json_path)
    folder = path.parent if image_dir is None else Path(image_dir)
    if image_dir is not None and not folder.is_dir():
        raise FileMissingError("the folder of the photos does not exist", folder)
    return _built(path, folder, *_parts(path, max_pixels), strict, max_pixels)


def load_coco_image(
    json_path: str | Path, file_name: str | None = None, strict: bool = True
) -> RegionImage:
    """Read one image of a COCO file; the masks of the others are not looked at.

    Args:
        json_path: the annotation file; the photo is looked for beside it.
        file_name: the image's, without folders; may be left out, or be another, where the file
            has one image only.
        strict: as in `load_coco`.

    Raises:
        RegionError: as in `load_coco`; no such image, or several.
    """
    path = Path(json_path)
    images, annotations, categories = _parts(path, MAX_PIXELS)
    named = {
        image_id: entry
        for image_id, entry in images.items()
        if file_name and re.split(r"[\\/]", entry.file_name or "")[-1] == file_name
    }
    chosen = named or images
    if len(chosen) != 1:
        reason = f"the file holds {len(images)} images; give the path of the photo meant"
        if named:
            reason = f"{len(named)} of the file's images are called '{file_name}'"
        elif file_name:
            reason = f"none of the file's {len(images)} images is called '{file_name}'"
        raise AnnotationFormatError(reason, path)
    parts = (chosen, annotations, categories)
    return _built(path, path.parent, *parts, strict, MAX_PIXELS, only_theirs=bool(named))[0]


def _built(
    path: Path,
    folder: Path,
    images: Mapping[ImageId, _ImageEntry],
    annotations: list[Any],
    categories: Mapping[int, str],
    strict: bool,
    max_pixels: int,
    only_theirs: bool = False,
) -> list[RegionImage]:
    """The images with their regions; `only_theirs` passes over annotations of other images."""
    built, left_out = build_entries(
        annotations,
        lambda annotation: _build(annotation, images, categories, max_pixels),
        lambda pair: (pair[0], pair[1].id),
        path,
        strict,
        lambda annotation: not only_theirs or _stated_image(annotation) in images,
    )
    out = _by_image(left_out, annotations, images)
    regions: dict[ImageId, list[Region]] = {image_id: [] for image_id in images}
    for image_id, region in built:
        regions[image_id].append(region)
    return [
        RegionImage(regions[key], w, h, find_photo(folder, name), key, name, path, out[key])
        for key, (w, h, name) in images.items()
    ]


def _parts(
    path: Path, max_pixels: int
) -> tuple[dict[ImageId, _ImageEntry], list[Any], dict[int, str]]:
    """The images by id, the annotations as they are, and the names of the categories."""
    document = read_json(path)
    try:
        images = _image_entries(get(document, "images", list), max_pixels)
        annotations = get(document, "annotations", list)
        categories = _category_names(optional(document, "categories", list) or [])
    except RegionError as error:
        raise error.located(path) from None
    return images, annotations, categories


def _image_entries(entries: list[Any], max_pixels: int) -> dict[ImageId, _ImageEntry]:
    images: dict[ImageId, _ImageEntry] = {}
    for index, info in enumerate(entries):
        try:
            size = image_size(info, max_pixels)
            image_id = get(info, "id", (int, str))
            if image_id in images:
                raise DuplicateIdError("an image before it has this id")
            images[image_id] = _ImageEntry(*size, optional(info, "file_name", str))
        except RegionError as error:
            label = info.get("id", f"number {index}") if isinstance(info, Mapping) else index
            raise type(error)(f"image {label}: {error.reason}") from None
    return images


def _build(
    annotation: Any,
    images: Mapping[ImageId, _ImageEntry],
    categories: Mapping[int, str],
    max_pixels: int,
) -> tuple[ImageId, Region]:
    need_object(annotation)
    image_id = get(annotation, "image_id", (int, str))
    if image_id not in images:
        raise AnnotationFormatError(f"no image of the file has the id {image_id}")
    width, height, _ = images[image_id]
    return image_id, _region(annotation, height, width, categories, max_pixels)


def _region(
    annotation: Mapping[str, Any],
    height: int,
    width: int,
    categories: Mapping[int, str],
    max_pixels: int,
) -> Region:
    region_id = get(annotation, "id", (int, str))
    segmentation = get(annotation, "segmentation", (Mapping, list))
    name = categories.get(optional(annotation, "category_id", int))
    bbox, crowd = annotation.get("bbox"), is_crowd(annotation)
    area = optional(annotation, "area", (int, float))
    if isinstance(segmentation, list):
        drawn = Region.from_polygons(region_id, segmentation, height, width, max_pixels=max_pixels)
        return Region(region_id, drawn.rle, bbox, None, name, crowd, max_pixels)
    region = Region(region_id, segmentation, bbox, area, name, crowd, max_pixels)
    check_fits(region, height, width)
    return region


def _by_image(
    left_out: list[LeftOut], annotations: list[Any], images: Mapping[ImageId, _ImageEntry]
) -> dict[ImageId, list[LeftOut]]:
    """Each image's share of what was left out, in file order."""
    shares: dict[ImageId, list[LeftOut]] = {image_id: [] for image_id in images}
    for item in left_out:
        stated = _stated_image(annotations[item.index])
        for image_id in [stated] if stated in shares else shares:
            shares[image_id].append(item)
    return shares


def _stated_image(annotation: Any) -> ImageId | None:
    stated = annotation.get("image_id") if isinstance(annotation, Mapping) else None
    return stated if isinstance(stated, (int, str)) else None


def _category_names(categories: list[Any]) -> dict[int, str]:
    names = {}
    for index, category in enumerate(categories):
        try:
            need_object(category)
            names[get(category, "id", int)] = get(category, "name", str)
        except RegionError as error:
            raise type(error)(f"category number {index}: {error.reason}") from None
    return names
