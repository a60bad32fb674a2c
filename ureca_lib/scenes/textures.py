"""Patterns, materials and surfaces of the ground, as fields over the pixels of a box."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

SIDE = 1024  # of the prepared textures, in pixels; larger than any canvas


@lru_cache(maxsize=8)
def prepared(name: str) -> np.ndarray:
    """(SIDE, SIDE) float32 texture of zero mean and unit deviation, the same in every process.

    "grain" varies from pixel to pixel, "soft" in blotches, "strokes" in short upright strokes,
    "waves" in long flat ones.
    """
    blur = {"grain": (0, 0), "soft": (9, 9), "strokes": (3.5, 0.8), "waves": (1.2, 9)}[name]
    field = np.random.default_rng(len(name)).standard_normal((SIDE, SIDE))
    field = ndimage.gaussian_filter(field, blur, mode="wrap")
    return (field / field.std()).astype(np.float32)


def pattern_field(name: str, height: int, width: int, period: float) -> np.ndarray:
    """Share of a pattern's second color at each pixel of a box.

    Args:
        name: "striped", "dotted" or "checkered".
        height, width: of the box in pixels.
        period: pixels from one stripe, dot or square to the next of its color.

    Returns:
        (height, width) float32, 0 to 1, with smooth edges.
    """
    rows = np.arange(height, dtype=np.float32)[:, None] * np.float32(2 * np.pi / period)
    columns = np.arange(width, dtype=np.float32)[None] * np.float32(2 * np.pi / period)
    sharp = period / 4  # so that an edge is about a pixel wide
    if name == "striped":
        line = np.clip(0.5 + sharp * (np.sin(columns) - 0.3), 0, 1)
        return np.broadcast_to(line, (height, width))
    if name == "dotted":
        bumps = np.cos(rows) + np.cos(columns)
        return np.clip(0.5 + sharp * (bumps - 0.75), 0, 1)
    return np.clip(0.5 + sharp * np.sin(rows) * np.sin(columns), 0, 1)


def material_field(name: str, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Darkening (positive) or lightening by a material at each pixel of a box, in gray levels.

    Args:
        name: "brick", "wooden" or "stone".
        top, left, height, width: the box in pixels.
    """
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    if name == "brick":
        course = rows // 7
        joints = (rows % 7 == 0) | ((columns + 7 * (course % 2)) % 14 == 0)
        return np.where(joints, np.float32(-46), np.float32(0))
    streaks = prepared("waves")[top : top + height, left : left + width]
    if name == "wooden":
        return np.where(rows % 11 == 0, np.float32(52), 7 * streaks)
    course = rows // 12
    joints = (rows % 12 == 0) | ((columns + 10 * (course % 2)) % 20 == 0)
    return np.where(joints, np.float32(42), 9 * prepared("soft")[:height, :width])
