"""Shards of a large run: its images dealt out to stores, each of which any machine can annotate.

An image's shard depends on the stem of its file only, so that a run that is started again, also by
another machine, finds every image where it was. The stores of a folder are read as one store.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ureca_lib.annotate.progress import StoreStatus, read_status
from ureca_lib.annotate.records import Answer, FinalCaption, ImageRow
from ureca_lib.annotate.sources import SplitRule, find_sources
from ureca_lib.annotate.store import Store, StoreError

_PATTERN = "shard-*-of-*.sqlite"
_SHOWN = 10  # failures and unresolved regions that a status lists


def deal_images(
    images: Iterable[str | Path], folder: str | Path, count: int, rule: SplitRule
) -> dict[Path, list[Path]]:
    """Deal the images of a run out to shards.

    Args:
        images: photos, folders of photos, or files of masks.
        folder: of the stores.
        count: shards of the run; one that gets no image has no store.
        rule: the split of each image; checked against all of them.

    Returns:
        The store of each shard, with its images, as `find_sources` takes them.

    Raises:
        ValueError: fewer than one shard, the folder has stores of another number of shards, or a
            folder holds no annotation files; see also `SplitRule.splits_of`.
        FileNotFoundError: a path does not exist.
    """
    if count < 1:
        raise ValueError(f"a run has at least one shard, not {count}")
    place, paths = Path(folder).absolute(), [Path(path).absolute() for path in images]
    if place.is_file():
        raise ValueError(f"{place}: is a file; with shards --out takes a folder")
    for path in place.glob(_PATTERN):
        if not path.stem.endswith(f"-of-{count:05d}"):
            raise ValueError(f"{path}: the folder has stores of another number of shards")
    sources = find_sources(paths, place / "store")
    rule.splits_of(source.name for source in sources)
    dealt = defaultdict(list)
    for source in sources:
        digest = hashlib.sha256(source.path.stem.encode()).digest()
        number = int.from_bytes(digest[:8]) % count
        store = place / f"shard-{number:05d}-of-{count:05d}.sqlite"
        masks = source.masks._replace(path=source.masks.path.absolute())
        dealt[store].append(Path(str(masks)))
    return dict(sorted(dealt.items()))


class Shards:
    """All stores of a folder, read as one; each keeps up to three files open.

    SQLite shares a file between processes of one machine only: on a network drive, read the stores
    while no other machine annotates them.

    Args:
        folder: of the stores.

    Raises:
        StoreError: the folder has no shards, or one of them cannot be read.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / _PATTERN  # images are named from this folder
        self.stores: list[Store] = []
        try:
            for path in sorted(Path(folder).glob(_PATTERN)):
                self.stores.append(Store(path, create=False))
            if not self.stores:
                raise StoreError(f"{self.path}: there is no store")
            self._rows = [(row, store) for store in self.stores for row in store.images()]
        except StoreError:
            self.close()
            raise
        self._store_of = {row.image: store for row, store in self._rows}
        self._made_with = {row.made_with: store for row, store in self._rows}

    def images(self) -> list[ImageRow]:
        """Every image."""
        return [row for row, _ in self._rows]

    def settings(self, made_with: str | None = None) -> dict[str, Any]:
        """The settings that images of a digest were made with, see `Store.settings`."""
        return self._made_with[made_with].settings(made_with)

    def answers(self, image: str) -> dict[Any, Answer]:
        """Every answer of an image, by step."""
        return self._store_of[image].answers(image)

    def reviewed_captions(self, image: str) -> list[FinalCaption]:
        """An image's captions with the reviews applied."""
        return self._store_of[image].reviewed_captions(image)

    def status(self) -> StoreStatus:
        """The status of all stores together; rates of shards that run at a time add up."""
        found = [read_status(store) for store in self.stores]
        images = sum((one.images for one in found), Counter[tuple[str, str]]())
        rate = sum(one.rate or 0.0 for one in found)
        waiting = sum(count for (_, status), count in images.items() if status == "waiting")
        failures = sorted((f for one in found for f in one.failures), key=lambda f: -f.count)
        return StoreStatus(
            images,
            sum((one.answers for one in found), Counter[tuple[str, str]]()),
            sum((one.states for one in found), Counter[str]()),
            tuple(failures[:_SHOWN]),
            tuple(region for one in found for region in one.unresolved)[:_SHOWN],
            tuple(map(sum, zip(*(one.calls for one in found), strict=True))),
            rate or None,
            waiting / rate if rate else None,
            "; ".join(dict.fromkeys(one.stopped for one in found if one.stopped)) or None,
        )

    def close(self) -> None:
        """Close all stores."""
        for store in self.stores:
            store.close()

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_store(path: str | Path) -> Store | Shards:
    """Open a store that exists, or all shards of a folder.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    return Shards(path) if Path(path).is_dir() else Store(path, create=False)
