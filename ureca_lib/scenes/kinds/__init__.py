"""The kinds of objects: drawing, size, surfaces and places of each.

Heights are shares of the scene's unit (the canvas height, less for upright canvases) for an object
in the front row; the back row is smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ureca_lib.scenes.kinds import buildings, nature, vehicles
from ureca_lib.scenes.palette import BRIGHT
from ureca_lib.scenes.sketch import Sketch

Draw = Callable[[Sketch, Random, str, str], None]


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Args:
        draw: adds its parts and shapes to a sketch.
        height: in the front row, as a share of the scene's unit.
        surfaces: possible colors and materials.
        spots: "ground", "water" or "air".
        patterned: whether it may be striped, dotted or checkered.
        mirrors: whether it may face either way.
        groups: whether it may stand in a pair or row.
    """

    draw: Draw
    height: float
    surfaces: tuple[str, ...]
    spots: str = "ground"
    patterned: bool = True
    mirrors: bool = True
    groups: bool = True


_HOUSE = ("white", "yellow", "blue", "pink", "green", "brick", "wooden", "stone")
_CAR = ("red", "yellow", "blue", "green", "white", "orange", "purple", "teal", "black")
_TREE = ("green", "orange", "yellow", "pink", "red", "teal", "purple")
_FLOWER = ("red", "orange", "yellow", "blue", "purple", "pink", "white")
_CAT = ("orange", "black", "grey", "white", "brown")
_ROBOT = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white", "black")

KINDS: dict[str, Kind] = {
    "house": Kind(buildings.house, 0.46, _HOUSE, patterned=False),
    "lamp": Kind(buildings.lamp, 0.46, BRIGHT),
    "robot": Kind(buildings.robot, 0.4, _ROBOT),
    "sofa": Kind(buildings.sofa, 0.23, BRIGHT, groups=False),
    "picture": Kind(buildings.picture, 0.2, ("red", "blue", "green", "black", "purple"), "air"),
    "clock": Kind(buildings.clock, 0.15, ("red", "blue", "green", "black", "yellow"), "air"),
    "tree": Kind(nature.tree, 0.46, _TREE, patterned=False),
    "flower": Kind(nature.flower, 0.29, _FLOWER, patterned=False),
    "mushroom": Kind(nature.mushroom, 0.2, ("red", "orange", "purple", "blue", "yellow", "teal")),
    "snowman": Kind(nature.snowman, 0.36, ("white",)),
    "cat": Kind(nature.cat, 0.25, _CAT, patterned=False),
    "car": Kind(vehicles.car, 0.19, _CAR),
    "train": Kind(vehicles.train, 0.18, _CAR, patterned=False, groups=False),
    "boat": Kind(vehicles.boat, 0.32, (*BRIGHT, "wooden"), "water"),
    "balloon": Kind(vehicles.balloon, 0.3, BRIGHT, "air"),
    "plane": Kind(
        vehicles.plane, 0.13, ("red", "orange", "yellow", "green", "white", "pink"), "air"
    ),
}
