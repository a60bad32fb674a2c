"""What the pictures and prompts of a region cost, against what pycocotools takes for its mask.

A sample photo enlarged to 1024 px, with its 51 regions; each is taken through the three captioning
stages: contoured parent and crop, contoured image, numbered look-alikes (three of its siblings),
and their prompts. The photo's blur, made once, is shared out among the regions. The baseline is
one `pycocotools.mask.decode` a region. Times are the processor's, of this one thread.

    OMP_NUM_THREADS=1 python tests/benchmarks/views.py
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from record import record

from ureca_lib.annotate.prompts import fill_prompt
from ureca_lib.annotate.protocol import Context, Stage
from ureca_lib.annotate.views import ImageViews, ViewSettings, stage_views
from ureca_lib.mask_tree import MaskTree, build_mask_tree
from ureca_lib.regions import Region, RegionImage, load_sa1b

SAMPLE = Path(__file__).resolve().parents[2] / "data_samples" / "photos" / "astronaut.json"
SIDE, REPEATS, LOOK_ALIKES = 1024, 5, 3
PARTS = ("blur, a region's share", "short", "long", "unique", "prompts")


def enlarged(image: RegionImage, side: int) -> RegionImage:
    """The image and its masks with the longer side at `side` pixels."""
    scale = side / max(image.width, image.height)
    size = round(image.width * scale), round(image.height * scale)
    photo = np.asarray(Image.fromarray(image.pixels).resize(size, Image.Resampling.BICUBIC))
    regions = []
    for region in image.regions:
        mask = Image.fromarray(region.mask).resize(size, Image.Resampling.NEAREST)
        regions.append(Region.from_mask(region.id, np.asarray(mask), region.name))
    return RegionImage(regions, *size, photo=photo)


def context_of(tree: MaskTree, region_id: int | str) -> Context:
    """A context with a caption for everything near a region, and look-alikes."""
    text = "the small red thing on the upper left side of the large one"
    siblings = dict.fromkeys(tree.siblings(region_id), text)
    return Context(
        parent=text,
        siblings=siblings,
        children=dict.fromkeys(tree.children(region_id), text),
        current=text,
        look_alikes=list(siblings)[:LOOK_ALIKES],
    )


def one_run(image: RegionImage, tree: MaskTree, settings: ViewSettings) -> dict[str, float]:
    """Processor milliseconds a region for each part."""
    spent = dict.fromkeys(PARTS, 0.0)
    start = time.process_time()
    views = ImageViews(image, settings)
    spent[PARTS[0]] = time.process_time() - start
    stages: tuple[Stage, ...] = ("short", "long", "unique")
    for stage in stages:  # as the pipeline goes: all regions of a stage, then the next stage
        for region in tree.top_down():
            context = context_of(tree, region.id)
            start = time.process_time()
            stage_views(stage, views, tree, region.id, context)
            shown = time.process_time()
            fill_prompt(stage, tree, region.id, context)
            spent[stage] += shown - start
            spent["prompts"] += time.process_time() - shown
    return {part: 1000 * seconds / len(tree) for part, seconds in spent.items()}


def main() -> None:
    """Measure and record."""
    image = enlarged(load_sa1b(SAMPLE), SIDE)
    tree = build_mask_tree(image.regions)
    kinds = {
        "default": ViewSettings(),
        "look-alikes in the whole image": ViewSettings(look_alike_frame="image"),
        "main object sharp": ViewSettings(context_blur="main_object"),
    }
    decodes: list[float] = []
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(REPEATS):
        start = time.process_time()
        for region in image.regions:
            coco_mask.decode(region.rle)
        decodes.append(1000 * (time.process_time() - start) / len(image))
        for name, settings in kinds.items():
            runs[name].append(one_run(image, tree, settings))
    head = f"| ms a region | {' | '.join(PARTS)} | all | decodes |"
    rows = [head, "|---" * (len(PARTS) + 3) + "|"]
    for name, measured in runs.items():
        parts = [statistics.median(run[part] for run in measured) for part in PARTS]
        whole = statistics.median(sum(run.values()) for run in measured)
        ratio = whole / statistics.median(decodes)
        cells = " | ".join(f"{part:.2f}" for part in parts)
        rows.append(f"| {name} | {cells} | {whole:.1f} | {ratio:.0f} |")
    note = f"{len(image)} regions, {image.width} x {image.height} px; a decode takes "
    note += f"{statistics.median(decodes):.2f} ms."
    text = "\n".join([*rows, "", note])
    record("Views and prompts", text, "OMP_NUM_THREADS=1 python tests/benchmarks/views.py")


if __name__ == "__main__":
    main()
