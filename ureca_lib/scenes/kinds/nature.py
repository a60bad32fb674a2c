"""Things that grow, and the cat: tree, flower, mushroom, snowman, cat."""

from __future__ import annotations

import math
from random import Random

from ureca_lib.scenes.palette import BRIGHT, COLORS, pick_apart
from ureca_lib.scenes.sketch import Sketch

LEAF_GREEN = (60, 140, 58)


def tree(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A trunk with or without a hollow, and a round or pointed crown with or without apples."""
    whole = s.part("tree", None, surface, pattern, mention=True)
    trunk = s.part("trunk", whole, "brown")
    s.poly(trunk, [(-0.075, 0), (0.085, 0), (0.05, 0.5), (-0.05, 0.5)])
    if rng.random() < 0.4:
        s.ellipse(s.part("hollow", trunk, "black"), (0.0, 0.2), 0.022, 0.034)
    crown = s.part("crown", whole, surface, pattern)
    if rng.random() < 0.4:
        for low, high, half in ((0.28, 0.62, 0.31), (0.46, 0.8, 0.25), (0.66, 1.0, 0.18)):
            s.poly(crown, [(-half, low), (half, low), (0, high)])
    else:
        s.disc(crown, (0, 0.66), 0.3)
        for x, y, radius in ((-0.2, 0.52, 0.18), (0.2, 0.54, 0.19), (0.03, 0.84, 0.16)):
            s.disc(crown, (x, y), radius)
    fruit = "yellow" if surface in ("red", "orange", "pink") else "red"
    places = [(-0.14, 0.56), (0.15, 0.52), (0.02, 0.76)]
    for x, y in places[: rng.choice((0, 0, 2, 3))]:
        s.disc(s.part("apple", crown, fruit), (x * rng.uniform(0.8, 1.0), y), 0.021)
    if rng.random() < 0.25:
        nest = s.part("nest", crown, "brown")
        s.ellipse(nest, (0.1, 0.66), 0.07, 0.035)
        s.ellipse(s.part("egg", nest, "white"), (0.1, 0.675), 0.024, 0.026)


def flower(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A stem with two leaves, and a blossom of petals around a center."""
    del pattern
    whole = s.part("flower", None, surface, mention=True)
    stem = s.part("stem", whole, "green")
    s.rect(stem, (-0.022, 0, 0.022, 0.62), LEAF_GREEN)
    for sign in (-1, 1) if rng.random() < 0.8 else ():
        leaf = s.part("leaf", stem, "green")
        low = rng.uniform(0.08, 0.2)
        points = [(0, low), (sign * 0.16, low + 0.06), (sign * 0.25, low + 0.2)]
        s.poly(leaf, [*points, (sign * 0.09, low + 0.16)], (74, 170, 70))
    blossom = s.part("blossom", whole, surface)
    petals, turn = rng.choice((6, 7, 8)), rng.uniform(0, 1)
    for number in range(petals):
        angle = 2 * math.pi * (number + turn) / petals
        s.disc(blossom, (0.17 * math.cos(angle), 0.72 + 0.17 * math.sin(angle)), 0.105)
    s.disc(blossom, (0, 0.72), 0.17)
    centre = s.part("centre", blossom, pick_apart(rng, ("yellow", "brown", "white"), (surface,)))
    s.disc(centre, (0, 0.72), 0.085)
    if rng.random() < 0.3:
        bee = s.part("bee", blossom, "black")
        x = rng.choice((-0.17, 0.17))
        s.ellipse(bee, (x, 0.76), 0.043, 0.03)
        s.rect(bee, (x - 0.012, 0.728, x + 0.012, 0.792), COLORS["yellow"])


def mushroom(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A stalk with a ring, and a cap with or without a snail on it."""
    whole = s.part("mushroom", None, surface, pattern, mention=True)
    stalk = s.part("stalk", whole, "white")
    s.poly(stalk, [(-0.17, 0), (0.17, 0), (0.11, 0.6), (-0.11, 0.6)], (238, 228, 206))
    s.rect(s.part("ring", stalk, "grey"), (-0.15, 0.36, 0.15, 0.41), (176, 168, 160))
    cap = s.part("cap", whole, surface, pattern)
    arc = [(0.52 * math.cos(t), 0.5 + 0.5 * math.sin(t)) for t in _turns(0, math.pi, 14)]
    s.poly(cap, arc)
    if rng.random() < 0.4:
        snail = s.part("snail", cap, "brown")
        s.rect(snail, (-0.12, 0.66, 0.1, 0.7), (214, 180, 130))
        s.disc(snail, (0.0, 0.74), 0.075)


def snowman(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """Three balls of snow, always white; scarf and hat have colors."""
    whole = s.part("snowman", None, surface)
    for sign in (-1, 1):
        arm = s.part("arm", whole, "brown")
        s.poly(
            arm,
            [(sign * 0.15, 0.5), (sign * 0.4, 0.66), (sign * 0.42, 0.63), (sign * 0.15, 0.45)],
        )
    body = s.part("body", whole, "white")
    s.disc(body, (0, 0.24), 0.25)
    s.disc(body, (0, 0.54), 0.18)
    for height in (0.6, 0.52, 0.44)[: rng.choice((2, 3))]:
        s.disc(s.part("button", body, "black"), (0, height), 0.016)
    head = s.part("head", whole, "white")
    s.disc(head, (0, 0.78), 0.13)
    for sign in (-1, 1):
        s.disc(s.part("eye", head, "black"), (sign * 0.05, 0.81), 0.016)
    s.poly(s.part("nose", head, "orange"), [(0, 0.785), (0.15, 0.755), (0, 0.745)])
    wool = pick_apart(rng, BRIGHT, ("white",))
    if rng.random() < 0.8:
        scarf = s.part("scarf", whole, wool, pattern, mention=True)
        s.rect(scarf, (-0.14, 0.64, 0.14, 0.7))
        s.rect(scarf, (0.04, 0.48, 0.11, 0.66))
    if rng.random() < 0.7:
        hat = s.part(
            "hat", whole, pick_apart(rng, ("black", "blue", "purple", "red"), (wool,)), mention=True
        )
        s.rect(hat, (-0.17, 0.88, 0.17, 0.915))
        s.rect(hat, (-0.11, 0.9, 0.11, 1.06))
        s.rect(s.part("ribbon", hat, "yellow"), (-0.11, 0.915, 0.11, 0.95))


def cat(s: Sketch, rng: Random, surface: str, pattern: str) -> None:
    """A sitting cat, seen from the front, with a collar or without."""
    whole = s.part("cat", None, surface, pattern, mention=True)
    tail = s.part("tail", whole, surface, pattern)
    points = [(0.2, 0.02), (0.42, 0.06), (0.5, 0.3), (0.44, 0.46), (0.37, 0.42), (0.41, 0.28)]
    s.poly(tail, [*points, (0.34, 0.14), (0.2, 0.12)])
    body = s.part("body", whole, surface, pattern)
    s.ellipse(body, (0, 0.27), 0.27, 0.29)
    for sign in (-1, 1) if rng.random() < 0.5 else ():
        s.ellipse(s.part("paw", body, "white"), (sign * 0.12, 0.04), 0.085, 0.045)
    head = s.part("head", whole, surface, pattern)
    for sign in (-1, 1):
        ear = s.part("ear", head, surface, pattern)
        s.poly(ear, [(sign * 0.24, 0.74), (sign * 0.21, 1.0), (sign * 0.05, 0.84)])
    s.ellipse(head, (0, 0.69), 0.25, 0.2)
    iris = pick_apart(rng, ("yellow", "green", "white"), (surface,))
    for sign in (-1, 1):
        s.ellipse(s.part("eye", head, iris), (sign * 0.1, 0.72), 0.03, 0.037)
        s.ellipse(len(s.parts) - 1, (sign * 0.1, 0.72), 0.01, 0.034, COLORS["black"])
    s.poly(s.part("nose", head, "pink"), [(-0.035, 0.64), (0.035, 0.64), (0, 0.6)])
    if rng.random() < 0.6:
        colour = pick_apart(rng, ("red", "blue", "purple", "teal"), (surface,))
        collar = s.part("collar", whole, colour, mention=True)
        s.poly(collar, [(-0.2, 0.53), (0.2, 0.53), (0.17, 0.45), (-0.17, 0.45)])
        s.disc(s.part("bell", collar, "yellow"), (0, 0.44), 0.026)


def _turns(start: float, stop: float, count: int) -> list[float]:
    return [start + (stop - start) * index / (count - 1) for index in range(count)]
