"""Small drawn images for the tests of annotators: rectangles and ellipses on a plain ground."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ureca_lib.annotate.referring.predicates import Description, ImageAttributes
from ureca_lib.regions import Region, RegionImage

RED, GREEN, BLUE, YELLOW = (220, 20, 30), (20, 140, 40), (30, 60, 200), (250, 220, 30)
WHITE, GREY, BLACK, BROWN = (250, 250, 250), (128, 128, 128), (5, 5, 5), (110, 65, 30)


def rectangle(
    size: tuple[int, int], x: int, y: int, columns: int = 6, rows: int | None = None
) -> np.ndarray:
    """(H, W) bool; `size` is (H, W), the rest in pixels. A square where `rows` is not given."""
    mask = np.zeros(size, bool)
    mask[y : y + (rows or columns), x : x + columns] = True
    return mask


def ellipse(size: tuple[int, int], x: float, y: float, across: float, down: float) -> np.ndarray:
    """(H, W) bool of an ellipse around (x, y) with these half axes, in pixels."""
    ys, xs = np.ogrid[: size[0], : size[1]]
    return ((xs - x) / across) ** 2 + ((ys - y) / down) ** 2 <= 1


def image_of(
    masks: list[np.ndarray],
    names: list[str | None] | None = None,
    colors: list[tuple[int, int, int]] | None = None,
    ids: list | None = None,
) -> RegionImage:
    """An image whose regions are these masks, painted largest first; grey where no colour is."""
    size = masks[0].shape
    names, ids = names or [None] * len(masks), ids or list(range(1, len(masks) + 1))
    pixels = np.full((*size, 3), 235, np.uint8)
    for index in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
        pixels[masks[index]] = colors[index] if colors else GREY
    regions = [
        Region.from_mask(region_id, mask, name)
        for region_id, mask, name in zip(ids, masks, names, strict=True)
    ]
    return RegionImage(regions, size[1], size[0], pixels)


SIDE = 32


@st.composite
def shapes(draw: st.DrawFn) -> np.ndarray:
    """A mask of SIDE x SIDE: a rectangle or an ellipse, often one in another or twice the same."""
    x, y = draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))
    columns, rows = draw(st.integers(1, SIDE - x)), draw(st.integers(1, SIDE - y))
    if draw(st.booleans()) and min(columns, rows) > 2:
        center = x + (columns - 1) / 2, y + (rows - 1) / 2
        return ellipse((SIDE, SIDE), *center, columns / 2, rows / 2)
    return rectangle((SIDE, SIDE), x, y, columns, rows)


@st.composite
def images(draw: st.DrawFn, named: bool = True) -> RegionImage:
    """Up to 12 regions, some nested, some with the same mask, some without a name."""
    masks = draw(st.lists(shapes(), min_size=1, max_size=9))
    for index in draw(st.lists(st.integers(0, len(masks) - 1), max_size=3)):
        masks.append(masks[index])
    count = len(masks)
    nouns = st.sampled_from([None, "box", "lid", "box of lids"] if named else [None])
    names = draw(st.lists(nouns, min_size=count, max_size=count))
    palette = st.sampled_from([RED, BLUE, GREY, WHITE, BLACK])
    colors = draw(st.lists(palette, min_size=count, max_size=count))
    return image_of(masks, names, colors)


def matching(scene: ImageAttributes, description: Description) -> tuple[int | str, ...]:
    """Ids of the regions that every attribute fits, in the order of the image."""
    return tuple(scene.ids[i] for i in np.flatnonzero(scene.fits(description)))
