"""COCO instance JSON: many images per file; polygons, RLE, crowd regions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    FileMissingError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.photo import Photo, find_photo, is_turned, split_name
from ureca_lib.regions.region import LeftOut, Region, RegionImage
from ureca_lib.regions.rle import MAX_PIXELS, extent, split_rings
from ureca_lib.regions.sa1b import (
    IdIndex,
    build_entries,
    get,
    image_size,
    is_crowd,
    need_object,
    optional,
    read_json,
    warn_of,
)

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
    its pixels, so it is not compared. That of an RLE is compared, and a difference is a warning.

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
    images, annotations, categories = _parts(path, max_pixels)
    return _built(path, folder, images, images, annotations, categories, strict, max_pixels)


def load_coco_image(
    json_path: str | Path, image: Photo | None = None, strict: bool = True
) -> RegionImage:
    """Read one image of a COCO file; the masks of the others are ignored.

    Args:
        json_path: the annotation file.
        image: the photo; None for the one beside the file. The name of its path selects the image
            of the file, and so do its folders if several images have that name. If the file has one
            image only, the name may be another, which is a warning.
        strict: as in `load_coco`.

    Raises:
        RegionError: as in `load_coco`; no such image, or several.
    """
    path = Path(json_path)
    images, annotations, categories = _parts(path, MAX_PIXELS)
    wanted = split_name(str(image)) if isinstance(image, (str, Path)) else []
    names = {image_id: split_name(entry.file_name) for image_id, entry in images.items()}
    named = [key for key, name in names.items() if wanted and name[-1:] == wanted[-1:]]
    if len(named) > 1:  # their folders distinguish photos of the same name
        depths = {k: len(names[k]) for k in named if names[k] == wanted[-len(names[k]) :]}
        named = [key for key in depths if depths[key] == max(depths.values())] or named
    chosen = named or list(images)
    if len(chosen) != 1:
        reason = f"the file holds {len(images)} images; give the path of the photo meant"
        if named:
            reason = f"{len(named)} of the file's images are called '{wanted[-1]}'"
        elif wanted:
            reason = f"none of the file's {len(images)} images is called '{wanted[-1]}'"
        raise AnnotationFormatError(reason, path)
    stated = images[chosen[0]].file_name
    if wanted and stated and not named:
        warnings.warn(
            f"{path}: the masks are of '{stated}', the only image of the file; they are used for "
            f"'{wanted[-1]}'",
            stacklevel=3,
        )
    parts = (images, chosen, annotations, categories)
    found = _built(path, path.parent, *parts, strict, MAX_PIXELS, image, bool(named))[0]
    if image is not None:
        _ = found.image  # a given photo must be readable and of the right size
    return found


def _built(
    path: Path,
    folder: Path,
    images: Mapping[ImageId, _ImageEntry],
    chosen: Iterable[ImageId],
    annotations: list[Any],
    categories: Mapping[ImageId, str],
    strict: bool,
    max_pixels: int,
    photo: Photo | None = None,
    only_theirs: bool = False,
) -> list[RegionImage]:
    """Build the chosen images with their regions.

    Args:
        photo: of the only image chosen; None looks in the folder.
        only_theirs: ignore the annotations of the other images, malformed ones too.
    """
    ids, category_ids, chosen = IdIndex(images), IdIndex(categories), list(chosen)
    photos = {
        image_id: find_photo(folder, images[image_id].file_name) if photo is None else photo
        for image_id in chosen
    }
    entries = {
        image_id: _turned(path, images[image_id], photos[image_id], polygons)
        for image_id, polygons in _polygons_of(annotations, ids, chosen).items()
    }
    notes: list[str] = []

    def build(annotation: Any) -> tuple[ImageId, Region]:
        need_object(annotation)
        stated = get(annotation, "image_id", (int, str))
        image_id = ids.find(stated)
        if image_id not in entries:
            raise AnnotationFormatError(f"no image of the file has the id {stated}")
        width, height, _ = entries[image_id]
        category = optional(annotation, "category_id", (int, str))
        name = None if category is None else categories.get(category_ids.find(category))
        return image_id, _region(annotation, height, width, name, max_pixels, notes.append)

    built, left_out = build_entries(
        annotations,
        build,
        lambda pair: (pair[0], pair[1].id),
        path,
        strict,
        lambda entry: not only_theirs or not _owners(entry, ids).isdisjoint(entries),
    )
    warn_of(notes, path)
    out = _by_image(left_out, annotations, ids, chosen)
    regions: dict[ImageId, list[Region]] = {image_id: [] for image_id in chosen}
    for image_id, region in built:
        regions[image_id].append(region)
    return [
        RegionImage(regions[key], w, h, photos[key], key, name, path, out[key])
        for key, (w, h, name) in entries.items()
    ]


def _polygons_of(
    annotations: list[Any], ids: IdIndex, chosen: Iterable[ImageId]
) -> dict[ImageId, list[Any]]:
    """List the rings of each chosen image's polygons, not checked yet."""
    rings: dict[ImageId, list[Any]] = {image_id: [] for image_id in chosen}
    for annotation in annotations:
        owners = _owners(annotation, ids)
        if len(owners) == 1 and owners <= rings.keys():
            segmentation = annotation.get("segmentation")
            rings[owners.pop()] += split_rings(segmentation) if type(segmentation) is list else []
    return rings


def _turned(
    path: Path, entry: _ImageEntry, photo: Photo | None, polygons: Iterable[Any]
) -> _ImageEntry:
    """Return the entry with the size that its polygons were drawn on.

    Label Studio exports the stored size of a photo that EXIF turns, and polygons as they were
    drawn on the upright photo. Read by the stated size, every mask would cover wrong pixels.

    Raises:
        SizeMismatchError: the photo is turned, and polygons leave both sizes.
    """
    width, height, name = entry
    right, bottom = extent(polygons)
    leave = right > width + 1 or bottom > height + 1
    if not leave or photo is None or not is_turned(photo, (height, width)):
        return entry
    if right > height + 1 or bottom > width + 1:
        raise SizeMismatchError(
            f"image {name}: the polygons reach ({right:g}, {bottom:g}), outside of the stated "
            f"{width} x {height} and of the {height} x {width} of the photo as EXIF turns it",
            path,
        )
    warnings.warn(
        f"{path}: image {name}: EXIF turns the photo, and the polygons fit the turned size, "
        f"{height} x {width}, not the stated {width} x {height}: they are read on the turned photo",
        stacklevel=2,
    )
    return _ImageEntry(height, width, name)


def _parts(
    path: Path, max_pixels: int
) -> tuple[dict[ImageId, _ImageEntry], list[Any], dict[ImageId, str]]:
    """Read the images by id, the annotations unchecked, and the names of the categories."""
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
                raise AnnotationFormatError("an image before it has this id")
            images[image_id] = _ImageEntry(*size, optional(info, "file_name", str))
        except RegionError as error:
            label = info.get("id", f"number {index}") if isinstance(info, Mapping) else index
            raise type(error)(f"image {label}: {error.reason}") from None
    return images


def _region(
    annotation: Mapping[str, Any],
    height: int,
    width: int,
    name: str | None,
    max_pixels: int,
    note: Callable[[str], None],
) -> Region:
    region_id = get(annotation, "id", (int, str))
    segmentation = get(annotation, "segmentation", (Mapping, list))
    bbox, crowd = annotation.get("bbox"), is_crowd(annotation)
    area = optional(annotation, "area", (int, float))
    if isinstance(segmentation, list):
        segmentation = Region.from_polygons(
            region_id, segmentation, height, width, max_pixels=max_pixels, note=note
        ).rle
        area = None
    region = Region(region_id, segmentation, bbox, area, name, crowd, max_pixels, note)
    region.check_size(height, width)
    return region


def _by_image(
    left_out: list[LeftOut], annotations: list[Any], ids: IdIndex, chosen: Iterable[ImageId]
) -> dict[ImageId, list[LeftOut]]:
    """Assign the annotations that were left out to their images; without one, to every image."""
    shares: dict[ImageId, list[LeftOut]] = {image_id: [] for image_id in chosen}
    for item in left_out:
        owners = _owners(annotations[item.index], ids)
        for image_id in owners if len(owners) == 1 and owners <= shares.keys() else shares:
            shares[image_id].append(item)
    return shares


def _owners(annotation: Any, ids: IdIndex) -> set[ImageId]:
    """Return the images that an annotation may belong to; none if it states no id of the file."""
    try:
        need_object(annotation)
        return set(ids.fitting(get(annotation, "image_id", (int, str))))
    except RegionError:
        return set()


def _category_names(categories: list[Any]) -> dict[ImageId, str]:
    names: dict[ImageId, str] = {}
    for index, category in enumerate(categories):
        try:
            need_object(category)
            names[get(category, "id", (int, str))] = str(get(category, "name", (int, str)))
        except RegionError as error:
            raise type(error)(f"category number {index}: {error.reason}") from None
    return names
