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

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ureca_lib.datasets.captioned import OpenOptions, opens
from ureca_lib.datasets.zero_shot import (
    Entries,
    LazyImage,
    LazyImages,
    LazyRegion,
    RegionSet,
    check_box,
    check_split,
    parse_text,
    photo_finder,
    stream_items,
)
from ureca_lib.regions import (
    AnnotationFormatError,
    FileMissingError,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.sa1b import get, image_size, need_object, read_json

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
    data, entries = Path(data), Entries(strict)
    if data.is_dir() and (data / REGIONS).is_file():
        path, found = data / REGIONS, _own_files(data, split, images, entries)
    else:
        path = data / f"{split}.json" if data.is_dir() else data
        if data.is_dir() and not path.is_file():
            raise FileMissingError(f"there is neither {REGIONS} nor {path.name}", data)
        found = _coco_like(path, images, entries)
    opened = f"visual_genome:{split}", data, images
    return LazyImages(found, entries, path, opened, regions, limit)


def densecap_words(phrase: str) -> list[str]:
    """Split a phrase into words: lower case, symbols as words, no accents or punctuation."""
    for symbol, word in _SYMBOLS.items():
        phrase = phrase.replace(symbol, word)
    plain = unicodedata.normalize("NFKD", phrase)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain.lower().translate(_PUNCTUATION).split()


def _own_files(
    folder: Path, split: str, images: str | Path | None, entries: Entries
) -> Iterator[LazyImage]:
    """Read the data set's own files, an image at a time."""
    wanted = None if split == "all" else _split_ids(folder / SPLITS, split)
    find = photo_finder(folder, images, _PHOTOS, _PARTS)
    path, seen = folder / REGIONS, set[int]()

    def photo(item: Any) -> tuple[int, tuple[int, int, str]]:
        """Id, and width, height and file name."""
        width, height = image_size(item)
        url = item.get("url")
        # of https://.../VG_100K_2/1.jpg the folder and the file
        steps = re.split(r"[\\/]", url)[-2:] if isinstance(url, str) else []
        image_id = _either(item, "image_id", "id")
        return image_id, (width, height, "/".join(steps) or f"{image_id}.jpg")

    def image(entry: Any) -> tuple[LazyImage, list[Any]] | None:
        """An image and its regions as they are in the file; None if it is of another split."""
        need_object(entry)
        image_id = _either(entry, "image_id", "id")
        if wanted is not None and image_id not in wanted:
            return None
        if image_id in seen:
            raise AnnotationFormatError(f"image {image_id} is there twice")
        if image_id not in about:
            raise AnnotationFormatError(f"{IMAGES} has no image {image_id}")
        seen.add(image_id)
        width, height, name = about[image_id]
        listed = get(entry, "regions", list)
        return LazyImage(str(image_id), width, height, name, find(name)), listed

    def region(item: Any) -> LazyRegion:
        need_object(item)
        words = densecap_words(get(item, "phrase", str))
        if len(words) > MAX_WORDS:
            raise RegionError(f"the phrase has {len(words)} words, more than {MAX_WORDS}")
        box = [get(item, side, (int, float)) for side in ("x", "y", "width", "height")]
        return LazyRegion(_either(item, "region_id", "id"), [" ".join(words)], box)

    photos = stream_items(folder / IMAGES, "item")
    about = {
        image_id: rest
        for image_id, rest in entries.built(folder / IMAGES, photos, photo)
        if wanted is None or image_id in wanted
    }
    found = entries.built(path, stream_items(path, "item"), image)
    for lazy, listed in filter(None, found):
        list(entries.built(path, listed, lambda item, lazy=lazy: _add(lazy, region(item))))
        yield lazy


def _split_ids(path: Path, split: str) -> set[int]:
    if not path.is_file():
        raise FileMissingError(
            "there is no such file: it comes with DenseCap (info/densecap_splits.json); "
            "split 'all' does without",
            path,
        )
    splits = {name: ids for name, ids in read_json(path).items() if isinstance(ids, list)}
    check_split(path, split, {name: len(ids) for name, ids in splits.items()})
    return {number for number in splits[split] if isinstance(number, int)}


def _either(entry: Mapping[str, Any], key: str, old: str) -> int:
    """Return the id under its name, or under that of version 1.0."""
    return get(entry, key if key in entry or old not in entry else old, int)


def _coco_like(path: Path, images: str | Path | None, entries: Entries) -> Iterable[LazyImage]:
    """Read the images of a file in GRiT's layout in file order, entries of one photo as one."""
    find = photo_finder(path.parent, images, _PHOTOS, _PARTS)
    by_id: dict[int, LazyImage] = {}
    by_file: dict[str, LazyImage] = {}

    def image(item: Any) -> None:
        width, height = image_size(item)
        image_id, name = get(item, "id", int), get(item, "file_name", str)
        if image_id in by_id and by_id[image_id].file_name != name:
            other = by_id[image_id].file_name
            raise AnnotationFormatError(f"an image before it, {other}, has this id")
        if name not in by_file:
            by_file[name] = LazyImage(str(image_id), width, height, name, find(name))
        found = by_id[image_id] = by_file[name]
        if (found.width, found.height) != (width, height):
            raise SizeMismatchError(
                f"{name} is {width} x {height} here and {found.width} x {found.height} before"
            )

    def region(item: Any) -> None:
        need_object(item)
        image_id = get(item, "image_id", int)
        if image_id not in by_id:
            raise AnnotationFormatError(f"there is no image {image_id}")
        caption = get(item, "caption", str).strip()
        found = LazyRegion(get(item, "id", int), [caption], get(item, "bbox", list))
        _add(by_id[image_id], found)

    for prefix, build in (("images.item", image), ("annotations.item", region)):
        list(entries.built(path, stream_items(path, prefix), build))
    return by_file.values()


def _add(image: LazyImage, region: LazyRegion) -> None:
    """Add a region to its image, or raise the reason why it is left out."""
    if not region.texts[0]:
        raise RegionError("the phrase is empty")
    if any(other.id == region.id for other in image.regions):
        raise AnnotationFormatError(f"image {image.key} has this region twice")
    check_box(region.box, image.height, image.width)
    image.regions.append(region)
