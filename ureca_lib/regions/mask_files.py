"""Masks in PNG files and arrays."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ureca_lib.regions.errors import (
    AnnotationFormatError,
    EmptyMaskError,
    RegionError,
)
from ureca_lib.regions.photo import Photo, color_ids, decode, photo_name
from ureca_lib.regions.region import Region, RegionImage
from ureca_lib.regions.sa1b import build_entries

MaskSource = np.ndarray | str | Path
ARRAYS = (".npy", ".npz")
_MOST_COLORS = 10_000  # of an RGB map; a photo has more
_MAX_BYTES = 1 << 32  # of all arrays of a .npz, which are held at once


def load_masks(
    masks: np.ndarray | Sequence[MaskSource] | str | Path,
    image: Photo | None = None,
    strict: bool = True,
) -> RegionImage:
    """Read regions from mask arrays or PNG files, numbered from 1 in the given order.

    A region of a PNG file with one mask has the name of the file, such as "lake".

    Args:
        masks: (R, H, W) array; a list of (H, W) arrays or of PNG files, one mask each (a pixel
            that is not black, and not transparent, is inside); a folder of such PNG files, in
            the order of their names, 2 before 10; or one PNG file that is a label map: each value
            other than 0 is a region, whose id is the value (of a color R + 256 G + 65536 B); or a
            .npy file with a (R, H, W) array, or a .npz file with such an array, or with (H, W)
            arrays whose names are the regions'.
        image: the photo, if there is one.
        strict: as in `load_sa1b`; the first good mask sets the size of the others.

    Raises:
        RegionError: as in `load_sa1b`; the file is the PNG file.
    """
    whole = Path(masks) if isinstance(masks, (str, Path)) else None
    if whole is not None and whole.suffix.lower() in ARRAYS:
        entries = _arrays(whole)
    else:
        entries = _listed(masks) if whole is None or whole.is_dir() else _split_labels(whole)
    if not entries:
        raise EmptyMaskError("there are no masks", whole)
    sizes: list[tuple[int, int]] = []

    def build(entry: dict[str, Any], note: Any) -> Region:
        try:
            region = _region(entry)
            sizes.append(region.size)
            region.check_size(*sizes[0])
            return region
        except RegionError as error:
            raise error.located(entry["file"]) from None

    regions, left_out = build_entries(enumerate(entries), build, None, strict)
    if not regions:
        raise EmptyMaskError(f"none of the masks is good; the first: {left_out[0].error}", whole)
    height, width = regions[0].size
    result = RegionImage(regions, width, height, image, None, photo_name(image), whole, left_out)
    _ = result.image  # a photo that was asked for must be readable and of the right size
    return result


def _region(entry: dict[str, Any]) -> Region:
    number, item = entry["id"], entry["mask"]
    if isinstance(item, dict):
        return Region(number, item)
    if isinstance(item, (str, Path)):
        return Region.from_mask(number, decode(item, _inside, "mask"), Path(item).stem)
    return Region.from_mask(number, item, entry.get("name"))


def _arrays(path: Path) -> list[dict[str, Any]]:
    """List the masks of a .npy or .npz file."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > _MAX_BYTES:
                raise ValueError(f"{size:,} bytes unpacked, more than {_MAX_BYTES:,}")
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = {"": content} if isinstance(content, np.ndarray) else dict(content)
    except Exception as error:  # numpy, zipfile, zlib and tokenize each raise their own
        raise AnnotationFormatError(f"the file holds no arrays ({error})", path) from None
    entries = []
    for name, array in arrays.items():
        own = None if name.startswith("arr_") or array.ndim == 3 or not name else name
        for mask in array if array.ndim == 3 else [array]:
            entries.append({"id": len(entries) + 1, "mask": mask, "file": path, "name": own})
    return entries


def _listed(masks: np.ndarray | Sequence[MaskSource] | Path | str) -> list[dict[str, Any]]:
    """List masks with their numbers and files; their arrays are read later, one at a time."""
    if isinstance(masks, np.ndarray) and masks.ndim != 3:
        raise AnnotationFormatError(
            "masks are a (R, H, W) array or a list of (H, W) arrays, not one array of "
            f"{masks.ndim} dimensions"
        )
    items = _png_files(Path(masks)) if isinstance(masks, (str, Path)) else list(masks)
    return [
        {"id": number, "mask": item, "file": item if photo_name(item) else None}
        for number, item in enumerate(items, start=1)
    ]


def _png_files(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() == ".png"]
    shown = [path for path in found if not path.name.startswith(".")]
    return sorted(shown, key=lambda path: (_with_numbers(path.stem), path.name))


def _with_numbers(text: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts 2 before 10, and numbers before words."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", text)
    return [(not digits, int(digits or 0), word) for digits, word in parts]


def _split_labels(path: Path) -> list[dict[str, Any]]:
    """List each value of a label map but 0 with its runs; (H, W) is not expanded to (R, H, W)."""
    labels = decode(path, _values, "mask")
    flat = labels.ravel(order="F")  # (H, W) -> (W * H,), column by column as COCO's runs go
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    ends, values = np.append(starts[1:], flat.size), flat[starts]
    found = []
    for value in np.unique(values[values != 0]):
        borders = np.stack([starts, ends], axis=1)[values == value].ravel()  # (runs, 2) -> flat
        counts = np.diff(borders, prepend=0, append=flat.size)
        rle = {"size": labels.shape, "counts": counts}
        found.append({"id": int(value), "mask": rle, "file": path})
    return found


def _values(image: Image.Image) -> np.ndarray:
    """(H, W) values of a label map; a palette's are its indices."""
    _refuse_lossy(image)
    if image.mode == "RGB":
        ids = color_ids(image)
        if (count := len(np.unique(ids))) > _MOST_COLORS:
            reason = f"an RGB map has at most {_MOST_COLORS:,} ids, not {count:,}: is it a photo?"
            raise AnnotationFormatError(reason)
        return ids
    if image.mode not in ("1", "L", "P") and image.mode[0] != "I":
        raise AnnotationFormatError(
            "a label map has one whole number a pixel (grey, palette, 16-bit or RGB); this file's "
            f"mode is '{image.mode}'"
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
