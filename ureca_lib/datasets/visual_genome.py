"""Visual Genome: a phrase for each of some fifty boxes of an image (Krishna et al. 2016).

It comes from https://homes.cs.washington.edu/~ranjay/visualgenome/api.html; the photos are its
`images.zip` and `images2.zip`, folders `VG_100K` and `VG_100K_2`. Two layouts are read:

- a folder of the data set's own files, of versions 1.0 to 1.4: `region_descriptions.json` and
  `image_data.json`, with `densecap_splits.json` (Johnson et al. 2016,
  https://github.com/jcjohnson/densecap, `info/`), which says which 77,398, 5,000 and 5,000 images
  are train, val and test. Version 1.0 calls an image `id`, later ones `image_id`, and so with
  regions; `phrase` is always the text;
- a COCO-like file of boxes with captions, `train.json` or `test.json`, as GRiT (Wu et al. 2022,
  https://github.com/JialianW/GRiT) publishes them: images with `id`, `file_name`, `width`,
  `height`, and annotations with `id`, `image_id`, `bbox` and `caption`. If each region has an image
  entry of its own, entries of the same file become one image.

GRiT's stated preparation is applied to the first layout too: phrases of more than 15 words are
left out, symbols become words, and words are split as DenseCap splits them. Boxes are taken as
zero-based and clipped to the image; one without a pixel in it is left out. `left_out` lists all
that is left out with its reason.

Memory: files are streamed (`region_descriptions.json` has 700 MB). Only the chosen split stays, 460
bytes per region: 115 MB for 5,000 images of 50 regions, measured on random files of that layout.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ureca_lib.datasets.captioned import CaptionedError, OpenOptions, opens
from ureca_lib.datasets.zero_shot import (
    Faults,
    LazyImage,
    LazyImages,
    LazyRegion,
    RegionSet,
    check_box,
    dataset_name,
    parse_text,
    photo_finder,
    select_images,
    stream_items,
)
from ureca_lib.regions import (
    AnnotationFormatError,
    EmptyMaskError,
    FileMissingError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.rle import MAX_PIXELS
from ureca_lib.regions.sa1b import get, image_size, need_object

MAX_WORDS = 15  # GRiT's preparation of Visual Genome; DenseCap's own code takes 25
REGIONS, IMAGES, SPLITS = "region_descriptions.json", "image_data.json", "densecap_splits.json"
# folders of the photos, seen from the annotations, and their parts
_PHOTOS = (".", "images", "../images", "../photos", "../../photos")
_PARTS = ("VG_100K", "VG_100K_2")
# as words, so that no metric trips over them; accents are dropped
_SYMBOLS = {"½": "half", "°": " degree", "¢": "cent", "—": "-", "™": "", "…": ""}
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@opens("visual_genome")
def _open(text: str, options: OpenOptions) -> LazyImages:
    (split,), regions, data, photos = parse_text(text, "visual_genome:SPLIT:FOLDER", options.masks)
    return visual_genome_captioned(
        data, split, photos, options.limit, regions, strict=options.strict
    )


def visual_genome_captioned(
    data: str | Path,
    split: str = "test",
    images: str | Path | None = None,
    limit: int | None = None,
    regions: RegionSet = "all",
    strict: bool = True,
) -> LazyImages:
    """Read a split of Visual Genome: boxes as regions, each with its phrase.

    Args:
        data: a folder of the data set's own files; a folder of `SPLIT.json` in the layout of GRiT;
            or a file of that layout, whatever its name.
        split: "train", "val" or "test"; "all" takes every image of the data set's own files.
        images: folder of the photos (of `VG_100K` and `VG_100K_2`, or of the files themselves);
            by default they are looked for in and beside `data`.
        limit: only the first so many images; no more is read than they need.
        regions: only images with one region ("single"), or with more ("multi").
        strict: False leaves out malformed entries too, and lists them.

    Returns:
        Images named by their ids, in file order; `left_out` lists what is not in them.

    Raises:
        CaptionedError: no such split, or no regions. ValueError: a bad limit or region set.
        RegionError: a file that is missing, truncated or malformed, naming it and the id.
    """
    data, faults = Path(data), Faults(strict)
    if data.is_dir() and (data / REGIONS).is_file():
        path, found = data / REGIONS, _own_files(data, split, images, faults)
    else:
        path = data / f"{split}.json" if data.is_dir() else data
        if data.is_dir() and not path.is_file():
            raise FileMissingError(f"there is neither {REGIONS} nor {path.name}", data)
        found = iter(_coco_like(path, images, faults))
    selected = select_images(found, regions, limit)
    name = dataset_name("visual_genome", split, regions, data, images)
    return LazyImages(selected, name, path, faults.left_out)


def densecap_words(phrase: str) -> list[str]:
    """Split a phrase into words: lower case, symbols as words, no accents or punctuation."""
    for symbol, word in _SYMBOLS.items():
        phrase = phrase.replace(symbol, word)
    plain = unicodedata.normalize("NFKD", phrase)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain.lower().translate(_PUNCTUATION).split()


def _own_files(
    folder: Path, split: str, images: str | Path | None, faults: Faults
) -> Iterator[LazyImage]:
    wanted = None if split == "all" else _split_ids(folder / SPLITS, split)
    find = photo_finder(folder, images, _PHOTOS, _PARTS)
    about = _image_data(folder / IMAGES, wanted)
    path, seen = folder / REGIONS, set[int]()
    for entry in stream_items(path, "item"):
        try:
            need_object(entry)
            image_id = _either(entry, "image_id", "id")
            if wanted is not None and image_id not in wanted:
                continue
            if image_id in seen:
                raise AnnotationFormatError(f"image {image_id} is there twice")
            if image_id not in about:
                raise AnnotationFormatError(f"{IMAGES} has no image {image_id}")
            listed = get(entry, "regions", list)
        except RegionError as error:
            faults.malformed(error.located(path))
            continue
        seen.add(image_id)
        width, height, name = about[image_id]
        image = LazyImage(str(image_id), width, height, name, find(name))
        for item in listed:
            _add_region(image, item, path, faults, _own_region)
        yield image


def _own_region(item: Any) -> LazyRegion:
    need_object(item)
    region_id, words = _either(item, "region_id", "id"), densecap_words(get(item, "phrase", str))
    box = [get(item, side, (int, float)) for side in ("x", "y", "width", "height")]
    if len(words) > MAX_WORDS:
        raise RegionError(f"the phrase has {len(words)} words, more than {MAX_WORDS}")
    return LazyRegion(region_id, [" ".join(words)], box)


def _split_ids(path: Path, split: str) -> set[int]:
    try:
        splits = json.loads(path.read_text(encoding="utf-8-sig"))
        counts = {name: len(ids) for name, ids in splits.items()}
    except FileNotFoundError:
        raise FileMissingError(
            "there is no such file: it comes with DenseCap (info/densecap_splits.json); "
            "split 'all' does without",
            path,
        ) from None
    except (OSError, ValueError, RecursionError, AttributeError, TypeError) as error:
        raise AnnotationFormatError(f"not an object of lists of ids ({error})", path) from None
    if split not in splits:
        known = ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"
        raise CaptionedError(f"{path}: there is no split {split!r}; there are {known}")
    return {number for number in splits[split] if isinstance(number, int)}


def _image_data(path: Path, wanted: set[int] | None) -> dict[int, tuple[int, int, str]]:
    """(width, height, file name) of the wanted images."""
    found: dict[int, tuple[int, int, str]] = {}
    for item in stream_items(path, "item"):
        try:
            need_object(item)
            image_id = _either(item, "image_id", "id")
            if wanted is None or image_id in wanted:
                width, height = image_size(item, MAX_PIXELS)
                url = item.get("url")
                # of https://.../VG_100K_2/1.jpg the folder and the file
                steps = re.split(r"[\\/]", url)[-2:] if isinstance(url, str) else []
                found[image_id] = width, height, "/".join(steps) or f"{image_id}.jpg"
        except RegionError as error:
            raise error.located(path, _stated_id(item)) from None
    return found


def _either(entry: Mapping[str, Any], key: str, old: str) -> int:
    """Return the id under its name, or under that of version 1.0."""
    return get(entry, key if key in entry or old not in entry else old, int)


def _coco_like(path: Path, images: str | Path | None, faults: Faults) -> list[LazyImage]:
    """Read the images of a file in GRiT's layout in file order, entries of one photo as one."""
    find = photo_finder(path.parent, images, _PHOTOS, _PARTS)
    by_id: dict[int, LazyImage] = {}
    by_file: dict[str, LazyImage] = {}
    for item in stream_items(path, "images.item"):
        try:
            width, height = image_size(item, MAX_PIXELS)
            image_id, name = get(item, "id", int), get(item, "file_name", str)
            if image_id in by_id and by_id[image_id].file_name != name:
                other = by_id[image_id].file_name
                raise AnnotationFormatError(f"an image before it, {other}, has this id")
            if name not in by_file:
                by_file[name] = LazyImage(str(image_id), width, height, name, find(name))
            image = by_id[image_id] = by_file[name]
            if (image.width, image.height) != (width, height):
                raise SizeMismatchError(
                    f"{name} is {width} x {height} here and {image.width} x {image.height} before"
                )
        except RegionError as error:
            faults.malformed(error.located(path, _stated_id(item)))
    for item in stream_items(path, "annotations.item"):
        try:
            need_object(item)
            image_id = get(item, "image_id", int)
            if image_id not in by_id:
                raise AnnotationFormatError(f"there is no image {image_id}")
        except RegionError as error:
            faults.malformed(error.located(path, _stated_id(item)))
        else:
            _add_region(by_id[image_id], item, path, faults, _coco_region)
    return list(by_file.values())


def _coco_region(item: Mapping[str, Any]) -> LazyRegion:
    caption = get(item, "caption", str).strip()
    return LazyRegion(get(item, "id", int), [caption], get(item, "bbox", list))


def _add_region(
    image: LazyImage, item: Any, path: Path, faults: Faults, build: Callable[[Any], LazyRegion]
) -> None:
    """Add a region to its image, or to the faults the reason why it is left out."""
    try:
        region = build(item)
        if not region.texts[0]:
            raise RegionError("the phrase is empty")
        if any(other.id == region.id for other in image.regions):
            raise AnnotationFormatError(f"image {image.key} has this region twice")
        check_box(region.box, image.height, image.width)
        image.regions.append(region)
    except RegionError as error:
        placed = error.located(path, _stated_id(item))
        # the plain class is the protocol's; the data set has boxes outside of their images
        if type(error) in (RegionError, EmptyMaskError):
            faults.left_out.append(placed)
        else:
            faults.malformed(placed)


def _stated_id(item: Any) -> int | None:
    """Return the id that an entry states, for errors."""
    value = item.get("region_id", item.get("id")) if isinstance(item, Mapping) else None
    return value if isinstance(value, int) else None
