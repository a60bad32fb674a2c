"""Masks in PNG files and arrays, and one reader for every kind of mask file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ureca_lib.regions.coco import load_coco_image
from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    RegionError,
)
from ureca_lib.regions.photo import PHOTO_SUFFIXES, Photo, decode
from ureca_lib.regions.region import LeftOut, Region, RegionImage
from ureca_lib.regions.sa1b import load_sa1b, read_json

MaskSource = np.ndarray | str | Path
Numbered = tuple[int, Any, Path | None]  # id, array, file or RLE, the file it is from


def load_masks(
    masks: np.ndarray | Sequence[MaskSource] | str | Path,
    image: Photo | None = None,
    names: Sequence[str | None] | None = None,
    strict: bool = True,
) -> RegionImage:
    """Read regions from mask arrays or PNG files, numbered from 1 in the given order.

    Args:
        masks: (R, H, W) array; a list of (H, W) arrays or of PNG files, one mask each (a pixel
            that is not black, and not transparent, is inside); a folder of such PNG files, in
            the order of their names, 2 before 10; or one PNG file that is a label map: each value
            other than 0 is a region, whose id is the value.
        image: the photo, if there is one.
        names: one for each mask; a PNG file without one has that of the file, such as "lake".
        strict: as in `load_sa1b`; the first good mask sets the size of the others.

    Raises:
        RegionError: as in `load_sa1b`; the file is the PNG file.
    """
    whole = Path(masks) if isinstance(masks, (str, Path)) else None
    numbered = _listed(masks) if whole is None or whole.is_dir() else _split_labels(whole)
    if not numbered:
        raise EmptyMaskError("there are no masks", whole)
    if names is not None and len(names) != len(numbered):
        raise AnnotationFormatError(
            f"there are {len(names)} names for {len(numbered)} masks", whole
        )
    regions, left_out = _build(numbered, names or [None] * len(numbered), strict)
    if not regions:
        raise EmptyMaskError(f"none of the masks is good; the first: {left_out[0].error}", whole)
    height, width = regions[0].size
    file_name = Path(image).name if isinstance(image, (str, Path)) else None
    result = RegionImage(regions, width, height, image, None, file_name, whole, left_out)
    _ = result.image  # a photo that was asked for must be readable and of the right size
    return result


def load_regions(masks: str | Path, image: Photo | None = None, strict: bool = True) -> RegionImage:
    """Read the masks of one image from any file the package knows.

    Args:
        masks: SA-1B JSON, COCO instance JSON with the photo's file name in it (or with one image
            only), a label map PNG, or a folder of mask PNGs.
        image: the photo.
        strict: as in `load_sa1b`.

    Raises:
        RegionError: as in `load_sa1b`.
    """
    path = Path(masks)
    if not os.path.exists(path):
        raise FileMissingError("the mask file does not exist", path)
    if path.is_dir() or path.suffix.lower() in PHOTO_SUFFIXES:
        return load_masks(path, image, strict=strict)
    if "images" not in read_json(path):
        return load_sa1b(path, image, strict)
    return load_coco_image(path, image, strict)


def _build(
    numbered: Iterable[Numbered], names: Sequence[str | None], strict: bool
) -> tuple[list[Region], list[LeftOut]]:
    regions: list[Region] = []
    left_out: list[LeftOut] = []
    for index, ((number, item, file), name) in enumerate(zip(numbered, names, strict=True)):
        try:
            region = _region(number, item, name)
            if regions:
                region.check_size(*regions[0].size)
            regions.append(region)
        except RegionError as error:
            placed = error.located(file, number)
            if strict:
                raise placed from None
            left_out.append(LeftOut(index, number, placed))
    return regions, left_out


def _region(number: int, item: Any, name: str | None) -> Region:
    if isinstance(item, dict):
        return Region(number, item, name=name)
    if isinstance(item, (str, Path)):
        name = name or Path(item).stem
        item = decode(item, _inside, "mask")
    return Region.from_mask(number, item, name)


def _listed(masks: np.ndarray | Sequence[MaskSource] | str | Path) -> list[Numbered]:
    if isinstance(masks, np.ndarray) and masks.ndim != 3:
        raise AnnotationFormatError(
            "masks are a (R, H, W) array or a list of (H, W) arrays, not one array of "
            f"{masks.ndim} dimensions"
        )
    items = _png_files(Path(masks)) if isinstance(masks, (str, Path)) else list(masks)
    files = [Path(item) if isinstance(item, (str, Path)) else None for item in items]
    return list(zip(range(1, len(items) + 1), items, files, strict=True))


def _png_files(folder: Path) -> list[Path]:
    names = (path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in names if path.suffix.lower() == ".png"]
    return sorted(found, key=lambda path: (_with_numbers(path.stem), path.name))


def _with_numbers(text: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts 2 before 10, and numbers before words."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", text)
    return [(not digits, int(digits or 0), word) for digits, word in parts]


def _split_labels(path: Path) -> list[Numbered]:
    """List each value of a label map but 0 with its runs; (H, W) is not expanded to (R, H, W)."""
    labels = decode(path, _values, "mask")
    flat = labels.ravel(order="F")  # (H, W) -> (W * H,), column by column as COCO's runs go
    starts = _changes(flat)
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    found = []
    for runs in np.split(order, _changes(values[order])[1:]):
        borders = np.stack([starts[runs], ends[runs]], axis=1).ravel()  # (runs, 2) -> (runs * 2,)
        counts = np.diff(borders, prepend=0, append=flat.size)
        found.append((int(values[runs[0]]), {"size": labels.shape, "counts": counts}, path))
    return [entry for entry in found if entry[0] != 0]


def _changes(values: np.ndarray) -> np.ndarray:
    """Indices where a value differs from its predecessor; 0 is the first."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def _values(image: Image.Image) -> np.ndarray:
    """(H, W) values of a label map; a palette's are its indices."""
    _refuse_lossy(image)
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise AnnotationFormatError(
            "a label map has one whole number a pixel (grey, palette or 16-bit); this file's mode "
            f"is '{image.mode}'"
        )
    return np.asarray(image)


def _inside(image: Image.Image) -> np.ndarray:
    """(H, W) bool: neither black nor transparent."""
    _refuse_lossy(image)
    if image.mode[0] in "IF":
        return np.asarray(image) != 0
    colours = np.asarray(image.convert("RGBA"))
    return colours[..., :3].any(axis=2) & (colours[..., 3] > 0)  # (H, W, 4) -> (H, W)


def _refuse_lossy(image: Image.Image) -> None:
    if image.format == "JPEG":
        raise AnnotationFormatError("a mask in a JPEG has blurred values; save it as PNG")
