"""Photos and where their masks are: one reader for every kind of mask file, and for folders.

| text | images |
|---|---|
| a photo | that photo; its masks are in a file or folder of its name, or in a file that names it |
| a folder | its photos and files of masks, down to the bottom |
| a file of masks | the image, or all images, of the file |
| `instances.json/day/photo.png` | one image of a file of many, by the name it has there |
| `PHOTOS@MASKS` | a photo or a folder of photos, and a file or a folder of masks elsewhere |

Masks belong to the photo of the same name but for the suffix: `a.json`, `a.xml`, `a.npy`, `a.npz`
or a folder `a` of PNG files for the photo `a.jpg`, the first that is there; in a folder of masks
elsewhere also the label map `a.png`. A file of many images belongs to the photos that it names.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import defaultdict
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ureca_lib.regions.coco import CocoFile
from ureca_lib.regions.errors import AnnotationFormatError, FileMissingError, RegionError
from ureca_lib.regions.formats import read_document
from ureca_lib.regions.mask_files import ARRAYS, load_masks
from ureca_lib.regions.photo import PHOTO_SUFFIXES, Photo, find_photo
from ureca_lib.regions.region import RegionImage
from ureca_lib.regions.sa1b import annotation_files, sa1b_regions, walk_linked

_HEAD = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"image"\s*:\s*(\{[^{}]*\})')  # of SA-1B's files


class MaskedPhoto(NamedTuple):
    """A photo and the place of its masks.

    Attributes:
        path: of the masks, a file or a folder.
        photo: None takes the one that the file names, beside it.
        name: of the image in a file of many.
    """

    path: Path
    photo: Path | None = None
    name: str | None = None

    @property
    def place(self) -> Path:
        """The path of the masks, with the image's name behind it in a file of many."""
        return self.path if self.name is None else self.path / self.name

    def __str__(self) -> str:
        return str(self.place) if self.photo is None else f"{self.photo}@{self.place}"

    def load(self, strict: bool = True, boxes: bool = False) -> RegionImage:
        """Read the masks; the photo is read when its pixels are needed.

        Args:
            strict: as in `load_sa1b`.
            boxes: read a box as a region where there is no mask.

        Raises:
            RegionError: as in `load_sa1b`.
        """
        image = _read(self.path, self.name, self.photo, strict, boxes)
        if self.photo is not None:
            image.check_photo()
        return image


class Found(NamedTuple):
    """Images with masks, the photos that they belong to, and photos that have none."""

    images: list[MaskedPhoto]
    owners: dict[Path, MaskedPhoto]
    without: list[Path]


def load_regions(
    masks: str | Path, image: Photo | None = None, strict: bool = True, boxes: bool = False
) -> RegionImage:
    """Read the masks of one image from any file the package knows.

    Args:
        masks: SA-1B JSON; COCO instance JSON with the photo's file name in it (or with one image
            only, or with the image's name behind its path), or a file of
            `ureca_lib.regions.formats`; a label map PNG, a folder of mask PNGs, or arrays (.npy,
            .npz).
        image: the photo.
        strict: as in `load_sa1b`.
        boxes: read a box as a region where a COCO file has no mask.

    Raises:
        RegionError: as in `load_sa1b`.
    """
    found = _read(*split_place(Path(masks)), image, strict, boxes)
    if image is not None:
        _ = found.image  # a photo that was asked for must be readable and of the right size
    return found


def load_photo(photo: str | Path, strict: bool = True, boxes: bool = False) -> RegionImage:
    """Read a photo's masks, wherever they are beside it.

    Args:
        photo: its path; `PHOTO@MASKS` where the masks are elsewhere, see the module.
        strict, boxes: as in `load_regions`.

    Raises:
        RegionError: there are no masks, or as in `load_sa1b`.
    """
    return masked_photo(photo).load(strict, boxes)


def masked_photo(path: str | Path) -> MaskedPhoto:
    """Find the masks of one photo; raises as `load_photo` does."""
    found = masked_photos(path)
    if len(found) > 1:
        raise AnnotationFormatError(f"there are {len(found)} images; name one of them", path)
    return found[0]


def masked_photos(path: str | Path, masks: str | Path | None = None) -> list[MaskedPhoto]:
    """List the images with masks of a photo, a folder or a file; see the module.

    Photos of a folder that have no masks are left out with a warning.

    Args:
        path: any text of the module's table.
        masks: a file or folder of masks elsewhere.

    Raises:
        FileNotFoundError: no such file or folder. RegionError: there are no masks.
    """
    found = find_masked(path, masks)
    names = shortened([photo.name for photo in found.without])
    if not found.images:
        reason = "the folder holds no annotation files (such as *.json)"
        if names:
            reason = (
                f"no masks are beside the photo or in a file that names it ({names}); `ureca "
                "segment` finds masks, and PHOTO@MASKS names a file elsewhere"
            )
        raise FileMissingError(reason, path)
    if names:
        count = f"{len(found.without)} of {len(found.without) + len(found.owners)} photos"
        warnings.warn(
            f"{path}: {count} have no masks and are left out: {names}; `ureca segment` finds masks",
            stacklevel=2,
        )
    return found.images


def find_masked(path: str | Path, masks: str | Path | None = None, deep: bool = True) -> Found:
    """Find the masks of photos; see `masked_photos`.

    Args:
        deep: look into the folders below a folder, too.
    """
    path, behind = split_at(path)
    masks = behind if masks is None else Path(masks)
    file, name = split_place(path)
    single = path.is_file() and path.suffix.lower() in PHOTO_SUFFIXES
    if not file.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if file.is_file() and not single:
        return Found(_members(file) if name is None else [MaskedPhoto(file, None, name)], {}, [])
    root = path.parent if single else path
    photos, folders = ([path], []) if single else _photos(path, deep)
    if masks is None:
        files = [*_mask_files(root, deep and not single), *folders]
        return _matched(photos, root, files, root, single)
    if not split_place(masks)[0].exists():
        raise FileMissingError("the mask file does not exist", masks)
    if single and not masks.is_dir():
        return _chosen(path, masks)
    if not masks.is_dir():
        found = _matched(photos, root, [masks], masks.parent, False, elsewhere=True)
        if found.images or not photos:
            return found
        only = _chosen(photos[0], masks)  # raises if the file has many images, none of them this
        if len(photos) > 1:
            reason = f"the masks are of one image, and none of {len(photos)} photos has its name"
            raise AnnotationFormatError(reason, masks)
        return only
    files = [*_mask_files(masks, True), *(place for place, _ in walk_linked(masks))]
    files += [at / n for at, names in walk_linked(masks) for n in names if n.endswith(".png")]
    found = _matched(photos, root, files, masks, single, elsewhere=True)
    if single and not found.images:
        return _chosen(path, masks)
    return found


def split_at(text: str | Path) -> tuple[Path, Path | None]:
    """Split `PHOTOS@MASKS`; an @ may be in a name, too."""
    whole = str(text)
    for match in re.finditer("@", whole):
        photos, masks = Path(whole[: match.start()]), whole[match.end() :]
        if masks and photos.exists() and not Path(whole).exists():
            return photos, Path(masks)
    return Path(text), None


def split_place(place: Path) -> tuple[Path, str | None]:
    """Split `instances.json/day/photo.png` into the file and the name of the image in it."""
    for parent in place.parents:
        if os.path.isfile(parent):
            return parent, place.relative_to(parent).as_posix()
    return place, None


def _read(
    path: Path, name: str | None, photo: Photo | None, strict: bool, boxes: bool
) -> RegionImage:
    if not os.path.exists(path):
        raise FileMissingError("the mask file does not exist", path)
    if path.is_dir() or path.suffix.lower() in (*PHOTO_SUFFIXES, *ARRAYS):
        return load_masks(path, photo, strict=strict)
    content = _opened(path, photo)
    if isinstance(content, CocoFile):
        return content.regions(photo, name, strict, boxes)
    return sa1b_regions(content, path, photo, strict)


def _opened(path: Path, photo: Photo | None = None) -> CocoFile | dict[str, Any]:
    """The content of a JSON or XML file; a file of many images is parsed once for all of them."""
    stat = path.stat()
    try:
        return _parsed(path, (stat.st_mtime_ns, stat.st_size))
    except AnnotationFormatError:  # a list of boxes needs the photo, and is parsed with it
        if photo is None:
            raise
        return CocoFile(path, read_document(path, photo))


@lru_cache(maxsize=2)
def _parsed(path: Path, stamp: tuple[int, int]) -> CocoFile | dict[str, Any]:
    content = read_document(path)
    return CocoFile(path, content) if "images" in content else content


def _members(file: Path) -> list[MaskedPhoto]:
    """The images of a file of masks."""
    if file.suffix.lower() in ARRAYS:
        return [MaskedPhoto(file)]
    with suppress(RegionError):  # loading the image will say what is wrong
        content = None if _HEAD.match(_head(file)) else _opened(file)
        if isinstance(content, CocoFile) and len(content.images) > 1:
            return [MaskedPhoto(file, None, _name(content, key)) for key in content.images]
    return [MaskedPhoto(file)]


def _name(file: CocoFile, key: int | str) -> str | None:
    """The name of an image in its file; None where it needs none, being the only one."""
    return "/".join(file.steps[key]) or str(key) if len(file.images) > 1 else None


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4096)


def _photos(folder: Path, deep: bool) -> tuple[list[Path], list[Path]]:
    """Photos of a folder, and those of its folders that hold the mask PNGs of one photo each."""
    photos: list[Path] = []
    folders: list[Path] = []
    bare: set[Path] = set()  # paths of the photos without suffix
    for place, names in walk_linked(folder):
        shown = [place / name for name in names if not name.startswith(".")]
        here = [path for path in shown if path.suffix.lower() in PHOTO_SUFFIXES]
        if place in bare and here and all(path.suffix.lower() == ".png" for path in here):
            folders.append(place)
        elif deep or place == folder:
            photos += here
            bare.update(path.with_suffix("") for path in here)
    return photos, folders


def _mask_files(folder: Path, deep: bool) -> list[Path]:
    """Files of a folder that may hold masks, apart from pictures."""
    arrays = [
        place / name
        for place, names in walk_linked(folder)
        for name in names
        if Path(name).suffix.lower() in (".xml", *ARRAYS) and not name.startswith(".")
    ]
    files = sorted([*annotation_files(folder), *arrays])
    return [file for file in files if deep or file.parent == folder]


def _chosen(photo: Path, masks: Path) -> Found:
    """A photo with a file of masks, or a folder of mask PNGs."""
    file, name = split_place(masks)
    if name is None and file.suffix.lower() in (".json", ".xml"):
        content = _opened(file, photo)
        if isinstance(content, CocoFile):
            name = _name(content, content.choose(photo.absolute()))
    entry = MaskedPhoto(file, photo, name)
    return Found([entry], {photo: entry}, [])


def _matched(
    photos: list[Path],
    root: Path,
    files: list[Path],
    base: Path,
    single: bool,
    elsewhere: bool = False,
) -> Found:
    """Match photos and masks by their names.

    Args:
        photos: at or below `root`.
        files: at or below `base`, files and folders.
        single: leave out masks of other photos than these.
        elsewhere: the masks are not beside the photos.
    """
    by_key: dict[Path, list[Path]] = defaultdict(list)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for photo in photos:
        by_key[photo.relative_to(root).with_suffix("")].append(photo)
        by_stem[photo.stem].append(photo)
    images: list[MaskedPhoto] = []
    owners: dict[Path, MaskedPhoto] = {}
    others = []  # files without a photo of their name
    for file in files:
        key = file.relative_to(base)
        key = key if file.is_dir() else key.with_suffix("")
        mates = by_key.get(key, [])
        if elsewhere and not mates and len({p.parent for p in by_stem.get(key.name, [])}) == 1:
            mates = by_stem[key.name]
        owner = next((owners[photo] for photo in mates if photo in owners), None)
        if not mates:
            others.append(file)
        elif owner is not None:
            reason = f"is left out: the masks of '{mates[0].name}' are taken from"
            warnings.warn(f"{file} {reason} '{owner.path.name}'", stacklevel=2)
        else:
            # an annotation file may name its photo; other files have the photo of their name
            named = file.suffix.lower() in (".json", ".xml") and not (elsewhere or single)
            images.append(MaskedPhoto(file, None if named else mates[0]))
            owners |= dict.fromkeys(mates, images[-1])
    for file in others:
        if file.suffix.lower() in (".json", ".xml"):
            free = [photo for photo in photos if photo not in owners]
            entries = _of_file(file, free, single, elsewhere)
            images += entries
            owners |= {_owned(entry): entry for entry in entries}
    owners.pop(None, None)
    order = {file: number for number, file in enumerate(files)}
    images.sort(key=lambda entry: order[entry.path])
    return Found(images, owners, [photo for photo in photos if photo not in owners])


def _owned(entry: MaskedPhoto) -> Path | None:
    """The photo of an entry; of SA-1B's files the one that the file names."""
    if entry.photo is None and (head := _HEAD.match(_head(entry.path))):
        with suppress(ValueError):
            return find_photo(entry.path.parent, json.loads(head[1]).get("file_name"))
    return entry.photo


def _of_file(file: Path, photos: list[Path], single: bool, elsewhere: bool) -> list[MaskedPhoto]:
    """Images of a file that has no photo of its own name; as in `_matched`."""
    whole = MaskedPhoto(file)
    try:
        content = None if _HEAD.match(_head(file)) else _opened(file)
    except RegionError:
        content = None
    if not isinstance(content, CocoFile):
        # SA-1B's, or none that can be read, which loading it will say
        if single and _owned(whole) in photos:
            whole = MaskedPhoto(file, photos[0])
        return [] if elsewhere or (single and whole.photo is None) else [whole]
    claims: dict[int | str, list[Path]] = defaultdict(list)
    for photo in photos:
        if len(keys := content.named(photo.absolute())) == 1:
            claims[keys[0]].append(photo)
    entries, missing = [], []
    for key, image in content.images.items():
        mine, beside = claims[key], find_photo(file.parent, image.file_name)
        if len(mine) > 1 and beside not in mine:
            reason = f"the masks of '{image.file_name}' may be of {mine[0]} or {mine[1]}"
            raise AnnotationFormatError(f"{reason}; name one as PHOTO@MASKS", file)
        if mine:
            photo = beside if beside in mine else mine[0]
            entries.append(MaskedPhoto(file, photo, _name(content, key)))
        else:
            missing.append(image.file_name or str(key))
    if entries and missing and not single:
        text = f"{len(missing)} of its {len(content.images)} images have no photo here"
        warnings.warn(f"{file}: {text}: {shortened(missing)}", stacklevel=2)
    return entries if entries or single or elsewhere else _members(file)


def shortened(names: list[str], most: int = 3) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
