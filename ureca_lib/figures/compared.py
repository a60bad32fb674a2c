"""Which regions a comparison shows, and what predictions files say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.evaluate.predictions import Prediction, prediction_id
from ureca_lib.figures.comparison import ComparedRegion
from ureca_lib.scenes import resolve

REFERENCE = "reference"


def compared_regions(
    images: Iterable[CaptionedImage],
    systems: Mapping[str, Sequence[Prediction]],
    count: int = 6,
    seed: int = 0,
    references: bool = True,
) -> list[ComparedRegion]:
    """Regions that all systems have captioned, drawn at random but of every size.

    Regions are sorted by their share of the image and cut into `count` groups of one length; one
    of each is drawn, from the image that was least drawn from. Nothing looks at the captions, so
    that nothing is picked because it flatters a system.

    Args:
        images: that the predictions are of; others are passed over.
        systems: by name, the predictions of each.
        count: of regions, at most.
        seed: of the draw.
        references: add the data's own captions as a system, where every region drawn has one.

    Returns:
        The regions, largest first. On procedural scenes each caption is read against its scene,
        which tells how many regions it fits.

    Raises:
        ValueError: no region is in all files and among the images.
    """
    said = {name: {row.id: row for row in rows} for name, rows in systems.items()}
    shared = set.intersection(*(set(rows) for rows in said.values())) if said else set()
    found = []
    for image in images:
        pixels = image.size[0] * image.size[1]
        ids = [(region, prediction_id(image.image_id, region.id)) for region in image.regions]
        found += [(r.area / pixels, key, image, r) for r, key in ids if key in shared]
    if not found:
        names = ", ".join(systems) or "no system"
        raise ValueError(f"no region of these images has a caption of each of {names}")
    found.sort(key=lambda one: (-one[0], one[1]))
    drawn = _drawn(found, count, np.random.default_rng(seed))
    told = references and all(image.captions.get(region.id) for _, _, image, region in drawn)
    rows = []
    for share, key, image, region in drawn:
        captions = {name: predictions[key].caption for name, predictions in said.items()}
        if told:
            captions = {REFERENCE: image.captions[region.id][0]} | captions
        note = f"level {image.levels[region.id]} · {100 * share:.2g}%"
        fits = None if image.scene is None else _fits(image, region.id, captions)
        rows.append(ComparedRegion(image.pixels, region, captions, fits, note))
    return rows


def _drawn(found: list[tuple], count: int, generator: np.random.Generator) -> list[tuple]:
    """One of each group, of an image that has few so far."""
    times: dict[str, int] = {}
    drawn = []
    for group in np.array_split(np.arange(len(found)), min(count, len(found))):
        fewest = min(times.get(found[n][2].image_id, 0) for n in group)
        free = [n for n in group if times.get(found[n][2].image_id, 0) == fewest]
        one = found[int(generator.choice(free))]
        times[one[2].image_id] = times.get(one[2].image_id, 0) + 1
        drawn.append(one)
    return drawn


def _fits(
    image: CaptionedImage, region_id: int | str, captions: Mapping[str, str]
) -> dict[str, tuple[int, bool]]:
    fitting = {name: resolve(text, image.scene) for name, text in captions.items()}
    return {name: (len(ids), region_id in ids) for name, ids in fitting.items()}
