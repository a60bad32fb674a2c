"""Mask files of other tools, turned into COCO instance JSON, whose reader then checks everything.

Each function takes a file's content and returns the same regions as COCO has them: images,
annotations with polygons or RLE, and categories. `FORMATS` lists the formats by name; the first
that fits a file is taken.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ureca_lib.markdown import table
from ureca_lib.regions.errors import AnnotationFormatError, FileMissingError, RegionError
from ureca_lib.regions.photo import Photo, color_ids, decode, find_photo, load_image
from ureca_lib.regions.rle import check_size
from ureca_lib.regions.sa1b import parse_file

Coco = dict[str, list[dict[str, Any]]]
_ANGLES = np.linspace(0, 2 * math.pi, 64, endpoint=False)
_ROUND = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # a polygon for a circle
_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)


class Format(NamedTuple):
    """A format of mask files.

    Attributes:
        name: for tables and errors.
        files: how it is told.
        fits: whether the content of a file is of this format.
        convert: (content, path) -> COCO.
    """

    name: str
    files: str
    fits: Callable[[Any], bool]
    convert: Callable[..., Coco]


class _Builder:
    """COCO lists that grow by image and region; ids count from 1, categories are by name."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._categories: dict[str, int] = {}

    def image(self, name: str | None, width: Any, height: Any, image_id: Any = None) -> Any:
        """Add an image; returns its id."""
        image_id = len(self.images) + 1 if image_id is None else image_id
        size = {"width": width, "height": height, "file_name": name}
        self.images.append({"id": image_id} | size)
        return image_id

    def region(self, image_id: Any, segmentation: Any, name: Any = None, **more: Any) -> None:
        """Add a region, with a category of its name if it has one."""
        entry = {"id": len(self.annotations) + 1, "image_id": image_id}
        if name is not None:
            entry["category_id"] = self._categories.setdefault(str(name), len(self._categories) + 1)
        self.annotations.append(entry | {"segmentation": segmentation} | more)

    def coco(self) -> Coco:
        """The file."""
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        return {
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }


@contextmanager
def item_of(what: str, path: Path) -> Iterator[None]:
    """Whatever an item's values raise while they are read becomes one error that names it."""
    try:
        yield
    except RegionError as error:
        raise type(error)(f"{what}: {error.reason}", path) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise AnnotationFormatError(f"{what}: {error!r}", path) from None


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise AnnotationFormatError("it is no object")
    return value


def _first(content: Any) -> Mapping[str, Any]:
    """The first entry of a list of objects; empty for anything else."""
    listed = isinstance(content, list) and content and isinstance(content[0], Mapping)
    return content[0] if listed else {}


def is_result_list(content: Any) -> bool:
    """Whether a file is a bare list of masks, as SAM's generator and detectors write them."""
    return bool({"segmentation", "bbox"} & _first(content).keys())


def from_result_list(content: list[Any], path: Path, photo: Photo | None = None) -> Coco:
    """SAM's automatic masks (`amg.py`), and COCO's results lists of detectors.

    Regions are numbered by their place. Without an image entry the size is that of the masks, of
    boxes alone that of the photo, and an image id stands for COCO's file name, such as
    000000000139.jpg for 139.

    Args:
        photo: None takes that of the list's name.
    """
    built, sizes, ids = _Builder(), {}, []
    for number, entry in enumerate(content):
        with item_of(f"entry {number}", path):
            image_id, mask = _object(entry).get("image_id", 1), entry.get("segmentation")
            if isinstance(mask, Mapping) and isinstance(mask.get("size"), list):
                height, width = mask["size"]
                sizes.setdefault(image_id, (height, width))
            ids.append(image_id)
            kept = {name: entry[name] for name in ("bbox", "area", "iscrowd") if name in entry}
            built.region(image_id, mask, entry.get("category_name"), **kept)
    beside = find_photo(path.parent, None, path.stem) if photo is None else photo
    if not sizes and beside is not None:
        sizes = dict.fromkeys(ids, load_image(beside).shape[:2])
    if not sizes:
        reason = "no mask of the list says how large its image is, and no photo is given"
        raise AnnotationFormatError(reason, path)
    for image_id, (height, width) in sizes.items():
        name = f"{image_id:012d}.jpg" if isinstance(image_id, int) and len(sizes) > 1 else None
        built.image(name, width, height, image_id)
    return built.coco()


def from_labelme(content: Mapping[str, Any], path: Path) -> Coco:
    """LabelMe: polygons, rectangles, circles and masks; shapes of one group are one region."""
    built = _Builder()
    height, width = content.get("imageHeight"), content.get("imageWidth")
    image = built.image(content.get("imagePath"), width, height)
    groups: dict[Any, list[Any]] = {}
    for number, shape in enumerate(content["shapes"]):
        with item_of(f"shape {number}", path):
            kind, label = _object(shape).get("shape_type") or "polygon", shape.get("label")
            if kind == "mask":
                built.region(image, _labelme_mask(shape, height, width), label)
                continue
            rings = _labelme_rings(kind, shape["points"])
            group = shape.get("group_id")
            if group is not None and (group, label) in groups:
                groups[group, label] += rings
                continue
            built.region(image, rings, label)
            if group is not None:
                groups[group, label] = rings
    return built.coco()


def _labelme_rings(kind: str, points: Any) -> list[Any]:
    if kind == "polygon":
        return [[value for point in points for value in (point[0], point[1])]]
    first, last = np.array(points, float)
    if kind == "rectangle":
        return [_flat(first + _SQUARE * (last - first))]
    if kind == "circle":
        return [_flat(first + _ROUND * math.dist(first, last))]
    raise AnnotationFormatError(f"a {kind} has no area")


def _labelme_mask(shape: Mapping[str, Any], height: Any, width: Any) -> dict[str, Any]:
    data = base64.b64decode(shape["mask"], validate=True)
    inside = decode(Image.open(io.BytesIO(data)), lambda image: np.asarray(image) > 0, "mask")
    left, top = (int(value) for value in shape["points"][0])
    return placed_mask(inside, left, top, height, width)


def placed_mask(inside: np.ndarray, left: int, top: int, height: int, width: int) -> dict[str, Any]:
    """RLE of a (h, w) mask whose corner is at (left, top) of an image."""
    check_size(height, width)
    whole = np.zeros((height, width), np.uint8, order="F")
    rows, columns = inside.shape
    if left < 0 or top < 0 or top + rows > height or left + columns > width:
        raise ValueError(f"{columns} x {rows} pixels at ({left}, {top}) leave the image")
    whole[top : top + rows, left : left + columns] = inside
    return coco_mask.encode(whole)


def from_panoptic(content: Mapping[str, Any], path: Path) -> Coco:
    """COCO panoptic: segments in a PNG whose pixels are ids, R + 256 G + 65536 B."""
    built = {**content, "annotations": []}
    for number, entry in enumerate(content["annotations"]):
        with item_of(f"annotation {number}", path):
            ids = _panoptic_map(str(entry["file_name"]), path)
            for segment in entry["segments_info"]:
                inside = np.asfortranarray(ids == int(segment["id"]), np.uint8)
                ours = {"image_id": entry["image_id"], "segmentation": coco_mask.encode(inside)}
                kept = {name: value for name, value in segment.items() if name != "bbox"}
                built["annotations"].append(kept | ours)
    return built


def _panoptic_map(file: str, path: Path) -> np.ndarray:
    name = PurePosixPath(file).name
    places = (path.parent / name, path.parent / path.stem / name)
    for place in places:
        if place.is_file():
            return decode(place, color_ids, "map")
    raise FileMissingError(f"the map of the segments, '{name}', is not beside the file", path)


def from_label_studio(content: list[Any], path: Path) -> Coco:
    """Label Studio's JSON: polygons, rectangles, ellipses in percent, and brush strokes."""
    built = _Builder()
    for number, task in enumerate(content):
        with item_of(f"task {number}", path):
            data = _object(task)["data"]
            texts = [value for value in data.values() if isinstance(value, str)]
            source = data.get("image") or texts[0]
            annotations = [one for one in task["annotations"] if not one.get("was_cancelled")]
            results = [_object(result) for one in annotations[:1] for result in one["result"]]
            # further results of a region, such as its caption, have its id
            texts = {one.get("id"): one["value"]["text"] for one in results if _is_text(one)}
            shapes = [one for one in results if "original_width" in one and not _is_text(one)]
        image = None
        for result in shapes:
            with item_of(f"task {number}, result {result.get('id')}", path):
                width, height = result["original_width"], result["original_height"]
                segmentation = _label_studio_mask(result["value"], width, height)
                labels = result["value"].get(result["type"]) or [None]
                if image is None:
                    image = built.image(source, width, height)
                caption = " ".join(map(str, texts.get(result.get("id"), ()))) or None
                built.region(image, segmentation, labels[0], caption=caption)
    return built.coco()


def _is_text(result: Mapping[str, Any]) -> bool:
    return result.get("type") == "textarea"


def _label_studio_mask(value: Mapping[str, Any], width: int, height: int) -> Any:
    if "rle" in value:
        check_size(height, width)
        flat = brush_values(bytes(value["rle"]))
        inside = flat.reshape(height, width, 4)[..., 3] > 0  # (H * W * 4,) -> (H, W)
        return coco_mask.encode(np.asfortranarray(inside, np.uint8))
    scale = np.array([width, height]) / 100  # percent -> pixels
    if "points" in value:
        return [_flat(np.array(value["points"], float) * scale)]
    turn = math.radians(value.get("rotation", 0))
    if "radiusX" in value:
        corners = _ROUND * (value["radiusX"], value["radiusY"])
    else:
        corners = _SQUARE * (value["width"], value["height"])
    # turned clockwise in pixels around the corner (of a rectangle) or the middle (of an ellipse)
    spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    place = np.array([value["x"], value["y"]]) * scale
    return [_flat((corners * scale) @ spin + place)]


def _flat(points: np.ndarray) -> list[float]:
    return points.ravel().tolist()  # (corners, 2) -> (corners * 2,)


def brush_values(data: bytes) -> np.ndarray:
    """Values of Label Studio's brush RLE, (H * W * 4,) uint8, RGBA pixel by pixel.

    A bit stream: 32 bits of length, 5 of word size - 1, four times 4 of a length's size - 1; then
    runs, each with a bit that tells repeated values from listed ones, 2 bits that choose the
    length's size, the length - 1, and the value or values.

    Raises:
        ValueError: the stream ends early.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    place = 0

    def number(size: int) -> int:
        nonlocal place
        place += size
        if place > len(bits):
            raise ValueError("the brush's run lengths end early")
        return int("".join(map(str, bits[place - size : place])), 2)

    length, word = number(32), number(5) + 1
    if length > 4 * (1 << 28):
        raise ValueError("the brush's mask is too large")
    sizes = [number(4) + 1 for _ in range(4)]
    values, filled = np.zeros(length, np.uint8), 0
    while filled < length:
        repeated, size = number(1), sizes[number(2)]
        end = filled + number(size) + 1
        if repeated:
            values[filled:end] = number(word)
        else:
            for index in range(filled, end):
                values[index] = number(word)
        filled = end
    return values


def from_cvat(root: ElementTree.Element, path: Path) -> Coco:
    """CVAT for images 1.1 (XML): polygons, boxes, ellipses and masks."""
    built = _Builder()
    for image in root.iter("image"):
        with item_of(f"image {image.get('name')}", path):
            width, height = int(image.attrib["width"]), int(image.attrib["height"])
            image_id = built.image(image.attrib["name"], width, height)
            for shape in image:
                segmentation = _cvat_mask(shape.tag, shape.attrib, width, height)
                if segmentation is not None:
                    caption = shape.findtext("attribute[@name='caption']")
                    built.region(image_id, segmentation, shape.get("label"), caption=caption)
    return built.coco()


def _cvat_mask(kind: str, shape: Mapping[str, str], width: int, height: int) -> Any:
    """A shape's polygon or RLE; None for shapes without an area, such as points."""
    if kind == "polygon":
        pairs = (pair.split(",") for pair in shape["points"].split(";"))
        return [[float(value) for pair in pairs for value in pair]]
    if kind == "box":
        first, last = ([float(shape[side + end]) for side in "xy"] for end in ("tl", "br"))
        return [_flat(first + _SQUARE * np.subtract(last, first))]
    if kind == "ellipse":
        middle, radii = ([float(shape[name + side]) for side in "xy"] for name in "cr")
        return [_flat(middle + _ROUND * radii)]
    if kind == "mask":
        # runs of the box, row by row, the first outside
        left, top, columns, rows = (int(shape[n]) for n in ("left", "top", "width", "height"))
        runs = np.array([int(run) for run in shape["rle"].split(",")])
        if columns * rows > width * height or runs.sum() != columns * rows or (runs < 0).any():
            raise ValueError("the mask's runs do not fill its box")
        inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(rows, columns)
        return placed_mask(inside, left, top, height, width)
    return None


FORMATS = (
    Format(
        "SAM's masks",
        "a JSON list of masks: SAM's amg.py, or COCO results of a detector",
        is_result_list,
        from_result_list,
    ),
    Format(
        "Label Studio",
        "its JSON export: polygons, rectangles, ellipses, brush",
        lambda content: {"data", "annotations"} <= _first(content).keys(),
        from_label_studio,
    ),
    Format(
        "LabelMe",
        "the JSON beside each photo: polygons, rectangles, circles, masks",
        lambda content: isinstance(content, Mapping) and isinstance(content.get("shapes"), list),
        from_labelme,
    ),
    Format(
        "COCO panoptic",
        "JSON, and its maps beside it or in a folder of its name",
        lambda content: (
            isinstance(content, Mapping) and "segments_info" in _first(content.get("annotations"))
        ),
        from_panoptic,
    ),
    Format(
        "CVAT",
        "its XML for images 1.1: polygons, boxes, ellipses, masks",
        lambda content: isinstance(content, ElementTree.Element),
        from_cvat,
    ),
)


# those that are read as they are: name and files
OWN = (
    ("SA-1B", "one JSON per photo, with RLE"),
    ("COCO instances", "JSON of many photos: polygons, RLE, crowds; boxes when asked for"),
    ("mask PNGs", "a folder with one PNG per mask, whose names are the regions'"),
    ("label map", "a PNG whose values, or RGB colors, are ids of regions"),
    ("arrays", ".npy or .npz: (R, H, W), or one (H, W) array per region"),
)
READERS = "caption, annotate, predict, train"  # all of them by one reader, `regions.sources`
_WRITERS = {
    "SA-1B": "segment",
    "COCO instances": "caption --coco, export",
    "Label Studio": "export --format label-studio",
    "CVAT": "export --format cvat",
}


def format_table() -> str:
    """The formats of masks, and the commands that read and write them, as a Markdown table."""
    rows = [*OWN, *((known.name, known.files) for known in FORMATS)]
    head = ["format", "files", "read by", "written by"]
    return table(head, [(*row, READERS, _WRITERS.get(row[0], "")) for row in rows])


def read_document(path: Path, photo: Photo | None = None) -> Any:
    """The content of a JSON or XML file; of the formats above as COCO, of others as it is.

    Args:
        photo: has the size of boxes in a list that says none.

    Raises:
        FileMissingError, AnnotationFormatError: no such file, or a fault in it.
    """
    if path.suffix.lower() == ".xml":
        try:
            content: Any = ElementTree.parse(path).getroot()
        except FileNotFoundError:
            raise FileMissingError("the annotation file does not exist", path) from None
        except (OSError, ElementTree.ParseError) as error:
            raise AnnotationFormatError(f"the file is no XML ({error})", path) from None
    else:
        content = parse_file(path)
    for known in FORMATS:
        if known.fits(content):
            given = (photo,) if known.convert is from_result_list else ()
            return known.convert(content, path, *given)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise AnnotationFormatError(f"the file holds a {kind}, not an object", path)
    return content
