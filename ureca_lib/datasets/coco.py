"""COCO JSON: captions, as pycocoevalcap's metrics read them, and instances with captions.

For the metrics an image is a region: each `image_id` is a region's id in the data set. The
instances file has the photos as its images, and each annotation has its `caption` besides.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, TextIO

from ureca_lib.datasets.records import ImageRecord, RegionRecord
from ureca_lib.regions.sa1b import annotation_from

_CATEGORY = {"id": 1, "name": "region", "supercategory": "region"}


class _TwoLists:
    """A COCO file written as it comes: its images go to it, its annotations aside until the end."""

    def __init__(self, path: Path, **head: Any):
        self._file = path.open("w", encoding="utf-8")
        self._aside = tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent)  # noqa: SIM115
        self.images = self.annotations = 0
        text = json.dumps(head, ensure_ascii=False)
        self._file.write(f'{text[:-1]}, "images": [')

    def image(self, entry: dict[str, Any]) -> None:
        self.images += 1
        _item(self._file, entry, self.images)

    def annotation(self, entry: dict[str, Any]) -> None:
        self.annotations += 1
        _item(self._aside, entry, self.annotations)

    def close(self) -> None:
        self._file.write('\n], "annotations": [')
        self._aside.seek(0)
        shutil.copyfileobj(self._aside, self._file)
        self._file.write("\n]}\n")
        self._aside.close()
        self._file.close()


def _item(file: TextIO, entry: dict[str, Any], number: int) -> None:
    file.write(",\n" if number > 1 else "\n")
    file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False))


class CaptionsWriter:
    """COCO captions of one split.

    Args:
        path: of the file, which is made anew.
        description: goes into `info`.
    """

    def __init__(self, path: Path, description: str):
        info = {"description": description}
        self._out = _TwoLists(path, info=info, licenses=[], type="captions")

    def write(self, image: ImageRecord, regions: list[RegionRecord]) -> None:
        """Add the captions of these regions of an image."""
        for record in regions:
            size = {"width": image.width, "height": image.height}
            self._out.image({"id": record.id, "file_name": image.file_name, **size})
            self._out.annotation(
                {
                    "id": self._out.annotations + 1,
                    "image_id": record.id,
                    "caption": record.caption.text,
                }
            )

    def close(self) -> None:
        """Write the file's end."""
        self._out.close()


class InstancesWriter:
    """COCO instances of one split, each with its caption.

    Args:
        path: of the file, which is made anew.
        description: goes into `info`.
    """

    def __init__(self, path: Path, description: str):
        info = {"description": description}
        self._out = _TwoLists(path, info=info, licenses=[], categories=[_CATEGORY])

    def write(self, image: ImageRecord, regions: list[RegionRecord]) -> None:
        """Add an image and these regions of it."""
        number = self._out.images + 1
        size = {"width": image.width, "height": image.height}
        self._out.image({"id": number, "file_name": image.file_name, **size})
        for record in regions:
            annotation = {"iscrowd": 0} | annotation_from(record.region)
            place = {"id": self._out.annotations + 1, "image_id": number, "category_id": 1}
            more = {
                "bbox": list(record.region.pixel_box),  # COCO's; SA-1B's is a pixel less
                "mask_id": record.region.id,
                "region_id": record.id,
                "caption": record.caption.text,
            }
            self._out.annotation(annotation | place | more)

    def close(self) -> None:
        """Write the file's end."""
        self._out.close()
