"""From the id map to a picture: colors, patterns, outlines, shadows, light and grain."""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image

from ureca_lib.scenes.palette import MATERIALS, accent_of
from ureca_lib.scenes.raster import OVERSAMPLE, Raster
from ureca_lib.scenes.specification import SceneSpecification
from ureca_lib.scenes.textures import SIDE, material_field, pattern_field, prepared

OUTLINE = 0.6  # how much darker outlines are
GROUNDS = {
    "grass": ("strokes", 9.0),
    "lawn": ("strokes", 7.0),
    "sea": ("waves", 9.0),
    "pond": ("waves", 7.0),
    "beach": ("grain", 5.0),
    "road": ("grain", 5.0),
    "pavement": ("grain", 3.0),
    "snow": ("soft", 4.0),
    "hill": ("soft", 5.0),
    "mountain": ("soft", 8.0),
    "ice": ("waves", 4.0),
}
TINTS = {
    "neutral": (1.0, 1.0, 1.0),
    "warm": (1.04, 1.0, 0.93),
    "cool": (0.95, 1.0, 1.05),
    "dusk": (0.95, 0.91, 0.94),
}


def shade(raster: Raster, rng: Random, spec: SceneSpecification) -> np.ndarray:
    """Color a drawn scene.

    Args:
        raster: the visible parts.
        rng: chooses the light; the same state gives the same picture.
        spec: how strong light and grain are.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = _flat_colours(raster)
    light = _outlines(raster.fine)
    offset = np.zeros(raster.ids.shape, np.float32)
    _grounds(raster, rng, offset)
    _surfaces(raster, rng, image, offset)
    _objects(raster, light)
    _lamp_light(rng, light, spec.lighting)
    sigma = rng.choice((0.0, 0.0, 0.5, 1.0)) * spec.noise
    if sigma:
        offset += sigma * _crop(prepared("grain"), rng, offset.shape)
    strength = spec.lighting
    tint = TINTS[rng.choice(("neutral", "neutral", "warm", "cool", "dusk"))]
    scale = np.array([1 + strength * (part - 1) for part in tint], np.float32)
    image += offset[..., None]
    image *= light[..., None] * scale
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _flat_colours(raster: Raster) -> np.ndarray:
    """(H, W, 3) float32: each paint's color, averaged over the finer grid."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(raster.paints)] = [paint.rgb for paint in raster.paints]
    fine = Image.fromarray(raster.fine)
    fine.putpalette(table.tobytes())
    return np.asarray(fine.convert("RGB").reduce(OVERSAMPLE)).astype(np.float32)


def _outlines(fine: np.ndarray) -> np.ndarray:
    """(H, W) float32: 1, less at the borders between things."""
    edges = np.zeros(fine.shape, np.uint8)
    edges[:, 1:] = fine[:, 1:] != fine[:, :-1]
    edges[1:] |= fine[1:] != fine[:-1]
    cover = edges[::2, ::2] + edges[1::2, ::2] + edges[::2, 1::2] + edges[1::2, 1::2]
    return 1 - np.float32(OUTLINE / 4) * cover.astype(np.float32)


def _crop(texture: np.ndarray, rng: Random, shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape
    top, left = rng.randint(0, SIDE - height), rng.randint(0, SIDE - width)
    return texture[top : top + height, left : left + width]


def _grounds(raster: Raster, rng: Random, offset: np.ndarray) -> None:
    height = offset.shape[0]
    for value, paint in enumerate(raster.paints):
        kind = raster.parts[paint.part].kind
        if raster.parts[paint.part].parent is not None or kind not in (*GROUNDS, "sky", "wall"):
            continue
        inside = raster.ids == value
        if kind in ("sky", "wall"):  # lighter towards the bottom
            rise = np.linspace(-14, 34, height, dtype=np.float32)[:, None]
            np.copyto(offset, rise if kind == "sky" else 0.3 * rise, where=inside)
            continue
        name, strength = GROUNDS[kind]
        field = np.float32(strength) * _crop(prepared(name), rng, offset.shape)
        np.copyto(offset, field, where=inside)


def _surfaces(raster: Raster, rng: Random, image: np.ndarray, offset: np.ndarray) -> None:
    """Patterns and materials of the parts that have one."""
    for value, paint in enumerate(raster.paints):
        part = raster.parts[paint.part]
        material = part.surface in MATERIALS
        if not paint.textured or (part.pattern == "plain" and not material):
            continue
        inside = raster.ids == value
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if rows.size == 0:
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        mask, shape = inside[box], inside[box].shape
        if material:
            field = material_field(part.surface, rows[0], columns[0], *shape)
            offset[box] -= np.where(mask, field, np.float32(0))
        if part.pattern != "plain":
            period = min(max(0.17 * paint.unit, 13.0), 26.0)
            field = np.where(mask, pattern_field(part.pattern, *shape, period), np.float32(0))
            accent = np.array(accent_of(part.surface), np.float32)
            image[box] += field[..., None] * (accent - image[box])


def _objects(raster: Raster, light: np.ndarray) -> None:
    """Make objects lighter at the top, and darken the ground below them."""
    height, width = light.shape
    backdrop = raster.objects[0][1].start if raster.objects else len(raster.paints)
    for _, paints, placed in raster.objects:
        left, top, right, bottom = (round(side) for side in placed.box)
        box = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
        ids = raster.ids[box]
        rise = np.linspace(1.06, 0.94, bottom - top, dtype=np.float32)[box[0].start - top :]
        mine = (ids >= paints.start) & (ids < paints.stop)
        light[box] *= np.where(mine, rise[: ids.shape[0], None], np.float32(1))
        if placed.sketch.parts[0].kind in ("balloon", "plane", "picture", "clock", "boat"):
            continue
        flat = max(3, round(0.07 * (right - left)))
        box = slice(bottom - flat, min(bottom + flat, height)), box[1]
        rows = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None]
        columns = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None]
        middle, half = (left + right) / 2, max(1.0, 0.5 * (right - left))
        away = ((rows - bottom) / flat) ** 2 + ((columns - middle) / half) ** 2
        shadow = (away < 1) & (raster.ids[box] < backdrop)
        light[box] *= np.where(shadow, np.float32(0.78), np.float32(1))


def _lamp_light(rng: Random, light: np.ndarray, strength: float) -> None:
    """In some scenes, light from one side; in some, darker corners."""
    height, width = light.shape
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    slope = np.float32(strength * rng.uniform(-0.08, 0.08))
    corner = np.float32(strength * rng.choice((0.0, 0.0, 0.08, 0.14)) / 2)
    light *= (1 + slope * columns - corner * columns**2) - corner * rows**2
