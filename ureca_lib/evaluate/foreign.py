"""Captions that other programs wrote, as a predictions file: `ureca convert-predictions`.

| file | as written by |
|---|---|
| `{"ID": "caption", ...}` | Describe Anything (DAM) and Grasp Any Region (GAR) for DLC-Bench |
| `[{"image_id": ID, "caption": "..."}, ...]` | COCO's caption results; `annotation_id` goes first |
| `[{"image": "images/NAME.png", "model_output": "..."}, ...]` | GAR for GAR-Bench-Caption |

An ID is `IMAGE/REGION`, the id of a row of an export, the id of a region if no other image has it,
or that of an image with one region to caption.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from ureca_lib.annotate.export import region_row_id
from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.predictions import Caption, prediction_id
from ureca_lib.provenance import file_sha256
from ureca_lib.regions import Region
from ureca_lib.regions.sa1b import parse_file

_PROMPT = "query"  # DAM keeps its prompt among the captions


class ForeignCaptions:
    """The captions of a file, as a system that `ureca_lib.evaluate.predict` runs.

    Args:
        path: the file; see the module.
        data: the images that were captioned. They are read through once, to match the ids.
        name: of the system; by default the file's.

    Attributes:
        unmatched: ids of the file that are no region's.
        captions: by prediction id.

    Raises:
        RegionError: there is no such file, or it is not JSON.
        ValueError: the file has another form, or an id or a region is there twice.
    """

    model: Mapping[str, Any] | None = None

    def __init__(self, path: str | Path, data: CaptionedImages, name: str | None = None):
        path = Path(path)
        self.name = name or path.stem
        self.settings: dict[str, Any] = {"file": str(path), "sha256": file_sha256(path)}
        self.unmatched: list[str] = []
        self.captions: dict[str, str] = {}
        regions: dict[str, set[str]] = defaultdict(set)  # prediction ids by each spelling
        for image in data:
            for region in image.targets:
                key = prediction_id(image.image_id, region.id)
                names = {key, str(region.id), region_row_id(image.image_id, region.id)}
                for spelling in names | ({image.image_id} if len(image.targets) == 1 else set()):
                    regions[spelling].add(key)
        for spellings, text in _rows(path):
            found = next((regions[one] for one in spellings if one in regions), set())
            if not isinstance(text, str):
                raise ValueError(f"{path}: id {spellings[0]}: a caption is a text, not {text!r}")
            if not found and spellings == [_PROMPT]:
                self.settings["prompt"] = text
            elif not found:
                self.unmatched.append(spellings[0])
            elif len(found) > 1:
                listed = ", ".join(sorted(found)[:3])
                raise ValueError(f"{path}: id {spellings[0]} may mean {listed}: write IMAGE/REGION")
            elif (key := next(iter(found))) in self.captions:
                raise ValueError(f"{path}: id {spellings[0]}: {key} has two captions")
            else:
                self.captions[key] = text

    def describe(self, image: CaptionedImage, regions: Sequence[Region]) -> list[Caption]:
        """The captions of some regions; a region without one has an empty caption and a reason."""
        keys = [prediction_id(image.image_id, region.id) for region in regions]
        none = Caption("", error=f"{self.settings['file']} has no caption of it")
        return [Caption(self.captions[key]) if key in self.captions else none for key in keys]


def _rows(path: Path) -> Iterator[tuple[list[str], Any]]:
    """The spellings of each row's id, the surest first, and its caption."""
    content = parse_file(path)
    if isinstance(content, dict):
        yield from (([key], text) for key, text in content.items())
        return
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path}: captions are {{id: caption}} or a list of objects")
    for number, row in enumerate(content):
        image, own = row.get("image_id"), row.get("annotation_id", row.get("ann_id"))
        if own is not None:
            ids = [f"{image}/{own}", str(own)]
        elif "image" in row:  # GAR describes the first mask, unless an answer names another
            stem = Path(str(row["image"])).stem
            ids = [stem, f"{stem}/0"]
        else:
            ids = [str(one) for one in (image, row.get("id")) if one is not None][:1]
        if not ids:
            raise ValueError(f"{path}: row {number} has no annotation_id, image_id, id or image")
        yield ids, row.get("caption", row.get("model_output"))


def convert_predictions(
    captions: Path = typer.Argument(help="JSON: {id: caption}, or a list as COCO's results."),
    data: str = typer.Option(help="The images that were captioned, as `ureca predict` takes them."),
    out: Path = typer.Option(..., "-o", "--out", help="Predictions, NAME.jsonl."),
    name: str | None = typer.Option(None, help="Name of the system; default: the file's."),
    trained_on: str | None = typer.Option(
        None, help="Training data of the system, for the tables."
    ),
    masks: Path | None = typer.Option(None, help="Folder of a JSONL's masks."),
) -> None:
    """Convert captions of another program, such as DAM or GAR, to a predictions file.

    An id is IMAGE/REGION, a region's id if it is in one image only, or the id of an image with one
    region. Ids that are no region's, and regions without a caption, are listed; the exit status is
    1 then. A region without a caption counts as an empty one.
    """
    from ureca_lib.datasets import open_captioned
    from ureca_lib.evaluate.predict import predict

    images = open_captioned(data, masks=masks)
    system = ForeignCaptions(captions, images, name)
    if not system.captions:
        shown = ", ".join(system.unmatched[:3])
        raise ValueError(
            f"{captions}: none of its ids is a region of {images.name}, such as {shown}"
        )
    opened = {"masks": None if masks is None else str(masks)}
    done = predict(system, images, out, trained_on, data_settings=opened, progress=False)
    typer.echo(
        f"{done.predictions - len(done.failed):,} captions of {done.images:,} images -> {out}"
    )
    for problem, ids in (
        (f"no region of {images.name}", system.unmatched),
        ("no caption in the file", list(done.failed)),
    ):
        if ids:
            typer.echo(f"{problem}: {len(ids):,}: {', '.join(ids)}", err=True)
    if system.unmatched or not done.complete:
        raise typer.Exit(1)
