"""Benchmarks of region captions without training data: Ref-L4, DLC-Bench, GAR-Bench-Caption.

- `ref_l4:SPLIT:FOLDER`: referring expressions of 24 words on average, for boxes in photos of COCO
  and Objects365 (Chen et al. 2024, https://huggingface.co/datasets/JierunChen/Ref-L4). A folder
  holds `ref-l4-val.parquet` and `ref-l4-test.parquet`, a row per expression, and the photos of
  `images.tar.gz`, unpacked in it or in `images/`. Several splits are `val+test`. A region is a box,
  named by its `bbox_id`, with all expressions for it.
- `dlc_bench:FOLDER`: the masks of detailed localized captioning in photos of Objects365 (Lian et
  al. 2025, https://huggingface.co/datasets/nvidia/DLC-Bench). A folder holds `annotations.json` of
  COCO's layout, `class_names.json` and `images/`. There are no references: a judge asks the
  questions of `qa.json`, with its authors' own program.
- `gar_bench:simple:FOLDER` and `gar_bench:detailed:FOLDER`: relations of two or three masks of a
  photo (Wang et al. 2025, https://github.com/Haochen-Wang409/Grasp-Any-Region,
  `evaluation/GAR-Bench/annotations`). A folder holds `GAR-Bench-Caption-Simple.json`,
  `GAR-Bench-Caption-Detailed.json` and `images/`. A region is a mask, named by its number; that
  which an answer begins with, as in `<Prompt1> is beside <Prompt0>.`, has the answer as reference,
  its marks as they are. The detailed ones have no references.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ureca_lib.datasets.rows import stream_items
from ureca_lib.datasets.zero_shot import ListedImage, ListedRegion, Listing, coco_images, reads
from ureca_lib.regions import AnnotationFormatError, FileMissingError
from ureca_lib.regions.sa1b import get, image_size, need_object, read_json

_COLUMNS = ["id", "caption", "bbox", "bbox_id", "image_id", "height", "width", "file_name"]
_GAR = {"simple": "GAR-Bench-Caption-Simple.json", "detailed": "GAR-Bench-Caption-Detailed.json"}


def _find_ref_l4(folder: Path) -> list[str]:
    splits = [split for split in ("val", "test") if _parquet(folder, split).is_file()]
    return [f"ref_l4:{split}:{folder}" for split in splits]


def _parquet(folder: Path, split: str) -> Path:
    return folder / f"ref-l4-{split}.parquet"


@reads("ref_l4:SPLIT:FOLDER", find=_find_ref_l4)
def read_ref_l4(listing: Listing) -> Iterable[ListedImage]:
    """Read Ref-L4; see the module."""
    images: dict[str, ListedImage] = {}
    for split in listing.parts[0].split("+"):
        path = _parquet(listing.folder, split)
        try:
            rows = pq.read_table(path, columns=_COLUMNS).to_pylist()
        except FileNotFoundError:
            raise FileMissingError("there is no such split", path) from None
        except (OSError, pa.ArrowException) as error:
            raise AnnotationFormatError(f"not a Parquet file of Ref-L4 ({error})", path) from None
        for row in rows:
            with listing.entry(path, f"of row {row['id']}"):
                key, text = get(row, "image_id", str), get(row, "caption", str)
                if key not in images:
                    name = get(row, "file_name", str)
                    images[key] = listing.image(key, image_size(row), name, path)
                if same := images[key].find(row["bbox_id"]):
                    same.texts.append(text)
                    continue
                region = ListedRegion(get(row, "bbox_id", str), [text], get(row, "bbox", list))
                listing.add(images[key], region)
    return images.values()


def _find_dlc(folder: Path) -> list[str]:
    both = all((folder / name).is_file() for name in ("annotations.json", "class_names.json"))
    return [f"dlc_bench:{folder}"] if both else []


@reads("dlc_bench:FOLDER", find=_find_dlc)
def read_dlc_bench(listing: Listing) -> Iterable[ListedImage]:
    """Read DLC-Bench; see the module."""
    names = read_json(listing.folder / "class_names.json")

    def region(item: Mapping[str, Any]) -> ListedRegion:
        region_id, mask = get(item, "id", int), get(item, "segmentation", (list, Mapping))
        return ListedRegion(region_id, [], None, mask, names.get(str(region_id)))

    return coco_images(listing, listing.folder / "annotations.json", region)


def _find_gar(folder: Path) -> list[str]:
    return [f"gar_bench:{name}:{folder}" for name in _GAR if (folder / _GAR[name]).is_file()]


@reads("gar_bench:SPLIT:FOLDER", find=_find_gar)
def read_gar_bench(listing: Listing) -> Iterator[ListedImage]:
    """Read GAR-Bench-Caption; see the module."""
    (split,) = listing.parts
    if split not in _GAR:
        raise ValueError(f"the splits of GAR-Bench are {', '.join(_GAR)}, not {split!r}")
    path = listing.folder / _GAR[split]
    for number, item in enumerate(stream_items(path, "item")):
        with listing.entry(path, f"of item {number}"):
            need_object(item)
            name, masks = get(item, "image", str), get(item, "mask_rles", list)
            if not masks:
                raise AnnotationFormatError("there are no masks")
            need_object(masks[0])
            height, width = get(masks[0], "size", list)
            size = image_size({"width": width, "height": height})
            image = listing.image(Path(name).stem, size, name, path)
            answer, names = item.get("answer"), [item.get("subject_name"), item.get("object_name")]
            for region_id, (mask, named) in enumerate(zip_longest(masks, names[: len(masks)])):
                begins = isinstance(answer, str) and answer.startswith(f"<Prompt{region_id}>")
                region = ListedRegion(region_id, [answer] if begins else [], None, mask, named)
                listing.add(image, region)
            yield image
