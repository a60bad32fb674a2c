"""Write a store's captions as a data set: JSONL, Parquet, COCO and a data card.

| file | content |
|---|---|
| `SPLIT.jsonl` | the published layout: a caption per line, with photo and id of its mask |
| `parquet/SPLIT.parquet` | every region with its mask, place in the tree and all stages' answers |
| `coco/captions_SPLIT.json` | captions as pycocoevalcap reads them; its images are the regions |
| `coco/instances_SPLIT.json` | COCO instances, each annotation with its `caption` |
| `left_out.jsonl` | regions that are not in the JSONL files, and why |
| `README.md`, `table_1.md` | the data card; Table 1 of the paper with a row of our own |
| `manifest.json` | sizes and checksums of all of these |

In Parquet, ids of regions (`mask_id`, `tree.parent`, `look_alikes`) are JSON, so that the number 7
and the text "7" stay different, and `segmentation` is what pycocotools decodes.

The card's head names the JSONL files, so that `datasets.load_dataset("FOLDER")` reads the captions;
`load_dataset("parquet", data_files="FOLDER/parquet/SPLIT.parquet")` reads the regions. `hf upload
NAME/DATA FOLDER --repo-type dataset` puts the folder on the hub, card included, and
`load_dataset("FOLDER").push_to_hub("NAME/DATA")` the captions alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
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
from ureca_lib.annotate.records import (
    STATES,
    FinalCaption,
    ImageRow,
    State,
    masks_digest,
    region_key,
)
from ureca_lib.annotate.shards import open_stores
from ureca_lib.annotate.sources import names_files
from ureca_lib.annotate.store import Store
from ureca_lib.datasets.captioned import INTERRUPTED, image_keys
from ureca_lib.journal import json_line, replacing, write_json
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage, load_regions
from ureca_lib.regions.sa1b import annotation_from
from ureca_lib.regions.sources import split_place

QUESTION = "<image>\nDescribe this region in the image."  # asked in each row of the JSONL
MANIFEST, CARD = "manifest.json", "README.md"
_ROW_GROUP = 1024  # regions per row group of a Parquet file
# COCO files, and what their heads say
_COCO: dict[str, dict[str, Any]] = {
    "captions": {"type": "captions"},
    "instances": {"categories": [{"id": 1, "name": "region", "supercategory": "region"}]},
}
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
        store: the store, or the path of a store or of a folder of shards.
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
    known = [state for state in STATES if state != "skipped"]
    if not states or set(states) - set(known):
        raise ValueError(f"states are some of {', '.join(known)}, not {states}")
    if isinstance(store, (str, Path)):
        path, stores = Path(store), open_stores(store)
    else:
        path, stores = store.path, nullcontext([store])
    with stores as opened:
        source = StoreSource(path, opened, images)
        keys = image_keys(row.image for row in source.rows)
        masks = source.mask_names()
        made_with, groups = source.made_with(mixed)
        texts, out = texts or CardTexts(), Path(out_dir)
        _check_folder(out)
        out.mkdir(parents=True, exist_ok=True)
        try:
            for stale in out.glob(".partial.*"):  # of exports that were killed
                shutil.rmtree(stale)
            with TemporaryDirectory(prefix=".partial.", dir=out) as name:
                partial, left_out = Path(name), []
                files = {split: _SplitFiles(partial, split, states) for split in source.splits}
                for row in tqdm(source.finished, unit="image", disable=not progress):
                    named = masks.get(row.image, (None, None))
                    left_out += files[row.split].add_image(source, row, keys[row.image], *named)
                tables = [files[split].close(texts.title) for split in source.splits]
                statistics = DatasetStatistics(pa.concat_tables(tables), source.rows, states)
                card = data_card(statistics, made_with, states, texts, groups)
                texts_of = {"left_out.jsonl": "".join(left_out), CARD: card}
                for file, text in (texts_of | {"table_1.md": table_one(statistics)}).items():
                    (partial / file).write_text(text, encoding="utf-8")
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
        row_id = f"{Path(image).stem}_{caption.region_id}"
        row = _published(row_id, image, caption.region_id, caption.text)
        unique = getattr(caption, "unique", None)
        yield row if unique is None else row | {"unique": unique}


def _published(row_id: str, image: str, mask_id: RegionId, text: str) -> dict[str, Any]:
    turns = conversation(text)
    return {"id": row_id, "image": image, "mask_id": mask_id, "conversations": turns}


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


class StoreSource:
    """The stores that are exported together, and images that were annotated in memory.

    Raises:
        ValueError: see `export_dataset`.
    """

    def __init__(
        self, path: Path, stores: Sequence[Store], images: Mapping[str, RegionImage] | None = None
    ):
        held = {row.image: (row, store) for store in stores for row in store.images()}
        self.path, self._images = path, images or {}
        self.rows = [held[name][0] for name in sorted(held)]
        self._store = {name: store for name, (_, store) in held.items()}
        self.splits = sorted({row.split for row in self.rows})
        if wrong := [split for split in self.splits if not names_files(split)]:
            raise ValueError(f"{path}: the split {wrong[0]!r} cannot name files; rename it")
        self.finished = [row for row in self.rows if row.status in FINISHED]
        if not self.finished:
            raise ValueError(f"{path}: none of its {len(self.rows)} images is finished")

    def read(
        self, row: ImageRow
    ) -> tuple[RegionImage, list[FinalCaption], dict[RegionId, list[dict[str, Any]]]]:
        """The masks of an image, its captions after reviews, and the answers of each region."""
        store, image = self._store[row.image], self._images.get(row.image)
        if image is None and row.path is None:
            reason = f"{row.image} was annotated in memory; give its masks as images"
            raise ValueError(f"{self.path}: {reason}")
        if image is None:
            boxes = store.settings(row.made_with).get("boxes", False)
            # the captions say which masks are needed, so that others may be faulty
            image = load_regions(self._place(row), strict=False, boxes=boxes)
            if image.photo is None and row.photo:
                image.photo = Path(row.photo)  # elsewhere
        captions = store.reviewed_captions(row.image)
        _check_masks(row, image, [caption.region_id for caption in captions])
        answers: dict[RegionId, list[dict[str, Any]]] = defaultdict(list)
        saved = store.answers(row.image).values()
        for answer in sorted(saved, key=lambda a: (STAGES.index(a.step.stage), a.step.round)):
            answers[answer.step.region_id].append(answer.step._asdict() | vars(answer))
        return image, captions, answers

    def _place(self, row: ImageRow) -> Path:
        """The masks of an image: beside its store, else where they were."""
        beside = self._store[row.image].path.parent / row.image
        return beside if split_place(beside)[0].exists() else Path(row.path)

    def mask_names(self) -> dict[str, tuple[str, str | None]]:
        """Name of the masks, and of the image in them, unless they are a JSON of it alone."""
        found: dict[str, tuple[str, str, str | None]] = {}
        for row in self.finished:
            file, name = split_place(self._place(row)) if row.path else (None, None)
            if file and (name or file.suffix != ".json"):
                end = "/" if file.is_dir() else file.suffix
                stem = row.image.removesuffix(f"/{name}").removesuffix(end)
                found[row.image] = (stem, end, name)
        keys = image_keys({stem for stem, _, _ in found.values()})
        return {image: (f"{keys[stem]}{end}", name) for image, (stem, end, name) in found.items()}

    def made_with(self, mixed: bool) -> tuple[dict[str, str], list[tuple[str, int, str]]]:
        """The settings that images were captioned with.

        Splits may have annotators of their own and be verified; all else must be the same
        everywhere. Images of older stores, which do not know their settings, count as one group.

        Returns:
            Settings by name, all values of a setting in one text; and if they are mixed, for each
            group of images its split, their number and the values that differ.

        Raises:
            ValueError: they differ, and `mixed` is false.
        """
        counts = Counter((row.split, row.made_with) for row in self.finished)
        stores = {row.made_with: self._store[row.image] for row in self.finished}
        shared = {digest and digest.partition("/")[0] for _, digest in counts}
        several = len(shared) > 1 or len({split for split, _ in counts}) < len(counts)
        if several and not mixed:
            others = counts.total() - max(counts.values())
            raise ValueError(
                f"{self.path}: {others} of {counts.total()} finished images were captioned with "
                "other settings than the rest; annotate all with the same, or allow it with mixed "
                "(--mixed)"
            )
        found = []
        for split, digest in (order := sorted(counts, key=str)):
            settings = stores[digest].settings(digest)  # of an older store: the latest run's
            if digest is not None:
                settings["annotators"] = {split: settings["annotators"]}
            found.append(_flat(settings))
        values = pd.DataFrame(found)
        differ = values.loc[:, values.nunique() > 1]
        groups = []
        for (split, digest), (_, own) in zip(order, differ.iterrows(), strict=True):
            named = ", ".join(f"{name}: {value}" for name, value in own.dropna().items())
            known = named or "no setting that is stored"
            groups.append((split, counts[split, digest], known if digest else "not known"))
        texts = {name: " or ".join(values[name].dropna().unique()) for name in values}
        return texts, groups if several else []


def _check_masks(row: ImageRow, image: RegionImage, captioned: list[RegionId]) -> None:
    """Raise ValueError unless the masks are those that were captioned."""
    different = sorted(map(repr, {region.id for region in image}.symmetric_difference(captioned)))
    if (image.width, image.height) != (row.width, row.height):
        reason = f"{image.width} x {image.height} pixels are not those that were captioned"
    elif different:
        ids = ", ".join(different)
        reason = f"region {ids}: a mask without a caption, or a caption without a mask"
    elif row.masks not in (None, masks_digest(image)):  # a store of before digests has none
        reason = "its masks have changed since they were captioned"
    else:
        return
    raise ValueError(f"{image.path or row.image}: {reason}; annotate it again")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            listed = isinstance(value, (list, tuple))
            found[f"{prefix}{name}"] = ", ".join(map(str, value)) if listed else str(value)
    return found


# files


class _SplitFiles:
    """Content of the files of one split, in memory: Arrow tables and lines of text."""

    def __init__(self, folder: Path, split: str, states: Sequence[State]):
        for name in ("parquet", "coco"):
            (folder / name).mkdir(exist_ok=True)
        self._folder, self._split, self._states = folder, split, states
        self._tables = [SCHEMA.empty_table()]
        # lines of the JSONL, and of the lists of each COCO file
        self._jsonl: list[str] = []
        self._coco = {kind: {"images": [], "annotations": []} for kind in _COCO}

    def add_image(
        self, source: StoreSource, row: ImageRow, key: str, masks: str | None, name: str | None
    ) -> list[str]:
        """Add an image with its captions as people's reviews left them.

        Args:
            masks: file or folder of its masks, if that is no JSON of its own.
            name: of the image in that file, if it holds many.

        Returns:
            Lines of the regions that are left out of the JSONL.
        """
        image, captions, answers = source.read(row)
        photo = PurePosixPath(key).with_name(Path(row.photo or row.image).name)
        of_image = {"image_key": key, "image": name or str(photo), "split": row.split}
        if masks is None and photo.with_suffix("") != PurePosixPath(key):
            masks = f"{key}.json"  # the photo's name does not give it
        of_image |= {"width": image.width, "height": image.height}
        number = len(self._coco["instances"]["images"]) + 1
        self._coco["instances"]["images"].append(_coco_image(number, of_image))
        rows, left_out = [], []
        for caption in captions:
            region = image[caption.region_id]
            tree = {"parent": region_key(caption.parent), "depth": caption.depth}
            # columns of `SCHEMA`, and other keys
            found = annotation_from(region) | vars(caption) | of_image
            found |= {
                "id": region_row_id(key, region.id),
                "mask_id": region_key(region.id),
                "crowd": region.crowd,
                "caption": caption.text,
                "tree": tree | {"height": caption.height},
                "look_alikes": [region_key(other) for other in caption.look_alikes],
                "answers": answers[region.id],
            }
            rows.append(found)
            if caption.text and caption.state in self._states:
                self._add_caption(number, region, found, masks)
            else:
                names = ("id", "split", "image", "mask_id", "state", "reason", "caption")
                left_out.append(json_line({n: found[n] for n in names} | {"mask_id": region.id}))
        self._tables.append(pa.Table.from_pylist(rows, SCHEMA))
        return left_out

    def _add_caption(
        self, image: int, region: Region, row: dict[str, Any], masks: str | None
    ) -> None:
        published = _published(row["id"], row["image"], region.id, row["caption"])
        if masks is not None:
            published["masks"] = masks
        if tuple(self._states) != ("unique",):
            published["state"] = row["state"]
        self._jsonl.append(json_line(published))
        number = len(self._jsonl)
        caption = {"image_id": row["id"], "caption": row["caption"], "id": number}
        self._coco["captions"]["images"].append(_coco_image(row["id"], row))
        self._coco["captions"]["annotations"].append(json_line(caption))
        annotation = {"iscrowd": 0} | annotation_from(region) | {"id": number}
        place = {"image_id": image, "category_id": 1, "mask_id": region.id}
        box = {"bbox": list(region.pixel_box)}  # COCO's; SA-1B's is a pixel less
        more = {"region_id": row["id"], "caption": row["caption"]}
        self._coco["instances"]["annotations"].append(json_line(annotation | place | box | more))

    def close(self, title: str) -> pa.Table:
        """Write the files of a data set of this title; returns the rows of the Parquet."""
        folder, split = self._folder, self._split
        rows = pa.concat_tables(self._tables).combine_chunks()
        path = folder / f"parquet/{split}.parquet"
        pq.write_table(rows, path, row_group_size=_ROW_GROUP, compression="zstd")
        (folder / f"{split}.jsonl").write_text("".join(self._jsonl), encoding="utf-8")
        head = {"info": {"description": f"{title}, {split}"}, "licenses": []}
        for kind, lists in self._coco.items():
            text = json_line(head | _COCO[kind])[:-2]
            for name, lines in lists.items():  # one line per image and annotation
                text += f', "{name}": [\n' + ",".join(lines).replace("\n,", ",\n") + "]"
            (folder / f"coco/{kind}_{split}.json").write_text(text + "}\n", encoding="utf-8")
        return rows


def _coco_image(image_id: int | str, row: Mapping[str, Any]) -> str:
    size = {"width": row["width"], "height": row["height"]}
    return json_line({"id": image_id, "file_name": row["image"], **size})


def _check_folder(path: Path) -> None:
    """Raise ValueError if a folder has files but is no data set."""
    # hidden files do not count: the system's, and those that a killed export left
    others = path.is_dir() and any(not file.name.startswith(".") for file in path.iterdir())
    listed = _listed(path)
    if others and not listed:
        raise ValueError(
            f"{path}: the folder is not empty and holds no data set (no {MANIFEST} of an "
            "export); name a new or an empty folder"
        )
    if (path / CARD).exists() and CARD not in listed:
        raise ValueError(f"{path / CARD} is not of an export, and would be lost; move it away")


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
