"""COCO instance JSON: many images per file; polygons, RLE, crowd regions."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.formats import item_of, read_document
from ureca_lib.regions.photo import Photo, find_photo, is_turned, split_name
from ureca_lib.regions.region import Region, RegionImage
from ureca_lib.regions.rle import check_box, extent, split_rings
from ureca_lib.regions.sa1b import (
    IdIndex,
    build_entries,
    get,
    image_size,
    need_object,
    optional,
    region_from,
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
) -> list[RegionImage]:
    """Read COCO instance JSON: polygons, compressed and uncompressed RLE, crowd regions.

    A region's name is its category's. The stated area of a polygon is the polygon's, not that of
    its pixels, so it is not compared. That of an RLE is compared, and a difference is a warning.

    Args:
        json_path: the annotation file.
        image_dir: the folder of the photos; None is the JSON's own folder.
        strict: as in `load_sa1b`. An annotation that was left out is listed with its
            image; one that belongs to no image of the file, with every image.

    Returns:
        One `RegionImage` for each image of the file, in file order; photos are read when needed.

    Raises:
        RegionError: as in `load_sa1b`.
    """
    path = Path(json_path)
    folder = path.parent if image_dir is None else Path(image_dir)
    if not folder.is_dir():
        raise FileMissingError("the folder of the photos does not exist", folder)
    file = CocoFile(path, read_document(path))
    return [
        file.regions_of(image_id, find_photo(folder, entry.file_name), strict)
        for image_id, entry in file.images.items()
    ]


class CocoFile:
    """A COCO file: its images by id, names of its categories, and annotations not checked yet.

    Args:
        path: of the file.
        document: its content.
    """

    def __init__(self, path: Path, document: Any):
        self.path = path
        try:
            self.images: dict[ImageId, _ImageEntry] = {}
            for index, info in enumerate(get(document, "images", list)):
                with item_of(f"image {_label(index, info)}", path):
                    size = image_size(info)
                    image_id = get(info, "id", (int, str))
                    if image_id in self.images:
                        raise AnnotationFormatError("an image before it has this id")
                    self.images[image_id] = _ImageEntry(*size, optional(info, "file_name", str))
            self.categories: dict[ImageId, str] = {}
            for index, info in enumerate(optional(document, "categories", list) or []):
                with item_of(f"category {_label(index, info)}", path):
                    need_object(info)
                    category_id = get(info, "id", (int, str))
                    self.categories[category_id] = str(get(info, "name", (int, str)))
            annotations = get(document, "annotations", list)
        except RegionError as error:
            raise error.located(path) from None
        self.steps = {
            key: _steps(entry.file_name or str(key)) for key, entry in self.images.items()
        }
        # by the last part of the name: as it is, and as a copy may have it
        self._by_name: dict[Callable[[str], str], dict[str, list[ImageId]]] = {}
        for form in (str, _loose):
            known = self._by_name[form] = defaultdict(list)
            for key, steps in self.steps.items():
                if steps:
                    known[form(steps[-1])].append(key)
        self._image_ids, self._category_ids = IdIndex(self.images), IdIndex(self.categories)
        # (place in the file, annotation) by image; None for those of no image, or of several
        self._owned: dict[ImageId | None, list[tuple[int, Any]]] = {None: []}
        for index, annotation in enumerate(annotations):
            owners = self._owners(annotation)
            owner = owners[0] if len(owners) == 1 else None
            self._owned.setdefault(owner, []).append((index, annotation))

    def named(self, photo: str | Path) -> list[ImageId]:
        """Images that a photo's path may mean: those of its name whose folders agree best.

        A copy of a photo may differ in case, as from a camera's card, or be percent-encoded.
        """
        wanted = _steps(str(photo))
        for form, known in self._by_name.items():
            depths = {}
            for key in known.get(form(wanted[-1]), ()) if wanted else ():
                own = [form(step) for step in self.steps[key]]
                agree = own == [form(step) for step in wanted][-len(own) :]
                depths[key] = len(own) if agree else 0
            if depths:
                return [key for key, depth in depths.items() if depth == max(depths.values())]
        return []

    def choose(self, photo: str | Path | None) -> ImageId:
        """The image of a photo; without one, or of another name, the only image of the file.

        Raises:
            AnnotationFormatError: there is no such image, or there are several.
        """
        stem = self.path.stem
        named = (
            [key for key, steps in self.steps.items() if Path(steps[-1]).stem == stem]
            if photo is None
            else self.named(photo)
        )
        chosen = named or list(self.images)
        if len(chosen) == 1:
            return chosen[0]
        reason = f"the file holds {len(self.images)} images; give the path of the photo meant"
        if named:
            reason = f"{len(named)} of the file's images are called '{Path(photo).name}'"
        elif photo is not None:
            reason = f"none of the file's {len(chosen)} images is called '{Path(photo).name}'"
            there = [steps[-1] for steps in self.steps.values() if steps]
            if near := get_close_matches(Path(photo).name, there):
                reason += f"; the nearest: {', '.join(near)}"
        raise AnnotationFormatError(reason, self.path)

    def regions(
        self, photo: Photo | None, name: str | None, strict: bool, boxes: bool
    ) -> RegionImage:
        """Build one image of the file; the masks of the others are ignored.

        Args:
            photo: the photo; None for the one beside the file. The name of its path selects the
                image. If the file has one image only, it may be another, which is a warning.
            name: selects the image instead of the photo's.
            strict, boxes: see `regions_of`.
        """
        own = name or (os.path.abspath(photo) if isinstance(photo, (str, Path)) else None)
        image_id = self.choose(own)
        stated = self.images[image_id].file_name
        if photo is None:
            stem = self.path.stem if len(self.images) == 1 else None
            photo = find_photo(self.path.parent, stated, stem)
            own = own or (photo and str(photo))
        found = bool(own) and image_id in self.named(own)
        if own and stated and not found:
            warnings.warn(
                f"{self.path}: the masks are of '{stated}', the only image of the file; they are "
                f"used for '{Path(own).name}'",
                stacklevel=4,
            )
        return self.regions_of(image_id, photo, strict, found, boxes)

    def regions_of(
        self,
        image_id: ImageId,
        photo: Photo | None,
        strict: bool,
        only_own: bool = False,
        boxes: bool = False,
    ) -> RegionImage:
        """Build an image with its regions.

        Args:
            only_own: ignore annotations that belong to no image of the file.
            boxes: read a box as a region where there is no mask.
        """
        own = self._owned.get(image_id, [])
        width, height, name = self._turned(self.images[image_id], photo, own)
        others = [
            pair for pair in self._owned[None] if not only_own or image_id in self._owners(pair[1])
        ]

        def build(annotation: Any, note: Callable[[str], None]) -> Region:
            need_object(annotation)
            stated = get(annotation, "image_id", (int, str))
            if self._image_ids.find(stated) is None:
                raise AnnotationFormatError(f"no image of the file has the id {stated}")
            category = optional(annotation, "category_id", (int, str))
            found = None if category is None else self._category_ids.find(category)
            label = self.categories.get(found)
            if not annotation.get("segmentation") and annotation.get("bbox"):
                if not boxes:
                    raise EmptyMaskError("it has a box and no mask; boxes are read when asked for")
                x, y, w, h = check_box(annotation["bbox"])
                corners = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotation = {**annotation, "segmentation": [corners], "area": None}
            return region_from(annotation, (height, width), label, note)

        entries = sorted(own + others, key=lambda pair: pair[0])
        regions, left_out = build_entries(entries, build, self.path, strict)
        return RegionImage(regions, width, height, photo, image_id, name, self.path, left_out)

    def _owners(self, annotation: Any) -> list[ImageId]:
        """Return the images that an annotation may belong to; none if it states no id of them."""
        try:
            need_object(annotation)
            return self._image_ids.fitting(get(annotation, "image_id", (int, str)))
        except RegionError:
            return []

    def _turned(
        self, entry: _ImageEntry, photo: Photo | None, annotations: list[tuple[int, Any]]
    ) -> _ImageEntry:
        """Return the entry with the size that its polygons were drawn on.

        Label Studio exports the stored size of a photo that EXIF turns, and polygons as they were
        drawn on the upright photo. Read by the stated size, every mask would cover wrong pixels.

        Raises:
            SizeMismatchError: the photo is turned, and polygons leave both sizes.
        """
        width, height, name = entry
        outlines = [annotation.get("segmentation") for _, annotation in annotations]
        rings = [ring for one in outlines if isinstance(one, list) for ring in split_rings(one)]
        right, bottom = extent(rings)
        leave = right > width + 1 or bottom > height + 1
        if not leave or photo is None or not is_turned(photo, (height, width)):
            return entry
        if right > height + 1 or bottom > width + 1:
            raise SizeMismatchError(
                f"image {name}: the polygons reach ({right:g}, {bottom:g}), outside of the stated "
                f"{width} x {height} and of the {height} x {width} of the photo as EXIF turns it",
                self.path,
            )
        warnings.warn(
            f"{self.path}: image {name}: EXIF turns the photo, and the polygons fit the turned "
            f"size, {height} x {width}, not the stated {width} x {height}: they are read on the "
            "turned photo",
            stacklevel=2,
        )
        return _ImageEntry(height, width, name)


def _steps(file_name: str | None) -> list[str]:
    return [step for step in split_name(file_name) if step != ".."]


def _loose(step: str) -> str:
    return unquote(step).casefold()


def _label(index: int, info: Any) -> Any:
    """The id of an image or a category for an error, else its place."""
    return info.get("id", f"number {index}") if isinstance(info, Mapping) else index
