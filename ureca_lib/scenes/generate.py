"""From a seed to a scene."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

import numpy as np

from ureca_lib.regions import Region, RegionImage
from ureca_lib.scenes.backdrop import SETTINGS, draw_backdrop
from ureca_lib.scenes.description import Description, Facts
from ureca_lib.scenes.kinds import KINDS
from ureca_lib.scenes.layout import Layout
from ureca_lib.scenes.masks import encode_regions
from ureca_lib.scenes.raster import Raster, draw
from ureca_lib.scenes.scene import Scene
from ureca_lib.scenes.shading import shade
from ureca_lib.scenes.specification import SceneSpecification

ATTEMPTS = 120
PATIENCE = 15  # attempts at one setting and kind of twins, so that crowded ones are not rarer
_DEFAULT = SceneSpecification()


def generate_scene(
    seed: int, spec: SceneSpecification = _DEFAULT, size: tuple[int, int] | None = None
) -> Scene:
    """Generate the scene of a seed. The same seed and specification give the same scene.

    Args:
        seed: any whole number; `spec.seeds("train")` and so on keep the splits apart.
        spec: settings of the generator.
        size: (width, height) in pixels instead of one of the specification's canvases.

    Returns:
        The scene: `.image` (H, W, 3), `.regions`, `.tree`, `.captions`.

    Raises:
        ValueError: a size with a side below 448, or no scene met the specification
            within a fixed number of attempts.
    """
    if size is not None and min(size) < 448:
        raise ValueError(f"a scene needs sides of at least 448 px, not {size[0]} x {size[1]}")
    rng = Random(f"{spec.version}:{seed}")
    chosen = rng.choice(spec.canvases)
    width, height = size or chosen
    for attempt in range(ATTEMPTS):
        if attempt % PATIENCE == 0:
            setting = rng.choice(tuple(SETTINGS))
            twin = rng.choice(SETTINGS[setting])
        raster, facts, tables = _compose(rng, spec, setting, twin, width, height)
        if facts is None:
            continue
        photo = shade(raster, rng, spec)
        encoded = zip(facts, encode_regions(raster.ids, tables), strict=True)
        regions = [Region(each.id, rle, name=each.kind) for each, rle in encoded]
        image = RegionImage(regions, width, height, photo, image_id=seed)
        return Scene(image, Description(facts), seed, spec.version)
    raise ValueError(f"seed {seed}: no scene met the specification in {ATTEMPTS} attempts")


def generate_scenes(seeds: Iterable[int], spec: SceneSpecification = _DEFAULT) -> Iterator[Scene]:
    """Generate the scenes of seeds lazily, in order."""
    return (generate_scene(seed, spec) for seed in seeds)


def _compose(
    rng: Random, spec: SceneSpecification, setting: str, twin: str, width: int, height: int
) -> tuple[Raster, list[Facts] | None, list[np.ndarray]]:
    """One attempt: a drawn layout, and the facts and id tables of its regions, or None."""
    backdrop = draw_backdrop(setting, rng, width / (2 * height))
    layout = Layout(rng, backdrop, SETTINGS[setting], width, height)
    layout.fill(spec, twin)
    while True:
        objects = layout.in_order()
        raster = draw(backdrop, objects, layout.groups, width, height)
        visible = raster.with_children(raster.visible())
        full = raster.with_children(raster.full)
        hidden = {
            layout.placed.index(placed)
            for first, _, placed in raster.objects
            if visible[first] < spec.min_visible_object * full[first]
        }
        if not hidden:
            break
        layout.without(hidden)
    if len(objects) < spec.min_objects or not layout.has_twins(spec.min_twins):
        return raster, None, []
    facts, tables = _regions(raster, spec, visible, full)
    if not _meets(facts, spec):
        return raster, None, []
    return raster, facts, tables


def _meets(facts: list[Facts], spec: SceneSpecification) -> bool:
    if not spec.regions[0] <= len(facts) <= spec.regions[1]:
        return False
    depth: dict[int | None, int] = {None: 0}
    for each in facts:
        depth[each.id] = depth[each.parent] + 1
    if max(depth.values()) < spec.min_depth:
        return False
    whole = [
        each.kind for each in facts if each.kind in KINDS and (each.parent is None or each.side)
    ]
    return max(map(whole.count, whole), default=0) >= spec.min_twins


def _regions(
    raster: Raster, spec: SceneSpecification, visible: np.ndarray, full: np.ndarray
) -> tuple[list[Facts], list[np.ndarray]]:
    """Parts that become regions, numbered from 1, and the paints that each of them shows.

    A part that is too small or too hidden is left out with all of its parts. One that covers
    its whole is left out too, and its parts become those of the whole.
    """
    tops: dict[int, int | None] = {}  # from each part to the region it counts for
    facts: list[Facts] = []
    numbers: dict[int, int] = {}
    for index, part in enumerate(raster.parts):
        up = None if part.parent is None else tops[part.parent]
        gone = part.parent is not None and up is None
        small = visible[index] < max(spec.smallest_region, spec.min_visible_part * full[index])
        if gone or small:
            tops[index] = None
        elif up is not None and visible[up] - visible[index] < spec.smallest_region:
            tops[index] = up
        else:
            tops[index] = index
            numbers[index] = len(numbers) + 1
            parent = None if up is None else numbers[up]
            looks = (part.surface, part.pattern, part.mention, part.side)
            stands = (part.place, part.row, part.member)
            facts.append(Facts(numbers[index], part.kind, parent, *looks, *stands))
    tables = [np.zeros(256, bool) for _ in facts]
    for value, paint in enumerate(raster.paints):
        index: int | None = paint.part
        while index is not None:
            if index in numbers:
                tables[numbers[index] - 1][value] = True
            index = raster.parts[index].parent
    return facts, tables
