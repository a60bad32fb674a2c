"""House and lamp, and the things of a room: sofa, picture, clock; and the robot."""

from __future__ import annotations

import math
from random import Random

from ureca_lib.scenes.palette import BRIGHT, COLORS, pick_apart
from ureca_lib.scenes.sketch import Box, Sketch

ROOFS = ("red", "brown", "black", "teal", "orange", "purple")
DOORS = ("red", "blue", "green", "yellow", "brown", "purple", "white")
GLASS = (166, 214, 240)


def house(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """Walls, a roof with or without a chimney, a door, and one or two windows."""
    whole = s.part("house", None, surface, pattern, mention=True)
    s.rect(whole, (-0.43, 0, 0.43, 0.56))
    roof = s.part("roof", whole, pick_apart(rng, ROOFS, (surface,)), mention=True)
    if rng.random() < 0.6:
        x, chimney = rng.choice((-0.3, 0.2)), s.part("chimney", roof, "brick")
        s.rect(chimney, (x, 0.62, x + 0.1, 1.0))
        if rng.random() < 0.5:
            s.rect(s.part("vent", chimney, "black"), (x + 0.02, 0.9, x + 0.08, 0.945))
    ridge = rng.choice((0.02, 0.24))
    s.poly(roof, [(-0.52, 0.54), (0.52, 0.54), (ridge, 0.93), (-ridge, 0.93)])
    if rng.random() < 0.35:
        attic = s.part("attic", roof, "white")
        s.disc(attic, (0, 0.7), 0.075)
        s.disc(s.part("shutter", attic, "black"), (0, 0.7), 0.042, (60, 70, 96))
    x = rng.choice((-0.25, 0.0, 0.25))
    door = s.part("door", whole, pick_apart(rng, DOORS, (surface,)), mention=True)
    s.rect(door, (x - 0.095, 0, x + 0.095, 0.37))
    s.disc(s.part("knob", door, "yellow"), (x + 0.06, 0.18), 0.018, (255, 226, 92))
    if rng.random() < 0.4:
        s.rect(s.part("hatch", door, "black"), (x - 0.05, 0.25, x + 0.05, 0.32), (58, 66, 84))
    glass = rng.choice((GLASS, (250, 226, 120)))
    slots = {-0.25: (0.0, 0.27), 0.0: (-0.28, 0.28), 0.25: (-0.27, 0.0)}[x]
    for middle in slots if rng.random() < 0.7 else (slots[0],):
        _window(s, whole, middle, 0.33, 0.095, glass)


def _window(s: Sketch, whole: int, x: float, y: float, half: float, glass: tuple[int, int, int]):
    window = s.part("window", whole, "white")
    s.rect(window, (x - half, y - half, x + half, y + half))
    pane = s.part("pane", window, "yellow" if glass[2] < 200 else "blue")
    s.rect(pane, (x - 0.7 * half, y - 0.7 * half, x + 0.7 * half, y + 0.7 * half), glass)


def lamp(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A tall lamp: foot, pole, and a shade with a bulb under it."""
    whole = s.part("lamp", None, surface, pattern, mention=True)
    pole = s.part("pole", whole, "black")
    s.rect(pole, (-0.018, 0.04, 0.018, 0.78), (66, 66, 74))
    if rng.random() < 0.5:
        s.rect(s.part("switch", pole, "white"), (-0.025, 0.36, 0.025, 0.395))
    foot = s.part("foot", whole, "black")
    s.poly(foot, [(-0.13, 0), (0.13, 0), (0.07, 0.06), (-0.07, 0.06)])
    bulb = s.part("bulb", whole, "yellow")
    s.disc(bulb, (0, 0.745), 0.034, (255, 244, 150))
    shade = s.part("shade", whole, surface, pattern)
    s.poly(shade, [(-0.2, 0.75), (0.2, 0.75), (0.11, 1.0), (-0.11, 1.0)])


def robot(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """Body, head, arms and legs, each with a detail."""
    whole = s.part("robot", None, surface, pattern, mention=True)
    extra = rng.choice(("hands", "feet", "neither"))
    hands, feet = extra == "hands", extra == "feet"
    for sign in (-1, 1):
        arm = s.part("arm", whole, "grey")
        s.rect(arm, _box(sign, 0.2, 0.3, 0.28, 0.58))
        if hands:
            s.disc(s.part("hand", arm, "black"), (sign * 0.25, 0.27), 0.06, (86, 88, 98))
    for sign in (-1, 1):
        leg = s.part("leg", whole, "grey")
        s.rect(leg, _box(sign, 0.05, 0.15, 0.0, 0.26))
        if feet:
            s.rect(s.part("foot", leg, "black"), _box(sign, 0.04, 0.2, 0.0, 0.06), (86, 88, 98))
    body = s.part("body", whole, surface, pattern)
    s.rect(body, (-0.22, 0.24, 0.22, 0.62))
    if rng.random() < 0.6:
        panel = s.part("panel", body, pick_apart(rng, BRIGHT, (surface,)), mention=True)
        s.rect(panel, (-0.14, 0.32, 0.14, 0.52))
        for x in (-0.07, 0.07)[: rng.choice((1, 2))]:
            s.disc(s.part("button", panel, "black"), (x, 0.42), 0.018)
    _robot_head(s, rng, whole, surface)


def _robot_head(s: Sketch, rng: Random, whole: int, surface: str) -> None:
    head = s.part("head", whole, surface)
    if rng.random() < 0.5:
        antenna = s.part("antenna", head, "black")
        s.rect(antenna, (-0.012, 0.84, 0.012, 0.98))
        s.disc(s.part("tip", antenna, "red"), (0, 0.97), 0.023)
    s.rect(head, (-0.16, 0.63, 0.16, 0.86))
    s.rect(head, (-0.06, 0.6, 0.06, 0.64), (110, 112, 120))
    pupils = rng.random() < 0.4
    for sign in (-1, 1):
        eye = s.part("eye", head, "white")
        s.disc(eye, (sign * 0.075, 0.77), 0.031)
        if pupils:
            s.disc(s.part("pupil", eye, "black"), (sign * 0.075, 0.77), 0.015)
    if rng.random() < 0.5:
        s.rect(s.part("mouth", head, "black"), (-0.09, 0.66, 0.09, 0.69))


def _box(sign: int, near: float, far: float, low: float, high: float) -> Box:
    """A rectangle from near to far on one side of the middle."""
    left, right = sorted((sign * near, sign * far))
    return left, low, right, high


def sofa(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A sofa with two arms, legs, and one or two cushions."""
    whole = s.part("sofa", None, surface, pattern, mention=True)
    legs = rng.random() < 0.4
    for sign in (-1, 1):
        leg = s.part("leg", whole, "brown") if legs else whole
        s.rect(leg, _box(sign, 0.72, 0.8, 0.0, 0.12), (124, 78, 42))
    back = s.part("backrest", whole, surface, pattern)
    s.rect(back, (-0.8, 0.4, 0.8, 1.0))
    s.rect(s.part("seat", whole, surface, pattern), (-0.75, 0.1, 0.75, 0.44))
    for sign in (-1, 1):
        rest = s.part("armrest", whole, surface, pattern)
        s.rect(rest, _box(sign, 0.72, 0.96, 0.1, 0.62))
        s.disc(rest, (sign * 0.84, 0.62), 0.12)
    colour = pick_apart(rng, BRIGHT, (surface,))
    for x in rng.choice(((-0.4,), (0.4,), (-0.4, 0.4))):
        cushion = s.part("cushion", whole, colour, mention=True)
        s.rect(cushion, (x - 0.22, 0.42, x + 0.22, 0.84))
        s.disc(s.part("button", cushion, "white"), (x, 0.63), 0.025)


def picture(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A framed picture of a hill under a sun, or of a heart."""
    del pattern
    whole = s.part("picture", None, surface, mention=True)
    s.rect(whole, (-0.62, 0, 0.62, 1))
    canvas = s.part("canvas", whole, "white")
    s.rect(canvas, (-0.5, 0.12, 0.5, 0.88))
    if rng.random() < 0.5:
        hill = s.part("drawing", canvas, "green")
        s.poly(hill, [(-0.5, 0.12), (0.5, 0.12), (0.5, 0.3), (0.1, 0.56), (-0.5, 0.22)])
        s.disc(s.part("dot", canvas, "red"), (0.3, 0.7), 0.075)
    else:
        heart = s.part("drawing", canvas, "red")
        s.poly(heart, [(-0.27, 0.55), (0.27, 0.55), (0, 0.22)])
        s.disc(heart, (-0.135, 0.59), 0.145)
        s.disc(heart, (0.135, 0.59), 0.145)
    s.disc(s.part("nail", whole, "black"), (0, 0.945), 0.03)


def clock(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A round clock with two hands."""
    del pattern
    whole = s.part("clock", None, surface, mention=True)
    s.disc(whole, (0, 0.5), 0.5)
    face = s.part("dial", whole, "white")
    s.disc(face, (0, 0.5), 0.39)
    for quarter in range(4):
        x, y = 0.33 * math.cos(quarter * math.pi / 2), 0.33 * math.sin(quarter * math.pi / 2)
        s.disc(face, (x, 0.5 + y), 0.03, COLORS["black"])
    angle = rng.uniform(0, 2 * math.pi)
    for kind, length, turn in (("pointer", 0.3, angle), ("hub", 0.0, 0.0)):
        hand = s.part(kind, face, "black" if length else "red")
        if length:
            dx, dy = math.cos(turn), math.sin(turn)
            tip = (length * dx, 0.5 + length * dy)
            wide = [(0.05 * dy, 0.5 - 0.05 * dx), (-0.05 * dy, 0.5 + 0.05 * dx)]
            s.poly(hand, [*wide, tip])
        else:
            s.disc(hand, (0, 0.5), 0.06)
