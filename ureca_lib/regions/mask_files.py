"""Masks in PNG files and arrays, and one reader for every kind of mask file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ureca_lib.regions.coco import load_coco
from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    ImageUnreadableError,
    RegionError,
    TooLargeError,
    WrongTypeError,
)
from ureca_lib.regions.parsing import read_json
from ureca_lib.regions.photo import PHOTO_SUFFIXES, Photo, load_image
from ureca_lib.regions.region import Region, RegionImage
from ureca_lib.regions.rle import MAX_PIXELS
from ureca_lib.regions.sa1b import load_sa1b

Numbered = tuple[int, np.ndarray, Path | None]  # id, mask, file


def load_masks(
    masks: np.ndarray | Sequence[np.ndarray | str | Path] | str | Path,
    image: Photo | None = None,
    names: Sequence[str | None] | None = None,
) -> RegionImage:
    """Regions from mask arrays or PNG files, numbered from 1 in the order given.

    Args:
        masks: (R, H, W) array; a list of (H, W) arrays or of PNG files, one mask each (a pixel
            that is not black, and not transparent, is inside); a folder of such PNG files, in
            the order of their names; or one PNG file that is a label map: each value other than
            0 is a region, whose id is the value.
        image: the photo, if there is one.
        names: one for each mask.

    Raises:
        RegionError: as in `load_sa1b`; the file is the PNG file.
    """
    whole = masks if isinstance(masks, (str, Path)) else None
    if whole is not None and not Path(whole).is_dir():
        numbered = _split_labels(Path(whole))
    else:
        items = _png_files(Path(whole)) if whole is not None else list(masks)
        numbered = [_numbered_mask(number, item) for number, item in enumerate(items, 1)]
    if not numbered:
        raise EmptyMaskError("there are no masks", whole)
    if names is not None and len(names) != len(numbered):
        raise WrongTypeError(f"there are {len(names)} names for {len(numbered)} masks")
    regions = []
    for (number, array, file), name in zip(numbered, names or [None] * len(numbered), strict=True):
        try:
            regions.append(Region.from_mask(number, array, name))
        except RegionError as error:
            raise error.located(file) from None
    photo = image if image is None or isinstance(image, np.ndarray) else load_image(image)
    height, width = regions[0].size if photo is None else photo.shape[:2]
    return RegionImage(regions, width, height, photo, path=whole)


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
    if not path.exists():
        raise FileMissingError("the mask file does not exist", path)
    if path.is_dir() or path.suffix.lower() in PHOTO_SUFFIXES:
        return load_masks(path, image)
    document = read_json(path)
    if "images" not in document:
        return load_sa1b(path, image, strict)
    candidates = load_coco(path, strict=strict)
    wanted = Path(image).name if isinstance(image, (str, Path)) else None
    named = [c for c in candidates if c.file_name and Path(c.file_name).name == wanted]
    chosen = named or candidates
    if len(chosen) != 1:
        raise AnnotationFormatError(
            f"the file holds {len(candidates)} images and none of them is the photo '{wanted}'",
            path,
        )
    one = chosen[0]
    photo = image if image is not None else one.photo
    fields = (one.width, one.height, photo, one.image_id, one.file_name, path, one.left_out)
    return RegionImage(one.regions, *fields)


def _split_labels(path: Path) -> list[Numbered]:
    labels = _open_mask(path)
    if labels.ndim != 2:
        raise WrongTypeError("a label map has one value a pixel: grey, palette or 16-bit", path)
    return [(int(value), labels == value, path) for value in np.unique(labels) if value != 0]


def _numbered_mask(number: int, item: np.ndarray | str | Path) -> Numbered:
    if not isinstance(item, (str, Path)):
        return number, item, None
    values = _open_mask(Path(item))
    if values.ndim == 3:
        inside = values[..., :3].any(axis=2)  # (H, W, 3) -> (H, W)
        values = inside & (values[..., 3] > 0) if values.shape[2] == 4 else inside
    return number, values, Path(item)


def _png_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")


def _open_mask(path: Path) -> np.ndarray:
    """(H, W) values, or (H, W, 3 | 4) where the file has colours."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise TooLargeError(f"the mask has more than {MAX_PIXELS:,} pixels", path)
            colours = image.mode not in ("1", "L", "P", "I", "I;16")
            return np.asarray(image.convert("RGBA") if colours else image)
    except FileNotFoundError:
        raise FileMissingError("the mask file does not exist", path) from None
    except UnidentifiedImageError:
        raise ImageUnreadableError("the file is not an image", path) from None
    except (OSError, SyntaxError) as error:
        if isinstance(error, RegionError):
            raise
        raise ImageUnreadableError(f"the mask cannot be decoded ({error})", path) from None
