"""Turn the hand-drawn polygons of `drawings/` into the SA-1B JSON of `photos/`.

    python data_samples/draw.py            # write every photos/NAME.json from drawings/NAME.json
    python data_samples/draw.py --check    # say which differ, and exit with 1 if any does

A drawing lists regions, each with an id, a name, and `polygons` (rings that are united) or
`union` (ids of other regions that are united); then `holes` are cut out, the regions in `minus`
are taken away, and the mask is clipped to the region `inside`, so that parts lie in their whole.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from ureca_lib.regions import Region, RegionImage, load_image, save_sa1b

HERE = Path(__file__).resolve().parent
DRAWINGS, PHOTOS = HERE / "drawings", HERE / "photos"


def draw(drawing: Path) -> RegionImage:
    """The regions that a drawing describes, rasterised at its photo's full resolution."""
    document = json.loads(drawing.read_text(encoding="utf-8"))
    photo = PHOTOS / document["photo"]
    height, width = load_image(photo).shape[:2]
    rows = {row["id"]: row for row in document["regions"]}
    masks: dict[int, np.ndarray] = {}

    def fill(rings: list) -> np.ndarray:
        if not rings:
            return np.zeros((height, width), bool)
        return Region.from_polygons("ring", rings, height, width).mask

    def mask(region_id: int) -> np.ndarray:
        if region_id not in masks:
            row = rows[region_id]
            result = fill(row.get("polygons", []))
            for other in row.get("union", []):
                result = result | mask(other)
            result = result & ~fill(row.get("holes", []))
            for other in row.get("minus", []):
                result = result & ~mask(other)
            masks[region_id] = result & mask(row["inside"]) if "inside" in row else result
        return masks[region_id]

    regions = [Region.from_mask(row["id"], mask(row["id"]), row["name"]) for row in rows.values()]
    return RegionImage(regions, width, height, photo, file_name=document["photo"])


def main() -> int:
    """Write, or with --check compare, every sample."""
    stale = []
    for drawing in sorted(DRAWINGS.glob("*.json")):
        target = PHOTOS / drawing.name
        if "--check" not in sys.argv[1:]:
            save_sa1b(draw(drawing), target)
            continue
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / drawing.name
            save_sa1b(draw(drawing), fresh)
            if not target.is_file() or fresh.read_bytes() != target.read_bytes():
                stale.append(target.name)
    if stale:
        print(f"not what the drawings give: {', '.join(stale)}")
    return int(bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
