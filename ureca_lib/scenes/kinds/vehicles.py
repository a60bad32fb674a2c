"""Things that move: car, train, boat, balloon, plane."""

from __future__ import annotations

import math
from random import Random

from ureca_lib.scenes.palette import BRIGHT, pick_apart
from ureca_lib.scenes.sketch import Sketch

GLASS = (166, 214, 240)
TYRE = (44, 44, 50)


def car(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """Body, a cabin with two windows, a door with a handle, two wheels with hubs."""
    whole = s.part("car", None, surface, pattern, mention=True)
    cabin = s.part("cabin", whole, surface)
    front = rng.uniform(0.36, 0.5)
    s.poly(cabin, [(-0.66, 0.6), (0.74, 0.6), (front, 1.02), (-0.46, 1.02)])
    for x0, x1, slant in ((-0.44, 0.0, -0.08), (0.1, 0.5, 0.12)):
        window = s.part("window", cabin, "blue")
        top = (x0, x1 - slant) if slant > 0 else (x0 - slant, x1)
        s.poly(window, [(x0, 0.64), (x1, 0.64), (top[1], 0.94), (top[0], 0.94)], GLASS)
    s.poly(whole, [(-0.98, 0.2), (1.0, 0.2), (1.0, 0.5), (0.9, 0.64), (-0.94, 0.64)])
    door = s.part("door", whole, pick_apart(rng, BRIGHT, (surface,)), mention=True)
    s.rect(door, (-0.24, 0.24, 0.22, 0.6))
    s.rect(s.part("handle", door, "black"), (-0.19, 0.485, -0.06, 0.53))
    if rng.random() < 0.6:
        s.ellipse(s.part("headlight", whole, "yellow"), (0.93, 0.45), 0.055, 0.07, (255, 244, 170))
    if rng.random() < 0.4:
        s.rect(s.part("bumper", whole, "grey"), (-1.04, 0.2, -0.84, 0.28))
    hub = rng.random() < 0.5
    for x in (-0.56, 0.58):
        _wheel(s, whole, x, 0.22, hub)


def _wheel(s: Sketch, whole: int, x: float, radius: float, hub: bool) -> None:
    wheel = s.part("wheel", whole, "black")
    s.disc(wheel, (x, radius), radius, TYRE)
    metal = s.part("hub", wheel, "grey") if hub else wheel
    s.disc(metal, (x, radius), radius / 3.4, (208, 210, 214))


def train(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """An engine and one or two wagons of another color."""
    whole = s.part("train", None, surface, pattern, mention=True)
    wagons, hub = rng.choice((1, 1, 2)), rng.random() < 0.3
    start = -0.65 * (wagons + 1)
    colour = pick_apart(rng, BRIGHT, (surface,))
    for number in range(wagons):
        x = start + 1.3 * number
        s.rect(whole, (x + 1.1, 0.2, x + 1.4, 0.26), (70, 70, 78))
        wagon = s.part("wagon", whole, colour, mention=True)
        s.rect(wagon, (x + 0.02, 0.16, x + 1.14, 0.8))
        for left in (0.15, 0.65) if wagons == 1 else (0.36,):
            window = s.part("window", wagon, "blue")
            s.rect(window, (x + left, 0.46, x + left + 0.36, 0.7), GLASS)
        for middle in (0.27, 0.89):
            _wheel(s, wagon, x + middle, 0.15, hub)
    _engine(s, rng, whole, start + 1.3 * wagons, hub)


def _engine(s: Sketch, rng: Random, whole: int, x: float, hub: bool) -> None:
    engine = s.part("engine", whole, s.parts[whole].surface, s.parts[whole].pattern)
    funnel = s.part("funnel", engine, "black")
    s.poly(funnel, [(x + 0.86, 0.6), (x + 1.06, 0.6), (x + 1.1, 0.96), (x + 0.82, 0.96)])
    s.rect(engine, (x, 0.16, x + 0.56, 0.96))
    s.rect(engine, (x + 0.5, 0.16, x + 1.2, 0.66))
    s.poly(engine, [(x + 1.18, 0.14), (x + 1.38, 0.14), (x + 1.18, 0.4)], (90, 90, 98))
    s.rect(s.part("window", engine, "blue"), (x + 0.12, 0.58, x + 0.44, 0.84), GLASS)
    if rng.random() < 0.6:
        s.disc(s.part("headlight", engine, "yellow"), (x + 1.2, 0.54), 0.06, (255, 244, 170))
    for middle in (0.28, 0.88):
        _wheel(s, engine, x + middle, 0.18, hub)


def boat(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A hull with portholes, a mast with a flag, and a sail with or without an emblem."""
    whole = s.part("boat", None, surface, pattern, mention=True)
    mast = s.part("mast", whole, "brown")
    s.rect(mast, (-0.018, 0.2, 0.018, 0.97))
    flag = s.part("flag", mast, pick_apart(rng, BRIGHT, (surface,)), mention=True)
    s.poly(flag, [(0.0, 1.0), (0.0, 0.88), (-0.22, 0.94)])
    sail_colour = pick_apart(rng, BRIGHT, (surface, s.parts[flag].surface))
    sail = s.part("sail", whole, sail_colour, mention=True)
    s.poly(sail, [(0.03, 0.9), (0.03, 0.34), (0.5, 0.34)])
    if rng.random() < 0.5:
        emblem = s.part("emblem", sail, "black")
        s.disc(emblem, (0.17, 0.47), 0.042)
    hull = s.part("hull", whole, surface, pattern)
    s.poly(hull, [(-0.6, 0.28), (0.66, 0.28), (0.46, 0.0), (-0.42, 0.0)])
    for x in rng.choice(((-0.22, 0.22), (-0.25, 0.02, 0.28))):
        s.disc(s.part("porthole", hull, "white"), (x, 0.15), 0.025)


def balloon(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A hot-air balloon with a basket on ropes."""
    whole = s.part("balloon", None, surface, pattern, mention=True)
    for x in (-0.1, 0.1):
        s.poly(whole, [(x - 0.008, 0.14), (x + 0.008, 0.14), (2 * x, 0.42)], (96, 72, 50))
    basket = s.part("basket", whole, "wooden")
    s.poly(basket, [(-0.1, 0), (0.1, 0), (0.125, 0.17), (-0.125, 0.17)])
    for x in (-0.05, 0.05) if rng.random() < 0.5 else ():
        s.disc(s.part("sandbag", basket, "white"), (x, 0.06), 0.021)
    envelope = s.part("envelope", whole, surface, pattern)
    turns = [math.pi * (index / 12) for index in range(-1, 14)]
    dome = [(0.36 * math.cos(t), 0.64 + 0.36 * math.sin(t)) for t in turns]
    s.poly(envelope, [*dome, (-0.09, 0.27), (0.09, 0.27)])
    if rng.random() < 0.4:
        s.disc(s.part("emblem", envelope, "white"), (0, 0.62), 0.11, (250, 250, 250))


def plane(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A plane seen from the side, flying to the right."""
    whole = s.part("plane", None, surface, pattern, mention=True)
    fin = s.part("fin", whole, pick_apart(rng, BRIGHT, (surface,)), mention=True)
    s.poly(fin, [(-1.2, 0.5), (-0.82, 0.5), (-1.02, 1.0), (-1.24, 1.0)])
    s.ellipse(whole, (-0.05, 0.42), 1.2, 0.25)
    for x in (-0.35, 0.0, 0.35)[: rng.choice((2, 3))]:
        s.disc(s.part("window", whole, "blue"), (x, 0.5), 0.052, (30, 60, 110))
    s.poly(s.part("cockpit", whole, "blue"), [(0.66, 0.46), (1.02, 0.46), (0.72, 0.6)], GLASS)
    wing = s.part("wing", whole, "grey")
    s.poly(wing, [(-0.2, 0.34), (0.36, 0.34), (-0.26, -0.02), (-0.52, 0.0)], (176, 180, 188))
    if rng.random() < 0.5:
        s.ellipse(s.part("jet", wing, "black"), (0.02, 0.2), 0.14, 0.06)
