"""Backdrops: sky and ground of five settings, with what belongs to them.

A backdrop is a sketch in units of the canvas height: x from the middle of the canvas, y from its
bottom edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from ureca_lib.scenes.palette import Rgb
from ureca_lib.scenes.sketch import Sketch

PLACES = ("left", "middle", "right")
CENTRES = {"left": 0.22, "middle": 0.5, "right": 0.78}  # of the canvas width
JITTER = 0.08  # of the canvas width; places stay at least a tenth of the width apart

SETTINGS: dict[str, tuple[str, ...]] = {
    "meadow": (
        "house",
        "tree",
        "flower",
        "mushroom",
        "mushroom",
        "cat",
        "robot",
        "balloon",
        "plane",
    ),
    "town": ("house", "car", "car", "lamp", "tree", "cat", "robot", "train", "train", "plane"),
    "seaside": ("boat", "boat", "house", "tree", "cat", "robot", "flower", "mushroom", "balloon"),
    "winter": (
        "snowman",
        "snowman",
        "train",
        "house",
        "tree",
        "lamp",
        "cat",
        "robot",
        "car",
        "car",
    ),
    "room": ("sofa", "sofa", "lamp", "cat", "robot", "flower", "picture", "clock"),
}
"""The objects that fit into each setting, likelier ones repeated."""

SKIES: dict[str, Rgb] = {
    "blue": (136, 190, 240),
    "orange": (248, 178, 116),
    "grey": (188, 194, 204),
    "purple": (172, 142, 206),
}


@dataclass(frozen=True)
class Backdrop:
    """A drawn backdrop and where objects can stand on it, as shares of the canvas height.

    Args:
        sketch: its parts and shapes.
        back, front: (lowest, highest) line that the objects of a row stand on, from the bottom.
        air: (lowest, highest) bottom of things in the air; water: the same for things afloat.
    """

    sketch: Sketch
    back: tuple[float, float]
    front: tuple[float, float]
    air: tuple[float, float]
    water: tuple[float, float] | None = None


def draw_backdrop(setting: str, rng: Random, half: float) -> Backdrop:
    """Draw a setting.

    Args:
        setting: one of `SETTINGS`.
        rng: random generator of all choices.
        half: half of the canvas width, in canvas heights.
    """
    draw = {
        "meadow": _meadow,
        "town": _town,
        "seaside": _seaside,
        "winter": _winter,
        "room": _room,
    }[setting]
    backdrop = draw(Sketch(), rng, half)
    backdrop.sketch.name_sides()
    return backdrop


def _band(s: Sketch, kind: str, surface: str, low: float, high: float, half: float, **more) -> int:
    part = s.part(kind, None, surface, more.get("pattern", "plain"), mention=True)
    s.rect(part, (-half - 0.01, low, half + 0.01, high), more.get("rgb"))
    return part


def _sky(s: Sketch, rng: Random, half: float, horizon: float, snowy: bool = False) -> None:
    surface = "grey" if snowy and rng.random() < 0.4 else rng.choice(tuple(SKIES))
    sky = _band(s, "sky", surface, horizon, 1.01, half, rgb=SKIES[surface])
    places = list(PLACES)
    rng.shuffle(places)
    if rng.random() < 0.7:
        place = places.pop()
        night = surface == "purple"
        sun = s.part("moon" if night else "sun", sky, "white" if night else "yellow")
        centre = (2 * half * (CENTRES[place] - 0.5 + rng.uniform(-0.05, 0.05)), 0.89)
        s.disc(sun, centre, rng.uniform(0.035, 0.06), (252, 250, 224) if night else (255, 222, 60))
    for place in places[: rng.choice((0, 1, 2))]:
        cloud = s.part("cloud", sky, "white", mention=True)
        s.parts[cloud] = replace(s.parts[cloud], place=place)
        x = 2 * half * (CENTRES[place] - 0.5) + rng.uniform(-0.04, 0.04)
        y, size = rng.uniform(0.8, 0.92), rng.uniform(0.6, 1.1)
        for dx, dy, radius in ((-0.07, 0, 0.04), (0, 0.02, 0.055), (0.075, 0.0, 0.042)):
            s.ellipse(cloud, (x + size * dx, y + size * dy), size * radius * 1.3, size * radius)


def _heights(s: Sketch, rng: Random, half: float, horizon: float, kind: str, surface: str) -> None:
    """One or two hills or mountains, on different sides."""
    for place in rng.sample(("left", "right"), rng.choice((0, 1, 2))):
        part = s.part(kind, None, surface, mention=True)
        s.parts[part] = replace(s.parts[part], place=place)
        x = half * rng.uniform(0.5, 0.62) * (-1 if place == "left" else 1)
        if kind == "hill":
            high, wide = rng.uniform(0.1, 0.17), half * rng.uniform(0.4, 0.5)
            turns = [math.pi * index / 24 for index in range(25)]
            arc = [(x + wide * math.cos(t), horizon - 0.01 + high * math.sin(t)) for t in turns]
            s.poly(part, arc, (104, 172, 96))
        else:
            high, wide = rng.uniform(0.2, 0.28), half * rng.uniform(0.38, 0.46)
            s.poly(
                part, [(x - wide, horizon - 0.01), (x + wide, horizon - 0.01), (x, horizon + high)]
            )
            cap = s.part("snowcap", part, "white")
            low, cut = horizon + 0.66 * high, 0.34 * wide
            zigzag = [
                (x + cut * t, low - 0.02 * (index % 2))
                for index, t in enumerate((-1, -0.4, 0.1, 0.5, 1))
            ]
            s.poly(cap, [*zigzag, (x, horizon + high)])


def _meadow(s: Sketch, rng: Random, half: float) -> Backdrop:
    horizon = rng.uniform(0.54, 0.6)
    _sky(s, rng, half, horizon)
    _heights(s, rng, half, horizon, "hill", "green")
    surface = rng.choice(("green", "green", "yellow"))
    _band(
        s,
        "grass",
        surface,
        -0.01,
        horizon,
        half,
        rgb={"green": (136, 196, 92), "yellow": (226, 204, 120)}[surface],
    )
    if rng.random() < 0.5:
        pond = s.part("pond", None, "blue", mention=True)
        centre = (half * rng.uniform(-0.7, 0.7), rng.uniform(0.2, 0.3))
        s.ellipse(pond, centre, half * rng.uniform(0.26, 0.36), 0.07, (96, 166, 220))
        for dx in (-0.5, 0.45)[: rng.choice((0, 1, 2))]:
            lily = s.part("lily", pond, "green")
            s.ellipse(
                lily, (centre[0] + dx * half * 0.24, centre[1] + 0.02), 0.026, 0.013, (56, 140, 70)
            )
    return Backdrop(s, (0.38, 0.46), (0.04, 0.12), (0.66, 0.74))


def _town(s: Sketch, rng: Random, half: float) -> Backdrop:
    horizon = rng.uniform(0.5, 0.56)
    _sky(s, rng, half, horizon)
    surface, rgb = rng.choice((("green", (136, 196, 92)), ("grey", (198, 198, 200))))
    _band(s, "lawn" if surface == "green" else "pavement", surface, -0.01, horizon, half, rgb=rgb)
    low = rng.uniform(0.02, 0.05)
    road = _band(s, "road", "grey", low, low + 0.24, half, rgb=(112, 114, 122))
    marking = s.part("marking", road, "white")
    for number in range(-8, 9):
        x = 0.16 * number
        s.rect(marking, (x, low + 0.112, x + 0.08, low + 0.128))
    if rng.random() < 0.5:
        x = half * rng.uniform(-0.8, 0.8)
        s.ellipse(s.part("manhole", road, "black"), (x, low + 0.05), 0.03, 0.012, (66, 66, 74))
    return Backdrop(s, (0.34, 0.42), (low + 0.03, low + 0.09), (0.66, 0.76))


def _seaside(s: Sketch, rng: Random, half: float) -> Backdrop:
    horizon, shore = rng.uniform(0.6, 0.64), rng.uniform(0.3, 0.34)
    _sky(s, rng, half, horizon)
    surface = rng.choice(("blue", "teal"))
    rgb = {"blue": (84, 142, 214), "teal": (84, 190, 190)}[surface]
    _band(s, "sea", surface, shore - 0.03, horizon, half, rgb=rgb)
    beach = s.part("beach", None, "yellow", mention=True)
    waves = [
        (half * (index / 20 - 1.02), shore + 0.012 * math.sin(index * 1.1)) for index in range(42)
    ]
    s.poly(beach, [(-half - 0.05, -0.01), *waves, (half + 0.05, -0.01)], (238, 216, 160))
    for x in (-0.55, 0.1, 0.7)[: rng.choice((0, 1, 2))]:
        shell = s.part("shell", beach, "pink")
        centre = (half * (x + rng.uniform(-0.1, 0.1)), rng.uniform(0.02, 0.05))
        s.ellipse(shell, centre, 0.016, 0.012, (240, 150, 160))
    return Backdrop(s, (0.2, 0.26), (0.03, 0.08), (0.7, 0.78), (0.37, 0.42))


def _winter(s: Sketch, rng: Random, half: float) -> Backdrop:
    horizon = rng.uniform(0.5, 0.56)
    _sky(s, rng, half, horizon, snowy=True)
    _heights(s, rng, half, horizon, "mountain", rng.choice(("grey", "purple")))
    _band(s, "snow", "white", -0.01, horizon, half, rgb=(232, 240, 248))
    if rng.random() < 0.4:
        ice = s.part("ice", None, "blue", mention=True)
        centre = (half * rng.uniform(-0.6, 0.6), rng.uniform(0.18, 0.26))
        s.ellipse(ice, centre, half * rng.uniform(0.24, 0.34), 0.06, (170, 214, 240))
    return Backdrop(s, (0.34, 0.42), (0.04, 0.11), (0.66, 0.76))


def _room(s: Sketch, rng: Random, half: float) -> Backdrop:
    horizon = rng.uniform(0.4, 0.46)
    tints = {
        "yellow": (246, 228, 160), "pink": (244, 204, 214), "teal": (164, 214, 210),
        "white": (238, 238, 234), "purple": (206, 188, 226),
    }  # fmt: skip
    surface = rng.choice(tuple(tints))
    _band(s, "wall", surface, horizon, 1.01, half, rgb=tints[surface])
    rail = s.part("skirting", None, "white")
    s.rect(rail, (-half - 0.01, horizon, half + 0.01, horizon + 0.025), (250, 250, 250))
    floor = rng.choice(("wooden", "grey"))
    _band(s, "floor", floor, -0.01, horizon, half)
    if rng.random() < 0.6:
        pattern = rng.choice(("plain", "striped", "checkered"))
        rug = s.part(
            "rug", None, rng.choice(("red", "blue", "green", "purple")), pattern, mention=True
        )
        left, right = -half * rng.uniform(0.5, 0.9), half * rng.uniform(0.5, 0.9)
        s.poly(rug, [(left, 0.06), (right, 0.06), (right * 0.8, 0.26), (left * 0.8, 0.26)])
    return Backdrop(s, (0.3, 0.36), (0.03, 0.09), (0.7, 0.78))
