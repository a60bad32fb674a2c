"""Annotation files in a folder and those below it, linked ones too."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path


def walk_linked(folder: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder at and below `folder` with the names of its files, sorted.

    Folders that are symbolic links are followed, last and each once: a collection like SA-1B is
    often spread over disks, and a link may lead back to where it lies.
    """
    seen: set[tuple[int, int]] = set()
    starts = deque([str(folder)])
    while starts:
        for place, folders, files in os.walk(starts.popleft()):
            found = os.stat(place)
            if (found.st_dev, found.st_ino) in seen:
                folders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            folders.sort()
            joined = (os.path.join(place, name) for name in folders)
            starts.extend(path for path in joined if os.path.islink(path))
            yield Path(place), sorted(files)


def annotation_files(folder: str | Path) -> list[Path]:
    """JSON files at and below `folder` that may be SA-1B's, sorted.

    Hidden files are left out, and so is what commands write beside a JSONL of that name, such as
    `P.meta.json` beside the predictions `P.jsonl`.
    """
    found = []
    for place, names in walk_linked(folder):
        beside = {name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl")}
        for name in names:
            stem, kind = os.path.splitext(name)
            written_with = stem.rpartition(".")[0]
            if kind == ".json" and name[0] != "." and written_with not in beside:
                found.append(place / name)
    return sorted(found)
