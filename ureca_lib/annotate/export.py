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
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from ureca_lib.annotate.card import (
    FINISHED,
    CardTexts,
    DatasetStatistics,
    data_card,
    table_one,
)
from ureca_lib.annotate.protocol import STAGES
from ureca_lib.annotate.records import STATES, ImageRow, State, masks_digest, region_key
from ureca_lib.annotate.sources import names_files
from ureca_lib.annotate.store import Store
from ureca_lib.datasets.captioned import INTERRUPTED, image_keys
from ureca_lib.journal import json_line, replacing, write_json
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage, load_sa1b
from ureca_lib.regions.sa1b import annotation_from

QUESTION = "<image>\nDescribe this region in the image."  # asked in each row of the JSONL
MANIFEST = "manifest.json"
_ROW_GROUP = 1024  # regions of a Parquet file that are in memory at a time
_OURS = re.compile(r"(parquet/|coco/(captions|instances)_)?\w+(\.\w+)*\.(jsonl|parquet|json|md)")

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


_COUNTED = [name for name in SCHEMA.names if name not in ("name", "segmentation", "bbox")]


class Exported(NamedTuple):
    """Result of an export: the data set's folder, paths of its files in it, and statistics."""

    folder: Path
    files: tuple[str, ...]
    statistics: DatasetStatistics

    @property
    def unfinished(self) -> int:
        """Number of images that the pipeline has not finished, or could not read."""
        return int((~self.statistics.images.status.isin(FINISHED)).sum())


def export_dataset(
    store: Store | str | Path,
    out_dir: str | Path,
    states: Sequence[State] = ("unique",),
    texts: CardTexts | None = None,
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
        states: of the captions that are in JSONL and COCO; with any but unique, each row of the
            JSONL has its state.
        texts: of the data card.
        images: images that were annotated in memory, by their names in the store.
        progress: show a bar.
        mixed: allow captions of several settings together; the card counts them.

    Raises:
        StoreError: there is no store, or it cannot be read.
        RegionError: the masks of an image cannot be read.
        ValueError: a state without captions, no image is finished, masks have changed since they
            were captioned, captions are of several settings and `mixed` is false, a split's name
            cannot be that of a file, or the folder has files but no data set.
    """
    if not isinstance(store, Store):
        with Store(store, create=False) as opened:
            return export_dataset(opened, out_dir, states, texts, images, progress, mixed)
    known = [state for state in STATES if state != "skipped"]
    if not states or set(states) - set(known):
        raise ValueError(f"states are some of {', '.join(known)}, not {states}")
    texts, images, out = texts or CardTexts(), images or {}, Path(out_dir)
    rows = sorted(store.images(), key=lambda row: row.image)
    splits = sorted({row.split for row in rows})
    if wrong := [split for split in splits if not names_files(split)]:
        raise ValueError(f"{store.path}: the split {wrong[0]!r} cannot name files; rename it")
    finished = [row for row in rows if row.status in FINISHED]
    if not finished:
        raise ValueError(f"{store.path}: none of its {len(rows)} images is finished")
    made_with, groups = _made_with(store, finished, mixed)
    keys = image_keys(row.image for row in rows)
    _check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        for stale in out.glob(".partial.*"):  # of exports that were killed
            shutil.rmtree(stale)
        with TemporaryDirectory(prefix=".partial.", dir=out) as name:
            partial, left_out = Path(name), []
            files = {split: _SplitFiles(partial, split, states) for split in splits}
            for row in tqdm(finished, unit="image", disable=not progress):
                image = images.get(row.image) or _masks(store, row)
                regions = _region_rows(store, row, keys[row.image], image)
                left_out += files[row.split].add_image(regions)
            tables = [files[split].close(texts.title) for split in splits]
            statistics = DatasetStatistics(pa.concat_tables(tables), rows, states)
            (partial / "left_out.jsonl").write_text("".join(left_out), encoding="utf-8")
            card = data_card(statistics, made_with, states, texts, groups)
            (partial / "DATA_CARD.md").write_text(card, encoding="utf-8")
            (partial / "table_1.md").write_text(table_one(statistics), encoding="utf-8")
            return Exported(out, _publish(partial, out), statistics)
    finally:
        if not any(out.iterdir()):
            out.rmdir()


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
    plain = isinstance(region_id, int) or re.fullmatch(r'(?!\s*[+-]?\d+\s*$)[^_"\\]+', region_id)
    return f"{key}_{region_id if plain else json.dumps(region_id, ensure_ascii=False)}"


# a store's images and settings


def _region_rows(
    store: Store, row: ImageRow, key: str, image: RegionImage
) -> Iterator[tuple[Region, dict[str, Any]]]:
    """Regions of an image with their rows, with captions as people's reviews left them.

    The rows have the columns of `SCHEMA`, and other keys.
    """
    captions = store.reviewed_captions(row.image)
    _check_masks(row, image, [caption.region_id for caption in captions])
    answers: dict[RegionId, list[dict[str, Any]]] = defaultdict(list)
    saved = store.answers(row.image).values()
    for answer in sorted(saved, key=lambda a: (STAGES.index(a.step.stage), a.step.round)):
        answers[answer.step.region_id].append(answer.step._asdict() | vars(answer))
    photo = PurePosixPath(key).with_name(Path(row.photo or row.image).name)
    of_image = {"image_key": key, "image": str(photo), "split": row.split}
    of_image |= {"width": image.width, "height": image.height}
    for caption in captions:
        region = image[caption.region_id]
        parent = region_key(caption.parent)
        row = annotation_from(region) | vars(caption) | of_image
        row |= {"id": region_row_id(key, region.id), "mask_id": region_key(region.id)}
        row |= {"caption": caption.text, "crowd": region.crowd, "answers": answers[region.id]}
        row["tree"] = {"parent": parent, "depth": caption.depth, "height": caption.height}
        row["look_alikes"] = [region_key(other) for other in caption.look_alikes]
        yield region, row


def _masks(store: Store, row: ImageRow) -> RegionImage:
    """Load the masks of an image: from their place beside the store, else from the old path."""
    if row.path is None:
        raise ValueError(
            f"{store.path}: {row.image} was annotated in memory; give its masks as images"
        )
    beside = store.path.parent / row.image
    # the captions say which masks are needed, so that others may be faulty
    return load_sa1b(beside if beside.is_file() else row.path, strict=False)


def _check_masks(row: ImageRow, image: RegionImage, captioned: list[RegionId]) -> None:
    """Raise ValueError unless the masks are those that were captioned."""
    reason = None
    # a store of before digests has none
    same = row.masks is None or row.masks == masks_digest(image)
    if (image.width, image.height) != (row.width, row.height):
        reason = f"{image.width} x {image.height} pixels are not those that were captioned"
    elif different := {region.id for region in image}.symmetric_difference(captioned):
        ids = ", ".join(sorted(map(repr, different)))
        reason = f"region {ids}: a mask without a caption, or a caption without a mask"
    elif not same:
        reason = "its masks have changed since they were captioned"
    if reason:
        raise ValueError(f"{image.path or row.image}: {reason}; annotate it again")


def _made_with(
    store: Store, finished: Iterable[ImageRow], mixed: bool
) -> tuple[dict[str, str], list[tuple[str, int, str]]]:
    """The settings that images were captioned with.

    Splits may have annotators of their own and be verified; all else must be the same everywhere.
    Images of older stores, which do not know their settings, count as one group.

    Returns:
        Settings by name, all values of a setting in one text; and if they are mixed, for each
        group of images its split, their number and the values that differ.

    Raises:
        ValueError: they differ, and `mixed` is false.
    """
    counts = Counter((row.split, row.made_with) for row in finished)
    shared = {digest and digest.partition("/")[0] for _, digest in counts}
    several = len(shared) > 1 or len({split for split, _ in counts}) < len(counts)
    if several and not mixed:
        others = counts.total() - max(counts.values())
        raise ValueError(
            f"{store.path}: {others} of {counts.total()} finished images were captioned with "
            "other settings than the rest; annotate all with the same, or allow it with mixed "
            "(--mixed)"
        )
    found = []
    for split, digest in (order := sorted(counts, key=str)):
        settings = store.settings(digest)  # of an older store: the latest run's, by split
        if digest is not None:
            settings["annotators"] = {split: settings["annotators"]}
        found.append(dict(_flat(settings)))
    values = pd.DataFrame(found)
    differ = values.loc[:, values.nunique() > 1]
    groups = [
        (split, counts[split, digest], _named(own) if digest else "not known")
        for (split, digest), (_, own) in zip(order, differ.iterrows(), strict=True)
    ]
    made_with = {name: " or ".join(values[name].dropna().unique()) for name in values}
    return made_with, groups if several else []


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            listed = isinstance(value, (list, tuple))
            yield f"{prefix}{name}", ", ".join(map(str, value)) if listed else str(value)


def _named(settings: pd.Series) -> str:
    known = [f"{name}: {value}" for name, value in settings.dropna().items()]
    return ", ".join(known) or "no setting that is stored"


# files


class _SplitFiles:
    """Files of one split: Parquet is written as it comes, the texts of the others at the end."""

    def __init__(self, folder: Path, split: str, states: Sequence[State]):
        for name in ("parquet", "coco"):
            (folder / name).mkdir(exist_ok=True)
        self._folder, self._split, self._states = folder, split, states
        self._path = folder / f"parquet/{split}.parquet"
        self._parquet = pq.ParquetWriter(self._path, SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        # lines of the JSONL, and of the lists of both COCO files
        self._jsonl: list[str] = []
        self._captions: dict[str, list[str]] = {"images": [], "annotations": []}
        self._instances: dict[str, list[str]] = {"images": [], "annotations": []}

    def add_image(self, regions: Iterable[tuple[Region, dict[str, Any]]]) -> list[str]:
        """Add an image; returns the lines of the regions that are left out of the JSONL."""
        left_out = []
        for region, row in regions:
            self._rows.append(row)
            if row["caption"] and row["state"] in self._states:
                self._add_caption(region, row)
            else:
                names = ("id", "split", "image", "mask_id", "state", "reason", "caption")
                left_out.append(json_line({n: row[n] for n in names} | {"mask_id": region.id}))
        self._instances["images"].append(_coco_image(len(self._instances["images"]) + 1, row))
        if len(self._rows) >= _ROW_GROUP:
            self._write_rows()
        return left_out

    def _add_caption(self, region: Region, row: dict[str, Any]) -> None:
        published = {"id": row["id"], "image": row["image"], "mask_id": region.id}
        published["conversations"] = conversation(row["caption"])
        if Path(row["image"]).with_suffix("") != Path(row["image_key"]):
            published["masks"] = f"{row['image_key']}.json"  # if the photo's name does not give it
        if tuple(self._states) != ("unique",):
            published["state"] = row["state"]
        self._jsonl.append(json_line(published))
        number, image = len(self._jsonl), len(self._instances["images"]) + 1
        caption = {"caption": row["caption"]}
        self._captions["images"].append(_coco_image(row["id"], row))
        self._captions["annotations"].append(
            _json({"image_id": row["id"], **caption, "id": number})
        )
        annotation = {"iscrowd": 0} | annotation_from(region) | {"id": number}
        place = {"image_id": image, "category_id": 1, "mask_id": region.id}
        box = {"bbox": list(region.pixel_box)}  # COCO's; SA-1B's is a pixel less
        more = {"region_id": row["id"], "caption": row["caption"]}
        self._instances["annotations"].append(_json(annotation | place | box | more))

    def _write_rows(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []

    def close(self, title: str) -> pa.Table:
        """Write what is in memory; returns the columns that the statistics count.

        Args:
            title: of the data set.
        """
        if self._rows:
            self._write_rows()
        self._parquet.close()
        folder, split = self._folder, self._split
        (folder / f"{split}.jsonl").write_text("".join(self._jsonl), encoding="utf-8")
        head = {"info": {"description": f"{title}, {split}"}, "licenses": []}
        captions = folder / f"coco/captions_{split}.json"
        _write_coco(captions, head | {"type": "captions"}, self._captions)
        categories = {"categories": [{"id": 1, "name": "region", "supercategory": "region"}]}
        _write_coco(folder / f"coco/instances_{split}.json", head | categories, self._instances)
        return pq.read_table(self._path, columns=_COUNTED)


def _coco_image(image_id: int | str, row: Mapping[str, Any]) -> str:
    size = {"width": row["width"], "height": row["height"]}
    return _json({"id": image_id, "file_name": row["image"], **size})


def _json(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False)


def _write_coco(path: Path, head: Mapping[str, Any], lists: Mapping[str, list[str]]) -> None:
    """Write a COCO file with one line per image and annotation."""
    texts = [_json(head)[:-1]]
    for name, lines in lists.items():
        texts.append(f', "{name}": [\n' + ",\n".join(lines) + "\n]")
    path.write_text("".join(texts) + "}\n", encoding="utf-8")


def _check_folder(path: Path) -> None:
    """Raise ValueError if a folder has files but is no data set."""
    # hidden files do not count: the system's, and those that a killed export left
    others = path.is_dir() and any(not file.name.startswith(".") for file in path.iterdir())
    if others and not _listed(path):
        raise ValueError(
            f"{path}: the folder is not empty and holds no data set (no {MANIFEST} of an "
            "export); name a new or an empty folder"
        )


def _publish(partial: Path, folder: Path) -> tuple[str, ...]:
    """Move all files to their places; return their paths.

    Until the manifest is there, readers refuse the folder, which may hold files of two exports.
    """
    found = (path for path in partial.rglob("*") if path.is_file())
    names = sorted(path.relative_to(partial).as_posix() for path in found)
    write_json(partial / MANIFEST, {"files": {name: _entry(partial / name) for name in names}})
    old = _listed(folder)
    with replacing(folder / INTERRUPTED) as file:
        json.dump({"files": sorted(old | set(names))}, file)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (partial / name).replace(folder / name)
    for name in old - set(names):
        (folder / name).unlink(missing_ok=True)
    (partial / MANIFEST).replace(folder / MANIFEST)
    (folder / INTERRUPTED).unlink()
    return (*names, MANIFEST)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _listed(folder: Path) -> set[str]:
    """Files of earlier exports in a folder; none if it has no manifest of one."""
    names: set[str] = set()
    for manifest in (MANIFEST, INTERRUPTED):
        try:
            names.update(json.loads((folder / manifest).read_text(encoding="utf-8"))["files"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {name for name in names if _OURS.fullmatch(name)}
