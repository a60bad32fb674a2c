"""Small masks and annotation files, good and bad, for the tests of the readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools import mask as coco_mask


def square(top: int, left: int, side: int = 3, height: int = 12, width: int = 16) -> np.ndarray:
    """(H, W) bool with a square of pixels."""
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """The mask's COCO encoding as JSON holds it, made by pycocotools."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask, counted pixel by pixel, the first of them outside."""
    runs, inside = [0], False
    for value in mask.T.ravel():
        if value == inside:
            runs[-1] += 1
        else:
            runs.append(1)
            inside = value
    return runs


def sa1b_annotation(region_id: Any, mask: np.ndarray, **changes: Any) -> dict[str, Any]:
    """An annotation with every key that SA-1B has."""
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), np.ptp(columns), np.ptp(rows)]
    return {
        "id": region_id,
        "area": int(mask.sum()),
        "bbox": [float(side) for side in box],
        "predicted_iou": 0.95,
        "stability_score": 0.97,
        "point_coords": [[4.5, 4.5]],
        "crop_box": [0.0, 0.0, 16.0, 12.0],
        "segmentation": compressed(mask),
        **changes,
    }


def sa1b_document(*annotations: Any, **image: Any) -> dict[str, Any]:
    """SA-1B JSON of a 16 x 12 image (width x height)."""
    info = {"image_id": 7, "width": 16, "height": 12, "file_name": "sa_7.jpg", **image}
    return {"image": info, "annotations": list(annotations)}


def three_squares() -> dict[str, Any]:
    """SA-1B JSON of three good regions: 11, 12, 13."""
    squares = (square(0, 0, 8), square(2, 2), square(6, 10, 4))
    return sa1b_document(*(sa1b_annotation(11 + i, mask) for i, mask in enumerate(squares)))


def write_json(path: Path, document: Any) -> Path:
    """Write a document and return its path."""
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def masks(most: int = 9) -> st.SearchStrategy[np.ndarray]:
    """(H, W) bool of all small shapes, with at least one pixel inside."""
    shapes = st.tuples(st.integers(1, most), st.integers(1, most))
    return st_numpy.arrays(bool, shapes).filter(np.any)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths_of(value: Any, path: tuple = ()) -> list[tuple]:
    """The way to every value inside a JSON document."""
    inside: list = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [path, *(way for key, item in inside for way in paths_of(item, (*path, key)))]


def replaced(document: Any, path: tuple, value: Any) -> Any:
    """The document with another value at one place, or without the key where it is `...`."""
    if not path:
        return value
    changed = dict(document) if isinstance(document, dict) else list(document)
    if len(path) > 1:
        changed[path[0]] = replaced(changed[path[0]], path[1:], value)
    elif value is ...:
        del changed[path[0]]
    else:
        changed[path[0]] = value
    return changed
