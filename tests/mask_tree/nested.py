"""Masks that lie in one another, and what a tree of them should be, from decoded arrays."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from ureca_lib.regions import Region

HEIGHT, WIDTH = 7, 9


@st.composite
def mask_lists(draw, most: int = 9) -> list[np.ndarray]:
    """Up to `most` masks of 7 x 9: rectangles, unions, rings and copies; many nest or tie."""
    masks: list[np.ndarray] = []
    for _ in range(draw(st.integers(0, most))):
        if masks and draw(st.booleans()):
            mask = masks[draw(st.integers(0, len(masks) - 1))].copy()  # changed below, or a copy
        else:
            mask = np.zeros((HEIGHT, WIDTH), bool)
        for _ in range(draw(st.integers(0, 2))):
            top, left = draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))
            rows, columns = draw(st.integers(1, HEIGHT)), draw(st.integers(1, WIDTH))
            mask[top : top + rows, left : left + columns] = draw(st.booleans())
        if not mask.any():
            mask[draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))] = True
        masks.append(mask)
    return masks


# fractions that masks of this size meet exactly, such as 4 of 5 pixels
SHARES = ((1, 10), (1, 3), (1, 2), (2, 3), (3, 4), (4, 5), (7, 10), (9, 10), (1, 1))
THRESHOLDS = st.sampled_from([Fraction(*share) for share in SHARES])


def regions_of(masks: list[np.ndarray]) -> list[Region]:
    """Regions whose ids are neither their places nor in order."""
    return [Region.from_mask(97 - 7 * place, mask) for place, mask in enumerate(masks)]


def insertion_order(masks: list[np.ndarray]) -> list[int]:
    """Places of the masks by area, largest first, ties in the order given."""
    order: list[int] = []
    for place, mask in enumerate(masks):
        at = next((i for i, o in enumerate(order) if masks[o].sum() < mask.sum()), len(order))
        order.insert(at, place)
    return order


def holds(outer: np.ndarray, inner: np.ndarray, threshold: Fraction) -> bool:
    """Whether `outer` has at least the threshold's share of `inner`, in whole numbers."""
    return Fraction(int((outer & inner).sum()), int(inner.sum())) >= threshold


def smallest_parents(masks: list[np.ndarray], threshold: Fraction) -> dict[int, int | None]:
    """The last mask before each in that order that holds enough of it."""
    parents: dict[int, int | None] = {}
    before: list[int] = []
    for place in insertion_order(masks):
        holders = [o for o in before if holds(masks[o], masks[place], threshold)]
        parents[place] = holders[-1] if holders else None
        before.append(place)
    return parents


def first_parents(masks: list[np.ndarray], threshold: Fraction) -> dict[int, int | None]:
    """The published rule: go down the first child that holds enough, then hang it there."""
    children: dict[int | None, list[int]] = {None: []}
    parents: dict[int, int | None] = {}

    def insert(node: int | None, place: int) -> None:
        for child in children[node]:
            if holds(masks[child], masks[place], threshold):
                insert(child, place)
                return
        children[node].append(place)
        children[place] = []
        parents[place] = node

    for place in insertion_order(masks):
        insert(None, place)
    return parents
