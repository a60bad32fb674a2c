"""Photos of every kind as (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image, ImageOps

from ureca_lib.regions.errors import (
    FileMissingError,
    ImageUnreadableError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.rle import MAX_PIXELS

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif")
_HEIC = (".heic", ".heif")  # of iPhones
PHOTO_SUFFIXES += _HEIC
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and values that swap the sides
_opening = threading.Lock()  # Pillow has one limit for all threads
Photo = str | Path | np.ndarray | Image.Image


def load_image(photo: Photo, expected: tuple[int, int] | None = None) -> np.ndarray:
    """Read a photo as RGB, the way a viewer shows it.

    EXIF rotation is applied, unless only the stored orientation has the `expected` size: then
    the masks were drawn on the stored pixels (which cannot be had of a TIFF). Transparent pixels
    are laid on white, 16-bit values are scaled to 8, CMYK and grey become RGB; of an animation,
    the first frame is taken.

    Args:
        photo: a path, a PIL image, or an array (H, W), (H, W, 1 | 3 | 4): uint8, uint16, bool,
            or float between 0 and 1.
        expected: (H, W) in pixels that the photo must have.

    Returns:
        (H, W, 3) uint8.

    Raises:
        FileMissingError, ImageUnreadableError, SizeMismatchError
    """
    if isinstance(photo, np.ndarray):
        pixels = _from_array(photo)
        _check_expected(pixels.shape[:2], expected)
        return pixels
    if not isinstance(photo, (str, Path, Image.Image)):
        raise ImageUnreadableError(
            f"a photo is a path, an image or an array, not {type(photo).__name__}"
        )
    return decode(photo, lambda image: _to_rgb(_upright(image, expected)), "photo")


def decode(
    source: str | Path | Image.Image,
    read: Callable[[Image.Image], np.ndarray],
    what: str,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Decode an image and convert it with `read`; a damaged file becomes a `RegionError`.

    The size is checked before the pixels are decoded.

    Args:
        source: a file, or an open image.
        read: called with the image once its pixels are decoded.
        what: the kind of file for the errors: "photo", "mask".
        max_pixels: the largest size allowed; None is `MAX_PIXELS`.
    """
    with _opened(source, what) as image:
        allowed = max_pixels or MAX_PIXELS
        if image.width * image.height > allowed:
            raise ImageUnreadableError(
                f"the {what} has {image.width * image.height:,} pixels, more than the "
                f"{allowed:,} allowed"
            )
        image.load()
        return read(image)


@contextmanager
def _opened(source: str | Path | Image.Image, what: str) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises becomes a `RegionError` that names the file."""
    path = None if isinstance(source, Image.Image) else Path(source)
    try:
        with nullcontext(source) if path is None else _open(path) as image:
            yield image
    except RegionError as error:
        raise error.located(path) from None
    except FileNotFoundError:
        raise FileMissingError(f"the {what} does not exist", path) from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        reason = f"the {what} cannot be decoded ({error})"
        if path is not None and path.suffix.lower() in _HEIC and not _registered_heic():
            reason = 'HEIC photos are read by pillow-heif: pip install "ureca-lib[heic]"'
        raise ImageUnreadableError(reason, path) from error


@cache
def _registered_heic() -> bool:
    """Let Pillow read HEIC, if the package for it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _open(path: Path) -> Image.Image:
    if path.suffix.lower() in _HEIC:
        _registered_heic()
    # a file's size is checked before it is decoded, and Pillow's own limit is below ours
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_photo(path: str | Path, expected: tuple[int, int]) -> None:
    """Check from a photo's header that it exists and has a size, without decoding pixels.

    Args:
        path: the photo.
        expected: (H, W) in pixels, as `load_image` takes it.

    Raises:
        FileMissingError, ImageUnreadableError, SizeMismatchError
    """
    with _opened(path, "photo") as image:
        stored = image.height, image.width
        if not (_is_sideways(image) and tuple(expected) == stored[::-1]):
            _check_expected(stored, expected)


def is_turned(photo: Photo, stored: tuple[int, int]) -> bool:
    """Tell whether a photo is stored with this size (H, W), and EXIF swaps its sides when shown."""
    if isinstance(photo, np.ndarray):
        return False
    with _opened(photo, "photo") as image:
        return (image.height, image.width) == tuple(stored) and _is_sideways(image)


def _is_sideways(image: Image.Image) -> bool:
    turned = image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS
    return turned and image.format != "TIFF"  # Pillow opens those upright


def photo_name(photo: Photo | None) -> str | None:
    """Return the file name of a photo that is given by its path, else None."""
    return Path(photo).name if isinstance(photo, (str, Path)) else None


def find_photo(folder: Path, file_name: str | None, stem: str | None = None) -> Path | None:
    """Find the photo in an annotation file's folder: by its stated name, else by the file's stem.

    Of a name that leads out of the folder, only the last part counts.
    """
    steps = split_name(file_name)
    names = [] if ".." in steps else ["/".join(steps)]
    names += steps[-1:]
    if stem is not None:
        names += [stem + end for suffix in PHOTO_SUFFIXES for end in (suffix, suffix.upper())]
    found = (folder / name for name in names if name)
    # os.path's test is false, too, for names that no file system takes
    return next((photo for photo in found if os.path.isfile(photo)), None)


def split_name(file_name: str | None) -> list[str]:
    """Split a file name of an annotation file at its folders; of a URL the path alone counts."""
    name = file_name or ""
    if "://" in name:
        name = unquote(urlsplit(name).path)
    return [step for step in re.split(r"[\\/]", name) if step not in ("", ".")]


def color_ids(image: Image.Image) -> np.ndarray:
    """(H, W) ids of an RGB map as COCO panoptic has them: R + 256 G + 65536 B."""
    pixels = np.asarray(image.convert("RGB"), np.uint32)
    return pixels @ np.array([1, 256, 65536], np.uint32)  # (H, W, 3) -> (H, W)


def _check_expected(size: tuple[int, int], expected: tuple[int, int] | None) -> None:
    if expected is not None and tuple(size) != tuple(expected):
        raise SizeMismatchError(
            f"the photo is {size[1]} x {size[0]} but the annotations are for "
            f"{expected[1]} x {expected[0]} (width x height)"
        )


def _upright(image: Image.Image, expected: tuple[int, int] | None) -> Image.Image:
    try:
        shown = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the pixels
        shown = image
    stored, turned = (image.height, image.width), (shown.height, shown.width)
    if expected is not None and stored == tuple(expected) != turned:
        return image  # masks drawn on the stored pixels
    _check_expected(turned, expected)
    return shown


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode[0] in "IF":
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        # only I;16 says its range; 32-bit integers and floats are scaled by the one they fit in
        largest = values.max(initial=0)
        fits = 65535 if largest > 255 else 1 if image.mode == "F" and largest <= 1 else 255
        top = 65535 if image.mode.startswith("I;16") else fits
        grey = np.clip(np.rint(values * (255 / top)), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)  # (H, W) -> (H, W, 3)
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageUnreadableError(
            f"an image array is (H, W), (H, W, 3) or (H, W, 4), not {array.shape}"
        )
    kind = "float" if array.dtype.kind == "f" else array.dtype.name
    top = {"bool": 1, "float": 1, "uint8": 255, "uint16": 65535}.get(kind)
    if top is None or (kind == "float" and not (array.min() >= 0 and array.max() <= 1)):
        raise ImageUnreadableError(
            "an image array is uint8, uint16, bool, or float with values between 0 and 1; this is "
            f"{array.dtype}"
        )
    if top != 255:
        array = np.rint(array * (255 / top)).astype(np.uint8)
    if array.shape[2] == 1:
        array = array[..., 0]
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array)))
