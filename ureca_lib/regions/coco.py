"""COCO instance JSON: many images a file; polygons, RLE, crowd regions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ureca_lib.regions.errors import AnnotationFormatError, DuplicateIdError, RegionError
from ureca_lib.regions.parsing import (
    build_entries,
    check_fits,
    get,
    image_size,
    need_object,
    read_json,
)
from ureca_lib.regions.region import Region, RegionImage
from ureca_lib.regions.rle import MAX_PIXELS


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
        strict, max_pixels: as in `load_sa1b`.

    Returns:
        One `RegionImage` for each image of the file, in file order; photos are read when needed.

    Raises:
        RegionError: as in `load_sa1b`.
    """
    path = Path(json_path)
    document = read_json(path)
    try:
        images = get(document, "images", list)
        annotations = get(document, "annotations", list)
        categories = _category_names(document.get("categories", []))
        sizes = {_image_key(info): image_size(info, max_pixels) for info in images}
        if len(sizes) < len(images):
            raise DuplicateIdError("two images of the file have one id")
    except RegionError as error:
        raise error.located(path) from None

    def build(annotation: Any) -> tuple[Any, Region]:
        need_object(annotation)
        image_id = get(annotation, "image_id", (int, str))
        if image_id not in sizes:
            raise AnnotationFormatError(f"no image of the file has the id {image_id}")
        width, height = sizes[image_id]
        return image_id, _region(annotation, height, width, categories, max_pixels)

    built, left_out = build_entries(
        annotations, build, lambda pair: (pair[0], pair[1].id), path, strict
    )
    regions: dict[Any, list[Region]] = {key: [] for key in sizes}
    for image_id, region in built:
        regions[image_id].append(region)
    folder = path.parent if image_dir is None else Path(image_dir)
    result = []
    for info in images:
        key, name = info["id"], info.get("file_name")
        photo = folder / Path(name).name if isinstance(name, str) else None
        photo = photo if photo is not None and photo.is_file() else None
        out = [item for item in left_out if _states_image(annotations[item.index], key)]
        result.append(RegionImage(regions[key], *sizes[key], photo, key, name, path, out))
    return result


def _states_image(annotation: Any, image_id: int | str) -> bool:
    return isinstance(annotation, Mapping) and annotation.get("image_id") == image_id


def _image_key(info: Any) -> int | str:
    need_object(info)
    return get(info, "id", (int, str))


def _region(
    annotation: Mapping[str, Any],
    height: int,
    width: int,
    categories: Mapping[Any, str],
    max_pixels: int,
) -> Region:
    region_id = get(annotation, "id", (int, str))
    segmentation = get(annotation, "segmentation", (Mapping, list))
    name = categories.get(annotation.get("category_id"))
    crowd = bool(annotation.get("iscrowd", 0))
    bbox = annotation.get("bbox")
    if isinstance(segmentation, list):
        drawn = Region.from_polygons(region_id, segmentation, height, width)
        return Region(region_id, drawn.rle, bbox, None, name, crowd, max_pixels)
    area = annotation.get("area")
    region = Region(region_id, segmentation, bbox, area, name, crowd, max_pixels)
    check_fits(region, height, width)
    return region


def _category_names(categories: Any) -> dict[Any, str]:
    names = {}
    for category in categories if isinstance(categories, list) else []:
        need_object(category)
        names[get(category, "id", int)] = get(category, "name", str)
    return names
