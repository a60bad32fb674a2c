"""The images of a run: their names in the store, and their splits."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter

from ureca_lib.regions import MaskedPhoto, RegionImage, masked_photos
from ureca_lib.regions.photo import PHOTO_SUFFIXES
from ureca_lib.regions.sources import shortened

SourceLike = str | Path | RegionImage


@dataclass(frozen=True)
class Source:
    """An image to annotate: its name in the store, and its files, or itself if it is in memory."""

    name: str
    masks: MaskedPhoto | None  # None for an image in memory
    image: RegionImage | None = None

    @property
    def path(self) -> Path | None:
        """The place of the masks, as `MaskedPhoto` has it."""
        return self.masks and self.masks.place

    def load(self, strict: bool = True, boxes: bool = False) -> RegionImage:
        """The image; with `strict` a bad mask is an error, with `boxes` a box is a region."""
        return self.masks.load(strict, boxes) if self.image is None else self.image


@dataclass(frozen=True)
class SplitRule:
    """Splits by image: an explicit list first, else a stable hash of the file's stem.

    Args:
        shares: split -> its share of the images; the remaining images go to `rest`.
        rest: the split of all others.
        named: file name (of the photo or the JSON) or stem of an image -> its split.

    Raises:
        ValueError: shares that are negative or more than 1 together, or a split whose name no
            export takes.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    rest: str = "train"
    named: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.shares.values(), default=0) < 0 or sum(self.shares.values()) > 1:
            raise ValueError(f"shares are 0 to 1, and at most 1 together, not {dict(self.shares)}")
        for name in sorted(self.names):
            if not names_files(name):
                raise ValueError(
                    f"the split {name!r} cannot name the files of a data set: letters, digits, _ "
                    "and single dots can, but for left_out"
                )

    @property
    def names(self) -> set[str]:
        """All splits of the rule."""
        return {self.rest, *self.shares, *self.named.values()}

    @classmethod
    def parse(cls, text: str) -> SplitRule:
        """A rule from its text: `train`, `test=0.1`, or a JSON file {file name: split}.

        Raises:
            ValueError: none of these.
        """
        name, separator, share = text.partition("=")
        if separator:
            return cls(shares={name: float(share)})
        if not text.endswith(".json"):
            return cls(rest=text)
        try:
            named = TypeAdapter(dict[str, str]).validate_json(Path(text).read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{text}: no list of splits: {error}") from None
        return cls(named=named)

    def splits_of(self, names: Iterable[str], part: bool = False) -> dict[str, str]:
        """The split of each image of a run.

        Warns of entries of `named` that are none of these images: the list may cover more than
        this run, or misspell test images, which would then go into another split. With `part`,
        where the images are a shard of the run, that is no matter.

        Raises:
            ValueError: no entry of `named` is one of these images, or see `split_of`.
        """
        names = list(names)
        known = {part for name in names for part in (Path(name).name, Path(name).stem)}
        missing = [key for key in self.named if not {key, _stem(key)} & known]
        if missing and not part:
            text = (
                f"{len(missing)} of {len(self.named)} entries of the list of splits are no image "
                f"of this run: {shortened(missing)}"
            )
            if len(missing) == len(self.named):
                raise ValueError(text)
            warnings.warn(text, stacklevel=2)
        return {name: self.split_of(name) for name in names}

    def listed(self, name: str) -> dict[str, str]:
        """The entries of `named` that are an image: its file or stem, else its photos."""
        file = Path(name)
        exact = [key for key in (file.name, file.stem) if key in self.named][:1]
        return {key: self.named[key] for key in exact or self._by_stem.get(file.stem, ())}

    def split_of(self, name: str) -> str:
        """The split of an image; the same wherever its file is located.

        Raises:
            ValueError: `named` has its stem with several suffixes, and several splits.
        """
        listed, stem = self.listed(name), Path(name).stem
        if len(set(listed.values())) > 1:
            raise ValueError(f"{name}: {', '.join(listed)} have several splits; name one")
        if listed:
            return next(iter(listed.values()))
        place = int.from_bytes(hashlib.sha256(f"/{stem}".encode()).digest()[:8]) / 2**64
        for split, share in self.shares.items():
            if place < share:
                return split
            place -= share
        return self.rest

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        """Stem -> the entries of `named` with that stem; an image has the name of its JSON."""
        found = defaultdict(list)
        for key in self.named:
            found[_stem(key)].append(key)
        return found


def names_files(split: str) -> bool:
    """Whether files can have a split's name: `datasets` accepts it, and it is no path."""
    return re.fullmatch(r"\w+(\.\w+)*", split) is not None and split != "left_out"


def _stem(key: str) -> str:
    """An entry of a list of splits, without the suffix of a photo or a JSON file."""
    path = Path(key)
    return path.stem if path.suffix.lower() in (*PHOTO_SUFFIXES, ".json") else key


def find_sources(images: Iterable[SourceLike] | SourceLike, store: Path) -> list[Source]:
    """The images of a run, each once.

    Args:
        images: photos, folders of photos, and files of masks, as `ureca_lib.regions.sources` finds
            them; or images in memory, which need a file name or an id.
        store: the names are paths from its folder, so that both can be moved together.

    Raises:
        ValueError: there are no masks, or two images in memory with one name, or one with none.
        FileNotFoundError: a path that does not exist.
    """
    if isinstance(images, (str, Path, RegionImage)):
        images = [images]
    found: dict[str, Source] = {}
    for image in images:
        for source in _sources(image, store):
            if source.image is not None and source.name in found:
                raise ValueError(f"two images are named {source.name}")
            found.setdefault(source.name, source)
    return list(found.values())


def _sources(image: SourceLike, store: Path) -> Iterator[Source]:
    if isinstance(image, RegionImage):
        name = image.file_name or (image.path.name if image.path else image.image_id)
        if name is None:
            raise ValueError(f"{image!r} has neither a file name nor an id; give it one")
        # it may have a path too, but its regions may differ from those of that file
        yield Source(str(name), None, image=image)
        return
    for masks in masked_photos(image):
        yield Source(name_of(masks.place, store), masks)


def name_of(path: Path, store: Path) -> str:
    """The name of an image in a store: the path of its masks from the store's folder.

    A link has its own name, not that of its target, which may be a hash.
    """
    whole = path.parent.resolve() / path.name
    return Path(os.path.relpath(whole, store.resolve().parent)).as_posix()
