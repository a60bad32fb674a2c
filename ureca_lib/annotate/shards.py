"""Shards of a large run: its images dealt out to stores, each of which any machine can annotate.

An image's shard depends on the stem of its file only, so that a run that is started again, also by
another machine, finds every image where it was. The stores of a folder are read together.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ureca_lib.annotate.sources import SplitRule, find_sources
from ureca_lib.annotate.store import Store, StoreError

_PATTERN = "shard-*-of-*.sqlite"


def deal_images(
    images: Iterable[str | Path], folder: str | Path, count: int, rule: SplitRule
) -> dict[Path, list[Path]]:
    """Deal the images of a run out to shards.

    Args:
        images: photos, folders of photos, or files of masks.
        folder: of the stores.
        count: shards of the run, at least one; one that gets no image has no store.
        rule: the split of each image; checked against all of them.

    Returns:
        The store of each shard, with its images, as `find_sources` takes them.

    Raises:
        ValueError: the folder is a file or has stores of another number of shards, or a folder
            holds no annotation files; see also `SplitRule.splits_of`.
        FileNotFoundError: a path does not exist.
    """
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


@contextmanager
def open_stores(path: str | Path) -> Iterator[list[Store]]:
    """Open a store that exists, or all shards of a folder; each keeps up to three files open.

    SQLite shares a file between processes of one machine only: on a network drive, read the stores
    while no other machine annotates them.

    Raises:
        StoreError: there is none, or one of them cannot be read.
    """
    place = Path(path)
    paths = sorted(place.glob(_PATTERN)) if place.is_dir() else [place]
    if not paths:
        raise StoreError(f"{place / _PATTERN}: there is no store")
    with ExitStack() as stack:
        yield [stack.enter_context(Store(one, create=False)) for one in paths]
