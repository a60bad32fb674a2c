"""Region captions of other data sets: the protocol of Table 6, and what their readers share.

The paper (App. C) gives METEOR on RefCOCOg and Visual Genome for a model trained on URECA only, and
no more than that; Figure 5 mentions RefCOCOg's validation set. Everything else is a choice, and
decides the score. Each choice is listed with its source; for "ours", nobody else's score is
promised to be comparable.

| Matter | Here | Source |
| --- | --- | --- |
| metric | METEOR x 100, mean over regions, best reference of each | Table 6 |
| METEOR's implementation | nltk's by default, Java METEOR 1.5 with `meteor='java'` | the paper does not say; GLaMM's and All-Seeing's evaluation run pycocoevalcap (Java) |
| tokens | Penn Treebank's, in lower case and without punctuation, of captions and references | pycocoevalcap's evaluation, which those run |
| zero-shot | no sentence of either data set in training or in the prompt | App. C: 'without using the benchmarks' training sets' |
| RefCOCOg: split | val | Fig. 5: 'ground-truth annotation in the validation set'; GLaMM's evaluation too |
| RefCOCOg: partition | UMD, whose images are not shared between splits | the paper does not say; ours |
| RefCOCOg: region | the object's own mask (GLaMM's evaluation takes its box) | the paper does not say; ours |
| RefCOCOg: references | all expressions for the object, as `sent`: lower case, no punctuation | the refer API's own evaluation; files with an entry per expression score each alone, as `each_expression` does |
| Visual Genome: images | the 5,000 test images of DenseCap's split | the paper does not say; GRiT's test file, which others take, some a subset of it |
| Visual Genome: phrases | at most 15 words, symbols as words | GRiT's preparation; in lower case and without punctuation, as in DenseCap's |
| Visual Genome: region | the box as a mask, clipped to the image | the paper does not say; ours |
| prompt | the question of training, 'Describe this region in the image.' | the paper does not say; ours |
| decoding | greedy, at most 256 tokens | the paper does not say; ours |
| single and multi | Table 6 takes all regions; images with one and with several are scored apart besides | the paper does not say; ours |

`open_captioned` takes texts such as `refcocog:umd:val:FOLDER` and `visual_genome:test:FOLDER`. If
the photos are elsewhere, `@PHOTOS` follows. `val/single` or `val/multi` takes the images with one
region, or with several, in the split: with one, any true description is unique.
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from ureca_lib.datasets.captioned import (
    FINDERS,
    OPENERS,
    CaptionedError,
    CaptionedImage,
    CaptionedImages,
    OpenOptions,
)
from ureca_lib.datasets.rows import stream_items
from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    Region,
    RegionError,
    RegionImage,
    SizeMismatchError,
    rle,
)
from ureca_lib.regions.photo import find_photo
from ureca_lib.regions.sa1b import get, image_size, need_object, region_from

# least and most regions per image
REGION_SETS = {"": (1, math.inf), "all": (1, math.inf), "single": (1, 1), "multi": (2, math.inf)}
# folders of the photos, seen from the annotations, and their parts (Visual Genome's)
_PHOTOS = (".", "images", "train2014", "images/train2014", "../images/mscoco/images/train2014")
_PHOTOS += ("../train2014", "../images/train2014", "../images", "../photos", "../../photos")
_PARTS = ("", "VG_100K", "VG_100K_2")


def protocol_markdown() -> str:
    """Return the table of choices in the module's docstring."""
    return "\n".join(line for line in (__doc__ or "").splitlines() if line.startswith("|"))


@dataclass
class ListedRegion:
    """A region whose mask is built when its image is loaded.

    Attributes:
        id: unique in its image.
        texts: references.
        box: (x, y, width, height) in pixels; it is the region if there is no segmentation.
        segmentation: COCO polygons or RLE.
        name: its category, if the data set has any.
    """

    id: int | str
    texts: list[str]
    box: Sequence[float] | None = None
    segmentation: Any = None
    name: str | None = None

    def region(self, height: int, width: int) -> Region:
        """Build the region of an image of this size in pixels.

        Raises:
            RegionError: naming the id and the fault of the segmentation or the box.
        """
        if self.segmentation is None:
            return Region.from_mask(self.id, box_mask(self.box, height, width), self.name)
        annotation = {"id": self.id, "segmentation": self.segmentation}
        return region_from(annotation, (height, width), self.name)


@dataclass
class ListedImage:
    """An image of an annotation file; sizes in pixels, photo None if it is missing."""

    key: str
    width: int
    height: int
    file_name: str
    photo: Path | None
    path: Path
    regions: list[ListedRegion] = field(default_factory=list)

    def find(self, region_id: int | str) -> ListedRegion | None:
        """Return the region of an id, if it is in the list already."""
        return next((one for one in self.regions if one.id == region_id), None)

    def load(self) -> CaptionedImage:
        """Build the regions."""
        try:
            regions = [one.region(self.height, self.width) for one in self.regions]
            names = self.key, self.file_name, self.path
            found = RegionImage(regions, self.width, self.height, self.photo, *names)
        except RegionError as error:
            raise error.located(self.path) from None
        captions = {one.id: one.texts for one in self.regions if one.texts}
        return CaptionedImage(self.key, found, captions)


class Listing:
    """A data set that is being read: what its text names, and what is left out of it.

    By the protocol (a plain `RegionError`, or an empty mask) entries are left out always;
    malformed ones only if not strict.

    Args:
        parts: the text's parts between the scheme and the folder.
        folder: of the annotations, or their file.
        photos: folder of the photos; None looks beside the annotations.
        strict: False leaves malformed entries out.

    Raises:
        FileMissingError: there is no folder `photos`.
    """

    def __init__(self, parts: list[str], folder: Path, photos: str | None, strict: bool):
        self.parts, self.folder, self.strict = parts, folder, strict
        self.faults: dict[int, RegionError] = {}
        if photos is not None and not Path(photos).is_dir():
            raise FileMissingError("the folder of the photos does not exist", photos)
        root = folder if folder.is_dir() else folder.parent
        places = [root / place for place in _PHOTOS] if photos is None else [Path(photos)]
        self._places = [place / part for part, place in product(_PARTS, places)]

    @contextmanager
    def entry(self, path: Path, label: int | str | None) -> Iterator[None]:
        """Read an entry of a file, or leave it out; the label names it in errors."""
        try:
            yield
        except RegionError as error:
            placed = error.located(path, label)
            if self.strict and type(error) not in (RegionError, EmptyMaskError):
                raise placed from None
            self.faults[len(self.faults)] = placed

    def image(self, key: Any, size: tuple[int, int], file_name: str, path: Path) -> ListedImage:
        """Start an image of (width, height) pixels, and look for its photo."""
        found = (find_photo(place, file_name) for place in self._places)
        return ListedImage(str(key), *size, file_name, next(filter(None, found), None), path)

    def add(self, image: ListedImage, region: ListedRegion) -> None:
        """Add a region to its image, or raise the reason why it is left out."""
        if region.texts == [""]:
            raise RegionError("the phrase is empty")
        if image.find(region.id):
            raise AnnotationFormatError(f"image {image.key} has this region twice")
        if region.segmentation is None:
            check_box(region.box, image.height, image.width)
        elif not self.strict:  # only building the mask shows whether it is faulty
            region.region(image.height, image.width)
        image.regions.append(region)


Reader = Callable[[Listing], Iterable[ListedImage]]


def reads(*forms: str, find: Callable[[Path], Iterable[str]]) -> Callable[[Reader], Reader]:
    """Register the generator below as the reader of a data set.

    Args:
        forms: of the texts, such as `refcocog:PARTITION:SPLIT:FOLDER`.
        find: lists the texts that open what a folder holds.
    """

    def register(reader: Reader) -> Reader:
        for form in forms:
            OPENERS[form.partition(":")[0]] = partial(_open, reader, form)
        FINDERS.append(find)
        return reader

    return register


def _open(reader: Reader, form: str, text: str, options: OpenOptions) -> CaptionedImages:
    """Read the images of a text, no more than are needed, and none without regions."""
    *head, place = text.split(":", form.count(":"))
    if len(head) < form.count(":"):
        raise CaptionedError(f"{text!r}: a data set is opened as {form}")
    photos = None if options.masks is None else str(options.masks)
    if "@" in place and not Path(place).exists():
        place, _, named = place.rpartition("@")
        photos = photos or named
    split, _, regions = head[-1].partition("/")
    if regions not in REGION_SETS:
        raise CaptionedError(f"{text!r}: a split may have /single or /multi only")
    parts = [*head[:-1], split][1:]
    listing = Listing(parts, Path(place), photos, options.strict)
    least, most = REGION_SETS[regions]
    read = (image for image in reader(listing) if least <= len(image.regions) <= most)
    listed = list(islice(read, options.limit))
    images = {image.key: image for image in listed}

    def count() -> dict[str, int]:
        regions = [region for image in listed for region in image.regions]
        return {
            "regions": len(regions),
            "captions": sum(len(region.texts) for region in regions),
            "photos missing": sum(image.photo is None for image in listed),
        }

    name = ":".join([*head, place]) + ("" if photos is None else f"@{photos}")
    ids = [image.key for image in listed]
    return CaptionedImages(ids, lambda key: images[key].load(), name, listing.faults, count)


def check_split(path: Path, split: str, counts: Mapping[str, int]) -> None:
    """Raise a `CaptionedError` that lists the splits of a file unless `split` is among them."""
    if split not in counts:
        known = ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"
        raise CaptionedError(f"{path}: there is no split {split!r}; there are {known}")


def coco_images(
    listing: Listing, path: Path, read: Callable[[Mapping[str, Any]], ListedRegion]
) -> Iterable[ListedImage]:
    """Read a file of COCO's layout in file order, entries of one photo as one image.

    Args:
        listing: of the data set.
        path: the file, with `images` and `annotations`; streamed.
        read: makes the region of an annotation.
    """
    by_id: dict[int, ListedImage] = {}
    by_file: dict[str, ListedImage] = {}
    for item in stream_items(path, "images.item"):
        with listing.entry(path, stated_id(item)):
            size = image_size(item)
            image_id, name = get(item, "id", int), get(item, "file_name", str)
            if image_id in by_id and by_id[image_id].file_name != name:
                other = by_id[image_id].file_name
                raise AnnotationFormatError(f"an image before it, {other}, has this id")
            if name not in by_file:
                by_file[name] = listing.image(image_id, size, name, path)
            found = by_id[image_id] = by_file[name]
            if (found.width, found.height) != size:
                before = f"{found.width} x {found.height}"
                raise SizeMismatchError(f"{name} is {size[0]} x {size[1]} here and {before} before")
    for item in stream_items(path, "annotations.item"):
        with listing.entry(path, stated_id(item)):
            need_object(item)
            image_id = get(item, "image_id", int)
            if image_id not in by_id:
                raise AnnotationFormatError(f"there is no image {image_id}")
            listing.add(by_id[image_id], read(item))
    return by_file.values()


def stated_id(item: Any) -> int | None:
    """The id of an entry for errors, if it has one."""
    value = item.get("region_id", item.get("id")) if isinstance(item, Mapping) else None
    return value if isinstance(value, int) else None


def box_mask(box: Any, height: int, width: int) -> np.ndarray:
    """Fill a box, clipped to the image.

    A pixel belongs to a box that holds its center: with whole numbers, (x, y, w, h) has the columns
    x to x + w - 1 and the rows y to y + h - 1, counted from 0.

    Args:
        box: x, y, width and height in pixels.
        height, width: of the image.

    Returns:
        (height, width) bool.

    Raises:
        AnnotationFormatError: not four finite numbers.
        EmptyMaskError: no pixel of the image is inside.
    """
    left, top, right, bottom = check_box(box, height, width)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def check_box(box: Any, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the first column and row of `box_mask`, and those after its last; raise as it does."""
    x, y, columns, rows = rle.check_box(box)
    left, top = max(math.ceil(x - 0.5), 0), max(math.ceil(y - 0.5), 0)
    right = min(math.ceil(x + columns - 0.5), width)
    bottom = min(math.ceil(y + rows - 0.5), height)
    if columns <= 0 or rows <= 0 or left >= right or top >= bottom:
        shown = ", ".join(f"{side:g}" for side in (x, y, columns, rows))
        raise EmptyMaskError(f"the box ({shown}) has no pixel of the {width} x {height} image")
    return left, top, right, bottom


def each_expression(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Split captions and references into an entry per expression, as COCO-like files have them.

    A region with three expressions counts three times, its caption against one of them each. The
    mean is lower than against the best of the three.

    Args:
        predictions: by id; references: by id.

    Returns:
        Both by `ID#0`, `ID#1`, ...; a region without a caption stays without.
    """
    owners, singles = {}, {}
    for key, texts in references.items():
        for number, text in enumerate(texts):
            owners[f"{key}#{number}"], singles[f"{key}#{number}"] = key, [text]
    captions = {one: predictions[key] for one, key in owners.items() if key in predictions}
    return captions, singles
