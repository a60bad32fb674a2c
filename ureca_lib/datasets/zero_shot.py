"""Region captions of other data sets (Table 6): the protocol, and what their readers share.

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

import codecs
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import ijson
import numpy as np

from ureca_lib.datasets.captioned import CaptionedError, CaptionedImage, CaptionedImages
from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    Region,
    RegionError,
    RegionImage,
    rle,
)
from ureca_lib.regions.photo import find_photo
from ureca_lib.regions.sa1b import region_from

RegionSet = Literal["all", "single", "multi"]
# least and most regions per image
REGION_SETS: dict[RegionSet, tuple[int, float]] = {
    "all": (1, math.inf),
    "single": (1, 1),
    "multi": (2, math.inf),
}
MAX_DEPTH = 64  # of nested lists and objects in a JSON file
_ESCAPES = re.compile(rb"\\.", re.DOTALL)
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = np.zeros(256, np.int8)  # change of the depth by byte
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
Built = TypeVar("Built")


def protocol_markdown() -> str:
    """Return the table of choices in the module's docstring."""
    return "\n".join(line for line in (__doc__ or "").splitlines() if line.startswith("|"))


@dataclass
class LazyRegion:
    """A region whose mask is built lazily.

    Attributes:
        id: unique in its image.
        texts: references.
        box: (x, y, width, height) in pixels; it is the region if there is no segmentation.
        segmentation: COCO polygons or RLE.
        name: its category, if the data set has any.
    """

    id: int
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
class LazyImage:
    """An image whose regions are built lazily; sizes in pixels, photo None if it is missing."""

    key: str
    width: int
    height: int
    file_name: str | None = None
    photo: Path | None = None
    regions: list[LazyRegion] = field(default_factory=list)


def _stated_id(item: Any) -> int | None:
    value = item.get("region_id", item.get("id")) if isinstance(item, Mapping) else None
    return value if isinstance(value, int) else None


class Entries:
    """Entries of a data set's files; those that are left out are in `left_out`.

    By the protocol (a plain `RegionError`, or an empty mask) they are left out always; malformed
    ones only if not strict.
    """

    def __init__(self, strict: bool):
        self.strict = strict
        self.left_out: list[RegionError] = []

    def built(
        self,
        path: Path,
        items: Iterable[Any],
        build: Callable[[Any], Built],
        label: Callable[[Any], int | str | None] = _stated_id,
    ) -> Iterator[Built]:
        """Build each of the items of a file, or leave it out.

        Args:
            path: the file, for errors.
            items: as parsed.
            build: makes the result for an item, or raises a `RegionError`.
            label: of an item for errors; by default its id.
        """
        for item in items:
            try:
                result = build(item)
            except RegionError as error:
                placed = error.located(path, label(item))
                if self.strict and type(error) not in (RegionError, EmptyMaskError):
                    raise placed from None
                self.left_out.append(placed)
            else:
                yield result


class LazyImages(CaptionedImages):
    """Captioned images whose masks and pixels are made when an image is indexed.

    Args:
        images: those of a split, in the data set's order; no more are taken than needed, and none
            without regions.
        entries: what was left out while they were read.
        path: the annotation file, for errors.
        opened: scheme and split, folder, and folder of the photos, for the text that opens the
            images again.
        regions: "single" takes images with exactly one region, "multi" those with more.
        limit: only the first so many images; None is all.

    Raises:
        CaptionedError: there are no images.
        ValueError: no such set of regions, or a limit below 1.
    """

    def __init__(
        self,
        images: Iterable[LazyImage],
        entries: Entries,
        path: Path,
        opened: tuple[str, str | Path, str | Path | None],
        regions: RegionSet = "all",
        limit: int | None = None,
    ):
        if regions not in REGION_SETS:
            raise ValueError(f"regions must be one of {', '.join(REGION_SETS)}, not {regions!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        least, most = REGION_SETS[regions]
        chosen = islice((one for one in images if least <= len(one.regions) <= most), limit)
        self._images = {image.key: image for image in chosen}
        self.path, self.left_out = path, entries.left_out
        split, folder, photos = opened
        name = f"{split if regions == 'all' else f'{split}/{regions}'}:{folder}"
        name += "" if photos is None else f"@{photos}"
        if not self._images:
            raise CaptionedError(f"{name}: there are no regions ({len(self.left_out)} left out)")
        super().__init__(list(self._images), self._captioned, name)

    @property
    def regions(self) -> int:
        """Number of regions of all images."""
        return sum(len(image.regions) for image in self._images.values())

    @property
    def expressions(self) -> int:
        """Number of references of all regions."""
        return sum(len(one.texts) for image in self._images.values() for one in image.regions)

    @property
    def without_photo(self) -> int:
        """Number of images whose photo was not found."""
        return sum(image.photo is None for image in self._images.values())

    def _captioned(self, key: str) -> CaptionedImage:
        image = self._images[key]
        size, names = (image.width, image.height), (key, image.file_name)
        try:
            regions = [one.region(image.height, image.width) for one in image.regions]
            found = RegionImage(regions, *size, image.photo, *names, self.path)
        except RegionError as error:
            raise error.located(self.path) from None
        return CaptionedImage(key, found, {one.id: one.texts for one in image.regions})


def parse_text(
    text: str, form: str, photos: str | Path | None
) -> tuple[list[str], RegionSet, str, str | Path | None]:
    """Parse a text such as `refcocog:umd:val/multi:FOLDER@PHOTOS`.

    Args:
        text: the text.
        form: names of its parts, such as `refcocog:PARTITION:SPLIT:FOLDER`.
        photos: folder of the photos, instead of the one in the text.

    Returns:
        The parts between scheme and folder, the region set, the folder, and that of the photos.

    Raises:
        CaptionedError: a text of another form.
    """
    _, *parts = text.split(":", form.count(":"))
    if len(parts) != form.count(":"):
        raise CaptionedError(f"{text!r}: a data set is opened as {form}")
    *names, split, place = parts
    split, _, regions = split.partition("/")
    if regions and regions not in REGION_SETS:
        raise CaptionedError(f"{text!r}: a split may have /single or /multi only")
    if "@" in place and not Path(place).exists():
        place, _, named = place.rpartition("@")
        photos = photos or named
    return [*names, split], regions or "all", place, photos


def check_split(path: Path, split: str, counts: Mapping[str, int]) -> None:
    """Raise a `CaptionedError` that lists the splits of a file unless `split` is among them."""
    if split not in counts:
        known = ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"
        raise CaptionedError(f"{path}: there is no split {split!r}; there are {known}")


def stream_items(path: Path, prefix: str) -> Iterator[Any]:
    """Read the items of a list in a JSON file of any size, one at a time.

    Args:
        path: the file.
        prefix: "item" if the file holds a list, "images.item" for `images` of an object.

    Raises:
        FileMissingError: there is no such file.
        AnnotationFormatError: truncated, not JSON, or there is no such list; the items before the
            fault have been yielded by then.
    """
    item = path  # stands for no item, which None would not
    try:
        with path.open("rb") as file:
            if file.read(3) != codecs.BOM_UTF8:
                file.seek(0)
            for item in ijson.items(_Shallow(file), prefix, use_float=True):
                yield item
    except AnnotationFormatError as error:
        raise error.located(path) from None
    except FileNotFoundError:
        raise FileMissingError("the annotation file does not exist", path) from None
    except (OSError, ValueError, ijson.JSONError) as error:
        reason = str(error).partition("\n")[0]
        raise AnnotationFormatError(f"the file is truncated or not JSON ({reason})", path) from None
    if item is path:
        what = prefix.removesuffix("item").strip(".") or "its items"
        raise AnnotationFormatError(f"there is no list of {what}, or it is empty", path)


class _Shallow:
    """A JSON file whose nesting is bounded while it is read.

    ijson keeps the path of each open list: 100 KB of `[` would take it 25 GB.
    """

    def __init__(self, file: BinaryIO):
        self._file, self._depth, self._in_text, self._escape = file, 0, False, b""

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        plain = _ESCAPES.sub(b"", self._escape + chunk)
        self._escape = plain[-1:] if plain.endswith(b"\\") else b""  # cut from its letter
        marks = b'"' * self._in_text + plain.translate(None, _NO_MARKS)
        parts = marks.replace(b'""', b"").split(b'"')  # outside of texts and inside, by turns
        self._in_text = len(parts) % 2 == 0
        steps = _STEPS[np.frombuffer(b"".join(parts[::2]), np.uint8)]
        depths = np.cumsum(steps, dtype=np.int64) + self._depth
        if depths.max(initial=0) > MAX_DEPTH:
            raise AnnotationFormatError(f"lists lie deeper than {MAX_DEPTH} in one another")
        self._depth = int(depths[-1]) if len(depths) else self._depth
        return chunk


def photo_finder(
    folder: Path, images: str | Path | None, places: Iterable[str], parts: Iterable[str] = ()
) -> Callable[[str], Path | None]:
    """Return a function that finds a photo by its name.

    Args:
        folder: of the annotations.
        images: folder of the photos, or None to look in `places`.
        places: folders, relative to `folder`.
        parts: subfolders of each of these that are searched too.

    Raises:
        FileMissingError: there is no folder `images`.
    """
    if images is not None and not Path(images).is_dir():
        raise FileMissingError("the folder of the photos does not exist", images)
    folders = [folder / place for place in places] if images is None else [Path(images)]
    folders += [each / part for each in folders for part in parts]
    return lambda name: next(filter(None, (find_photo(each, name) for each in folders)), None)


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
