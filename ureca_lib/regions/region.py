"""`Region`, one mask of an image, and `RegionImage`, an image with all of its regions."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.photo import check_photo, load_image
from ureca_lib.regions.rle import (
    check_box,
    check_rle,
    check_size,
    encode_polygons,
    is_whole,
)

Box = tuple[float, float, float, float]


class Region:
    """One region of an image, as a run-length encoding; the array is decoded on demand.

    Args:
        id: unique in its image.
        rle: COCO encoding, compressed or not: `{"size": [H, W], "counts": ...}`.
        bbox: stated box (x, y, width, height) in pixels; not compared with the mask.
        area: stated area in pixels. The mask's own area counts; a difference is noted.
        name: a person's word for it, such as "boot"; optional, a number becomes its digits.
        crowd: COCO's mark for a group of objects in one mask.
        note: called with a sentence about each correction; by default a warning.
        caption: of the file, if it has one.

    Raises:
        RegionError: a malformed encoding, box, area, id or name.
    """

    __slots__ = ("_bbox", "area", "caption", "crowd", "id", "name", "rle")

    def __init__(
        self,
        id: int | str,
        rle: Mapping[str, Any],
        bbox: Sequence[float] | None = None,
        area: float | None = None,
        name: str | None = None,
        crowd: bool = False,
        note: Callable[[str], None] = warnings.warn,
        caption: str | None = None,
    ):
        try:
            if not (is_whole(id) or isinstance(id, str)):
                raise AnnotationFormatError("an id is a whole number or a string")
            self.rle, self.area = check_rle(rle)
            self._bbox = None if bbox is None else check_box(bbox)
            numeric = isinstance(area, (int, float, np.number)) and not isinstance(area, bool)
            if area is not None and not numeric:
                raise AnnotationFormatError(f"an area is a number, not {area!r}")
            if not (name is None or isinstance(name, str) or is_whole(name)):
                raise AnnotationFormatError(f"a name is a string, not {type(name).__name__}")
        except RegionError as error:
            raise error.located(None, id) from None
        # numpy's integers would not go into JSON
        self.id = id if isinstance(id, str) else int(id)
        self.caption = caption
        self.name, self.crowd = None if name is None else str(name), bool(crowd)
        if area is not None and area != self.area:
            note(
                f"region {id}: the stated area is {reprlib.repr(area)} but the mask has "
                f"{self.area} pixels; the mask's area counts"
            )

    @classmethod
    def from_mask(cls, id: int | str, mask: np.ndarray, name: str | None = None) -> Region:
        """Make a region from a (H, W) array of bool, or of numbers, which are inside unless zero.

        Raises:
            AnnotationFormatError: not two-dimensional, not of numbers, or holds NaN.
            EmptyMaskError: no pixel inside.
        """
        try:
            array = np.asarray(mask)
        except ValueError as error:
            raise AnnotationFormatError(f"the mask is no array: {error}", None, id) from None
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            what = f"{array.ndim}-dimensional {array.dtype}"
            raise AnnotationFormatError(
                f"a mask is a (H, W) array of numbers, not {what}", None, id
            )
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise AnnotationFormatError("the mask holds NaN", None, id)
        inside = array != 0
        if not inside.any():  # of no size, too, which an encoding cannot have
            raise EmptyMaskError("the mask has no pixels", None, id)
        return cls(id, coco_mask.encode(np.asfortranarray(inside, np.uint8)), name=name)

    @classmethod
    def from_polygons(
        cls,
        id: int | str,
        polygons: Sequence[Any],
        height: int,
        width: int,
        note: Callable[[str], None] = warnings.warn,
        **fields: Any,
    ) -> Region:
        """Make a region from the union of polygons, filled as COCO's tools fill them.

        Args:
            polygons: rings of at least three points, flat `[x, y, x, y, ...]` or pairs, in pixels;
                or a single ring. Shorter rings are dropped and noted.
            height, width: the image's size in pixels.
            note: called with a sentence about each correction; by default a warning.
            fields: `name`, `bbox`, `crowd` and `caption`, as in `Region`.

        Raises:
            AnnotationFormatError: a malformed ring, an image that is too large, or an outline that
                crosses it endlessly.
            SizeMismatchError: a ring far outside the image.
            EmptyMaskError: no pixel inside.
        """
        try:
            check_size(height, width)
            rle, dropped = encode_polygons(polygons, int(height), int(width))
        except RegionError as error:
            raise error.located(None, id) from None
        if dropped:
            note(f"region {id}: dropped {dropped} of its rings, which had fewer than three points")
        return cls(id, rle, **fields)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image the mask belongs to, in pixels."""
        return self.rle["size"][0], self.rle["size"][1]

    def check_size(self, height: int, width: int) -> None:
        """Raise SizeMismatchError unless the mask has the size of its image in pixels."""
        if self.size != (height, width):
            raise SizeMismatchError(
                f"the mask is {self.size[1]} x {self.size[0]} but the image is "
                f"{width} x {height} (width x height)",
                None,
                self.id,
            )

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, decoded at each access."""
        return coco_mask.decode(self.rle).astype(bool)

    @property
    def pixel_box(self) -> tuple[int, int, int, int]:
        """(x, y, columns, rows) of the smallest box that holds every pixel: pycocotools' box."""
        return tuple(coco_mask.toBbox(self.rle).astype(int).tolist())

    @property
    def bbox(self) -> Box:
        """(x, y, width, height) in pixels: the stated box, else the mask's as SA-1B writes it.

        SA-1B's width and height are largest minus smallest coordinate, one pixel less than the
        columns and rows of `pixel_box`.
        """
        if self._bbox is not None:
            return self._bbox
        x, y, columns, rows = self.pixel_box
        return float(x), float(y), float(columns - 1), float(rows - 1)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        height, width = self.size
        return f"Region({self.id}{name}, {self.area} px of {width} x {height})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region):
            return NotImplemented
        return (self.id, self.rle, self.name) == (other.id, other.rle, other.name)

    def __hash__(self) -> int:
        return hash((self.id, self.rle["counts"]))


@dataclass(frozen=True)
class LeftOut:
    """An annotation that `strict=False` left out: its place in the file, and the reason."""

    index: int
    region_id: int | str | None
    error: RegionError

    def __str__(self) -> str:
        return f"annotation {self.index}: {self.error}"


class RegionImage:
    """An image and its regions, in the order of the file.

    Args:
        regions: all of one size, with different ids.
        width, height: of the image in pixels.
        photo: a path (read when its pixels are asked for), a (H, W, 3) uint8 array, or None.
        image_id, file_name: as the annotation file has them.
        path: the annotation file.
        left_out: annotations that were left out, with the reasons.

    Raises:
        SizeMismatchError, AnnotationFormatError: naming the file and the region.
    """

    def __init__(
        self,
        regions: Iterable[Region],
        width: int,
        height: int,
        photo: str | Path | np.ndarray | Image.Image | None = None,
        image_id: int | str | None = None,
        file_name: str | None = None,
        path: str | Path | None = None,
        left_out: Sequence[LeftOut] = (),
    ):
        self.regions = list(regions)
        self.width, self.height = int(width), int(height)
        self.image_id = int(image_id) if is_whole(image_id) else image_id
        self.file_name = file_name
        self.path = None if path is None else Path(path)
        self.left_out = list(left_out)
        self._by_id: dict[int | str, Region] = {}
        self.photo = Path(photo) if isinstance(photo, (str, Path)) else None
        self._pixels: np.ndarray | None = None
        try:
            for region in self.regions:
                region.check_size(self.height, self.width)
                if region.id in self._by_id:
                    raise AnnotationFormatError("another region has this id", None, region.id)
                self._by_id[region.id] = region
            if photo is not None and self.photo is None:
                self._pixels = load_image(photo, expected=(self.height, self.width))
        except RegionError as error:
            raise error.located(self.path) from None

    @property
    def image(self) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB, read at the first use and cached; None if there is no photo.

        Raises:
            ImageUnreadableError: truncated or not an image; SizeMismatchError: another size.
        """
        if self._pixels is None and self.photo is not None:
            self._pixels = load_image(self.photo, expected=(self.height, self.width))
        return self._pixels

    @property
    def pixels(self) -> np.ndarray:
        """Return `image`, which must exist.

        Raises:
            FileMissingError: there is no photo.
        """
        if self.image is None:
            wanted = f" '{self.file_name}'" if self.file_name else ""
            raise FileMissingError(
                f"the photo{wanted} is needed but is not beside the annotations", self.path
            )
        return self.image

    def check_photo(self) -> None:
        """Check from its header alone that there is a photo of the masks' size.

        Raises:
            FileMissingError, ImageUnreadableError, SizeMismatchError: see `pixels`.
        """
        if self._pixels is None and self.photo is not None:
            check_photo(self.photo, (self.height, self.width))
        else:
            self.pixels  # noqa: B018, says if it is missing

    def __getitem__(self, region_id: int | str) -> Region:
        if region_id not in self._by_id:
            raise KeyError(f"no region {region_id!r}; there are {reprlib.repr([*self._by_id])}")
        return self._by_id[region_id]

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __len__(self) -> int:
        return len(self.regions)

    def __repr__(self) -> str:
        label = self.file_name or (self.path.name if self.path else "image")
        left = f", {len(self.left_out)} left out" if self.left_out else ""
        return (
            f"RegionImage({label}, {self.width} x {self.height}, {len(self.regions)} regions{left})"
        )
