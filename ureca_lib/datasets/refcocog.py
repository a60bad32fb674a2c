"""RefCOCOg: referring expressions for objects of COCO photos, in the layout of the refer API.

A folder holds, as `lichengunc/refer` publishes them:

- `refs(umd).p` (Nagaraja et al. 2016: images are split into train, val, test) and `refs(google).p`
  (Mao et al. 2016: objects are split, into train and val; an image may be in both, and there is
  no test part): pickles of a list of references. They are read as plain data only, see
  `ureca_lib.datasets.plain_pickle`; `refs(umd).json` with the same list is taken too.
- `instances.json`: COCO's images, annotations (polygons or RLE) and categories.

Photos are those of COCO's train2014, by the names in `instances.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from ureca_lib.datasets.captioned import CaptionedError
from ureca_lib.datasets.described import (
    DescribedImage,
    DescribedImages,
    DescribedRegion,
    RegionSet,
    chosen,
    opened_as,
)
from ureca_lib.datasets.json_stream import stream_json
from ureca_lib.datasets.refer_files import (
    Expression,
    Partition,
    Reference,
    read_references,
    reference_file,
)
from ureca_lib.regions import (
    AnnotationFormatError,
    FileMissingError,
    MissingKeyError,
    RegionError,
)
from ureca_lib.regions.parsing import get, image_size
from ureca_lib.regions.photo import find_photo
from ureca_lib.regions.rle import MAX_PIXELS

TextKind = Literal["sent", "raw"]
TEXTS: tuple[TextKind, ...] = ("sent", "raw")
# where photos are looked for, seen from the folder of the annotations; the refer API's place too
_PHOTOS = (".", "images", "train2014", "images/train2014", "../images/mscoco/images/train2014")
_PHOTOS += ("../train2014", "../images/train2014", "../photos")


def refcocog_captioned(
    folder: str | Path,
    partition: Partition = "umd",
    split: str = "val",
    images: str | Path | None = None,
    limit: int | None = None,
    text: TextKind = "sent",
    regions: RegionSet = "all",
    strict: bool = True,
) -> DescribedImages:
    """A split of RefCOCOg: for each object its mask and all expressions for it.

    References to the same object (annotation) are one region. In memory are the references of
    all splits while they are read (200 MB for 49,822 random ones) and the annotations of this one.

    Args:
        folder: of `refs(PARTITION).p` or `.json` and `instances.json`.
        partition: "umd" or "google".
        split: "train", "val", and for "umd" "test"; several as "train+val".
        images: folder of the photos; by default they are looked for in and beside `folder`.
        limit: only the first so many images.
        text: of an expression, "sent" or "raw".
        regions: only images with one region of the split ("single"), or with more ("multi").
        strict: False leaves references with faulty annotations out and lists them in `left_out`.

    Returns:
        Images named by their ids, regions by those of their annotations, in the order of the
        references.

    Raises:
        ValueError, CaptionedError: no such partition, text, or split, or one without references.
        RegionError: a file that is missing, truncated, or faulty, naming it and the id.
    """
    path = reference_file(folder, partition)
    if text not in TEXTS:
        raise ValueError(f"text must be one of {', '.join(TEXTS)}, not {text!r}")
    found = read_references(path)
    there = Counter(reference.split for reference in found)
    splits = split.split("+")
    if unknown := [name for name in splits if name not in there]:
        known = ", ".join(f"{name} ({count:,})" for name, count in there.items()) or "none"
        raise CaptionedError(f"{path}: there is no split {unknown[0]!r}; there are {known}")
    wanted = [reference for reference in found if reference.split in splits]
    instances = _Instances(Path(folder) / "instances.json", wanted, _photo_folders(folder, images))
    left_out: list[RegionError] = []
    described: dict[int, DescribedImage] = {}
    for reference in wanted:
        try:
            instances.add(reference, text, described)
        except RegionError as error:
            placed = error.located(path, f"of ref_id {reference.ref_id}")
            if strict:
                raise placed from None
            left_out.append(placed)
    picked = chosen(described.values(), regions, limit)
    name = f"refcocog:{partition}:{opened_as(split, regions, folder, images)}"
    return DescribedImages(picked, name, instances.path, strict, left_out)


def _photo_folders(folder: str | Path, images: str | Path | None) -> list[Path]:
    if images is None:
        return [Path(folder) / place for place in _PHOTOS]
    if not Path(images).is_dir():
        raise FileMissingError("the folder of the photos does not exist", images)
    return [Path(images)]


class _Instances:
    """What `instances.json` says about some references, and nothing else of it."""

    def __init__(self, path: Path, wanted: Iterable[Reference], folders: list[Path]):
        self.path, self.folders = path, folders
        image_ids = {reference.image_id for reference in wanted}
        ann_ids = {reference.ann_id for reference in wanted}
        self.images: dict[int, Mapping[str, Any]] = {}
        self.annotations: dict[int, Mapping[str, Any]] = {}
        self.categories: dict[int, str] = {}
        seen: set[str | None] = set()
        for key, item in stream_json(path):
            seen.add(key)
            stated = item.get("id") if isinstance(item, Mapping) else None
            if not isinstance(stated, int):
                continue
            if key == "images" and stated in image_ids:
                self.images[stated] = item
            elif key == "annotations" and stated in ann_ids:
                self.annotations[stated] = item
            elif key == "categories":
                self.categories[stated] = str(item.get("name", stated))
        if lacking := {"images", "annotations", "categories"} - seen:
            names = ", ".join(sorted(lacking))
            raise AnnotationFormatError(f"there are no {names}; is it instances.json?", path)

    def add(self, ref: Reference, text: TextKind, described: dict[int, DescribedImage]) -> None:
        """Put a reference's region, or its expressions if the region is there, into its image."""
        if ref.image_id not in self.images:
            raise AnnotationFormatError(f"{self.path.name} has no image {ref.image_id}")
        if ref.ann_id not in self.annotations:
            raise AnnotationFormatError(f"{self.path.name} has no annotation {ref.ann_id}")
        annotation = self.annotations[ref.ann_id]
        for key, value in (("image_id", ref.image_id), ("category_id", ref.category_id)):
            if (stated := get(annotation, key, int)) != value:
                raise AnnotationFormatError(
                    f"its {key} is {value}, but annotation {ref.ann_id} has {stated}: "
                    "the two files do not belong together"
                )
        texts = [self._text(one, text) for one in ref.expressions]
        segmentation = get(annotation, "segmentation", (list, Mapping))
        if ref.image_id not in described:
            described[ref.image_id] = self._described(ref.image_id)
        image = described[ref.image_id]
        for one in image.regions:
            if one.id == ref.ann_id:
                one.texts += texts
                return
        name = self.categories.get(ref.category_id)
        image.regions.append(DescribedRegion(ref.ann_id, texts, None, segmentation, name))

    def _described(self, image_id: int) -> DescribedImage:
        width, height = image_size(self.images[image_id], MAX_PIXELS)
        name = get(self.images[image_id], "file_name", str)
        photos = (find_photo(folder, name) for folder in self.folders)
        photo = next((photo for photo in photos if photo), None)
        return DescribedImage(str(image_id), width, height, name, photo)

    def _text(self, expression: Expression, kind: TextKind) -> str:
        if kind == "sent":
            return expression.sent
        if not expression.raw:
            raise MissingKeyError(f"sentence {expression.sent_id} has no 'raw'")
        return expression.raw
