"""Captions back into the tools that the masks came from: `ureca export SOURCE --format FORMAT`.

| format | files in the folder | the tool reads it by |
|---|---|---|
| `coco` | `instances.json`: COCO instances, each annotation with its `caption` | pycocotools |
| `label-studio` | `tasks.json`: brush masks with texts; `config.xml` of the project | Import |
| `cvat` | `annotations.xml`, CVAT for images 1.1, masks with an attribute; `labels.json` | Upload |
| `fiftyone` | `data/`, `labels.json` | `Dataset.from_dir`, type COCODetectionDataset, extra_attrs |

`SOURCE` is a store or a folder of shards; a predictions file of `ureca predict`; the JSONL or the
COCO file that `ureca caption` wrote; or any data with captions that `ureca predict --data` takes.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from ureca_lib.annotate.export import StoreSource
from ureca_lib.annotate.shards import open_stores
from ureca_lib.datasets import read_jsonl
from ureca_lib.datasets.captioned import image_keys, open_captioned, split_masks
from ureca_lib.evaluate.predictions import prediction_id, read_meta, read_predictions
from ureca_lib.journal import write_text
from ureca_lib.markdown import printable
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage
from ureca_lib.regions.photo import find_photo
from ureca_lib.regions.sa1b import annotation_from, region_from

_LABEL = "region"  # of regions without a name


class Captioned(NamedTuple):
    """An image whose regions have captions, by their ids; `name` instead of the photo's own."""

    image: RegionImage
    captions: Mapping[RegionId, str]
    unique: Mapping[RegionId, bool | None] = MappingProxyType({})
    name: str | None = None

    @property
    def file_name(self) -> str:
        """The photo's name, as its file of masks has it."""
        photo = self.image.photo
        return self.name or self.image.file_name or (photo.name if photo else "photo")

    def rows(self) -> Iterator[tuple[Region, str, str]]:
        """Region, label and caption of each region with a caption."""
        for region in self.image:
            if text := self.captions.get(region.id):
                yield region, printable(region.name or _LABEL), printable(text)


def read_captioned(source: str, states: Sequence[str] = ("unique",)) -> Iterator[Captioned]:
    """Read captions with their masks; see the module for the sources.

    Args:
        source: a path or a text.
        states: of the captions of a store.

    Raises:
        ValueError, OSError: naming the file and the fault.
    """
    path, masks = split_masks(source)
    if _is_store(path):
        with open_stores(path) as stores:
            store = StoreSource(path, stores)
            for image, finals, _ in map(store.read, store.finished):
                texts = {f.region_id: f.text for f in finals if f.state in states}
                unique = {f.region_id: f.state == "unique" for f in finals}
                yield Captioned(image, texts, unique)
    elif meta := read_meta(path) if path.suffix == ".jsonl" else {}:
        made, opened = read_predictions(path), dict(meta.get("data_settings") or {})
        texts = {row.id: row.caption for row in made}
        opened["boxes"] = opened.pop("use_boxes", False)
        for one in open_captioned(meta["data"], **opened):
            ids = {region.id: prediction_id(one.image_id, region.id) for region in one.regions}
            captions = {key: texts[row_id] for key, row_id in ids.items() if row_id in texts}
            yield Captioned(one.image, captions)
    elif path.suffix == ".jsonl" and "segmentation" in next(iter(read_jsonl(path)), {}):
        yield from _caption_rows(path, masks)
    else:
        for one in open_captioned(source):
            yield Captioned(one.image, {key: texts[0] for key, texts in one.captions.items()})


def _is_store(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("shard-*-of-*.sqlite"))
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


def _caption_rows(path: Path, folder: Path) -> Iterator[Captioned]:
    """Rows of `ureca caption` that hold their masks, which no file has."""
    by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_jsonl(path):
        by_image[row["image"]].append(row)
    for name, rows in by_image.items():
        regions = [region_from({**row, "id": row["mask_id"]}) for row in rows]
        height, width = regions[0].size
        image = RegionImage(regions, width, height, find_photo(folder, name), None, name, path)
        yield Captioned(image, {row["mask_id"]: row["conversations"][1]["value"] for row in rows})


def coco_document(images: Iterable[Captioned]) -> dict[str, Any]:
    """A COCO instances document whose annotations have a `caption`, as JSON can hold it."""
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for number, one in enumerate(images, start=1):
        size = {"width": one.image.width, "height": one.image.height}
        rows.append({"id": number, "file_name": one.file_name} | size)
        for region, label, text in one.rows():
            category = categories.setdefault(label, len(categories) + 1)
            row = {"iscrowd": 0} | annotation_from(region) | {"id": len(annotations) + 1}
            row |= {"region_id": region.id, "image_id": number, "category_id": category}
            row |= {"bbox": list(region.pixel_box), "caption": text}  # SA-1B's is a pixel less
            if one.unique.get(region.id) is not None:
                row["unique"] = one.unique[region.id]
            annotations.append(row)
    kinds = [{"id": n, "name": k, "supercategory": _LABEL} for k, n in categories.items()]
    return {"images": rows, "annotations": annotations, "categories": kinds}


def write_coco(images: Sequence[Captioned], folder: Path) -> None:
    """Write COCO instances; see the module."""
    _write_json(folder / "instances.json", coco_document(images))


def write_fiftyone(images: Sequence[Captioned], folder: Path) -> None:
    """Write a folder for `fiftyone.Dataset.from_dir`, with copies of the photos.

    Raises:
        RegionError: an image has no photo.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for one in images:
        one.image.check_photo()  # an image in memory has no file to copy
    keys, named = image_keys(str(one.image.photo) for one in images), []
    for one in images:
        photo = Path(str(one.image.photo))
        named.append(one._replace(name=keys[str(photo)].replace("/", "_") + photo.suffix))
        shutil.copyfile(photo, folder / "data" / named[-1].file_name)
    _write_json(folder / "labels.json", coco_document(named))


def write_label_studio(images: Sequence[Captioned], folder: Path) -> None:
    """Write tasks for Label Studio's import, and the project's labeling configuration."""
    tasks, labels = [], {}
    for one in images:
        size = {"original_width": one.image.width, "original_height": one.image.height}
        results: list[dict[str, Any]] = []
        for region, label, text in one.rows():
            labels[label] = None
            common = {"id": str(region.id), "to_name": "image"}
            mask = {"format": "rle", "rle": list(brush_stream(region.mask)), "brushlabels": [label]}
            brush = {
                "type": "brushlabels",
                "from_name": "label",
                "value": mask,
                "image_rotation": 0,
            }
            words = {"type": "textarea", "from_name": "caption", "value": {"text": [text]}}
            results += [common | size | brush, common | words]
        task = {"data": {"image": one.file_name}, "annotations": [{"result": results}]}
        tasks.append(task)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    choices = ElementTree.SubElement(view, "BrushLabels", name="label", toName="image")
    for label in labels:
        ElementTree.SubElement(choices, "Label", value=label)
    ElementTree.SubElement(
        view, "TextArea", name="caption", toName="image", perRegion="true", editable="true"
    )
    _write_json(folder / "tasks.json", tasks)
    _write_xml(folder / "config.xml", view)


def brush_stream(mask: np.ndarray) -> bytes:
    """Label Studio's brush RLE of a (H, W) bool mask: the inverse of `formats.brush_values`."""
    flat = mask.ravel()
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    lengths = np.diff(np.append(starts, flat.size)) * 4  # RGBA
    bits = [f"{flat.size * 4:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = f"{255 * int(flat[start]):08b}"
        for done in range(0, length, 1 << 16):
            bits.append(f"111{min(length - done, 1 << 16) - 1:016b}{value}")
    text = "".join(bits)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0")).tobytes()


def write_cvat(images: Sequence[Captioned], folder: Path) -> None:
    """Write annotations for CVAT's upload, and the labels for its "Raw" field of a new task."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels: dict[str, None] = {}
    for number, one in enumerate(images):
        size = {"width": str(one.image.width), "height": str(one.image.height)}
        name = {"id": str(number), "name": one.file_name}
        image = ElementTree.SubElement(root, "image", name | size)
        for region, label, text in one.rows():
            labels[label] = None
            left, top, width, height = region.pixel_box
            inside = region.mask[top : top + height, left : left + width].ravel()  # row by row
            borders = np.flatnonzero(np.diff(inside, prepend=False))  # the first run is outside
            runs = np.diff(borders, prepend=0, append=inside.size)
            box = zip(("left", "top", "width", "height"), region.pixel_box, strict=True)
            shape = {name: str(value) for name, value in box} | {"label": label, "occluded": "0"}
            shape |= {"source": "file", "z_order": "0", "rle": ", ".join(map(str, runs))}
            mask = ElementTree.SubElement(image, "mask", shape)
            ElementTree.SubElement(mask, "attribute", name="caption").text = text
    meta = ElementTree.Element("meta")  # as CVAT writes it, before the images
    root.insert(1, meta)
    listed = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
    caption = {"name": "caption", "input_type": "text", "mutable": False, "values": [""]}
    for name in labels:
        label = ElementTree.SubElement(listed, "label")
        ElementTree.SubElement(label, "name").text = name
        attributes = ElementTree.SubElement(label, "attributes")
        attribute = ElementTree.SubElement(attributes, "attribute")
        for key, value in caption.items():
            ElementTree.SubElement(attribute, key).text = "" if key == "values" else str(value)
    _write_json(folder / "labels.json", [{"name": n, "attributes": [caption]} for n in labels])
    _write_xml(folder / "annotations.xml", root)


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content) + "\n")  # runs of masks would take a line each


def _write_xml(path: Path, root: ElementTree.Element) -> None:
    ElementTree.indent(root)
    # without a declaration: Label Studio refuses one in a text that is pasted
    write_text(path, ElementTree.tostring(root, "unicode") + "\n")


Writer = Callable[[Sequence[Captioned], Path], None]
WRITERS: dict[str, Writer] = {
    "coco": write_coco,
    "label-studio": write_label_studio,
    "cvat": write_cvat,
    "fiftyone": write_fiftyone,
}


def export_to_tool(
    source: str, folder: Path, tool: str, states: Sequence[str] = ("unique",), prefix: str = ""
) -> int:
    """Write captions as a tool's files; returns their number.

    Args:
        source, states: see `read_captioned`.
        folder: created if needed.
        tool: one of `WRITERS`.
        prefix: before the photos' names in the files, such as the address of their folder.

    Raises:
        ValueError: no such format, no captions, or a fault of the source.
    """
    if tool not in WRITERS:
        raise ValueError(f"the format is one of {', '.join(WRITERS)}, not {tool!r}")
    found = read_captioned(source, states)
    images = [one._replace(name=prefix + one.file_name) for one in found]
    count = sum(len(list(one.rows())) for one in images)
    if not count:
        raise ValueError(f"{source}: there are no captions")
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[tool](images, folder)
    return count
