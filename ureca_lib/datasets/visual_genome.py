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

Texts are `visual_genome:SPLIT:FOLDER`, with the split "train", "val", "test", or "all" for every
image of the data set's own files; FOLDER may be a file of GRiT's layout, whatever its name.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ureca_lib.datasets.rows import stream_items
from ureca_lib.datasets.zero_shot import (
    ListedImage,
    ListedRegion,
    Listing,
    check_split,
    coco_images,
    reads,
    stated_id,
)
from ureca_lib.regions import AnnotationFormatError, RegionError
from ureca_lib.regions.sa1b import get, image_size, need_object, read_json

MAX_WORDS = 15  # GRiT's preparation of Visual Genome; DenseCap's own code takes 25
REGIONS, IMAGES, SPLITS = "region_descriptions.json", "image_data.json", "densecap_splits.json"
# as words, so that no metric trips over them; accents are dropped
_SYMBOLS = {"½": "half", "°": " degree", "¢": "cent", "—": "-", "™": "", "…": ""}
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _find(folder: Path) -> list[str]:
    parts = [part for part in ("train", "test") if (folder / f"{part}.json").is_file()]
    if (folder / REGIONS).is_file():
        parts = ["train", "val", "test"] if (folder / SPLITS).is_file() else ["test", "all"]
    return [f"visual_genome:{part}:{folder}" for part in parts]


@reads("visual_genome:SPLIT:FOLDER", find=_find)
def read(listing: Listing) -> Iterable[ListedImage]:
    """Read a split: boxes as regions, each with its phrase; see the module.

    Raises:
        CaptionedError: no such split.
        RegionError: a file that is missing, truncated or malformed, naming it and the id.
    """
    (split,), data = listing.parts, listing.folder
    if (data / REGIONS).is_file():
        return _own_files(listing, split)
    path = data / f"{split}.json" if data.is_dir() else data
    return coco_images(listing, path, _captioned_box)


def _captioned_box(item: Mapping[str, Any]) -> ListedRegion:
    caption = get(item, "caption", str).strip()
    return ListedRegion(get(item, "id", int), [caption], get(item, "bbox", list))


def densecap_words(phrase: str) -> list[str]:
    """Split a phrase into words: lower case, symbols as words, no accents or punctuation."""
    for symbol, word in _SYMBOLS.items():
        phrase = phrase.replace(symbol, word)
    plain = unicodedata.normalize("NFKD", phrase)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain.lower().translate(_PUNCTUATION).split()


def _own_files(listing: Listing, split: str) -> Iterator[ListedImage]:
    """Read the data set's own files, an image at a time."""
    folder, seen = listing.folder, set[int]()
    wanted = None if split == "all" else _split_ids(folder / SPLITS, split)
    about: dict[int, tuple[tuple[int, int], str]] = {}
    for item in stream_items(folder / IMAGES, "item"):
        with listing.entry(folder / IMAGES, stated_id(item)):
            size, image_id = image_size(item), _either(item, "image_id", "id")
            url = item.get("url")
            # of https://.../VG_100K_2/1.jpg the folder and the file
            steps = re.split(r"[\\/]", url)[-2:] if isinstance(url, str) else []
            if wanted is None or image_id in wanted:
                about[image_id] = size, "/".join(steps) or f"{image_id}.jpg"
    path = folder / REGIONS
    for entry in stream_items(path, "item"):
        with listing.entry(path, stated_id(entry)):
            need_object(entry)
            image_id = _either(entry, "image_id", "id")
            if wanted is not None and image_id not in wanted:
                continue
            if image_id in seen:
                raise AnnotationFormatError(f"image {image_id} is there twice")
            if image_id not in about:
                raise AnnotationFormatError(f"{IMAGES} has no image {image_id}")
            seen.add(image_id)
            items, image = (
                get(entry, "regions", list),
                listing.image(image_id, *about[image_id], path),
            )
            for item in items:
                with listing.entry(path, stated_id(item)):
                    listing.add(image, _region(item))
            yield image


def _region(item: Any) -> ListedRegion:
    need_object(item)
    words = densecap_words(get(item, "phrase", str))
    if len(words) > MAX_WORDS:
        raise RegionError(f"the phrase has {len(words)} words, more than {MAX_WORDS}")
    box = [get(item, side, (int, float)) for side in ("x", "y", "width", "height")]
    return ListedRegion(_either(item, "region_id", "id"), [" ".join(words)], box)


def _split_ids(path: Path, split: str) -> set[int]:
    splits = {name: ids for name, ids in read_json(path).items() if isinstance(ids, list)}
    check_split(path, split, {name: len(ids) for name, ids in splits.items()})
    return {number for number in splits[split] if isinstance(number, int)}


def _either(entry: Mapping[str, Any], key: str, old: str) -> int:
    """Return the id under its name, or under that of version 1.0."""
    return get(entry, key if key in entry or old not in entry else old, int)
