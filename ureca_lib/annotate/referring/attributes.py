"""Per-region attributes: noun, color, shape, size and position.

They are measured once for all regions of an image. Words are vague, so each has two readings: a
word is *said* of a region if it clearly holds, and *fits* it if it holds in a wider sense. Only a
region that a word does not fit can be ruled out by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ureca_lib.annotate.referring.colors import RegionColor, color_bins, region_color
from ureca_lib.annotate.referring.english import is_plural, plural
from ureca_lib.mask_tree import MaskTree
from ureca_lib.regions import Region, RegionImage
from ureca_lib.regions.rle import run_lengths

# Nouns of regions without a name. They mean all regions, all that are in no other region, and all
# that are in one, named or not: a cat is a region too.
UNNAMED, UNNAMED_MAIN, UNNAMED_PART = "region", "main region", "part"
NOUNS_WITHOUT_NAME = (UNNAMED, UNNAMED_MAIN, UNNAMED_PART)
_NO_NAMES = ("annotation", "instance", "label", "mask", "object", "segment", "thing", "unknown")
_OWN_SHARE = 0.25  # share of a mask, not covered by smaller regions, that can give its color
_SAMPLED = 20_000  # pixels of a region above which its color is taken from a sample
_SHAPE_SIDE = 96  # pixels per side at which shapes are measured
_SHAPE_AREA = 25  # below this area (pixels) no shape word is used and every shape word is accepted


class Outline(NamedTuple):
    """Measures of a mask's outline, on which shape words depend."""

    aspect: float  # columns / rows of the box
    fill: float  # share of the box that the mask covers
    ratio: float  # of the long to the short axis of the ellipse with the same moments
    solid: float  # area / area of that ellipse: 1 for an ellipse, 0.95 for a rectangle
    hole: float  # share of the filled mask that is holes


# (word, is said of, fits) in order of preference. Only a round ring is said to be ring-shaped: a
# table has a hole too where a cup stands on it.
SHAPES: tuple[tuple[str, Callable[[Outline], bool], Callable[[Outline], bool]], ...] = (
    (
        "ring-shaped",
        lambda o: o.hole >= 0.25 and o.ratio < 2 and o.fill / (1 - o.hole) <= 0.9,
        lambda o: o.hole >= 0.08,
    ),
    (
        "round",
        lambda o: o.ratio <= 1.15 and o.solid >= 0.97 and 0.72 <= o.fill <= 0.84,
        lambda o: o.ratio <= 1.4 and o.solid >= 0.88 and o.fill <= 0.93,
    ),
    (
        "square",
        lambda o: o.fill >= 0.97 and 0.9 <= o.aspect <= 1.1,
        lambda o: o.fill >= 0.84 and 0.7 <= o.aspect <= 1.4,
    ),
    ("rectangular", lambda o: o.fill >= 0.97, lambda o: o.fill >= 0.84),
    ("tall", lambda o: o.aspect <= 0.4, lambda o: o.aspect <= 0.67),
    ("wide", lambda o: o.aspect >= 2.5, lambda o: o.aspect >= 1.5),
    ("long", lambda o: o.ratio >= 3.5, lambda o: o.ratio >= 2.2),
)


@dataclass(frozen=True)
class RegionAttributes:
    """Attributes of one region; `shapes` are said of it, `shape_fits` fit it in a wider sense.

    Lengths are in pixels, row 0 is the top, and boxes are (x, y, columns, rows).
    """

    region_id: int | str
    noun: str
    area: int
    center: tuple[float, float]
    box: tuple[int, int, int, int]
    color: RegionColor = field(default_factory=RegionColor)
    shapes: tuple[str, ...] = ()
    shape_fits: frozenset[str] = frozenset()


def measure_regions(
    image: RegionImage, tree: MaskTree, color: bool = True
) -> dict[int | str, RegionAttributes]:
    """Attributes of every region of an image.

    The color is that of the region's own pixels, without those that smaller regions cover, if
    they are at least a quarter of it. Regions with the same mask get the same measures.

    Args:
        image: the regions and, if `color` is set, the photo.
        tree: of the same regions; decides which of those without a name are parts.
        color: False needs no photo.

    Returns:
        Attributes by region id, in the order of the image.

    Raises:
        FileMissingError: the photo is needed but there is none.
        ValueError: the tree is not of these regions.
    """
    check_tree(image, tree)
    bins = color_bins(image.pixels) if color else None
    keys = mask_keys(image)
    distinct = {keys[region.id]: region for region in image}
    order = sorted(distinct, key=lambda key: (-distinct[key].area, key))
    measured = _measure_all([distinct[key] for key in order], bins)
    by_key = dict(zip(order, measured, strict=True))
    holders = different_ancestors(tree, keys)
    main = UNNAMED_MAIN if any(holders.values()) else UNNAMED
    attributes = {}
    for region in image:
        unnamed = UNNAMED_PART if holders[region.id] else main
        noun = region_noun(region.name, region.crowd) or unnamed
        own = by_key[keys[region.id]]
        attributes[region.id] = replace(own, region_id=region.id, noun=noun)
    return attributes


def _measure_all(regions: list[Region], bins: np.ndarray | None) -> list[RegionAttributes]:
    """Measures of regions from the largest, no two with the same mask; no nouns yet."""
    owner = np.full(regions[0].size if regions else (0, 0), -1, np.int32)
    found, samples = [], []
    for rank, region in enumerate(regions):
        box, mask = cropped_mask(region)
        np.copyto(owner[_window(box)], rank, where=mask)
        found.append(_measure(region, box, mask))
        if bins is not None:
            samples.append(_sample(bins[_window(box)], mask))
    if bins is None:
        return found
    for rank, region in enumerate(regions):
        window = _window(found[rank].box)
        own = owner[window] == rank
        enough = np.count_nonzero(own) >= _OWN_SHARE * region.area
        sample = _sample(bins[window], own) if enough else samples[rank]
        found[rank] = replace(found[rank], color=region_color(sample))
    return found


def check_tree(image: RegionImage, tree: MaskTree) -> None:
    """Raise ValueError unless the tree holds exactly the image's regions."""
    ids, known = {region.id for region in image}, {region.id for region in tree.regions}
    if ids != known:
        wrong = ", ".join(sorted(map(str, ids ^ known)))
        raise ValueError(f"the tree and the image are not of the same regions: {wrong}")


def region_noun(name: str | None, crowd: bool = False) -> str:
    """The noun in a region's name; "" if there is none.

    Names come from annotators, category lists and mask files: of "car, auto, machine" the first
    synonym is taken, and "tree-merged", "dining_table", "pagoda_02" and "bow_(weapon)" are "tree",
    "dining table", "pagoda" and "bow". An article is dropped.

    Args:
        name: as the file has it.
        crowd: the mask is of several things together: "person" is "people".
    """
    noun = re.split(r"[,;]", name or "")[0]
    noun = re.sub(r"_?\(.*?\)|(-(merged|other|stuff))+$|(?<=[^\W\d])[_-]?\d+$", "", noun.strip())
    noun = " ".join(noun.replace("_", " ").split())
    noun = re.sub(r"^(the|an?) (?=\S)", "", noun, flags=re.IGNORECASE)
    if noun.casefold() in (*_NO_NAMES, *NOUNS_WITHOUT_NAME) or not re.search(r"[^\W\d_]", noun):
        return ""
    return plural(noun) if crowd and not is_plural(noun) else noun


def mask_keys(regions: Iterable[Region]) -> dict[int | str, bytes]:
    """Keys by region id: equal if and only if the masks are, however they are encoded."""
    keys = {}
    for region in regions:
        ends = np.cumsum(run_lengths(region.rle["counts"]))
        places, times = np.unique(ends[ends < ends[-1]], return_counts=True)
        keys[region.id] = places[times % 2 == 1].tobytes()  # runs of no length cancel out
    return keys


def different_ancestors(
    tree: MaskTree, keys: dict[int | str, bytes]
) -> dict[int | str, list[int | str]]:
    """The ancestors by region id, from the parent up, without those with an equal mask."""
    return {
        region.id: [other for other in tree.ancestors(region.id) if keys[other] != keys[region.id]]
        for region in tree.regions
    }


def cropped_mask(region: Region) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """The region's box (x, y, columns, rows) in pixels and its (rows, columns) bool mask in it."""
    x, y, columns, rows = region.pixel_box
    height = region.size[0]
    # only the box's columns are decoded: most regions are small in their photo
    start, stop = x * height, (x + columns) * height
    ends = np.cumsum(run_lengths(region.rle["counts"])).clip(start, stop)
    inside = np.arange(ends.size) % 2 == 1
    pixels = np.repeat(inside, np.diff(ends, prepend=start))
    # column-major: (columns * height,) -> (rows, columns)
    return (x, y, columns, rows), pixels.reshape(columns, height).T[y : y + rows]


def _measure(region: Region, box: tuple[int, int, int, int], mask: np.ndarray) -> RegionAttributes:
    x, y, columns, rows = box
    # whole numbers, so that equal masks have equal centers to the last bit
    across = int(mask.sum(0, dtype=np.int64) @ np.arange(columns))
    down = int(mask.sum(1, dtype=np.int64) @ np.arange(rows))
    center = (x + across / region.area, y + down / region.area)
    shapes, fits = _shape(mask, region.area)
    return RegionAttributes(region.id, "", region.area, center, box, RegionColor(), shapes, fits)


def _shape(mask: np.ndarray, area: int) -> tuple[tuple[str, ...], frozenset[str]]:
    if area < _SHAPE_AREA:
        return (), frozenset(word for word, _, _ in SHAPES)
    outline = measure_outline(mask)
    said = tuple(word for word, says, _ in SHAPES if says(outline))
    return said, frozenset(word for word, _, fits in SHAPES if fits(outline)) | set(said)


def measure_outline(mask: np.ndarray) -> Outline:
    """Measure a (rows, columns) mask that is cropped to its box, on a sample of its pixels."""
    rows, columns = mask.shape
    step = max(1, -(-max(rows, columns) // _SHAPE_SIDE))
    if min(rows, columns) // step < 4:
        step = 1  # a sample would lose what is thin
    small = np.pad(mask[step // 2 :: step, step // 2 :: step], 1)
    ys, xs = np.nonzero(small)
    if len(ys) < 3:
        return Outline(columns / rows, float(mask.mean()), 1.0, 1.0, 0.0)
    # a pixel is a square of side 1, whose own spread is 1/12
    spread = np.cov(np.stack([xs, ys]), bias=True) + np.eye(2) / 12  # (2, 2)
    low, high = np.linalg.eigvalsh(spread)
    ellipse = 4 * np.pi * float(np.sqrt(low * high))
    hole = 1 - len(ys) / np.count_nonzero(ndimage.binary_fill_holes(small))
    ratio = float(np.sqrt(high / low))
    return Outline(columns / rows, float(mask.mean()), ratio, len(ys) / ellipse, hole)


def _sample(bins: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(N,) color cells of pixels inside the mask, on a grid if there are very many."""
    step = max(1, int(np.sqrt(mask.size / _SAMPLED)))
    chosen = bins[::step, ::step][mask[::step, ::step]]
    return chosen if chosen.size >= 100 else bins[mask]


def _window(box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    x, y, columns, rows = box
    return slice(y, y + rows), slice(x, x + columns)
