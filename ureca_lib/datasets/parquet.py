"""A data set as Parquet, one row a region, that `datasets.load_dataset("parquet", ...)` loads.

The columns are those of `SCHEMA`. `segmentation` is what pycocotools decodes. Ids of regions
(`mask_id`, `tree.parent`, `look_alikes`) are JSON, so that the number 7 and the text "7" stay two.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ureca_lib.annotate.records import Answer, FinalCaption, Step, region_key, region_of
from ureca_lib.datasets.records import ImageRecord, RegionRecord
from ureca_lib.regions import Region

_ROWS = 1024  # of a row group, which is what is held in memory

_ANSWER = pa.struct(
    [
        ("stage", pa.string()),
        ("round", pa.int32()),
        ("text", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("annotator", pa.string()),
        ("prompt_version", pa.string()),
        ("inputs_hash", pa.string()),
        ("seconds", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("reply_tokens", pa.int64()),
        ("attempts", pa.int32()),
        ("unique", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("image_key", pa.string()),  # the same for all regions of an image
        ("image", pa.string()),  # the photo's file name
        ("width", pa.int32()),  # of the image in pixels
        ("height", pa.int32()),
        ("mask_id", pa.string()),
        ("name", pa.string()),  # of the region, where its masks' file has one
        ("segmentation", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),
        ("bbox", pa.list_(pa.float64())),  # x, y, width, height in pixels, as SA-1B has them
        ("area", pa.int64()),  # in pixels
        ("crowd", pa.bool_()),
        (
            "tree",
            pa.struct([("parent", pa.string()), ("depth", pa.int32()), ("height", pa.int32())]),
        ),
        ("caption", pa.string()),  # empty where there is none
        ("state", pa.string()),
        ("reason", pa.string()),
        ("stage", pa.string()),  # whose answer the caption is
        ("round", pa.int32()),
        ("look_alikes", pa.list_(pa.string())),
        ("answers", pa.list_(_ANSWER)),
    ]
)


class ParquetWriter:
    """Writes images to a Parquet file, a row group at a time.

    Args:
        path: of the file, which is made anew.
    """

    def __init__(self, path: Path):
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, image: ImageRecord) -> None:
        """Add all regions of an image."""
        for record in image.regions:
            self._rows.append(_row(image, record))
            if len(self._rows) == _ROWS:
                self._flush()

    def close(self) -> None:
        """Write what is left, and the file's end."""
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []


def _row(image: ImageRecord, record: RegionRecord) -> dict[str, Any]:
    region, caption = record.region, record.caption
    counts = region.rle["counts"].decode("ascii")
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
        "tree": {
            "parent": region_key(caption.parent),
            "depth": caption.depth,
            "height": caption.height,
        },
        "caption": caption.text,
        "state": caption.state,
        "reason": caption.reason,
        "stage": caption.stage,
        "round": caption.round,
        "look_alikes": [region_key(other) for other in caption.look_alikes],
        "answers": [_answer_row(answer) for answer in record.answers],
    }


def _answer_row(answer: Answer) -> dict[str, Any]:
    values = {"stage": answer.step.stage, "round": answer.step.round, **vars(answer)}
    del values["step"]
    return values


def read_parquet(path: str | Path) -> Iterator[ImageRecord]:
    """The images of a file that `ParquetWriter` wrote, one at a time.

    Raises:
        ValueError: naming a file that is no Parquet file, or has other columns.
    """
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from None
    missing = set(SCHEMA.names) - set(file.schema_arrow.names)
    if missing:
        raise ValueError(f"{path}: there is no column {', '.join(sorted(missing))}")
    rows: list[dict[str, Any]] = []
    for batch in file.iter_batches(_ROWS):
        for row in batch.to_pylist():
            if rows and row["image_key"] != rows[0]["image_key"]:
                yield _image(rows)
                rows = []
            rows.append(row)
    if rows:
        yield _image(rows)


def _image(rows: list[dict[str, Any]]) -> ImageRecord:
    regions = tuple(_record(row) for row in rows)
    row = rows[0]
    size = (row["width"], row["height"])
    return ImageRecord(row["image_key"], row["image"], row["split"], *size, regions)


def _record(row: dict[str, Any]) -> RegionRecord:
    mask_id = region_of(row["mask_id"])
    box, area, name = row["bbox"], row["area"], row["name"]
    region = Region(mask_id, row["segmentation"], box, area, name, row["crowd"])
    tree = row["tree"]
    caption = FinalCaption(
        mask_id,
        row["caption"],
        row["state"],
        row["reason"],
        row["stage"],
        row["round"],
        region_of(tree["parent"]),
        tree["depth"],
        tree["height"],
        tuple(region_of(other) for other in row["look_alikes"]),
    )
    answers = tuple(_answer(mask_id, values) for values in row["answers"])
    return RegionRecord(row["id"], region, caption, answers)


def _answer(mask_id: int | str, values: dict[str, Any]) -> Answer:
    stage, number = values.pop("stage"), values.pop("round")
    return Answer(Step(stage, number, mask_id), **values)
