"""One image of a data set with all that is known of its regions, and the names things go by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from ureca_lib.annotate.records import Answer, FinalCaption
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region


class ExportError(ValueError):
    """A store whose masks are gone or changed, or that cannot be exported as asked."""


@dataclass(frozen=True)
class RegionRecord:
    """A region, the caption it ended with, and every answer on the way there.

    Args:
        id: unique in the data set.
        region: its mask, box, area and name.
        caption: text, state, place in the tree, look-alikes.
        answers: of all stages, in the order of the stages and rounds.
    """

    id: str
    region: Region
    caption: FinalCaption
    answers: tuple[Answer, ...]

    def answer(self, stage: str) -> Answer | None:
        """The latest answer of a stage."""
        found = [answer for answer in self.answers if answer.step.stage == stage]
        return found[-1] if found else None


@dataclass(frozen=True)
class ImageRecord:
    """A finished image.

    Args:
        key: unique in the data set; the stem of the image's files, with folders only where
            stems repeat.
        file_name: of the photo, with the key's folders.
        split: which the image, and so each of its regions, belongs to.
        width, height: in pixels.
        regions: in file order, with and without a caption.
        left_out: annotations that were left out as faulty.
    """

    key: str
    file_name: str
    split: str
    width: int
    height: int
    regions: tuple[RegionRecord, ...]
    left_out: int = 0


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


def region_row_id(key: str, region_id: RegionId) -> str:
    """The id of a region in a data set: no two pairs of key and region have the same.

    `sa_1_523353737`; text that could be taken for something else is quoted: `sa_1_"a_2"`.
    """
    if isinstance(region_id, int):
        return f"{key}_{region_id}"
    plain = region_id and not set(region_id) & set('_"\\') and not _is_number(region_id)
    text = region_id if plain else json.dumps(region_id, ensure_ascii=False)
    return f"{key}_{text}"


def _is_number(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
