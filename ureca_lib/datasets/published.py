"""The published data set: captions as JSON lines, masks in SA-1B's files.

The authors' 138,152 training captions have this layout, and so has every `SPLIT.jsonl` of
`ureca export`. A line names a photo of SA-1B and the id of a mask in the JSON beside that photo:

    {"id": 1, "image": "sa_1.jpg", "mask_id": 523353737, "conversations": [
      {"from": "human", "value": "<image>\\nDescribe this region in the image."},
      {"from": "gpt", "value": "The left boot of the girl."}]}

`masks` names the JSON if it is not the photo's name with `.json`. The file comes from the authors'
page, https://github.com/cvlab-kaist/URECA; photos and masks are SA-1B's (see `captioned`). Any
folder will do: the JSON files are looked for in it and below, such as in `sa_000020/`.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ureca_lib.datasets.captioned import (
    JSONL,
    CaptionedImage,
    CaptionedImages,
    OpenOptions,
    image_keys,
    opens,
)
from ureca_lib.datasets.jsonl import parse_line
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import RegionError, RegionImage, load_sa1b
from ureca_lib.regions.rle import is_whole
from ureca_lib.regions.sa1b import walk_linked

_MARKS = re.compile(r"^(\s*<(image|mask)>)*\s*")  # placeholders at the start of a question


class PublishedError(ValueError):
    """A row that is not as published, or whose image or mask is missing.

    Args:
        reason: the fault, in one sentence.
        file: the JSONL file.
        line: its number, from 1.
        row_id: id that the row states.
    """

    def __init__(self, reason: str, file: str | Path, line: int, row_id: int | str | None = None):
        self.reason, self.file, self.line, self.row_id = reason, str(file), line, row_id
        named = "" if row_id is None else f": id {row_id}"
        super().__init__(f"{file}: line {line}{named}: {reason}")


class PublishedCaption(NamedTuple):
    """A caption of the data set; `region_id` is that of the mask in the image's JSON."""

    id: int | str
    region_id: RegionId
    text: str
    question: str
    line: int


class PublishedImage(NamedTuple):
    """A photo of the data set, all of its masks, and the captions of some of them, in file order.

    Faulty masks without a caption are left out.
    """

    image: str
    regions: RegionImage
    captions: list[PublishedCaption]


class _Row(NamedTuple):
    line: int
    id: int | str
    image: str
    masks: str  # name of the JSON
    mask_id: RegionId
    text: str
    question: str


class PublishedDataset:
    """A JSONL file of the published layout, image by image; may be iterated again and again.

    In memory are the name of each image, the place of each row in the file, and one image.

    Args:
        jsonl_path: the captions.
        sa1b_dir: folder of the masks, SA-1B JSON files in it or below; photos, if any, are beside
            them.
        strict: False leaves faulty rows out, and lists them in `left_out`.

    Raises:
        FileNotFoundError: no such file or folder.
        PublishedError: the first row that is faulty or whose JSON is missing; during iteration
            the first whose JSON or mask is faulty, or that names an unknown mask.
    """

    def __init__(self, jsonl_path: str | Path, sa1b_dir: str | Path, strict: bool = True):
        self.path, self.folder, self.strict = Path(jsonl_path), Path(sa1b_dir), strict
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: there is no such folder of masks")
        self._faults: dict[int, PublishedError] = {}  # by line: an image may be read again
        # (image, masks) -> line number, offset in bytes, and so on
        self._lines: dict[tuple[str, str], array] = defaultdict(lambda: array("q"))
        self.rows = 0
        self._index_lines()
        self._files = _find_files(self.folder, {masks for _, masks in self._lines})
        for name in list(self._lines):
            self._check_file(name)

    @property
    def left_out(self) -> list[PublishedError]:
        """Rows that `strict=False` has left out so far, in file order."""
        return [self._faults[line] for line in sorted(self._faults)]

    def __len__(self) -> int:
        """Return the number of images that have captions and a JSON of masks."""
        return len(self._lines)

    @property
    def images(self) -> list[tuple[str, str]]:
        """The names (photo, JSON of masks) of each image, in the order of the iteration."""
        return list(self._lines)

    def __iter__(self) -> Iterator[PublishedImage]:
        found = (self.read(name) for name in self.images)
        return (image for image in found if image is not None)

    def read(self, name: tuple[str, str]) -> PublishedImage | None:
        """Read one of `images`; None if `strict=False` leaves out all of its rows.

        Raises:
            PublishedError: see the class; KeyError: no such image.
        """
        path, rows = self._files[name[1]][0], self._rows(name)
        try:
            # masks without a caption may be faulty
            whole = load_sa1b(path, strict=False)
        except RegionError as error:
            for row in rows:
                self._fault(f"the masks cannot be read: {error}", row.line, row.id)
            return None
        faulty = {item.region_id: item.error for item in whole.left_out}
        ids = {region.id for region in whole} | faulty.keys()
        captions = []
        for row in rows:
            region_id = _matching(row.mask_id, ids)
            if region_id is None or region_id in faulty:  # a duplicate id is in both
                reason = faulty.get(region_id, f"{path} has no mask {row.mask_id!r}")
                self._fault(str(reason), row.line, row.id)
            else:
                texts = (row.text, row.question)
                captions.append(PublishedCaption(row.id, region_id, *texts, row.line))
        if not captions:
            return None
        return PublishedImage(name[0], whole, captions)

    def _index_lines(self) -> None:
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = _parse(self.path, number, line)
                except PublishedError as error:
                    row = self._fault(error.reason, number, error.row_id)
                if row is not None:
                    self._lines[row.image, row.masks].extend((number, offset))
                    self.rows += 1
                offset += len(line)

    def _rows(self, name: tuple[str, str]) -> list[_Row]:
        if name not in self._lines:
            raise KeyError(name)
        places, rows = self._lines[name], []
        with self.path.open("rb") as file:
            for line, offset in zip(places[::2], places[1::2], strict=True):
                file.seek(offset)
                rows.append(_parse(self.path, line, file.readline()))
        return rows

    def _check_file(self, name: tuple[str, str]) -> None:
        """Leave an image out whose JSON is missing or ambiguous."""
        image, masks = name
        found = self._files[masks]
        if len(found) == 1:
            return
        reason = f"there is no {masks} in {self.folder}, where {image} should have its masks"
        if found:
            reason = f"{masks} is there twice: {found[0]} and {found[1]}"
        for row in self._rows(name):
            self._fault(reason, row.line, row.id)
            self.rows -= 1
        del self._lines[name]

    def _fault(self, reason: str, line: int, row_id: int | str | None) -> None:
        error = PublishedError(reason, self.path, line, row_id)
        if self.strict:
            raise error
        self._faults[line] = error


def load_published(
    jsonl_path: str | Path, sa1b_dir: str | Path, strict: bool = True
) -> PublishedDataset:
    """Read a data set of the published layout; see `PublishedDataset`."""
    return PublishedDataset(jsonl_path, sa1b_dir, strict)


@opens(JSONL)
def _open(text: str, options: OpenOptions) -> CaptionedImages:
    path, masks = split_masks(text, options.masks)
    data = PublishedDataset(path, masks, options.strict)
    names = data.images
    if not options.strict:  # only reading shows which images have a good row
        names = [name for name in names if data.read(name) is not None]
    by_key = {key: name for name, key in published_keys(names).items()}
    # the name includes the folder of the masks, so that it opens the same images
    opened = str(path) if masks == path.parent else f"{path}@{masks}"

    def load(key: str) -> CaptionedImage:
        return _captioned(key, data.read(by_key[key]))

    return CaptionedImages(list(by_key), load, opened)


def _captioned(key: str, image: PublishedImage) -> CaptionedImage:
    captions: dict[RegionId, list[str]] = defaultdict(list)
    questions: dict[RegionId, list[str]] = defaultdict(list)
    for caption in image.captions:
        captions[caption.region_id].append(caption.text)
        # the model's own setting says where image and mask go
        questions[caption.region_id].append(_MARKS.sub("", caption.question))
    return CaptionedImage(key, image.regions, captions, questions=questions)


def split_masks(text: str, masks: str | Path | None = None) -> tuple[Path, Path]:
    """Split `train.jsonl@sa1b/` into the JSONL and the folder of its masks, by default its own."""
    name, named, folder = text.partition(".jsonl@")  # an @ may be in a folder's name too
    path = Path(f"{name}.jsonl" if named else text)
    return path, Path(folder or masks or path.parent)


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


def _parse(path: Path, number: int, line: bytes) -> _Row | None:
    """Parse the row of a line, or return None if it is blank."""
    try:
        row = parse_line(path, number, line)
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: line {number} ")
        raise PublishedError(f"the line {reason}", path, number) from None
    if row is None:
        return None
    row_id = row.get("id")
    try:
        return _checked(row, number)
    except ValueError as error:
        raise PublishedError(str(error), path, number, row_id if _is_id(row_id) else None) from None


def _checked(row: dict[str, Any], line: int) -> _Row:
    for key in ("id", "mask_id"):
        if not _is_id(row.get(key)):
            raise ValueError(f"'{key}' is a whole number or a text, not {_short(row.get(key))}")
    image = row.get("image")
    if not isinstance(image, str) or not PurePosixPath(image).name:
        raise ValueError(f"'image' is a file name, not {_short(image)}")
    masks = row.get("masks", PurePosixPath(image).with_suffix(".json").as_posix())
    if not isinstance(masks, str) or not masks.endswith(".json"):
        raise ValueError(f"'masks' is the name of a JSON file, not {_short(masks)}")
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"'conversations' is a list of objects, not {_short(turns)}")
    texts = {}
    for speaker in ("human", "gpt"):
        values = [turn.get("value") for turn in turns if turn.get("from") == speaker]
        if len(values) != 1 or not isinstance(values[0], str):
            raise ValueError(f"'conversations' has one text from {speaker}, not {len(values)}")
        texts[speaker] = values[0]
    if not texts["gpt"].strip():
        raise ValueError("the caption is empty")
    masks = PurePosixPath(masks).as_posix()
    return _Row(line, row["id"], image, masks, row["mask_id"], texts["gpt"], texts["human"])


def _is_id(value: Any) -> bool:
    return is_whole(value) or isinstance(value, str)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _matching(mask_id: RegionId, ids: set[RegionId]) -> RegionId | None:
    """Match the id exactly, or after converting between `int` and `str`."""
    if mask_id in ids:
        return mask_id
    if isinstance(mask_id, int):
        return str(mask_id) if str(mask_id) in ids else None
    number = int(mask_id) if re.fullmatch(r"\d{1,20}", mask_id, re.ASCII) else None
    return number if number in ids else None


def _find_files(folder: Path, wanted: Iterable[str]) -> dict[str, list[Path]]:
    """Find, in one walk, the file of each path in `folder`, else all files that end in the path."""
    found: dict[str, list[Path]] = {name: [] for name in wanted}
    by_name: dict[str, list[PurePosixPath]] = defaultdict(list)
    for name in found:
        by_name[PurePosixPath(name).name].append(PurePosixPath(name))
    for place, files in walk_linked(folder):
        for file in by_name.keys() & set(files):
            for name in by_name[file]:
                path = place / file
                if path.relative_to(folder).parts[-len(name.parts) :] == name.parts:
                    found[name.as_posix()].append(path)
    for name, paths in found.items():
        if len(paths) > 1 and Path(folder, name) in paths:
            found[name] = [Path(folder, name)]
    return found
