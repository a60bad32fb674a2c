"""A store of the pipeline as a data set in files: JSONL, Parquet, COCO and a data card."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tqdm.auto import tqdm

from ureca_lib.annotate.records import STATES, State
from ureca_lib.annotate.sources import names_files
from ureca_lib.annotate.store import Store
from ureca_lib.datasets.card import CardTexts, data_card
from ureca_lib.datasets.coco import CaptionsWriter, InstancesWriter
from ureca_lib.datasets.from_store import FINISHED, read_store
from ureca_lib.datasets.jsonl import QUESTION, conversation, json_line
from ureca_lib.datasets.made_with import read_made_with
from ureca_lib.datasets.parquet import ParquetWriter
from ureca_lib.datasets.records import ExportError, ImageRecord, RegionRecord, image_keys
from ureca_lib.datasets.statistics import DatasetStatistics
from ureca_lib.datasets.table_one import table_one, table_one_markdown
from ureca_lib.regions import RegionImage

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ExportSettings:
    """What goes into a data set.

    Raises:
        ValueError: a state that there is not, or that has no captions.
    """

    states: tuple[State, ...] = field(
        default=("unique",),
        metadata={
            "help": "states whose captions are in JSONL and COCO; with any but unique, each row "
            "of the JSONL says its state"
        },
    )
    question: str = field(default=QUESTION, metadata={"help": "what the human asks in the JSONL"})
    card: CardTexts = field(default_factory=CardTexts)

    def __post_init__(self) -> None:
        known = [state for state in STATES if state != "skipped"]
        unknown = [state for state in self.states if state not in known]
        if unknown or not self.states:
            raise ValueError(
                f"states are some of {', '.join(known)}, not {', '.join(unknown) or 'none'}"
            )


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        folder: of the data set.
        files: paths in it.
        statistics: of the data.
    """

    folder: Path
    files: tuple[str, ...]
    statistics: DatasetStatistics

    @property
    def unfinished(self) -> int:
        """Images that the pipeline has not finished, or could not read."""
        counts = self.statistics.images.items()
        return sum(count for (_, status), count in counts if status not in FINISHED)


def export_dataset(
    store: Store | str | Path,
    out_dir: str | Path,
    settings: ExportSettings | None = None,
    images: Mapping[str, RegionImage] | None = None,
    progress: bool = True,
    mixed: bool = False,
) -> Exported:
    """Write the finished images of a store as a data set.

    For each split: `SPLIT.jsonl` in the published layout, `parquet/SPLIT.parquet`,
    `coco/captions_SPLIT.json` and `coco/instances_SPLIT.json`; for all: `left_out.jsonl`,
    `DATA_CARD.md`, `table_1.md`, `manifest.json`. The same store gives the same bytes. All files
    are complete before the first one takes its place, the manifest, which has their checksums,
    last; files of an earlier export that are no longer part of it go, and others in the folder are
    left alone.

    Args:
        store: or its path.
        out_dir: made where there is none.
        settings: what goes in.
        images: those that were annotated in memory, by their names in the store.
        progress: show a bar.
        mixed: captions of several settings may go together; the card says how many of each.

    Raises:
        StoreError: there is no store, or it cannot be read.
        ExportError: no image is finished, masks are gone or changed since they were captioned,
            captions are of several settings and that is not allowed, a split's name cannot be
            that of a file, or the folder holds what no export wrote.
    """
    if not isinstance(store, Store):
        with Store(store, create=False) as opened:
            return export_dataset(opened, out_dir, settings, images, progress, mixed)
    settings = settings or ExportSettings()
    rows = store.images()
    splits = _splits(store, {row.split for row in rows})
    finished = [row for row in rows if row.status in FINISHED]
    if not finished:
        raise ExportError(f"{store.path}: none of its {len(rows)} images is finished")
    made_with, kinds = read_made_with(store, finished, mixed)
    statistics = DatasetStatistics()
    statistics.add_images(sorted(rows, key=lambda row: row.image))
    keys = image_keys(row.image for row in rows)
    with _Folder(Path(out_dir)) as folder:
        shown = tqdm(total=len(finished), unit="image", disable=not progress)
        with ExitStack() as files, shown as bar:
            writer = _Writer(folder.partial, splits, settings, files)
            for image in read_store(store, keys, images):
                statistics.add(image, writer.write(image))
                bar.update()
        card = data_card(statistics, made_with, settings.states, settings.card, kinds)
        folder.write("DATA_CARD.md", card)
        folder.write("table_1.md", table_one_markdown(table_one(statistics)))
        return Exported(folder.path, folder.publish(), statistics)


def _splits(store: Store, names: set[str]) -> list[str]:
    for name in sorted(names):
        if not names_files(name):
            raise ExportError(f"{store.path}: the split {name!r} cannot name files; rename it")
    return sorted(names)


class _Writer:
    """The open files of an export."""

    def __init__(self, folder: Path, splits: list[str], settings: ExportSettings, files: ExitStack):
        self._settings = settings
        for name in ("parquet", "coco"):
            (folder / name).mkdir()
        self._left_out = _text(folder / "left_out.jsonl", files)
        self._jsonl = {split: _text(folder / f"{split}.jsonl", files) for split in splits}
        self._parquet, self._captions, self._instances = {}, {}, {}
        for split in splits:
            label = f"{settings.card.title}, {split}"
            makers = (
                (self._parquet, ParquetWriter(folder / "parquet" / f"{split}.parquet")),
                (self._captions, CaptionsWriter(folder / f"coco/captions_{split}.json", label)),
                (self._instances, InstancesWriter(folder / f"coco/instances_{split}.json", label)),
            )
            for writers, writer in makers:
                writers[split] = writer
                files.callback(writer.close)

    def write(self, image: ImageRecord) -> int:
        """Write an image into all files of its split; returns how many captions are in JSONL."""
        kept = []
        for record in image.regions:
            if record.caption.text and record.caption.state in self._settings.states:
                kept.append(record)
                self._jsonl[image.split].write(json_line(self._row(image, record)))
            else:
                self._left_out.write(json_line(_why_not(image, record)))
        self._parquet[image.split].write(image)
        self._captions[image.split].write(image, kept)
        self._instances[image.split].write(image, kept)
        return len(kept)

    def _row(self, image: ImageRecord, record: RegionRecord) -> dict[str, Any]:
        caption = record.caption
        row = {"id": record.id, "image": image.file_name, "mask_id": caption.region_id}
        row["conversations"] = conversation(caption.text, self._settings.question)
        if Path(image.file_name).with_suffix("") != Path(image.key):
            row["masks"] = f"{image.key}.json"  # where the photo's name does not say it
        marked = self._settings.states != ("unique",)
        return row | {"state": caption.state} if marked else row


def _why_not(image: ImageRecord, record: RegionRecord) -> dict[str, Any]:
    caption = record.caption
    place = {"id": record.id, "split": image.split, "image": image.file_name}
    outcome = {"state": caption.state, "reason": caption.reason, "caption": caption.text}
    return place | {"mask_id": caption.region_id} | outcome


def _text(path: Path, files: ExitStack) -> TextIO:
    return files.enter_context(path.open("w", encoding="utf-8"))


class _Folder:
    """A data set's folder, whose files are written aside and then take their places."""

    def __init__(self, path: Path):
        self.path, self._made = path, not path.exists()
        # hidden files do not count: the system's, and what a killed export left
        others = path.is_dir() and any(not file.name.startswith(".") for file in path.iterdir())
        if others and _listed(path / MANIFEST) is None:
            raise ExportError(
                f"{path}: the folder is not empty and holds no data set (no {MANIFEST} of an "
                "export); name a new or an empty folder"
            )

    def __enter__(self) -> _Folder:
        self.path.mkdir(parents=True, exist_ok=True)
        self.partial = Path(tempfile.mkdtemp(prefix=".partial.", dir=self.path))
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.partial)
        if self._made and not any(self.path.iterdir()):
            self.path.rmdir()

    def write(self, name: str, text: str) -> None:
        (self.partial / name).write_text(text, encoding="utf-8")

    def publish(self) -> tuple[str, ...]:
        """Move all files to their places, the manifest last; returns their paths."""
        found = (path for path in self.partial.rglob("*") if path.is_file())
        names = sorted(path.relative_to(self.partial).as_posix() for path in found)
        entries = {name: _entry(self.partial / name) for name in names}
        self.write(MANIFEST, json.dumps({"files": entries}, indent=1) + "\n")
        old = _listed(self.path / MANIFEST) or set()
        for name in (*names, MANIFEST):
            (self.path / name).parent.mkdir(exist_ok=True)
            (self.partial / name).replace(self.path / name)
        for name in old - set(names):
            (self.path / name).unlink(missing_ok=True)
        return (*names, MANIFEST)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


_OURS = re.compile(r"(parquet/|coco/(captions|instances)_)?\w+(\.\w+)*\.(jsonl|parquet|json|md)")


def _listed(manifest: Path) -> set[str] | None:
    """Files of an earlier export; None where that is no manifest of one."""
    try:
        names = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return {name for name in names if _OURS.fullmatch(name)} or None
    except (OSError, ValueError, KeyError, TypeError):
        return None
