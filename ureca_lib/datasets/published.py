"""The published data set, read: captions in JSON lines, masks in SA-1B's files.

The authors' 138,152 training captions have this layout: each line names a photo of SA-1B and the
id of a mask in the JSON of that photo.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ureca_lib.datasets.jsonl import parse_line
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import RegionError, RegionImage, load_sa1b
from ureca_lib.regions.folders import walk_linked
from ureca_lib.regions.rle import is_whole


class PublishedError(ValueError):
    """A row that is not as published, or whose image or mask is not there.

    Args:
        reason: what is wrong, in one sentence.
        file: the JSONL file.
        line: in it, from 1.
        row_id: what the row says its id is.
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
    """A photo of the data set, only the masks that have captions, and those, in file order."""

    image: str
    regions: RegionImage
    captions: list[PublishedCaption]


class _Row(NamedTuple):
    id: int | str
    image: str
    masks: str  # the JSON's name
    mask_id: RegionId
    text: str
    question: str


class PublishedDataset:
    """A JSONL file of the published layout, image by image; may be iterated again and again.

    In memory are, for each image its name, for each row its place in the file, and one image.

    Args:
        jsonl_path: the captions.
        sa1b_dir: the masks, SA-1B JSON files in this folder or below it, such as in
            `sa_000020/`; photos, where there are any, beside them.
        strict: False leaves faulty rows out, and lists them in `left_out`.

    Raises:
        FileNotFoundError: no such file or folder.
        PublishedError: the first row that is faulty or whose JSON is missing; in the iteration
            one whose JSON or mask is faulty, or that names a mask which is not there.
    """

    def __init__(self, jsonl_path: str | Path, sa1b_dir: str | Path, strict: bool = True):
        self.path, self.folder, self.strict = Path(jsonl_path), Path(sa1b_dir), strict
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: there is no such folder of masks")
        self._unread: list[PublishedError] = []
        self._unused: dict[int, PublishedError] = {}  # by line: an image may be read again
        self._lines: dict[tuple[str, str], array] = {}  # (image, masks) -> line, offset, ...
        self.rows = 0
        self._index_lines()
        self._files = _find_files(self.folder, {masks for _, masks in self._lines})
        self._check_files()

    @property
    def left_out(self) -> list[PublishedError]:
        """Rows that `strict=False` has left out so far, in file order."""
        return sorted([*self._unread, *self._unused.values()], key=lambda error: error.line)

    def __len__(self) -> int:
        """How many images have captions and a JSON of masks."""
        return len(self._lines)

    @property
    def images(self) -> list[tuple[str, str]]:
        """The names (photo, JSON of masks) of each image, in the order of the iteration."""
        return list(self._lines)

    def __iter__(self) -> Iterator[PublishedImage]:
        self._unused.clear()
        for name in self._lines:
            found = self.read(name)
            if found is not None:
                yield found

    def read(self, name: tuple[str, str]) -> PublishedImage | None:
        """One of `images`; None where `strict=False` leaves out each of its rows.

        Raises:
            PublishedError: see the class; KeyError: no such image.
        """
        places, rows = self._lines[name], []
        with self.path.open("rb") as file:
            for line, offset in zip(places[::2], places[1::2], strict=True):
                file.seek(offset)
                rows.append((line, _parsed(self.path, line, file.readline())))
        return self._image(name[0], self._files[name[1]][0], rows)

    def _index_lines(self) -> None:
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = _parsed(self.path, number, line)
                except PublishedError as error:
                    self._unread.append(self._checked(error))
                    row = None
                if row is not None:
                    places = self._lines.setdefault((row.image, row.masks), array("q"))
                    places.extend((number, offset))
                    self.rows += 1
                offset += len(line)

    def _check_files(self) -> None:
        with self.path.open("rb") as file:
            for key, places in list(self._lines.items()):
                image, masks = key
                found = self._files[masks]
                if len(found) == 1:
                    continue
                what = f"there is no {masks} in {self.folder}, where {image} should have its masks"
                if found:
                    what = f"{masks} is there twice: {found[0]} and {found[1]}"
                for line, offset in zip(places[::2], places[1::2], strict=True):
                    file.seek(offset)
                    row = _parsed(self.path, line, file.readline())
                    error = PublishedError(what, self.path, line, row and row.id)
                    self._unread.append(self._checked(error))
                    self.rows -= 1
                del self._lines[key]

    def _image(self, image: str, path: Path, rows: list[tuple[int, _Row]]) -> PublishedImage | None:
        """The image with the masks that its rows name; None where none of them is there."""
        try:
            # only the masks that are asked for have to be good
            whole = load_sa1b(path, strict=False)
        except RegionError as error:
            for line, row in rows:
                reason = f"the masks cannot be read: {error}"
                self._unused[line] = self._checked(PublishedError(reason, self.path, line, row.id))
            return None
        faulty = {item.region_id: item.error for item in whole.left_out}
        ids = {region.id for region in whole} | faulty.keys()
        captions = []
        for line, row in rows:
            region_id = _matching(row.mask_id, ids)
            if region_id is None or region_id in faulty:  # an id that is there twice is both
                reason = str(faulty.get(region_id, f"{path} has no mask {row.mask_id!r}"))
                self._unused[line] = self._checked(PublishedError(reason, self.path, line, row.id))
            else:
                captions.append(PublishedCaption(row.id, region_id, row.text, row.question, line))
        if not captions:
            return None
        wanted = {caption.region_id for caption in captions}
        regions = RegionImage(
            [region for region in whole if region.id in wanted],
            whole.width,
            whole.height,
            whole.photo,
            whole.image_id,
            whole.file_name,
            whole.path,
        )
        return PublishedImage(image, regions, captions)

    def _checked(self, error: PublishedError) -> PublishedError:
        if self.strict:
            raise error
        return error


def load_published(
    jsonl_path: str | Path, sa1b_dir: str | Path, strict: bool = True
) -> PublishedDataset:
    """Read a data set of the published layout; see `PublishedDataset`."""
    return PublishedDataset(jsonl_path, sa1b_dir, strict)


def _parsed(path: Path, number: int, line: bytes) -> _Row | None:
    """The row of a line, or None where it is blank."""
    try:
        row = parse_line(path, number, line)
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: line {number} ")
        raise PublishedError(f"the line {reason}", path, number) from None
    if row is None:
        return None
    row_id = row.get("id")
    row_id = row_id if _is_id(row_id) else None
    try:
        return _checked(row)
    except ValueError as error:
        raise PublishedError(str(error), path, number, row_id) from None


def _checked(row: dict[str, Any]) -> _Row:
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
    said = {who: [t.get("value") for t in turns if t.get("from") == who] for who in _SPEAKERS}
    for who, values in said.items():
        if len(values) != 1 or not isinstance(values[0], str):
            raise ValueError(f"'conversations' has one text from {who}, not {len(values)}")
    question, text = (said[who][0] for who in _SPEAKERS)
    if not text.strip():
        raise ValueError("the caption is empty")
    masks = PurePosixPath(masks).as_posix()
    return _Row(row["id"], image, masks, row["mask_id"], text, question)


_SPEAKERS = ("human", "gpt")


def _is_id(value: Any) -> bool:
    return is_whole(value) or isinstance(value, str)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _matching(mask_id: RegionId, ids: set[RegionId]) -> RegionId | None:
    """The id as it stands, else the number that a text says or the text of a number."""
    if mask_id in ids:
        return mask_id
    if isinstance(mask_id, int):
        return str(mask_id) if str(mask_id) in ids else None
    number = int(mask_id) if re.fullmatch(r"\d{1,20}", mask_id, re.ASCII) else None
    return number if number in ids else None


def _find_files(folder: Path, wanted: Iterable[str]) -> dict[str, list[Path]]:
    """For each wanted name the file of just that path, else those that end in it; one walk."""
    found: dict[str, list[Path]] = {name: [] for name in wanted}
    by_name: dict[str, list[PurePosixPath]] = {}
    for name in found:
        by_name.setdefault(PurePosixPath(name).name, []).append(PurePosixPath(name))
    for place, files in walk_linked(folder):
        for file in files:
            for name in by_name.get(file, ()):
                path = place / file
                inside = path.relative_to(folder).parts
                if inside[-len(name.parts) :] == name.parts:
                    found[name.as_posix()].append(path)
    for name, paths in found.items():
        if len(paths) > 1 and Path(folder, name) in paths:
            found[name] = [Path(folder, name)]
    return found


def image_keys(names: Iterable[str]) -> dict[str, str]:
    """For each image's name in a store the shortest key that no other has.

    That is the stem, else the path without its suffix and the steps up before it, else with
    those, else the name.
    """
    names = list(names)
    paths = {name: PurePosixPath(name) for name in names}
    levels = [
        {name: path.stem for name, path in paths.items()},
        {name: _bare(_inside(path)) for name, path in paths.items()},
        {name: _bare(path) for name, path in paths.items()},
    ]
    keys = {name: name for name in names}
    for level in reversed(levels):
        counts = Counter(level.values())
        keys |= {name: key for name, key in level.items() if counts[key] == 1}
    return keys if len(set(keys.values())) == len(names) else {name: name for name in names}


def published_keys(names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """For each image of a published file, named by its photo and its masks, its key.

    It goes by the photo, unless one photo has two files of masks; by both, if one of these has two
    photos besides.
    """
    names = list(dict.fromkeys(names))
    both = [f"{masks}/{photo}" for photo, masks in names]
    ways = ([photo for photo, _ in names], [masks for _, masks in names], both)
    texts = next(way for way in ways if len(set(way)) == len(names))
    keys = image_keys(texts)
    return {name: keys[text] for text, name in zip(texts, names, strict=True)}


def _bare(path: PurePosixPath) -> str:
    return (path.with_suffix("") if path.name else path).as_posix()


def _inside(path: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(*(part for part in path.parts if part != ".."))
