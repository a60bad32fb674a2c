"""Write `refcocog/` and `visual_genome/` from `zero_shot.json`, in the data sets' true formats.

    python data_samples/zero_shot.py            # write the files
    python data_samples/zero_shot.py --check    # say which differ, and exit with 1 if any does

Sentences and boxes are in `zero_shot.json`, outlines in `drawings/`; photos stay in `photos/`.
"""

from __future__ import annotations

import json
import pickle  # to write what others' tools read; only what is pickled here is unpickled
import re
import sys
from pathlib import Path
from typing import Any

from ureca_lib.datasets.refcocog import read_pickle
from ureca_lib.datasets.visual_genome import MAX_WORDS, densecap_words
from ureca_lib.regions import Region, load_sa1b

HERE = Path(__file__).resolve().parent
PHOTOS, DRAWINGS = HERE / "photos", HERE / "drawings"


def main() -> int:
    """Write, or with --check compare, every file."""
    source = json.loads((HERE / "zero_shot.json").read_text(encoding="utf-8"))["photos"]
    files = refcocog(source) | visual_genome(source)
    stale = []
    for name, content in files.items():
        path = HERE / name
        if "--check" not in sys.argv[1:]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        elif not path.is_file() or not _holds(path, content):
            stale.append(name)
    print("\n".join(f"differs: {name}" for name in stale) or f"{len(files)} files")
    return 1 if stale else 0


def refcocog(source: list[dict[str, Any]]) -> dict[str, bytes]:
    """`instances.json`, `refs(umd).p`, `refs(google).p`, and the first as JSON too."""
    images, annotations, names = [], [], []
    refs: dict[str, list[dict[str, Any]]] = {"umd": [], "google": []}
    sentence = 0
    for row in source:
        regions = load_sa1b(PHOTOS / f"{Path(row['photo']).stem}.json")
        size = {"height": regions.height, "width": regions.width}
        images.append({"id": row["image_id"], "file_name": row["photo"], **size})
        for place, (region_id, texts) in enumerate(row["expressions"].items()):
            region = regions[int(region_id)]
            if region.name not in names:
                names.append(region.name)
            about = {"image_id": row["image_id"], "category_id": names.index(region.name) + 1}
            ann_id = 1000 * row["image_id"] + region.id
            annotations.append({"id": ann_id, **about, **_outline(row["photo"], region)})
            sentences = [_sentence(text, sentence + n) for n, text in enumerate(texts)]
            sentence += len(texts)
            reference = {
                "sent_ids": [one["sent_id"] for one in sentences],
                "file_name": f"{Path(row['photo']).stem}_{ann_id}{Path(row['photo']).suffix}",
                "ann_id": ann_id,
                "ref_id": len(refs["umd"]),
                **about,
                "sentences": sentences,
            }
            refs["umd"].append(reference | {"split": row["umd"]})
            # google's partition divides the objects of an image
            refs["google"].append(reference | {"split": row["google"][place % 2]})
    info = {"description": "Ours, in RefCOCOg's format; see README.md"}
    instances = {"info": info, "images": images, "annotations": annotations}
    instances["categories"] = [
        {"supercategory": "region", "id": number, "name": name}
        for number, name in enumerate(names, 1)
    ]
    files = {"refcocog/instances.json": _json(instances)}
    for partition, listed in refs.items():
        # protocol 0 is text, so that a reader of the repository sees what is in it
        files[f"refcocog/refs({partition}).p"] = pickle.dumps(listed, protocol=0)
    return files


def visual_genome(source: list[dict[str, Any]]) -> dict[str, bytes]:
    """Raw files with the test images' list, and the same test split as GRiT publishes it."""
    described, data, annotations, images = [], [], [], []
    splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for row in source:
        regions = load_sa1b(PHOTOS / f"{Path(row['photo']).stem}.json")
        size = {"width": regions.width, "height": regions.height}
        image_id = row["image_id"]
        splits[row["densecap"]].append(image_id)
        data.append({"image_id": image_id, "url": f"photos/{row['photo']}", **size})
        data[-1] |= {"coco_id": None, "flickr_id": None}
        entries = []
        for place, (*box, phrase) in enumerate(row["phrases"]):
            sides = dict(zip(("x", "y", "width", "height"), box, strict=True))
            region_id = 100 * image_id + place
            entries.append({"region_id": region_id, "image_id": image_id, "phrase": phrase})
            entries[-1] |= sides
            words = densecap_words(phrase)
            if row["densecap"] == "test" and box[2] * box[3] > 0 and len(words) <= MAX_WORDS:
                entry = {"id": region_id, "image_id": image_id, "bbox": box}
                entry |= {"area": box[2] * box[3], "iscrowd": 0, "category_id": 1}
                annotations.append(entry | {"caption": " ".join(words)})
        described.append({"id": image_id, "regions": entries})
        if row["densecap"] == "test":
            images.append({"id": image_id, "file_name": row["photo"], **size})
    grit = {"images": images, "annotations": annotations}
    grit["categories"] = [{"supercategory": "object", "id": 1, "name": "object"}]
    return {
        "visual_genome/region_descriptions.json": _json(described),
        "visual_genome/image_data.json": _json(data),
        "visual_genome/densecap_splits.json": _json(splits),
        "visual_genome/annotations/test.json": _json(grit),
    }


def _outline(photo: str, region: Region) -> dict[str, Any]:
    """The drawn polygons of a region, flat as COCO has them, and what goes with them."""
    drawing = json.loads((DRAWINGS / f"{Path(photo).stem}.json").read_text(encoding="utf-8"))
    rows = {row["id"]: row for row in drawing["regions"]}

    def rings(region_id: int) -> list[list[float]]:
        row = rows[region_id]
        own = [[value for point in ring for value in point] for ring in row.get("polygons", [])]
        return own + [ring for other in row.get("union", []) for ring in rings(other)]

    polygons = rings(region.id)
    drawn = Region.from_polygons(region.id, polygons, *region.size)
    x, y, columns, rows_ = drawn.pixel_box
    box = {"bbox": [x, y, columns, rows_], "area": drawn.area, "iscrowd": 0}
    return {"segmentation": polygons, **box}


def _sentence(raw: str, sent_id: int) -> dict[str, Any]:
    words = re.sub(r"[^a-z0-9' ]", "", raw.lower()).split()
    return {"tokens": words, "raw": raw, "sent_id": sent_id, "sent": " ".join(words)}


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file holds the content; Pythons differ in which texts of a pickle they repeat."""
    if content[:1] in b"[{":
        return path.read_bytes() == content
    return read_pickle(path) == pickle.loads(content)


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
