"""An index of captioned images in Arrow, so that training starts without reading every annotation.

Written once beside the data (of generated scenes: into the run's folder), memory-mapped, and shared
by all processes and later runs. A row is an image: its size, its captioned regions as run-length
encodings, their captions and questions, and its files with size and time. Making the index reads
every annotation and every photo's header, so that a fault is found before the first step.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages, open_captioned
from ureca_lib.journal import replacing
from ureca_lib.regions import Region, RegionError, load_image
from ureca_lib.regions.sa1b import annotation_files
from ureca_lib.scenes import Scene, SceneSpecification

VERSION = 1  # of the columns below
ROWS_AT_ONCE = 256
_TEXTS = pa.list_(pa.list_(pa.string()))
COLUMNS = pa.schema(
    {
        "image_id": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "ids": pa.list_(pa.string()),  # of captioned regions, as JSON: an id is a number or a text
        "masks": pa.list_(pa.binary()),  # counts of their COCO encodings
        "captions": _TEXTS,
        "questions": _TEXTS,  # of each caption; empty if the data has none
        "photo": pa.string(),
        "scene": pa.bool_(),
        "files": pa.string(),  # annotation and photo, as JSON: path, size, time
        "fault": pa.string(),  # of the photo
    }
)


class RegionIndex:
    """Captioned images by number, from a memory-mapped table.

    Args:
        table: of the columns above.
        data, limit: see `open_index`; for pixels of scenes.
        path: of the index; None if it is kept in memory.
        first: number in the data of the table's first image.
    """

    def __init__(
        self, table: pa.Table, data: str, limit: int | None, path: Path | None, first: int = 0
    ):
        self.table, self.data, self.limit = table, data, limit
        self.path, self.first = path, first

    def __len__(self) -> int:
        return len(self.table)

    def part(self, first: int, stop: int) -> RegionIndex:
        """Images `first` to `stop - 1`."""
        rows = self.table.slice(first, stop - first)
        return RegionIndex(rows, self.data, self.limit, self.path, self.first + first)

    @cached_property
    def counts(self) -> np.ndarray:
        """(images,) captioned regions of each image."""
        return pc.fill_null(pc.list_value_length(self.table["ids"]), 0).to_numpy()

    @lru_cache(maxsize=64)  # noqa: B019, an index lives as long as its run
    def row(self, number: int) -> dict:
        """An image's columns as plain values."""
        (row,) = self.table.slice(number, 1).to_pylist()
        return row

    def size(self, number: int) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.row(number)["height"], self.row(number)["width"]

    def regions(self, number: int) -> list[Region]:
        """Captioned regions of an image, in file order."""
        row, size = self.row(number), list(self.size(number))
        pairs = zip(row["ids"], row["masks"], strict=True)
        return [Region(json.loads(id), {"size": size, "counts": counts}) for id, counts in pairs]

    def pixels(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8 of an image, read now.

        Raises:
            RegionError: the photo cannot be read. ValueError: see `check_files`.
        """
        self.check_files(number)
        photo = self.row(number)["photo"]
        if photo is not None:
            return load_image(photo, expected=self.size(number))
        return self._images[self.first + number].pixels

    def scene(self, number: int) -> Scene | None:
        """The procedural scene of an image, or None for a photo."""
        return self._images[self.first + number].scene if self.row(number)["scene"] else None

    @cached_property
    def _images(self) -> CaptionedImages:
        return open_captioned(self.data, self.limit)

    def check_files(self, number: int | None = None) -> None:
        """Check that annotation and photo are those that were indexed, of one image or of all.

        Raises:
            ValueError: a file has changed or is gone, naming it; the index is then removed.
        """
        column = self.table["files"] if number is None else [self.row(number)["files"]]
        for text in column:
            for path, *then in json.loads(str(text)):
                if _stamp(Path(path))[1:] != then:
                    if self.path is not None:
                        self.path.unlink(missing_ok=True)
                    raise ValueError(
                        f"{path}: changed or gone since {self.data} was indexed; run the command "
                        "again, which will index it anew"
                    )

    @property
    def content(self) -> str:
        """A hash of ids, sizes, masks, captions and questions of the data, but not of pixels."""
        return self.table.schema.metadata[b"content"].decode()

    def texts(self, column: str) -> pa.ChunkedArray:
        """All captions or all questions, in order."""
        return pc.list_flatten(pc.list_flatten(self.table[column]))


def open_index(
    data: str,
    limit: int | None = None,
    folder: Path | None = None,
    workers: int = 0,
    progress: bool = True,
) -> RegionIndex:
    """The index of some data, made if there is none that fits.

    Args:
        data: see `ureca_lib.datasets.captioned`.
        limit: only the first images.
        folder: where it is kept if the data has no folder of its own that can be written; None
            keeps it in memory then.
        workers: processes that read annotations.
        progress: show a bar.

    Raises:
        CaptionedError, FileNotFoundError, RegionError: the data cannot be read.
    """
    head, named, _ = data.partition(".jsonl@")
    place = Path(f"{head}.jsonl" if named else data)
    listed = [place] if place.exists() else []  # scenes, for instance, have no file
    if place.is_dir():
        listed = [*annotation_files(place), *sorted(place.glob("*.jsonl"))]
    beside = place if place.is_dir() else place.parent
    if not place.exists() or not os.access(beside, os.W_OK):
        beside = folder
    if beside is None:
        return RegionIndex(_table(data, limit, "", workers, progress), data, limit, None)
    # data read in another way has an index of its own
    name = _hash([VERSION, SceneSpecification().version, data, limit])
    path = beside / f".{place.stem if listed else 'scenes'}.{name}.arrow"
    # the other processes of a run, and other runs, wait for the one that makes the index
    with FileLock(path.with_suffix(".lock")):
        table, state = _stored(path), _hash([_stamp(file) for file in listed])
        if table is None or table.schema.metadata.get(b"state") != state.encode():
            table = _table(data, limit, state, workers, progress)
            if table["fault"].null_count == len(table):  # faults are looked at again each time
                with replacing(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table, max_chunksize=4096)
                table = _stored(path)
    return RegionIndex(table, data, limit, path)


def _stored(path: Path) -> pa.Table | None:
    """A memory-mapped table, or None if there is none that can be read."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid):
        return None


def _table(data: str, limit: int | None, state: str, workers: int, progress: bool) -> pa.Table:
    images = open_captioned(data, limit)
    # processes take seconds to start: none for what a single one reads at once
    workers = min(workers, os.cpu_count() or 1, len(images) // ROWS_AT_ONCE)
    loader = DataLoader(images, ROWS_AT_ONCE, num_workers=workers, collate_fn=_rows)
    digest, batches = hashlib.sha256(), []  # the digest is of what training depends on
    with tqdm(total=len(images), desc="indexing images", disable=not progress) as bar:
        for rows in loader:
            for row in rows:
                content = {k: v for k, v in row.items() if k not in ("files", "photo", "fault")}
                digest.update(json.dumps(content, default=bytes.decode).encode())
            batches.append(pa.RecordBatch.from_pylist(rows, COLUMNS))
            bar.update(len(rows))
    metadata = {"content": digest.hexdigest()[:16], "state": state}
    return pa.Table.from_batches(batches, COLUMNS).replace_schema_metadata(metadata)


def _rows(images: list[CaptionedImage]) -> list[dict]:
    return [_row(image) for image in images]


def _row(image: CaptionedImage) -> dict:
    regions = [region for region in image.regions if image.captions.get(region.id)]
    fault, photo, (height, width) = None, image.image.photo, image.size
    try:
        if regions:
            image.image.check_photo()
    except RegionError as error:
        fault = str(error)
    return {
        "image_id": image.image_id,
        "height": height,
        "width": width,
        "ids": [json.dumps(region.id) for region in regions],
        "masks": [region.rle["counts"] for region in regions],
        "captions": [list(image.captions[region.id]) for region in regions],
        "questions": [list(image.questions.get(region.id, ())) for region in regions],
        "photo": None if photo is None else str(photo),
        "scene": image.scene is not None,
        "files": json.dumps([_stamp(path) for path in (image.image.path, photo) if path]),
        "fault": fault,
    }


def _hash(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _stamp(path: Path) -> list:
    """A file's absolute path, size and time of change; of a file that is gone its path alone."""
    try:
        stat = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]
