"""Images with their regions and reference captions, whatever they come from.

What training, prediction and evaluation read. `open_captioned` takes one text:

| text | images |
|---|---|
| `scenes:test:500` | the first 500 scenes of a split, generated when asked for |
| `scenes:train:0-8000` | scenes 0 to 7999 of a split |
| a folder of `write_scenes` | its scenes, read back |
| `train.jsonl`, a folder of `ureca export` | the published layout; masks beside it, or in `masks` |
| `train.jsonl@sa1b/` | the same, with the folder of the masks (SA-1B's JSON files and photos) |
| an SA-1B JSON file, a photo beside one, a folder of them | regions without captions |
| `refcocog:umd:val:FOLDER` | a split of RefCOCOg; `@PHOTOS` behind it where they lie elsewhere |
| `visual_genome:test:FOLDER` | a split of Visual Genome; see `ureca_lib.datasets.zero_shot` |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import overload

import numpy as np

from ureca_lib.datasets.published import (
    PublishedDataset,
    PublishedImage,
    image_keys,
    published_keys,
)
from ureca_lib.mask_tree import MaskTree, RegionId, build_mask_tree
from ureca_lib.regions import Region, RegionImage, load_sa1b
from ureca_lib.regions.folders import annotation_files
from ureca_lib.regions.photo import PHOTO_SUFFIXES
from ureca_lib.scenes import Scene, SceneSpecification, Style, generate_scene, load_scene
from ureca_lib.scenes.storage import scene_name
from ureca_lib.scenes.writing import STYLES

_SCENE_FILE = re.compile(r"scene_\d{7,}")  # as `scene_name` has it
_SCENES = re.compile(r"scenes:(?P<split>\w+)(?::(?P<first>\d+)(?:-(?P<stop>\d+))?)?")
_NO_SPLIT = ("left_out.jsonl",)  # of an export's JSONL files


class CaptionedError(ValueError):
    """Data that is not there, or that is not of a kind that can be read."""


class CaptionedImage:
    """One image with its regions and their reference captions.

    Args:
        image_id: unique in its data.
        image: the photo, read when its pixels are asked for, and its regions.
        captions: for each region's id its references; regions without any may be missing.
        tree: makes the mask tree, where it is known or has more regions than `image`.
        scene: what it was made of, for a procedural scene.
    """

    def __init__(
        self,
        image_id: str,
        image: RegionImage,
        captions: Mapping[RegionId, Sequence[str]] | None = None,
        tree: Callable[[], MaskTree] | None = None,
        scene: Scene | None = None,
    ):
        self.image_id, self.image, self.scene = image_id, image, scene
        self.captions = {key: list(texts) for key, texts in (captions or {}).items()}
        self._make_tree = tree or partial(build_mask_tree, image.regions)
        if unknown := set(self.captions) - {region.id for region in image}:
            raise CaptionedError(
                f"{image_id}: captions of regions that it does not have: {unknown}"
            )

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
        """In file order."""
        return self.image.regions

    @cached_property
    def tree(self) -> MaskTree:
        """The mask tree; of published data with the masks that have no caption too."""
        return self._make_tree()

    @property
    def levels(self) -> dict[RegionId, int]:
        """For each region its depth in the mask tree, 1 for those right below the image."""
        return {region.id: self.tree.depth(region.id) for region in self.regions}

    def __repr__(self) -> str:
        count = sum(map(len, self.captions.values()))
        return f"CaptionedImage({self.image_id}, {len(self.regions)} regions, {count} captions)"


class CaptionedImages(Sequence[CaptionedImage]):
    """Images that are made or read each time they are asked for; none is kept.

    Args:
        ids: of the images, all different.
        load: makes the image of an id.
        name: what opens them again, all but a limit.
    """

    def __init__(self, ids: Sequence[str], load: Callable[[str], CaptionedImage], name: str):
        self.ids, self.name, self._load = list(ids), name, load
        if len(set(self.ids)) != len(self.ids):
            twice = next(each for each in self.ids if self.ids.count(each) > 1)
            raise CaptionedError(f"{name}: two images are named {twice}")

    @overload
    def __getitem__(self, index: int) -> CaptionedImage: ...

    @overload
    def __getitem__(self, index: slice) -> CaptionedImages: ...

    def __getitem__(self, index: int | slice) -> CaptionedImage | CaptionedImages:
        if isinstance(index, slice):
            return CaptionedImages(self.ids[index], self._load, self.name)
        return self._load(self.ids[index])

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[CaptionedImage]:
        return (self._load(image_id) for image_id in self.ids)

    def __repr__(self) -> str:
        return f"CaptionedImages({self.name}, {len(self)} images)"


def open_captioned(
    data: str | Path,
    limit: int | None = None,
    style: Style = "phrase",
    masks: str | Path | None = None,
    strict: bool = True,
    spec: SceneSpecification | None = None,
) -> CaptionedImages:
    """Open captioned images; see the module for what `data` may be.

    Args:
        data: a text or a path.
        limit: only the first so many images.
        style: of the scenes' captions: "phrase", "minimal" or "sentence".
        masks: folder of a JSONL's masks and photos, by default the JSONL's own; of RefCOCOg and
            Visual Genome that of the photos.
        strict: False leaves out faulty masks, and of a JSONL faulty rows (it is then read
            through once before this returns).
        spec: what generated scenes are made of; None is the frozen specification.

    Returns:
        A sequence that reads an image each time it is indexed, in a stable order.

    Raises:
        CaptionedError: `data` is of no such kind, is empty, or names several files.
        FileNotFoundError: no such file or folder. PublishedError, RegionError: a file at fault,
            at once or when the image is read. ValueError: a bad limit, style or split.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
    text = str(data)
    if text.startswith("scenes:"):
        found = _generated(text, style, spec or SceneSpecification())
    elif text.startswith(("refcocog:", "visual_genome:")):
        from ureca_lib.datasets.zero_shot import open_zero_shot  # which is made of this module

        found = open_zero_shot(text, masks, limit, strict)
    else:
        path, named, folder = text.partition(".jsonl@")  # an @ may stand in a folder's name too
        found = _stored(Path(f"{path}.jsonl" if named else text), style, folder or masks, strict)
    if not len(found):
        raise CaptionedError(f"{text}: there are no images")
    return found if limit is None or len(found) <= limit else found[:limit]


def from_scene(scene: Scene, style: Style = "phrase") -> CaptionedImage:
    """A procedural scene, each caption unique in it."""
    captions = {region_id: [text] for region_id, text in scene.captions_in(style).items()}
    name = scene_name(scene.seed)
    return CaptionedImage(name, scene.regions, captions, lambda: scene.tree, scene)


def _generated(text: str, style: Style, spec: SceneSpecification) -> CaptionedImages:
    match = _SCENES.fullmatch(text)
    if not match:
        raise CaptionedError(f"{text!r}: scenes are scenes:SPLIT, :SPLIT:COUNT or :SPLIT:FROM-TO")
    first, stop = match["first"], match["stop"]
    count = stop or first
    seeds = spec.seeds(match["split"], None if count is None else int(count))
    if stop is not None:
        seeds = seeds[int(first) :]
    names = {scene_name(seed): seed for seed in seeds}
    return CaptionedImages(
        list(names), lambda name: from_scene(generate_scene(names[name], spec), style), text
    )


def _stored(path: Path, style: Style, masks: str | Path | None, strict: bool) -> CaptionedImages:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.is_dir() and (listed := _splits(path)):
        if len(listed) > 1:
            names = ", ".join(str(file) for file in listed)
            raise CaptionedError(f"{path}: holds {len(listed)} splits; name one of {names}")
        path = listed[0]
    if path.suffix == ".jsonl":
        return _published(path, Path(masks) if masks else path.parent, strict)
    if masks is not None:
        raise CaptionedError(f"{path}: a folder of masks goes with a JSONL only")
    files = _annotation_files(path)
    root = path if path.is_dir() else path.parent
    keys = image_keys(file.relative_to(root).as_posix() for file in files)
    named = {key: root / name for name, key in keys.items()}
    return CaptionedImages(
        list(named), lambda key: _file(key, named[key], style, strict), str(path)
    )


def _splits(folder: Path) -> list[Path]:
    """JSONL files of an export's folder, or of another that has captions at its top.

    What `ureca caption` and `ureca predict` wrote beside photos is no data set.
    """
    return sorted(
        file
        for file in folder.glob("*.jsonl")
        if not (file.name in _NO_SPLIT or file.name.startswith("."))
        and not file.name.endswith(".captions.jsonl")
        and not file.with_suffix(".meta.json").exists()
    )


def _annotation_files(path: Path) -> list[Path]:
    if path.is_dir():
        return annotation_files(path)
    return [path.with_suffix(".json") if path.suffix.lower() in PHOTO_SUFFIXES else path]


def _file(key: str, path: Path, style: Style, strict: bool) -> CaptionedImage:
    if _SCENE_FILE.fullmatch(path.stem):
        return from_scene(load_scene(path), style)
    return CaptionedImage(key, load_sa1b(path, strict=strict))


def _published(path: Path, masks: Path, strict: bool) -> CaptionedImages:
    data = PublishedDataset(path, masks, strict)
    names = data.images
    if not strict:  # which images have a good row is only known when they are read
        names = [name for name in names if data.read(name) is not None]
    by_key = {key: name for name, key in published_keys(names).items()}
    # opened again by its name it has the same masks
    opened = str(path) if masks == path.parent else f"{path}@{masks}"
    return CaptionedImages(
        list(by_key), lambda key: _of_published(key, data.read(by_key[key])), opened
    )


def _of_published(key: str, found: PublishedImage) -> CaptionedImage:
    captions: dict[RegionId, list[str]] = {}
    for caption in found.captions:
        captions.setdefault(caption.region_id, []).append(caption.text)

    def whole_tree() -> MaskTree:
        return build_mask_tree(load_sa1b(found.regions.path, strict=False).regions)

    return CaptionedImage(key, found.regions, captions, whole_tree)
