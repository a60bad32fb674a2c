"""A common interface to images with regions and reference captions, whatever the source.

Training, prediction and evaluation read data through it. `open_captioned` takes a text:

| text | images |
|---|---|
| `scenes:test:500` | the first 500 scenes of a split, generated on demand |
| `scenes:train:0-8000` | scenes 0 to 7999 of a split |
| a folder of `write_scenes` | its scenes, read back |
| `train.jsonl`, a folder of `ureca export` | see `published`; masks beside it, or in `masks` |
| `train.jsonl@sa1b/` | the same, with the folder of the masks (SA-1B's JSON files and photos) |
| a photo, a folder of photos, a file of masks | regions; captions if the file of masks has any |
| `photos/@masks/`, `photos/@instances.json` | the same, with masks elsewhere |
| `refcocog:umd:val:FOLDER`, `refcoco:unc:testA:FOLDER` | a split of RefCOCO(+/g), see `refcocog` |
| `visual_genome:test:FOLDER` | a split of Visual Genome, see `visual_genome` |
| `ref_l4:test:FOLDER`, `dlc_bench:FOLDER`, `gar_bench:simple:FOLDER` | see `benchmarks` |

`@PHOTOS` may follow each FOLDER, if the photos are elsewhere.

SA-1B comes from https://ai.meta.com/datasets/segment-anything: archives `sa_000000.tar` and so on,
each of about 11,000 photos `sa_N.jpg` with `sa_N.json` beside them. A folder of unpacked archives
is searched to the bottom; subfolders and links may be in it. The photos are needed for pixels only.
`ureca data --formats` lists the formats of masks; `ureca_lib.regions.sources` says which belong to
which photo.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np

from ureca_lib.mask_tree import MaskTree, RegionId, build_mask_tree
from ureca_lib.regions import Region, RegionImage, masked_photos
from ureca_lib.regions.photo import find_photo
from ureca_lib.regions.sources import find_masked, split_at, split_place
from ureca_lib.scenes import Scene, SceneSpecification, Style, generate_scene, load_scene
from ureca_lib.scenes.storage import scene_name
from ureca_lib.scenes.writing import STYLES

_SCENE_FILE = re.compile(r"scene_\d{7,}")  # as `scene_name` has it
_SCENES = re.compile(r"scenes:(?P<split>\w+)(?::(?P<first>\d+)(?:-(?P<stop>\d+))?)?")
_NO_SPLIT = ("left_out.jsonl",)  # of an export's JSONL files
INTERRUPTED = ".manifest.partial.json"  # in the folder of an export that was not completed


class CaptionedError(ValueError):
    """Data that is missing, or in no form that can be read."""


class CaptionedImage:
    """One image with its regions and their reference captions.

    Args:
        image_id: unique in its data.
        image: the photo, read at the first use of its pixels, and all of its regions.
        captions: references by region id; regions without any may be missing.
        tree: makes the mask tree, if it is known.
        scene: description of a procedural scene.
        questions: for each caption the question that it answers, in the order of `captions`;
            empty if the data set has none. Placeholders for image and mask are not in them.

    Raises:
        CaptionedError: captions of unknown regions, or not one question per caption.
    """

    def __init__(
        self,
        image_id: str,
        image: RegionImage,
        captions: Mapping[RegionId, Sequence[str]] | None = None,
        tree: Callable[[], MaskTree] | None = None,
        scene: Scene | None = None,
        questions: Mapping[RegionId, Sequence[str]] | None = None,
    ):
        self.image_id, self.image, self.scene = image_id, image, scene
        self.captions = {key: list(texts) for key, texts in (captions or {}).items()}
        self.questions = {key: list(texts) for key, texts in (questions or {}).items()}
        self._make_tree = tree or partial(build_mask_tree, image.regions)
        if unknown := set(self.captions) - {region.id for region in image}:
            raise CaptionedError(f"{image_id}: captions of regions that are not there: {unknown}")
        for key, texts in self.questions.items():
            if len(texts) != len(self.captions.get(key, ())):
                raise CaptionedError(f"{image_id}: region {key}: not one question per caption")

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, read at the first use.

        Raises:
            RegionError: there is no photo, or it cannot be read.
        """
        return self.image.pixels

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.height, self.image.width

    @property
    def regions(self) -> list[Region]:
        """All regions in file order, with and without captions."""
        return self.image.regions

    @property
    def targets(self) -> list[Region]:
        """Regions to be captioned: those with references, or all if no region has any."""
        captioned = [region for region in self.regions if self.captions.get(region.id)]
        return captioned or self.regions

    @cached_property
    def tree(self) -> MaskTree:
        """The mask tree over all regions."""
        return self._make_tree()

    @property
    def levels(self) -> dict[RegionId, int]:
        """Depth of each region in the mask tree, 1 for regions directly under the image."""
        return {region.id: self.tree.depth(region.id) for region in self.regions}

    def __repr__(self) -> str:
        count = sum(map(len, self.captions.values()))
        return f"CaptionedImage({self.image_id}, {len(self.regions)} regions, {count} captions)"


class CaptionedImages(Sequence[CaptionedImage]):
    """Images that are made or read each time they are indexed; none stays in memory.

    Args:
        ids: of the images, all different.
        load: makes the image of an id.
        name: text that opens them again, apart from a limit.
        faults: entries that are left out, by their places; readers add to it.
        count: counts what there is besides images, such as "captions".
    """

    def __init__(
        self,
        ids: Iterable[str],
        load: Callable[[str], CaptionedImage],
        name: str,
        faults: Mapping[int, ValueError] | None = None,
        count: Callable[[], dict[str, int]] = dict,
    ):
        self.ids, self.name, self._load = list(ids), name, load
        self._faults, self._count = {} if faults is None else faults, count
        if len(set(self.ids)) != len(self.ids):
            twice = next(each for each in self.ids if self.ids.count(each) > 1)
            raise CaptionedError(f"{name}: two images are named {twice}")

    @overload
    def __getitem__(self, index: int) -> CaptionedImage: ...

    @overload
    def __getitem__(self, index: slice) -> CaptionedImages: ...

    def __getitem__(self, index: int | slice) -> CaptionedImage | CaptionedImages:
        if isinstance(index, slice):
            return CaptionedImages(self.ids[index], self._load, self.name, self._faults)
        return self._load(self.ids[index])

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"CaptionedImages({self.name}, {len(self)} images)"

    def __iter__(self) -> Iterator[CaptionedImage]:
        return (self._load(image_id) for image_id in self.ids)

    @property
    def left_out(self) -> list[ValueError]:
        """Reasons of the entries that are left out, in file order."""
        return [self._faults[place] for place in sorted(self._faults)]

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of images, and of what the reader counts besides, such as captions."""
        return {"images": len(self), **self._count()}


@dataclass(frozen=True)
class OpenOptions:
    """Arguments of `open_captioned` that openers get."""

    limit: int | None = None
    style: Style = "phrase"
    masks: str | Path | None = None
    strict: bool = True
    boxes: bool = False


Opener = Callable[[str, OpenOptions], CaptionedImages]
# by the scheme before a text's first colon, or the suffix of a file; readers add theirs
OPENERS: dict[str, Opener] = {}
JSONL = ".jsonl"
# texts that open what is in a folder, for `ureca data`; readers add theirs
FINDERS: list[Callable[[Path], Iterable[str]]] = []


def open_captioned(
    data: str | Path,
    limit: int | None = None,
    style: Style = "phrase",
    masks: str | Path | None = None,
    strict: bool = True,
    boxes: bool = False,
) -> CaptionedImages:
    """Open captioned images; see the module for the forms of `data`.

    Args:
        data: a text or a path.
        limit: only the first so many images.
        style: of the scenes' captions: "phrase", "minimal" or "sentence".
        masks: folder of a JSONL's masks and photos, by default the JSONL's own; of photos a file or
            folder of masks elsewhere; for RefCOCOg and Visual Genome the folder of the photos.
        strict: False leaves out faulty masks, and faulty rows of a JSONL (which is then read
            through once before this returns).
        boxes: read boxes as regions where a file has no masks.

    Returns:
        A sequence that reads an image each time it is indexed, in a stable order.

    Raises:
        CaptionedError: `data` is in no such form, is empty, or names several files.
        FileNotFoundError: no such file or folder. RegionError: a faulty file, at
            once or when the image is read. ValueError: a bad limit, style or split.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
    options = OpenOptions(limit, style, masks, strict, boxes)
    text = str(data)
    scheme, colon, _ = text.partition(":")
    found = OPENERS.get(scheme if colon else "", _open_path)(text, options)
    if not len(found):
        first = f", such as {found.left_out[0]}" if found.left_out else ""
        raise CaptionedError(
            f"{text}: there are no images; {len(found.left_out):,} entries left out{first}"
        )
    return found if limit is None or len(found) <= limit else found[:limit]


def from_scene(scene: Scene, style: Style = "phrase") -> CaptionedImage:
    """Wrap a procedural scene; each caption is unique in it."""
    captions = {region_id: [text] for region_id, text in scene.captions_in(style).items()}
    name = scene_name(scene.seed)
    return CaptionedImage(name, scene.regions, captions, lambda: scene.tree, scene)


def _open_scenes(text: str, options: OpenOptions) -> CaptionedImages:
    match = _SCENES.fullmatch(text)
    if not match:
        raise CaptionedError(f"{text!r}: scenes are scenes:SPLIT, :SPLIT:COUNT or :SPLIT:FROM-TO")
    first, stop = match["first"], match["stop"]
    count = stop or first
    seeds = SceneSpecification().seeds(match["split"], None if count is None else int(count))
    names = {scene_name(seed): seed for seed in seeds[int(first) if stop else 0 :]}

    def load(name: str) -> CaptionedImage:
        return from_scene(generate_scene(names[name]), options.style)

    return CaptionedImages(names, load, text)


OPENERS["scenes"] = _open_scenes


def split_masks(text: str, masks: str | Path | None = None) -> tuple[Path, Path]:
    """Split `train.jsonl@sa1b/` into the JSONL and the folder of its masks, by default its own."""
    name, named, folder = text.partition(".jsonl@")  # an @ may be in a folder's name too
    path = Path(f"{name}.jsonl" if named else text)
    return path, Path(folder or masks or path.parent)


def _open_path(text: str, options: OpenOptions) -> CaptionedImages:
    """Open a JSONL, an SA-1B JSON, a stored scene, or a folder of one of these."""
    path, _ = split_masks(text)
    if path.suffix != ".jsonl":
        text = text if options.masks is None else f"{text}@{options.masks}"
        path, _ = split_at(text)
    if not split_place(path)[0].exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.is_dir() and (splits := jsonl_files(path)):
        if len(splits) > 1:
            names = ", ".join(map(str, splits))
            raise CaptionedError(f"{path}: holds {len(splits)} splits; name one of {names}")
        path, text = splits[0], str(splits[0])
    if path.suffix == ".jsonl" and path.with_name(INTERRUPTED).exists():
        raise CaptionedError(f"{path.parent}: the export was interrupted; run ureca export again")
    if path.suffix == ".jsonl":
        return OPENERS[JSONL](text, options)
    root = path if path.is_dir() else path.parent
    named = {
        Path(os.path.relpath(photo.place, root)).as_posix(): photo for photo in masked_photos(text)
    }
    by_key = {key: named[name] for name, key in image_keys(named).items()}

    def load(key: str) -> CaptionedImage:
        if _SCENE_FILE.fullmatch(by_key[key].path.stem):
            return from_scene(load_scene(by_key[key].path), options.style)
        image = by_key[key].load(options.strict, options.boxes)
        captions = {region.id: [region.caption] for region in image if region.caption}
        return CaptionedImage(key, image, captions)

    def count() -> dict[str, int]:
        owned = {*find_masked(text).owners.values()}
        alone = [photo for photo in by_key.values() if photo not in owned]
        beside = (find_photo(photo.path.parent, None, photo.path.stem) for photo in alone)
        return {"photos missing": sum(photo is None for photo in beside)}

    return CaptionedImages(by_key, load, text, count=count)


def jsonl_files(folder: Path) -> list[Path]:
    """List the splits of an export's folder, or of another that has captions at its top.

    Files that `ureca caption` and `ureca predict` wrote beside photos are no data sets.
    """
    return sorted(
        file
        for file in folder.glob("*.jsonl")
        if not (file.name in _NO_SPLIT or file.name.startswith("."))
        and not file.name.endswith(".captions.jsonl")
        and not file.with_suffix(".meta.json").exists()
    )


def image_keys(names: Iterable[str]) -> dict[str, str]:
    """Map the names of images, which are paths, to the shortest keys that differ.

    A key is the stem, else the path without suffix and leading `..`, else with those, else the
    name.
    """
    forms = {name: _key_forms(PurePosixPath(name), name) for name in names}
    counts = [Counter(column) for column in zip(*forms.values(), strict=True)]
    keys = {
        name: next(form for form, count in zip(columns, counts, strict=True) if count[form] == 1)
        for name, columns in forms.items()
    }
    # a key may be another image's key of another form
    return keys if len(set(keys.values())) == len(keys) else {name: name for name in forms}


def _key_forms(path: PurePosixPath, name: str) -> tuple[str, ...]:
    bare = path.with_suffix("") if path.name else path
    inside = PurePosixPath(*(part for part in bare.parts if part != ".."))
    return path.stem, inside.as_posix(), bare.as_posix(), name
