"""Visual Genome: a phrase for each of some fifty boxes of an image (Krishna et al. 2016).

Two forms are read:

- the data set's own files, of versions 1.0 to 1.4: `region_descriptions.json` and
  `image_data.json`, with `densecap_splits.json` (Johnson et al. 2016), which says which 77,398,
  5,000 and 5,000 images are train, val and test. Version 1.0 calls an image `id`, later ones
  `image_id`, and so with regions; `phrase` is always the text;
- a COCO-like file of boxes with captions, as GRiT (Wu et al. 2022) publishes its `train.json` and
  `test.json`; see `ureca_lib.datasets.region_captions`.

What GRiT says of its preparation is done to the first form too: phrases of more than 15 words are
left out, symbols become words, and words are split as DenseCap splits them. Boxes are taken as
zero-based and clipped to the image; one without a pixel in it is left out. Everything that is left
out is listed with its reason.

Memory: files are streamed. What is kept is the chosen split, 460 bytes a region: 115 MB for 5,000
images of 50 regions, measured on random files of that form. `image_data.json` and
`region_descriptions.json` (700 MB) are never in memory as a whole.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ureca_lib.datasets.captioned import CaptionedError
from ureca_lib.datasets.described import (
    DescribedImage,
    DescribedImages,
    DescribedRegion,
    RegionSet,
    chosen,
    opened_as,
)
from ureca_lib.datasets.json_stream import stream_json
from ureca_lib.datasets.region_captions import (
    LeftOutError,
    Notes,
    add_region,
    coco_like,
    photo_finder,
    stated_id,
)
from ureca_lib.regions import (
    AnnotationFormatError,
    DuplicateIdError,
    FileMissingError,
    MissingKeyError,
    RegionError,
)
from ureca_lib.regions.parsing import get, image_size, need_object
from ureca_lib.regions.rle import MAX_PIXELS

MAX_WORDS = 15  # GRiT's preparation of Visual Genome; DenseCap's own code takes 25
REGIONS, IMAGES, SPLITS = "region_descriptions.json", "image_data.json", "densecap_splits.json"
# as words, so that no metric trips over them; accents are dropped
_SYMBOLS = {"½": "half", "°": " degree", "¢": "cent", "—": "-", "™": "", "…": ""}
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def visual_genome_captioned(
    data: str | Path,
    split: str = "test",
    images: str | Path | None = None,
    limit: int | None = None,
    regions: RegionSet = "all",
    raw: bool = False,
    strict: bool = True,
) -> DescribedImages:
    """A split of Visual Genome: boxes as regions, each with its phrase.

    Args:
        data: a folder of the data set's own files; a folder of `SPLIT.json` in the form of GRiT;
            or a file of that form, whatever its name.
        split: "train", "val" or "test"; "all" takes every image of the data set's own files.
        images: folder of the photos (of `VG_100K` and `VG_100K_2`, or of the files themselves);
            by default they are looked for in and beside `data`.
        limit: only the first so many images, for which no more is read than is needed.
        regions: only images with one region ("single"), or with more ("multi").
        raw: keep phrases of the data set's own files as they are, long ones too.
        strict: False leaves out entries that are malformed too, and lists them.

    Returns:
        Images named by their ids, in file order; `left_out` lists what is not in them.

    Raises:
        CaptionedError: no such split, or no regions. ValueError: a bad limit or region set.
        RegionError: a file that is missing, truncated or malformed, naming it and the id.
    """
    data = Path(data)
    notes = Notes(strict)
    if data.is_dir() and (data / REGIONS).is_file():
        path, found = data / REGIONS, _own_files(data, split, images, raw, notes)
    else:
        path = data / f"{split}.json" if data.is_dir() else data
        if data.is_dir() and not path.is_file():
            raise FileMissingError(f"there is neither {REGIONS} nor {path.name}", data)
        found = iter(coco_like(path, photo_finder(path.parent, images), notes))
    picked = chosen(found, regions, limit)
    name = f"visual_genome:{opened_as(split, regions, data, images)}"
    return DescribedImages(picked, name, path, True, notes.left_out)


def densecap_words(phrase: str) -> list[str]:
    """A phrase as words: lower case, symbols said, accents and punctuation dropped."""
    for symbol, word in _SYMBOLS.items():
        phrase = phrase.replace(symbol, word)
    plain = unicodedata.normalize("NFKD", phrase)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain.lower().translate(_PUNCTUATION).split()


def _own_files(
    folder: Path, split: str, images: str | Path | None, raw: bool, notes: Notes
) -> Iterator[DescribedImage]:
    wanted = None if split == "all" else _ids_of(folder / SPLITS, split)
    find = photo_finder(folder, images)
    about = _image_data(folder / IMAGES, wanted)
    path, seen = folder / REGIONS, set()
    for key, entry in stream_json(path):
        if key is not None:
            raise AnnotationFormatError("the file holds an object, not a list of images", path)
        try:
            need_object(entry)
            image_id = _either(entry, "image_id", "id")
            if wanted is not None and image_id not in wanted:
                continue
            if image_id in seen:
                raise DuplicateIdError(f"image {image_id} is there twice")
            if image_id not in about:
                raise MissingKeyError(f"{IMAGES} has no image {image_id}")
            listed = get(entry, "regions", list)
        except RegionError as error:
            notes.malformed(error.located(path))
            continue
        seen.add(image_id)
        width, height, name = about[image_id]
        image = DescribedImage(str(image_id), width, height, name, find(name))
        for item in listed:
            add_region(image, item, path, notes, lambda item: _own_region(item, raw))
        yield image


def _own_region(item: Any, raw: bool) -> DescribedRegion:
    need_object(item)
    region_id, phrase = _either(item, "region_id", "id"), get(item, "phrase", str)
    box = [get(item, side, (int, float)) for side in ("x", "y", "width", "height")]
    if raw:
        return DescribedRegion(region_id, [phrase.strip()], box)
    words = densecap_words(phrase)
    if len(words) > MAX_WORDS:
        raise LeftOutError(f"the phrase has {len(words)} words, more than {MAX_WORDS}")
    return DescribedRegion(region_id, [" ".join(words)], box)


def _ids_of(path: Path, split: str) -> set[int]:
    if not path.is_file():
        raise FileMissingError(
            "there is no such file: it comes with DenseCap (info/densecap_splits.json); "
            "split 'all' does without",
            path,
        )
    splits: dict[str, set[int]] = {}
    for key, item in stream_json(path):
        if key is not None and isinstance(item, int):
            splits.setdefault(key, set()).add(item)
    if split not in splits:
        there = ", ".join(f"{name} ({len(ids):,})" for name, ids in splits.items()) or "none"
        raise CaptionedError(f"{path}: there is no split {split!r}; there are {there}")
    return splits[split]


def _image_data(path: Path, wanted: set[int] | None) -> dict[int, tuple[int, int, str]]:
    """(width, height, file name) of the wanted images."""
    found: dict[int, tuple[int, int, str]] = {}
    for key, item in stream_json(path):
        if key is not None:
            raise AnnotationFormatError("the file holds an object, not a list of images", path)
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
            raise error.located(path, stated_id(item)) from None
    return found


def _either(entry: Mapping[str, Any], key: str, old: str) -> int:
    """The id under its name, or under that of version 1.0."""
    return get(entry, key if key in entry or old not in entry else old, int)
