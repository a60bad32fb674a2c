"""Regions with phrases as zero-shot data sets state them, on their way to captioned images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ureca_lib.datasets.captioned import CaptionedError, CaptionedImage, CaptionedImages
from ureca_lib.regions import EmptyMaskError, Region, RegionError, RegionImage, WrongTypeError
from ureca_lib.regions.polygons import is_finite
from ureca_lib.regions.rle import as_list

RegionSet = Literal["all", "single", "multi"]
REGION_SETS: tuple[RegionSet, ...] = ("all", "single", "multi")


@dataclass
class DescribedRegion:
    """A region, its mask not made yet.

    Attributes:
        id: unique in its image.
        texts: what people wrote about it: the references.
        box: (x, y, width, height) in pixels, which is the region where there is no segmentation.
        segmentation: COCO polygons or RLE.
        name: its category, where the data set has one.
    """

    id: int
    texts: list[str]
    box: Sequence[float] | None = None
    segmentation: Any = None
    name: str | None = None

    def region(self, height: int, width: int) -> Region:
        """The region of an image of this size in pixels.

        Raises:
            RegionError: naming the id and what is wrong with the segmentation or the box.
        """
        if self.segmentation is None:
            return Region.from_mask(self.id, box_mask(self.box, height, width), self.name)
        if isinstance(self.segmentation, (list, tuple)):
            return Region.from_polygons(self.id, self.segmentation, height, width, self.name)
        return Region(self.id, self.segmentation, name=self.name)


@dataclass
class DescribedImage:
    """An image as a data set states it; sizes in pixels, the photo None where it is not there."""

    key: str
    width: int
    height: int
    file_name: str | None = None
    photo: Path | None = None
    regions: list[DescribedRegion] = field(default_factory=list)


class DescribedImages(CaptionedImages):
    """Captioned images of a data set; masks and pixels are made when an image is asked for.

    Args:
        images: those of a split, in the data set's order.
        name: what opens them again.
        path: the annotation file, for the errors.
        strict: False leaves faulty regions out, for which every mask is made once here.
        left_out: what was left out so far, with the reasons.

    Raises:
        CaptionedError: there are no images.
    """

    def __init__(
        self,
        images: Iterable[DescribedImage],
        name: str,
        path: Path,
        strict: bool = True,
        left_out: Iterable[RegionError] = (),
    ):
        self.path, self.left_out = path, list(left_out)
        self._images = {image.key: image for image in images}
        if not strict:
            self._drop_faulty()
        if not self._images:
            raise CaptionedError(f"{name}: there are no regions ({len(self.left_out)} left out)")
        super().__init__(list(self._images), self._image, name)

    @property
    def regions(self) -> int:
        """How many regions all images have."""
        return sum(len(image.regions) for image in self._images.values())

    @property
    def expressions(self) -> int:
        """How many phrases all regions have."""
        return sum(len(one.texts) for image in self._images.values() for one in image.regions)

    def _image(self, key: str) -> CaptionedImage:
        image = self._images[key]
        try:
            regions = [one.region(image.height, image.width) for one in image.regions]
            found = RegionImage(
                regions,
                image.width,
                image.height,
                image.photo,
                key,
                image.file_name,
                self.path,
            )
        except RegionError as error:
            raise error.located(self.path) from None
        return CaptionedImage(key, found, {one.id: one.texts for one in image.regions})

    def _drop_faulty(self) -> None:
        for key, image in list(self._images.items()):
            good = []
            for one in image.regions:
                try:
                    one.region(image.height, image.width)
                    good.append(one)
                except RegionError as error:
                    self.left_out.append(error.located(self.path))
            image.regions = good
            if not good:
                del self._images[key]


def chosen(
    images: Iterable[DescribedImage], regions: RegionSet = "all", limit: int | None = None
) -> list[DescribedImage]:
    """Images of the wanted region set, the first `limit` of them; images without regions never.

    Args:
        images: all of a split; no more are taken than needed.
        regions: "single" takes images with exactly one region, "multi" those with more.
        limit: None is all.

    Raises:
        ValueError: no such set, or a limit below 1.
    """
    if regions not in REGION_SETS:
        raise ValueError(f"regions must be one of {', '.join(REGION_SETS)}, not {regions!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    least, most = {"all": (1, math.inf), "single": (1, 1), "multi": (2, math.inf)}[regions]
    fitting = (image for image in images if least <= len(image.regions) <= most)
    return list(islice(fitting, limit))


def opened_as(split: str, regions: RegionSet, place: str | Path, images: str | Path | None) -> str:
    """The end of a name by which `open_zero_shot` opens the same images: `val/single:F@PHOTOS`."""
    wanted = split if regions == "all" else f"{split}/{regions}"
    return f"{wanted}:{place}" if images is None else f"{wanted}:{place}@{images}"


def box_mask(box: Any, height: int, width: int) -> np.ndarray:
    """The pixels of a box, clipped to the image.

    A pixel belongs to a box that holds its centre: of whole numbers, (x, y, w, h) has the columns
    x to x + w - 1 and the rows y to y + h - 1, the first ones 0.

    Args:
        box: x, y, width and height in pixels.
        height, width: of the image.

    Returns:
        (height, width) bool.

    Raises:
        WrongTypeError: not four finite numbers. EmptyMaskError: no pixel of the image is inside.
    """
    left, top, right, bottom = check_box(box, height, width)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def check_box(box: Any, height: int, width: int) -> tuple[int, int, int, int]:
    """The first column and row of `box_mask`, and those after its last; it raises as that does."""
    sides = as_list(box)
    if sides is None or len(sides) != 4 or not all(is_finite(side) for side in sides):
        raise WrongTypeError(f"a box is four finite numbers, not {box!r}"[:200])
    x, y, columns, rows = (float(side) for side in sides)
    left, top = max(math.ceil(x - 0.5), 0), max(math.ceil(y - 0.5), 0)
    right = min(math.ceil(x + columns - 0.5), width)
    bottom = min(math.ceil(y + rows - 0.5), height)
    if columns <= 0 or rows <= 0 or left >= right or top >= bottom:
        shown = ", ".join(f"{side:g}" for side in (x, y, columns, rows))
        raise EmptyMaskError(f"the box ({shown}) has no pixel of the {width} x {height} image")
    return left, top, right, bottom
