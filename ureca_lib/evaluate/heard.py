"""What a listener made of an image's captions, kept so that uniqueness can be measured again.

JSONL, one image a line:

    {"image_id": "scene_2000000", "listener": "exact", "system": "ureca", "size": [448, 560],
     "regions": [{"id": 1, "area": 5120, "level": 1, "look_alikes": [7]}, ...],
     "captions": ["the red car", ...], "said": [[1, 0], ...], "scores": [[-0.69, ...], ...],
     "unscorable": [[4, "why"]]}

`captions` are the different texts, `said` pairs a region's id with the place of its caption,
`scores` are the log-likelihoods, a row a region and a column a text, null where a region is ruled
out, four decimals. Lines are appended as images are heard; a line that a crash cut off is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ureca_lib.datasets.jsonl import json_line, parse_line
from ureca_lib.evaluate.retrieval import check_scores
from ureca_lib.mask_tree import RegionId

DECIMALS = 4  # of a log-likelihood on disk


class HeardError(ValueError):
    """A file of heard captions that cannot be used, naming the file and the line or image."""


@dataclass(frozen=True)
class HeardRegion:
    """A region that captions may be about.

    Attributes:
        id: unique in its image.
        area: pixels of the mask.
        level: depth in the mask tree, 1 for the top; None where it is not known.
        look_alikes: ids of the regions that it is taken for.
    """

    id: RegionId
    area: int
    level: int | None = None
    look_alikes: tuple[RegionId, ...] = ()


@dataclass(frozen=True)
class Heard:
    """One image: its R regions, C different captions, and what the listener gave.

    Attributes:
        said: for each captioned region's id, the place of its caption in `captions`.
        scores: (R, C) log-likelihoods, -inf where a region is ruled out.
        size: (H, W) of the image in pixels.
        unscorable: for captions that the listener could not take, why; they name nothing.

    Raises:
        ValueError: parts that do not go together.
    """

    image_id: str
    listener: str
    system: str
    size: tuple[int, int]
    regions: tuple[HeardRegion, ...]
    captions: tuple[str, ...]
    said: dict[RegionId, int]
    scores: np.ndarray
    unscorable: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = len(self.regions), len(self.captions)
        if check_scores(self.scores).shape != shape:
            raise ValueError(f"scores are of shape {self.scores.shape}, not {shape}")
        ids = {region.id for region in self.regions}
        if len(ids) != len(self.regions):
            raise ValueError("two regions have one id")
        for region in self.regions:
            if unknown := set(region.look_alikes) - ids:
                raise ValueError(f"region {region.id} has look-alikes that are not there {unknown}")
        for region_id, place in self.said.items():
            if region_id not in ids:
                raise ValueError(f"a caption is of region {region_id!r}, which is not there")
            if not 0 <= place < len(self.captions):
                raise ValueError(f"region {region_id!r} has caption {place}, which is not there")

    @property
    def texts(self) -> dict[RegionId, str]:
        """Captions by region id."""
        return {region_id: self.captions[place] for region_id, place in self.said.items()}

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        regions = [
            {"id": r.id, "area": r.area, "level": r.level, "look_alikes": list(r.look_alikes)}
            for r in self.regions
        ]
        rounded = np.round(self.scores, DECIMALS)
        scores = [[None if np.isneginf(x) else x for x in row] for row in rounded.tolist()]
        return {
            "image_id": self.image_id,
            "listener": self.listener,
            "system": self.system,
            "size": list(self.size),
            "regions": regions,
            "captions": list(self.captions),
            "said": [[region_id, place] for region_id, place in self.said.items()],
            "scores": scores,
            "unscorable": [[place, why] for place, why in self.unscorable.items()],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Heard:
        """Back from JSON.

        Raises:
            ValueError: a part that is missing or of another kind.
        """
        try:
            regions = tuple(
                HeardRegion(r["id"], int(r["area"]), r["level"], tuple(r["look_alikes"]))
                for r in row["regions"]
            )
            captions = tuple(str(text) for text in row["captions"])
            scores = np.array(row["scores"], np.float64).reshape(len(regions), len(captions))
            height, width = row["size"]
            return cls(
                image_id=str(row["image_id"]),
                listener=str(row["listener"]),
                system=str(row["system"]),
                size=(int(height), int(width)),
                regions=regions,
                captions=captions,
                said={region_id: int(place) for region_id, place in row["said"]},
                scores=np.where(np.isnan(scores), -np.inf, scores),  # null is read as NaN
                unscorable={int(place): str(why) for place, why in row["unscorable"]},
            )
        except KeyError as error:
            raise ValueError(f"{error} is missing") from None
        except (TypeError, AttributeError) as error:
            raise ValueError(f"a part is of another kind ({error})") from None


def read_heard(path: str | Path) -> Iterator[Heard]:
    """The images of a file, in its order, one at a time.

    Raises:
        FileNotFoundError: no such file.
        HeardError: naming the line that is damaged, other than a last one that was cut off, or
            the image that stands twice.
    """
    seen: set[str] = set()
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):  # cut off; it is heard again
                return
            try:
                row = parse_line(path, number, line)
                if row is None:
                    continue
                heard = Heard.from_row(row)
            except ValueError as error:
                where = "" if str(error).startswith(str(path)) else f"{path}: line {number}: "
                raise HeardError(f"{where}{error}") from None
            if heard.image_id in seen:
                raise HeardError(f"{path}: line {number}: {heard.image_id} stands twice")
            seen.add(heard.image_id)
            yield heard


def append_heard(path: str | Path, heard: Heard) -> None:
    """Add an image, flushed to the disk before this returns."""
    line = json_line(heard.row()).encode("utf-8")
    with Path(path).open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def drop_cut_line(path: str | Path) -> bool:
    """Take away a last line without its end, which a crash left; says whether there was one."""
    target = Path(path)
    if not target.is_file():
        return False
    with target.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - (1 << 16))
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end == size:
            return False
        file.truncate(end)
        return True
