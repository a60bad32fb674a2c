"""The published data set: captions as JSON lines, masks in SA-1B's files.

The authors' 138,152 training captions have this layout, and so has every `SPLIT.jsonl` of
`ureca export`. A line names a photo of SA-1B and the id of a mask in the JSON beside that photo:

    {"id": 1, "image": "sa_1.jpg", "mask_id": 523353737, "conversations": [
      {"from": "human", "value": "<image>\\nDescribe this region in the image."},
      {"from": "gpt", "value": "The left boot of the girl."}]}

`masks` names the file of the masks if it is not the photo's name with `.json`: any that
`ureca data --formats` lists, or a folder of PNG files, with a slash at the end. The authors' file
comes from their page, https://github.com/cvlab-kaist/URECA; photos and masks are SA-1B's (see
`captioned`). Any folder will do: the files are looked for in it and below, as in `sa_000020/`.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ureca_lib.datasets.captioned import (
    FINDERS,
    JSONL,
    OPENERS,
    CaptionedError,
    CaptionedImage,
    CaptionedImages,
    OpenOptions,
    image_keys,
    jsonl_files,
    split_masks,
)
from ureca_lib.datasets.rows import first_reason
from ureca_lib.journal import parse_line
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import MaskedPhoto, RegionError
from ureca_lib.regions.sa1b import IdIndex, walk_linked

_MARKS = re.compile(r"^(\s*<(image|mask)>)*\s*")  # placeholders at the start of a question


class PublishedRow(BaseModel):
    """A line of the published layout; see the module."""

    model_config = ConfigDict(strict=True)
    id: int | str
    image: str
    mask_id: int | str
    masks: str = Field("", pattern=r"\.(json|xml|npy|npz|png)$|/$", validate_default=False)
    conversations: list[dict[str, Any]]

    @model_validator(mode="after")
    def _check(self) -> PublishedRow:
        photo = PurePosixPath(self.image)
        if not photo.name:
            raise ValueError("'image' is a file name")
        self.masks = PurePosixPath(self.masks or photo.with_suffix(".json")).as_posix()
        if not self.said("gpt").strip():
            raise ValueError("the caption is empty")
        self.said("human")
        return self

    def said(self, speaker: str) -> str:
        """The only text from "human", the question, or from "gpt", the caption."""
        texts = [turn.get("value") for turn in self.conversations if turn.get("from") == speaker]
        if len(texts) != 1 or not isinstance(texts[0], str):
            raise ValueError(f"'conversations' has one text from {speaker}, not {len(texts)}")
        return texts[0]


class PublishedDataset(CaptionedImages):
    """A JSONL file of the published layout, image by image.

    In memory are the name of each image, the place of each row in the file, and one image. Faulty
    masks without a caption are left out.

    Args:
        jsonl_path: the captions.
        sa1b_dir: folder of the masks, SA-1B JSON files in it or below; photos, if any, are beside
            them.
        strict: False leaves faulty rows out, and lists them in `left_out`; all masks are read once
            for that.

    Raises:
        FileNotFoundError: no such file or folder.
        CaptionedError: the first row that is faulty or whose JSON is missing; during iteration
            the first whose JSON or mask is faulty, or that names an unknown mask. It names the
            file, the line and the row's id.
    """

    def __init__(self, jsonl_path: str | Path, sa1b_dir: str | Path, strict: bool = True):
        self.path, self.folder, self.strict = Path(jsonl_path), Path(sa1b_dir), strict
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: there is no such folder of masks")
        self._faults: dict[int, CaptionedError] = {}  # by line: an image may be read again
        # (image, masks) -> line number, offset in bytes, and so on
        self._lines: dict[tuple[str, str], array] = defaultdict(lambda: array("q"))
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if row := self._parse(number, line):
                    self._lines[row.image, row.masks].extend((number, offset))
                offset += len(line)
        self._files = _find_files(self.folder, {masks for _, masks in self._lines})
        for image, masks in list(self._lines):
            found = self._files[masks]
            if len(found) == 1:
                continue
            reason = (
                f"there is no {masks} in {self.folder}, where {image} should have its masks; "
                f"another folder is named as {self.path}@FOLDER"
            )
            if found:
                reason = f"{masks} is there twice: {found[0]} and {found[1]}"
            for line, row in self._rows((image, masks)):
                self._fault(reason, line, row.id)
            del self._lines[image, masks]
        self._names = {key: name for name, key in published_keys(self._lines).items()}
        # the name includes the folder of the masks, so that it opens the same images
        beside = self.folder == self.path.parent
        name = str(self.path) if beside else f"{self.path}@{self.folder}"
        # captions whose image has a JSON of masks
        captions = sum(len(places) // 2 for places in self._lines.values())
        counts = {"captions": captions}
        super().__init__(self._names, self._read, name, self._faults, lambda: counts)
        if not strict:  # only reading shows which images have a good row
            self.ids = [key for key in self.ids if self._read(key)]

    def _read(self, key: str) -> CaptionedImage | None:
        """Read an image; None if `strict=False` leaves out all of its rows."""
        name = self._names[key]
        path, rows = self._files[name[1]][0], list(self._rows(name))
        try:
            # masks without a caption may be faulty; a box is a region if it has a caption
            for boxes in (False, True):
                whole = MaskedPhoto(path, None, name[0]).load(False, boxes)
                ids = IdIndex({region.id for region in whole})
                if all(ids.find(row.mask_id) is not None for _, row in rows):
                    break
        except RegionError as error:
            for line, row in rows:
                self._fault(f"the masks cannot be read: {error}", line, row.id)
            return None
        faulty = {item.region_id: item.error for item in whole.left_out}
        ids = IdIndex({region.id for region in whole} | faulty.keys())
        captions: dict[RegionId, list[str]] = defaultdict(list)
        questions: dict[RegionId, list[str]] = defaultdict(list)
        for line, row in rows:
            region_id = ids.find(row.mask_id)
            if region_id is None or region_id in faulty:  # a duplicate id is in both
                reason = faulty.get(region_id, f"{path} has no mask {row.mask_id!r}")
                self._fault(str(reason), line, row.id)
                continue
            captions[region_id].append(row.said("gpt"))
            # the model's own setting says where image and mask go
            questions[region_id].append(_MARKS.sub("", row.said("human")))
        return CaptionedImage(key, whole, captions, questions=questions) if captions else None

    def _rows(self, name: tuple[str, str]) -> Iterator[tuple[int, PublishedRow]]:
        """Line number and row of each caption of an image."""
        places = self._lines[name]
        with self.path.open("rb") as file:
            for line, offset in zip(places[::2], places[1::2], strict=True):
                file.seek(offset)
                yield line, self._parse(line, file.readline())

    def _parse(self, number: int, line: bytes) -> PublishedRow | None:
        """Parse the row of a line, or return None if it is blank or left out."""
        row = None
        try:
            row = parse_line(self.path, number, line)
            return row and PublishedRow.model_validate(row)
        except ValidationError as error:
            self._fault(first_reason(error), number, row.get("id"))
        except ValueError as error:
            reason = str(error).removeprefix(f"{self.path}: line {number} ")
            self._fault(f"the line {reason}", number, None)
        return None

    def _fault(self, reason: str, line: int, row_id: int | str | None) -> None:
        named = f": id {row_id}" if isinstance(row_id, (int, str)) else ""
        error = CaptionedError(f"{self.path}: line {line}{named}: {reason}")
        if self.strict:
            raise error from None
        self._faults[line] = error


load_published = PublishedDataset


def _open(text: str, options: OpenOptions) -> CaptionedImages:
    return PublishedDataset(*split_masks(text, options.masks), options.strict)


OPENERS[JSONL] = _open
FINDERS.append(lambda folder: map(str, jsonl_files(folder)))


def published_keys(names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Map each image of a published file, named by photo and masks, to its key.

    The key is of the photo; if one photo has several files of masks, of the masks; if one of these
    belongs to several photos besides, of both.
    """
    names = list(dict.fromkeys(names))
    both = [f"{masks}/{photo}" for photo, masks in names]
    ways = ([photo for photo, _ in names], [masks for _, masks in names], both)
    texts = next(way for way in ways if len(set(way)) == len(names))
    keys = image_keys(texts)
    return {name: keys[text] for text, name in zip(texts, names, strict=True)}


def _find_files(folder: Path, wanted: set[str]) -> dict[str, list[Path]]:
    """Find, in one walk, the file of each path in `folder`, else all files that end in the path."""
    named: dict[str, list[Path]] = {PurePosixPath(name).name: [] for name in wanted}
    for place, files in walk_linked(folder):
        if place != folder and place.name in named:  # of mask PNGs
            named[place.name].append(place)
        for file in named.keys() & set(files):
            named[file].append(place / file)
    found = {}
    for name in wanted:
        ends = PurePosixPath(name).parts
        fits = [
            path for path in named[ends[-1]] if path.relative_to(folder).parts[-len(ends) :] == ends
        ]
        found[name] = [folder / name] if folder / name in fits else fits
    return found
