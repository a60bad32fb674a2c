"""SA-1B JSON, read and written: one file an image, masks as RLE (Kirillov et al. 2023)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ureca_lib.journal import write_text
from ureca_lib.regions.errors import RegionError
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
from ureca_lib.regions.photo import Photo, find_photo
from ureca_lib.regions.region import Region, RegionImage
from ureca_lib.regions.rle import MAX_PIXELS


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
        RegionError: of the kind that says what is wrong, naming the file and the region's id. A
            photo that was given is read at once; one found beside the JSON when it is needed.
    """
    path = Path(json_path)
    head, annotations = _head_and_annotations(path, max_pixels)
    regions, left_out = build_entries(
        annotations,
        lambda annotation: _region(annotation, head["height"], head["width"], max_pixels),
        lambda region: region.id,
        path,
        strict,
    )
    photo = find_photo(path.parent, head["file_name"], path.stem) if image is None else image
    result = RegionImage(regions, photo=photo, path=path, left_out=left_out, **head)
    if image is not None:
        _ = result.image  # a photo that was asked for must be readable and of the right size
    return result


def _head_and_annotations(path: Path, max_pixels: int) -> tuple[dict[str, Any], list[Any]]:
    """What the file says of the image, under `RegionImage`'s names, and its annotations."""
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
    """Write SA-1B JSON that `load_sa1b`, and other tools for SA-1B, read.

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
    """The SA-1B annotation of a region: plain data that JSON can hold."""
    counts = region.rle["counts"].decode("ascii")
    row: dict[str, Any] = {"id": region.id}
    if region.name is not None:
        row["name"] = region.name
    if region.crowd:
        row["iscrowd"] = 1
    row |= {"area": region.area, "bbox": list(region.bbox)}
    return row | {"segmentation": {"size": list(region.size), "counts": counts}}


def region_from(annotation: Any, max_pixels: int = MAX_PIXELS) -> Region:
    """The region of an SA-1B annotation.

    Raises:
        RegionError: as in `load_sa1b`, naming the region's id.
    """
    need_object(annotation)
    region_id = get(annotation, "id", (int, str))
    rle = get(annotation, "segmentation", Mapping)
    stated = (annotation.get(key) for key in ("bbox", "area", "name"))
    return Region(region_id, rle, *stated, is_crowd(annotation), max_pixels)


def _region(annotation: Any, height: int, width: int, max_pixels: int) -> Region:
    region = region_from(annotation, max_pixels)
    check_fits(region, height, width)
    return region
