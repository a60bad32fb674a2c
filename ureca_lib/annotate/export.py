"""Write a store's captions as a data set: JSONL, Parquet, COCO and a data card.

| file | content |
|---|---|
| `SPLIT.jsonl` | the published layout: a caption per line, with photo and id of its mask |
| `parquet/SPLIT.parquet` | every region with its mask, place in the tree and all stages' answers |
| `coco/captions_SPLIT.json` | captions as pycocoevalcap reads them; its images are the regions |
| `coco/instances_SPLIT.json` | COCO instances, each annotation with its `caption` |
| `left_out.jsonl` | regions that are not in the JSONL files, and why |
| `DATA_CARD.md`, `table_1.md` | statistics and limits; Table 1 of the paper with a row of our own |
| `manifest.json` | sizes and checksums of all of these |

In Parquet, ids of regions (`mask_id`, `tree.parent`, `look_alikes`) are JSON, so that the number 7
and the text "7" stay different, and `segmentation` is what pycocotools decodes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from ureca_lib.annotate.card import (
    CardTexts,
    DatasetStatistics,
    ImageRecord,
    RegionRecord,
    data_card,
    table_one_markdown,
)
from ureca_lib.annotate.protocol import STAGES
from ureca_lib.annotate.records import (
    STATES,
    Answer,
    FinalCaption,
    ImageRow,
    State,
    Step,
    masks_digest,
    region_key,
    region_of,
)
from ureca_lib.annotate.sources import names_files
from ureca_lib.annotate.store import Store
from ureca_lib.datasets.captioned import INTERRUPTED, image_keys
from ureca_lib.journal import json_line, replacing
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionError, RegionImage, load_sa1b
from ureca_lib.regions.sa1b import annotation_from

QUESTION = "<image>\nDescribe this region in the image."  # asked in each row of the JSONL
MANIFEST = "manifest.json"
FINISHED = ("done", "partial")  # status of the images that are exported
_ROW_GROUP = 1024  # regions of a Parquet file that are in memory at a time
_OURS = re.compile(r"(parquet/|coco/(captions|instances)_)?\w+(\.\w+)*\.(jsonl|parquet|json|md)")
_CATEGORY = {"id": 1, "name": "region", "supercategory": "region"}

_TEXT, _SMALL, _WHOLE, _REAL, _FLAG = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_()
_ANSWER = pa.struct(
    {"stage": _TEXT, "round": _SMALL}
    | dict.fromkeys(("text", "status", "error", "annotator"), _TEXT)
    | {"prompt_version": _TEXT, "inputs_hash": _TEXT, "seconds": _REAL}
    | {"prompt_tokens": _WHOLE, "reply_tokens": _WHOLE, "attempts": _SMALL, "unique": _FLAG}
)
SCHEMA = pa.schema(
    {
        "id": _TEXT,
        "split": _TEXT,
        "image_key": _TEXT,  # the same for all regions of an image
        "image": _TEXT,  # the photo's file name
        "width": _SMALL,  # of the image in pixels
        "height": _SMALL,
        "mask_id": _TEXT,
        "name": _TEXT,  # of the region, if its file of masks has one
        "segmentation": pa.struct({"size": pa.list_(_SMALL), "counts": _TEXT}),
        "bbox": pa.list_(_REAL),  # x, y, width, height in pixels, as SA-1B has them
        "area": _WHOLE,  # in pixels
        "crowd": _FLAG,
        "tree": pa.struct({"parent": _TEXT, "depth": _SMALL, "height": _SMALL}),
        "caption": _TEXT,  # empty if there is none
        "state": _TEXT,
        "reason": _TEXT,
        "stage": _TEXT,  # stage and round of the answer that became the caption
        "round": _SMALL,
        "look_alikes": pa.list_(_TEXT),
        "answers": pa.list_(_ANSWER),
    }
)


class ExportError(ValueError):
    """A store whose masks are gone or changed, or that cannot be exported as asked."""


@dataclass(frozen=True)
class ExportSettings:
    """Contents of a data set.

    Raises:
        ValueError: an unknown state, or a state without captions.
    """

    states: tuple[State, ...] = field(
        default=("unique",),
        metadata={
            "help": "states whose captions are in JSONL and COCO; with any but unique, each row "
            "of the JSONL has its state"
        },
    )
    question: str = field(default=QUESTION, metadata={"help": "question of each row of the JSONL"})
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
    """Result of an export: the data set's folder, paths of its files in it, and statistics."""

    folder: Path
    files: tuple[str, ...]
    statistics: DatasetStatistics

    @property
    def unfinished(self) -> int:
        """Number of images that the pipeline has not finished, or could not read."""
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
    """Write the finished images of a store as a data set; see the module for its files.

    The same store gives the same bytes. All files are complete before the first of them takes its
    place. Files of an earlier export that are no longer part of the data set are deleted; other
    files in the folder are left alone.

    Args:
        store: the store, or its path.
        out_dir: created if needed.
        settings: contents of the data set.
        images: images that were annotated in memory, by their names in the store.
        progress: show a bar.
        mixed: allow captions of several settings together; the card counts them.

    Raises:
        StoreError: there is no store, or it cannot be read.
        ExportError: no image is finished, masks are gone or changed since they were captioned,
            captions are of several settings and `mixed` is false, a split's name cannot be that of
            a file, or the folder has files but no data set.
    """
    if not isinstance(store, Store):
        with Store(store, create=False) as opened:
            return export_dataset(opened, out_dir, settings, images, progress, mixed)
    settings = settings or ExportSettings()
    rows = sorted(store.images(), key=lambda row: row.image)
    for name in sorted({row.split for row in rows}):
        if not names_files(name):
            raise ExportError(f"{store.path}: the split {name!r} cannot name files; rename it")
    finished = [row for row in rows if row.status in FINISHED]
    if not finished:
        raise ExportError(f"{store.path}: none of its {len(rows)} images is finished")
    made_with, groups = settings_groups(store, finished, mixed)
    statistics = DatasetStatistics()
    statistics.add_images(rows)
    keys = image_keys(row.image for row in rows)
    with _Folder(Path(out_dir)) as folder:
        with ExitStack() as stack:
            left_out = stack.enter_context((folder.partial / "left_out.jsonl").open("wb"))
            files = {row.split: _SplitFiles(folder.partial, row.split, settings) for row in rows}
            for opened in files.values():
                stack.callback(opened.close)
            for row in tqdm(finished, unit="image", disable=not progress):
                image = _read_image(store, row, keys[row.image], (images or {}).get(row.image))
                count, others = files[image.split].write(image)
                left_out.writelines(json_line(other).encode() for other in others)
                statistics.add(image, count)
        card = data_card(statistics, made_with, settings.states, settings.card, groups)
        (folder.partial / "DATA_CARD.md").write_text(card, encoding="utf-8")
        (folder.partial / "table_1.md").write_text(table_one_markdown(statistics), encoding="utf-8")
        return Exported(folder.path, folder.publish(), statistics)


# JSONL in the published layout


class RegionCaption(Protocol):
    """Caption of one region, as every captioner gives it."""

    region_id: RegionId
    text: str


def caption_rows(image: str, captions: Iterable[RegionCaption]) -> Iterator[dict[str, Any]]:
    """Rows of the published layout for the captions of one image.

    Args:
        image: the photo's file name; the file of its masks has the same stem.
        captions: one per region; if a caption has an attribute `unique`, its row has it too.
    """
    for caption in captions:
        row: dict[str, Any] = {
            "id": f"{Path(image).stem}_{caption.region_id}",
            "image": image,
            "mask_id": caption.region_id,
            "conversations": conversation(caption.text),
        }
        unique = getattr(caption, "unique", None)
        yield row if unique is None else row | {"unique": unique}


def conversation(text: str, question: str = QUESTION) -> list[dict[str, str]]:
    """Return the two turns of a row: the question, and the caption as its answer."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": text}]


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows, the whole file or nothing; return their number.

    Raises:
        ValueError: naming the row that JSON cannot hold, such as one with NaN.
    """
    count = 0
    with replacing(path) as file:
        for count, row in enumerate(rows, 1):
            try:
                line = json_line(row)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: row {count} does not go into JSON ({error})") from None
            file.write(line)
    return count


def region_row_id(key: str, region_id: RegionId) -> str:
    """Return the id of a region in a data set; no two pairs of key and region share one.

    `sa_1_523353737`; text that could be mistaken for a number or for a part of the key is quoted:
    `sa_1_"a_2"`.
    """
    plain = isinstance(region_id, int)
    if not plain and region_id and not set(region_id) & set('_"\\'):
        try:
            int(region_id)
        except ValueError:
            plain = True
    return f"{key}_{region_id if plain else json.dumps(region_id, ensure_ascii=False)}"


# a store's images and settings


def _read_image(store: Store, row: ImageRow, key: str, image: RegionImage | None) -> ImageRecord:
    """Read an image's masks, answers, and captions as people's reviews left them."""
    image = _masks(store, row) if image is None else image
    captions = store.reviewed_captions(row.image)
    _check_masks(row, image, [caption.region_id for caption in captions])
    answers: dict[RegionId, list[Answer]] = defaultdict(list)
    saved = store.answers(row.image).values()
    for answer in sorted(saved, key=lambda a: (STAGES.index(a.step.stage), a.step.round)):
        answers[answer.step.region_id].append(answer)
    regions = (
        RegionRecord(region_row_id(key, one.region_id), image[one.region_id], one, tuple(of_region))
        for one in captions
        for of_region in [answers[one.region_id]]
    )
    photo = Path(row.photo or row.image).name
    file_name = (PurePosixPath(key).parent / photo).as_posix()
    size = (image.width, image.height)
    return ImageRecord(key, file_name, row.split, *size, tuple(regions), len(row.left_out))


def _masks(store: Store, row: ImageRow) -> RegionImage:
    """Load the masks of an image: from their place beside the store, else from the old path."""
    if row.path is None:
        raise ExportError(
            f"{store.path}: {row.image} was annotated in memory; give its masks as images"
        )
    beside = store.path.parent / row.image
    try:
        # the captions say which masks are needed, so that others may be faulty
        return load_sa1b(beside if beside.is_file() else row.path, strict=False)
    except RegionError as error:
        raise ExportError(f"{store.path}: the masks of {row.image}: {error}") from error


def _check_masks(row: ImageRow, image: RegionImage, captioned: list[RegionId]) -> None:
    place, known = image.path or row.image, {region.id for region in image}
    lost, fresh = set(captioned) - known, known - set(captioned)
    reason = None
    if (image.width, image.height) != (row.width, row.height):
        reason = (
            f"{image.width} x {image.height} pixels, but {row.width} x {row.height} when it was "
            "captioned; annotate it again"
        )
    elif lost:
        reason = f"region {min(lost, key=captioned.index)!r} has a caption but no mask"
    elif fresh:
        reason = f"region {min(fresh, key=str)!r} came after the captions; annotate it again"
    elif row.masks not in (None, masks_digest(image)):  # None: a store of before digests
        reason = "its masks have changed since they were captioned, under the same ids; "
        reason += "annotate it again"
    if reason:
        raise ExportError(f"{place}: {reason}")


Group = tuple[str, int, Mapping[str, Any] | None]  # split, images, settings if they are known


def settings_groups(
    store: Store, finished: Iterable[ImageRow], mixed: bool
) -> tuple[dict[str, Any], list[Group]]:
    """Group finished images by the settings that they were captioned with.

    Splits may have annotators of their own and be verified; all else must be the same everywhere.
    Images of older stores, which do not know their settings, count as one group.

    Returns:
        Settings of all, or of the latest run if they are mixed or not known; and the groups if
        they are mixed.

    Raises:
        ExportError: they differ, and `mixed` is false.
    """
    counts = Counter((row.split, row.made_with) for row in finished)
    groups: list[Group] = [
        (split, count, None if digest is None else store.settings(digest))
        for (split, digest), count in sorted(counts.items(), key=str)
    ]
    shared = {digest and digest.partition("/")[0] for _, digest in counts}
    if len(shared) > 1 or len({split for split, _ in counts}) < len(counts):
        if not mixed:
            others = counts.total() - max(counts.values())
            raise ExportError(
                f"{store.path}: {others} of {counts.total()} finished images were captioned with "
                "other settings than the rest; annotate all with the same, or allow it with mixed "
                "(--mixed)"
            )
        return store.settings(), groups
    if any(settings is None for _, _, settings in groups):
        return store.settings(), []
    found: dict[str, Any] = {"annotators": {}, "verify_splits": []}
    for split, _, settings in groups:
        annotators = found["annotators"] | {split: settings["annotators"]}
        verified = sorted({*found["verify_splits"], *settings["verify_splits"]})
        found |= settings | {"annotators": annotators, "verify_splits": verified}
    return found, []


# files


class _SplitFiles:
    """Open files of one split."""

    def __init__(self, folder: Path, split: str, settings: ExportSettings):
        head = {"info": {"description": f"{settings.card.title}, {split}"}, "licenses": []}
        for name in ("parquet", "coco"):
            (folder / name).mkdir(exist_ok=True)
        self._settings = settings
        self._jsonl = (folder / f"{split}.jsonl").open("w", encoding="utf-8")
        self._captions = _CocoFile(folder / f"coco/captions_{split}.json", **head, type="captions")
        categories = {"categories": [_CATEGORY]}
        self._instances = _CocoFile(folder / f"coco/instances_{split}.json", **head, **categories)
        self._parquet = ParquetWriter(folder / f"parquet/{split}.parquet")

    def write(self, image: ImageRecord) -> tuple[int, list[dict[str, Any]]]:
        """Write an image; return the number of captions in the JSONL, and rows of the others."""
        kept, left_out = [], []
        for record in image.regions:
            wanted = record.caption.text and record.caption.state in self._settings.states
            (kept if wanted else left_out).append(record)
        self._parquet.write(image)
        number, size = self._instances.images + 1, {"width": image.width, "height": image.height}
        self._instances.image({"id": number, "file_name": image.file_name, **size})
        for record in kept:
            caption = {"caption": record.caption.text}
            self._jsonl.write(json_line(self._row(image, record)))
            self._captions.image({"id": record.id, "file_name": image.file_name, **size})
            self._captions.annotation({"image_id": record.id, **caption})
            annotation = {"iscrowd": 0} | annotation_from(record.region)
            place = {"image_id": number, "category_id": 1, "mask_id": record.region.id}
            box = {"bbox": list(record.region.pixel_box)}  # COCO's; SA-1B's is a pixel less
            more = {"region_id": record.id, **caption}
            self._instances.annotation(annotation | place | box | more)
        return len(kept), [_left_out_row(image, record) for record in left_out]

    def _row(self, image: ImageRecord, record: RegionRecord) -> dict[str, Any]:
        caption = record.caption
        row = {"id": record.id, "image": image.file_name, "mask_id": caption.region_id}
        row["conversations"] = conversation(caption.text, self._settings.question)
        if Path(image.file_name).with_suffix("") != Path(image.key):
            row["masks"] = f"{image.key}.json"  # if the photo's name does not give it
        marked = self._settings.states != ("unique",)
        return row | {"state": caption.state} if marked else row

    def close(self) -> None:
        for file in (self._jsonl, self._captions, self._instances, self._parquet):
            file.close()


def _left_out_row(image: ImageRecord, record: RegionRecord) -> dict[str, Any]:
    caption = record.caption
    place = {"id": record.id, "split": image.split, "image": image.file_name}
    outcome = {"state": caption.state, "reason": caption.reason, "caption": caption.text}
    return place | {"mask_id": caption.region_id} | outcome


class _CocoFile:
    """A COCO file that is written as it comes; annotations wait in a temporary file."""

    def __init__(self, path: Path, **head: Any):
        self._file = path.open("w", encoding="utf-8")
        self._aside = tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent)  # noqa: SIM115
        self.images = self.annotations = 0
        self._file.write(f'{json.dumps(head, ensure_ascii=False)[:-1]}, "images": [')

    def image(self, entry: dict[str, Any]) -> None:
        self.images += 1
        _write_item(self._file, entry, self.images)

    def annotation(self, entry: dict[str, Any]) -> None:
        self.annotations += 1
        _write_item(self._aside, entry | {"id": self.annotations}, self.annotations)

    def close(self) -> None:
        self._file.write('\n], "annotations": [')
        self._aside.seek(0)
        shutil.copyfileobj(self._aside, self._file)
        self._file.write("\n]}\n")
        self._aside.close()
        self._file.close()


def _write_item(file: TextIO, entry: dict[str, Any], number: int) -> None:
    file.write(",\n" if number > 1 else "\n")
    file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False))


class ParquetWriter:
    """Write images to a new Parquet file, one row per region, a row group at a time."""

    def __init__(self, path: Path):
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, image: ImageRecord) -> None:
        """Add all regions of an image."""
        for record in image.regions:
            self._rows.append(_parquet_row(image, record))
            if len(self._rows) == _ROW_GROUP:
                self._flush()

    def close(self) -> None:
        """Write the remaining rows and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []


def _parquet_row(image: ImageRecord, record: RegionRecord) -> dict[str, Any]:
    region, caption = record.region, record.caption
    counts = region.rle["counts"].decode("ascii")
    parent = region_key(caption.parent)
    return {
        "id": record.id,
        "split": image.split,
        "image_key": image.key,
        "image": image.file_name,
        "width": image.width,
        "height": image.height,
        "mask_id": region_key(region.id),
        "name": region.name,
        "segmentation": {"size": list(region.size), "counts": counts},
        "bbox": list(region.bbox),
        "area": region.area,
        "crowd": region.crowd,
        "tree": {"parent": parent, "depth": caption.depth, "height": caption.height},
        "caption": caption.text,
        "state": caption.state,
        "reason": caption.reason,
        "stage": caption.stage,
        "round": caption.round,
        "look_alikes": [region_key(other) for other in caption.look_alikes],
        "answers": [a.step._asdict() | vars(a) for a in record.answers],
    }


def read_parquet(path: str | Path) -> Iterator[ImageRecord]:
    """Read the images of a Parquet file of an export, one at a time.

    Raises:
        ExportError: naming a file that is damaged, or not of an export.
    """
    try:
        file, rows = pq.ParquetFile(path), []
        missing = set(SCHEMA.names) - set(file.schema_arrow.names)
        if missing:
            raise ValueError(f"there is no column {', '.join(sorted(missing))}")
        for batch in file.iter_batches(_ROW_GROUP):
            for row in batch.to_pylist():
                if rows and row["image_key"] != rows[0]["image_key"]:
                    yield _image_record(rows)
                    rows = []
                rows.append(row)
        if rows:
            yield _image_record(rows)
    except Exception as error:  # a damaged file raises a dozen kinds of Arrow's errors
        raise ExportError(f"{path}: not a Parquet file of an export ({error})") from error


def _image_record(rows: list[dict[str, Any]]) -> ImageRecord:
    row = rows[0]
    size = (row["width"], row["height"])
    regions = tuple(_region_record(row) for row in rows)
    return ImageRecord(row["image_key"], row["image"], row["split"], *size, regions)


def _region_record(row: dict[str, Any]) -> RegionRecord:
    mask_id, tree = region_of(row["mask_id"]), row["tree"]
    region = Region(
        mask_id, row["segmentation"], row["bbox"], row["area"], row["name"], row["crowd"]
    )
    outcome = (row["state"], row["reason"], row["stage"], row["round"])
    place = (region_of(tree["parent"]), tree["depth"], tree["height"])
    alike = tuple(region_of(other) for other in row["look_alikes"])
    caption = FinalCaption(mask_id, row["caption"], *outcome, *place, alike)
    answers = tuple(
        Answer(Step(answer.pop("stage"), answer.pop("round"), mask_id), **answer)
        for answer in row["answers"]
    )
    return RegionRecord(row["id"], region, caption, answers)


class _Folder:
    """A data set's folder, whose files are written aside and then take their places."""

    def __init__(self, path: Path):
        self.path, self._made = path, not path.exists()
        # hidden files do not count: the system's, and those that a killed export left
        others = path.is_dir() and any(not file.name.startswith(".") for file in path.iterdir())
        if others and not _listed(path / MANIFEST) and not _listed(path / INTERRUPTED):
            raise ExportError(
                f"{path}: the folder is not empty and holds no data set (no {MANIFEST} of an "
                "export); name a new or an empty folder"
            )

    def __enter__(self) -> _Folder:
        self.path.mkdir(parents=True, exist_ok=True)
        for stale in self.path.glob(".partial.*"):  # of exports that were killed
            shutil.rmtree(stale)
        self.partial = Path(tempfile.mkdtemp(prefix=".partial.", dir=self.path))
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.partial)
        if self._made and not any(self.path.iterdir()):
            self.path.rmdir()

    def publish(self) -> tuple[str, ...]:
        """Move all files to their places; return their paths.

        Until the manifest is there, readers refuse the folder, which may hold files of two exports.
        """
        found = (path for path in self.partial.rglob("*") if path.is_file())
        names = sorted(path.relative_to(self.partial).as_posix() for path in found)
        entries = {name: _entry(self.partial / name) for name in names}
        text = json.dumps({"files": entries}, indent=1) + "\n"
        (self.partial / MANIFEST).write_text(text, encoding="utf-8")
        old = {
            name
            for manifest in (MANIFEST, INTERRUPTED)
            for name in _listed(self.path / manifest) or ()
        }
        with replacing(self.path / INTERRUPTED) as file:
            json.dump({"files": sorted(old | set(names))}, file)
        (self.path / MANIFEST).unlink(missing_ok=True)
        for name in names:
            (self.path / name).parent.mkdir(exist_ok=True)
            (self.partial / name).replace(self.path / name)
        for name in old - set(names):
            (self.path / name).unlink(missing_ok=True)
        (self.partial / MANIFEST).replace(self.path / MANIFEST)
        (self.path / INTERRUPTED).unlink()
        return (*names, MANIFEST)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _listed(manifest: Path) -> set[str] | None:
    """Return the files of an earlier export, or None if this is no manifest of one."""
    try:
        names = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return {name for name in names if _OURS.fullmatch(name)} or None
    except (OSError, ValueError, KeyError, TypeError):
        return None
