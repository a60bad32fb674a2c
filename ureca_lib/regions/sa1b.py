"""SA-1B JSON, read and written: one file an image, masks as RLE (Kirillov et al. 2023)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ureca_lib.regions.errors import FileMissingError, RegionError
from ureca_lib.regions.parsing import (
    build_entries,
    check_fits,
    get,
    image_size,
    need_object,
    read_json,
)
from ureca_lib.regions.photo import PHOTO_SUFFIXES, Photo
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
    document = read_json(path)
    try:
        info = get(document, "image", Mapping)
        annotations = get(document, "annotations", list)
        width, height = image_size(info, max_pixels)
    except RegionError as error:
        raise error.located(path) from None
    regions, left_out = build_entries(
        annotations,
        lambda annotation: _region(annotation, height, width, max_pixels),
        lambda region: region.id,
        path,
        strict,
    )
    file_name = info.get("file_name")
    file_name = file_name if isinstance(file_name, str) else None
    given = isinstance(image, (str, Path))
    photo = Path(image) if given else image if image is not None else _beside(path, file_name)
    if given and not Path(photo).is_file():
        raise FileMissingError("the photo does not exist", photo)
    image_id = info.get("image_id")
    result = RegionImage(regions, width, height, photo, image_id, file_name, path, left_out)
    if given:
        _ = result.image  # a photo that was asked for must be readable and of the right size
    return result


def save_sa1b(regions: RegionImage, json_path: str | Path, file_name: str | None = None) -> None:
    """Write SA-1B JSON that `load_sa1b`, and other tools for SA-1B, read.

    Names, which SA-1B does not have, go into a key `name`. The file is replaced as a whole, so
    that a stop in between leaves the old one.

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
    annotations = [_to_sa1b(region) for region in regions]
    lines = ",\n".join(json.dumps(annotation) for annotation in annotations)
    text = f'{{"image": {json.dumps(image)},\n"annotations": [\n{lines}\n]}}\n'
    path = Path(json_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _to_sa1b(region: Region) -> dict[str, Any]:
    counts = region.rle["counts"].decode("ascii")
    row: dict[str, Any] = {"id": region.id}
    if region.name is not None:
        row["name"] = region.name
    row |= {"area": region.area, "bbox": list(region.bbox)}
    return row | {"segmentation": {"size": list(region.size), "counts": counts}}


def _region(annotation: Any, height: int, width: int, max_pixels: int) -> Region:
    need_object(annotation)
    region_id = get(annotation, "id", (int, str))
    rle = get(annotation, "segmentation", Mapping)
    optional = (annotation.get(key) for key in ("bbox", "area", "name"))
    region = Region(region_id, rle, *optional, max_pixels=max_pixels)
    check_fits(region, height, width)
    return region


def _beside(json_path: Path, file_name: str | None) -> Path | None:
    """The photo in the JSON's folder: the one it names, else one with its stem."""
    names = [] if file_name is None else [Path(file_name).name]
    names += [json_path.stem + suffix for suffix in PHOTO_SUFFIXES]
    found = (json_path.parent / name for name in names if name)
    return next((photo for photo in found if photo.is_file()), None)
